// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <vector>

namespace rollcall {

class JournalReader;

// Settings of two starts of a run that differ, each as "key: old -> new".
struct RunChanges {
  std::vector<std::string> refused;   // recovered rollouts, or the order of tasks, would mean else
  std::vector<std::string> accepted;  // anything else
  bool other_updates = false;         // of those: updates that are made again end in other weights
};

// Compares a run with how it began. `began` and `now` are what a journal says of its run
// (training_loop.cpp, about()): configuration, data, model. `last_config` is config.yaml of the
// latest start, if there is one: rollouts of an open step were sampled under it. `open_rows` says
// whether there are such. What only one side knows, as after an update of Rollcall, is left alone.
RunChanges run_changes(const std::string& began, const std::string& now,
                       const std::optional<std::string>& last_config, bool open_rows);

// What a run folder holds before a start touches it.
struct ResumePoint {
  std::filesystem::path config, journal;            // either may be absent
  std::optional<std::filesystem::path> checkpoint;  // the newest whole one
  std::int64_t checkpoint_rows = 0;                 // journal rows that it counts
};

// Throws an input Error if the run would not be the one that began: a setting of
// RunChanges::refused, or a journal that is absent or older than the checkpoint. Logs accepted
// changes in one line. Returns RunChanges::other_updates.
bool check_resume(const ResumePoint&, const std::string& about);

// The end of the rows, from `first_row` on, that were sampled by the policy of `step` or before.
std::int64_t end_of_step(const JournalReader&, std::int64_t first_row, std::int64_t step);

// A run whose configuration a resume has changed keeps the former ones: each file by the first step
// that is not of it.
std::map<std::int64_t, std::filesystem::path> former_configs(const std::filesystem::path& run_dir);
// Writes config.yaml for the steps from `step` on; what was there stays as the configuration of the
// steps before, unless there are none, nothing has changed, or an earlier start has kept theirs.
// What was kept of steps behind `step`, which are made again, goes.
void write_config(const std::filesystem::path& run_dir, std::int64_t step, const std::string& text);

}  // namespace rollcall
