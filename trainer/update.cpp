// SPDX-License-Identifier: Apache-2.0
#include "trainer/update.h"

#include <ATen/core/Tensor.h>

#include <algorithm>

#include "comms/bytes.h"
#include "comms/communicator.h"
#include "comms/durable_file.h"
#include "comms/error.h"
#include "comms/fault_injection.h"
#include "comms/wire.h"

namespace rollcall {
namespace {

namespace fs = std::filesystem;

constexpr int kWordsPerTimeout = 4;

std::unique_ptr<ValueLearner> make_critic(const TrainSetup& setup, const ModelSpec& spec,
                                          Learner& learner, Communicator& communicator) {
  if (setup.algorithm.advantage != "gae") return nullptr;
  if (setup.algorithm.critic.trunk == "shared")
    return std::make_unique<ValueLearner>(learner.trunk(), communicator);
  const auto dtype = policy_dtype(setup.dtype);
  return std::make_unique<ValueLearner>(without_head(spec),
                                        load_trunk(setup.model_dir, spec, dtype, setup.lora),
                                        communicator, dtype);
}

std::unique_ptr<ReferencePolicy> make_reference(const TrainSetup& setup, const ModelSpec& spec) {
  if (setup.algorithm.kl.coefficient == 0) return nullptr;
  const auto adapter = setup.lora ? setup.lora->adapter : fs::path();
  return std::make_unique<ReferencePolicy>(setup.model_dir, adapter, spec,
                                           policy_dtype(setup.dtype), setup.valid_ids);
}

// The sequences that one of several learners trains, prompts being dealt round robin.
struct Share {
  std::vector<TrainSequence> sequences;
  std::vector<std::size_t> places;  // in the step's list
};

Share share_of(std::span<const LossRollout> rollouts, const Communicator& communicator) {
  const auto all = train_sequences(rollouts);
  Share mine;
  for (std::size_t i = 0; i < all.size(); ++i) {
    if (all[i].prompt % communicator.size() != communicator.rank()) continue;
    mine.sequences.push_back(all[i]);
    mine.places.push_back(i);
  }
  return mine;
}

std::int64_t prompts_of(std::span<const LossRollout> rollouts) {
  return rollouts.empty() ? 0 : rollouts.back().prompt + 1;
}

AdamWOptions adamw_options(const AlgorithmOptions& a, double learning_rate) {
  return {learning_rate, a.beta1, a.beta2, a.epsilon, a.weight_decay};
}

// One list of `size` numbers from all learners, of which this one has `mine` at `places`.
std::vector<double> gathered(const std::vector<double>& mine,
                             const std::vector<std::size_t>& places, std::size_t size,
                             Communicator& communicator) {
  std::vector<double> all(size);
  for (std::size_t i = 0; i < mine.size(); ++i) all[places[i]] = mine[i];
  communicator.all_sum_host(all);
  return all;
}

// The targets of each minibatch, with the tokens that all learners have of it.
std::vector<ValueTargets> split_targets(const Minibatches& minibatches, const ValueTargets& all,
                                        Communicator& communicator) {
  std::vector<ValueTargets> parts;
  std::vector<double> tokens;
  std::size_t i = 0;
  for (const std::size_t end : minibatches.ends) {
    ValueTargets& part = parts.emplace_back();
    double& count = tokens.emplace_back();
    for (; i < end; ++i) {
      part.old_values.push_back(all.old_values[i]);
      part.returns.push_back(all.returns[i]);
      count += static_cast<double>(all.returns[i].numel());
    }
  }
  communicator.all_sum_host(tokens);
  for (std::size_t k = 0; k < parts.size(); ++k) parts[k].tokens = tokens[k];
  return parts;
}

// Calls update(k, first, count) for each minibatch k of each epoch, which has `count` batches.
template <class Update>
void for_each_minibatch(std::span<const std::size_t> ends, std::int64_t epochs,
                        const Update& update) {
  for (std::int64_t epoch = 0; epoch < epochs; ++epoch) {
    std::size_t first = 0;
    for (std::size_t k = 0; k < ends.size(); ++k) {
      update(k, first, ends[k] - first);
      first = ends[k];
    }
  }
}

}  // namespace

Updater::Updater(const TrainSetup& setup, const ModelSpec& spec, Communicator& communicator)
    : setup_(setup),
      communicator_(communicator),
      model_config_(read_file(setup.model_dir / "config.json")),
      learner_(spec, load_policy(setup.model_dir, spec, policy_dtype(setup.dtype), setup.lora),
               setup.valid_ids, communicator, policy_dtype(setup.dtype)),
      critic_(make_critic(setup, spec, learner_, communicator)),
      reference_(make_reference(setup, spec)) {}

bool Updater::policy_learns(std::int64_t step) const {
  return !critic_ || step >= setup_.algorithm.critic.pretrain_steps;
}

double Updater::learning_rate(std::int64_t step) const {
  if (!policy_learns(step)) return 0;
  const AlgorithmOptions& a = setup_.algorithm;
  const std::int64_t first = critic_ ? a.critic.pretrain_steps : 0;
  return warmup_learning_rate(a.learning_rate, a.warmup_steps, step - first);
}

UpdateOptions Updater::update_options(std::int64_t step, const StepSize& size) const {
  const AlgorithmOptions& a = setup_.algorithm;
  return {adamw_options(a, learning_rate(step) * size.factor), a.max_grad_norm,
          setup_.alarms.logprob_gap, size.grad_norm_limit, a.activation_checkpointing};
}

ValueUpdateOptions Updater::value_options(std::int64_t step) const {
  const AlgorithmOptions& a = setup_.algorithm;
  const double rate = warmup_learning_rate(a.critic.learning_rate, a.warmup_steps, step);
  return {adamw_options(a, rate), a.max_grad_norm, a.critic.value_clip, a.activation_checkpointing};
}

void Updater::announce(std::string message) {
  if (communicator_.size() > 1) communicator_.broadcast(message);
  announced_ = Clock::now();
}

void Updater::announce(Verb verb, std::int64_t step, const StepSize& size,
                       std::span<const LossRollout> rollouts) {
  if (communicator_.size() == 1) return;
  ByteWriter message;
  message.enumerator(verb);
  message.number(step);
  message.number(size.factor);
  message.number(size.grad_norm_limit);
  message.number(static_cast<std::uint64_t>(rollouts.size()));
  for (const LossRollout& r : rollouts) {
    message.number(r.prompt);
    message.number(r.reward);
    message.number(r.advantage);
    message.text(encode(*r.trajectory));
  }
  announce(message.take());
}

void Updater::take_part(std::string_view bytes) {
  ByteReader message(bytes, "update");
  const auto verb = message.enumerator(Verb::kDismiss);
  const auto step = message.number<std::int64_t>();
  StepSize size;
  size.factor = message.number<double>();
  size.grad_norm_limit = message.number<double>();
  const auto count = message.number<std::uint64_t>();
  std::vector<Trajectory> trajectories(count);
  std::vector<LossRollout> rollouts;
  for (Trajectory& t : trajectories) {
    LossRollout& r = rollouts.emplace_back();
    r.trajectory = &t;
    r.prompt = message.number<std::int64_t>();
    r.reward = message.number<double>();
    r.advantage = message.number<double>();
    t = decode_trajectory(message.text());
  }
  if (verb == Verb::kDiverge)
    divergences(rollouts, [] {});
  else
    train(rollouts, step, size, [] {});
}

std::vector<double> Updater::penalties(std::span<const Collected> collected,
                                       const std::function<void()>& between) {
  const KlSection& kl = setup_.algorithm.kl;
  if (!reference_ || kl.form != "k1_reward") return {};
  const auto rollouts = valid_rollouts(collected);
  announce(Verb::kDiverge, 0, {}, rollouts);
  const auto nats = divergences(rollouts, between);
  std::vector<double> result(collected.size());
  for (std::size_t i = 0, next = 0; i < collected.size(); ++i)
    if (next < rollouts.size() && rollouts[next].trajectory == collected[i].trajectory.get())
      result[i] = kl.coefficient * nats[next++];
  return result;
}

std::vector<double> Updater::divergences(std::span<const LossRollout> rollouts,
                                         const std::function<void()>& between) {
  const Share mine = share_of(rollouts, communicator_);
  const auto batches = pack_sequences(mine.sequences, setup_.algorithm.microbatch_tokens);
  const auto logprobs = reference_->logprobs(batches, between);
  std::vector<double> nats(mine.sequences.size());
  for (std::size_t b = 0; b < batches.size(); ++b) {
    const at::Tensor sums = sequence_divergence(batches[b], logprobs[b]);
    for (std::size_t s = 0; s < batches[b].sequences.size(); ++s)
      nats[static_cast<std::size_t>(batches[b].sequences[s])] = sums.const_data_ptr<double>()[s];
  }
  return gathered(nats, mine.places, rollouts.size(), communicator_);
}

StepUpdate Updater::update(std::span<const Collected> collected, StepBatch& batch,
                           std::int64_t step, const StepSize& size,
                           const std::function<void()>& between) {
  const auto rollouts = loss_rollouts(collected, batch);
  announce(Verb::kUpdate, step, size, rollouts);
  StepUpdate result = train(rollouts, step, size, between);
  for (std::size_t i = 0; i < result.advantages.size(); ++i)
    batch.uses[batch.in_loss[i]].advantage = result.advantages[i];
  return result;
}

StepUpdate Updater::train(std::span<const LossRollout> rollouts, std::int64_t step,
                          const StepSize& size, const std::function<void()>& between) {
  const Share mine = share_of(rollouts, communicator_);
  Minibatches step_batches = pack(mine.sequences, prompts_of(rollouts));
  auto& batches = step_batches.batches;
  StepUpdate result;
  result.policy_learns = policy_learns(step);
  fault_point("update");
  ValueTargets targets;
  if (critic_) {
    StepValues values = step_values(batches, mine.sequences, critic_->values(batches, between),
                                    setup_.algorithm.critic, result.policy_learns, communicator_);
    for (std::size_t i = 0; i < batches.size(); ++i)
      batches[i].actions.advantages = values.advantages[i];
    result.advantages =
        gathered(values.sequence_advantages, mine.places, rollouts.size(), communicator_);
    result.critic = {{}, values.explained_variance, values.value_mean, values.return_mean};
    targets = std::move(values.targets);
    if (critic_->owns_trunk() || !result.policy_learns)
      result.critic->learner = train_critic(step_batches, targets, step, between);
  }
  const bool on_policy = std::ranges::all_of(rollouts, [&](const LossRollout& r) {
    return sampled_versions(*r.trajectory).oldest == step;
  });
  if (result.policy_learns)
    train_policy(step_batches, targets, step, size, on_policy, between, result);
  return result;
}

Minibatches Updater::pack(std::span<const TrainSequence> mine, std::int64_t prompts) const {
  const AlgorithmOptions& a = setup_.algorithm;
  std::int64_t count = 1;
  if (critic_ && critic_->owns_trunk())
    count = a.critic.minibatches;
  else if (a.minibatch_prompts > 0)
    count = std::max<std::int64_t>(1, (prompts + a.minibatch_prompts - 1) / a.minibatch_prompts);
  return pack_minibatches(mine, prompts, count, a.microbatch_tokens);
}

Updater::StepLogprobs Updater::StepLogprobs::part(std::size_t begin, std::size_t count) const {
  const auto cut = [&](std::span<const at::Tensor> all) {
    return all.empty() ? all : all.subspan(begin, count);
  };
  return {cut(old), cut(reference)};
}

void Updater::train_policy(const Minibatches& minibatches, const ValueTargets& targets,
                           std::int64_t step, const StepSize& size, bool on_policy,
                           const std::function<void()>& between, StepUpdate& result) {
  const AlgorithmOptions& a = setup_.algorithm;
  const std::span<const PackedBatch> batches = minibatches.batches;
  const std::vector<std::size_t> ends =
      critic_ ? std::vector<std::size_t>{batches.size()} : minibatches.ends;
  const auto updates = static_cast<std::int64_t>(ends.size()) * a.epochs;
  // Corrections compare the sampler with the weights at the start of the step: one more forward
  // pass.
  std::vector<at::Tensor> old_logprobs, reference_logprobs;
  if (!a.corrections.empty() || (a.anchor == "old" && updates > 1))
    old_logprobs = learner_.logprobs(batches, between);
  if (a.kl_in_loss()) reference_logprobs = reference_->logprobs(batches, between);
  const StepLogprobs logprobs{old_logprobs, reference_logprobs};
  const bool shared = critic_ && !critic_->owns_trunk();
  Learner::Pull pull;
  if (shared) {
    critic_->begin(targets, value_options(step));
    pull = [&](std::size_t i, const at::Tensor& hidden) {
      return critic_->pull(i, hidden, a.critic.coefficient);
    };
  }
  UpdateOptions options = update_options(step, size);
  // Sampler and learner agree to the bit only where both have the weights of the step's begin.
  if (!on_policy) options.max_logprob_gap = 0;
  for_each_minibatch(ends, a.epochs, [&](std::size_t, std::size_t first, std::size_t count) {
    update_policy(batches.subspan(first, count), logprobs.part(first, count), options,
                  1.0 / static_cast<double>(updates), between, pull, result);
    options.max_logprob_gap = 0;  // the weights have moved since
  });
  if (shared) result.critic->learner = critic_->finish();
}

void Updater::update_policy(std::span<const PackedBatch> batches, const StepLogprobs& logprobs,
                            const UpdateOptions& options, double share,
                            const std::function<void()>& between, const Learner::Pull& pull,
                            StepUpdate& result) {
  StepLoss loss(setup_.algorithm, batches, logprobs.old, logprobs.reference, communicator_);
  const UpdateStats one = learner_.update(
      batches,
      [&](std::size_t i, const TokenLogprobs& current) { return loss.share(i, current.logprobs); },
      options, between, pull);
  const StepLoss::Stats told = loss.stats();
  const auto epochs = static_cast<double>(setup_.algorithm.epochs);
  UpdateStats& all = result.learner;
  if (all.mismatch.tokens == 0) {
    all.mismatch = one.mismatch;
    all.noise = one.noise;
  }
  all.loss += share * one.loss;
  all.grad_norm_l2 += share * one.grad_norm_l2;
  if (one.seconds_gradient_sum)
    all.seconds_gradient_sum = all.seconds_gradient_sum.value_or(0) + *one.seconds_gradient_sum;
  all.skipped |= one.skipped;
  all.spiked |= one.spiked;
  all.action_tokens += one.action_tokens / epochs;
  all.entropy_mean += share * one.entropy_mean;
  result.loss.clip_high_fraction += share * told.clip_high_fraction;
  result.loss.clip_low_fraction += share * told.clip_low_fraction;
  result.loss.tokens_rejected += told.tokens_rejected / epochs;
  result.loss.tokens_rejected_positive += told.tokens_rejected_positive / epochs;
  if (told.reference_kl_mean)
    result.loss.reference_kl_mean =
        result.loss.reference_kl_mean.value_or(0) + share * *told.reference_kl_mean;
  result.optimizer_steps += !one.skipped && !one.spiked && one.grad_norm_l2 > 0 ? 1 : 0;
}

ValueStats Updater::train_critic(const Minibatches& minibatches, const ValueTargets& targets,
                                 std::int64_t step, const std::function<void()>& between) {
  const CriticOptions& critic = setup_.algorithm.critic;
  const auto parts = split_targets(minibatches, targets, communicator_);
  const std::span<const PackedBatch> batches = minibatches.batches;
  const auto filled = std::ranges::count_if(parts, [](const auto& p) { return p.tokens > 0; });
  const auto updates = static_cast<double>(filled * critic.epochs);
  ValueStats means;
  for_each_minibatch(
      minibatches.ends, critic.epochs, [&](std::size_t k, std::size_t first, std::size_t count) {
        if (parts[k].tokens == 0) return;  // on no learner: fewer tasks than minibatches
        const ValueStats one =
            critic_->update(batches.subspan(first, count), parts[k], value_options(step), between);
        means.loss += one.loss / updates;
        means.clip_fraction += one.clip_fraction / updates;
        means.grad_norm_l2 += one.grad_norm_l2 / updates;
        means.skipped |= one.skipped;
      });
  return means;
}

TrainState Updater::state(TrainState state) {
  announce(std::string(1, static_cast<char>(Verb::kState)));
  state.policy = learner_.state();
  state.spec = model_config_;
  state.lora = policy().lora();
  state.base_xxh3 = policy().base_xxh3();
  if (critic_) state.critic = critic_->state();
  return state;
}

fs::path Updater::save(const fs::path& dir, TrainState state, int keep) {
  return save_checkpoint(dir, this->state(std::move(state)), keep);
}

TrainState Updater::restore(const fs::path& folder) {
  announce(static_cast<char>(Verb::kRestore) + folder.string());
  return load(folder);
}

TrainState Updater::load(const fs::path& folder) {
  TrainState state = load_checkpoint(folder);
  refuse_foreign(state, folder);
  learner_.restore(state.policy);
  if (critic_) critic_->restore(*state.critic);
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
  if (state.policy.masters.size() != static_cast<std::size_t>(policy().masters().flat.numel()))
    refuse("has another number of parameters than " + setup_.model_dir.string(), "model.path");
  if (state.critic.has_value() != (critic_ != nullptr))
    refuse(state.critic ? "has a critic" : "has no critic", "algorithm.advantage");
  if (critic_ && !critic_->fits(*state.critic))
    refuse("has a critic of another shape", "algorithm.critic.trunk");
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
      case Verb::kDiverge:
        take_part(message);
        break;
      case Verb::kState:
        learner_.state();
        if (critic_) critic_->state();
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
