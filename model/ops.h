// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

namespace rollcall {

// The operators of the decoder, with gradients. float32 tensors on the CPU go through the kernels
// of cpu_kernels.h, forward bits independent of batching; anything else (CUDA, float64) through
// ATen, which is also the reference that the kernels are tested against.

// A linear layer's parameters. `packed` belongs to `weight`'s present values: pack() again after a
// change.
struct LinearWeight {
  at::Tensor weight;  // [out, in]
  at::Tensor bias;    // [out], or undefined
  at::Tensor packed;  // [panels, in, 32] on CPU float32, else undefined
};
void pack(LinearWeight&);

at::Tensor linear(const at::Tensor& x, const LinearWeight&);  // [T, in] -> [T, out]

// x / sqrt(mean(x^2) + eps) * weight over the last dimension.
at::Tensor rms_norm(const at::Tensor& x, const at::Tensor& weight, double eps);

// Rotate-half rotary embedding: x [T, heads, d], cosine and sine [T, d/2].
at::Tensor rope(const at::Tensor& x, const at::Tensor& cosine, const at::Tensor& sine);

at::Tensor silu_mul(const at::Tensor& gate, const at::Tensor& up);  // silu(gate) * up

// Consecutive rows of a packed tensor that are one stretch of one sequence. Its rows attend to all
// of segment `prefix` (a group's prompt, computed once for all members) and causally to the segment
// itself.
struct Segment {
  std::int64_t begin = 0;
  std::int64_t length = 0;
  std::int64_t prefix =
      -1;  // index of another, earlier segment without a prefix of its own; -1: none
};

// Attention inside a packed row: q [T, heads, d], k and v [T, kv_heads, d] -> [T, heads, d]. With a
// `window`, a query sees only the last so many positions of its sequence, its own included; 0: all.
at::Tensor packed_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                            const std::vector<Segment>& segments, double scale,
                            std::int64_t window = 0);

struct TokenLogprobs {
  at::Tensor logprobs;  // [N] nats, differentiable
  at::Tensor entropy;   // [N] nats, no gradient
};

// log softmax(hidden @ head^T)[target] over the first `valid_ids` ids. The [N, vocabulary] logits
// exist one chunk of rows at a time, in forward and in backward.
TokenLogprobs token_logprobs(const at::Tensor& hidden, const LinearWeight& head,
                             const at::Tensor& targets, std::int64_t valid_ids);

}  // namespace rollcall
