// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>

// The boundary of librollcall_cuda.so: plain C types, device pointers and a stream, no exceptions,
// no ATen. All calls of a process come from one thread.

struct RollcallNcclId {
  char bytes[128];  // ncclUniqueId
};

struct RollcallNccl;  // a communicator

// Functions that return `int` return 0, or another number with an explanation in last_error().
struct RollcallCudaPlugin {
  int abi_version;  // kRollcallCudaAbi of the build

  // Of this thread's last failed call; valid until the next failure.
  const char* (*last_error)();

  // Fills in the id that all members of a communicator share. Called on one of them.
  int (*nccl_make_id)(RollcallNcclId* id);
  // Collective: all members. Waits at most `timeout_ms` here and in every later call on it.
  // Null on failure.
  RollcallNccl* (*nccl_create)(const RollcallNcclId* id, int rank, int size, int device,
                               int64_t timeout_ms);
  void (*nccl_destroy)(RollcallNccl* communicator);
  // On device memory, in place; each waits for earlier work on the device and then for its own end.
  int (*nccl_all_sum)(RollcallNccl* communicator, float* values, size_t count);
  // `shard` values a member; member r's sum ends in values[r * shard].
  int (*nccl_reduce_scatter_sum)(RollcallNccl* communicator, float* values, size_t shard);
  // Member r contributes values[r * shard].
  int (*nccl_all_gather)(RollcallNccl* communicator, float* values, size_t shard);

  // One draw a row from softmax(logits[row, 0..valid)) by inverse CDF in the order of the ids:
  // logits [rows, vocab] float32, uniforms [rows] in [0, 1), ids [rows] and logprobs [rows] (nats)
  // receive the result. A row's result depends on nothing but the row. A row without any finite
  // probability gets id -1 and NaN. Queued on `stream` (a cudaStream_t); does not wait.
  int (*sample)(const float* logits, int64_t rows, int64_t vocab, int64_t valid,
                const float* uniforms, int32_t* ids, float* logprobs, void* stream);
};

inline constexpr int kRollcallCudaAbi = 1;
inline constexpr char kRollcallCudaEntry[] = "rollcall_cuda_plugin";

extern "C" const RollcallCudaPlugin* rollcall_cuda_plugin();
