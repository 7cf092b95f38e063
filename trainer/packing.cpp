// SPDX-License-Identifier: Apache-2.0
#include "trainer/packing.h"

#include <ATen/ops/tensor.h>

#include <algorithm>
#include <map>

#include "comms/communicator.h"
#include "comms/error.h"

namespace rollcall {
namespace {

std::int64_t action_count(const TrainSequence& s) {
  return std::count(s.is_action.begin(), s.is_action.end(), std::uint8_t{1});
}

// Tokens behind the prompt that predict something: all up to the last action token, itself
// excluded.
std::int64_t own_length(const TrainSequence& s) {
  for (auto i = static_cast<std::int64_t>(s.is_action.size()) - 1; i >= s.prompt_length; --i)
    if (s.is_action[static_cast<std::size_t>(i)] != 0) return i - s.prompt_length;
  return 0;
}

class Packer {
 public:
  explicit Packer(std::int64_t max_tokens) : max_tokens_(max_tokens) {}

  void add(const TrainSequence& s, std::int64_t index) {
    check(s);
    const std::int64_t own = own_length(s);
    const bool new_prompt = prompts_.empty() || prompts_.back() != s.prompt;
    if (!tokens_.empty() && rows() + own + (new_prompt ? s.prompt_length : 0) > max_tokens_)
      flush();
    if (prompts_.empty() || prompts_.back() != s.prompt) add_prompt(s);
    add_own(s, own, index);
  }

  std::vector<PackedBatch> finish() {
    if (!tokens_.empty()) flush();
    return std::move(batches_);
  }

 private:
  std::int64_t rows() const { return static_cast<std::int64_t>(tokens_.size()); }

  static void check(const TrainSequence& s) {
    if (s.prompt_length <= 0 || s.prompt_length >= static_cast<std::int64_t>(s.tokens.size()) ||
        s.is_action.size() != s.tokens.size() || s.behavior_logprobs.size() != s.tokens.size())
      throw Error("packing: a trajectory's arrays and prompt length do not fit each other");
  }

  void add_prompt(const TrainSequence& s) {
    prompt_segment_ = static_cast<std::int64_t>(segments_.size());
    segments_.push_back({rows(), s.prompt_length, -1});
    tokens_.insert(tokens_.end(), s.tokens.begin(), s.tokens.begin() + s.prompt_length);
    prompts_.push_back(s.prompt);
  }

  void add_own(const TrainSequence& s, std::int64_t own, std::int64_t index) {
    const Segment& prompt = segments_[static_cast<std::size_t>(prompt_segment_)];
    const std::int64_t prompt_end = prompt.begin + prompt.length - 1, begin = rows();
    segments_.push_back({begin, own, prompt_segment_});
    const auto first = s.tokens.begin() + s.prompt_length;
    tokens_.insert(tokens_.end(), first, first + own);
    for (std::int64_t j = 0; j <= own; ++j) {
      const auto at = static_cast<std::size_t>(s.prompt_length + j);
      if (s.is_action[at] == 0) continue;
      predicting_.push_back(j == 0 ? prompt_end : begin + j - 1);
      targets_.push_back(s.tokens[at]);
      anchors_.push_back(s.behavior_logprobs[at]);
      advantages_.push_back(static_cast<float>(s.advantage));
      sequence_of_.push_back(static_cast<std::int64_t>(sequences_.size()));
    }
    sequences_.push_back(index);
    prompt_of_.push_back(static_cast<std::int64_t>(prompts_.size()) - 1);
  }

  void flush() {
    batches_.push_back({at::tensor(tokens_),
                        std::move(segments_),
                        at::tensor(predicting_),
                        at::tensor(targets_),
                        {at::tensor(anchors_), at::tensor(advantages_), at::tensor(sequence_of_),
                         at::tensor(prompt_of_)},
                        std::move(prompts_),
                        std::move(sequences_)});
    tokens_.clear(), segments_.clear(), predicting_.clear(), targets_.clear(), anchors_.clear();
    advantages_.clear(), sequence_of_.clear(), prompt_of_.clear(), prompts_.clear(),
        sequences_.clear();
  }

  std::int64_t max_tokens_, prompt_segment_ = -1;
  std::vector<std::int64_t> tokens_, predicting_, targets_, sequence_of_, prompt_of_, prompts_,
      sequences_;
  std::vector<float> anchors_, advantages_;
  std::vector<Segment> segments_;
  std::vector<PackedBatch> batches_;
};

}  // namespace

std::vector<PackedBatch> pack_sequences(std::span<const TrainSequence> sequences,
                                        std::int64_t max_tokens) {
  Packer packer(max_tokens);
  for (std::size_t i = 0; i < sequences.size(); ++i)
    if (action_count(sequences[i]) > 0) packer.add(sequences[i], static_cast<std::int64_t>(i));
  return packer.finish();
}

Minibatches pack_minibatches(std::span<const TrainSequence> sequences, std::int64_t prompts,
                             std::int64_t count, std::int64_t max_tokens) {
  Minibatches result;
  std::size_t begin = 0;
  for (std::int64_t k = 0; k < count; ++k) {
    std::size_t end = begin;
    while (end < sequences.size() && sequences[end].prompt * count < (k + 1) * prompts) ++end;
    for (PackedBatch& batch : pack_sequences(sequences.subspan(begin, end - begin), max_tokens)) {
      for (std::int64_t& index : batch.sequences) index += static_cast<std::int64_t>(begin);
      result.batches.push_back(std::move(batch));
    }
    result.ends.push_back(result.batches.size());
    begin = end;
  }
  return result;
}

std::vector<LossDenominators> step_denominators(std::span<const PackedBatch> batches,
                                                Communicator& communicator) {
  std::vector<LossDenominators> result;
  std::map<std::int64_t, double> tokens_of_prompt;  // a prompt may be in several batches
  double tokens = 0, sequences = 0;
  for (const auto& batch : batches) {
    const auto& counts = result.emplace_back(count_tokens(batch.actions));
    tokens += counts.tokens;
    sequences += counts.sequences;
    for (std::size_t p = 0; p < counts.tokens_of_prompt.size(); ++p)
      tokens_of_prompt[batch.prompts[p]] += counts.tokens_of_prompt[p];
  }
  const auto prompts = std::count_if(tokens_of_prompt.begin(), tokens_of_prompt.end(),
                                     [](const auto& prompt) { return prompt.second > 0; });
  double totals[] = {tokens, sequences, static_cast<double>(prompts)};
  communicator.all_sum_host(totals);
  for (std::size_t i = 0; i < batches.size(); ++i) {
    result[i].tokens = totals[0], result[i].sequences = totals[1], result[i].prompts = totals[2];
    for (std::size_t p = 0; p < batches[i].prompts.size(); ++p)
      result[i].tokens_of_prompt[p] = tokens_of_prompt.at(batches[i].prompts[p]);
  }
  return result;
}

}  // namespace rollcall
