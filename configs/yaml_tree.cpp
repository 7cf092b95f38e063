// SPDX-License-Identifier: Apache-2.0
#include "configs/yaml_tree.h"

#include <yaml-cpp/eventhandler.h>
#include <yaml-cpp/exceptions.h>
#include <yaml-cpp/parser.h>

#include <exception>
#include <fstream>
#include <optional>
#include <set>
#include <sstream>
#include <utility>

#include "comms/error.h"

namespace rollcall {
namespace {

struct SyntaxError {
  Position position;
  std::string text;
};

// Builds the tree from the parser's events and refuses what a run file has no use for.
class TreeBuilder : public YAML::EventHandler {
 public:
  TreeBuilder(int override_number, Problems& problems)
      : override_number_(override_number), problems_(problems) {}

  YamlNode take_root() { return std::move(root_); }

  void OnDocumentStart(const YAML::Mark& mark) override {
    if (has_root_) throw SyntaxError{position_of(mark), "a run file holds one YAML document"};
  }
  void OnDocumentEnd() override {}
  void OnNull(const YAML::Mark& mark, YAML::anchor_t anchor) override {
    place(node(YamlNode::Kind::kNull, mark, "", anchor));
  }
  void OnAlias(const YAML::Mark& mark, YAML::anchor_t) override { refuse_anchor(mark); }
  void OnScalar(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                const std::string& value) override {
    YamlNode scalar = node(YamlNode::Kind::kScalar, mark, tag, anchor);
    scalar.text = value;
    scalar.plain = tag == "?";
    place(std::move(scalar));
  }
  void OnSequenceStart(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                       YAML::EmitterStyle::value) override {
    open(node(YamlNode::Kind::kSequence, mark, tag, anchor));
  }
  void OnSequenceEnd() override { close(); }
  void OnMapStart(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                  YAML::EmitterStyle::value) override {
    open(node(YamlNode::Kind::kMap, mark, tag, anchor));
  }
  void OnMapEnd() override { close(); }

 private:
  struct Level {
    YamlNode node;
    std::set<std::string, std::less<>> keys;
    std::optional<YamlEntry> pending;  // a key that waits for its value
  };

  Position position_of(const YAML::Mark& mark) const {
    return {mark.line + 1, mark.column + 1, override_number_};
  }

  [[noreturn]] void refuse_anchor(const YAML::Mark& mark) const {
    throw SyntaxError{position_of(mark), "anchors and aliases are not used in run files"};
  }

  YamlNode node(YamlNode::Kind kind, const YAML::Mark& mark, const std::string& tag,
                YAML::anchor_t anchor) const {
    if (anchor != YAML::NullAnchor) refuse_anchor(mark);
    if (!tag.empty() && tag != "?" && tag != "!") {
      throw SyntaxError{position_of(mark), "tags (" + cited(tag) + ") are not used in run files"};
    }
    YamlNode made;
    made.kind = kind;
    made.position = position_of(mark);
    return made;
  }

  void open(YamlNode container) {
    if (levels_.size() == kMaxYamlDepth) {
      throw SyntaxError{container.position,
                        "nested more than " + std::to_string(kMaxYamlDepth) + " levels deep"};
    }
    if (awaits_key()) refuse_key(container);
    levels_.push_back({std::move(container), {}, std::nullopt});
  }

  void close() {
    YamlNode done = std::move(levels_.back().node);
    levels_.pop_back();
    place(std::move(done));
  }

  bool awaits_key() const {
    return !levels_.empty() && levels_.back().node.kind == YamlNode::Kind::kMap &&
           !levels_.back().pending;
  }

  [[noreturn]] static void refuse_key(const YamlNode& key) {
    throw SyntaxError{key.position, "a key must be text"};
  }

  void place(YamlNode value) {
    if (levels_.empty()) {
      root_ = std::move(value);
      has_root_ = true;
      return;
    }
    Level& level = levels_.back();
    if (level.node.kind == YamlNode::Kind::kSequence) {
      level.node.items.push_back(std::move(value));
    } else if (!level.pending) {
      begin_entry(level, std::move(value));
    } else {
      level.pending->value = std::move(value);
      level.node.entries.push_back(std::move(*level.pending));
      level.pending.reset();
    }
  }

