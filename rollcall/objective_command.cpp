// SPDX-License-Identifier: Apache-2.0
#include "rollcall/objective_command.h"

#include <exception>
#include <fstream>
#include <nlohmann/json.hpp>
#include <ostream>
#include <string>
#include <utility>

#include "comms/error.h"
#include "rollcall/objective_replies.h"

namespace rollcall {
namespace {

using nlohmann::json;

json reply_of(const json& line) {
  using Reply = json (*)(const json&);
  const std::pair<const char*, Reply> replies[] = {
      {"advantages", advantages_reply}, {"policy", policy_reply}, {"kl", kl_reply},
      {"mismatch", mismatch_reply},     {"critic", critic_reply}, {"adamw", adamw_reply},
      {"metrics", metrics_reply}};
  const auto& kind = line.at("kind").get_ref<const std::string&>();
  for (const auto& [name, reply] : replies)
    if (kind == name) return reply(line);
  throw ObjectiveError{"unsupported", "kind '" + kind + "' is not part of this version"};
}

json answer(const std::string& text) {
  json id;
  try {
    const json line = json::parse(text);
    if (!line.is_object()) bad_input("a line must be a JSON object");
    id = line.value("id", json());
    json reply = reply_of(line);
    reply["id"] = id;
    return reply;
  } catch (const json::parse_error& error) {
    return {{"id", id}, {"error", {{"kind", "invalid_json"}, {"message", error.what()}}}};
  } catch (const ObjectiveError& error) {
    return {{"id", id}, {"error", {{"kind", error.kind}, {"message", error.message}}}};
  } catch (const std::exception& error) {  // a missing key, a wrong type, an Error
    return {{"id", id}, {"error", {{"kind", "bad_input"}, {"message", error.what()}}}};
  }
}

}  // namespace

int run_objective(const std::filesystem::path& jsonl, std::ostream& out) {
  std::ifstream file(jsonl);
  if (!file) throw input_error("cannot read " + jsonl.string(), "check the path of --jsonl");
  for (std::string line; std::getline(file, line);) {
    if (line.find_first_not_of(" \t\r") == std::string::npos) continue;
    out << answer(line).dump(-1, ' ', false, json::error_handler_t::replace) << '\n';
  }
  return static_cast<int>(ExitCode::kDone);
}

}  // namespace rollcall
