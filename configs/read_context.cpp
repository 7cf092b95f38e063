// SPDX-License-Identifier: Apache-2.0
#include "configs/read_context.h"

#include <algorithm>
#include <array>
#include <cctype>
#include <limits>
#include <utility>

#include "configs/value_text.h"

namespace rollcall {
namespace {

constexpr double kBeyondIntegers = 9e18;  // near the largest 64-bit integer

std::string shown(double bound) {
  const auto whole = static_cast<std::int64_t>(bound);
  return static_cast<double>(whole) == bound ? std::to_string(whole) : format_number(bound);
}

// What stands there, for a message.
std::string found(const YamlNode& node) {
  switch (node.kind) {
    case YamlNode::Kind::kNull:
      return "nothing";
    case YamlNode::Kind::kSequence:
      return "a list";
    case YamlNode::Kind::kMap:
      return "a section";
    case YamlNode::Kind::kScalar:
      break;
  }
  return cited(node.text) + (node.plain ? "" : " in quotes");
}

bool has_control(std::string_view text) {
  return std::any_of(text.begin(), text.end(),
                     [](char c) { return static_cast<unsigned char>(c) < 0x20 || c == 0x7f; });
}

bool is_name(std::string_view text) {
  return !text.empty() && !std::isdigit(static_cast<unsigned char>(text[0])) &&
         std::all_of(text.begin(), text.end(),
                     [](unsigned char c) { return std::isalnum(c) || c == '_'; });
}

// RFC 9110 5.6.2: a header name is a token.
bool is_header_name(std::string_view text) {
  constexpr std::string_view kMarks = "!#$%&'*+-.^_`|~";
  return !text.empty() && std::all_of(text.begin(), text.end(), [&](unsigned char c) {
    return std::isalnum(c) || kMarks.find(static_cast<char>(c)) != std::string_view::npos;
  });
}

std::string lower(std::string text) {
  for (char& c : text) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  return text;
}

bool is_port(std::string_view text) {
  const auto port = parse_integer(text);
  return port && *port >= 1 && *port <= 65535;
}

// What is wrong with an http(s) URL; empty if nothing is.
std::string url_problem(std::string_view url) {
  const std::size_t scheme = url.find("://");
  const std::string_view name = url.substr(0, scheme == std::string_view::npos ? 0 : scheme);
  if (name != "http" && name != "https")
    return "expected a URL that begins with http:// or https://";
  if (std::any_of(url.begin(), url.end(),
                  [](char c) { return static_cast<unsigned char>(c) <= 0x20 || c == 0x7f; })) {
    return "a URL holds no blanks";
  }
  std::string_view host = url.substr(scheme + 3);
  host = host.substr(0, host.find_first_of("/?#"));
  if (host.find('@') != std::string_view::npos) {
    return "put credentials into `headers`, not into the URL";
  }
  const std::size_t bracket = host.find(']');
  const std::size_t colon = host.find(':', bracket == std::string_view::npos ? 0 : bracket);
  if (colon != std::string_view::npos && !is_port(host.substr(colon + 1))) {
    return "the port must be a number from 1 to 65535";
  }
  return host.substr(0, colon).empty() ? "the URL names no host" : "";
}

}  // namespace

bool Range::holds(double value) const {
  return (low_is_open ? value > low : value >= low) &&
         (high_is_open ? value < high : value <= high);
}

std::string Range::in_words() const {
  if (low == -std::numeric_limits<double>::infinity()) return "of any size";
  const std::string lower_bound = (low_is_open ? "more than " : "at least ") + shown(low);
  if (high >= kBeyondIntegers) return lower_bound;
  if (!low_is_open && !high_is_open) return "from " + shown(low) + " to " + shown(high);
  return lower_bound + (high_is_open ? ", less than " : ", at most ") + shown(high);
}

std::string escape_variables(std::string_view text) {
  std::string out;
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (text.substr(i, 2) == "${") out += '$';
    out += text[i];
  }
  return out;
}

ReadContext::ReadContext(std::filesystem::path folder, const EnvironmentLookup& environment,
                         Problems& problems, std::map<std::string, std::string>& as_written)
    : folder_(std::move(folder)),
      environment_(environment),
      problems_(problems),
      as_written_(as_written) {}

void ReadContext::problem(const YamlNode& node, const std::string& path, const std::string& text) {
  failed_.insert(path);
  problems_.add(node.position, path + ": " + text);
}

void ReadContext::problem(const std::string& path, std::string text) {
  std::optional<Position> position;  // of the key, else of the nearest section around it
  for (std::string around = path; !around.empty();) {
    if (failed(around)) return;
    const auto place = places_.find(around);
    if (!position && place != places_.end()) position = place->second;
    const std::size_t dot = around.rfind('.');
    around.resize(dot == std::string::npos ? 0 : dot);
  }
  failed_.insert(path);
  problems_.add(position.value_or(Position{}), path + ": " + std::move(text));
}