  void begin_entry(Level& level, YamlNode key) {
    if (key.kind != YamlNode::Kind::kScalar) refuse_key(key);
    if (!level.keys.insert(key.text).second) {
      problems_.add(key.position, "the key " + cited(key.text) + " stands here twice");
    }
    level.pending = YamlEntry{std::move(key.text), key.position, {}};
  }

  int override_number_;
  Problems& problems_;
  std::vector<Level> levels_;
  YamlNode root_;
  bool has_root_ = false;
};

// Length of the UTF-8 sequence at the start of `text`, 0 if it is none (RFC 3629).
std::size_t utf8_length(std::string_view text) {
  const auto byte = [&](std::size_t i) { return static_cast<unsigned char>(text[i]); };
  const unsigned char first = byte(0);
  if (first < 0x80) return 1;
  const std::size_t length = first < 0xc2   ? 0
                             : first < 0xe0 ? 2
                             : first < 0xf0 ? 3
                             : first < 0xf5 ? 4
                                            : 0;
  if (length == 0 || text.size() < length) return 0;
  for (std::size_t i = 1; i < length; ++i) {
    if ((byte(i) & 0xc0) != 0x80) return 0;
  }
  const bool overlong = (first == 0xe0 && byte(1) < 0xa0) || (first == 0xf0 && byte(1) < 0x90);
  const bool surrogate = first == 0xed && byte(1) >= 0xa0;
  const bool too_high = first == 0xf4 && byte(1) >= 0x90;
  return overlong || surrogate || too_high ? 0 : length;
}

bool is_control(char c) {
  const auto byte = static_cast<unsigned char>(c);
  return (byte < 0x20 && c != '\n' && c != '\t' && c != '\r') || byte == 0x7f;
}

void check_characters(std::string_view text, int override_number) {
  if (text.size() > kMaxYamlBytes) {
    throw SyntaxError{{1, 1, override_number}, "larger than 1 MiB: this is no run file"};
  }
  Position position{1, 1, override_number};
  for (std::size_t i = 0; i < text.size();) {
    const std::size_t length = utf8_length(text.substr(i));
    if (length == 0 || is_control(text[i])) {
      throw SyntaxError{position, length == 0 ? "not UTF-8 text" : "a control character"};
    }
    position.column = text[i] == '\n' ? 1 : position.column + 1;
    position.line += text[i] == '\n' ? 1 : 0;
    i += length;
  }
}

void build(std::string_view text, int override_number, TreeBuilder& builder) {
  check_characters(text, override_number);
  std::istringstream stream{std::string(text)};
  try {
    YAML::Parser parser(stream);
    while (parser.HandleNextDocument(builder)) {
    }
  } catch (const YAML::Exception& error) {
    throw SyntaxError{
        {std::max(error.mark.line, 0) + 1, std::max(error.mark.column, 0) + 1, override_number},
        "not valid YAML: " + error.msg};
  } catch (const std::exception& error) {  // the parser's own accidents
    throw SyntaxError{{1, 1, override_number}, std::string("not valid YAML: ") + error.what()};
  }
}

}  // namespace

const YamlEntry* YamlNode::find(std::string_view key) const {
  for (const YamlEntry& entry : entries) {
    if (entry.key == key) return &entry;
  }
  return nullptr;
}

YamlEntry* YamlNode::find(std::string_view key) {
  return const_cast<YamlEntry*>(std::as_const(*this).find(key));
}

bool parse_yaml(std::string_view text, int override_number, Problems& problems, YamlNode& root) {
  TreeBuilder builder(override_number, problems);
  try {
    build(text, override_number, builder);
  } catch (const SyntaxError& error) {
    problems.add(error.position, error.text);
    return false;
  }
  root = builder.take_root();
  return true;
}

std::string read_yaml_file(const std::filesystem::path& file, const std::string& what) {
  std::ifstream stream(file, std::ios::binary);
  std::string text(kMaxYamlBytes + 1, '\0');  // one more than is allowed shows that it is too much
  if (stream) stream.read(text.data(), static_cast<std::streamsize>(text.size()));
  if (!stream.eof() && !stream) {
    throw input_error("cannot read the " + what + " " + file.string(), "check its path");
  }
  text.resize(static_cast<std::size_t>(stream.gcount()));
  return text;
}

}  // namespace rollcall
