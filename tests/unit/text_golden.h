// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <filesystem>
#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

namespace rollcall {

inline std::filesystem::path golden_path(const std::string& name) {
  return std::filesystem::path(ROLLCALL_GOLDEN_DIR) / name;
}

inline std::string read_text(const std::filesystem::path& file) {
  std::ifstream stream(file, std::ios::binary);
  if (!stream) throw std::runtime_error("cannot read " + file.string());
  return {std::istreambuf_iterator<char>(stream), {}};
}

inline void write_text(const std::filesystem::path& file, const std::string& text) {
  std::ofstream(file, std::ios::binary) << text;
}

inline std::vector<nlohmann::ordered_json> read_jsonl(const std::filesystem::path& file) {
  std::ifstream stream(file);
  if (!stream) throw std::runtime_error("cannot read " + file.string());
  std::vector<nlohmann::ordered_json> rows;
  for (std::string line; std::getline(stream, line);) {
    rows.push_back(nlohmann::ordered_json::parse(line));
  }
  return rows;
}

}  // namespace rollcall
