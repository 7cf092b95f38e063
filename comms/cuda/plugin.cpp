// SPDX-License-Identifier: Apache-2.0
#include <string>

#include "comms/cuda/plugin_parts.h"

namespace rollcall::cuda {
namespace {

std::string& explanation() {
  thread_local std::string text;
  return text;
}

}  // namespace

int fail(const char* call, const char* why) {
  explanation() = std::string(call) + ": " + why;
  return 1;
}

const char* last_error() { return explanation().c_str(); }

}  // namespace rollcall::cuda

const RollcallCudaPlugin* rollcall_cuda_plugin() {
  using namespace rollcall::cuda;
  static const RollcallCudaPlugin kPlugin = {
      .abi_version = kRollcallCudaAbi,
      .last_error = last_error,
      .nccl_make_id = nccl_make_id,
      .nccl_create = nccl_create,
      .nccl_destroy = nccl_destroy,
      .nccl_all_sum = nccl_all_sum,
      .nccl_reduce_scatter_sum = nccl_reduce_scatter_sum,
      .nccl_all_gather = nccl_all_gather,
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
  return &kPlugin;
}
