// SPDX-License-Identifier: Apache-2.0
#pragma once

// Kernels are plain CUDA. Compiled by nvcc they run on a GPU; compiled by another compiler, as the
// tests do, they run on the grid that tests/cuda/emulated_grid.h imitates, thread by thread, so
// that their arithmetic and their barriers are tested where there is no GPU.
#ifdef __CUDACC__

#include <cuda_runtime.h>

#define ROLLCALL_UNROLL _Pragma("unroll")

namespace rollcall::cuda {

using Stream = cudaStream_t;

// Throws std::runtime_error with what CUDA says.
void check_launch(const char* kernel);

// Memory of the block, of the size given at the launch.
__device__ inline unsigned char* block_memory() {
  extern __shared__ __align__(16) unsigned char rollcall_block_memory[];
  return rollcall_block_memory;
}

// Lets blocks of a kernel have more memory than the usual 48 KiB; never less than it was before.
template <class Kernel>
void allow_block_memory(Kernel* kernel, std::size_t bytes) {
  cudaFuncAttributes now{};
  cudaFuncGetAttributes(&now, kernel);
  check_launch("block memory");
  if (bytes <= static_cast<std::size_t>(now.maxDynamicSharedSizeBytes)) return;
  cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                       static_cast<int>(bytes));
  check_launch("block memory");
}

template <class... Parameters, class... Arguments>
void launch(const char* name, void (*kernel)(Parameters...), dim3 grid, unsigned threads,
            std::size_t shared_bytes, Stream stream, Arguments... arguments) {
  kernel<<<grid, threads, shared_bytes, stream>>>(static_cast<Parameters>(arguments)...);
  check_launch(name);
}

}  // namespace rollcall::cuda

#else
#include "emulated_grid.h"
#endif
