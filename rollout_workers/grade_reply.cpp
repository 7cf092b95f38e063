// SPDX-License-Identifier: Apache-2.0
#include "rollout_workers/grade_reply.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>
#include <optional>

#include "comms/json_depth.h"

namespace rollcall {
namespace {

using nlohmann::json;

// `score` and the names other protocols have for it, in order of preference.
constexpr std::array<std::string_view, 3> kScoreNames = {"score", "reward",
                                                         "aggregate_reward_score"};

struct Parsed {
  json value;
  std::string twice;  // a score's name that the object has more than once
};

Parsed parse(std::string_view body) {
  std::array<int, kScoreNames.size()> seen{};
  const auto count = [&seen](int depth, json::parse_event_t event, const json& key) {
    if (event == json::parse_event_t::key && depth == 1) {
      const auto found = std::find(kScoreNames.begin(), kScoreNames.end(), key.get<std::string>());
      if (found != kScoreNames.end()) ++seen[static_cast<std::size_t>(found - kScoreNames.begin())];
    }
    return true;
  };
  Parsed parsed;
  parsed.value = json::parse(body, count, false);
  for (std::size_t i = 0; i < seen.size(); ++i) {
    if (seen[i] > 1) parsed.twice = kScoreNames[i];
  }
  return parsed;
}

// Null if the reply has no such key or says null.
const json* find(const json& reply, std::string_view key) {
  const auto found = reply.find(key);
  return found == reply.end() || found->is_null() ? nullptr : &*found;
}

// True if the reply reports that grading was impossible.
bool read_error(const json& reply, GradeReply& result) {
  const json* error = find(reply, "error");
  if (error == nullptr) return false;
  const json* message = error->is_object() ? find(*error, "message") : error;
  const json* code = error->is_object() ? find(*error, "code") : nullptr;
  result.error = "the grader reports an error";
  for (const json* part : {code, message}) {
    if (part != nullptr)
      result.error += ": " + (part->is_string() ? part->get<std::string>() : part->dump());
  }
  const json* retryable = error->is_object() ? find(*error, "retryable") : nullptr;
  result.retryable = retryable == nullptr || !retryable->is_boolean() || retryable->get<bool>();
  return true;
}

// Empty, or why there is no score.
std::string read_score(const json& reply, double& score) {
  const auto name = std::find_if(kScoreNames.begin(), kScoreNames.end(),
                                 [&](std::string_view key) { return reply.contains(key); });
  if (name == kScoreNames.end()) return "no score";
  const json& value = reply.at(std::string(*name));
  if (!value.is_number()) return std::string(*name) + " is no number";
  score = value.get<double>();
  // Also beyond single precision: advantages could not hold it.
  const bool fits = std::abs(score) <= std::numeric_limits<float>::max();
  return fits ? "" : std::string(*name) + " is not finite";
}

void read_numbers(const json& reply, std::string_view key, const std::string& prefix,
                  Grade& grade) {
  const json* numbers = find(reply, key);
  if (numbers == nullptr || !numbers->is_object()) return;
  for (const auto& [name, value] : numbers->items()) {
    if (value.is_number()) grade.sub_rewards.emplace_back(prefix + name, value.get<double>());
  }
}

// Bedrock's list form: [{name, value, type}].
void read_metrics_list(const json& reply, Grade& grade) {
  const json* list = find(reply, "metrics_list");
  if (list == nullptr || !list->is_array()) return;
  for (const auto& entry : *list) {
    const json* name = entry.is_object() ? find(entry, "name") : nullptr;
    const json* value = entry.is_object() ? find(entry, "value") : nullptr;
    if (name == nullptr || !name->is_string() || value == nullptr || !value->is_number()) continue;
    grade.sub_rewards.emplace_back(name->get<std::string>(), value->get<double>());
  }
}

std::string read_gates(const json& reply, Grade& grade) {
  const json* gates = find(reply, "gates");
  if (gates == nullptr) return {};
  if (!gates->is_object()) return "gates is no object";
  for (const auto& [name, value] : gates->items()) {
    if (!value.is_boolean()) return "gate " + name + " is no boolean";
    grade.gates.emplace_back(name, value.get<bool>());
  }
  return {};
}

std::string read_flags(const json& reply, Grade& grade) {
  const json* flags = find(reply, "flags");
  if (flags == nullptr) return {};
  if (!flags->is_array()) return "flags is no list";
  for (const auto& flag : *flags) {
    if (!flag.is_string()) return "a flag is no string";
    grade.flags.push_back(flag.get<std::string>());
  }
  return {};
}

double weighted_score(const GraderOptions& options, const Grade& grade) {
  if (options.parts.empty()) return grade.score;
  double sum = 0;
  for (const GradePart& part : options.parts)
    sum += part.value * sub_reward(grade, part.name).value_or(0);
  return sum;
}

// What the reply says of the gate, or an earlier call, stays: it opens if both say so.
void close_gate(const GradePart& gate, Grade& grade) {
  const bool open = sub_reward(grade, gate.name).value_or(0) >= gate.value;
  const auto known =
      std::ranges::find(grade.gates, gate.name, &std::pair<std::string, bool>::first);
  if (known == grade.gates.end())
    grade.gates.emplace_back(gate.name, open);
  else
    known->second = known->second && open;
}

void read_extras(const json& reply, Grade& grade) {
  read_numbers(reply, "sub_rewards", "", grade);
  read_numbers(reply, "reward_components", "", grade);
  read_metrics_list(reply, grade);
  read_numbers(reply, "metrics", "metrics.", grade);
  const json* explanation = find(reply, "explanation");
  if (explanation != nullptr && explanation->is_string()) grade.explanation = *explanation;
}

}  // namespace

GradeReply read_grade_reply(std::string_view body) {
  GradeReply result;
  if (nests_too_deep(body)) {
    result.error = "the reply nests too deep";
    return result;
  }
  const Parsed parsed = parse(body);
  const json& reply = parsed.value;
  if (!reply.is_object()) {
    result.error = "the reply is no JSON object: " + std::string(body);
    return result;
  }
  if (read_error(reply, result)) return result;
  const json* mask = find(reply, "mask_sample");
  if (mask != nullptr && !mask->is_boolean()) {
    result.error = "mask_sample is no boolean";
    return result;
  }
  result.masked = mask != nullptr && mask->get<bool>();
  read_extras(reply, result.grade);
  std::string problem = parsed.twice.empty() ? read_score(reply, result.grade.score)
                                             : parsed.twice + " is given twice";
  if (problem.empty()) problem = read_gates(reply, result.grade);
  if (problem.empty()) problem = read_flags(reply, result.grade);
  if (!result.masked) result.error = problem;  // a masked sample needs no score
  if (!problem.empty()) result.grade.score = 0;
  return result;
}

std::string missing_part(const GraderOptions& options, const Grade& grade) {
  for (const auto* list : {&options.gates, &options.parts})
    for (const GradePart& part : *list)
      if (!sub_reward(grade, part.name)) return part.name;
  return {};
}

bool apply_grade_rules(const GraderOptions& options, Grade& grade) {
  for (const GradePart& gate : options.gates) close_gate(gate, grade);
  const double value = weighted_score(options, grade);
  grade.passed = value >= options.pass_threshold;
  grade.reward = options.reward == "passed" ? (grade.passed ? 1.0 : 0.0) : value;
  if (std::any_of(grade.gates.begin(), grade.gates.end(),
                  [](const auto& gate) { return !gate.second; })) {
    grade.reward = std::min(grade.reward, options.gate_value);
    grade.passed = false;
    return false;
  }
  const auto has = [&](const std::string& flag) {
    return std::find(grade.flags.begin(), grade.flags.end(), flag) != grade.flags.end();
  };
  const bool named = std::any_of(options.flags.begin(), options.flags.end(),
                                 [](const auto& rule) { return rule.flag == kUnconfirmedFlag; });
  bool zero = false, mask = !named && has(kUnconfirmedFlag);
  for (const auto& rule : options.flags) {
    if (!has(rule.flag)) continue;
    zero = zero || rule.action == "zero";
    mask = mask || rule.action == "mask";
    if (rule.action == "penalize") grade.reward += rule.value;
  }
  if (zero) earns_nothing(grade);
  return mask;
}

}  // namespace rollcall
