// SPDX-License-Identifier: Apache-2.0
// A run file and, behind NUL bytes, what --set may say. What is accepted is accepted again in the
// form in which it is written down, and means the same.
#include "configs/run_config.h"
#include "tests/fuzz/fuzz.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace rollcall;
  const std::string_view text = text_of(data, size);
  const std::size_t end = std::min(text.find('\0'), text.size());
  std::vector<std::string> overrides;
  for (std::size_t at = end; at < text.size();) {
    const std::size_t next = std::min(text.find('\0', at + 1), text.size());
    overrides.emplace_back(text.substr(at + 1, next - at - 1));
    at = next;
  }
  const auto file = input_folder() / "run.yaml", again = input_folder() / "again.yaml";
  write_input(file, text.substr(0, end));
  const auto variable = [](const std::string& name) -> std::optional<std::string> {
    if (name == "NONE") return std::nullopt;
    return "secret-" + name;
  };
  std::string effective;
  may_refuse([&] { effective = effective_yaml(read_run_config(file, overrides, variable)); });
  if (effective.empty()) return 0;
  write_input(again, effective);
  if (effective_yaml(read_run_config(again, {}, variable)) != effective) __builtin_trap();
  return 0;
}
