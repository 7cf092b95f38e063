// SPDX-License-Identifier: Apache-2.0
// A file of weights: what is accepted can be read to its last byte.
#include "model/safetensors.h"
#include "tests/fuzz/fuzz.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace rollcall;
  may_refuse([&] {
    std::optional<std::map<std::string, std::string>> metadata;
    unsigned sum = 0;
    for (const SafetensorsEntry& entry :
         parse_safetensors(std::as_bytes(std::span(data, size)), &metadata))
      for (const std::byte byte : entry.data) sum += static_cast<unsigned>(byte);
    asm volatile("" : : "r"(sum));  // or nothing would be read
  });
  return 0;
}
