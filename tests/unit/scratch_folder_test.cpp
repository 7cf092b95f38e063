// SPDX-License-Identifier: Apache-2.0
#include "comms/scratch_folder.h"

#include <gtest/gtest.h>

#include <chrono>
#include <optional>

#include "temp_folder.h"

namespace rollcall {
namespace {

namespace fs = std::filesystem;

void age(const fs::path& folder) {
  fs::last_write_time(folder, fs::file_time_type::clock::now() - std::chrono::minutes(2));
}

TEST(ScratchFolder, GoesWithAllThatIsInIt) {
  const TempFolder parent;
  {
    const ScratchFolder scratch(parent.path());
    spit(scratch.path() / "a/b", "text");
  }
  EXPECT_TRUE(fs::is_empty(parent.path()));
}

TEST(ScratchFolder, OfAKilledProcessGoesWhenAnotherIsMade) {
  const TempFolder parent;
  const fs::path orphan = parent / "rollcall-scratch-abcdef";
  spit(orphan / "mpi/segment", "left");
  const fs::path young = parent / "rollcall-scratch-ghijkl", foreign = parent / "somebody-elses";
  fs::create_directory(young);
  fs::create_directory(foreign);
  age(orphan);
  age(foreign);
  std::optional<ScratchFolder> held(parent.path());
  age(held->path());
  const ScratchFolder another(parent.path());
  EXPECT_FALSE(fs::exists(orphan));
  EXPECT_TRUE(fs::exists(young));
  EXPECT_TRUE(fs::exists(foreign));
  EXPECT_TRUE(fs::exists(held->path()));
}

TEST(ScratchFolder, IsNowhereIfThereCanBeNone) {
  EXPECT_TRUE(ScratchFolder("/nonexistent").path().empty());
}

}  // namespace
}  // namespace rollcall
