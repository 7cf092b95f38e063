// SPDX-License-Identifier: Apache-2.0
#include "model/engine.h"

#include <algorithm>
#include <chrono>
#include <map>
#include <string>
#include <utility>

#include "comms/error.h"
#include "model/engine_backend.h"
#include "model/engine_sequence.h"
#include "model/prefill_pace.h"
#include "model/sampling.h"

namespace rollcall {
struct Engine::Impl {
  using Prompt = EnginePrompt;
  using Sequence = EngineSequence;

  Impl(const ModelSpec& spec_in, const EngineOptions& options_in,
       std::unique_ptr<EngineBackend> backend_in)
      : spec(spec_in), options(options_in), backend(std::move(backend_in)) {}

  Sequence& at(SequenceId id) {
    const auto found = sequences.find(id);
    if (found == sequences.end()) throw Error("engine: no open sequence " + std::to_string(id));
    return found->second;
  }

  void check_ids(std::span<const std::int32_t> ids) const {
    for (const std::int32_t id : ids)
      if (id < 0 || id >= spec.vocab_size)
        throw input_error("engine: token id " + std::to_string(id) +
                          " is outside the vocabulary of " + std::to_string(spec.vocab_size));
  }

  // The round's batch, and whose token each draw is.
  struct Round {
    EngineBackend::Batch batch;
    std::vector<Sequence*> drawing;
    std::int64_t most_prefill = 0;  // rows that may prefill
    std::int64_t prefill = 0;       // rows that do
    std::int64_t pages = 0;         // that its stretches take

    std::int64_t rows() const { return static_cast<std::int64_t>(batch.tokens.size()); }
  };

  // False if the caches are full.
  bool add_stretch(Round& round, HeldCache& cache, EngineBackend::Cache prefix,
                   std::span<const std::int32_t> tokens) {
    const auto count = static_cast<std::int64_t>(tokens.size());
    const std::int64_t pages = cache.pages_to_grow(count);
    if (pages > backend->pages_free() - round.pages) return false;
    round.pages += pages;
    round.batch.stretches.push_back({cache.id(), prefix, round.rows(), count});
    round.batch.tokens.insert(round.batch.tokens.end(), tokens.begin(), tokens.end());
    cache.extend(count);
    return true;
  }

  // Adds what fits of the prompt that the sequence waits for.
  bool add_prompt(Round& round, Sequence& s) {
    Prompt& prompt = *s.prompt;
    const std::int64_t count = std::min(prompt.missing(), round.most_prefill - round.prefill);
    if (count <= 0) return true;
    const auto part = std::span(prompt.tokens)
                          .subspan(static_cast<std::size_t>(prompt.cache.length()),
                                   static_cast<std::size_t>(count));
    if (!add_stretch(round, prompt.cache, -1, part)) return false;
    round.prefill += count;
    s.completion.prefill_tokens += count;
    if (prompt.ready()) {
      round.batch.keeps.push_back({prompt.cache.id(), round.rows() - 1});
      made_now.push_back(&prompt);
    }
    return true;
  }

  bool add_sequence(Round& round, Sequence& s) {
    const std::int64_t pending = s.pending();
    if (pending == 0) {
      add_draw(round, s, -1);
      return true;
    }
    const std::int64_t count =
        pending == 1 ? 1 : std::min(pending, round.most_prefill - round.prefill);
    if (count <= 0) return true;
    const auto part = std::span(s.tokens).subspan(static_cast<std::size_t>(s.cache.length()),
                                                  static_cast<std::size_t>(count));
    if (!add_stretch(round, s.cache, s.prompt->cache.id(), part)) return false;
    if (pending > 1) {
      round.prefill += count;
      s.completion.prefill_tokens += count;
    }
    if (count == pending) add_draw(round, s, round.rows() - 1);
    return true;
  }

  void add_draw(Round& round, Sequence& s, std::int64_t row) {
    round.batch.draws.push_back(
        {row, s.prompt->cache.id(), s.options.sampled_ids, uniform_draw(s.seed, s.draws++)});
    round.drawing.push_back(&s);
  }

