// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <filesystem>
#include <string>

namespace rollcall {

// Keeps a second writer away for as long as it lives. The kernel drops the lock when the process
// dies. Where the file system has no locks it only warns.
class FileLock {
 public:
  // Creates `file` (and its folder) if need be. `what` names what it guards in messages. Throws
  // Error if another process holds the lock.
  FileLock(const std::filesystem::path& file, const std::string& what);
  ~FileLock();
  FileLock(const FileLock&) = delete;
  FileLock& operator=(const FileLock&) = delete;

 private:
  int descriptor_ = -1;
};

}  // namespace rollcall
