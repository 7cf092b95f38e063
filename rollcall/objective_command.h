// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <filesystem>
#include <iosfwd>

namespace rollcall {

// `rollcall objective --jsonl FILE`: for every line {"id", "kind", ..inputs}, kind being
// advantages, policy, kl, mismatch, critic, adamw or metrics, writes one line {"id", ..results}, or
// {"id", "error": {"kind", "message"}} for a line that is malformed (invalid_json, bad_input) or
// asks for what does not exist here (unsupported). Everything in double precision but AdamW, which
// is as in training. Returns the exit code; throws Error if the file cannot be read.
int run_objective(const std::filesystem::path& jsonl, std::ostream& out);

}  // namespace rollcall
