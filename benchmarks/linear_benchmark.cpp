// SPDX-License-Identifier: Apache-2.0
// All linear layers of one forward pass on one thread, weights as float32 and as bfloat16 panels,
// and by libtorch's matrix product, turn by turn in one run: linear_benchmark [REPETITIONS]
// [INSTRUCTION SET].
#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/mm.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

#include "benchmarks/benchmark.h"
#include "model/cpu_kernels.h"
#include "model/sampling.h"

namespace rollcall {
namespace {

struct Shape {
  std::int64_t out, in;
};

// The linear layers of a decoder, in order of use.
struct Network {
  const char* name;
  std::vector<Shape> layer;
  std::int64_t layers;
  Shape head;

  std::vector<Shape> shapes() const {
    std::vector<Shape> all;
    for (std::int64_t i = 0; i < layers; ++i) all.insert(all.end(), layer.begin(), layer.end());
    all.push_back(head);
    return all;
  }
};

const Network kNetworks[] = {
    {"SmolLM2-135M",
     {{576, 576}, {192, 576}, {192, 576}, {576, 576}, {1536, 576}, {1536, 576}, {576, 1536}},
     30,
     {49152, 576}},
    {"3M",
     {{192, 192}, {192, 192}, {192, 192}, {192, 192}, {512, 192}, {512, 192}, {192, 512}},
     6,
     {4096, 192}},
};

std::vector<float> random_values(std::int64_t count, std::uint64_t seed) {
  std::vector<float> values(static_cast<std::size_t>(count));
  for (std::size_t i = 0; i < values.size(); ++i)
    values[i] = static_cast<float>(uniform_draw(seed, i)) - 0.5F;
  return values;
}

// A network's panels. Every layer has memory of its own, as in a model: what does not fit into the
// caches comes from memory each time.
template <class Element>
class Panels {
 public:
  explicit Panels(const Network& network) : shapes_(network.shapes()) {
    for (const auto& [out, in] : shapes_) {
      const auto values = random_values(out * in, 1);
      auto& panels =
          panels_.emplace_back(panel_count(out) * kPanelWidth * panel_steps<Element>(in));
      pack_weights(values.data(), out, in, panels.data());
    }
  }

  double seconds(void (*kernel)(const LinearCall<Element>&), std::int64_t rows, const Element* x,
                 float* y) const {
    return seconds_of([&] {
      for (std::size_t i = 0; i < shapes_.size(); ++i) {
        const auto& [out, in] = shapes_[i];
        kernel({.x = x,
                .ldx = panel_steps<Element>(in),
                .rows = rows,
                .packed = panels_[i].data(),
                .in = in,
                .out = out,
                .y = y,
                .ldy = out});
      }
    });
  }

 private:
  std::vector<Shape> shapes_;
  std::vector<std::vector<Element>> panels_;
};

// The same layers by the product of libtorch, which gives a row other bits in another batch.
class TorchLayers {
 public:
  explicit TorchLayers(const Network& network) : shapes_(network.shapes()) {
    for (const auto& [out, in] : shapes_) {
      auto values = random_values(out * in, 1);
      weights_.push_back(at::from_blob(values.data(), {out, in}).clone().t());
    }
  }

  double seconds(std::int64_t rows, float* x, float* y) const {
    const auto begin = std::chrono::steady_clock::now();
    for (std::size_t i = 0; i < shapes_.size(); ++i) {
      at::Tensor out = at::from_blob(y, {rows, shapes_[i].out});
      at::mm_out(out, at::from_blob(x, {rows, shapes_[i].in}), weights_[i]);
    }
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  }

 private:
  std::vector<Shape> shapes_;
  std::vector<at::Tensor> weights_;
};

double parameters(const Network& network) {
  double total = 0;
  for (const auto& [out, in] : network.shapes()) total += static_cast<double>(out * in);
  return total;
}

void print(const char* type, const std::vector<double>& seconds, double flops) {
  const Spread s = spread(seconds);
  std::printf("  %s %9.3f ms %6.1f GFLOP/s", type, 1e3 * s.median, flops / s.median / 1e9);
}

// How many times as fast as `base`, pair by pair.
void print_ratio(const char* type, const std::vector<double>& base,
                 const std::vector<double>& seconds) {
  std::vector<double> ratios;
  for (std::size_t i = 0; i < base.size(); ++i) ratios.push_back(base[i] / seconds[i]);
  const Spread s = spread(ratios);
  std::printf("  %s %.2f (%.2f - %.2f)", type, s.median, s.low, s.high);
}

void measure(const Network& network, const CpuKernels& kernels, int repetitions) {
  const Panels<float> floats(network);
  const Panels<BFloat16Pair> halves(network);
  const TorchLayers torch(network);
  for (const std::int64_t rows : {1, 16, 64, 512}) {
    std::int64_t widest = 0;
    for (const auto& [out, in] : network.shapes()) widest = std::max({widest, out, in});
    auto x = random_values(rows * widest, 2);
    std::vector<float> y(x.size());
    std::vector<BFloat16Pair> pairs(x.size() / 2);
    kernels.round_inputs(x.data(), std::ssize(x), pairs.data());
    std::vector<double> wide, half, theirs;
    for (int i = -1; i < repetitions; ++i) {
      const double a = floats.seconds(kernels.linear, rows, x.data(), y.data());
      const double b = halves.seconds(kernels.linear_bfloat16, rows, pairs.data(), y.data());
      const double c = torch.seconds(rows, x.data(), y.data());
      if (i < 0) continue;  // warms up
      wide.push_back(a);
      half.push_back(b);
      theirs.push_back(c);
    }
    const double flops = 2 * parameters(network) * static_cast<double>(rows);
    std::printf("%-12s %-8s rows %3lld", network.name, kernels.isa, static_cast<long long>(rows));
    print("float32", wide, flops);
    print("bfloat16", half, flops);
    print("libtorch", theirs, flops);
    print_ratio("| float32 : libtorch", theirs, wide);
    print_ratio(" bfloat16 : float32", wide, half);
    std::printf("\n");
    std::fflush(stdout);
  }
}

}  // namespace
}  // namespace rollcall

int main(int argc, char** argv) {
  using namespace rollcall;
  const int repetitions = argc > 1 ? std::max(1, std::atoi(argv[1])) : 9;
  const CpuKernels* kernels = argc > 2 ? cpu_kernels(argv[2]) : &cpu_kernels();
  if (kernels == nullptr) {
    std::fprintf(stderr, "this CPU has no kernels '%s'\n", argv[2]);
    return 2;
  }
  at::set_num_threads(1);
  for (const Network& network : kNetworks) measure(network, *kernels, repetitions);
}
