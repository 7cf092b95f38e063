// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

#include <array>
#include <cstdint>
#include <vector>

namespace rollcall {

// The operators of the decoder, with gradients. float32 tensors on the CPU go through the kernels
// of cpu_kernels.h, forward bits independent of batching; anything else (CUDA, float64) through
// ATen, which is also the reference that the kernels are tested against.

// An adapter on a linear layer whose weight holds W + scaling * B @ A already: what the backward
// pass gives gradients to.
struct LoraLeaves {
  at::Tensor a;  // [rank, in]; undefined: no adapter
  at::Tensor b;  // [out, rank]
  double scaling = 1;
};

// A linear layer's parameters: a weight that is trained or that kernels cannot compute with, or
// panels of one that is neither, which may have an adapter merged in.
struct LinearWeight {
  at::Tensor weight = {};  // [out, in]; undefined where there are panels
  at::Tensor bias = {};    // [out], or undefined
  // [panels, in, 32] float32, or bfloat16 in the kernels' order, `in` then even. Undefined where
  // there is a weight: each pass makes them for itself and drops them, which takes a few hundredths
  // of its time and spares a copy of the model. So both passes read the weight where it lies, and
  // it must not change in between.
  at::Tensor packed = {};
  std::int64_t in = 0;
  std::int64_t out = 0;               // what the last panel has beyond them is padding
  at::ScalarType dtype = at::kFloat;  // of the panels: what the kernels compute with
  LoraLeaves lora = {};
  bool owns_panels = false;  // pack() made them, and may write to their memory again
};
// Keeps `values` [out, in] as the weight if they require gradients (then float32 or float64) or
// cannot be packed (CUDA, float64). Packs others, of any float type, as panels of `dtype` (float32
// or bfloat16, rounded to nearest even), into the memory of the panels that it made before if it
// did: not between a forward pass and its backward pass, which reads the panels again.
void pack(LinearWeight&, const at::Tensor& values, at::ScalarType dtype = at::kFloat);
// Computes from panels that somebody else packed, where they lie. They must stay
// as they are for as long, and are never written to.
void use_panels(LinearWeight&, const at::Tensor& panels, std::int64_t in, std::int64_t out);

// Panels by themselves: sizes of LinearWeight::packed; packs values as pack() takes them, which
// must be on the CPU, into panels of any memory; and the values [out, in] that panels hold, as
// float32.
std::vector<std::int64_t> panel_sizes(std::int64_t out, std::int64_t in, at::ScalarType dtype);
void pack_into(const at::Tensor& panels, const at::Tensor& values);
at::Tensor unpacked(const at::Tensor& panels, std::int64_t in, std::int64_t out);

at::Tensor linear(const at::Tensor& x, const LinearWeight&);  // [T, in] -> [T, out]

// What linear() gives of each; their input is rounded, and kept for the backward pass, once.
std::array<at::Tensor, 2> linears(const at::Tensor& x, const LinearWeight&, const LinearWeight&);
std::array<at::Tensor, 3> linears(const at::Tensor& x, const LinearWeight&, const LinearWeight&,
                                  const LinearWeight&);

// Rows of the weight as float32: ids [T] int64, below `out` -> [T, in].
at::Tensor embedding(const at::Tensor& ids, const LinearWeight&);

// Norms, biases, keys and values of a policy of `dtype`: rounded to it and held as float32. Their
// gradients go straight through. Shares `values` if they require gradients and nothing is rounded,
// copies otherwise.
at::Tensor policy_values(const at::Tensor& values, at::ScalarType dtype);

// Rows of x [T, n], each at most once, in ascending order: ids [N] int64 -> [N, n].
at::Tensor distinct_rows(const at::Tensor& x, const at::Tensor& ids);

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

// Attention inside a packed row: k and v [T, kv_heads, d], and the queries of some of its rows,
// q [N, heads, d] of `rows` [N] int64, ascending; of all T if undefined -> [N, heads, d]. With a
// `window`, a query sees only the last so many positions of its sequence, its own included; 0: all.
at::Tensor packed_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                            const std::vector<Segment>& segments, double scale,
                            std::int64_t window = 0, const at::Tensor& rows = {});

struct TokenLogprobs {
  at::Tensor logprobs;  // [N] nats, differentiable
  at::Tensor entropy;   // [N] nats, no gradient
};

// log softmax(hidden @ head^T)[target] over the first `valid_ids` ids. The [N, vocabulary] logits
// exist one chunk of rows at a time; a trained head computes them again in the backward pass.
TokenLogprobs token_logprobs(const at::Tensor& hidden, const LinearWeight& head,
                             const at::Tensor& targets, std::int64_t valid_ids);

}  // namespace rollcall
