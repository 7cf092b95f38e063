// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

#include <span>
#include <vector>

#include "trainer/packing.h"
#include "trainer/train_options.h"
#include "trainer/value_learner.h"

namespace rollcall {

// What a critic's values and a step's rewards come to.
struct StepValues {
  std::vector<at::Tensor> advantages;  // of each batch, [N] float32, whitened over the whole step
  ValueTargets targets;
  std::vector<double> sequence_advantages;  // of each sequence, the mean over its action tokens
  // Over the step's action tokens, of the values before the update.
  double explained_variance = 0, value_mean = 0, return_mean = 0;
};

// Generalized advantages (trainer/critic.h) over the action tokens of each sequence, with its
// reward on the last one. The policy's lambda makes the advantages, the critic's the returns;
// before the policy learns the returns are Monte Carlo's, lambda 1. Whitening takes mean and
// deviation (n - 1) of all learners' tokens; where all rewards are equal the advantages are 0.
// `values`: [N] of each batch. `batches` are packed from
// `sequences`. Pure but for the sums over learners; collective.
StepValues step_values(std::span<const PackedBatch> batches,
                       std::span<const TrainSequence> sequences, std::vector<at::Tensor> values,
                       const CriticOptions&, bool policy_learns, Communicator&);

}  // namespace rollcall
