// SPDX-License-Identifier: Apache-2.0
#include "comms/weight_store.h"

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "comms/error.h"
#include "comms/message_weights.h"

namespace rollcall {
namespace {

constexpr std::size_t kBytes = (1 << 20) + 3;

std::vector<char> weights_of(std::int64_t version) {
  return std::vector<char>(kBytes, static_cast<char>(version));
}

void write(WeightStore& store, std::int64_t version) {
  store.write(version, [&](std::span<std::byte> out) {
    ASSERT_EQ(out.size(), kBytes);
    std::memcpy(out.data(), weights_of(version).data(), kBytes);
  });
}

void publish(WeightStore& store, std::int64_t version) {
  store.open_slot();
  write(store, version);
}

std::vector<char> to_vector(std::span<const std::byte> bytes) {
  std::vector<char> copy(bytes.size());
  std::memcpy(copy.data(), bytes.data(), bytes.size());
  return copy;
}

// What a reader was given last. A class that uses weights in place, or copies them.
struct User {
  std::int64_t version = -1;
  std::span<const std::byte> bytes;
  int times = 0;

  UseWeights with(WeightsUse how) {
    return [this, how](std::int64_t given, std::span<const std::byte> weights) {
      version = given;
      bytes = weights;
      ++times;
      return how;
    };
  }
  bool intact() const { return to_vector(bytes) == weights_of(version); }
};

// The newest version and its bytes.
std::pair<std::int64_t, std::vector<char>> newest(WeightReader& reader) {
  std::vector<char> copy;
  const std::int64_t version = reader.load([&](std::int64_t, std::span<const std::byte> bytes) {
    copy = to_vector(bytes);
    return WeightsUse::kCopied;
  });
  return {version, copy};
}

const UseWeights kNoUse = [](std::int64_t, std::span<const std::byte>) {
  return WeightsUse::kCopied;
};

TEST(WeightStore, ReaderSeesTheNewestVersion) {
  WeightStore store(kBytes, 2, WeightStore::Backing::kAnonymousFile);
  WeightReader reader(store.address(), kBytes, 2, 1);
  EXPECT_EQ(reader.newest_version(), -1);
  EXPECT_THROW(reader.load(kNoUse), Error);
  for (const std::int64_t version : {0, 1, 2, 7}) {
    publish(store, version);
    EXPECT_EQ(reader.newest_version(), version);
    EXPECT_EQ(newest(reader), std::pair(version, weights_of(version)));
  }
}

TEST(WeightStore, KeepsTheNewestReadableWhileTheNextIsPrepared) {
  WeightStore store(kBytes, 1, WeightStore::Backing::kAnonymousFile);
  WeightReader reader(store.address(), kBytes, 1, 0);
  publish(store, 3);
  store.open_slot();
  EXPECT_EQ(reader.load(kNoUse), 3);
  EXPECT_FALSE(store.held_by(0));
}

TEST(WeightStore, RefusesStrangers) {
  const WeightStore store(kBytes, 1, WeightStore::Backing::kAnonymousFile);
  StoreAddress wrong = store.address();
  ++wrong.nonce;
  EXPECT_THROW(WeightReader(wrong, kBytes, 1, 0), Error);
  EXPECT_THROW(WeightReader(store.address(), kBytes * 2, 1, 0), Error);
  EXPECT_THROW(WeightReader({"/proc/self/fd/99999", 0}, kBytes, 1, 0), Error);
  EXPECT_THROW(WeightReader({"/proc/self/exe", 0}, kBytes, 1, 0), Error);
}

TEST(WeightStore, NamedMemoryLivesOnWithoutItsName) {
  WeightStore store(kBytes, 1, WeightStore::Backing::kNamedFile);
  const std::string path = store.address().path;
  EXPECT_TRUE(std::filesystem::exists(path));
  WeightReader reader(store.address(), kBytes, 1, 0);
  store.unlink();
  EXPECT_FALSE(std::filesystem::exists(path));
  publish(store, 5);
  EXPECT_EQ(reader.load(kNoUse), 5);
}

TEST(WeightStore, PrivateMemoryHoldsVersionsToo) {
  WeightStore store(kBytes, 1, WeightStore::Backing::kPrivate);
  publish(store, 2);
  EXPECT_EQ(store.newest_version(), 2);
  EXPECT_EQ(to_vector(store.newest_weights()), weights_of(2));
}

TEST(WeightStore, HoldsNothingToo) {
  WeightStore store(0, 1, WeightStore::Backing::kAnonymousFile);
  WeightReader reader(store.address(), 0, 1, 0);
  store.open_slot();
  store.write(1, [](std::span<std::byte> out) { EXPECT_TRUE(out.empty()); });
  EXPECT_EQ(reader.load(kNoUse), 1);
}

// The writer waits for readers that are alive; one that it has given up may see its slot change.
TEST(WeightStore, AReaderThatWasOvertakenIsGivenTheNewerVersion) {
  WeightStore store(kBytes, 1, WeightStore::Backing::kAnonymousFile);
  WeightReader reader(store.address(), kBytes, 1, 0);
  publish(store, 1);
  std::vector<std::int64_t> given;
  const std::int64_t version = reader.load([&](std::int64_t now, std::span<const std::byte> bytes) {
    given.push_back(now);
    if (now > 1) return WeightsUse::kCopied;
    publish(store, 2);
    store.open_slot();
    EXPECT_TRUE(store.held_by(0));
    write(store, 3);
    EXPECT_EQ(to_vector(bytes), weights_of(3));
    return WeightsUse::kCopied;
  });
  EXPECT_EQ(version, 3);
  EXPECT_EQ(given, (std::vector<std::int64_t>{1, 3}));
}

// A store and its reader, which uses weights in place.
class WeightsInPlace : public testing::Test {
 protected:
  // The reader holds the first of two versions.
  void hold_the_older_slot() {
    publish(store, 1);
    reader.load(use);
    publish(store, 2);
  }

