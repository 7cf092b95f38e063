// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "configs/problems.h"

namespace rollcall {

struct YamlEntry;

// One YAML document as a tree that remembers where everything stood. Keys are text; no anchors,
// aliases or tags, so a tree is never larger than its file.
struct YamlNode {
  enum class Kind { kNull, kScalar, kSequence, kMap };
  Kind kind = Kind::kNull;
  Position position;
  std::string text;    // kScalar
  bool plain = false;  // kScalar: written without quotes
  std::vector<YamlNode> items;
  std::vector<YamlEntry> entries;

  const YamlEntry* find(std::string_view key) const;
  YamlEntry* find(std::string_view key);
};

struct YamlEntry {
  std::string key;
  Position position;  // of the key
  YamlNode value;
};

// Parses UTF-8 text of at most kMaxYamlBytes, nested at most kMaxYamlDepth. Adds to `problems` what
// is wrong with it: a repeated key, or a syntax error (then the tree ends there and must not be
// used). Returns whether the whole text was read. An `override_number` becomes the place of every
// node.
bool parse_yaml(std::string_view text, int override_number, Problems& problems, YamlNode& root);

// The text of a file, at most one byte more than parse_yaml() takes. `what` names its kind. Throws
// an input Error if it cannot be read.
std::string read_yaml_file(const std::filesystem::path&, const std::string& what);

constexpr std::size_t kMaxYamlBytes = 1 << 20;
constexpr std::size_t kMaxYamlDepth = 32;

}  // namespace rollcall
