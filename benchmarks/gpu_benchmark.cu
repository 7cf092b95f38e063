// SPDX-License-Identifier: Apache-2.0
// A decoder with random weights on one GPU, beside the roofs of that GPU: JSON lines. With
// `selftest` instead a short story of tokens and log-probabilities, which the same program says on
// the emulated grid of tests/cuda (device.sh compares the two).
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <string>
#include <vector>

#include "model/cuda/gpu_decoder.h"
#include "model/cuda/number.h"

namespace {

using namespace rollcall::cuda;
using Clock = std::chrono::steady_clock;

struct Shape {
  const char* name;
  std::int64_t hidden, intermediate, layers, heads, kv_heads, head_dim, vocabulary;

  double matrix_parameters() const {  // that a token is multiplied with
    const double attention = static_cast<double>(hidden * head_dim * 2 * (heads + kv_heads));
    return static_cast<double>(layers) * (attention + 3.0 * hidden * intermediate) +
           static_cast<double>(hidden * vocabulary);
  }
};

constexpr Shape kShapes[] = {{"135M", 576, 1536, 30, 9, 3, 64, 49152},
                             {"1.7B", 2048, 8192, 24, 32, 32, 64, 49152},
                             {"8B", 4096, 14336, 32, 32, 8, 128, 128256}};
constexpr Shape kSelftest = {"selftest", 64, 96, 2, 6, 2, 32, 300};

// Numbers that every machine makes alike.
class Numbers {
 public:
  float next() {  // about normal
    float sum = 0;
    for (int i = 0; i < 4; ++i) {
      state_ = state_ * 6364136223846793005ull + 1442695040888963407ull;
      sum += static_cast<float>(state_ >> 40) / 16777216.0f - 0.5f;
    }
    return sum * 1.7f;
  }

 private:
  std::uint64_t state_ = 88172645463325252ull;
};

class Model {
 public:
  Model(const Shape& shape, Device& device, bool bfloat16, std::int64_t max_context,
        std::int64_t max_rows, std::int64_t max_draws, std::int64_t cache_bytes)
      : shape_(shape), bfloat16_(bfloat16), max_context_(max_context) {
    const std::vector<std::int64_t> windows(static_cast<std::size_t>(shape.layers));
    const std::vector<std::uint8_t> rotates(static_cast<std::size_t>(shape.layers), 1);
    RollcallDecoderOptions o{};
    o.hidden = shape.hidden;
    o.intermediate = shape.intermediate;
    o.layers = shape.layers;
    o.heads = shape.heads;
    o.kv_heads = shape.kv_heads;
    o.head_dim = shape.head_dim;
    o.vocabulary = shape.vocabulary;
    o.rms_norm_eps = 1e-6f;
    o.attention_scale = 1.0f / std::sqrt(static_cast<float>(shape.head_dim));
    o.bfloat16 = bfloat16 ? 1 : 0;
    o.tied = 1;
    o.windows = windows.data();
    o.rotates = rotates.data();
    o.max_context = max_context;
    o.max_rows = max_rows;
    o.max_draws = max_draws;
    o.cache_bytes = cache_bytes;
    decoder_ = make_gpu_decoder(o, device);
    fill();
  }

  GpuDecoder& decoder() { return *decoder_; }

  struct Drawn {
    std::vector<std::int32_t> ids;
    std::vector<float> logprobs;
  };
  // Each cache gets the next `count` of its tokens; behind the last of them one is drawn.
  Drawn step(const std::vector<std::int64_t>& caches, std::int64_t count,
             const std::vector<std::int32_t>& tokens, float uniform) {
    std::vector<RollcallStretch> stretches;
    std::vector<std::int32_t> rows, valid;
    std::vector<std::int64_t> kept(caches.size());
    for (std::size_t i = 0; i < caches.size(); ++i) {
      stretches.push_back({caches[i], -1, static_cast<std::int64_t>(i) * count, count});
      rows.push_back(static_cast<std::int32_t>((i + 1) * count - 1));
      valid.push_back(static_cast<std::int32_t>(shape_.vocabulary));
    }
    const std::vector<float> uniforms(caches.size(), uniform);
    RollcallBatch batch{};
    batch.rows = static_cast<std::int64_t>(tokens.size());
    batch.tokens = tokens.data();
    batch.stretches = static_cast<std::int64_t>(stretches.size());
    batch.stretch = stretches.data();
    batch.draws = static_cast<std::int64_t>(caches.size());
    batch.draw_rows = rows.data();
    batch.draw_caches = kept.data();
    batch.valid_ids = valid.data();
    batch.uniforms = uniforms.data();
    Drawn drawn{std::vector<std::int32_t>(caches.size()), std::vector<float>(caches.size())};
    decoder_->step(batch, drawn.ids.data(), drawn.logprobs.data());
    return drawn;
  }

