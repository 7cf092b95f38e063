// SPDX-License-Identifier: Apache-2.0
// A conversation as a dataset may hold it, for each chat template.
#include <nlohmann/json.hpp>

#include "model/chat_template.h"
#include "tests/fuzz/fuzz.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace rollcall;
  const auto row = nlohmann::ordered_json::parse(text_of(data, size), nullptr, false);
  if (!row.is_object()) return 0;
  const auto list = [&](const char* key) -> Messages {
    const auto found = row.find(key);
    if (found == row.end() || !found->is_array()) return {};
    return found->get_ref<const nlohmann::ordered_json::array_t&>();
  };
  for (const auto family : {ChatFamily::kQwen25, ChatFamily::kQwen3, ChatFamily::kQwen3Revised,
                            ChatFamily::kQwen3Instruct2507, ChatFamily::kSmolLm2,
                            ChatFamily::kLlama31, ChatFamily::kLlama32}) {
    may_refuse([&] {
      render_chat(family, list("messages"), list("tools"), {}, true);
      render_deltas(family, list("messages"), list("tools"), {});
    });
  }
  return 0;
}
