// SPDX-License-Identifier: Apache-2.0
#include "comms/cuda/plugin_parts.h"

const RollcallCudaPlugin* rollcall_cuda_plugin() {
  using namespace rollcall::cuda;
  static const RollcallCudaPlugin kPlugin = [] {
    RollcallCudaPlugin plugin{};
    plugin.abi_version = kRollcallCudaAbi;
    plugin.last_error = last_error;
    plugin.nccl_make_id = nccl_make_id;
    plugin.nccl_create = nccl_create;
    plugin.nccl_destroy = nccl_destroy;
    plugin.nccl_all_sum = nccl_all_sum;
    plugin.nccl_reduce_scatter_sum = nccl_reduce_scatter_sum;
    plugin.nccl_all_gather = nccl_all_gather;
    add_decoder(plugin);
    return plugin;
  }();
  return &kPlugin;
}
