// SPDX-License-Identifier: Apache-2.0
// Text through every kind of tokenizer: what goes in comes out, or is refused as no UTF-8.
#include <array>
#include <optional>

#include "model/tokenizer.h"
#include "model/unicode.h"
#include "tests/fuzz/fuzz.h"

namespace rollcall {
namespace {

struct Kind {
  const char* name;
  bool normalizes;
};

constexpr std::array kKinds{Kind{"tiny-qwen3", true}, Kind{"tiny-llama3", false},
                            Kind{"tiny-tekken", false}};

void round_trip(const Tokenizer& tokenizer, bool normalizes, std::string_view text) {
  const std::string expected = normalizes ? nfc(std::string(text)) : std::string(text);
  if (tokenizer.decode(tokenizer.encode(std::string(text), false)) != expected) __builtin_trap();
}

}  // namespace
}  // namespace rollcall

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace rollcall;
  static const auto tokenizers = [] {
    std::array<std::optional<Tokenizer>, kKinds.size()> all;
    for (std::size_t i = 0; i < all.size(); ++i)
      all[i].emplace(std::filesystem::path(ROLLCALL_GOLDEN_DIR) / "tokenizers" / kKinds[i].name /
                     "tokenizer.json");
    return all;
  }();
  const std::string_view text = text_of(data, size);
  for (std::size_t i = 0; i < kKinds.size(); ++i) {
    may_refuse([&] {
      if (!invalid_utf8_position(text)) round_trip(*tokenizers[i], kKinds[i].normalizes, text);
      tokenizers[i]->decode(tokenizers[i]->encode(std::string(text), true));
    });
  }
  return 0;
}
