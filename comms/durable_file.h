// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>

namespace rollcall {

// A file that appears complete or not at all: written under NAME.partial beside its target, synced,
// then renamed over it. Every failure is an Error that names the file; on a full disk it says that
// what was there before is intact. Single thread.
class DurableFile {
 public:
  explicit DurableFile(std::filesystem::path target);
  ~DurableFile();  // removes what was not committed
  DurableFile(const DurableFile&) = delete;
  DurableFile& operator=(const DurableFile&) = delete;

  void write(std::span<const std::byte> bytes);
  void write(std::string_view text);
  void commit();  // sync, rename, sync the folder; call once

 private:
  std::filesystem::path target_;
  std::filesystem::path partial_;
  int descriptor_ = -1;
};

void write_durably(const std::filesystem::path& target, std::string_view text);
void copy_durably(const std::filesystem::path& source, const std::filesystem::path& target);
void sync_directory(const std::filesystem::path&);

// Puts folder `fresh` where `target` is, in one step if the file system can swap names; what was
// there ends up at `fresh` and is deleted. Both must have the same parent, which is synced.
void replace_directory(const std::filesystem::path& fresh, const std::filesystem::path& target);

// The whole of a regular file.
std::string read_file(const std::filesystem::path&);

}  // namespace rollcall
