// SPDX-License-Identifier: Apache-2.0
#include "comms/scratch_folder.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <chrono>
#include <cstdlib>
#include <string>
#include <vector>

namespace rollcall {
namespace {

namespace fs = std::filesystem;

constexpr const char* kPrefix = "rollcall-scratch-";
constexpr std::chrono::minutes kYoung{1};  // perhaps not locked yet

// The folder's lock, or -1 if another process holds it or the folder is not ours.
int lock(const fs::path& folder) {
  const int descriptor = ::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
  if (descriptor < 0 || ::flock(descriptor, LOCK_EX | LOCK_NB) == 0) return descriptor;
  ::close(descriptor);
  return -1;
}

void remove_if_orphaned(const fs::path& folder) {
  std::error_code ignored;  // somebody else's, or gone meanwhile
  const auto age = fs::file_time_type::clock::now() - fs::last_write_time(folder, ignored);
  if (ignored || age < kYoung) return;
  const int held = lock(folder);
  if (held < 0) return;
  fs::remove_all(folder, ignored);
  ::close(held);
}

void remove_orphans(const fs::path& parent) {
  std::error_code ignored;
  std::vector<fs::path> found;
  for (const auto& item : fs::directory_iterator(parent, ignored))
    if (item.path().filename().string().starts_with(kPrefix)) found.push_back(item.path());
  for (const auto& folder : found) remove_if_orphaned(folder);
}

}  // namespace

ScratchFolder::ScratchFolder(const fs::path& parent) {
  remove_orphans(parent);
  std::string pattern = (parent / (std::string(kPrefix) + "XXXXXX")).string();
  if (::mkdtemp(pattern.data()) == nullptr) return;
  path_ = pattern;
  lock_ = lock(path_);
}

ScratchFolder::~ScratchFolder() {
  std::error_code ignored;  // nobody could do anything about it
  if (!path_.empty()) fs::remove_all(path_, ignored);
  if (lock_ >= 0) ::close(lock_);
}

}  // namespace rollcall
