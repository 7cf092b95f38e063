// SPDX-License-Identifier: Apache-2.0
#include "rollcall/requeue.h"

#include "comms/error.h"
#include "trainer/result.h"

namespace rollcall {

Headway headway(const std::filesystem::path& run_dir) {
  std::error_code absent;
  const auto bytes = std::filesystem::file_size(run_dir / "journal" / "learner-0.h5", absent);
  return {read_result(run_dir).value_or(RunResult{}).step, absent ? 0 : bytes};
}

NextJob next_job(const JobEnd& end, bool moved) {
  const bool resumable = end.code == static_cast<int>(ExitCode::kStopped);
  if (!resumable || end.asked == StopCause::kPerson) return NextJob::kNone;
  return moved ? NextJob::kSame : NextJob::kPointless;
}

}  // namespace rollcall
