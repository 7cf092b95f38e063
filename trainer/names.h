// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <string_view>

namespace rollcall {

// The place of `name` in `names`. Throws an input Error "unknown `what` 'name'" that lists them.
std::size_t index_of_name(std::span<const std::string_view> names, const std::string& name,
                          const char* what);

}  // namespace rollcall