template <typename T, typename Parse>
std::optional<T> ReadContext::read_plain(const YamlNode& node, const std::string& path,
                                         const std::string& expected, Quotes quotes, Parse parse) {
  std::optional<T> value;
  if (node.kind == YamlNode::Kind::kScalar && (node.plain || quotes == Quotes::kAllowed)) {
    value = parse(node.text);
  }
  if (!value) problem(node, path, "expected " + expected + ", found " + found(node));
  return value;
}

std::optional<std::int64_t> ReadContext::read_integer(const YamlNode& node, const std::string& path,
                                                      const Range& range) {
  return read_plain<std::int64_t>(
      node, path, "an integer " + range.in_words(), Quotes::kRefused, [&](auto text) {
        const auto value = parse_integer(text);
        return value && range.holds(static_cast<double>(*value)) ? value : std::nullopt;
      });
}

std::optional<std::int64_t> ReadContext::read_steps(const YamlNode& node, const std::string& path,
                                                    const Range& range) {
  return read_plain<std::int64_t>(
      node, path, "a number of steps " + range.in_words() + ", such as `20 steps`",
      Quotes::kAllowed, [&](auto text) {
        const auto value = parse_steps(text);
        return value && range.holds(static_cast<double>(*value)) ? value : std::nullopt;
      });
}

std::optional<std::int64_t> ReadContext::read_size(const YamlNode& node, const std::string& path,
                                                   const Range& range) {
  return read_plain<std::int64_t>(
      node, path, "a size in bytes, KiB, MiB or GiB " + range.in_words() + ", such as 1MiB",
      Quotes::kAllowed, [&](auto text) {
        const auto value = parse_size(text);
        return value && range.holds(static_cast<double>(*value)) ? value : std::nullopt;
      });
}

std::optional<double> ReadContext::read_number(const YamlNode& node, const std::string& path,
                                               const Range& range) {
  return read_plain<double>(node, path, "a number " + range.in_words(), Quotes::kRefused,
                            [&](auto text) {
                              const auto value = parse_number(text);
                              return value && range.holds(*value) ? value : std::nullopt;
                            });
}

std::optional<std::chrono::milliseconds> ReadContext::read_duration(const YamlNode& node,
                                                                    const std::string& path,
                                                                    const Range& range) {
  const auto in_words = [](double bound) {
    return format_duration(std::chrono::milliseconds(static_cast<std::int64_t>(bound)));
  };
  const std::string expected = "a duration from " + in_words(range.low) + " to " +
                               in_words(range.high) + " with its unit, such as 500ms, 30s, 5m, 2h";
  return read_plain<std::chrono::milliseconds>(
      node, path, expected, Quotes::kAllowed, [&](auto text) {
        const auto value = parse_duration(text);
        return value && range.holds(static_cast<double>(value->count())) ? value : std::nullopt;
      });
}

std::optional<bool> ReadContext::read_flag(const YamlNode& node, const std::string& path) {
  return read_plain<bool>(node, path, "true or false", Quotes::kRefused,
                          [](const std::string& text) {
                            if (text != "true" && text != "false") return std::optional<bool>();
                            return std::optional<bool>(text == "true");
                          });
}

std::optional<std::string> ReadContext::read_line(const YamlNode& node, const std::string& path) {
  if (node.kind != YamlNode::Kind::kScalar) {
    problem(node, path, "expected text, found " + found(node));
    return {};
  }
  // On a command line the shell takes the quotes, so --set cannot write any.
  if (node.plain && node.position.override_number == 0 && reads_as_other_type(node.text)) {
    problem(node, path, "expected text, found " + found(node) + "; put it in quotes");
    return {};
  }
  if (has_control(node.text)) {
    problem(node, path, "the text holds a line break or another control character");
    return {};
  }
  return node.text;
}

std::optional<std::string> ReadContext::read_text(const YamlNode& node, const std::string& path) {
  std::optional<std::string> text = read_line(node, path);
  if (text && text->find("${") != std::string::npos) {
    problem(node, path, "${NAME} is replaced only in header values and paths");
    return {};
  }
  return text;
}

std::optional<std::string> ReadContext::read_choice(const YamlNode& node, const std::string& path,
                                                    std::span<const std::string_view> names) {
  if (node.kind == YamlNode::Kind::kScalar) {
    if (std::find(names.begin(), names.end(), node.text) != names.end()) return node.text;
    const std::string_view near = nearest(node.text, names);
    problem(node, path,
            "expected one of " + joined(names) + ", found " + found(node) +
                (near.empty() ? "" : "; did you mean " + std::string(near) + "?"));
    return {};
  }
  problem(node, path, "expected one of " + joined(names) + ", found " + found(node));
  return {};
}

