// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "comms/cuda/cuda_plugin.h"

namespace rollcall::cuda {

// Remembers an explanation for last_error() and returns 1.
int fail(const char* call, const char* why);
const char* last_error();

int nccl_make_id(RollcallNcclId* id);
RollcallNccl* nccl_create(const RollcallNcclId* id, int rank, int size, int device,
                          std::int64_t timeout_ms);
void nccl_destroy(RollcallNccl* communicator);
int nccl_all_sum(RollcallNccl* communicator, float* values, std::size_t count);
int nccl_reduce_scatter_sum(RollcallNccl* communicator, float* values, std::size_t shard);
int nccl_all_gather(RollcallNccl* communicator, float* values, std::size_t shard);

// Fills in what samples on a GPU.
void add_decoder(RollcallCudaPlugin& plugin);

}  // namespace rollcall::cuda
