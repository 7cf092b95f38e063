// SPDX-License-Identifier: Apache-2.0
#include "comms/file_lock.h"

#include <gtest/gtest.h>
#include <signal.h>

#include <chrono>
#include <future>
#include <optional>
#include <thread>

#include "comms/error.h"
#include "comms/stop_signal.h"
#include "tests/unit/temp_folder.h"

namespace rollcall {
namespace {

using std::chrono::milliseconds;
using std::chrono::minutes;

TEST(FileLock, RefusesASecondWriterAtOnce) {
  const TempFolder folder;
  const FileLock first(folder / "run.lock", "run");
  EXPECT_THROW(FileLock(folder / "run.lock", "run"), Error);
}

TEST(FileLock, WaitsForOneThatIsStillEnding) {
  const TempFolder folder;
  std::optional<FileLock> first(std::in_place, folder / "run.lock", "run");
  auto next =
      std::async(std::launch::async, [&] { FileLock(folder / "run.lock", "run", minutes(1)); });
  EXPECT_EQ(next.wait_for(milliseconds(200)), std::future_status::timeout);
  first.reset();
  next.get();
}

TEST(FileLock, WaitsNoLongerThanItsPatience) {
  const TempFolder folder;
  const FileLock first(folder / "run.lock", "run");
  EXPECT_THROW(FileLock(folder / "run.lock", "run", milliseconds(150)), Error);
}

TEST(FileLock, StopsWaitingWhenAskedToStop) {
  const TempFolder folder;
  const FileLock first(folder / "run.lock", "run");
  const StopSignal stop;
  auto next =
      std::async(std::launch::async, [&] { FileLock(folder / "run.lock", "run", minutes(1)); });
  ::raise(SIGUSR1);
  ASSERT_EQ(next.wait_for(std::chrono::seconds(30)), std::future_status::ready);
  EXPECT_THROW(next.get(), Error);
}

}  // namespace
}  // namespace rollcall
