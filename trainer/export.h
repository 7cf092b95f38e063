// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>

#include "model/lora.h"
#include "model/weights.h"

namespace rollcall {

// Writes a Hugging Face directory: `weights` as safetensors in `dtype` (in shards past
// `max_shard_bytes`, 0: one file), every non-weight file of `source` byte for byte except in hidden
// folders, the dtype key of config.json edited in place (key order kept; the keys that were there,
// else `torch_dtype` added). Written aside, re-opened, compared tensor by tensor with `weights`,
// then renamed over `out`; an existing model directory at `out` is replaced as a whole. Asks for
// each tensor twice and holds one at a time. Throws
// Error and leaves `out` as it was if anything differs, if `weights` are not the parameters of
// `source`, if `out` and `source` overlap, or if `out` holds something else than a model.
void export_model(const std::filesystem::path& source, const TensorSource& weights,
                  const std::string& dtype, const std::filesystem::path& out,
                  std::int64_t max_shard_bytes = 0);

// Writes a PEFT directory of an adapter on the model in `base`: aside, read back, compared, then
// renamed over `out`; an existing adapter at `out` is replaced. Throws Error and leaves `out` as it
// was if anything differs, if the folders overlap, or if `out` holds something else.
void export_adapter(const LoraAdapter&, const std::filesystem::path& base,
                    const std::filesystem::path& out);

// Re-opens the weights of `folder` and throws Error naming the first tensor that is missing, extra
// or not the one of `weights` in `dtype`, bit for bit.
void compare_export(const std::filesystem::path& folder, const NamedShapes&,
                    const TensorSource& weights, const std::string& dtype);

}  // namespace rollcall
