// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <filesystem>
#include <iosfwd>

namespace rollcall {

// `rollcall model tokenize|render|parse DIR --jsonl FILE`: answer each line of FILE with one JSON
// object on `out`; a bad line gives {"id":..,"error":{"kind":..,"message":..}} and the next goes
// on. Return the exit code. Throw an input Error if DIR or FILE cannot be used at all.

// {"id", "text", "match_added_tokens"?} -> {"id", "ids", "text": the ids decoded};
// {"id", "ids", "skip_special_tokens"?} -> {"id", "text"}.
int run_model_tokenize(const std::filesystem::path& dir, const std::filesystem::path& jsonl,
                       std::ostream& out);

// {"id", "messages", "tools"?, "add_generation_prompt"?, "enable_thinking"?, "date_string"?}
// -> {"id", "text", "ids", "deltas"?: [{"after_message", "text", "ids"}]}.
int run_model_render(const std::filesystem::path& dir, const std::filesystem::path& jsonl,
                     std::ostream& out);

// {"id", "text", "format": "hermes"|"llama3_json"?} -> {"id", "calls", "content", "error"}.
int run_model_parse(const std::filesystem::path& dir, const std::filesystem::path& jsonl,
                    std::ostream& out);

}  // namespace rollcall
