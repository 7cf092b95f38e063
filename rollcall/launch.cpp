// SPDX-License-Identifier: Apache-2.0
#include "rollcall/launch.h"

#include <fcntl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "comms/error.h"
#include "comms/world.h"

namespace rollcall {
namespace {

// Read by the signal handler alone; a handler can reach nothing but globals.
volatile sig_atomic_t mpirun_pid = 0;
volatile sig_atomic_t stops_asked = 0;

extern "C" void pass_on_stop(int) {
  // mpirun kills its ranks on SIGTERM but hands SIGUSR1 on to them.
  if (mpirun_pid > 0) ::kill(static_cast<pid_t>(mpirun_pid), stops_asked == 0 ? SIGUSR1 : SIGTERM);
  stops_asked = stops_asked + 1;
}

[[noreturn]] void become_mpirun(int ranks, int argc, char** argv) {
  ::setpgid(0, 0);  // Ctrl-C goes to the parent alone, which asks the ranks to stop in order
  if (const int null = ::open("/dev/null", O_RDONLY); null >= 0) ::dup2(null, STDIN_FILENO);
  if (::isatty(STDERR_FILENO) == 1) ::setenv("ROLLCALL_LIVE_PROGRESS", "1", 1);
  try {
    exec_under_mpirun(ranks, argc, argv);
  } catch (const Error& error) {
    std::fprintf(stderr, "rollcall: %s\n  %s\n", error.what(), error.what_to_do().c_str());
    ::_exit(static_cast<int>(error.exit_code()));
  }
  ::_exit(static_cast<int>(ExitCode::kFailure));
}

}  // namespace

int run_ranks(int ranks, int argc, char** argv) {
  const pid_t child = ::fork();
  if (child < 0) throw Error(std::string("cannot start mpirun: ") + std::strerror(errno));
  if (child == 0) become_mpirun(ranks, argc, argv);
  mpirun_pid = child;
  struct sigaction action {};
  action.sa_handler = pass_on_stop;
  for (const int signal : {SIGINT, SIGTERM, SIGUSR1, SIGHUP}) ::sigaction(signal, &action, nullptr);
  int status = 0;
  while (::waitpid(child, &status, 0) < 0 && errno == EINTR) {
  }
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

}  // namespace rollcall
