// SPDX-License-Identifier: Apache-2.0
#include "comms/file_lock.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "comms/error.h"
#include "comms/log.h"

namespace rollcall {

FileLock::FileLock(const std::filesystem::path& file, const std::string& what) {
  std::error_code ignored;  // open() tells
  std::filesystem::create_directories(file.parent_path(), ignored);
  descriptor_ = ::open(file.c_str(), O_CREAT | O_RDWR | O_CLOEXEC, 0644);
  if (descriptor_ < 0) {
    throw Error(what + ": cannot create " + file.string() + ": " + std::strerror(errno),
                "check that the run's folder exists and is writable");
  }
  if (::flock(descriptor_, LOCK_EX | LOCK_NB) == 0) return;
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
