// SPDX-License-Identifier: Apache-2.0
// A PEFT adapter: one byte that says which of its files is replaced, then that file.
#include "model/lora.h"
#include "model/model_spec.h"
#include "tests/fuzz/fuzz.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace rollcall;
  const std::filesystem::path golden(ROLLCALL_GOLDEN_DIR);
  static const ModelSpec spec = read_model_spec(golden / "models/qwen2-untied");
  if (size == 0) return 0;
  for (const char* name : {"adapter_config.json", "adapter_model.safetensors"})
    copy_input(golden / "adapters/qwen2-lora" / name, input_folder() / name);
  const char* replaced = data[0] % 2 == 0 ? "adapter_config.json" : "adapter_model.safetensors";
  write_input(input_folder() / replaced, text_of(data + 1, size - 1));
  may_refuse([] { read_lora_adapter(input_folder(), spec); });
  return 0;
}