 private:
  void set(RollcallParameterKind kind, std::int64_t layer, std::int64_t rows, std::int64_t columns,
           bool matrix, float scale, float shift) {
    const auto count = static_cast<std::size_t>(rows * columns);
    std::vector<float> floats(matrix && bfloat16_ ? 0 : count);
    std::vector<BFloat16> halves(matrix && bfloat16_ ? count : 0);
    // Large matrices repeat a stretch of numbers: making each anew would take minutes.
    constexpr std::size_t kFresh = 1 << 20;
    std::vector<float> fresh(std::min(count, kFresh));
    for (float& x : fresh) x = shift + scale * numbers_.next();
    for (std::size_t i = 0; i < count; ++i) {
      const float x = fresh[i % fresh.size()];
      if (halves.empty())
        floats[i] = x;
      else
        halves[i] = from_float<BFloat16>(x);
    }
    const void* values = halves.empty() ? static_cast<void*>(floats.data()) : halves.data();
    decoder_->set({kind, layer, 0, rows, values});
  }

  void fill() {
    const Shape& s = shape_;
    const float hidden = 1.0f / std::sqrt(static_cast<float>(s.hidden));
    const float inner = 1.0f / std::sqrt(static_cast<float>(s.intermediate));
    set(kRollcallEmbedding, 0, s.vocabulary, s.hidden, true, 3 * hidden, 0);
    if (bfloat16_) set(kRollcallHead, 0, s.vocabulary, s.hidden, false, 3 * hidden, 0);
    set(kRollcallFinalNorm, 0, s.hidden, 1, false, 0.1f, 1);
    std::vector<float> cosine, sine;
    for (std::int64_t p = 0; p < max_context_; ++p)
      for (std::int64_t i = 0; i < s.head_dim / 2; ++i) {
        const double angle =
            static_cast<double>(p) *
            std::pow(10000.0, -2.0 * static_cast<double>(i) / static_cast<double>(s.head_dim));
        cosine.push_back(static_cast<float>(std::cos(angle)));
        sine.push_back(static_cast<float>(std::sin(angle)));
      }
    decoder_->set({kRollcallCosine, 0, 0, max_context_, cosine.data()});
    decoder_->set({kRollcallSine, 0, 0, max_context_, sine.data()});
    for (std::int64_t layer = 0; layer < s.layers; ++layer) {
      set(kRollcallInputNorm, layer, s.hidden, 1, false, 0.1f, 1);
      set(kRollcallPostAttentionNorm, layer, s.hidden, 1, false, 0.1f, 1);
      set(kRollcallQkv, layer, (s.heads + 2 * s.kv_heads) * s.head_dim, s.hidden, true, hidden, 0);
      set(kRollcallOutput, layer, s.hidden, s.heads * s.head_dim, true, hidden, 0);
      set(kRollcallGateUp, layer, 2 * s.intermediate, s.hidden, true, hidden, 0);
      set(kRollcallDown, layer, s.hidden, s.intermediate, true, inner, 0);
    }
  }

