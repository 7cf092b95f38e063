// SPDX-License-Identifier: Apache-2.0
#include "comms/slurm_job.h"

#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <cerrno>
#include <charconv>
#include <cstdlib>
#include <utility>
#include <vector>

#include "comms/error.h"

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

// The child with no signal blocked, as this process may have them: timeout(1) could not wait then.
// -1: it could not be started.
pid_t start(std::vector<std::string> words, int output) {
  std::vector<char*> arguments;
  for (std::string& word : words) arguments.push_back(word.data());
  arguments.push_back(nullptr);
  posix_spawn_file_actions_t files;
  ::posix_spawn_file_actions_init(&files);
  ::posix_spawn_file_actions_addopen(&files, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
  ::posix_spawn_file_actions_adddup2(&files, output, STDOUT_FILENO);
  ::posix_spawn_file_actions_adddup2(&files, output, STDERR_FILENO);
  posix_spawnattr_t attributes;
  ::posix_spawnattr_init(&attributes);
  sigset_t none;
  sigemptyset(&none);
  ::posix_spawnattr_setsigmask(&attributes, &none);
  ::posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK);
  pid_t child = -1;
  const int failed =
      ::posix_spawnp(&child, arguments[0], &files, &attributes, arguments.data(), environ);
  ::posix_spawnattr_destroy(&attributes);
  ::posix_spawn_file_actions_destroy(&files);
  return failed == 0 ? child : -1;
}

std::string read_all(int descriptor) {
  std::string text;
  std::array<char, 512> part{};
  for (;;) {
    const auto size = ::read(descriptor, part.data(), part.size());
    if (size < 0 && errno == EINTR) continue;
    if (size <= 0) return text;
    text.append(part.data(), static_cast<std::size_t>(size));
  }
}

bool ended_well(pid_t child) {
  int status = 1;
  while (::waitpid(child, &status, 0) < 0 && errno == EINTR) {
  }
  return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

// Both streams of a command, which is ended if it takes longer: Slurm's wait long for a controller
// that is down.
Answer ask(int seconds, const std::vector<std::string>& command) {
  std::vector<std::string> words{"timeout", "-k", "5", std::to_string(seconds)};
  words.insert(words.end(), command.begin(), command.end());
  std::array<int, 2> ends{};
  if (::pipe2(ends.data(), O_CLOEXEC) != 0) return {};
  const pid_t child = start(std::move(words), ends[1]);
  ::close(ends[1]);
  const std::string text = child < 0 ? "" : read_all(ends[0]);
  ::close(ends[0]);
  return {child >= 0 && ended_well(child), trimmed(text)};
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

void SlurmJob::requeue() const {
  const Answer answer = ask(60, {"scontrol", "requeue", id_});
  if (answer.ok) return;
  throw Error("Slurm does not put job " + id_ + " back into the queue: " + answer.text,
              "submit it again: the run goes on where it stopped. `rollcall submit --chain` needs "
              "no requeueing");
}

}  // namespace rollcall
