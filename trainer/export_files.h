// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <filesystem>
#include <string>

namespace rollcall {

// The text of a config.json with `dtype` as the value of its top-level torch_dtype and dtype keys,
// or with a torch_dtype added behind the last key; nothing else changes. Throws Error if the text
// is no JSON object.
std::string with_dtype(const std::string& config, const std::string& dtype);

// Whether a file of this name holds weights, in whatever format, or says which file does.
bool is_weight_file(const std::string& name);

// Copies what is neither weights nor config.json from a model directory, subfolders included;
// hidden folders (version control, download caches) stay behind.
void copy_other_files(const std::filesystem::path& source, const std::filesystem::path& target);

}  // namespace rollcall
