// SPDX-License-Identifier: Apache-2.0
#include "rollcall/objective_command.h"

#include <ATen/core/Tensor.h>
#include <ATen/ops/tensor.h>

#include <cmath>
#include <cstdint>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <ostream>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "comms/error.h"
#include "trainer/advantages.h"
#include "trainer/losses.h"
#include "trainer/optimizer.h"

namespace rollcall {
namespace {

using nlohmann::json;
using Matrix = std::vector<std::vector<double>>;

struct LineError {
  std::string kind, message;
};

[[noreturn]] void bad_input(std::string message) {
  throw LineError{"bad_input", std::move(message)};
}

// Turns "no such name" of a lookup into `unsupported`.
template <typename Lookup>
auto supported(Lookup lookup, const std::string& name) {
  try {
    return lookup(name);
  } catch (const Error& error) {
    throw LineError{"unsupported", error.what()};
  }
}

json advantages_reply(const json& line) {
  const AdvantageKind kind =
      supported(advantage_kind, line.at("estimator").get_ref<const std::string&>());
  const auto rewards = line.at("rewards").get<Matrix>();
  return {{"advantages", group_advantages(rewards, kind, line.value("eps", 1e-6))}};
}

// A request's batch: B sequences of T positions.
struct Batch {
  Matrix current, anchor, mask;
  std::vector<double> advantages;
  std::vector<std::int64_t> prompts;  // renumbered from 0
};

std::vector<std::int64_t> renumbered(const std::vector<std::int64_t>& groups) {
  std::map<std::int64_t, std::int64_t> numbers;
  std::vector<std::int64_t> out;
  for (std::int64_t group : groups) {
    const auto next = static_cast<std::int64_t>(numbers.size());
    out.push_back(numbers.try_emplace(group, next).first->second);
  }
  return out;
}

void check_batch(const Batch& b) {
  const std::size_t rows = b.current.size();
  if (b.anchor.size() != rows || b.mask.size() != rows || b.advantages.size() != rows ||
      b.prompts.size() != rows) {
    bad_input("batch: logp, anchor, mask, adv and group must have one entry per sequence");
  }
  for (std::size_t i = 0; i < rows; ++i) {
    if (b.anchor[i].size() != b.current[i].size() || b.mask[i].size() != b.current[i].size()) {
      bad_input("batch: row " + std::to_string(i) + " differs in length between logp and others");
    }
  }
}

Batch read_batch(const json& line, const json& config) {
  const json& source = line.at("batch");
  const std::string anchor = config.value("anchor", "old") == "rollout" ? "mu" : "old";
  Batch batch{.current = source.at("logp").get<Matrix>(),
              .anchor = source.at(anchor).get<Matrix>(),
              .mask = source.at("mask").get<Matrix>(),
              .advantages = source.at("adv").get<std::vector<double>>(),
              .prompts = renumbered(source.at("group").get<std::vector<std::int64_t>>())};
  check_batch(batch);
  return batch;
}

double optional_number(const json& object, const char* key, double otherwise) {
  const auto found = object.find(key);
  return found == object.end() || found->is_null() ? otherwise : found->get<double>();
}

LossOptions read_loss_options(const json& config) {
  LossOptions options;
  options.kind = supported(loss_kind, config.at("loss").get_ref<const std::string&>());
  options.aggregation =
      supported(aggregation_kind, config.at("aggregation").get_ref<const std::string&>());
  if (options.kind != LossKind::kReinforce) {
    options.clip_low = config.at("clip_low").get<double>();
    options.clip_high = config.at("clip_high").get<double>();
  }
  options.dual_clip = optional_number(config, "dual_clip", 0);
  options.constant = optional_number(config, "const", 1);
  for (const char* key : {"corrections", "kl"}) {
    if (!config.value(key, json()).empty()) {
      throw LineError{"unsupported", std::string(key) + " are not part of this version's losses"};
    }
  }
  return options;
}

// The action tokens of a batch, with their places in it.
struct Flat {
  std::vector<double> current, anchor, advantages;
  std::vector<std::int64_t> sequence;
  std::vector<std::pair<std::size_t, std::size_t>> places;
  LossDenominators denominators;
};

Flat flatten(const Batch& batch) {
  Flat flat;
  LossDenominators& d = flat.denominators;
  d.tokens_of_sequence.resize(batch.current.size());
  d.tokens_of_prompt.resize(batch.current.size());
  for (std::size_t i = 0; i < batch.current.size(); ++i) {
    for (std::size_t t = 0; t < batch.current[i].size(); ++t) {
      if (batch.mask[i][t] == 0) continue;
      flat.current.push_back(batch.current[i][t]);
      flat.anchor.push_back(batch.anchor[i][t]);
      flat.advantages.push_back(batch.advantages[i]);
      flat.sequence.push_back(static_cast<std::int64_t>(i));
      flat.places.emplace_back(i, t);
      d.tokens += 1;
      d.tokens_of_sequence[i] += 1;
      d.tokens_of_prompt[static_cast<std::size_t>(batch.prompts[i])] += 1;
    }
  }
  for (double count : d.tokens_of_sequence) d.sequences += count > 0 ? 1 : 0;
  for (double count : d.tokens_of_prompt) d.prompts += count > 0 ? 1 : 0;
  return flat;
}

Matrix gradient_matrix(const Batch& batch, const Flat& flat, const at::Tensor& gradient) {
  Matrix out;
  for (const auto& row : batch.current) out.emplace_back(row.size(), 0.0);
  const at::Tensor values = gradient.contiguous();
  const auto* value = values.const_data_ptr<double>();
  for (std::size_t n = 0; n < flat.places.size(); ++n) {
    out[flat.places[n].first][flat.places[n].second] = value[n];
  }
  return out;
}

json policy_reply(const json& line) {
  const json& config = line.at("config");
  const LossOptions options = read_loss_options(config);
  const Batch batch = read_batch(line, config);
  const Flat flat = flatten(batch);
  at::Tensor current = at::tensor(flat.current, at::kDouble);
  current.set_requires_grad(true);
  const ActionTokens tokens{.anchor_logprobs = at::tensor(flat.anchor, at::kDouble),
                            .advantages = at::tensor(flat.advantages, at::kDouble),
                            .sequence = at::tensor(flat.sequence, at::kLong),
                            .prompt = at::tensor(batch.prompts, at::kLong)};
  const LossStats stats = policy_loss(tokens, current, flat.denominators, options);
  stats.loss.backward();
  const double active = std::max(1.0, flat.denominators.tokens);
  return {{"loss", stats.loss.item().toDouble()},
          {"grad", gradient_matrix(batch, flat, current.grad())},
          {"metrics",
           {{"clip_high_fraction", stats.clip_high_fraction_sum / active},
            {"clip_low_fraction", stats.clip_low_fraction_sum / active},
            {"active_tokens", static_cast<std::int64_t>(flat.denominators.tokens)},
            {"active_sequences", static_cast<std::int64_t>(flat.denominators.sequences)}}}};
}

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

json adamw_reply(const json& line) {
  const json& start = line.at("start");
  const AdamWOptions options{.learning_rate = line.at("lr").get<double>(),
                             .beta1 = line.at("beta1").get<double>(),
                             .beta2 = line.at("beta2").get<double>(),
                             .epsilon = line.at("eps").get<double>(),
                             .weight_decay = line.at("weight_decay").get<double>()};
  std::vector<float> masters = numbers_of(start);
  const std::vector<std::uint8_t> decay(masters.size(), 1);
  AdamW optimizer(static_cast<std::int64_t>(masters.size()));
  json steps = json::array();
  for (const json& grads : line.at("grads")) {
    std::vector<float> gradients = numbers_of(grads);
    if (gradients.size() != masters.size()) bad_input("grads and start differ in size");
    const double norm = l2_norm(gradients);
    const double factor = clip_factor(norm, optional_number(line, "max_grad_norm", 0));
    for (float& g : gradients) g = static_cast<float>(g * factor);
    optimizer.step(masters, gradients, decay, options);
    steps.push_back({{"grad_norm", norm},
                     {"params", shaped_like(start, masters)},
                     {"exp_avg", shaped_like(start, optimizer.first_moment())},
                     {"exp_avg_sq", shaped_like(start, optimizer.second_moment())}});
  }
  return {{"steps", std::move(steps)}};
}

json reply_of(const json& line) {
  const auto& kind = line.at("kind").get_ref<const std::string&>();
  if (kind == "advantages") return advantages_reply(line);
  if (kind == "policy") return policy_reply(line);
  if (kind == "adamw") return adamw_reply(line);
  throw LineError{"unsupported", "kind '" + kind + "' is not part of this version"};
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
  } catch (const LineError& error) {
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
