// SPDX-License-Identifier: Apache-2.0
#include "emulated_plugin.h"

#include <cmath>

#include "model/cuda/gpu_decoder.cu"
#include "model/cuda/plugin_decoder.cu"

const RollcallCudaPlugin& emulated_plugin() {
  static const RollcallCudaPlugin kPlugin = [] {
    RollcallCudaPlugin plugin{};
    plugin.abi_version = kRollcallCudaAbi;
    plugin.last_error = rollcall::cuda::last_error;
    rollcall::cuda::add_decoder(plugin);
    return plugin;
  }();
  return kPlugin;
}
