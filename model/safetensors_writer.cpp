// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>
#include <set>
#include <tuple>
#include <utility>

#include "comms/durable_file.h"
#include "model/safetensors.h"

namespace rollcall {
namespace {

std::uint64_t bytes_of(const SafetensorsEntry& entry) {
  const std::vector<std::uint64_t> shape(entry.shape.begin(), entry.shape.end());
  return safetensors_bytes(entry.dtype, shape);
}

std::span<const std::byte> checked_data(const SafetensorsEntry& entry,
                                        const SafetensorsData& data_of) {
  const auto data = data_of(entry);
  if (bytes_of(entry) == data.size()) return data;
  throw Error("tensor '" + entry.name + "' has " + std::to_string(data.size()) +
              " bytes, which its shape and dtype do not need");
}

// Eight elements take as many bytes as one takes bits.
std::uint64_t element_bits(const SafetensorsEntry& entry) {
  constexpr std::array<std::uint64_t, 1> kEight{8};
  return safetensors_bytes(entry.dtype, kEight);
}

// By descending alignment, so that every tensor is aligned when the first one is.
void sort_for_writing(std::vector<SafetensorsEntry>& entries) {
  std::ranges::sort(entries, [](const auto& a, const auto& b) {
    const auto a_bits = element_bits(a), b_bits = element_bits(b);
    return std::tie(b_bits, a.name) < std::tie(a_bits, b.name);
  });
}

std::string header_text(const std::vector<SafetensorsEntry>& entries,
                        const std::map<std::string, std::string>& metadata) {
  nlohmann::ordered_json header = nlohmann::ordered_json::object();
  if (!metadata.empty()) header["__metadata__"] = metadata;
  std::set<std::string_view> names{"__metadata__"};
  std::uint64_t position = 0;
  // ordered_json looks keys up one by one; pushing pairs keeps large tables linear.
  auto& object = header.get_ref<nlohmann::ordered_json::object_t&>();
  for (const auto& entry : entries) {
    if (!names.insert(entry.name).second) {
      throw Error("tensor name '" + entry.name + "' is used twice or reserved");
    }
    const auto end = position + bytes_of(entry);
    nlohmann::ordered_json value{{"dtype", entry.dtype}, {"shape", entry.shape}};
    value["data_offsets"] = {position, end};
    object.emplace_back(entry.name, std::move(value));
    position = end;
  }
  auto text = header.dump();
  text.append((8 - text.size() % 8) % 8, ' ');
  return text;
}

std::string checked_header(const std::filesystem::path& path,
                           const std::vector<SafetensorsEntry>& entries,
                           const std::map<std::string, std::string>& metadata) try {
  return header_text(entries, metadata);
} catch (const nlohmann::json::exception& error) {
  throw Error(path.string() +
              ": a tensor name or the metadata is not UTF-8: " + json_reason(error));
}

std::string little_endian(std::uint64_t value) {
  std::string bytes;
  for (int i = 0; i < 8; ++i) bytes += static_cast<char>(value >> (8 * i) & 0xff);
  return bytes;
}

}  // namespace

void write_safetensors(const std::filesystem::path& path, std::vector<SafetensorsEntry> entries,
                       const std::map<std::string, std::string>& metadata,
                       const SafetensorsData& data_of) {
  sort_for_writing(entries);
  const auto header = checked_header(path, entries, metadata);
  DurableFile file(path);
  file.write(little_endian(header.size()));
  file.write(header);
  for (const auto& entry : entries) file.write(checked_data(entry, data_of));
  file.commit();
}

void write_safetensors(const std::filesystem::path& path, std::vector<SafetensorsEntry> entries,
                       const std::map<std::string, std::string>& metadata) {
  write_safetensors(path, std::move(entries), metadata,
                    [](const SafetensorsEntry& entry) { return entry.data; });
}

}  // namespace rollcall
