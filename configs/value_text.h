// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace rollcall {

// The texts of a run file's values, both ways. parse_* return nothing for any other text, and for
// what does not fit the type.
std::optional<std::int64_t> parse_integer(std::string_view);  // -12
std::optional<double> parse_number(std::string_view);         // 1e-6; never inf or nan
std::optional<std::chrono::milliseconds> parse_duration(std::string_view);  // 500ms 30s 1.5m 2h
std::optional<std::int64_t> parse_size(std::string_view);                   // 4096 64KiB 1MiB 2GiB
std::optional<std::int64_t> parse_steps(std::string_view);                  // 20 or 20 steps

std::string format_number(double);
std::string format_duration(std::chrono::milliseconds);
std::string format_size(std::int64_t bytes);
std::string format_text(std::string_view);  // in double quotes, for YAML

// Whether an unquoted text is a number or truth value to YAML.
bool reads_as_other_type(std::string_view);

}  // namespace rollcall
