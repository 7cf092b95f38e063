// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <span>
#include <vector>

#include "model/ops.h"
#include "trainer/aggregation.h"

namespace rollcall {

class Communicator;

// One trajectory as the learner trains it. Spans have length T and must outlive the packing.
struct TrainSequence {
  std::span<const std::int32_t> tokens;
  std::span<const std::uint8_t> is_action;
  std::span<const float> behavior_logprobs;
  std::int64_t prompt_length = 0;  // leading tokens that all sequences of its prompt share; > 0
  std::int64_t prompt = 0;         // step-wide prompt number; sequences of a prompt are adjacent
  double advantage = 0;            // at each of its tokens
  double reward = 0;               // read where a critic makes the advantages
};

// Some sequences as one row of tokens: each prompt once, followed by what its members added to it.
struct PackedBatch {
  at::Tensor tokens;  // [T] int64
  std::vector<Segment> segments;
  at::Tensor rows;       // [N] int64: the row whose hidden state predicts action token n
  at::Tensor targets;    // [N] int64: the action tokens
  ActionTokens actions;  // anchors are the behavior log-probabilities
  std::vector<std::int64_t> prompts;    // step-wide number of each prompt in this batch, [P]
  std::vector<std::int64_t> sequences;  // index in the packed span of each sequence, [S]
};

// Packs into micro-batches of at most `max_tokens` rows (more only if one sequence alone is
// longer). Sequences without an action token are left out. A prompt whose members do not fit one
// micro-batch is repeated. The same input gives the same batches.
std::vector<PackedBatch> pack_sequences(std::span<const TrainSequence> sequences,
                                        std::int64_t max_tokens);

// A step's micro-batches as minibatches, one after the other.
struct Minibatches {
  std::vector<PackedBatch> batches;
  std::vector<std::size_t> ends;  // of each minibatch, in `batches`
};

// Minibatch k has the k-th of `count` equal stretches of the step's `prompts` prompts: all learners
// split alike, whichever sequences they have. The batches' `sequences` are indices into the whole
// span, which is in the order of prompts.
Minibatches pack_minibatches(std::span<const TrainSequence> sequences, std::int64_t prompts,
                             std::int64_t count, std::int64_t max_tokens);

// Denominators of the step that all learners' batches make up. A prompt's sequences must be on one
// learner. Collective.
std::vector<LossDenominators> step_denominators(std::span<const PackedBatch> batches,
                                                Communicator&);

}  // namespace rollcall
