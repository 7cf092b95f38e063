// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

namespace rollcall {

// Two bfloat16 values, the first in the low half; of the inputs of a row or of an output's weights
// two consecutive ones, which VDPBF16PS multiplies at once. Behind an odd number of inputs comes a
// zero.
using BFloat16Pair = std::uint32_t;

// Products read their operands by steps: one float32 input, or two in bfloat16.
template <class Element>
inline constexpr std::int64_t kInputsAStep = 1;
template <>
inline constexpr std::int64_t kInputsAStep<BFloat16Pair> = 2;
template <class Element>
constexpr std::int64_t panel_steps(std::int64_t in) {
  return (in + kInputsAStep<Element> - 1) / kInputsAStep<Element>;
}

// Keys and values of one stretch of consecutive positions, one layer, in float32 or bfloat16
// (Element as of products). Keys are blocked by 16 positions so that a score needs no horizontal
// sum: keys [ceil(length/16)][kv_heads][head_dim][16], of pairs [head_dim/2][16], each of two
// consecutive dimensions of a position. values [length][kv_heads][head_dim], a head padded with
// zeros to whole sixteens; of pairs to thirty-twos, of which each has dimensions i and i + 16.
// Positions before `first` are hidden, by a sliding window.
template <class Element>
struct KeyValueView {
  const Element* keys = nullptr;
  const Element* values = nullptr;
  std::int64_t length = 0;
  std::int64_t first = 0;  // at most length

  // What of it a query sees whose window leaves out the first `hidden` positions.
  KeyValueView behind(std::int64_t hidden) const {
    return {keys, values, length, hidden < 0 ? 0 : hidden > length ? length : hidden};
  }
};

// Where the window of the query at `position` begins: it sees keys from there on. window 0: at 0.
constexpr std::int64_t window_start(std::int64_t position, std::int64_t window) {
  return window == 0 || position < window ? 0 : position - window + 1;
}

// One query row: all its heads attend to `prefix` and then to `own`, in this order; at least one
// position is not hidden.
template <class Element>
struct AttentionRow {
  const float* query = nullptr;  // [heads, head_dim]
  float* out = nullptr;          // [heads, head_dim]; may be the query
  float* lse = nullptr;          // [heads] log-sum-exp of the scaled scores; may be null
  KeyValueView<Element> prefix, own;
};

// One query row in the backward pass against one stretch of keys. Row-major arrays have rows of
// kv_heads * head_dim floats; `keys` and `values` are both blocked like KeyValueView<float>::keys.
struct AttentionGradientRow {
  const float* query = nullptr;  // [heads, head_dim]
  const float* dout = nullptr;   // [heads, head_dim], gradient of the row's output
  const float* lse = nullptr;    // [heads]
  const float* out = nullptr;    // [heads, head_dim], the row's output
  float* dquery = nullptr;       // [heads, head_dim], added to
  const float* keys = nullptr;
  const float* values = nullptr;
  const float* key_rows = nullptr;
  float* dkey_rows = nullptr;          // added to
  float* dvalue_rows = nullptr;        // added to
  std::int64_t length = 0, first = 0;  // the row sees positions [first, length)
};

// The row whose query comes behind all of `own`, but for what a window hides; 0: none.
template <class Element>
AttentionRow<Element> attention_row(const float* query, float* out, float* lse,
                                    const KeyValueView<Element>& prefix,
                                    const KeyValueView<Element>& own, std::int64_t window) {
  const std::int64_t start = window_start(prefix.length + own.length - 1, window);
  return {query, out, lse, prefix.behind(start), own.behind(start - prefix.length)};
}

struct AttentionShape {
  std::int64_t heads = 0, kv_heads = 0, head_dim = 0;
  float scale = 1;

