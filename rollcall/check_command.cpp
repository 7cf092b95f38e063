// SPDX-License-Identifier: Apache-2.0
#include "rollcall/check_command.h"

#include <array>
#include <nlohmann/json.hpp>
#include <ostream>

#include "model/weight_files.h"

namespace rollcall {
namespace {

using nlohmann::ordered_json;

constexpr std::array<std::uint32_t, 256> make_crc_table() {
  constexpr std::uint32_t kReversedPolynomial = 0xedb88320;  // of CRC-32 as in zlib and PNG
  std::array<std::uint32_t, 256> table{};
  for (std::uint32_t i = 0; i < table.size(); ++i) {
    std::uint32_t value = i;
    for (int bit = 0; bit < 8; ++bit) {
      value = (value >> 1) ^ ((value & 1) != 0 ? kReversedPolynomial : 0);
    }
    table[i] = value;
  }
  return table;
}

std::string crc32(std::span<const std::byte> bytes) {
  static constexpr auto kTable = make_crc_table();
  std::uint32_t crc = 0xffffffff;
  for (const auto byte : bytes) {
    crc = (crc >> 8) ^ kTable[(crc ^ std::to_integer<std::uint32_t>(byte)) & 0xff];
  }
  crc = ~crc;
  std::string digits;
  for (int shift = 28; shift >= 0; shift -= 4) digits += "0123456789abcdef"[(crc >> shift) & 0xf];
  return digits;
}

ordered_json described(const SafetensorsEntry& entry) {
  return {{"name", entry.name},
          {"dtype", entry.dtype},
          {"shape", entry.shape},
          {"crc32", crc32(entry.data)}};
}

std::vector<WeightFile> open_path(const std::filesystem::path& path) {
  if (std::filesystem::is_directory(path)) return open_weight_files(path);
  std::vector<WeightFile> files;
  files.push_back({path, SafetensorsFile(path)});
  return files;
}

ordered_json check(const std::filesystem::path& path) {
  const auto files = open_path(path);
  ordered_json answer{{"ok", true}, {"metadata", nullptr}, {"tensors", ordered_json::array()}};
  if (const auto& metadata = files.front().contents.metadata()) answer["metadata"] = *metadata;
  for (const auto& file : files) {
    for (const auto& entry : file.contents.entries()) {
      answer["tensors"].push_back(described(entry));
    }
  }
  return answer;
}

ordered_json refusal(const std::string& kind, const std::string& message) {
  return {{"ok", false}, {"error", {{"kind", kind}, {"message", message}}}};
}

// Names of files may be no UTF-8.
std::string one_line(const ordered_json& answer) {
  return answer.dump(-1, ' ', false, ordered_json::error_handler_t::replace) + "\n";
}

}  // namespace

int run_model_check(const std::filesystem::path& path, std::ostream& out) {
  try {
    out << one_line(check(path));
    return static_cast<int>(ExitCode::kDone);
  } catch (const SafetensorsError& error) {
    out << one_line(refusal(error.kind(), error.what()));
  } catch (const std::filesystem::filesystem_error& error) {
    out << one_line(refusal("unreadable", error.what()));
  }
  return static_cast<int>(ExitCode::kBadInput);
}

}  // namespace rollcall
