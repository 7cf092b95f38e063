// SPDX-License-Identifier: Apache-2.0
#pragma once

// A grid of CUDA threads on one CPU thread: the threads of a block are fibers that give way at
// barriers and warp exchanges, blocks run one after the other. It finds wrong arithmetic, wrong
// indices and missing barriers between a block's phases, not races inside of one or what is slow.

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <vector>

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __shared__ static  // one block at a time
#define __restrict__
#define ROLLCALL_UNROLL

struct dim3 {
  unsigned x = 1, y = 1, z = 1;
  dim3(unsigned x_in = 1, unsigned y_in = 1, unsigned z_in = 1) : x(x_in), y(y_in), z(z_in) {}
};

namespace emulated {

struct Index {
  unsigned x, y, z;
};
inline Index thread{}, block{};
inline dim3 grid, threads;
inline std::vector<std::function<void()>>* recording = nullptr;  // what takes launches up

// Runs body() for every thread of every block.
void run(dim3 grid, unsigned threads, std::size_t shared_bytes, const std::function<void()>& body);
unsigned char* block_memory();

void block_barrier();
// Every lane gives 8 bytes and gets those of lane `from` of its warp.
std::uint64_t exchange(std::uint64_t mine, int from);

template <class Value>
Value shuffle(Value value, int from) {
  static_assert(sizeof(Value) <= 8);
  std::uint64_t bits = 0;
  __builtin_memcpy(&bits, &value, sizeof(Value));
  bits = exchange(bits, from);
  __builtin_memcpy(&value, &bits, sizeof(Value));
  return value;
}
inline int lane() { return static_cast<int>(thread.x % 32); }

}  // namespace emulated

#define threadIdx (emulated::thread)
#define blockIdx (emulated::block)
#define blockDim (emulated::threads)
#define gridDim (emulated::grid)

using std::isfinite;
inline float rsqrtf(float x) { return 1.0f / std::sqrt(x); }
inline void __syncthreads() { emulated::block_barrier(); }
inline void __syncwarp() { emulated::exchange(0, 0); }
template <class Value>
Value __shfl_sync(unsigned, Value value, int from) {
  return emulated::shuffle(value, from);
}
template <class Value>
Value __shfl_xor_sync(unsigned, Value value, int mask) {
  return emulated::shuffle(value, emulated::lane() ^ mask);
}
template <class Value>
Value __shfl_up_sync(unsigned, Value value, int by) {
  const int from = emulated::lane() - by;
  return emulated::shuffle(value, from < 0 ? emulated::lane() : from);
}
inline unsigned __ballot_sync(unsigned, bool vote) {
  unsigned ballot = vote ? 1u << emulated::lane() : 0u;
  for (int step = 16; step > 0; step /= 2) ballot |= __shfl_xor_sync(0xffffffffu, ballot, step);
  return ballot;
}
inline bool __any_sync(unsigned mask, bool vote) { return __ballot_sync(mask, vote) != 0; }
inline int __ffs(int bits) { return __builtin_ffs(bits); }
inline int __clz(int bits) { return bits == 0 ? 32 : __builtin_clz(static_cast<unsigned>(bits)); }

namespace rollcall::cuda {

using Stream = int;

inline unsigned char* block_memory() { return emulated::block_memory(); }

template <class Kernel>
void allow_block_memory(Kernel*, std::size_t) {}

template <class... Parameters, class... Arguments>
void launch(const char*, void (*kernel)(Parameters...), dim3 grid, unsigned threads,
            std::size_t shared_bytes, Stream, Arguments... arguments) {
  const auto call = [=] {
    emulated::run(grid, threads, shared_bytes,
                  [&] { kernel(static_cast<Parameters>(arguments)...); });
  };
  if (emulated::recording == nullptr)
    call();
  else
    emulated::recording->push_back(call);
}

}  // namespace rollcall::cuda
