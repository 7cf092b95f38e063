// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <filesystem>
#include <string_view>

namespace rollcall {

// Logging for all rooms; thread-safe. Before log_open() warnings and errors go to standard error
// and the rest is dropped. `file` gets everything; standard error gets `info` and above when
// `console`. Secrets must not reach a log: callers redact header values first.
void log_open(int rank, const std::filesystem::path& file, bool console);

void log_debug(std::string_view text);  // one rank's story
void log_info(std::string_view text);   // for a person watching the run: a few lines a step
void log_warning(std::string_view text);
void log_error(std::string_view text);
void log_flush();

}  // namespace rollcall
