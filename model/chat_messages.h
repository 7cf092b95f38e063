// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <nlohmann/json_fwd.hpp>

namespace rollcall {

// A message of a dataset as chat templates take it: OpenAI's role `developer` is `system`, and a
// list of text parts is their texts joined. Throws an input Error naming messages[index] for a part
// that is not text. What else is wrong with a message is left to the template.
nlohmann::ordered_json plain_message(const nlohmann::ordered_json& message, std::size_t index);

// All messages of a list; anything else is returned as it is.
nlohmann::ordered_json plain_messages(const nlohmann::ordered_json& messages);

}  // namespace rollcall
