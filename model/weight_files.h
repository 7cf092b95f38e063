// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <filesystem>
#include <vector>

#include "model/safetensors.h"

namespace rollcall {

struct WeightFile {
  std::filesystem::path path;
  SafetensorsFile contents;
};

// Opens DIR/model.safetensors or, without it, every shard of DIR/model.safetensors.index.json. Each
// tensor is in one file, the one that the index names. Throws SafetensorsError naming index or
// shard.
std::vector<WeightFile> open_weight_files(const std::filesystem::path& dir);

}  // namespace rollcall
