// SPDX-License-Identifier: Apache-2.0
#include "trainer/reference_policy.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>

#include "trainer/kl.h"
#include "trainer/trained_policy.h"

namespace rollcall {

ReferencePolicy::ReferencePolicy(const std::filesystem::path& dir,
                                 const std::filesystem::path& adapter, const ModelSpec& spec,
                                 at::ScalarType dtype, std::int64_t valid_ids)
    : decoder_(spec, dtype), valid_ids_(valid_ids) {
  const at::NoGradGuard no_grad;
  decoder_.bind(stored_policy(dir, spec, adapter).weights);
}

std::vector<at::Tensor> ReferencePolicy::logprobs(std::span<const PackedBatch> batches,
                                                  const std::function<void()>& between) const {
  const at::NoGradGuard no_grad;
  std::vector<at::Tensor> result;
  for (const PackedBatch& batch : batches) {
    const at::Tensor hidden =
        decoder_.packed_hidden(batch.tokens, batch.segments, Activations::kKept, batch.rows);
    result.push_back(token_logprobs(hidden, decoder_.head(), batch.targets, valid_ids_).logprobs);
    between();
  }
  return result;
}

at::Tensor sequence_divergence(const PackedBatch& batch, const at::Tensor& reference_logprobs) {
  const at::Tensor k1 =
      kl_terms(KlKind::kK1, batch.actions.anchor_logprobs, reference_logprobs).to(at::kDouble);
  return sum_by_sequence(k1, batch.actions.sequence, batch.actions.prompt.numel());
}

}  // namespace rollcall
