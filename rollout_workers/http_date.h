// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <optional>
#include <string>

namespace rollcall {

// "Sun, 06 Nov 1994 08:49:37 GMT" (RFC 9110 5.6.7), also with the dashes of old cookies.
std::optional<std::chrono::sys_seconds> parse_http_date(const std::string& text);

}  // namespace rollcall
