// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace rollcall {

// kWarning: it works, with something to know; kMissing: not here, and not needed; kFailed: a run
// needs it.
enum class Health { kOk, kWarning, kMissing, kFailed };

// One line of the doctor.
struct Finding {
  std::string what;
  Health health = Health::kOk;
  std::string detail;
  std::string remedy = {};  // empty where nothing is to be done
};

// Aligned; the remedy indented on a line of its own. Ends in a line break.
std::string finding_text(const Finding&);
// The same as one JSON object, without a line break; bytes that are no UTF-8 are replaced.
std::string finding_json(const Finding&);
// The inverse of finding_json(); nothing if `line` is something else.
std::optional<Finding> parse_finding(std::string_view line);

}  // namespace rollcall
