// SPDX-License-Identifier: Apache-2.0
#include "configs/run_config.h"
#include "configs/schema.h"
#include "configs/site_config.h"

namespace rollcall {
namespace {

constexpr std::string_view kIntroduction = R"(# Configuration

One YAML file describes a run. An unknown key, a repeated key, a value of another type or out of range is an error with file,
line and column; all errors are reported at once, before anything starts (exit code 2). This page is generated from the schema.

- `--set a.b.c=value` overrides a key, any number of times: `--set batch.group_size=32`, `--set tools.0.timeout=5s`,
  `--set tools.get_invoice.url=http://localhost:8077/call`. The value is YAML.
- Durations take a unit: `500ms`, `30s`, `5m`, `2h`. Sizes are bytes or take one: `64KiB`, `1MiB`, `2GiB`.
  Steps may say so: `20` or `20 steps`.
- `${NAME}` stands for an environment variable, only in header values and paths; `$${` stands for the two characters `${`.
  A run's folder keeps the effective file, every default written out: there, header values are `${NAME}` again, or `redacted`
  where they were written literally.
- Relative paths start at the folder of the run file, except `run.dir`, which starts at the current folder.
- Anchors, aliases and tags of YAML are not used; a run file has at most 1 MiB.
)";

constexpr std::string_view kSiteIntroduction =
    "What `rollcall submit` asks Slurm for: a YAML of its own, given by `--site FILE`, else by the "
    "environment variable "
    "`ROLLCALL_SITE`, else `~/.config/rollcall/site.yaml`, else the defaults here. A word is "
    "visible ASCII without "
    "blanks, quotes, `$`, `#` and backslash. [slurm/README.md](../slurm/README.md) has examples.";

class ReferenceWriter {
 public:
  template <typename S>
  void section(std::string_view name, std::string_view meaning, const std::vector<Field<S>>& fields,
               const S& defaults) {
    begin(std::string(name), meaning);
    for (const Field<S>& field : fields) row(field, defaults);
  }

  template <typename S>
  void list(std::string_view name, std::string_view meaning, const std::vector<Field<S>>& fields,
            const std::vector<S>&) {
    begin(std::string(name), std::string(meaning) + " A list; each entry has these keys.");
    for (const Field<S>& field : fields) row(field, S{});
  }

  std::string take() { return std::move(text_); }

 private:
  void begin(const std::string& name, std::string_view meaning) {
    text_ += "\n## " + name + "\n\n";
    text_.append(meaning).append("\n\n| key | type | default | meaning |\n|---|---|---|---|\n");
  }

  template <typename S>
  void row(const Field<S>& field, const S& defaults) {
    const std::string value = "`" + field.write(defaults, "", {}) + "`";
    text_.append("| `").append(field.key).append("` | ").append(field.type).append(" | ");
    text_.append(field.required ? "required" : value).append(" | ").append(field.meaning);
    text_.append(" |\n");
  }

  std::string text_{kIntroduction};
};

}  // namespace

std::string configuration_reference() {
  ReferenceWriter writer;
  const RunConfig defaults;
  visit_sections(defaults, writer);
  writer.section("The site file", kSiteIntroduction, site_fields(), SiteOptions{});
  return writer.take();
}

}  // namespace rollcall
