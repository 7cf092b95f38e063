// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <compare>
#include <cstdint>
#include <filesystem>

#include "comms/world.h"

namespace rollcall {

// How far a run has come. A life of it that leaves it where it was would do so again.
struct Headway {
  std::int64_t step = 0;
  std::int64_t rollouts = 0;  // committed to the journal

  auto operator<=>(const Headway&) const = default;
};
// 0 rollouts where the journal is missing or cannot be read.
Headway headway(const std::filesystem::path& run_dir);

enum class NextJob {
  kNone,      // it is done, has failed, or a person stopped it
  kSame,      // the same job can go on with it
  kPointless  // it could, but this one has brought it no further
};
NextJob next_job(const JobEnd&, bool moved);

}  // namespace rollcall
