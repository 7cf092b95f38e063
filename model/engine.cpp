// SPDX-License-Identifier: Apache-2.0
#include "model/engine.h"

#include <ATen/Parallel.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>

#include <algorithm>
#include <map>
#include <string>

#include "comms/error.h"
#include "model/decoder.h"
#include "model/kv_segment.h"
#include "model/query_stretch.h"
#include "model/sampling.h"

namespace rollcall {
namespace {

// A prompt that some open sequences share; computed once.
struct Prompt {
  std::vector<std::int32_t> tokens;
  KvSegment cache;
  std::vector<float> last_hidden;  // of the last token, once the whole prompt is in the cache

  bool ready() const { return !last_hidden.empty(); }
};

struct Sequence {
  std::shared_ptr<Prompt> prompt;
  KvSegment cache;                    // what came behind the prompt
  std::vector<std::int32_t> pending;  // tokens not in the cache yet
  std::uint64_t seed = 0;
  std::uint64_t draws = 0;
  bool running = false;  // a turn is wanted
  SamplingOptions options;
  Completion completion;

  std::int64_t length() const {
    return static_cast<std::int64_t>(prompt->tokens.size() + pending.size()) + cache.length();
  }
};

// Consecutive tokens computed in one round, appended to `target`.
struct Stretch {
  KvSegment* target;
  const KvSegment* prefix;  // null for a prompt
  std::int64_t first;       // position in target
  std::int64_t row;         // first row in the batch
  std::int64_t count;
};

constexpr std::int64_t kPrefillRows = 1024;  // per round, so that decoding never waits long

}  // namespace

struct Engine::Impl {
  Impl(const ModelSpec& spec_in, const EngineOptions& options_in)
      : spec(spec_in),
        options(options_in),
        decoder(spec_in, options_in.dtype),
        shape{spec.heads, spec.kv_heads, spec.head_dim,
              static_cast<float>(decoder.attention_scale())} {}

  Sequence& at(SequenceId id) {
    const auto found = sequences.find(id);
    if (found == sequences.end()) throw Error("engine: no open sequence " + std::to_string(id));
    return found->second;
  }

  // The round's batch.
  struct Batch {
    std::vector<std::int64_t> tokens, positions;
    std::vector<Stretch> stretches;
    std::vector<std::pair<Prompt*, std::int64_t>>
        finished_prompts;                                      // and the row of their last token
    std::vector<std::pair<Sequence*, std::int64_t>> sampling;  // row -1: from the prompt's end
  };

  void add_stretch(Batch& batch, KvSegment& target, const KvSegment* prefix,
                   std::span<const std::int32_t> tokens) {
    const std::int64_t start = prefix == nullptr ? 0 : prefix->length();
    const auto count = static_cast<std::int64_t>(tokens.size());
    batch.stretches.push_back(
        {&target, prefix, target.length(), static_cast<std::int64_t>(batch.tokens.size()), count});
    for (std::int64_t i = 0; i < count; ++i) {
      batch.tokens.push_back(tokens[static_cast<std::size_t>(i)]);
      batch.positions.push_back(start + target.length() + i);
    }
    target.extend(count);
  }

  // Adds what fits of the prompt that the sequence waits for.
  void add_prompt(Batch& batch, Sequence& s) {
    Prompt& prompt = *s.prompt;
    const std::int64_t room = kPrefillRows - static_cast<std::int64_t>(batch.tokens.size());
    const std::int64_t done = prompt.cache.length();
    const std::int64_t left = static_cast<std::int64_t>(prompt.tokens.size()) - done;
    const std::int64_t count = std::min(left, room);
    if (count <= 0) return;
    add_stretch(batch, prompt.cache, nullptr,
                std::span(prompt.tokens)
                    .subspan(static_cast<std::size_t>(done), static_cast<std::size_t>(count)));
    s.completion.prefill_tokens += count;
    if (count == left)
      batch.finished_prompts.emplace_back(&prompt,
                                          static_cast<std::int64_t>(batch.tokens.size()) - 1);
  }

