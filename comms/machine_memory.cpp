// SPDX-License-Identifier: Apache-2.0
#include "comms/machine_memory.h"

#include <algorithm>
#include <fstream>
#include <optional>
#include <sstream>
#include <string>
#include <string_view>

namespace rollcall {
namespace {

namespace fs = std::filesystem;

// The number behind a word, of files that are lists of both.
std::optional<std::int64_t> number_behind(const fs::path& path, const std::string& word) {
  std::ifstream file(path);
  for (std::string name; file >> name;) {
    std::int64_t value = 0;
    if (name == word && file >> value) return value;
  }
  return std::nullopt;
}

// Nothing for "max".
std::optional<std::int64_t> number_in(const fs::path& path) {
  std::ifstream file(path);
  std::int64_t value = 0;
  if (file >> value) return value;
  return std::nullopt;
}

// How the two versions of control groups name the same (kernel: cgroup-v1/memory.rst,
// cgroup-v2.rst).
struct GroupFiles {
  const char *folder, *limit, *usage, *file_cache;
};
constexpr GroupFiles kVersion1{"sys/fs/cgroup/memory", "memory.limit_in_bytes",
                               "memory.usage_in_bytes", "total_inactive_file"};
constexpr GroupFiles kVersion2{"sys/fs/cgroup", "memory.max", "memory.current", "inactive_file"};

// Files that were read and are not used any more count as usage, and give way.
std::optional<std::int64_t> left_in(const fs::path& group, const GroupFiles& files) {
  const auto limit = number_in(group / files.limit), usage = number_in(group / files.usage);
  if (!limit || !usage) return std::nullopt;
  const std::int64_t gives_way = number_behind(group / "memory.stat", files.file_cache).value_or(0);
  return *limit - std::max<std::int64_t>(0, *usage - gives_way);
}

// How many numbers "3" or "0-3" stands for; nothing if it is neither.
std::optional<int> numbers_in(const std::string& range) {
  constexpr int kMost = 1 << 16;
  std::istringstream text(range);
  int first = 0;
  char dash = 0;
  if (!(text >> first)) return std::nullopt;
  int last = first;
  if (text >> dash && (dash != '-' || !(text >> last))) return std::nullopt;
  if (!text.eof() || first < 0 || last < first || last > kMost) return std::nullopt;
  return last - first + 1;
}

}  // namespace

int memory_nodes(const fs::path& root) {
  constexpr std::string_view kWord = "Mems_allowed_list:";
  std::ifstream file(root / "proc/self/status");
  std::string line;
  while (std::getline(file, line) && !line.starts_with(kWord)) {
  }
  if (!line.starts_with(kWord)) return 1;
  int nodes = 0;
  std::istringstream ranges(line.substr(kWord.size()));
  for (std::string range; std::getline(ranges, range, ',');) {
    const auto count = numbers_in(range);
    if (!count) return 1;
    nodes += *count;
  }
  return std::max(1, nodes);
}

std::int64_t available_memory(const fs::path& root) {
  const auto kib = number_behind(root / "proc/meminfo", "MemAvailable:");
  if (!kib) return -1;
  std::int64_t least = *kib * 1024;
  std::ifstream groups(root / "proc/self/cgroup");
  for (std::string line; std::getline(groups, line);) {  // "4:memory:/job", of version 2 "0::/job"
    const std::size_t controllers = line.find(':');
    const std::size_t path = line.find(':', controllers + 1);
    if (path == std::string::npos) continue;
    const std::string named = line.substr(controllers + 1, path - controllers - 1);
    if (!named.empty() && named != "memory") continue;
    const GroupFiles& files = named.empty() ? kVersion2 : kVersion1;
    const fs::path top = root / files.folder;
    // In a container the path may be one of the host; its own group is the top one there.
    for (fs::path of = fs::path(line.substr(path + 1)).relative_path();; of = of.parent_path()) {
      least = std::min(least, left_in(of.empty() ? top : top / of, files).value_or(least));
      if (of.empty()) break;
    }
  }
  return std::max<std::int64_t>(0, least);
}

}  // namespace rollcall
