// SPDX-License-Identifier: Apache-2.0
#include "rollcall/requeue.h"

#include "comms/error.h"
#include "trainer/journal.h"
#include "trainer/result.h"

namespace rollcall {

namespace {

std::int64_t committed_rollouts(const std::filesystem::path& journal) try {
  return std::filesystem::exists(journal) ? JournalReader(journal).committed_rows() : 0;
} catch (const Error&) {
  return 0;
}

}  // namespace

Headway headway(const std::filesystem::path& run_dir) {
  return {read_result(run_dir).value_or(RunResult{}).step,
          committed_rollouts(run_dir / "journal" / "learner-0.h5")};
}

NextJob next_job(const JobEnd& end, bool moved) {
  const bool resumable = end.code == static_cast<int>(ExitCode::kStopped);
  if (!resumable || end.asked == StopCause::kPerson) return NextJob::kNone;
  return moved ? NextJob::kSame : NextJob::kPointless;
}

}  // namespace rollcall