  void add_sequence(Batch& batch, Sequence& s) {
    if (s.pending.empty()) {
      batch.sampling.emplace_back(&s, -1);
      return;
    }
    const std::int64_t room = kPrefillRows - static_cast<std::int64_t>(batch.tokens.size());
    const auto pending = static_cast<std::int64_t>(s.pending.size());
    const std::int64_t count = pending == 1 ? 1 : std::min(pending, room);
    if (count <= 0) return;
    add_stretch(batch, s.cache, &s.prompt->cache,
                std::span(s.pending).first(static_cast<std::size_t>(count)));
    if (pending > 1) s.completion.prefill_tokens += count;
    s.pending.erase(s.pending.begin(), s.pending.begin() + count);
    if (count == pending)
      batch.sampling.emplace_back(&s, static_cast<std::int64_t>(batch.tokens.size()) - 1);
  }

  Batch gather() {
    Batch batch;
    std::int64_t running = 0;
    for (auto& [id, s] : sequences) {
      if (!s.running || running == options.max_batch) continue;
      ++running;
      const bool prompt_queued =
          std::any_of(batch.finished_prompts.begin(), batch.finished_prompts.end(),
                      [&](const auto& p) { return p.first == s.prompt.get(); });
      if (s.prompt->ready()) {
        add_sequence(batch, s);
      } else if (!prompt_queued) {
        add_prompt(batch, s);
      }
    }
    return batch;
  }

  at::Tensor attend(const Batch& batch, std::int64_t layer, const at::Tensor& q,
                    const at::Tensor& k, const at::Tensor& v) const {
    at::Tensor out = at::empty_like(q);
    const std::int64_t kv_row = shape.kv_heads * shape.head_dim;
    std::vector<QueryStretch> stretches;
    for (const auto& s : batch.stretches) {
      for (std::int64_t i = 0; i < s.count; ++i)
        s.target->store(layer, s.first + i, k.const_data_ptr<float>() + (s.row + i) * kv_row,
                        v.const_data_ptr<float>() + (s.row + i) * kv_row);
      stretches.push_back(
          {s.row, s.count, s.first,
           s.prefix == nullptr ? KeyValueView{} : s.prefix->view(layer, s.prefix->length()),
           s.target->view(layer, s.first + s.count)});
    }
    attend_stretches(stretches, shape, spec.window(layer), q.const_data_ptr<float>(),
                     out.data_ptr<float>(), nullptr);
    return out;
  }

  // Computes the batch's tokens; afterwards `hidden` rows are there for sampling.
  at::Tensor compute(const Batch& batch) {
    const auto n = static_cast<std::int64_t>(batch.tokens.size());
    if (n == 0) return at::empty({0, spec.hidden_size}, at::kFloat);
    at::Tensor tokens = at::empty({n}, at::kLong), positions = at::empty({n}, at::kLong);
    std::copy(batch.tokens.begin(), batch.tokens.end(), tokens.data_ptr<std::int64_t>());
    std::copy(batch.positions.begin(), batch.positions.end(), positions.data_ptr<std::int64_t>());
    return decoder.hidden(tokens, positions,
                          [&](std::int64_t layer, const at::Tensor& q, const at::Tensor& k,
                              const at::Tensor& v) { return attend(batch, layer, q, k, v); });
  }