std::optional<std::vector<std::string>> ReadContext::read_choices(
    const YamlNode& node, const std::string& path, std::span<const std::string_view> names) {
  if (node.kind != YamlNode::Kind::kSequence || node.items.empty()) {
    problem(node, path, "expected a list of some of " + joined(names) + ", found " + found(node));
    return {};
  }
  std::vector<std::string> chosen;
  for (const YamlNode& item : node.items) {
    const auto name = read_choice(item, path, names);
    if (!name) return {};
    if (std::find(chosen.begin(), chosen.end(), *name) != chosen.end()) {
      problem(item, path, cited(*name) + " stands here twice");
      return {};
    }
    chosen.push_back(*name);
  }
  return chosen;
}

std::optional<ReadContext::Expanded> ReadContext::expand(const YamlNode& node,
                                                         const std::string& path,
                                                         const std::string& raw) {
  Expanded out;
  bool complete = true;
  for (std::size_t i = 0; i < raw.size(); ++i) {
    if (raw.compare(i, 3, "$${") == 0) {
      out.text += "${";
      i += 2;
    } else if (raw.compare(i, 2, "${") == 0) {
      const std::size_t end = std::min(raw.find('}', i), raw.size());
      const std::string name = raw.substr(i + 2, end - i - 2);
      if (end == raw.size() || !is_name(name)) {
        problem(node, path, "expected ${NAME}; write $${ for the two characters themselves");
        return {};
      }
      const std::optional<std::string> value = environment_(name);
      if (!value) problem(node, path, "the environment variable " + name + " is not set");
      complete = complete && value;
      out.text += value.value_or("");
      out.variables.emplace_back(name, value.value_or(""));
      i = end;
    } else {
      out.text += raw[i];
    }
  }
  if (!complete) return {};
  if (has_control(out.text)) {
    problem(node, path, "the text holds a line break or another control character");
    return {};
  }
  return out;
}

std::optional<std::string> ReadContext::read_path(const YamlNode& node, const std::string& path,
                                                  bool as_is) {
  const std::optional<std::string> raw = read_line(node, path);
  if (!raw) return {};
  const std::optional<Expanded> written = expand(node, path, *raw);
  if (!written) return {};
  const std::string& text = written->text;
  const bool moved = !as_is && !text.empty() && std::filesystem::path(text).is_relative();
  if (!written->variables.empty()) {
    as_written_[path] = moved ? escape_variables((folder_ / "").string()) + *raw : *raw;
  }
  return moved ? (folder_ / text).lexically_normal().string() : text;
}

std::optional<std::string> ReadContext::read_url(const YamlNode& node, const std::string& path) {
  std::optional<std::string> text = read_text(node, path);
  if (!text) return {};
  const std::string wrong = text->empty() ? "" : url_problem(*text);
  if (wrong.empty()) return text;
  problem(node, path, wrong);
  return {};
}

std::optional<HeaderList> ReadContext::read_headers(const YamlNode& node, const std::string& path,
                                                    SecretList& secrets) {
  if (!check_section(node, path)) return {};
  HeaderList headers;
  std::set<std::string> names;
  for (const YamlEntry& entry : node.entries) {
    const std::string place = path + "." + entry.key;
    if (!is_header_name(entry.key)) {
      problems_.add(entry.position, path + ": " + cited(entry.key) + " is no header name");
    } else if (!names.insert(lower(entry.key)).second) {
      problems_.add(entry.position,
                    path + ": the header " + cited(entry.key) + " stands here twice");
    } else if (entry.value.kind != YamlNode::Kind::kScalar) {
      problem(entry.value, place, "expected text, found " + found(entry.value));
    } else if (auto value = expand(entry.value, place, entry.value.text)) {
      if (!value->variables.empty()) as_written_[place] = entry.value.text;
      secrets.insert(secrets.end(), value->variables.begin(), value->variables.end());
      headers.emplace_back(entry.key, std::move(value->text));
    }
  }
  return headers;
}

bool ReadContext::check_section(const YamlNode& node, const std::string& path) {
  if (node.kind == YamlNode::Kind::kMap || node.kind == YamlNode::Kind::kNull) return true;
  problem(node, path, "expected a section of keys, found " + found(node));
  return false;
}

void ReadContext::unknown_key(const YamlEntry& entry, const std::string& path,
                              std::span<const std::string_view> known) {
  const std::string_view near = nearest(entry.key, known);
  problems_.add(
      entry.position,
      "unknown key " + cited(path.empty() ? entry.key : path + "." + entry.key) +
          (near.empty() ? "; known are " + joined(known) : "; did you mean " + cited(near) + "?"));
}

}  // namespace rollcall
