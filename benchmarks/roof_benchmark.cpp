// SPDX-License-Identifier: Apache-2.0
// What this machine can do at most, to be measured in the same run as what is held against it:
// roof_benchmark [THREADS]. A line of JSON for each, as [median, lowest, highest].
#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/ones.h>
#include <fcntl.h>
#include <unistd.h>

#include <cstdlib>
#include <nlohmann/json.hpp>

#include "benchmarks/benchmark.h"

namespace rollcall {
namespace {

constexpr int kRepetitions = 9;

template <class Work>
Spread rates(double amount, const Work& work) {
  work();
  std::vector<double> values;
  for (int i = 0; i < kRepetitions; ++i) values.push_back(amount / seconds_of(work));
  return spread(values);
}

void print(const char* roof, const char* unit, const Spread& s) {
  const nlohmann::ordered_json line{
      {"bench", "roof"}, {"roof", roof}, {"unit", unit}, {"rate", listed(s)}};
  print_line(line.dump());
}

void gemm(const char* name, at::ScalarType dtype) {
  constexpr std::int64_t n = 2048;
  const at::Tensor a = at::ones({n, n}, dtype), b = at::ones({n, n}, dtype);
  at::Tensor c = at::empty({n, n}, dtype);
  print(name, "GFLOP/s", rates(2e-9 * n * n * n, [&] { at::mm_out(c, a, b); }));
}

void memory() {
  const at::Tensor x = at::ones({256 << 20}, at::kFloat);
  const float* values = x.const_data_ptr<float>();
  std::vector<float> sums(static_cast<std::size_t>(at::get_num_threads()));
  print("memory read", "GB/s", rates(4e-9 * static_cast<double>(x.numel()), [&] {
          at::parallel_for(0, x.numel(), 1, [&](std::int64_t begin, std::int64_t end) {
            float lanes[64] = {};
            for (std::int64_t i = begin; i + 64 <= end; i += 64)
              for (int k = 0; k < 64; ++k) lanes[k] += values[i + k];
            for (const float lane : lanes)
              sums[static_cast<std::size_t>(at::get_thread_num())] += lane;
          });
        }));
}

void disk() {
  const std::vector<char> block(1 << 20, 'x');
  char name[] = "roof_benchmark.XXXXXX";
  const int file = mkstemp(name);
  if (file < 0) throw std::runtime_error("cannot write in the current folder");
  unlink(name);
  print("write(2)", "GB/s", rates(256 * 1.048576e-3, [&] {
          for (int i = 0; i < 256; ++i)
            if (pwrite(file, block.data(), block.size(), static_cast<off_t>(i) << 20) < 0)
              throw std::runtime_error("cannot write in the current folder");
        }));
  close(file);
}

int run(int argc, char** argv) {
  at::set_num_threads(argc > 1 ? std::max(1, std::atoi(argv[1])) : 2);
  gemm("matrix product, float32", at::kFloat);
  gemm("matrix product, bfloat16", at::kBFloat16);
  memory();
  disk();
  return 0;
}

}  // namespace
}  // namespace rollcall

int main(int argc, char** argv) { return rollcall::main_of(rollcall::run, argc, argv); }