  WeightStore store{kBytes, 1, WeightStore::Backing::kAnonymousFile};
  WeightReader reader{store.address(), kBytes, 1, 0};
  User user;
  const UseWeights use = user.with(WeightsUse::kInPlace);
};

TEST_F(WeightsInPlace, AReaderHoldsWhatItUsesInPlaceUntilItTakesTheNext) {
  publish(store, 1);
  EXPECT_EQ(reader.load(use), 1);
  publish(store, 2);  // into the other slot
  EXPECT_TRUE(reader.give_way(use));
  EXPECT_EQ(user.times, 1) << "nobody wants its slot";
  EXPECT_TRUE(user.intact());
  EXPECT_EQ(reader.load(use), 2);
  store.open_slot();
  EXPECT_FALSE(store.held_by(0)) << "it has taken the next";
  write(store, 3);
  EXPECT_EQ(user.version, 2);
  EXPECT_TRUE(user.intact());
}

TEST_F(WeightsInPlace, AReaderGivesWayWithACopyOnceTheWriterWantsItsSlot) {
  hold_the_older_slot();
  const auto* shared = user.bytes.data();
  store.open_slot();
  EXPECT_TRUE(store.held_by(0));
  EXPECT_TRUE(reader.give_way(use));
  EXPECT_FALSE(store.held_by(0));
  EXPECT_EQ(user.version, 1);
  EXPECT_NE(user.bytes.data(), shared);
  EXPECT_EQ(reinterpret_cast<std::uintptr_t>(user.bytes.data()) % 64, 0U);
  write(store, 3);
  EXPECT_TRUE(reader.give_way(use)) << "it holds nothing";
  EXPECT_EQ(user.times, 2);
  EXPECT_TRUE(user.intact());
  EXPECT_EQ(reader.load(use), 3);
  EXPECT_TRUE(user.intact());
}

TEST_F(WeightsInPlace, AReaderThatWasGivenUpLearnsThatItsWeightsAreOverwritten) {
  hold_the_older_slot();
  store.open_slot();
  store.write(3, [&](std::span<std::byte> out) {
    out[0] = std::byte{9};
    EXPECT_FALSE(reader.give_way(use)) << "half written";
  });
  EXPECT_FALSE(reader.give_way(use));
  EXPECT_EQ(user.times, 1);
}

// It wakes while the writer wants the slot anew, with a later version in it.
TEST_F(WeightsInPlace, AReaderThatWasGivenUpTakesNoLaterVersionForItsOwn) {
  for (const std::int64_t version : {1, 2, 3, 4}) {
    publish(store, version);
    if (version == 1) reader.load(use);
    EXPECT_EQ(reader.overwritten(), version >= 3);
  }
  store.open_slot();
  EXPECT_TRUE(reader.overwritten());
  EXPECT_FALSE(reader.give_way(use));
  EXPECT_EQ(user.version, 1);
}

TEST(WeightStore, AReaderFarAwayHasWeightsInItsOwnMemory) {
  WeightStore store(kBytes, 1, WeightStore::Backing::kAnonymousFile);
  WeightReader reader(store.address(), kBytes, 1, 0, WeightReader::Place::kPrivate);
  User user;
  for (const std::int64_t version : {1, 3, 5}) {
    publish(store, version);
    EXPECT_TRUE(user.version < 0 || user.intact());
    EXPECT_EQ(reader.load(user.with(WeightsUse::kInPlace)), version);
    publish(store, version + 1);
    store.open_slot();
    EXPECT_FALSE(store.held_by(0));
    EXPECT_TRUE(user.intact());
  }
  User copies;
  reader.load(copies.with(WeightsUse::kCopied));
  EXPECT_EQ(copies.times, 1) << "has its own copy";
}

TEST(WeightStore, AReaderThatGoesLetsGo) {
  WeightStore store(kBytes, 1, WeightStore::Backing::kAnonymousFile);
  publish(store, 1);
  User user;
  auto reader = std::make_unique<WeightReader>(store.address(), kBytes, 1, 0);
  reader->load(user.with(WeightsUse::kInPlace));
  publish(store, 2);
  store.open_slot();
  EXPECT_TRUE(store.held_by(0));
  reader.reset();
  EXPECT_FALSE(store.held_by(0));
}

// Runs `read` in another process while the writer publishes without a pause; true if it was
// content.
bool publishing_to(const std::function<bool(WeightReader&, std::int64_t last)>& read) {
  WeightStore store(kBytes, 1, WeightStore::Backing::kAnonymousFile);
  publish(store, 0);
  const StoreAddress address = store.address();
  constexpr std::int64_t kLast = 100;
  const pid_t child = ::fork();
  if (child == 0) {
    WeightReader reader(address, kBytes, 1, 0);
    ::_exit(read(reader, kLast) ? 0 : 1);
  }
  int status = 0;
  for (std::int64_t version = 1; version <= kLast; ++version) {
    store.open_slot();
    while (store.held_by(0)) {
      if (::waitpid(child, &status, WNOHANG) == child) return false;
      ::usleep(10);
    }
    write(store, version);
  }
  ::waitpid(child, &status, 0);
  return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

TEST(WeightStore, AReaderNeverSeesAHalfWrittenVersion) {
  EXPECT_TRUE(publishing_to([](WeightReader& reader, std::int64_t last) {
    for (std::int64_t before = 0; before < last;) {
      const auto [version, out] = newest(reader);
      if (version < before || out != weights_of(version)) return false;
      before = version;
    }
    return true;
  }));
}

TEST(WeightStore, WeightsInUseNeverChange) {
  EXPECT_TRUE(publishing_to([](WeightReader& reader, std::int64_t last) {
    User user;
    const UseWeights use = user.with(WeightsUse::kInPlace);
    for (int steps = 0; user.version < last; ++steps) {
      if (steps % 3 == 0) reader.load(use);  // with several versions between, and without
      if (!user.intact() || !reader.give_way(use) || !user.intact()) return false;
    }
    return true;
  }));
}

void arrive(MessageWeights& weights, std::int64_t version, std::size_t chunk = 300000) {
  const std::vector<char> bytes = weights_of(version);
  weights.begin({version, weights_checksum(std::as_bytes(std::span(bytes)))});
  for (std::size_t at = 0; at < kBytes; at += chunk)
    weights.chunk({bytes.data() + at, std::min(chunk, kBytes - at)});
}

TEST(MessageWeights, InUseStayWhileOthersArrive) {
  MessageWeights weights(kBytes);
  EXPECT_EQ(weights.version(), -1);
  arrive(weights, 1);
  User user;
  EXPECT_EQ(weights.load(user.with(WeightsUse::kInPlace)), 1);
  EXPECT_EQ(reinterpret_cast<std::uintptr_t>(user.bytes.data()) % 64, 0U);
  for (const std::int64_t version : {2, 3, 4}) {
    arrive(weights, version);
    EXPECT_EQ(weights.version(), version);
    EXPECT_TRUE(user.intact()) << version;
  }
  EXPECT_EQ(weights.load(user.with(WeightsUse::kInPlace)), 4);
  EXPECT_TRUE(user.intact());
  EXPECT_EQ(weights.load(user.with(WeightsUse::kCopied)), 4) << "may be taken again";
  EXPECT_TRUE(user.intact());
}

TEST(MessageWeights, AreDroppedIfTheyAreNotWhatWasSent) {
  MessageWeights weights(kBytes);
  weights.chunk("before its beginning");
  arrive(weights, 1);
  User user;
  weights.load(user.with(WeightsUse::kInPlace));
  weights.begin({2, 12345});
  weights.chunk(std::string(kBytes + 1, 'x'));  // too many
  EXPECT_EQ(weights.version(), 1);
  weights.chunk(std::string(kBytes, 'x'));
  EXPECT_EQ(weights.version(), -1);
  EXPECT_TRUE(user.intact());
  arrive(weights, 3);
  EXPECT_EQ(weights.version(), 3);
}

TEST(MessageWeights, OfNothingAreCompleteAtOnce) {
  MessageWeights weights(0);
  weights.begin({4, weights_checksum({})});
  EXPECT_EQ(weights.load(kNoUse), 4);
}

}  // namespace
}  // namespace rollcall
