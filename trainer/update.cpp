// SPDX-License-Identifier: Apache-2.0
#include "trainer/update.h"

#include <ATen/core/Tensor.h>

#include "comms/bytes.h"
#include "comms/communicator.h"
#include "comms/durable_file.h"
#include "comms/error.h"
#include "comms/fault_injection.h"
#include "comms/wire.h"

namespace rollcall {
namespace {

namespace fs = std::filesystem;

// First byte of what the lead announces.
enum class Verb : char { kUpdate, kSave, kRestore, kWait, kDismiss };

constexpr int kWordsPerTimeout = 4;

}  // namespace

Updater::Updater(const TrainSetup& setup, const ModelSpec& spec, Communicator& communicator)
    : setup_(setup),
      communicator_(communicator),
      model_config_(read_file(setup.model_dir / "config.json")),
      learner_(spec, load_policy(setup.model_dir, spec, policy_dtype(setup.dtype), setup.lora),
               setup.valid_ids, communicator, policy_dtype(setup.dtype)) {}

double Updater::learning_rate(std::int64_t step) const {
  return warmup_learning_rate(setup_.algorithm.learning_rate, setup_.algorithm.warmup_steps, step);
}

void Updater::announce(std::string message) {
  if (communicator_.size() > 1) communicator_.broadcast(message);
  announced_ = Clock::now();
}

StepUpdate Updater::update(std::span<const Collected> collected, const StepBatch& batch,
                           std::int64_t step, double step_size,
                           const std::function<void()>& between) {
  std::vector<const Trajectory*> trajectories;
  std::vector<double> advantages;
  for (const std::size_t i : batch.in_loss) {
    trajectories.push_back(&collected[i].trajectory);
    advantages.push_back(batch.uses[i].advantage);
  }
  if (communicator_.size() > 1) {
    ByteWriter message;
    message.enumerator(Verb::kUpdate);
    message.number(step);
    message.number(step_size);
    message.number(static_cast<std::uint64_t>(trajectories.size()));
    for (std::size_t i = 0; i < trajectories.size(); ++i) {
      message.number(advantages[i]);
      message.number(batch.prompt[i]);
      message.text(encode(*trajectories[i]));
    }
    announce(message.take());
  }
  return train(trajectories, advantages, batch.prompt, step, step_size, between);
}

StepUpdate Updater::train_announced(std::string_view bytes) {
  ByteReader message(bytes, "update");
  message.enumerator(Verb::kDismiss);
  const auto step = message.number<std::int64_t>();
  const auto step_size = message.number<double>();
  const auto count = message.number<std::uint64_t>();
  std::vector<Trajectory> trajectories;
  std::vector<double> advantages;
  std::vector<std::int64_t> prompts;
  for (std::uint64_t i = 0; i < count; ++i) {
    advantages.push_back(message.number<double>());
    prompts.push_back(message.number<std::int64_t>());
    trajectories.push_back(decode_trajectory(message.text()));
  }
  std::vector<const Trajectory*> pointers;
  for (const auto& t : trajectories) pointers.push_back(&t);
  return train(pointers, advantages, prompts, step, step_size, [] {});
}

StepUpdate Updater::train(std::span<const Trajectory* const> trajectories,
                          std::span<const double> advantages, std::span<const std::int64_t> prompts,
                          std::int64_t step, double step_size,
                          const std::function<void()>& between) {
  const AlgorithmOptions& a = setup_.algorithm;
  const auto all = train_sequences(trajectories, advantages, prompts);
  std::vector<TrainSequence> mine;  // prompts are dealt round robin
  for (const auto& s : all)
    if (s.prompt % communicator_.size() == communicator_.rank()) mine.push_back(s);
  const auto batches = pack_sequences(mine, a.microbatch_tokens);
  // Corrections compare the sampler with the weights at the start of the step: one more forward
  // pass.
  std::vector<at::Tensor> old_logprobs;
  if (!a.corrections.empty()) old_logprobs = learner_.logprobs(batches, between);
  StepLoss loss(a, batches, old_logprobs, communicator_);
  StepUpdate result;
  fault_point("update");
  result.learner = learner_.update(
      batches,
      [&](std::size_t i, const TokenLogprobs& current) { return loss.share(i, current.logprobs); },
      {{learning_rate(step) * step_size, a.beta1, a.beta2, a.epsilon, a.weight_decay},
       a.max_grad_norm,
       setup_.alarms.logprob_gap},
      between);
  result.loss = loss.stats();
  return result;
}

fs::path Updater::save(const fs::path& dir, TrainState state, int keep) {
  announce(std::string(1, static_cast<char>(Verb::kSave)));
  auto optimizer = learner_.optimizer_state();
  state.optimizer_steps = optimizer.steps;
  state.spec = model_config_;
  state.lora = policy().lora();
  state.base_xxh3 = policy().base_xxh3();
  const auto& flat = policy().masters().flat;
  state.masters.assign(flat.const_data_ptr<float>(), flat.const_data_ptr<float>() + flat.numel());
  state.first_moment = std::move(optimizer.first_moment);
  state.second_moment = std::move(optimizer.second_moment);
  return save_checkpoint(dir, state, keep);
}

TrainState Updater::restore(const fs::path& folder) {
  announce(static_cast<char>(Verb::kRestore) + folder.string());
  return load(folder);
}

TrainState Updater::load(const fs::path& folder) {
  TrainState state = load_checkpoint(folder);
  refuse_foreign(state, folder);
  learner_.restore(state.masters, {state.optimizer_steps, state.first_moment, state.second_moment});
  return state;
}

void Updater::refuse_foreign(const TrainState& state, const fs::path& folder) const {
  const auto refuse = [&](const std::string& what, const std::string& key) {
    throw input_error("checkpoint " + folder.string() + " " + what,
                      "set " + key + " to what the run began with, or give the run another name");
  };
  const auto named = [](const std::optional<LoraOptions>& lora) {
    return lora ? "an adapter (" + describe(*lora) + ")" : "all weights";
  };
  if (state.spec != model_config_)
    refuse("was made from another model than " + setup_.model_dir.string(), "model.path");
  if (state.lora != policy().lora())
    refuse("trains " + named(state.lora) + ", the run file asks for " + named(policy().lora()),
           "model.train, model.lora and model.adapter");
  if (state.base_xxh3 != policy().base_xxh3())
    refuse("trains an adapter of other weights than those in " + setup_.model_dir.string(),
           "model.path");
  if (state.masters.size() != static_cast<std::size_t>(policy().masters().flat.numel()))
    refuse("has another number of parameters than " + setup_.model_dir.string(), "model.path");
}

void Updater::keep_waiting() {
  if (Clock::now() - announced_ > setup_.learner_timeout / kWordsPerTimeout)
    announce(std::string(1, static_cast<char>(Verb::kWait)));
}

void Updater::dismiss() { announce(std::string(1, static_cast<char>(Verb::kDismiss))); }

void Updater::follow() {
  for (;;) {
    std::string message;
    communicator_.broadcast(message);
    switch (static_cast<Verb>(message.at(0))) {
      case Verb::kUpdate:
        train_announced(message);
        break;
      case Verb::kSave:
        learner_.optimizer_state();
        break;
      case Verb::kRestore:
        load(message.substr(1));
        break;
      case Verb::kWait:
        break;
      case Verb::kDismiss:
        return;
    }
  }
}

}  // namespace rollcall
