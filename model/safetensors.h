// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "comms/error.h"

namespace rollcall {

// A weights file or index that breaks a rule. `kind` is a word for scripts: header_too_small,
// header_too_large, header_length, header_json, duplicate_key, dtype, offsets, overflow,
// tensor_size, data_size, unreadable; of an index: index_json, bad_shard_name, missing_file,
// missing_tensor, duplicate_tensor, unlisted_tensor.
class SafetensorsError : public Error {
 public:
  SafetensorsError(std::string kind, const std::string& message);
  const std::string& kind() const { return kind_; }

 private:
  std::string kind_;
};

// One tensor of a safetensors file. `data` points into the mapping and may be misaligned: copy it
// out.
struct SafetensorsEntry {
  std::string name;
  std::string dtype;  // "F32", "BF16", ... as written in the file
  std::vector<std::int64_t> shape;
  std::span<const std::byte> data;
};

// A validated, memory-mapped safetensors file. Entries live as long as the object. Throws
// SafetensorsError naming the file and the rule broken. Offsets must cover the data without holes
// or overlaps; repeated keys, unknown members and anything but JSON's white space around the header
// are refused. Stricter than the reference reader in the first two.
class SafetensorsFile {
 public:
  explicit SafetensorsFile(const std::filesystem::path&);
  ~SafetensorsFile();
  SafetensorsFile(SafetensorsFile&&) noexcept;
  SafetensorsFile& operator=(SafetensorsFile&&) noexcept;

  const std::vector<SafetensorsEntry>& entries() const { return entries_; }  // in file order
  const std::optional<std::map<std::string, std::string>>& metadata() const { return metadata_; }

  // Gives the memory that holds an entry's bytes back; they are read from the file again on use.
  static void release(const SafetensorsEntry&);

 private:
  void* map_ = nullptr;
  std::size_t size_ = 0;
  std::vector<SafetensorsEntry> entries_;
  std::optional<std::map<std::string, std::string>> metadata_;
};

// Validates a whole file image; what SafetensorsFile does after mapping. The seam for fuzzing.
// `metadata` may be null.
std::vector<SafetensorsEntry> parse_safetensors(
    std::span<const std::byte> file, std::optional<std::map<std::string, std::string>>* metadata);

// Bytes that a tensor of this dtype and shape takes. Throws SafetensorsError for an unknown dtype,
// overflow, or a size that is no whole number of bytes.
std::uint64_t safetensors_bytes(const std::string& dtype, std::span<const std::uint64_t> shape);

// Gives a tensor's bytes, which need to last until the next call.
using SafetensorsData = std::function<std::span<const std::byte>(const SafetensorsEntry&)>;

// Writes aside, syncs and renames. Entries are laid out by descending alignment, then name; their
// data is asked for when their turn has come, their own `data` is not looked at. Throws Error for a
// name used twice or data that does not fit the shape.
void write_safetensors(const std::filesystem::path&, std::vector<SafetensorsEntry> entries,
                       const std::map<std::string, std::string>& metadata,
                       const SafetensorsData& data_of);

// The same from the entries' own `data`.
void write_safetensors(const std::filesystem::path&, std::vector<SafetensorsEntry> entries,
                       const std::map<std::string, std::string>& metadata);

}  // namespace rollcall
