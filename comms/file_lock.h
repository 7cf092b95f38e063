// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <filesystem>
#include <string>

namespace rollcall {

// Keeps a second writer away for as long as it lives. The kernel drops the lock when the process
// dies. Where the file system has no locks it only warns.
class FileLock {
 public:
  // Creates `file` (and its folder) if need be. `what` names what it guards in messages. Throws
  // Error if another process holds the lock for longer than `patience`, or still holds it when a
  // stop is asked for (StopSignal). Says so when it begins to wait.
  FileLock(const std::filesystem::path& file, const std::string& what,
           std::chrono::milliseconds patience = {});
  ~FileLock();
  FileLock(const FileLock&) = delete;
  FileLock& operator=(const FileLock&) = delete;

 private:
  int descriptor_ = -1;
};

}  // namespace rollcall
