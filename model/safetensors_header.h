// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace rollcall {

struct SafetensorsHeaderEntry {
  std::string name;
  std::string dtype;
  std::vector<std::uint64_t> shape;
  std::uint64_t begin = 0;  // bytes from the start of the data
  std::uint64_t end = 0;
};

struct SafetensorsHeader {
  std::vector<SafetensorsHeaderEntry> entries;  // in header order, offsets not checked yet
  std::optional<std::map<std::string, std::string>> metadata;
};

// Reads the JSON header of a safetensors file. Throws SafetensorsError for anything but an object
// of complete entries without repeated keys.
SafetensorsHeader read_safetensors_header(std::string_view json);

}  // namespace rollcall
