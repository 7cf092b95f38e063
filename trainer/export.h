// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <filesystem>
#include <string>

#include "model/weights.h"

namespace rollcall {

// Writes a Hugging Face directory: `weights` as safetensors in `dtype`, every non-weight file of
// `source` byte for byte, the dtype key of config.json edited in place (key order kept; the key that
// was there, else `torch_dtype` added). Written aside, re-opened, compared tensor by tensor with
// `weights`, then renamed over `out`; an existing `out` is replaced as a whole. Throws Error and leaves
// `out` as it was if anything differs.
void export_model(const std::filesystem::path& source, const NamedTensors& weights,
                  const std::string& dtype, const std::filesystem::path& out);

}  // namespace rollcall