  // Elements of a block of keys, of a position's values, and of one head of these.
  template <class Element>
  constexpr std::int64_t key_block() const {
    return kv_heads * head_dim / kInputsAStep<Element> * 16;
  }
  template <class Element>
  constexpr std::int64_t value_row() const {
    return kv_heads * value_head<Element>();
  }
  template <class Element>
  constexpr std::int64_t value_head() const {
    constexpr std::int64_t kDims = 16 * kInputsAStep<Element>;
    return (head_dim + kDims - 1) / kDims * 16;
  }
};

inline constexpr std::int64_t kKeyBlock = 16;  // positions in a block of keys
constexpr std::int64_t key_blocks(std::int64_t positions) {
  return (positions + kKeyBlock - 1) / kKeyBlock;
}

// Rows whose scores the attention kernels hold at once.
inline constexpr int kMostTeamRows = 4;
// Floats of scratch for them, where prefix and own of a row take so many blocks together at most.
constexpr std::int64_t attention_scratch(const AttentionShape& shape, std::int64_t blocks) {
  return kMostTeamRows * (shape.heads / shape.kv_heads) * blocks * kKeyBlock;
}

inline constexpr std::int64_t kPanelWidth = 32;  // output columns in a panel of packed weights
// Rows that a product takes at a time, so that their inputs stay in the second cache level.
inline constexpr std::int64_t kProductRows = 192;

// y[r, o] = bias[o] + sum over k of x[r, k] * w[o, k], in blocks of 64 inputs that are summed by
// themselves and added up in order of k.
template <class Element>
struct LinearCall {
  const Element* x = nullptr;  // a row has the steps of its `in` inputs and begins every `ldx`
  std::int64_t ldx = 0, rows = 0;
  const Element* packed = nullptr;  // as pack_weights() makes it
  std::int64_t in = 0, out = 0;
  const float* bias = nullptr;  // null: none
  float* y = nullptr;
  std::int64_t ldy = 0;
  bool add = false;  // to what y holds
};

// y[r, c] += sum over t of a[t, r] * b[t, c], summed like a linear layer's: of a batch of rows t
// the gradient of a weight, where `a` holds gradients of outputs and `b` inputs, by pack_columns()
// or of pairs.
template <class Element>
struct OuterCall {
  const Element* a = nullptr;  // one panel, kPanelWidth elements may be read behind it
  const Element* b = nullptr;  // all panels of `columns`
  std::int64_t terms = 0, rows = 0, columns = 0;  // rows: at most kPanelWidth
  float* y = nullptr;
  std::int64_t ldy = 0;
};

// The kernels of one instruction set. Every output row depends on its own input row alone, with
// a fixed order of additions: results do not change with the number of rows, their place, or how
// rows are spread over calls and threads. That is what makes sampling batch-invariant, and the
// learner's forward bit-equal to the sampler's. avx2, avx512 and avx512bf16 give the same bits, for
// all round a product and its sum once; generic does not. Single-threaded; callers split rows or
// panels.
struct CpuKernels {
  const char* isa;

  void (*linear)(const LinearCall<float>&);
  // bfloat16 inputs and weights; their products and sums are float32, in each step the second
  // input's first. What is below 2^-126 is zero.
  void (*linear_bfloat16)(const LinearCall<BFloat16Pair>&);
  void (*outer)(const OuterCall<float>&);
  void (*outer_bfloat16)(const OuterCall<BFloat16Pair>&);

  // x [terms, columns], row after row of `ldx` floats, as panels
  // [panel_count(columns)][panel_steps(terms)][32], padding zero: those of the transpose. bfloat16
  // is rounded to nearest even.
  void (*pack_columns)(const float* x, std::int64_t ldx, std::int64_t terms, std::int64_t columns,
                       float* packed);
  void (*pack_columns_bfloat16)(const float* x, std::int64_t ldx, std::int64_t terms,
                                std::int64_t columns, BFloat16Pair* packed);
  // The same of rows that round_inputs() made, which begin every `ldx` pairs.
  void (*pack_pair_columns)(const BFloat16Pair* x, std::int64_t ldx, std::int64_t terms,
                            std::int64_t columns, BFloat16Pair* packed);

  // x [n] to nearest even, as panel_steps(n) pairs.
  void (*round_inputs)(const float* x, std::int64_t n, BFloat16Pair* pairs);

  // y = x / sqrt(mean(x^2) + eps) * weight per row of n; rstd [rows] may be null.
  void (*rms_norm)(const float* x, const float* weight, std::int64_t rows, std::int64_t n,
                   float eps, float* y, float* rstd);

  // Its gradients: with u = x * rstd and g = dy * weight, dx = rstd * (g - u * mean(g * u)) per
  // row, and dy * u summed over the rows is added to dweight [n].
  void (*rms_norm_gradient)(const float* x, const float* weight, const float* rstd, const float* dy,
                            std::int64_t rows, std::int64_t n, float* dx, float* dweight);

  // Rotates pairs (i, i + d/2) of each head in place; cosine, sine [rows, d/2].
  void (*rope)(float* x, std::int64_t rows, std::int64_t heads, std::int64_t head_dim,
               const float* cosine, const float* sine);

