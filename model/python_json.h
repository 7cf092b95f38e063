// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>

namespace rollcall {

// The text of Python's json.dumps(value, ensure_ascii=False), which is what `tojson` in chat
// templates gives: separators ", " and ": ", insertion order, floats as repr writes them. `indent`
// > 0 as in json.dumps. Throws an input Error for values nested deeper than 500.
std::string python_json(const nlohmann::ordered_json& value, int indent = 0);

}  // namespace rollcall
