// SPDX-License-Identifier: Apache-2.0
// Compiled once per instruction set with ROLLCALL_ISA set (CMakeLists.txt). No standard library
// templates here: an inline copy of one, compiled for AVX-512, could be linked into code that runs
// on a CPU without it.
#include "model/cpu_kernels.h"

#include <math.h>

#include "model/cpu_attention.h"
#include "model/cpu_linear.h"
#include "model/cpu_vector.h"

namespace rollcall {
namespace {

void rms_norm(const float* x, const float* weight, std::int64_t rows, std::int64_t n, float eps,
              float* y, float* rstd) {
  const std::int64_t whole = n / kLanes * kLanes;
  for (std::int64_t r = 0; r < rows; ++r, x += n, y += n) {
    Vec squares{};
    for (std::int64_t i = 0; i < whole; i += kLanes) squares += load(x + i) * load(x + i);
    const Vec tail = load_partial(x + whole, n - whole);
    squares += tail * tail;
    const float scale = 1.0f / sqrtf(horizontal_sum(squares) / static_cast<float>(n) + eps);
    for (std::int64_t i = 0; i < whole; i += kLanes)
      store(y + i, (load(x + i) * scale) * load(weight + i));
    for (std::int64_t i = whole; i < n; ++i) y[i] = (x[i] * scale) * weight[i];
    if (rstd != nullptr) rstd[r] = scale;
  }
}

void rms_norm_gradient(const float* x, const float* weight, const float* rstd, const float* dy,
                       std::int64_t rows, std::int64_t n, float* dx, float* dweight) {
  const std::int64_t whole = n / kLanes * kLanes, left = n - whole;
  for (std::int64_t r = 0; r < rows; ++r, x += n, dy += n, dx += n) {
    const float scale = rstd[r];
    Vec products = load_partial(dy + whole, left) * load_partial(weight + whole, left) *
                   (load_partial(x + whole, left) * scale);
    for (std::int64_t i = 0; i < whole; i += kLanes)
      products += load(dy + i) * load(weight + i) * (load(x + i) * scale);
    const float mean = horizontal_sum(products) / static_cast<float>(n);
    for (std::int64_t i = 0; i < whole; i += kLanes) {
      const Vec d = load(dy + i), normed = load(x + i) * scale;
      store(dx + i, (d * load(weight + i) - normed * mean) * scale);
      store(dweight + i, load(dweight + i) + d * normed);
    }
    for (std::int64_t i = whole; i < n; ++i) {
      const float normed = x[i] * scale;
      dx[i] = (dy[i] * weight[i] - normed * mean) * scale;
      dweight[i] += dy[i] * normed;
    }
  }
}

void rope(float* x, std::int64_t rows, std::int64_t heads, std::int64_t head_dim,
          const float* cosine, const float* sine) {
  const std::int64_t half = head_dim / 2;
  for (std::int64_t r = 0; r < rows; ++r, cosine += half, sine += half) {
    for (std::int64_t h = 0; h < heads; ++h, x += head_dim) {
      for (std::int64_t i = 0; i < half; ++i) {
        const float a = x[i], b = x[i + half];
        x[i] = a * cosine[i] - b * sine[i];
        x[i + half] = b * cosine[i] + a * sine[i];
      }
    }
  }
}

inline Vec silu(Vec x) { return x / (1.0f + exp(-x)); }

void silu_mul(const float* gate, const float* up, std::int64_t n, float* y) {
  const std::int64_t whole = n / kLanes * kLanes;
  for (std::int64_t i = 0; i < whole; i += kLanes)
    store(y + i, silu(load(gate + i)) * load(up + i));
  const std::int64_t left = n - whole;
  store_partial(y + whole, silu(load_partial(gate + whole, left)) * load_partial(up + whole, left),
                left);
}

struct SiluMulGradient {
  Vec gate, up;
};

inline SiluMulGradient gradient_of(Vec gate, Vec up, Vec dy) {
  const Vec s = 1.0f / (1.0f + exp(-gate)), d = dy * s;
  return {d * up * (1.0f + gate * (1.0f - s)), d * gate};
}

void silu_mul_gradient(const float* gate, const float* up, const float* dy, std::int64_t n,
                       float* dgate, float* dup) {
  const std::int64_t whole = n / kLanes * kLanes, left = n - whole;
  for (std::int64_t i = 0; i < whole; i += kLanes) {
    const SiluMulGradient d = gradient_of(load(gate + i), load(up + i), load(dy + i));
    store(dgate + i, d.gate);
    store(dup + i, d.up);
  }
  const SiluMulGradient d =
      gradient_of(load_partial(gate + whole, left), load_partial(up + whole, left),
                  load_partial(dy + whole, left));
  store_partial(dgate + whole, d.gate, left);
  store_partial(dup + whole, d.up, left);
}

// Calls each(i, e, count) with e = exp(logits[i..] - highest) of `count` lanes.
template <class Each>
inline float logsumexp_of(const float* logits, std::int64_t n, const Each& each) {
  const std::int64_t whole = n / kLanes * kLanes;
  Vec highest = splat(kMinusInfinity);
  for (std::int64_t i = 0; i < whole; i += kLanes) highest = max(highest, load(logits + i));
  float top = horizontal_max(highest);
  for (std::int64_t i = whole; i < n; ++i) top = logits[i] > top ? logits[i] : top;
  Vec total{};
  for (std::int64_t i = 0; i < whole; i += kLanes) {
    const Vec e = exp(load(logits + i) - top);
    each(i, e, kLanes);
    total += e;
  }
  const Vec tail = exp(load_partial(logits + whole, n - whole) - top);
  each(whole, tail, n - whole);
  total += select(lanes_between(0, n - whole), tail, Vec{});
  return top + logf(horizontal_sum(total));
}

float logsumexp(const float* logits, std::int64_t n) {
  return logsumexp_of(logits, n, [](std::int64_t, Vec, std::int64_t) {});
}

// exp() ends at e^-87, also for minus infinity: what cannot be drawn is to be 0.
float exponentials(const float* logits, std::int64_t n, float* e) {
  const Vec least = splat(2e-38f);
  return logsumexp_of(logits, n, [&](std::int64_t i, Vec values, std::int64_t count) {
    const Vec possible = select(values > least, values, Vec{});
    if (count == kLanes) return store(e + i, possible);
    store_partial(e + i, possible, count);
  });
}

void softmax(const float* logits, std::int64_t n, float lse, float* p) {
  const std::int64_t whole = n / kLanes * kLanes;
  for (std::int64_t i = 0; i < whole; i += kLanes) store(p + i, exp(load(logits + i) - lse));
  store_partial(p + whole, exp(load_partial(logits + whole, n - whole) - lse), n - whole);
}

}  // namespace

#define ROLLCALL_JOIN_(a, b) a##b
#define ROLLCALL_JOIN(a, b) ROLLCALL_JOIN_(a, b)
#define ROLLCALL_TEXT_(a) #a
#define ROLLCALL_TEXT(a) ROLLCALL_TEXT_(a)

extern const CpuKernels ROLLCALL_JOIN(kKernels_, ROLLCALL_ISA);
const CpuKernels ROLLCALL_JOIN(kKernels_, ROLLCALL_ISA) = {ROLLCALL_TEXT(ROLLCALL_ISA),
                                                           linear<float>,
                                                           linear_bfloat16,
                                                           outer<float>,
                                                           outer_bfloat16,
                                                           pack_columns<float>,
                                                           pack_columns<BFloat16Pair>,
                                                           pack_pair_columns,
                                                           round_inputs,
                                                           rms_norm,
                                                           rms_norm_gradient,
                                                           rope,
                                                           silu_mul,
                                                           silu_mul_gradient,
                                                           attend<float>,
                                                           attend<BFloat16Pair>,
                                                           attention_gradient,
                                                           logsumexp,
                                                           exponentials,
                                                           softmax};

}  // namespace rollcall
