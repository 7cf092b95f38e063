// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "comms/cuda/cuda_plugin.h"

// The plugin's decoder with its kernels on the CPU; NCCL is left out.
const RollcallCudaPlugin& emulated_plugin();
