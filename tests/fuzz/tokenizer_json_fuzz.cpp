// SPDX-License-Identifier: Apache-2.0
// tokenizer.json: what is accepted encodes any text.
#include "model/tokenizer.h"
#include "tests/fuzz/fuzz.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace rollcall;
  const auto path = input_folder() / "tokenizer.json";
  write_input(path, text_of(data, size));
  may_refuse([&] {
    const Tokenizer tokenizer(path);
    tokenizer.decode(tokenizer.encode("It's 12 \u00e9t\u00e9s\n\n <think>", true));
  });
  return 0;
}
