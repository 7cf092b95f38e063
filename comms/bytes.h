// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <bit>
#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include "comms/error.h"

namespace rollcall {

// Builds a little-endian record. Texts and arrays carry a 64-bit length.
class ByteWriter {
 public:
  template <typename T>
  void number(T value) {
    static_assert(std::is_arithmetic_v<T> && std::endian::native == std::endian::little);
    bytes_.append(reinterpret_cast<const char*>(&value), sizeof value);
  }
  template <typename T>
  void enumerator(T value) {
    number(static_cast<std::underlying_type_t<T>>(value));
  }
  void boolean(bool value) { number(static_cast<std::uint8_t>(value)); }
  void text(std::string_view value) {
    number(static_cast<std::uint64_t>(value.size()));
    bytes_.append(value);
  }
  template <typename T>
  void array(const std::vector<T>& values) {
    number(static_cast<std::uint64_t>(values.size()));
    bytes_.append(reinterpret_cast<const char*>(values.data()), values.size() * sizeof(T));
  }
  std::string take() { return std::move(bytes_); }

 private:
  std::string bytes_;
};

// Reads what ByteWriter wrote and trusts none of it: every read is checked against what is left,
// and nothing is allocated for a length that the record cannot hold. Throws Error naming `record`.
class ByteReader {
 public:
  ByteReader(std::string_view bytes, const char* record) : bytes_(bytes), record_(record) {}

  template <typename T>
  T number() {
    static_assert(std::is_arithmetic_v<T> && !std::is_same_v<T, bool> &&
                  std::endian::native == std::endian::little);
    T value;
    std::memcpy(&value, take(sizeof value).data(), sizeof value);
    return value;
  }
  template <typename T>
  T enumerator(T last) {
    using Number = std::make_unsigned_t<std::underlying_type_t<T>>;  // a negative one is too large
    const auto value = number<Number>();
    if (value > static_cast<Number>(last)) fail("an unknown enumerator");
    return static_cast<T>(value);
  }
  bool boolean() {
    const auto value = number<std::uint8_t>();
    if (value > 1) fail("a boolean that is neither 0 nor 1");
    return value == 1;
  }
  std::string text() { return std::string(take(count(1))); }
  // The length of a list whose entries take at least `entry_bytes` each.
  std::size_t count(std::size_t entry_bytes) {
    const auto entries = number<std::uint64_t>();
    if (entries > bytes_.size() / entry_bytes) fail("a length beyond its end");
    return static_cast<std::size_t>(entries);
  }
  template <typename T>
  std::vector<T> array() {
    std::vector<T> values(count(sizeof(T)));
    const std::string_view source = take(values.size() * sizeof(T));
    if (!values.empty()) std::memcpy(values.data(), source.data(), source.size());
    return values;
  }
  void finish() const {
    if (!bytes_.empty()) fail("bytes after its end");
  }
  [[noreturn]] void fail(const char* what) const {
    throw Error(std::string("a record of kind '") + record_ + "' holds " + what,
                "all ranks must run the same build of rollcall");
  }

 private:
  std::string_view take(std::size_t size) {
    if (size > bytes_.size()) fail("too few bytes");
    const std::string_view taken = bytes_.substr(0, size);
    bytes_.remove_prefix(size);
    return taken;
  }

  std::string_view bytes_;
  const char* record_;
};

}  // namespace rollcall
