// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "configs/problems.h"
#include "configs/run_config.h"
#include "configs/yaml_tree.h"

namespace rollcall {

// A range of numbers, in words too.
struct Range {
  double low = 0;
  double high = 0;
  bool low_is_open = false;
  bool high_is_open = false;

  bool holds(double value) const;
  std::string in_words() const;  // "at least 1", "from 0 to 1"
};

// Reads the values of one run file. Every read_* gives nothing, and a problem at the node, for a
// value of another type or out of range. `path` is the value's place in words: "tools.0.url".
class ReadContext {
 public:
  ReadContext(std::filesystem::path folder, const EnvironmentLookup& environment,
              Problems& problems, std::map<std::string, std::string>& as_written);

  std::optional<std::int64_t> read_integer(const YamlNode&, const std::string& path, const Range&);
  std::optional<std::int64_t> read_steps(const YamlNode&, const std::string& path, const Range&);
  std::optional<std::int64_t> read_size(const YamlNode&, const std::string& path, const Range&);
  std::optional<double> read_number(const YamlNode&, const std::string& path, const Range&);
  std::optional<std::chrono::milliseconds> read_duration(const YamlNode&, const std::string& path,
                                                         const Range& milliseconds);
  std::optional<bool> read_flag(const YamlNode&, const std::string& path);
  std::optional<std::string> read_text(const YamlNode&, const std::string& path);
  // Text in which "${" means nothing here.
  std::optional<std::string> read_line(const YamlNode&, const std::string& path);
  // Each entry by `read(node, its path)`.
  template <typename Read>
  std::optional<std::vector<std::string>> read_list(const YamlNode&, const std::string& path,
                                                    Read read);
  std::optional<std::string> read_choice(const YamlNode&, const std::string& path,
                                         std::span<const std::string_view> names);
  // A list of some of `names`, at least one, none twice.
  std::optional<std::vector<std::string>> read_choices(const YamlNode&, const std::string& path,
                                                       std::span<const std::string_view> names);
  // ${NAME} replaced; made absolute against the run file's folder unless `as_is`.
  std::optional<std::string> read_path(const YamlNode&, const std::string& path, bool as_is);
  // http or https; may be empty.
  std::optional<std::string> read_url(const YamlNode&, const std::string& path);
  // `secrets` gets what each ${NAME} stood for.
  std::optional<HeaderList> read_headers(const YamlNode&, const std::string& path,
                                         SecretList& secrets);

  // Whether a node may be read as a section; an empty one may.
  bool check_section(const YamlNode&, const std::string& path);
  void unknown_key(const YamlEntry&, const std::string& path,
                   std::span<const std::string_view> known);
  // Where the key at `path` stands, else its section. One problem a path, and
  // none where a section around it could not be read.
  void problem(const std::string& path, std::string text);
  void problem(const YamlNode&, const std::string& path, const std::string& text);

  void note(const std::string& path, Position position) { places_[path] = position; }
  bool given(const std::string& path) const { return places_.contains(path); }
  bool failed(const std::string& path) const { return failed_.contains(path); }

 private:
  // A quoted "7" is text, but a quoted "30s" can only be meant as the amount it is.
  enum class Quotes { kRefused, kAllowed };
  template <typename T, typename Parse>
  std::optional<T> read_plain(const YamlNode&, const std::string& path, const std::string& expected,
                              Quotes, Parse parse);
  struct Expanded {
    std::string text;
    SecretList variables;  // in the order of their places
  };
  std::optional<Expanded> expand(const YamlNode&, const std::string& path, const std::string& raw);

  std::filesystem::path folder_;
  const EnvironmentLookup& environment_;
  Problems& problems_;
  std::map<std::string, std::string>& as_written_;
  std::map<std::string, Position> places_;
  std::set<std::string> failed_;
};

template <typename Read>
std::optional<std::vector<std::string>> ReadContext::read_list(const YamlNode& node,
                                                               const std::string& path, Read read) {
  std::vector<std::string> values;
  if (node.kind == YamlNode::Kind::kNull) return values;
  if (node.kind != YamlNode::Kind::kSequence) {
    problem(node, path, "expected a list, such as [one, two]");
    return {};
  }
  for (const YamlNode& item : node.items) {
    auto value = read(item, path + "." + std::to_string(values.size()));
    if (!value) return {};
    values.push_back(*std::move(value));
  }
  return values;
}

// Writes "${" so that it is read as these two characters.
std::string escape_variables(std::string_view text);

}  // namespace rollcall
