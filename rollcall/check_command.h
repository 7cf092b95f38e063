// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <filesystem>
#include <iosfwd>

namespace rollcall {

// `rollcall model check PATH`: reads a .safetensors file, or the weights of a folder, and writes
// one line of JSON: {"ok":true, "metadata":{..}|null, "tensors":[{name, dtype, shape, crc32}]} or
// {"ok":false, "error":{kind, message}}. Of a folder, the metadata is the first shard's. Returns
// the exit code: 0, or 2 if refused.
int run_model_check(const std::filesystem::path& path, std::ostream& out);

}  // namespace rollcall
