// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <optional>
#include <string>
#include <string_view>

namespace rollcall {

// The Slurm job that this process runs in. Works through Slurm's own commands, so that one binary
// serves every version of it.
class SlurmJob {
 public:
  // Nothing outside of a job.
  static std::optional<SlurmJob> of_environment();

  const std::string& id() const { return id_; }  // of an array "17_3"

  // Until the job's time limit, which may change while it runs. Nothing if there is no limit or
  // Slurm does not answer. Blocks for seconds where Slurm is slow.
  std::optional<std::chrono::seconds> time_left() const;

  // Whether Slurm has begun to take the job's nodes for one of higher priority. A job that ends by
  // itself in the time of grace is not one that Slurm puts back. False if Slurm does not answer.
  bool preempted() const;

  // Puts the job back into the queue, whereupon Slurm ends it and this process. Throws Error with
  // Slurm's words if that is not allowed.
  void requeue() const;

 private:
  explicit SlurmJob(std::string id) : id_(std::move(id)) {}
  std::string id_;
};

// Slurm's [days-][[hours:]minutes:]seconds; nothing for words such as UNLIMITED.
std::optional<std::chrono::seconds> parse_slurm_duration(std::string_view text);

}  // namespace rollcall
