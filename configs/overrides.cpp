// SPDX-License-Identifier: Apache-2.0
#include "configs/overrides.h"

#include <string_view>
#include <utility>
#include <vector>

#include "comms/split.h"
#include "configs/value_text.h"

namespace rollcall {
namespace {

std::string_view name_of(const YamlNode& item) {
  const YamlEntry* entry = item.find("name");
  return entry ? std::string_view(entry->value.text) : std::string_view();
}

// The entry of a list that `part` means; null if there is none.
YamlNode* list_entry(YamlNode& list, std::string_view part) {
  for (YamlNode& item : list.items) {
    if (name_of(item) == part) return &item;
  }
  const auto index = parse_integer(part);
  if (!index || *index < 0 || *index >= static_cast<std::int64_t>(list.items.size())) {
    return nullptr;
  }
  return &list.items[static_cast<std::size_t>(*index)];
}

YamlNode& section_entry(YamlNode& section, std::string_view part, Position position) {
  section.kind = YamlNode::Kind::kMap;
  if (YamlEntry* entry = section.find(part)) {
    entry->position = position;
    return entry->value;
  }
  YamlNode value;
  value.position = position;
  section.entries.push_back({std::string(part), position, std::move(value)});
  return section.entries.back().value;
}

// The node at `path`, sections made on the way; null, with a problem added, if there can be none.
YamlNode* node_at(std::string_view path, YamlNode& root, Position position, Problems& problems) {
  YamlNode* node = &root;
  const std::vector<std::string_view> parts = split(path, '.');
  if (parts.size() > kMaxYamlDepth) {
    problems.add(position, "a path of " + std::to_string(parts.size()) + " names");
    return nullptr;
  }
  for (std::string_view part : parts) {
    if (part.empty()) {
      problems.add(position, "an empty name in the path " + cited(path));
      return nullptr;
    }
    if (node->kind == YamlNode::Kind::kScalar) {
      problems.add(position, cited(path) + ": what stands before " + cited(part) +
                                 " is a value, not a section");
      return nullptr;
    }
    if (node->kind != YamlNode::Kind::kSequence) {
      node = &section_entry(*node, part, position);
    } else if (YamlNode* item = list_entry(*node, part)) {
      node = item;
    } else {
      problems.add(position, "no entry " + cited(part) + " in the list of " +
                                 std::to_string(node->items.size()) + " in " + cited(path));
      return nullptr;
    }
  }
  return node;
}

YamlNode empty_text(Position position) {
  YamlNode node;
  node.kind = YamlNode::Kind::kScalar;
  node.position = position;
  return node;
}

void apply(std::string_view text, int number, YamlNode& root, Problems& problems) {
  const Position position{1, 1, number};
  const std::size_t equals = text.find('=');
  if (equals == std::string_view::npos) {
    problems.add(position, "expected key=value, such as batch.group_size=32");
    return;
  }
  YamlNode value = empty_text(position);
  const std::string_view written = text.substr(equals + 1);
  if (!written.empty() && !parse_yaml(written, number, problems, value)) return;
  if (YamlNode* node = node_at(text.substr(0, equals), root, position, problems)) {
    *node = std::move(value);
  }
}

}  // namespace

void apply_overrides(std::span<const std::string> overrides, YamlNode& root, Problems& problems) {
  int number = 0;
  for (const std::string& text : overrides) apply(text, ++number, root, problems);
}

}  // namespace rollcall