  bool decodes() const {
    return std::ranges::any_of(sequences, [](const auto& entry) {
      const Sequence& s = entry.second;
      return s.running && s.prompt->ready() && s.pending() <= 1;
    });
  }

  Round gather() {
    Round round;
    round.most_prefill = pace.rows(decodes());
    made_now.clear();
    std::int64_t running = 0;
    for (auto& [id, s] : sequences) {
      if (!s.running || running == options.max_batch) continue;
      ++running;
      const bool made_in_this_round = std::ranges::find(made_now, s.prompt.get()) != made_now.end();
      if (made_in_this_round) continue;
      while (!(s.prompt->ready() ? add_sequence(round, s) : add_prompt(round, s)))
        if (!make_room(round, id)) return round;
    }
    return round;
  }

  // Gives up a cache so that sequence `wanting` can go on: its tokens are known and are computed
  // again when their turn comes. First of those that wait for a tool, then of the newest that runs
  // and is not in the round, then prompts. False if there is none: it waits until others end.
  bool make_room(const Round& round, SequenceId wanting) {
    const auto in_round = [&](const HeldCache& cache) {
      return std::ranges::any_of(round.batch.stretches,
                                 [&](const EngineBackend::Stretch& s) {
                                   return s.cache == cache.id() || s.prefix == cache.id();
                                 }) ||
             std::ranges::any_of(round.batch.draws, [&](const EngineBackend::Draw& draw) {
               return draw.cache == cache.id();
             });
    };
    for (const bool running : {false, true}) {
      for (auto entry = sequences.rbegin(); entry != sequences.rend(); ++entry) {
        Sequence& s = entry->second;
        if (s.running != running || entry->first == wanting) continue;
        if (running && entry->first < wanting) break;
        if (s.cache.pages() == 0 || in_round(s.cache)) continue;
        s.cache.clear();
        return true;
      }
    }
    for (auto& [id, s] : sequences) {
      HeldCache& shared = s.prompt->cache;
      if (s.prompt == at(wanting).prompt || shared.pages() == 0 || in_round(shared)) continue;
      shared.clear();
      return true;
    }
    return false;
  }

  void sample(const Round& round) {
    const auto begin = std::chrono::steady_clock::now();
    const std::vector<SampledToken> drawn = backend->step(round.batch);
    const std::chrono::duration<double> taken = std::chrono::steady_clock::now() - begin;
    if (round.prefill >= PrefillPace::kLeastRows) pace.add(round.rows(), taken.count());
    for (std::size_t i = 0; i < drawn.size(); ++i) {
      Sequence& s = *round.drawing[i];
      s.completion.tokens.push_back(drawn[i].id);
      s.completion.logprobs.push_back(drawn[i].logprob);
      s.completion.versions.push_back(static_cast<std::int32_t>(version));
      s.tokens.push_back(drawn[i].id);
    }
  }

  // True if the sequence's turn is over; sets the reason.
  bool turn_over(Sequence& s) const {
    auto& c = s.completion;
    const auto& stops = s.options.stop_ids;
    if (!c.tokens.empty() &&
        std::find(stops.begin(), stops.end(), c.tokens.back()) != stops.end()) {
      c.stop = StopReason::kStopToken;
    } else if (static_cast<std::int32_t>(c.tokens.size()) >= s.options.max_new_tokens) {
      c.stop = StopReason::kMaxNewTokens;
    } else if (s.length() >= options.max_context) {
      c.stop = StopReason::kContextFull;
    } else {
      return false;
    }
    return true;
  }

  std::vector<Finished> collect() {
    std::vector<Finished> finished;
    for (auto& [id, s] : sequences) {
      if (!s.running || !turn_over(s)) continue;
      s.running = false;
      finished.push_back({id, std::exchange(s.completion, {})});
    }
    return finished;
  }

