// SPDX-License-Identifier: Apache-2.0
// A dataset: each reader counts the same rows, and prompts can be made of what is accepted.
#include "comms/task.h"
#include "model/chat_format.h"
#include "model/tokenizer.h"
#include "tests/fuzz/fuzz.h"
#include "trainer/demonstrations.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace rollcall;
  const auto model = std::filesystem::path(ROLLCALL_GOLDEN_DIR) / "models/qwen3-tied";
  static const Tokenizer tokenizer(model / "tokenizer.json");
  static const auto format = make_chat_format(model, tokenizer);
  const auto file = input_folder() / "data.jsonl";
  write_input(file, text_of(data, size));
  may_refuse([&] {
    const auto tasks = read_tasks(file);
    if (summarize_dataset(file).rows != static_cast<std::int64_t>(tasks.size())) __builtin_trap();
  });
  may_refuse([&] { read_demonstrations(file, *format); });
  return 0;
}
