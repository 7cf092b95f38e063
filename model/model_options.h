// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

namespace rollcall {

// `model:` of a run file.
struct ModelOptions {
  std::string path;               // Hugging Face directory
  std::string dtype = "float32";  // compute type: float32 on CPU
};

}  // namespace rollcall