  // y = silu(gate) * up.
  void (*silu_mul)(const float* gate, const float* up, std::int64_t n, float* y);

  // Its gradients, with s = sigmoid(gate): dgate = dy * up * s * (1 + gate * (1 - s)),
  // dup = dy * gate * s.
  void (*silu_mul_gradient)(const float* gate, const float* up, const float* dy, std::int64_t n,
                            float* dgate, float* dup);

  // Softmax attention of `count` rows for the heads [first_head, last_head); rows that see the same
  // keys are faster one after another, heads that share a kv head together. `scratch` is
  // attention_scratch() of the most blocks of a row.
  void (*attention)(const AttentionRow<float>* rows, std::int64_t count,
                    const AttentionShape& shape, std::int64_t first_head, std::int64_t last_head,
                    float* scratch);
  // The same bits as of keys and values widened to float32.
  void (*attention_bfloat16)(const AttentionRow<BFloat16Pair>* rows, std::int64_t count,
                             const AttentionShape& shape, std::int64_t first_head,
                             std::int64_t last_head, float* scratch);

  // Gradients of `count` rows for the heads that share `kv_head` (FlashAttention-2, backward pass):
  // P = exp(S - lse), dV += P^T dO, dS = P * dO (V - O)^T, dQ += dS K, dK += dS^T Q. V - O is
  // taken before the sum: where one key has all the probability, dO V^T - dO O^T would be nothing
  // but rounding errors. Rows of the same stretch are faster one after another. `scratch` holds
  // 2 * kMostTeamRows * 16 * blocks of the longest stretch floats.
  void (*attention_gradient)(const AttentionGradientRow* rows, std::int64_t count,
                             std::int64_t kv_head, const AttentionShape& shape, float* scratch);

  // Log-sum-exp of logits[0, n).
  float (*logsumexp)(const float* logits, std::int64_t n);

  // The same, and e[i] = exp(logits[i] - their maximum), 0 below e^-87.
  float (*exponentials)(const float* logits, std::int64_t n, float* e);

  // p[i] = exp(logits[i] - lse).
  void (*softmax)(const float* logits, std::int64_t n, float lse, float* p);
};

// The kernels of the instruction sets that are fastest on this CPU, which the first call measures,
// for float32 and for bfloat16; or of the one that the environment's ROLLCALL_KERNELS names; throws
// Error if the CPU lacks that.
const CpuKernels& cpu_kernels();
// Those of "avx512bf16", "avx512", "avx2" or "generic"; null if this CPU lacks the instructions.
const CpuKernels* cpu_kernels(const char* isa);

// Makes the bits of libtorch's matrix products the same for any number of threads; to be called
// before the first of them.
void fix_order_of_sums();

inline std::int64_t panel_count(std::int64_t out) { return (out + kPanelWidth - 1) / kPanelWidth; }

// w [out, in] row-major -> packed [panel_count(out)][panel_steps(in)][32], padding zero; bfloat16
// is rounded to nearest even.
void pack_weights(const float* w, std::int64_t out, std::int64_t in, float* packed);
void pack_weights(const float* w, std::int64_t out, std::int64_t in, BFloat16Pair* packed);

// The inverse, for outputs [first, last) of the weight: w [last - first, in].
void unpack_weights(const float* packed, std::int64_t in, std::int64_t first, std::int64_t last,
                    float* w);
void unpack_weights(const BFloat16Pair* packed, std::int64_t in, std::int64_t first,
                    std::int64_t last, float* w);

// Of the weight in `packed`, with outputs [first, last), which begin and end panels or are its
// last, the panels of the transpose for inputs [32 * panel, ...): [panel_steps(last - first)][32].
void transpose_panel(const float* packed, std::int64_t in, std::int64_t first, std::int64_t last,
                     std::int64_t panel, float* transposed);
void transpose_panel(const BFloat16Pair* packed, std::int64_t in, std::int64_t first,
                     std::int64_t last, std::int64_t panel, BFloat16Pair* transposed);

// Writes one position's key [kv_heads, head_dim] as KeyValueView has it.
void store_key(const AttentionShape&, std::int64_t position, const float* key, float* keys);

// The same of its key and value; pairs are rounded to nearest even, and take an even head_dim.
void store_key_value(const AttentionShape&, std::int64_t position, const float* key,
                     const float* value, float* keys, float* values);
void store_key_value(const AttentionShape&, std::int64_t position, const float* key,
                     const float* value, BFloat16Pair* keys, BFloat16Pair* values);

}  // namespace rollcall
