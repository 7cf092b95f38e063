// SPDX-License-Identifier: Apache-2.0
#include "trainer/names.h"

#include <algorithm>

#include "comms/error.h"

namespace rollcall {

std::size_t index_of_name(std::span<const std::string_view> names, const std::string& name,
                          const char* what) {
  const auto found = std::find(names.begin(), names.end(), name);
  if (found == names.end()) {
    std::string known;
    for (std::string_view one : names) known.append(known.empty() ? "" : ", ").append(one);
    throw input_error(std::string("unknown ") + what + " '" + name + "'", "use one of " + known);
  }
  return static_cast<std::size_t>(found - names.begin());
}

}  // namespace rollcall
