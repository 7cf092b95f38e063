// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

namespace rollcall {

// `model:` of a run file.
struct ModelOptions {
  std::string path;               // Hugging Face directory
  std::string dtype = "float32";  // of the policy's weights: "float32" or "bfloat16"
};

}  // namespace rollcall
