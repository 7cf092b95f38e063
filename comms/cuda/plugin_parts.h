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

int device_count();
RollcallDecoder* decoder_create(const RollcallDecoderOptions* options, int device);
void decoder_destroy(RollcallDecoder* decoder);
int decoder_set(RollcallDecoder* decoder, const RollcallParameter* parameter);
std::int64_t decoder_open_cache(RollcallDecoder* decoder);
int decoder_close_cache(RollcallDecoder* decoder, std::int64_t cache);
std::int64_t decoder_pages(const RollcallDecoder* decoder);
std::int64_t decoder_pages_free(const RollcallDecoder* decoder);
int decoder_step(RollcallDecoder* decoder, const RollcallBatch* batch, std::int32_t* ids,
                 float* logprobs);

}  // namespace rollcall::cuda