  ModelSpec spec;
  EngineOptions options;
  std::unique_ptr<EngineBackend> backend;
  PrefillPace pace;
  std::int64_t version = -1;
  SequenceId next_id = 1;
  std::map<SequenceId, Sequence> sequences;
  std::map<std::vector<std::int32_t>, std::weak_ptr<Prompt>> prompts;
  std::vector<const Prompt*> made_now;  // prompts whose last token is in the round
};

Engine::Engine(const ModelSpec& spec, const EngineOptions& options)
    : Engine(spec, options,
             options.gpu ? make_gpu_backend(spec, options) : make_cpu_backend(spec, options)) {}
Engine::Engine(const ModelSpec& spec, const EngineOptions& options,
               std::unique_ptr<EngineBackend> backend)
    : impl_(std::make_unique<Impl>(spec, options, std::move(backend))) {}
Engine::~Engine() = default;

void Engine::load(std::int64_t version, const TensorSource& weights) {
  impl_->version = -1;
  impl_->backend->load(weights);
  impl_->version = version;
  impl_->prompts.clear();  // caches of the old version live on only in their open sequences
}

WeightsUse Engine::load(std::int64_t version, const PublishedWeights& weights) {
  const std::int64_t before = std::exchange(impl_->version, -1);
  const WeightsUse use = impl_->backend->load(weights);
  impl_->version = version;
  if (version != before) impl_->prompts.clear();
  return use;
}

std::int64_t Engine::version() const { return impl_->version; }

SequenceId Engine::open(std::span<const std::int32_t> prompt, std::uint64_t seed) {
  if (prompt.empty()) throw Error("engine: a sequence needs a prompt of at least one token");
  impl_->check_ids(prompt);
  std::vector<std::int32_t> tokens(prompt.begin(), prompt.end());
  auto& slot = impl_->prompts[tokens];
  std::shared_ptr<EnginePrompt> shared = slot.lock();
  if (shared == nullptr) {
    shared = std::make_shared<EnginePrompt>(EnginePrompt{tokens, HeldCache(*impl_->backend)});
    slot = shared;
  }
  const SequenceId id = impl_->next_id++;
  impl_->sequences.emplace(
      id,
      EngineSequence{std::move(shared), HeldCache(*impl_->backend), {}, seed, 0, false, {}, {}});
  return id;
}

void Engine::request_turn(SequenceId id, std::span<const std::int32_t> delta,
                          const SamplingOptions& options) {
  EngineSequence& s = impl_->at(id);
  if (s.running)
    throw Error("engine: sequence " + std::to_string(id) + " already has a turn running");
  impl_->check_ids(delta);
  s.tokens.insert(s.tokens.end(), delta.begin(), delta.end());
  s.options = options;
  s.completion = {};
  s.running = true;
}

void Engine::close(SequenceId id) {
  auto node = impl_->sequences.extract(id);
  if (node.empty() || node.mapped().prompt.use_count() > 1) return;
  const auto found = impl_->prompts.find(node.mapped().prompt->tokens);
  if (found != impl_->prompts.end() && found->second.lock() == node.mapped().prompt)
    impl_->prompts.erase(found);
}

bool Engine::has_work() const {
  return std::any_of(impl_->sequences.begin(), impl_->sequences.end(),
                     [](const auto& entry) { return entry.second.running; });
}

std::vector<Engine::Finished> Engine::step() {
  if (impl_->version < 0) throw Error("engine: no weights loaded");
  std::vector<Finished> finished =
      impl_->collect();  // turns that end without a token: no room left
  const Impl::Round round = impl_->gather();
  if (finished.empty() && round.rows() == 0 && round.drawing.empty() && has_work())
    throw Error("engine: the caches have no room for one sequence");
  impl_->sample(round);
  for (auto& f : impl_->collect()) finished.push_back(std::move(f));
  return finished;
}

std::int64_t Engine::length(SequenceId id) const { return impl_->at(id).length(); }

}  // namespace rollcall