  Shape shape_;
  bool bfloat16_;
  std::int64_t max_context_;
  Numbers numbers_;
  std::unique_ptr<GpuDecoder> decoder_;
};

std::vector<std::int32_t> words(const Shape& shape, std::int64_t count, std::int64_t first) {
  std::vector<std::int32_t> tokens;
  for (std::int64_t i = 0; i < count; ++i)
    tokens.push_back(static_cast<std::int32_t>((first + 7 * i) % shape.vocabulary));
  return tokens;
}

void selftest() {
  Device device(0);
  for (const bool bfloat16 : {false, true}) {
    Model model(kSelftest, device, bfloat16, 160, 200, 8, 4 << 20);
    std::vector<std::int64_t> caches;
    for (int i = 0; i < 3; ++i) caches.push_back(model.decoder().open_cache());
    std::vector<std::int32_t> tokens;
    for (int i = 0; i < 3; ++i)
      for (const std::int32_t token : words(kSelftest, 50, 11 * i)) tokens.push_back(token);
    model.step(caches, 50, tokens, 0.5f);
    for (int step = 0; step < 12; ++step) {
      // The tokens are given, so that one that is drawn otherwise changes nothing behind it.
      const auto drawn = model.step(caches, 1, words(kSelftest, 3, 5 * step), 0.05f * step);
      for (std::size_t i = 0; i < caches.size(); ++i)
        std::printf("%d %d %zu %d %.6f\n", bfloat16 ? 16 : 32, step, i, drawn.ids[i],
                    static_cast<double>(drawn.logprobs[i]));
    }
  }
}

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

template <class Act>
double median_seconds(Device& device, int times, const Act& act) {
  std::vector<double> seconds;
  for (int i = 0; i < times; ++i) {
    device.wait();
    const auto begin = Clock::now();
    act();
    device.wait();
    seconds.push_back(std::chrono::duration<double>(Clock::now() - begin).count());
  }
  return median(seconds);
}

struct Roofs {
  double bytes_per_second, flops;
};

// A copy on the GPU, which reads and writes; a square product of bfloat16.
Roofs roofs_of(Device& device) {
  constexpr std::size_t kBytes = std::size_t{1} << 30;
  constexpr std::int64_t kSide = 8192;
  Memory from(device, kBytes), to(device, kBytes);
  // Numbers as a model has them: products of zeros draw less power and run faster.
  Numbers numbers;
  Memory some(device, kBytes >> 6, true);
  for (std::size_t i = 0; i < some.bytes() / sizeof(BFloat16); ++i)
    some.as<BFloat16>()[i] = from_float<BFloat16>(numbers.next());
  for (std::size_t at = 0; at < kBytes; at += some.bytes())
    device.upload(from.as<char>() + at, some.as(), some.bytes());
  const double copying =
      median_seconds(device, 9, [&] { device.copy(to.as(), from.as(), kBytes); });
  const double multiplying = median_seconds(device, 9, [&] {
    device.multiply(kSide, kSide, kSide, from.as(), from.as(), true, to.as<float>());
  });
  return {2.0 * kBytes / copying, 2.0 * kSide * kSide * kSide / multiplying};
}

void measure(const Shape& shape, Device& device, const Roofs& roofs) {
  constexpr std::int64_t kPrompt = 512, kSteps = 64, kMostBatch = 256;
  Model model(shape, device, true, kPrompt + kSteps + 8, 4096, kMostBatch, 0);
  const double bytes = 2 * shape.matrix_parameters();
  const std::int64_t first = model.decoder().open_cache();  // loads what is loaded at its first use
  model.step({first}, kPrompt, words(shape, kPrompt, 0), 0.5f);
  model.decoder().close_cache(first);
  for (const std::int64_t batch : {1, 16, 64, 256}) {
    std::vector<std::int64_t> caches;
    double prefilling = 0;
    for (std::int64_t i = 0; i < batch; ++i) {
      caches.push_back(model.decoder().open_cache());
      const auto begin = Clock::now();
      model.step({caches.back()}, kPrompt, words(shape, kPrompt, i), 0.5f);
      prefilling += std::chrono::duration<double>(Clock::now() - begin).count();
    }
    std::vector<double> seconds;
    for (std::int64_t step = 0; step < kSteps; ++step) {
      const auto tokens = words(shape, batch, step);
      const auto begin = Clock::now();
      model.step(caches, 1, tokens, 0.5f);
      if (step >= 4)  // the first ones are not recorded yet
        seconds.push_back(std::chrono::duration<double>(Clock::now() - begin).count());
    }
    for (const std::int64_t cache : caches) model.decoder().close_cache(cache);
    std::sort(seconds.begin(), seconds.end());
    const double step = seconds[seconds.size() / 2];
    const double keys = static_cast<double>(batch * shape.layers * 2 * shape.kv_heads *
                                            shape.head_dim * (kPrompt + kSteps / 2)) *
                        2;
    const double memory = (bytes + keys) / roofs.bytes_per_second;
    const double products =
        2 * shape.matrix_parameters() * static_cast<double>(batch) / roofs.flops;
    const double tokens_a_prefill = static_cast<double>(batch * kPrompt) / prefilling;
    std::printf(
        "{\"model\": \"%s\", \"batch\": %lld, \"decode_tokens_per_second\": %.1f, "
        "\"decode_p10\": %.1f, \"decode_p90\": %.1f, \"decode_over_roof\": %.3f, "
        "\"prefill_tokens_per_second\": %.1f, \"prefill_over_roof\": %.3f}\n",
        shape.name, static_cast<long long>(batch), static_cast<double>(batch) / step,
        static_cast<double>(batch) / seconds[seconds.size() * 9 / 10],
        static_cast<double>(batch) / seconds[seconds.size() / 10],
        std::max(memory, products) / step, tokens_a_prefill,
        tokens_a_prefill * 2 * shape.matrix_parameters() / roofs.flops);
    std::fflush(stdout);
  }
}

}  // namespace

int main(int argc, char** argv) {
  if (argc > 1 && std::strcmp(argv[1], "selftest") == 0) {
    selftest();
    return 0;
  }
  Device device(0);
  const Roofs roofs = roofs_of(device);
  std::printf("{\"roof_bytes_per_second\": %.4g, \"roof_flops\": %.4g}\n", roofs.bytes_per_second,
              roofs.flops);
  std::fflush(stdout);
  for (const Shape& shape : kShapes) measure(shape, device, roofs);
  return 0;
}
