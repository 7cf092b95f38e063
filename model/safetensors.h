// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <vector>

namespace rollcall {

// One tensor of a safetensors file. `data` points into the mapping and may be misaligned: copy it out.
struct SafetensorsEntry {
  std::string name;
  std::string dtype;                    // "F32", "BF16", ... as written in the file
  std::vector<std::int64_t> shape;
  std::span<const std::byte> data;
};

// A validated, memory-mapped safetensors file. Entries live as long as the object. Throws Error
// naming the file and the rule broken; accepts and refuses exactly as models.md 2.1.
class SafetensorsFile {
 public:
  explicit SafetensorsFile(const std::filesystem::path&);
  ~SafetensorsFile();
  SafetensorsFile(SafetensorsFile&&) noexcept;
  SafetensorsFile& operator=(SafetensorsFile&&) noexcept;

  const std::vector<SafetensorsEntry>& entries() const { return entries_; }  // in file order
  const std::optional<std::map<std::string, std::string>>& metadata() const { return metadata_; }

 private:
  void* map_ = nullptr;
  std::size_t size_ = 0;
  std::vector<SafetensorsEntry> entries_;
  std::optional<std::map<std::string, std::string>> metadata_;
};

// Validates a whole file image; what SafetensorsFile does after mapping. The seam for fuzzing.
std::vector<SafetensorsEntry> parse_safetensors(std::span<const std::byte> file,
                                                std::optional<std::map<std::string, std::string>>* metadata);

// Writes aside, syncs and renames. Entries are laid out by descending alignment, then name.
void write_safetensors(const std::filesystem::path&, std::vector<SafetensorsEntry> entries,
                       const std::map<std::string, std::string>& metadata);

}  // namespace rollcall
