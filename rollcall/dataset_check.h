// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <set>
#include <span>
#include <string>

#include "comms/task.h"

namespace rollcall {

class ChatFormat;

// Renders every row's prompt as a worker would, on all cores, so that no row is found wrong at the
// step that draws it. Throws an input Error "NAME:LINE: ..." for rows that the chat format refuses
// and for prompts that leave no token of `context` to sample. Returns a warning that names the rows
// with tools not in `served`; empty if there are none.
std::string check_rows(const std::string& name, std::span<const Task>, const ChatFormat&,
                       std::int64_t context, const std::set<std::string>& served);

}  // namespace rollcall
