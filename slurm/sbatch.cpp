// SPDX-License-Identifier: Apache-2.0
#include "slurm/sbatch.h"

#include <fcntl.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <vector>

#include "comms/error.h"

namespace rollcall {
namespace {

struct Answer {
  int code = 0;
  std::string text;  // standard output and errors
};

class SpawnActions {
 public:
  explicit SpawnActions(int output) {
    ::posix_spawn_file_actions_init(&actions_);
    ::posix_spawn_file_actions_addopen(&actions_, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
    ::posix_spawn_file_actions_adddup2(&actions_, output, STDOUT_FILENO);
    ::posix_spawn_file_actions_adddup2(&actions_, output, STDERR_FILENO);
  }
  ~SpawnActions() { ::posix_spawn_file_actions_destroy(&actions_); }
  SpawnActions(const SpawnActions&) = delete;
  SpawnActions& operator=(const SpawnActions&) = delete;
  const posix_spawn_file_actions_t* get() const { return &actions_; }

 private:
  posix_spawn_file_actions_t actions_;
};

std::string read_all(int descriptor) {
  std::string text;
  std::array<char, 4096> bytes;
  while (true) {
    const ssize_t size = ::read(descriptor, bytes.data(), bytes.size());
    if (size > 0) text.append(bytes.data(), static_cast<std::size_t>(size));
    if (size == 0 || (size < 0 && errno != EINTR)) return text;
  }
}

Answer run(std::vector<std::string> command) {
  std::array<int, 2> ends{};
  if (::pipe2(ends.data(), O_CLOEXEC) != 0) throw Error("pipe failed");
  std::vector<char*> words;
  for (std::string& word : command) words.push_back(word.data());
  words.push_back(nullptr);
  pid_t child = -1;
  const int failure =
      ::posix_spawnp(&child, words[0], SpawnActions(ends[1]).get(), nullptr, words.data(), environ);
  ::close(ends[1]);
  const std::string text = failure == 0 ? read_all(ends[0]) : "";
  ::close(ends[0]);
  if (failure != 0)
    throw Error("cannot start " + command[0] + ": " + std::strerror(failure),
                "submit where Slurm is installed, usually on a login node; --dry-run shows the "
                "file anywhere");
  int status = 0;
  while (::waitpid(child, &status, 0) < 0 && errno == EINTR) {
  }
  return {WIFEXITED(status) ? WEXITSTATUS(status) : 1, text};
}

// "123" or "123;cluster" at the start of a line, as --parsable prints it; warnings may stand
// before.
std::string job_id_in(const std::string& text) {
  std::size_t begin = 0;
  while (begin < text.size()) {
    const std::size_t end = std::min(text.find('\n', begin), text.size());
    const std::string line = text.substr(begin, end - begin);
    const std::size_t digits = std::min(line.find_first_not_of("0123456789"), line.size());
    if (digits > 0 && (digits == line.size() || line[digits] == ';')) return line.substr(0, digits);
    begin = end + 1;
  }
  return {};
}

}  // namespace

std::string submit_to_slurm(const std::filesystem::path& script) {
  const Answer answer = run({"sbatch", "--parsable", script.string()});
  const std::string id = job_id_in(answer.text);
  if (answer.code == 0 && !id.empty()) return id;
  std::string said = answer.text;
  while (!said.empty() && said.back() == '\n') said.pop_back();
  throw Error("sbatch refused " + script.string() + " (exit code " + std::to_string(answer.code) +
                  "): " + said,
              "what a cluster asks for (account, partition, limits) belongs in the site file");
}

}  // namespace rollcall
