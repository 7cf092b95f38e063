// SPDX-License-Identifier: Apache-2.0
#include "comms/scratch_folder.h"

#include <cstdlib>
#include <string>

namespace rollcall {

ScratchFolder::ScratchFolder(const std::filesystem::path& parent) {
  std::string pattern = (parent / "rollcall-XXXXXX").string();
  if (::mkdtemp(pattern.data()) != nullptr) path_ = pattern;
}

ScratchFolder::~ScratchFolder() {
  std::error_code ignored;  // nobody could do anything about it
  if (!path_.empty()) std::filesystem::remove_all(path_, ignored);
}

}  // namespace rollcall
