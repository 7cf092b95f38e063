// SPDX-License-Identifier: Apache-2.0
#include "comms/process_watch.h"

#include <poll.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <utility>

namespace rollcall {

ProcessWatch::ProcessWatch(int pid)
    : descriptor_(static_cast<int>(::syscall(SYS_pidfd_open, pid, 0))) {}

ProcessWatch::ProcessWatch(ProcessWatch&& other) noexcept
    : descriptor_(std::exchange(other.descriptor_, -1)) {}

ProcessWatch& ProcessWatch::operator=(ProcessWatch&& other) noexcept {
  std::swap(descriptor_, other.descriptor_);
  return *this;
}

ProcessWatch::~ProcessWatch() {
  if (descriptor_ >= 0) ::close(descriptor_);
}

bool ProcessWatch::ended() const {
  if (descriptor_ < 0) return false;
  pollfd request{descriptor_, POLLIN, 0};
  return ::poll(&request, 1, 0) == 1;
}

}  // namespace rollcall
