// SPDX-License-Identifier: Apache-2.0
#include "comms/weight_store.h"

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <vector>

#include "comms/error.h"

namespace rollcall {
namespace {

constexpr std::size_t kBytes = (1 << 20) + 3;

std::vector<char> weights_of(std::int64_t version) {
  return std::vector<char>(kBytes, static_cast<char>(version));
}

void publish(WeightStore& store, std::int64_t version) {
  store.open_slot();
  store.write(version, weights_of(version).data());
}

TEST(WeightStore, ReaderSeesTheNewestVersion) {
  WeightStore store(kBytes, 2, WeightStore::Backing::kAnonymousFile);
  const WeightReader reader(store.address(), kBytes, 2, 1);
  std::vector<char> out(kBytes);
  EXPECT_EQ(reader.newest_version(), -1);
  EXPECT_THROW(reader.load(out.data()), Error);
  for (const std::int64_t version : {0, 1, 2, 7}) {
    publish(store, version);
    EXPECT_EQ(reader.newest_version(), version);
    EXPECT_EQ(reader.load(out.data()), version);
    EXPECT_EQ(out, weights_of(version));
  }
}

TEST(WeightStore, KeepsTheNewestReadableWhileTheNextIsPrepared) {
  WeightStore store(kBytes, 1, WeightStore::Backing::kAnonymousFile);
  const WeightReader reader(store.address(), kBytes, 1, 0);
  publish(store, 3);
  store.open_slot();
  std::vector<char> out(kBytes);
  EXPECT_EQ(reader.load(out.data()), 3);
  EXPECT_FALSE(store.reading(0));
}

TEST(WeightStore, RefusesDamagedMemory) {
  WeightStore store(kBytes, 1, WeightStore::Backing::kAnonymousFile);
  const WeightReader reader(store.address(), kBytes, 1, 0);
  publish(store, 1);
  const_cast<std::byte&>(store.newest_weights()[kBytes / 2]) ^= std::byte{1};
  std::vector<char> out(kBytes);
  EXPECT_THROW(reader.load(out.data()), Error);
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
  std::vector<char> out(kBytes);
  EXPECT_EQ(reader.load(out.data()), 5);
}

TEST(WeightStore, PrivateMemoryHoldsVersionsToo) {
  WeightStore store(kBytes, 1, WeightStore::Backing::kPrivate);
  publish(store, 2);
  EXPECT_EQ(store.newest_version(), 2);
  std::vector<char> out(kBytes);
  EXPECT_EQ(copy_and_hash(out.data(), store.newest_weights().data(), kBytes),
            store.newest_checksum());
  EXPECT_EQ(out, weights_of(2));
}

TEST(WeightStore, HoldsNothingToo) {
  WeightStore store(0, 1, WeightStore::Backing::kAnonymousFile);
  const WeightReader reader(store.address(), 0, 1, 0);
  store.open_slot();
  store.write(1, nullptr);
  EXPECT_EQ(reader.load(nullptr), 1);
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
    std::vector<char> out(kBytes);
    std::int64_t before = 0;
    while (before < kLast) {
      const std::int64_t version = reader.load(out.data());
      if (version < before || out != weights_of(version)) ::_exit(1);
      before = version;
    }
    ::_exit(0);
  }
  for (std::int64_t version = 1; version <= kLast; ++version) {
    store.open_slot();
    while (store.reading(0)) ::usleep(10);
    store.write(version, weights_of(version).data());
  }
  int status = 0;
  ::waitpid(child, &status, 0);
  EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

}  // namespace
}  // namespace rollcall
