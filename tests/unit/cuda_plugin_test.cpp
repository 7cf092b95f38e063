// SPDX-License-Identifier: Apache-2.0
#include "comms/cuda_plugin.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "comms/error.h"

namespace rollcall {
namespace {

TEST(CudaPlugin, SaysWhatIsMissing) {
  try {
    const CudaPlugin plugin;
    EXPECT_EQ(plugin.functions().abi_version, kRollcallCudaAbi);
  } catch (const Error& error) {
    EXPECT_THAT(error.what(), testing::AnyOf(testing::HasSubstr("no NVIDIA driver"),
                                             testing::HasSubstr("cannot open the CUDA plugin")));
    EXPECT_FALSE(error.what_to_do().empty());
  }
}

}  // namespace
}  // namespace rollcall