  void sample(const Batch& batch, const at::Tensor& hidden) {
    const auto n = static_cast<std::int64_t>(batch.sampling.size());
    if (n == 0) return;
    at::Tensor rows = at::empty({n, spec.hidden_size}, at::kFloat);
    for (std::int64_t i = 0; i < n; ++i) {
      const auto& [sequence, row] = batch.sampling[static_cast<std::size_t>(i)];
      const float* from = row < 0 ? sequence->prompt->last_hidden.data()
                                  : hidden.const_data_ptr<float>() + row * spec.hidden_size;
      std::copy_n(from, spec.hidden_size, rows.data_ptr<float>() + i * spec.hidden_size);
    }
    const at::Tensor logits = linear(rows, decoder.head());
    const std::int64_t vocabulary = logits.size(1);
    at::parallel_for(0, n, 8, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t i = begin; i < end; ++i) {
        Sequence& s = *batch.sampling[static_cast<std::size_t>(i)].first;
        const std::int64_t ids = s.options.sampled_ids > 0 ? s.options.sampled_ids : vocabulary;
        const auto token = sample_token(
            {logits.const_data_ptr<float>() + i * vocabulary, static_cast<std::size_t>(ids)},
            uniform_draw(s.seed, s.draws++));
        s.completion.tokens.push_back(token.id);
        s.completion.logprobs.push_back(token.logprob);
        s.completion.versions.push_back(static_cast<std::int32_t>(version));
        s.pending.push_back(token.id);
      }
    });
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
  Decoder decoder;
  AttentionShape shape;
  std::int64_t version = -1;
  SequenceId next_id = 1;
  std::map<SequenceId, Sequence> sequences;
  std::map<std::vector<std::int32_t>, std::weak_ptr<Prompt>> prompts;
};

Engine::Engine(const ModelSpec& spec, const EngineOptions& options)
    : impl_(std::make_unique<Impl>(spec, options)) {}
Engine::~Engine() = default;

void Engine::load(std::int64_t version, const TensorSource& weights) {
  const at::NoGradGuard no_grad;
  impl_->version = -1;
  impl_->decoder.bind(weights);
  impl_->version = version;
  impl_->prompts.clear();  // caches of the old version live on only in their open sequences
}

std::int64_t Engine::version() const { return impl_->version; }

SequenceId Engine::open(std::span<const std::int32_t> prompt, std::uint64_t seed) {
  if (prompt.empty()) throw Error("engine: a sequence needs a prompt of at least one token");
  std::vector<std::int32_t> tokens(prompt.begin(), prompt.end());
  for (const std::int32_t id : tokens) {
    if (id < 0 || id >= impl_->spec.vocab_size)
      throw input_error("engine: token id " + std::to_string(id) +
                        " is outside the vocabulary of " + std::to_string(impl_->spec.vocab_size));
  }
  auto& slot = impl_->prompts[tokens];
  std::shared_ptr<Prompt> shared = slot.lock();
  if (shared == nullptr) {
    shared =
        std::make_shared<Prompt>(Prompt{tokens, KvSegment(impl_->shape, impl_->spec.layers), {}});
    slot = shared;
  }
  const SequenceId id = impl_->next_id++;
  impl_->sequences.emplace(id, Sequence{std::move(shared),
                                        KvSegment(impl_->shape, impl_->spec.layers),
                                        {},
                                        seed,
                                        0,
                                        false,
                                        {},
                                        {}});
  return id;
}

void Engine::request_turn(SequenceId id, std::span<const std::int32_t> delta,
                          const SamplingOptions& options) {
  Sequence& s = impl_->at(id);
  if (s.running)
    throw Error("engine: sequence " + std::to_string(id) + " already has a turn running");
  s.pending.insert(s.pending.end(), delta.begin(), delta.end());
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
  const at::NoGradGuard no_grad;
  if (impl_->version < 0) throw Error("engine: no weights loaded");
  std::vector<Finished> finished =
      impl_->collect();  // turns that end without a token: no room left
  const Impl::Batch batch = impl_->gather();
  const at::Tensor hidden = impl_->compute(batch);
  for (const auto& [prompt, row] : batch.finished_prompts) {
    const float* from = hidden.const_data_ptr<float>() + row * impl_->spec.hidden_size;
    prompt->last_hidden.assign(from, from + impl_->spec.hidden_size);
  }
  impl_->sample(batch, hidden);
  for (auto& f : impl_->collect()) finished.push_back(std::move(f));
  return finished;
}

std::int64_t Engine::length(SequenceId id) const { return impl_->at(id).length(); }

}  // namespace rollcall
