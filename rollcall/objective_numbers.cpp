// SPDX-License-Identifier: Apache-2.0
#include <cmath>
#include <cstdint>
#include <nlohmann/json.hpp>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "rollcall/objective_replies.h"
#include "trainer/advantages.h"
#include "trainer/counting.h"
#include "trainer/optimizer.h"

namespace rollcall {
namespace {

using nlohmann::json;

// Appends the numbers of nested arrays and objects in their order.
void append_numbers(const json& value, std::vector<float>& out, int depth = 0) {
  if (depth > 8) bad_input("parameters nested too deeply");
  if (value.is_number()) {
    out.push_back(value.get<float>());
  } else if (value.is_structured()) {
    for (const json& element : value) append_numbers(element, out, depth + 1);
  } else {
    bad_input("parameters must be numbers");
  }
}

std::vector<float> numbers_of(const json& value) {
  std::vector<float> out;
  append_numbers(value, out);
  return out;
}

// `shape` with its numbers replaced by `*next`, `*(next + 1)`, ...
json shaped_like(json shape, const float*& next) {
  if (shape.is_number()) return static_cast<double>(*next++);
  for (json& element : shape) element = shaped_like(std::move(element), next);
  return shape;
}

json shaped_like(const json& shape, std::span<const float> values) {
  const float* next = values.data();
  return shaped_like(shape, next);
}

double l2_norm(std::span<const float> values) {
  double squares = 0;
  for (double value : values) squares += value * value;
  return std::sqrt(squares);
}

json signal_reply(const json& line) {
  std::vector<GroupCount> groups;
  for (const auto& [successes, size] :
       line.at("successes_and_sizes").get<std::vector<std::pair<std::int64_t, std::int64_t>>>())
    groups.push_back({successes, size});
  const Signal signal = signal_of(groups);
  return {{"signal_mass", signal.mass},
          {"informative_groups", signal.informative_groups},
          {"minority_count", signal.minority_count}};
}

json noise_scale_reply(const json& line) {
  const auto number = [&](const char* key) { return line.at(key).get<double>(); };
  const NoiseScale scale = gradient_noise_scale(number("small_batch"), number("small_norm_squared"),
                                                number("big_batch"), number("big_norm_squared"));
  return {{"g2", scale.gradient_squared}, {"s", scale.noise}, {"b_simple", scale.groups}};
}

}  // namespace

json advantages_reply(const json& line) {
  AdvantageOptions options;
  options.kind = supported(advantage_kind, line.at("estimator").get_ref<const std::string&>());
  options.eps = line.value("eps", options.eps);
  if (options.kind == AdvantageKind::kPassK) options.k = line.at("k").get<std::int64_t>();
  return {{"advantages",
           group_advantages(line.at("rewards").get<std::vector<std::vector<double>>>(), options)}};
}

json metrics_reply(const json& line) {
  const auto& metric = line.at("metric").get_ref<const std::string&>();
  const auto count = [&](const char* key) { return line.at(key).get<std::int64_t>(); };
  if (metric == "signal") return signal_reply(line);
  if (metric == "gradient_noise_scale") return noise_scale_reply(line);
  if (metric == "pass_at_k") return {{"value", pass_at_k(count("n"), count("c"), count("k"))}};
  if (metric == "expected_max") {
    const auto rewards = line.at("rewards").get<std::vector<double>>();
    return {{"value", expected_max(rewards, count("k"))}};
  }
  if (metric == "informative_probability")
    return {{"value", informative_probability(line.at("p").get<double>(), count("group"))}};
  if (metric == "soft_overlong")
    return {{"value", soft_overlong(count("length"), count("max_length"), count("tail"))}};
  throw ObjectiveError{"unsupported", "metric '" + metric + "' is not part of this version"};
}

json adamw_reply(const json& line) {
  const json& start = line.at("start");
  const AdamWOptions options{.learning_rate = line.at("lr").get<double>(),
                             .beta1 = line.at("beta1").get<double>(),
                             .beta2 = line.at("beta2").get<double>(),
                             .epsilon = line.at("eps").get<double>(),
                             .weight_decay = line.at("weight_decay").get<double>()};
  const json clip = line.value("max_grad_norm", json());
  const double max_norm = clip.is_null() ? 0 : clip.get<double>();
  std::vector<float> masters = numbers_of(start);
  const std::vector<std::uint8_t> decay(masters.size(), 1);
  AdamW optimizer(static_cast<std::int64_t>(masters.size()));
  json steps = json::array();
  for (const json& grads : line.at("grads")) {
    std::vector<float> gradients = numbers_of(grads);
    if (gradients.size() != masters.size()) bad_input("grads and start differ in size");
    const double norm = l2_norm(gradients);
    const double factor = clip_factor(norm, max_norm);
    for (float& g : gradients) g = static_cast<float>(g * factor);
    optimizer.step(masters, gradients, decay, options);
    steps.push_back({{"grad_norm", norm},
                     {"params", shaped_like(start, masters)},
                     {"exp_avg", shaped_like(start, optimizer.first_moment())},
                     {"exp_avg_sq", shaped_like(start, optimizer.second_moment())}});
  }
  return {{"steps", std::move(steps)}};
}

}  // namespace rollcall
