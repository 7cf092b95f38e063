// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string_view>

namespace rollcall {

// The JSON library parses any depth, but copies, compares and prints by recursion: enough brackets
// from outside would overflow the stack.
inline constexpr int kMaxJsonDepth = 512;

// Whether arrays and objects nest deeper than kMaxJsonDepth. To be asked before a text from outside
// is parsed; of what is no JSON the answer means nothing.
bool nests_too_deep(std::string_view json);

}  // namespace rollcall
