// SPDX-License-Identifier: Apache-2.0
// The process that a person starts: it runs mpirun, passes signals on, watches the ranks, and ends
// as the job ended.
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
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
#include "comms/lifeline.h"
#include "comms/patient_writer.h"
#include "comms/scratch_folder.h"
#include "comms/stop_clock.h"
#include "comms/stop_signal.h"
#include "comms/world.h"

namespace rollcall {
namespace {

using Clock = std::chrono::steady_clock;

constexpr std::chrono::seconds kSameRequest{1};  // terminals and batch systems signal in pairs
constexpr int kShowUnfinishedLineMs = 100;
constexpr std::chrono::seconds kShowPatience{2};  // at the end, with whoever does not read
constexpr std::chrono::seconds kAskAgain{2};
constexpr std::chrono::seconds kLeavePatience{10};  // of other ranks, once rank 0 has left
constexpr std::chrono::seconds kEndPatience{15};    // of mpirun, once told to end

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

[[noreturn]] void become(std::vector<std::string> command, int errors, int exec_failed) {
  // Its own process group: a terminal's interrupt reaches only the supervisor.
  ::setpgid(0, 0);
  ::signal(SIGPIPE, SIG_DFL);
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
  Supervisor(pid_t mpirun, int signals, int errors, LifelineHub& ranks, int essential,
             const StopClock* clock)
      : mpirun_(mpirun),
        signals_(signals),
        errors_(errors),
        ranks_(ranks),
        essential_(essential),
        clock_(clock) {}

  JobEnd run() {
    // One that came before signals were watched here.
    if (const int number = stop_signal_received(); number != 0)
      request(number == SIGUSR1 ? StopCause::kDeadline : StopCause::kPerson);
    int status = 0;
    while (::waitpid(mpirun_, &status, WNOHANG) != mpirun_) {
      std::array<pollfd, 3> watched{
          {{signals_, POLLIN, 0}, {errors_, POLLIN, 0}, {ranks_.descriptor(), POLLIN, 0}}};
      const int ready = ::poll(watched.data(), watched.size(), kShowUnfinishedLineMs);
      if (ready == 0) show(filter_.flush());
      screen_.drain();
      if (watched[1].revents != 0) copy_errors();
      if (watched[0].revents != 0) on_signal();
      hear_ranks();
      keep_deadlines();
    }
    hear_ranks();
    if (!end_ && WIFSIGNALED(status)) lose_mpirun(WTERMSIG(status));
    await_ranks();
    while (copy_errors()) {
    }
    show(filter_.flush());
    JobEnd end = end_ ? *end_ : without_a_word(status);
    end.asked = asked_;
    screen_.drain_for(kShowPatience);
    return end;
  }

 private:
  void on_signal() {
    signalfd_siginfo info{};
    if (::read(signals_, &info, sizeof info) != sizeof info || info.ssi_signo == SIGCHLD) return;
    const bool is_deadline = info.ssi_signo == SIGUSR1;
    if (asked_ == StopCause::kNone) {
      request(is_deadline ? StopCause::kDeadline : StopCause::kPerson);
    } else if (Clock::now() - first_request_ > kSameRequest &&
               !(is_deadline && asked_ == StopCause::kDeadline)) {
      asked_ = StopCause::kPerson;
      if (!end_) end_ = on_request("ended at once on a second request");
      end_job();
    }
  }

  void request(StopCause cause) {
    asked_ = cause;
    first_request_ = Clock::now();
    pass_on();
  }

  void pass_on() {
    ::kill(mpirun_, SIGUSR1);
    passed_on_ = Clock::now();
  }

  void hear_ranks() {
    for (const LifelineHub::RankEnd& end : ranks_.poll()) on_end(end);
  }

  // The first word counts: what follows it are its consequences.
  void on_end(const LifelineHub::RankEnd& end) {
    // Rank 0 may have been about to leave when mpirun was killed: then all is well.
    if (mpirun_lost_ && end.rank == 0 && end.end == LifelineHub::End::kLeft)
      end_ = JobEnd{end.code, {}, false};
    if (end_) return;
    switch (end.end) {
      case LifelineHub::End::kLeft:
        if (end.rank != 0) {
          lead_is_silent_ |=
              end.rank >= essential_ && end.code == static_cast<int>(ExitCode::kStopped);
          return end_if_lead_hangs();
        }
        end_ = JobEnd{end.code, {}, false};
        leave_by_ = Clock::now() + kLeavePatience;
        return;
      case LifelineHub::End::kFailed:
        end_ = JobEnd{end.code, end.message, false};
        return end_job();
      case LifelineHub::End::kDied:
        if (end.was_ready && end.rank >= essential_) return end_if_lead_hangs();
        end_ = JobEnd{static_cast<int>(ExitCode::kStopped), describe_death(end),
                      asked_ != StopCause::kNone};
        show("rollcall: " + end_->failure +
             "\n  what to do: see its log, then start again: a run resumes\n");
        return end_job();
    }
  }

  // One that does not would have ended the run for want of workers.
  void end_if_lead_hangs() {
    if (!lead_is_silent_ || ranks_.any_rank(essential_)) return;
    end_ = JobEnd{static_cast<int>(ExitCode::kStopped),
                  "rank 0, the lead learner, hangs: the workers left after it had been silent for "
                  "cluster.learner_timeout",
                  asked_ != StopCause::kNone};
    show("rollcall: " + end_->failure +
         "\n  what to do: see its log, then start again: a run resumes\n");
    end_job();
  }

  std::string describe_death(const LifelineHub::RankEnd& end) const {
    const char* role = end.rank == 0           ? ", the lead learner,"
                       : end.rank < essential_ ? ", a learner,"
                                               : "";
    return "rank " + std::to_string(end.rank) + role + " was killed or crashed" +
           (end.was_ready ? "" : " before MPI had started");
  }

  // Its ranks end by themselves, and what they hold, the run's lock among it, goes with them.
  void lose_mpirun(int signal) {
    mpirun_lost_ = true;
    const std::string what = "mpirun was killed (signal " + std::to_string(signal) + ")";
    end_ = JobEnd{static_cast<int>(ExitCode::kStopped), what, asked_ != StopCause::kNone};
    show("rollcall: " + what + "\n  what to do: start again: a run resumes\n");
  }

  void await_ranks() {
    const auto patience = Clock::now() + kLeavePatience;
    while (ranks_.any_rank() && Clock::now() < patience) {
      pollfd watched{ranks_.descriptor(), POLLIN, 0};
      ::poll(&watched, 1, kShowUnfinishedLineMs);
      hear_ranks();
      copy_errors();
    }
  }

  // Once: mpirun, told twice, drops its cleaning up.
  void end_job() {
    if (kill_at_) return;
    ::kill(mpirun_, SIGTERM);
    kill_at_ = Clock::now() + kEndPatience;
  }

  void keep_deadlines() {
    if (clock_ != nullptr && asked_ == StopCause::kNone && clock_->due()) {
      show("rollcall: the job's time is nearly over: stopping in order\n");
      request(StopCause::kDeadline);
    }
    // mpirun drops what comes before its ranks are there.
    if (asked_ != StopCause::kNone && !end_ && Clock::now() - passed_on_ > kAskAgain) pass_on();
    if (leave_by_ && Clock::now() > *leave_by_) end_job();
    if (kill_at_ && Clock::now() > *kill_at_) ::kill(mpirun_, SIGKILL);
  }

  JobEnd on_request(const std::string& what) {
    show("rollcall: " + what + "\n  what to do: start again: a run resumes\n");
    return {static_cast<int>(ExitCode::kStopped), what, true};
  }

  JobEnd without_a_word(int status) {
    if (asked_ != StopCause::kNone)
      return on_request("ended on request, before its ranks were ready");
    const std::string what = "the ranks ended without a word: one was killed or crashed";
    show("rollcall: " + what +
         "\n  what to do: see the ranks' logs, then start again: a run resumes\n");
    const int failure = static_cast<int>(ExitCode::kFailure);
    return {WIFEXITED(status) && WEXITSTATUS(status) != 0 ? WEXITSTATUS(status) : failure, what,
            false};
  }

  bool copy_errors() {
    std::array<char, 4096> bytes;
    const ssize_t size = errors_ < 0 ? 0 : ::read(errors_, bytes.data(), bytes.size());
    if (size == 0) errors_ = -1;  // closed: poll() passes over it from now on
    if (size <= 0) return false;
    show(filter_.add(std::string(bytes.data(), size)));
    return true;
  }

  void show(const std::string& text) { screen_.write(text); }

  pid_t mpirun_;
  int signals_;
  int errors_;
  LifelineHub& ranks_;
  int essential_;
  const StopClock* clock_;
  LineFilter filter_;
  PatientWriter screen_{STDERR_FILENO};
  std::optional<JobEnd> end_;
  bool mpirun_lost_ = false, lead_is_silent_ = false;
  StopCause asked_ = StopCause::kNone;
  Clock::time_point first_request_, passed_on_;
  std::optional<Clock::time_point> leave_by_, kill_at_;
};

std::filesystem::path temporary_folder() try {
  return std::filesystem::temp_directory_path();
} catch (const std::filesystem::filesystem_error& error) {
  throw input_error(std::string("no folder for temporary files: ") + error.what(),
                    "set TMPDIR to a folder that exists");
}

// What an outer job step tells its tasks is not for the ranks of this run.
void forget_outer_launcher() {
  for (const std::string& name : variables_named("PMI")) ::unsetenv(name.c_str());
}

JobEnd supervise(const LaunchSite& site, int ranks, int essential, const std::string& program,
                 const std::vector<std::string>& arguments, const StopClock* clock) {
  sigset_t handled;
  sigemptyset(&handled);
  for (const int number : {SIGINT, SIGTERM, SIGUSR1, SIGCHLD}) sigaddset(&handled, number);
  struct sigaction hangup {};
  ::sigaction(SIGHUP, nullptr, &hangup);
  if (hangup.sa_handler != SIG_IGN) sigaddset(&handled, SIGHUP);  // nohup ignores it
  ::signal(SIGPIPE, SIG_IGN);  // a reader that goes does not end the run
  ::sigprocmask(SIG_BLOCK, &handled, nullptr);
  const Descriptor signals(::signalfd(-1, &handled, SFD_CLOEXEC | SFD_NONBLOCK));
  std::array<int, 2> ends{};
  if (::pipe2(ends.data(), O_CLOEXEC) != 0) throw Error("pipe failed");
  const Descriptor errors(ends[0]);
  Descriptor write_end(ends[1]);
  ::fcntl(errors.value(), F_SETFL, O_NONBLOCK);

  forget_outer_launcher();
  LifelineHub hub(site.single_host);
  ::setenv(kLifelineVariable, hub.address().c_str(), 1);
  const pid_t mpirun =
      start(mpirun_command(site, ranks, program, arguments, is_set), write_end.value());
  write_end.close();
  return Supervisor(mpirun, signals.value(), errors.value(), hub, essential, clock).run();
}

}  // namespace

JobEnd run_under_mpirun(int ranks, int essential, int argc, char** argv, const StopClock* clock) {
  std::error_code unreadable;
  const auto self = std::filesystem::read_symlink("/proc/self/exe", unreadable);
  const std::string program = unreadable ? argv[0] : self.string();
  const std::vector<std::string> arguments(argv + 1, argv + argc);
  LaunchSite site = inspect_launch_site();
  // What a killed mpirun leaves behind is removed here; other hosts have no such folder.
  const ScratchFolder scratch(temporary_folder());
  if (site.single_host) site.scratch = scratch.path();
  return supervise(site, ranks, essential, program, arguments, clock);
}

}  // namespace rollcall
