// SPDX-License-Identifier: Apache-2.0
// config.json: what is accepted describes parameters that can be counted.
#include "model/model_spec.h"
#include "tests/fuzz/fuzz.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace rollcall;
  write_input(input_folder() / "config.json", text_of(data, size));
  may_refuse([] {
    const ModelSpec spec = read_model_spec(input_folder());
    if (parameter_count(spec) <= 0) __builtin_trap();
    if (spec.layers < 64) parameter_shapes(spec);
  });
  return 0;
}
