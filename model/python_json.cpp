// SPDX-License-Identifier: Apache-2.0
#include "model/python_json.h"

#include <array>
#include <charconv>
#include <cmath>
#include <cstdint>
#include <nlohmann/json.hpp>
#include <string_view>

#include "comms/error.h"

namespace rollcall {
namespace {

using nlohmann::ordered_json;

constexpr int kMaxDepth = 500;

// Digits "d.ddd" and exponent of the shortest text that reads back as `value` > 0.
struct Scientific {
  std::string digits;  // without the point
  int exponent;        // of the first digit
};

Scientific scientific_of(double value) {
  std::array<char, 40> buffer;
  const auto end = std::to_chars(buffer.data(), buffer.data() + buffer.size(), value,
                                 std::chars_format::scientific)
                       .ptr;
  const std::string_view text(buffer.data(), static_cast<std::size_t>(end - buffer.data()));
  const std::size_t mark = text.find('e');
  Scientific out{std::string(text.substr(0, 1)), 0};
  if (mark > 2) out.digits += text.substr(2, mark - 2);
  const std::size_t first =
      text[mark + 1] == '+' ? mark + 2 : mark + 1;  // from_chars takes no plus
  std::from_chars(text.data() + first, text.data() + text.size(), out.exponent);
  return out;
}

std::string exponent_text(int exponent) {
  const std::string digits = std::to_string(std::abs(exponent));
  return std::string(exponent < 0 ? "e-" : "e+") + (digits.size() < 2 ? "0" : "") + digits;
}

// repr(float): positional for exponents from -4 to 15, always with a point or an exponent.
std::string python_float(double value) {
  if (std::isnan(value)) return "NaN";
  const std::string sign = std::signbit(value) ? "-" : "";
  if (std::isinf(value)) return sign + "Infinity";
  if (value == 0) return sign + "0.0";
  auto [digits, exponent] = scientific_of(std::abs(value));
  if (exponent < -4 || exponent >= 16) {
    if (digits.size() > 1) digits.insert(1, ".");
    return sign + digits + exponent_text(exponent);
  }
  if (exponent < 0) return sign + "0." + std::string(std::size_t(-exponent - 1), '0') + digits;
  const auto whole = static_cast<std::size_t>(exponent) + 1;
  if (digits.size() <= whole) return sign + digits + std::string(whole - digits.size(), '0') + ".0";
  return sign + digits.insert(whole, ".");
}

void append_escaped(std::string& out, char c) {
  constexpr std::string_view kHex = "0123456789abcdef";
  switch (c) {
    case '"':
      out += "\\\"";
      break;
    case '\\':
      out += "\\\\";
      break;
    case '\n':
      out += "\\n";
      break;
    case '\r':
      out += "\\r";
      break;
    case '\t':
      out += "\\t";
      break;
    case '\f':
      out += "\\f";
      break;
    case '\b':
      out += "\\b";
      break;
    default:
      if (static_cast<std::uint8_t>(c) < 0x20) {
        out += "\\u00";
        out += kHex[static_cast<std::size_t>(c) >> 4];
        out += kHex[static_cast<std::size_t>(c) & 15];
      } else {
        out += c;
      }
  }
}

class Writer {
 public:
  explicit Writer(int indent) : indent_(indent) {}

  std::string text(const ordered_json& value) {
    write(value, 0);
    return std::move(out_);
  }

 private:
  void write(const ordered_json& value, int depth) {
    if (depth > kMaxDepth) throw input_error("a JSON value is nested deeper than 500 levels");
    switch (value.type()) {
      case ordered_json::value_t::object:
        return write_object(value, depth);
      case ordered_json::value_t::array:
        return write_array(value, depth);
      case ordered_json::value_t::string:
        return write_string(value.get_ref<const std::string&>());
      case ordered_json::value_t::number_float:
        out_ += python_float(value.get<double>());
        return;
      default:
        out_ += value.dump();
    }
  }

  void write_string(const std::string& text) {
    out_ += '"';
    for (const char c : text) append_escaped(out_, c);
    out_ += '"';
  }

  void break_line(int depth) {
    if (indent_ > 0) out_ += '\n' + std::string(static_cast<std::size_t>(indent_ * depth), ' ');
  }

  void separate(bool& is_first, int depth) {
    if (!is_first) out_ += indent_ > 0 ? "," : ", ";
    is_first = false;
    break_line(depth + 1);
  }

  void write_object(const ordered_json& value, int depth) {
    out_ += '{';
    bool is_first = true;
    for (const auto& [key, item] : value.items()) {
      separate(is_first, depth);
      write_string(key);
      out_ += ": ";
      write(item, depth + 1);
    }
    if (!is_first) break_line(depth);
    out_ += '}';
  }

  void write_array(const ordered_json& value, int depth) {
    out_ += '[';
    bool is_first = true;
    for (const auto& item : value) {
      separate(is_first, depth);
      write(item, depth + 1);
    }
    if (!is_first) break_line(depth);
    out_ += ']';
  }

  int indent_;
  std::string out_;
};

}  // namespace

std::string python_json(const ordered_json& value, int indent) {
  return Writer(indent).text(value);
}

}  // namespace rollcall
