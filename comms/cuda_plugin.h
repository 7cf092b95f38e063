// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>

#include "comms/cuda/cuda_plugin.h"

namespace rollcall {

// librollcall_cuda.so, held open. Looked for beside the executable, then in ../lib and ../comms
// from there, then where the system looks. Single thread.
class CudaPlugin {
 public:
  // Throws Error that says whether the driver or the plugin is missing, and how to get it.
  CudaPlugin();
  ~CudaPlugin();
  CudaPlugin(const CudaPlugin&) = delete;
  CudaPlugin& operator=(const CudaPlugin&) = delete;

  const RollcallCudaPlugin& functions() const { return *functions_; }
  // Throws Error with the plugin's explanation unless `code` is 0.
  void check(int code) const;

 private:
  struct Libraries;
  std::unique_ptr<Libraries> libraries_;
  const RollcallCudaPlugin* functions_ = nullptr;
};

}  // namespace rollcall
