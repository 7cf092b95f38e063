// SPDX-License-Identifier: Apache-2.0
#include "rollcall/doctor/bounded.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <sstream>

#include "comms/error.h"

namespace rollcall {
namespace {

using Clock = std::chrono::steady_clock;
using std::chrono::milliseconds;

constexpr std::size_t kMostText = 1 << 20;
constexpr std::array kSecondRequestAfter = {milliseconds(0), milliseconds(1200)};
constexpr milliseconds kEndPatience{18000};  // mpirun and its ranks, told to end
constexpr milliseconds kKillPatience{1000};

[[noreturn]] void become_child(int out, const std::function<int(int)>& body) {
  ::prctl(PR_SET_PDEATHSIG, SIGTERM);
  // A terminal's interrupt is the parent's business, which lets the check tidy up.
  for (const int number : {SIGINT, SIGHUP}) ::signal(number, SIG_IGN);
  for (const int number : {SIGTERM, SIGUSR1}) ::signal(number, SIG_DFL);
  ::_exit(body(out));
}

class Child {
 public:
  Child(pid_t pid, int output) : pid_(pid), output_(output) {
    ::fcntl(output_, F_SETFL, O_NONBLOCK);
  }
  ~Child() { ::close(output_); }
  Child(const Child&) = delete;
  Child& operator=(const Child&) = delete;

  // Whether it has ended by then.
  bool wait(milliseconds limit) {
    const auto deadline = Clock::now() + limit;
    while (!reap()) {
      if (Clock::now() >= deadline) return false;
      pollfd readable{open_ ? output_ : -1, POLLIN, 0};
      ::poll(&readable, 1, open_ ? 50 : 5);
      drain();
    }
    return true;
  }

  void end() {
    for (const milliseconds pause : kSecondRequestAfter) {
      if (wait(pause)) return;
      ::kill(pid_, SIGTERM);
    }
    if (wait(kEndPatience)) return;
    ::kill(pid_, SIGKILL);
    wait(kKillPatience);
  }

  int status() const { return status_; }
  std::string take_text() { return std::move(text_); }

 private:
  bool reap() {
    if (!ended_ && ::waitpid(pid_, &status_, WNOHANG) == pid_) {
      ended_ = true;
      drain();
    }
    return ended_;
  }

  void drain() {
    std::array<char, 4096> part;
    ssize_t size = 0;
    while (open_ && (size = ::read(output_, part.data(), part.size())) > 0)
      text_.append(part.data(), std::min<std::size_t>(size, kMostText - text_.size()));
    if (size == 0) open_ = false;
  }

  pid_t pid_;
  int output_;
  bool open_ = true, ended_ = false;
  int status_ = 0;
  std::string text_;
};

[[noreturn]] void become_program(int out, std::vector<std::string>& command) {
  std::vector<char*> words;
  for (std::string& word : command) words.push_back(word.data());
  words.push_back(nullptr);
  ::dup2(::open("/dev/null", O_RDONLY), STDIN_FILENO);
  ::dup2(out, STDOUT_FILENO);
  ::dup2(out, STDERR_FILENO);
  ::execvp(words[0], words.data());
  ::_exit(127);
}

void write_all(int out, const std::string& text) {
  for (std::size_t done = 0; done < text.size();) {
    const ssize_t size = ::write(out, text.data() + done, text.size() - done);
    if (size <= 0 && errno != EINTR) return;
    if (size > 0) done += static_cast<std::size_t>(size);
  }
}

std::vector<Finding> caught(const Check& check) {
  try {
    return check.body();
  } catch (const Error& error) {
    return {{check.what, Health::kFailed, error.what(), error.what_to_do()}};
  } catch (const std::exception& error) {
    return {{check.what, Health::kFailed, std::string("unexpected: ") + error.what(),
             "this is a bug in rollcall: please report it"}};
  }
}

std::vector<Finding> findings_in(const std::string& text) {
  std::vector<Finding> findings;
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);)
    if (auto finding = parse_finding(line)) findings.push_back(std::move(*finding));
  return findings;
}

}  // namespace

BoundedEnd run_bounded(milliseconds limit, const std::function<int(int)>& body) {
  std::array<int, 2> ends{};
  if (::pipe2(ends.data(), O_CLOEXEC) != 0) throw Error("pipe failed");
  const auto begin = Clock::now();
  const pid_t pid = ::fork();
  if (pid == 0) {
    ::close(ends[0]);
    become_child(ends[1], body);
  }
  ::close(ends[1]);
  Child child(pid, ends[0]);
  if (pid < 0) throw Error(std::string("fork failed: ") + std::strerror(errno));
  BoundedEnd result;
  result.in_time = child.wait(limit);
  if (!result.in_time) child.end();
  result.seconds = std::chrono::duration<double>(Clock::now() - begin).count();
  const int status = child.status();
  if (result.in_time && WIFEXITED(status)) result.code = WEXITSTATUS(status);
  if (result.in_time && WIFSIGNALED(status)) result.signal = WTERMSIG(status);
  result.text = child.take_text();
  return result;
}

BoundedEnd run_program(milliseconds limit, std::vector<std::string> command) {
  return run_bounded(limit, [&](int out) -> int { become_program(out, command); });
}

std::vector<Finding> run_check(const Check& check) {
  const BoundedEnd end = run_bounded(check.limit, [&](int out) {
    for (const Finding& finding : caught(check)) write_all(out, finding_json(finding) + "\n");
    return 0;
  });
  std::vector<Finding> findings = findings_in(end.text);
  if (!end.in_time)
    findings.push_back({check.what, Health::kFailed,
                        fmt::format("no answer within {} s", check.limit.count()),
                        "something on this machine hangs; a run would hang there too"});
  if (end.in_time && end.code != 0)
    findings.push_back({check.what, Health::kFailed,
                        fmt::format("the check crashed ({})", ::strsignal(end.signal)),
                        "a library or driver of this machine is broken; see what was installed"});
  return findings;
}

}  // namespace rollcall
