// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <functional>
#include <limits>
#include <map>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "configs/read_context.h"
#include "configs/value_text.h"

namespace rollcall {

using AsWritten = std::map<std::string, std::string>;

constexpr double kUnbounded = std::numeric_limits<double>::infinity();
constexpr Range kFromZero{0, kUnbounded};
constexpr Range kFromOne{1, kUnbounded};
constexpr Range kUnit{0, 1};
constexpr Range kAny{-kUnbounded, kUnbounded};

// One key of a section: said once, used to read a run file, to write the effective one, and to
// explain both. `path` is the key's place in the file, "tools.0.url".
template <typename S>
struct Field {
  std::string_view key;
  std::string type;  // in words
  std::string_view meaning;
  std::function<void(ReadContext&, const YamlNode&, const std::string& path, S&)> read;
  std::function<std::string(const S&, const std::string& path, const AsWritten&)> write;
  bool required = false;
};

template <typename S>
Field<S> required(Field<S> field) {
  field.required = true;
  return field;
}

inline std::string child_path(const std::string& path, std::string_view key) {
  return path.empty() ? std::string(key) : path + "." + std::string(key);
}

template <typename S>
std::vector<std::string_view> keys_of(const std::vector<Field<S>>& fields) {
  std::vector<std::string_view> keys;
  for (const Field<S>& field : fields) keys.push_back(field.key);
  return keys;
}

// Reads the keys of a section into `out`; keys that are not there leave their defaults.
template <typename S>
void read_section(ReadContext& context, const YamlNode& node, const std::string& path,
                  const std::vector<Field<S>>& fields, S& out) {
  if (!context.check_section(node, path)) return;
  for (const YamlEntry& entry : node.entries) {
    const auto field = std::find_if(fields.begin(), fields.end(),
                                    [&](const Field<S>& f) { return f.key == entry.key; });
    if (field == fields.end()) {
      context.unknown_key(entry, path, keys_of(fields));
      continue;
    }
    const std::string place = child_path(path, entry.key);
    context.note(place, entry.value.position);
    field->read(context, entry.value, place, out);
  }
  for (const Field<S>& field : fields) {
    const std::string place = child_path(path, field.key);
    if (field.required && !context.given(place)) context.problem(place, "this key must be there");
  }
}

// A field whose value is read by `read(context, node, path) -> optional` and written by
// `write(value)`.
template <typename S, typename T, typename Read, typename Write>
Field<S> value_field(std::string_view key, T S::*member, std::string type, std::string_view meaning,
                     Read read, Write write) {
  Field<S> field{.key = key, .type = std::move(type), .meaning = meaning, .read = {}, .write = {}};
  field.read = [member, read](ReadContext& context, const YamlNode& node, const std::string& path,
                              S& out) {
    if (auto value = read(context, node, path)) out.*member = static_cast<T>(*std::move(value));
  };
  field.write = [member, write](const S& in, const std::string&, const AsWritten&) {
    return write(in.*member);
  };
  return field;
}

template <typename S, typename T>
Field<S> integer(std::string_view key, T S::*member, Range range, std::string_view meaning) {
  range.high = std::min(range.high, static_cast<double>(std::numeric_limits<T>::max()));
  return value_field(
      key, member, "integer " + range.in_words(), meaning,
      [range](ReadContext& c, const YamlNode& n, const std::string& p) {
        return c.read_integer(n, p, range);
      },
      [](T value) { return std::to_string(value); });
}

template <typename S>
Field<S> steps(std::string_view key, std::int64_t S::*member, std::string_view meaning) {
  return value_field(
      key, member, "steps", meaning,
      [](ReadContext& c, const YamlNode& n, const std::string& p) {
        return c.read_steps(n, p, {0, kUnbounded});
      },
      [](std::int64_t value) { return std::to_string(value) + " steps"; });
}

template <typename S>
Field<S> size(std::string_view key, std::int64_t S::*member, Range range,
              std::string_view meaning) {
  return value_field(
      key, member, "size", meaning,
      [range](ReadContext& c, const YamlNode& n, const std::string& p) {
        return c.read_size(n, p, range);
      },
      format_size);
}

template <typename S>
Field<S> number(std::string_view key, double S::*member, Range range, std::string_view meaning) {
  return value_field(
      key, member, "number " + range.in_words(), meaning,
      [range](ReadContext& c, const YamlNode& n, const std::string& p) {
        return c.read_number(n, p, range);
      },
      format_number);
}

template <typename S>
Field<S> duration(std::string_view key, std::chrono::milliseconds S::*member, Range milliseconds,
                  std::string_view meaning) {
  return value_field(
      key, member, "duration", meaning,
      [milliseconds](ReadContext& c, const YamlNode& n, const std::string& p) {
        return c.read_duration(n, p, milliseconds);
      },
      format_duration);
}

template <typename S>
Field<S> flag(std::string_view key, bool S::*member, std::string_view meaning) {
  return value_field(
      key, member, "true or false", meaning,
      [](ReadContext& c, const YamlNode& n, const std::string& p) { return c.read_flag(n, p); },
      [](bool value) { return std::string(value ? "true" : "false"); });
}

template <typename S>
Field<S> text(std::string_view key, std::string S::*member, std::string_view meaning) {
  return value_field(
      key, member, "text", meaning,
      [](ReadContext& c, const YamlNode& n, const std::string& p) { return c.read_text(n, p); },
      format_text);
}

template <typename S>
Field<S> url(std::string_view key, std::string S::*member, std::string_view meaning) {
  return value_field(
      key, member, "URL", meaning,
      [](ReadContext& c, const YamlNode& n, const std::string& p) { return c.read_url(n, p); },
      format_text);
}

template <typename S>
Field<S> choice(std::string_view key, std::string S::*member, std::vector<std::string_view> names,
                std::string_view meaning) {
  std::string type;
  for (std::string_view name : names)
    type += (type.empty() ? "`" : ", `") + std::string(name) + "`";
  return value_field(
      key, member, type, meaning,
      [names](ReadContext& c, const YamlNode& n, const std::string& p) {
        return c.read_choice(n, p, names);
      },
      format_text);
}

// A list of names, each there once.
template <typename S>
Field<S> choices(std::string_view key, std::vector<std::string> S::*member,
                 std::vector<std::string_view> names, std::string_view meaning) {
  std::string type = "list of";
  for (std::string_view name : names) type += " `" + std::string(name) + "`";
  return value_field(
      key, member, type, meaning,
      [names](ReadContext& c, const YamlNode& n, const std::string& p) {
        return c.read_choices(n, p, names);
      },
      [](const std::vector<std::string>& values) {
        std::string out;
        for (const std::string& value : values) out += (out.empty() ? "" : ", ") + value;
        return "[" + out + "]";
      });
}

// A section inside a section, documented and written out in one line: "{rank: 32, alpha: 32}". The
// meanings of its fields are their defaults.
template <typename S, typename T>
Field<S> section(std::string_view key, T S::*member, std::vector<Field<T>> fields,
                 std::string_view meaning) {
  Field<S> field{.key = key, .type = "section:", .meaning = meaning, .read = {}, .write = {}};
  for (const Field<T>& inner : fields)
    field.type += (&inner == &fields.front() ? " `" : "; `") + std::string(inner.key) +
                  "`: " + inner.type + " (" + std::string(inner.meaning) + ")";
  field.read = [member, fields](ReadContext& context, const YamlNode& node, const std::string& path,
                                S& out) { read_section(context, node, path, fields, out.*member); };
  field.write = [member, fields](const S& in, const std::string& path,
                                 const AsWritten& as_written) {
    std::string out;
    for (const Field<T>& inner : fields)
      out += (out.empty() ? "" : ", ") + std::string(inner.key) + ": " +
             inner.write(in.*member, child_path(path, inner.key), as_written);
    return "{" + out + "}";
  };
  return field;
}

// The names of an enumeration's values, in its order.
template <typename S, typename Enum>
Field<S> enumeration(std::string_view key, Enum S::*member, std::vector<std::string_view> names,
                     std::string_view meaning) {
  std::string type;
  for (std::string_view name : names)
    type += (type.empty() ? "`" : ", `") + std::string(name) + "`";
  return value_field(
      key, member, type, meaning,
      [names](ReadContext& c, const YamlNode& n, const std::string& p) {
        const auto name = c.read_choice(n, p, names);
        const auto index = std::find(names.begin(), names.end(), name.value_or("")) - names.begin();
        return name ? std::optional(static_cast<Enum>(index)) : std::nullopt;
      },
      [names](Enum value) { return std::string(names[static_cast<std::size_t>(value)]); });
}

enum class PathBase { kRunFile, kCurrentFolder };

template <typename S>
Field<S> path(std::string_view key, std::string S::*member, PathBase base,
              std::string_view meaning) {
  Field<S> field = value_field(
      key, member, "path", meaning,
      [base](ReadContext& c, const YamlNode& n, const std::string& p) {
        return c.read_path(n, p, base == PathBase::kCurrentFolder);
      },
      format_text);
  field.write = [member](const S& in, const std::string& place, const AsWritten& as_written) {
    const auto written = as_written.find(place);
    return format_text(written != as_written.end() ? written->second
                                                   : escape_variables(in.*member));
  };
  return field;
}

template <typename S>
Field<S> headers(std::string_view key, HeaderList S::*member, std::string_view meaning) {
  Field<S> field = value_field(
      key, member, "section of header: value", meaning,
      [](ReadContext& c, const YamlNode& n, const std::string& p) { return c.read_headers(n, p); },
      [](const HeaderList&) { return std::string(); });
  field.write = [member](const S& in, const std::string& place, const AsWritten& as_written) {
    std::string out;
    for (const auto& [name, secret] : in.*member) {
      const auto written = as_written.find(place + "." + name);
      out += (out.empty() ? "" : ", ") + format_text(name) + ": " +
             format_text(written != as_written.end() ? written->second : "redacted");
    }
    return "{" + out + "}";
  };
  return field;
}

}  // namespace rollcall
