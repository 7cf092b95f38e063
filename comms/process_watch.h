// SPDX-License-Identifier: Apache-2.0
#pragma once

namespace rollcall {

// Notices the end of another process of this host. Where the kernel offers no pidfd it notices
// nothing, and heartbeats alone decide.
class ProcessWatch {
 public:
  ProcessWatch() = default;
  explicit ProcessWatch(int pid);
  ProcessWatch(ProcessWatch&& other) noexcept;
  ProcessWatch& operator=(ProcessWatch&& other) noexcept;
  ~ProcessWatch();

  bool ended() const;

 private:
  int descriptor_ = -1;
};

}  // namespace rollcall
