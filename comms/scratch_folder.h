// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <filesystem>

namespace rollcall {

// A new folder of this process alone; removed at the end with all that is in it, or, if the process
// is killed, when a later one makes its own. Where none can be made, path() is empty.
class ScratchFolder {
 public:
  explicit ScratchFolder(const std::filesystem::path& parent);
  ~ScratchFolder();
  ScratchFolder(const ScratchFolder&) = delete;
  ScratchFolder& operator=(const ScratchFolder&) = delete;

  const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
  int lock_ = -1;  // held for as long as the process lives
};

}  // namespace rollcall
