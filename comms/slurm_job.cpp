// SPDX-License-Identifier: Apache-2.0
#include "comms/slurm_job.h"

#include <algorithm>
#include <cctype>
#include <charconv>
#include <cstdlib>
#include <utility>
#include <vector>

#include "comms/error.h"
#include "comms/program_output.h"

namespace rollcall {
namespace {

struct Answer {
  bool ok = false;
  std::string text;  // without spaces at its ends
};

std::string trimmed(const std::string& text) {
  constexpr const char* kSpace = " \t\r\n";
  const auto first = text.find_first_not_of(kSpace);
  if (first == std::string::npos) return {};
  return text.substr(first, text.find_last_not_of(kSpace) - first + 1);
}

// Both streams of a command, which is ended if it takes longer: Slurm's wait long for a controller
// that is down.
Answer ask(int seconds, const std::vector<std::string>& command) {
  std::vector<std::string> words{"timeout", "-k", "5", std::to_string(seconds)};
  words.insert(words.end(), command.begin(), command.end());
  const ProgramOutput end = program_output(std::move(words));
  return {end.start_error == 0 && end.code == 0, trimmed(end.text)};
}

// Takes a number off the front of `text`.
std::optional<std::int64_t> take_number(std::string_view& text) {
  std::int64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || value < 0 || value > 1'000'000'000) return std::nullopt;
  text.remove_prefix(static_cast<std::size_t>(end - text.data()));
  return value;
}

bool take(std::string_view& text, char c) {
  if (!text.starts_with(c)) return false;
  text.remove_prefix(1);
  return true;
}

// Digits, or "" for anything else.
std::string number_in_environment(const char* variable) {
  const char* set = std::getenv(variable);
  const std::string text = set == nullptr ? "" : set;
  const bool is_number =
      std::ranges::all_of(text, [](unsigned char c) { return std::isdigit(c) != 0; });
  return is_number ? text : "";
}

}  // namespace

std::optional<std::chrono::seconds> parse_slurm_duration(std::string_view text) {
  auto number = take_number(text);
  if (!number) return std::nullopt;
  std::int64_t days = 0, sum = *number;
  if (take(text, '-')) {
    days = *number;
    number = take_number(text);
    if (!number) return std::nullopt;
    sum = *number;
  }
  while (take(text, ':')) {
    number = take_number(text);
    if (!number) return std::nullopt;
    sum = sum * 60 + *number;
  }
  if (!text.empty()) return std::nullopt;
  return std::chrono::seconds(days * 86400 + sum);
}

std::optional<SlurmJob> SlurmJob::of_environment() {
  const std::string id = number_in_environment("SLURM_JOB_ID");
  if (id.empty()) return std::nullopt;
  // The number of an array names all of its jobs, and one of them has it for its own.
  const std::string array = number_in_environment("SLURM_ARRAY_JOB_ID");
  const std::string task = number_in_environment("SLURM_ARRAY_TASK_ID");
  return SlurmJob(array.empty() || task.empty() ? id : array + "_" + task);
}

std::optional<std::chrono::seconds> SlurmJob::time_left() const {
  const Answer answer = ask(15, {"squeue", "--noheader", "--jobs=" + id_, "--format=%L"});
  return answer.ok ? parse_slurm_duration(answer.text) : std::nullopt;
}

bool SlurmJob::preempted() const {
  const std::string field = " PreemptTime=";
  const Answer answer = ask(15, {"scontrol", "--oneliner", "show", "job", id_});
  const auto at = answer.text.find(field);
  return answer.ok && at != std::string::npos &&
         std::isdigit(static_cast<unsigned char>(answer.text[at + field.size()])) != 0;
}

void SlurmJob::requeue() const {
  const Answer answer = ask(60, {"scontrol", "requeue", id_});
  if (answer.ok) return;
  throw Error("Slurm does not put job " + id_ + " back into the queue: " + answer.text,
              "submit it again: the run goes on where it stopped. `rollcall submit --chain` needs "
              "no requeueing");
}

}  // namespace rollcall
