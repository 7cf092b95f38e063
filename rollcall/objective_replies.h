// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>

#include "comms/error.h"

namespace rollcall {

// What `rollcall objective` answers to one line of each kind. They throw ObjectiveError, or
// whatever a missing key, a wrong type or the mathematics throw.
nlohmann::json advantages_reply(const nlohmann::json& line);
nlohmann::json policy_reply(const nlohmann::json& line);
nlohmann::json kl_reply(const nlohmann::json& line);
nlohmann::json mismatch_reply(const nlohmann::json& line);
nlohmann::json critic_reply(const nlohmann::json& line);
nlohmann::json adamw_reply(const nlohmann::json& line);
nlohmann::json metrics_reply(const nlohmann::json& line);

struct ObjectiveError {
  std::string kind;  // "bad_input", "unsupported"
  std::string message;
};

[[noreturn]] inline void bad_input(std::string message) {
  throw ObjectiveError{"bad_input", std::move(message)};
}

// Turns "no such name" of a lookup into `unsupported`.
template <typename Lookup>
auto supported(Lookup lookup, const std::string& name) {
  try {
    return lookup(name);
  } catch (const Error& error) {
    throw ObjectiveError{"unsupported", error.what()};
  }
}

}  // namespace rollcall
