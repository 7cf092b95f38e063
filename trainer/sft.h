// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <span>

#include "model/model_spec.h"
#include "model/weights.h"
#include "trainer/demonstrations.h"
#include "trainer/train_options.h"
#include "trainer/trained_policy.h"

namespace rollcall {

class Communicator;

// What supervised fine-tuning reports after a step.
struct SftProgress {
  std::int64_t step = 0;
  double loss = 0;  // mean negative log-probability per assistant token, nats
  double tokens_per_second = 0;
};

// Minimises the mean negative log-probability of the assistant tokens over shuffled epochs of the
// demonstrations: linear warm-up, then linear decay to a tenth of the learning rate. Changes
// the policy in place. The same seed gives the same bits. Collective over the communicator's
// members.
void supervised_fine_tuning(const SftOptions&, const AlgorithmOptions&, const ModelSpec&,
                            const TrainedPolicy& policy,
                            std::span<const Demonstration> demonstrations, std::int64_t valid_ids,
                            at::ScalarType dtype, Communicator&,
                            const std::function<void(const SftProgress&)>& report);

}  // namespace rollcall
