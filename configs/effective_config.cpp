// SPDX-License-Identifier: Apache-2.0
#include "configs/run_config.h"
#include "configs/schema.h"

namespace rollcall {
namespace {

class SectionWriter {
 public:
  explicit SectionWriter(const AsWritten& as_written) : as_written_(as_written) {}

  template <typename S>
  void section(std::string_view name, std::string_view, const std::vector<Field<S>>& fields,
               const S& options) {
    text_.append(name).append(":\n");
    write(std::string(name), "  ", fields, options);
  }

  template <typename S>
  void list(std::string_view name, std::string_view, const std::vector<Field<S>>& fields,
            const std::vector<S>& entries) {
    text_.append(name).append(entries.empty() ? ": []\n" : ":\n");
    for (std::size_t i = 0; i < entries.size(); ++i) {
      const std::size_t begin = text_.size();
      write(child_path(std::string(name), std::to_string(i)), "    ", fields, entries[i]);
      text_.replace(begin, 4, "  - ");
    }
  }

  std::string take() { return std::move(text_); }

 private:
  template <typename S>
  void write(const std::string& path, std::string_view indent, const std::vector<Field<S>>& fields,
             const S& options) {
    for (const Field<S>& field : fields) {
      const std::string place = child_path(path, field.key);
      text_.append(indent).append(field.key).append(": ");
      text_.append(field.write(options, place, as_written_)).append("\n");
    }
  }

  const AsWritten& as_written_;
  std::string text_;
};

}  // namespace

std::string effective_yaml(const RunConfig& config) {
  SectionWriter writer(config.as_written);
  visit_sections(config, writer);
  return writer.take();
}

}  // namespace rollcall
