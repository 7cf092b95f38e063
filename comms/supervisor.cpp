// SPDX-License-Identifier: Apache-2.0
// The process that a person starts: it runs mpirun, passes signals on, and ends as rank 0 ended.
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <optional>

#include "comms/launcher.h"
#include "comms/world.h"

namespace rollcall {
namespace {

using Clock = std::chrono::steady_clock;

constexpr std::chrono::seconds kSameRequest{1};  // terminals and batch systems signal in pairs
constexpr int kShowUnfinishedLineMs = 100;

class Descriptor {
 public:
  explicit Descriptor(int value) : value_(value) {}
  ~Descriptor() { close(); }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  int value() const { return value_; }
  void close() {
    if (value_ >= 0) ::close(value_);
    value_ = -1;
  }

 private:
  int value_;
};

// Memory that a rank leaves the exit code in. Ranks of this host reach it by a path under /proc; it
// has no other name, so nothing is left behind.
class ExitNote {
 public:
  ExitNote() : file_(::memfd_create("rollcall-exit", MFD_CLOEXEC)) {
    const std::string path =
        "/proc/" + std::to_string(::getpid()) + "/fd/" + std::to_string(file_.value());
    ::setenv(kExitFileVariable, path.c_str(), 1);
  }

  std::optional<int> code() const {
    std::array<char, 16> text{};
    if (::pread(file_.value(), text.data(), text.size() - 1, 0) <= 0) return std::nullopt;
    return std::atoi(text.data());
  }

 private:
  Descriptor file_;
};

[[noreturn]] void become(std::vector<std::string> command, int errors, int exec_failed) {
  // Its own process group: a terminal's interrupt reaches only the supervisor.
  ::setpgid(0, 0);
  ::prctl(PR_SET_PDEATHSIG, SIGTERM);
  sigset_t none;
  sigemptyset(&none);
  ::sigprocmask(SIG_SETMASK, &none, nullptr);
  ::dup2(::open("/dev/null", O_RDONLY), STDIN_FILENO);
  ::dup2(errors, STDERR_FILENO);
  std::vector<char*> words;
  for (std::string& word : command) words.push_back(word.data());
  words.push_back(nullptr);
  ::execvp(words[0], words.data());
  const int code = errno;
  [[maybe_unused]] const auto written = ::write(exec_failed, &code, sizeof code);
  ::_exit(1);
}

pid_t start(const std::vector<std::string>& command, int errors) {
  std::array<int, 2> ends{};
  if (::pipe2(ends.data(), O_CLOEXEC) != 0) throw Error("pipe failed");
  Descriptor read_end(ends[0]);
  Descriptor write_end(ends[1]);
  const pid_t child = ::fork();
  if (child < 0) throw Error(std::string("fork failed: ") + std::strerror(errno));
  if (child == 0) become(command, errors, write_end.value());
  write_end.close();
  int code = 0;
  if (::read(read_end.value(), &code, sizeof code) != sizeof code) return child;
  ::waitpid(child, nullptr, 0);
  throw Error(std::string("cannot start mpirun: ") + std::strerror(code),
              "install Open MPI (Debian: openmpi-bin) or put its bin folder on PATH");
}

class Supervisor {
 public:
  Supervisor(pid_t mpirun, int signals, int errors)
      : mpirun_(mpirun), signals_(signals), errors_(errors) {}

  bool stop_requested() const { return first_request_.has_value(); }

  // Returns mpirun's wait status.
  int run() {
    for (;;) {
      std::array<pollfd, 2> watched{{{signals_, POLLIN, 0}, {errors_, POLLIN, 0}}};
      const int ready = ::poll(watched.data(), watched.size(), kShowUnfinishedLineMs);
      if (ready == 0) show(filter_.flush());
      if (watched[1].revents != 0) copy_errors();
      if (watched[0].revents != 0) on_signal();
      int status = 0;
      if (::waitpid(mpirun_, &status, WNOHANG) == mpirun_) {
        while (copy_errors()) {
        }
        show(filter_.flush());
        return status;
      }
    }
  }

 private:
  void on_signal() {
    signalfd_siginfo info{};
    if (::read(signals_, &info, sizeof info) != sizeof info || info.ssi_signo == SIGCHLD) return;
    if (!first_request_) {
      first_request_ = Clock::now();
      ::kill(mpirun_, SIGUSR1);
    } else if (Clock::now() - *first_request_ > kSameRequest) {
      ::kill(mpirun_, SIGTERM);
    }
  }

  bool copy_errors() {
    std::array<char, 4096> bytes;
    const ssize_t size = errors_ < 0 ? 0 : ::read(errors_, bytes.data(), bytes.size());
    if (size == 0) errors_ = -1;  // closed: poll() passes over it from now on
    if (size <= 0) return false;
    show(filter_.add(std::string(bytes.data(), size)));
    return true;
  }

  static void show(const std::string& text) {
    std::size_t done = 0;
    while (done < text.size()) {
      const ssize_t size = ::write(STDERR_FILENO, text.data() + done, text.size() - done);
      if (size <= 0 && errno != EINTR) return;
      if (size > 0) done += static_cast<std::size_t>(size);
    }
  }

  pid_t mpirun_;
  int signals_;
  int errors_;
  LineFilter filter_;
  std::optional<Clock::time_point> first_request_;
};

int supervise(const std::vector<std::string>& command) {
  sigset_t handled;
  sigemptyset(&handled);
  for (const int number : {SIGINT, SIGTERM, SIGHUP, SIGUSR1, SIGCHLD}) {
    sigaddset(&handled, number);
  }
  ::sigprocmask(SIG_BLOCK, &handled, nullptr);
  const Descriptor signals(::signalfd(-1, &handled, SFD_CLOEXEC | SFD_NONBLOCK));
  std::array<int, 2> ends{};
  if (::pipe2(ends.data(), O_CLOEXEC) != 0) throw Error("pipe failed");
  const Descriptor errors(ends[0]);
  Descriptor write_end(ends[1]);
  ::fcntl(errors.value(), F_SETFL, O_NONBLOCK);

  const ExitNote note;
  const pid_t mpirun = start(command, write_end.value());
  write_end.close();
  Supervisor supervisor(mpirun, signals.value(), errors.value());
  const int status = supervisor.run();
  if (const auto code = note.code()) return *code;
  if (supervisor.stop_requested()) return static_cast<int>(ExitCode::kStopped);
  std::fprintf(stderr,
               "rollcall: the ranks ended without a word: one was killed or crashed\n"
               "  what to do: see the ranks' logs, then start again: a run resumes\n");
  const int failure = static_cast<int>(ExitCode::kFailure);
  return WIFEXITED(status) && WEXITSTATUS(status) != 0 ? WEXITSTATUS(status) : failure;
}

}  // namespace

void exec_under_mpirun(int ranks, int argc, char** argv) {
  std::error_code unreadable;
  const auto self = std::filesystem::read_symlink("/proc/self/exe", unreadable);
  const std::string program = unreadable ? argv[0] : self.string();
  const std::vector<std::string> arguments(argv + 1, argv + argc);
  const int code =
      supervise(mpirun_command(inspect_launch_site(), ranks, program, arguments, is_set));
  ::_exit(code);
}

}  // namespace rollcall
