// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace rollcall {

// At most `max_bytes` of `bytes`, never cut inside a character; what is not UTF-8 becomes U+FFFD
// (which may make the result longer than max_bytes). Servers' texts go through this before they are
// tokenized.
std::string to_valid_utf8(std::string_view bytes, std::size_t max_bytes);

// For logs and fault details: the same on one line, control characters as spaces.
std::string one_line(std::string_view bytes, std::size_t max_bytes);

}  // namespace rollcall
