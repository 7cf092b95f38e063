// SPDX-License-Identifier: Apache-2.0
#include "trainer/tensorboard.h"

#include <array>
#include <bit>
#include <cstdio>
#include <cstring>

#include "comms/error.h"

namespace rollcall {
namespace {

std::array<std::uint32_t, 256> crc32c_table() {
  std::array<std::uint32_t, 256> table{};
  for (std::uint32_t byte = 0; byte < 256; ++byte) {
    std::uint32_t crc = byte;
    for (int bit = 0; bit < 8; ++bit) crc = (crc >> 1) ^ ((crc & 1) != 0 ? 0x82f63b78U : 0);
    table[byte] = crc;
  }
  return table;
}

// TFRecord stores checksums rotated and offset, so that a record of records does not check itself.
std::uint32_t masked_crc32c(std::string_view bytes) {
  return std::rotr(crc32c(bytes), 15) + 0xa282ead8U;
}

template <class T>
std::string little_endian(T value) {
  std::string bytes(sizeof value, '\0');
  std::memcpy(bytes.data(), &value, sizeof value);
  return bytes;
}

// Protocol buffer wire format: (field << 3 | type), then the value.
std::string varint(std::uint64_t value) {
  std::string bytes;
  for (; value >= 128; value >>= 7) bytes += static_cast<char>(value | 128);
  return bytes + static_cast<char>(value);
}

std::string integer_field(int field, std::int64_t value) {
  return varint(field << 3) + varint(static_cast<std::uint64_t>(value));
}

std::string double_field(int field, double value) {
  return varint(field << 3 | 1) + little_endian(value);
}

std::string bytes_field(int field, std::string_view value) {
  return varint(field << 3 | 2) + varint(value.size()) + std::string(value);
}

std::string float_field(int field, float value) {
  return varint(field << 3 | 5) + little_endian(value);
}

// tensorflow/core/util/event.proto: Event {1 wall_time, 2 step, 3 file_version, 5 summary,
// 7 session_log}; summary.proto: Summary {1 value {1 tag, 2 simple_value}}.
std::string scalar_event(std::int64_t step, double time_unix_s, std::string_view name,
                         float value) {
  const std::string scalar = bytes_field(1, name) + float_field(2, value);
  return double_field(1, time_unix_s) + integer_field(2, step) +
         bytes_field(5, bytes_field(1, scalar));
}

// SessionLog {1 status = START}: readers drop older events of this step and later.
std::string resume_event(std::int64_t step) {
  return double_field(1, 0) + integer_field(2, step) + bytes_field(7, integer_field(1, 1));
}

std::filesystem::path next_file(const std::filesystem::path& folder) {
  constexpr std::string_view kPrefix = "events.out.tfevents.";
  int used = 0;
  std::error_code ignored;
  for (const auto& entry : std::filesystem::directory_iterator(folder, ignored)) {
    if (entry.path().filename().string().starts_with(kPrefix)) ++used;
  }
  std::array<char, 16> number{};
  std::snprintf(number.data(), number.size(), "%010d", used);
  return folder / (std::string(kPrefix) + number.data() + ".rollcall");
}

}  // namespace

std::uint32_t crc32c(std::string_view bytes) {
  static const std::array<std::uint32_t, 256> table = crc32c_table();
  std::uint32_t crc = ~0U;
  for (const char c : bytes) crc = table[(crc ^ static_cast<std::uint8_t>(c)) & 255] ^ (crc >> 8);
  return ~crc;
}

TensorBoardWriter::TensorBoardWriter(const std::filesystem::path& folder, std::int64_t resume_step)
    : file_(next_file(folder)), out_(file_, std::ios::binary | std::ios::trunc) {
  add_record(double_field(1, 0) + bytes_field(3, "brain.Event:2"));
  add_record(resume_event(resume_step == 0 ? 0 : resume_step + 1));
  flush();
}

void TensorBoardWriter::add_scalar(std::int64_t step, double time_unix_s, std::string_view name,
                                   double value) {
  add_record(scalar_event(step, time_unix_s, name, static_cast<float>(value)));
}

void TensorBoardWriter::add_record(std::string_view event) {
  const std::string length = little_endian(static_cast<std::uint64_t>(event.size()));
  out_ << length << little_endian(masked_crc32c(length)) << event
       << little_endian(masked_crc32c(event));
}

void TensorBoardWriter::flush() {
  if (out_.flush()) return;
  throw StorageError("metrics: cannot write " + file_.string(),
                     "check free space and permissions, then start the run again to resume");
}

}  // namespace rollcall
