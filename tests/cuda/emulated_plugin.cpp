// SPDX-License-Identifier: Apache-2.0
#include "emulated_plugin.h"

#include <cmath>

#include "model/cuda/gpu_decoder.cu"
#include "model/cuda/plugin_decoder.cu"

namespace rollcall::cuda {
namespace {

std::string g_explanation;

}  // namespace

int fail(const char* call, const char* why) {
  g_explanation = std::string(call) + ": " + why;
  return 1;
}
const char* last_error() { return g_explanation.c_str(); }

}  // namespace rollcall::cuda

const RollcallCudaPlugin& emulated_plugin() {
  using namespace rollcall::cuda;
  static const RollcallCudaPlugin kPlugin = {
      .abi_version = kRollcallCudaAbi,
      .last_error = last_error,
      .nccl_make_id = nullptr,
      .nccl_create = nullptr,
      .nccl_destroy = nullptr,
      .nccl_all_sum = nullptr,
      .nccl_reduce_scatter_sum = nullptr,
      .nccl_all_gather = nullptr,
      .device_count = device_count,
      .decoder_create = decoder_create,
      .decoder_destroy = decoder_destroy,
      .decoder_set = decoder_set,
      .decoder_open_cache = decoder_open_cache,
      .decoder_close_cache = decoder_close_cache,
      .decoder_pages = decoder_pages,
      .decoder_pages_free = decoder_pages_free,
      .decoder_step = decoder_step,
  };
  return kPlugin;
}
