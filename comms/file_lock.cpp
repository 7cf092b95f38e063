// SPDX-License-Identifier: Apache-2.0
#include "comms/file_lock.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <thread>

#include "comms/error.h"
#include "comms/log.h"
#include "comms/stop_signal.h"

namespace rollcall {
namespace {

// Whether it was locked; errno says why not.
bool lock_within(int descriptor, const std::string& what, std::chrono::milliseconds patience) {
  const auto try_lock = [descriptor] { return ::flock(descriptor, LOCK_EX | LOCK_NB) == 0; };
  if (try_lock()) return true;
  if (errno != EWOULDBLOCK || patience.count() == 0) return false;
  log_warning(what + ": another process is still writing it; waiting for its end for up to " +
              std::to_string(patience.count() / 1000) + " s");
  const auto deadline = std::chrono::steady_clock::now() + patience;
  while (std::chrono::steady_clock::now() < deadline && stop_signal_received() == 0) {
    std::this_thread::sleep_for(std::chrono::milliseconds(100));
    if (try_lock()) return true;
  }
  errno = EWOULDBLOCK;
  return false;
}

}  // namespace

FileLock::FileLock(const std::filesystem::path& file, const std::string& what,
                   std::chrono::milliseconds patience) {
  std::error_code ignored;  // open() tells
  std::filesystem::create_directories(file.parent_path(), ignored);
  descriptor_ = ::open(file.c_str(), O_CREAT | O_RDWR | O_CLOEXEC, 0644);
  if (descriptor_ < 0) {
    throw Error(what + ": cannot create " + file.string() + ": " + std::strerror(errno),
                "check that the run's folder exists and is writable");
  }
  if (lock_within(descriptor_, what, patience)) return;
  if (errno == EWOULDBLOCK) {
    ::close(descriptor_);
    throw Error(what + ": another process is writing it",
                "end the other one, or name another folder, and start again", ExitCode::kStopped);
  }
  log_warning(what +
              ": this file system has no locks; make sure that no other run uses the folder");
}

FileLock::~FileLock() { ::close(descriptor_); }

}  // namespace rollcall
