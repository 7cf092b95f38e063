// SPDX-License-Identifier: Apache-2.0
// result.json: a result, or none.
#include "comms/log.h"
#include "tests/fuzz/fuzz.h"
#include "trainer/result.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace rollcall;
  static const bool quiet = (log_open(0, "/dev/null", false), true);
  (void)quiet;
  write_input(input_folder() / "result.json", text_of(data, size));
  may_refuse([] {
    if (const auto result = read_result(input_folder()))
      if (result->after) evaluation_json(*result->after);
  });
  return 0;
}
