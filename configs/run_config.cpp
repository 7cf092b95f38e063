// SPDX-License-Identifier: Apache-2.0
#include "configs/run_config.h"

#include <system_error>

#include "comms/error.h"
#include "configs/cross_checks.h"
#include "configs/overrides.h"
#include "configs/schema.h"

namespace rollcall {
namespace {

// A scalar's text; `otherwise` where the key is absent.
std::string peek(const YamlNode& section, std::string_view key, std::string otherwise) {
  const YamlEntry* entry = section.find(key);
  return entry ? entry->value.text : otherwise;
}

template <typename S>
void apply_profile(const YamlNode&, S&) {}
void apply_profile(const YamlNode& section, AlgorithmOptions& options) {
  options = profile_defaults(peek(section, "profile", options.profile), peek(section, "loss", ""));
}

// Reads every section of a run file that is there.
class SectionReader {
 public:
  SectionReader(const YamlNode& root, ReadContext& context) : root_(root), context_(context) {}

  template <typename S>
  void section(std::string_view name, std::string_view, const std::vector<Field<S>>& fields,
               S& options) {
    names_.push_back(name);
    const YamlEntry* entry = root_.find(name);
    const YamlNode& node = entry ? entry->value : absent_;
    context_.note(std::string(name), entry ? entry->position : Position{});
    apply_profile(node, options);
    read_section(context_, node, std::string(name), fields, options);
  }

  template <typename S>
  void list(std::string_view name, std::string_view, const std::vector<Field<S>>& fields,
            std::vector<S>& options) {
    names_.push_back(name);
    const YamlEntry* entry = root_.find(name);
    if (!entry || entry->value.kind == YamlNode::Kind::kNull) return;
    if (entry->value.kind != YamlNode::Kind::kSequence) {
      context_.problem(entry->value, std::string(name), "expected a list");
      return;
    }
    for (const YamlNode& item : entry->value.items) {
      const std::string path = child_path(std::string(name), std::to_string(options.size()));
      context_.note(path, item.position);
      read_section(context_, item, path, fields, options.emplace_back());
    }
  }

  void refuse_other_sections() {
    for (const YamlEntry& entry : root_.entries) {
      if (std::find(names_.begin(), names_.end(), entry.key) == names_.end()) {
        context_.unknown_key(entry, "", names_);
      }
    }
  }

 private:
  const YamlNode& root_;
  ReadContext& context_;
  YamlNode absent_;
  std::vector<std::string_view> names_;
};

std::filesystem::path folder_of(const std::filesystem::path& file) {
  std::error_code error;
  const std::filesystem::path absolute = std::filesystem::absolute(file, error);
  if (error) throw Error("cannot resolve " + file.string() + ": " + error.message(), "");
  return absolute.lexically_normal().parent_path();
}

}  // namespace

RunConfig parse_run_config(const std::string& text, const std::filesystem::path& file,
                           std::span<const std::string> overrides,
                           const EnvironmentLookup& environment, Purpose purpose) {
  Problems problems;
  YamlNode root;
  if (!parse_yaml(text, 0, problems, root)) problems.throw_if_any(file.string());
  apply_overrides(overrides, root, problems);
  RunConfig config;
  ReadContext context(folder_of(file), environment, problems, config.as_written);
  if (context.check_section(root, "the run file")) {
    SectionReader reader(root, context);
    visit_sections(config, reader);
    reader.refuse_other_sections();
    cross_check(config, purpose, context);
  }
  problems.throw_if_any(file.string());
  return config;
}

RunConfig read_run_config(const std::filesystem::path& file, std::span<const std::string> overrides,
                          const EnvironmentLookup& environment, Purpose purpose) {
  return parse_run_config(read_yaml_file(file, "run file"), file, overrides, environment, purpose);
}

}  // namespace rollcall
