// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "comms/cuda/cuda_plugin.h"
#include "model/cuda/device.h"

namespace rollcall::cuda {

// A decoder on one GPU: weights, paged caches, and the forward pass of a batch down to sampled
// tokens. Throws std::runtime_error. Single thread.
class GpuDecoder {
 public:
  virtual ~GpuDecoder() = default;

  // Copies rows of a parameter to the GPU; see RollcallCudaPlugin::decoder_set.
  virtual void set(const RollcallParameter&) = 0;

  virtual std::int64_t open_cache() = 0;
  virtual void close_cache(std::int64_t cache) = 0;
  virtual std::int64_t pages_free() const = 0;

  // Computes the batch and waits for what it samples.
  virtual void step(const RollcallBatch&, std::int32_t* ids, float* logprobs) = 0;
};

std::unique_ptr<GpuDecoder> make_gpu_decoder(const RollcallDecoderOptions&, Device&);

}  // namespace rollcall::cuda
