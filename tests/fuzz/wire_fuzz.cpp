// SPDX-License-Identifier: Apache-2.0
// What ranks send each other: one byte that names the record, then the record. What is accepted is
// written back as it came.
#include "comms/link_messages.h"
#include "comms/wire.h"
#include "tests/fuzz/fuzz.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace rollcall;
  if (size == 0) return 0;
  const std::string_view record = text_of(data + 1, size - 1);
  const auto comes_back = [&](const auto& decode) {
    may_refuse([&] {
      if (encode(decode(record)) != record) __builtin_trap();
    });
  };
  switch (data[0] % 10) {
    case 0:
      comes_back(decode_trajectory);
      break;
    case 1:
      comes_back(decode_assignment);
      break;
    case 2:
      comes_back(decode_hello);
      break;
    case 3:
      comes_back(decode_welcome);
      break;
    case 4:
      comes_back(decode_weights_begin);
      break;
    case 5:
      comes_back(decode_failure);
      break;
    case 6:
      comes_back(decode_turn_request);
      break;
    case 7:
      comes_back(decode_turn_reply);
      break;
    case 8:
      comes_back(decode_weights_loaded);
      break;
    default:
      may_refuse([&] { decode_number(record); });
  }
  return 0;
}
