// SPDX-License-Identifier: Apache-2.0
#include "configs/value_text.h"

#include <array>
#include <charconv>
#include <cmath>
#include <span>
#include <utility>

namespace rollcall {
namespace {

struct Unit {
  std::string_view name;
  std::int64_t factor;
};

// Largest first.
constexpr std::array<Unit, 4> kDurations{{{"h", 3'600'000}, {"m", 60'000}, {"s", 1000}, {"ms", 1}}};
constexpr std::array<Unit, 4> kSizes{
    {{"GiB", std::int64_t{1} << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10}, {"B", 1}}};

constexpr double kLargestExact = 9007199254740992.0;  // 2^53

// The number before the unit and the unit, blanks between them dropped.
std::pair<std::string_view, std::string_view> split_unit(std::string_view text) {
  const std::size_t end = text.find_last_of("0123456789.");
  if (end == std::string_view::npos) return {};
  std::string_view unit = text.substr(end + 1);
  unit.remove_prefix(std::min(unit.find_first_not_of(' '), unit.size()));
  return {text.substr(0, end + 1), unit};
}

std::optional<std::int64_t> parse_amount(std::string_view text, std::span<const Unit> units) {
  const auto [amount, name] = split_unit(text);
  if (amount.find_first_not_of("0123456789.") != std::string_view::npos) return {};
  const std::optional<double> value = parse_number(amount);
  for (const Unit& unit : units) {
    if (!value || unit.name != name) continue;
    const double total = *value * static_cast<double>(unit.factor);
    if (total > kLargestExact || total != std::floor(total)) return {};
    return static_cast<std::int64_t>(total);
  }
  return {};
}

std::string format_amount(std::int64_t value, std::span<const Unit> units) {
  const Unit* best = &units.back();
  for (const Unit& unit : units) {
    if (value != 0 && value % unit.factor == 0) {
      best = &unit;
      break;
    }
  }
  return std::to_string(value / best->factor) + std::string(best->name);
}

template <typename T>
std::optional<T> parse_whole(std::string_view text) {
  T value{};
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (text.empty() || error != std::errc() || end != text.data() + text.size()) return {};
  return value;
}

void append_escaped(std::string& out, char c) {
  constexpr std::string_view kDigits = "0123456789abcdef";
  const auto byte = static_cast<unsigned char>(c);
  if (c == '"' || c == '\\') {
    out.append({'\\', c});
  } else if (byte < 0x20 || byte == 0x7f) {
    out.append({'\\', 'x', kDigits[byte >> 4], kDigits[byte & 15]});
  } else {
    out.push_back(c);
  }
}

}  // namespace

std::optional<std::int64_t> parse_integer(std::string_view text) {
  return parse_whole<std::int64_t>(text);
}

std::optional<double> parse_number(std::string_view text) {
  const std::optional<double> value = parse_whole<double>(text);
  return value && std::isfinite(*value) ? value : std::nullopt;
}

std::optional<std::chrono::milliseconds> parse_duration(std::string_view text) {
  const std::optional<std::int64_t> value = parse_amount(text, kDurations);
  return value ? std::optional(std::chrono::milliseconds(*value)) : std::nullopt;
}

std::optional<std::int64_t> parse_size(std::string_view text) {
  const std::optional<std::int64_t> plain = parse_integer(text);
  return plain ? plain : parse_amount(text, kSizes);
}

std::optional<std::int64_t> parse_steps(std::string_view text) {
  for (std::string_view unit : {" steps", " step"}) {
    if (text.ends_with(unit)) text.remove_suffix(unit.size());
  }
  return parse_integer(text);
}

std::string format_number(double value) {
  std::array<char, 32> buffer{};
  const auto [end, error] = std::to_chars(buffer.data(), buffer.data() + buffer.size(), value);
  return {buffer.data(), end};
}

std::string format_duration(std::chrono::milliseconds value) {
  return value.count() == 0 ? "0s" : format_amount(value.count(), kDurations);
}

std::string format_size(std::int64_t bytes) { return format_amount(bytes, kSizes); }

std::string format_text(std::string_view text) {
  std::string out = "\"";
  for (char c : text) append_escaped(out, c);
  return out + "\"";
}

bool reads_as_other_type(std::string_view text) {
  for (std::string_view word : {"true", "True", "TRUE", "false", "False", "FALSE"}) {
    if (text == word) return true;
  }
  return parse_number(text).has_value();
}

}  // namespace rollcall
