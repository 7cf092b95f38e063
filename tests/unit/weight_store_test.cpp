// SPDX-License-Identifier: Apache-2.0
#include "comms/weight_store.h"

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstring>
#include <filesystem>
#include <span>
#include <utility>
#include <vector>

#include "comms/error.h"

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

// The newest version and its bytes.
std::pair<std::int64_t, std::vector<char>> newest(const WeightReader& reader) {
  std::vector<char> copy;
  const std::int64_t version =
      reader.load([&](std::int64_t, std::span<const std::byte> bytes) { copy = to_vector(bytes); });
  return {version, copy};
}

const UseWeights kNoUse = [](std::int64_t, std::span<const std::byte>) {};

TEST(WeightStore, ReaderSeesTheNewestVersion) {
  WeightStore store(kBytes, 2, WeightStore::Backing::kAnonymousFile);
  const WeightReader reader(store.address(), kBytes, 2, 1);
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
  const WeightReader reader(store.address(), kBytes, 1, 0);
  publish(store, 3);
  store.open_slot();
  EXPECT_EQ(reader.load(kNoUse), 3);
  EXPECT_FALSE(store.reading(0));
}

TEST(WeightStore, RefusesDamagedMemory) {
  WeightStore store(kBytes, 1, WeightStore::Backing::kAnonymousFile);
  const WeightReader reader(store.address(), kBytes, 1, 0);
  publish(store, 1);
  const_cast<std::byte&>(store.newest_weights()[kBytes / 2]) ^= std::byte{1};
  int calls = 0;
  EXPECT_THROW(reader.load([&](std::int64_t, std::span<const std::byte>) { ++calls; }), Error);
  EXPECT_EQ(calls, 0);
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
  const WeightReader reader(store.address(), kBytes, 1, 0);
  store.unlink();
  EXPECT_FALSE(std::filesystem::exists(path));
  publish(store, 5);
  EXPECT_EQ(reader.load(kNoUse), 5);
}

TEST(WeightStore, PrivateMemoryHoldsVersionsToo) {
  WeightStore store(kBytes, 1, WeightStore::Backing::kPrivate);
  publish(store, 2);
  EXPECT_EQ(store.newest_version(), 2);
  EXPECT_EQ(weights_checksum(store.newest_weights()), store.newest_checksum());
  EXPECT_EQ(to_vector(store.newest_weights()), weights_of(2));
}

TEST(WeightStore, HoldsNothingToo) {
  WeightStore store(0, 1, WeightStore::Backing::kAnonymousFile);
  const WeightReader reader(store.address(), 0, 1, 0);
  store.open_slot();
  store.write(1, [](std::span<std::byte> out) { EXPECT_TRUE(out.empty()); });
  EXPECT_EQ(reader.load(kNoUse), 1);
}

// The writer waits for readers that are alive; one that it has given up may see its slot change.
TEST(WeightStore, AReaderThatWasOvertakenIsGivenTheNewerVersion) {
  WeightStore store(kBytes, 1, WeightStore::Backing::kAnonymousFile);
  const WeightReader reader(store.address(), kBytes, 1, 0);
  publish(store, 1);
  std::vector<std::int64_t> given;
  const std::int64_t version = reader.load([&](std::int64_t now, std::span<const std::byte> bytes) {
    given.push_back(now);
    if (now > 1) return;
    publish(store, 2);
    store.open_slot();
    EXPECT_TRUE(store.reading(0));
    write(store, 3);
    EXPECT_EQ(to_vector(bytes), weights_of(3));
  });
  EXPECT_EQ(version, 3);
  EXPECT_EQ(given, (std::vector<std::int64_t>{1, 3}));
}

// A reader in another process sees only whole versions while the writer publishes without a pause.
TEST(WeightStore, AReaderNeverSeesAHalfWrittenVersion) {
  WeightStore store(kBytes, 1, WeightStore::Backing::kAnonymousFile);
  publish(store, 0);
  const StoreAddress address = store.address();
  constexpr std::int64_t kLast = 100;
  const pid_t child = ::fork();
  if (child == 0) {
    const WeightReader reader(address, kBytes, 1, 0);
    std::int64_t before = 0;
    while (before < kLast) {
      const auto [version, out] = newest(reader);
      if (version < before || out != weights_of(version)) ::_exit(1);
      before = version;
    }
    ::_exit(0);
  }
  for (std::int64_t version = 1; version <= kLast; ++version) {
    store.open_slot();
    while (store.reading(0)) ::usleep(10);
    write(store, version);
  }
  int status = 0;
  ::waitpid(child, &status, 0);
  EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

}  // namespace
}  // namespace rollcall
