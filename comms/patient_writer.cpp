// SPDX-License-Identifier: Apache-2.0
#include "comms/patient_writer.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>

namespace rollcall {

PatientWriter::PatientWriter(int descriptor, std::size_t most)
    : descriptor_(descriptor), most_(most) {
  struct stat status {};
  const bool may_wait =
      ::fstat(descriptor, &status) == 0 && (S_ISFIFO(status.st_mode) || ::isatty(descriptor) == 1);
  if (!may_wait) return;
  const std::string link = "/proc/self/fd/" + std::to_string(descriptor);
  const int anew = ::open(link.c_str(), O_WRONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
  if (anew < 0) return;
  descriptor_ = anew;
  own_ = true;
}

PatientWriter::~PatientWriter() {
  if (own_) ::close(descriptor_);
}

void PatientWriter::write(const std::string& text) {
  pending_ += text;
  drain();
  if (pending_.size() <= most_) return;
  const std::size_t line = pending_.find('\n', pending_.size() - most_);
  pending_.erase(0, line == std::string::npos ? pending_.size() - most_ : line + 1);
}

void PatientWriter::drain() {
  while (!pending_.empty()) {
    const ssize_t size = ::write(descriptor_, pending_.data(), pending_.size());
    if (size > 0) {
      pending_.erase(0, static_cast<std::size_t>(size));
    } else if (errno == EAGAIN) {
      return;
    } else if (errno != EINTR) {
      pending_.clear();  // nobody will ever read it
    }
  }
}

void PatientWriter::drain_for(std::chrono::milliseconds most) {
  const auto end = std::chrono::steady_clock::now() + most;
  for (drain(); !pending_.empty() && std::chrono::steady_clock::now() < end; drain()) {
    pollfd room{descriptor_, POLLOUT, 0};
    ::poll(&room, 1, 50);
  }
}

}  // namespace rollcall
