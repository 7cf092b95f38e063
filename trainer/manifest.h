// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <filesystem>
#include <optional>
#include <string>

namespace rollcall {

// MANIFEST.json of a folder: size and 64-bit xxh3 of each of its files. Written last, so a folder
// with a matching manifest is complete.
inline constexpr const char* kManifestName = "MANIFEST.json";

void write_manifest(const std::filesystem::path& folder);

enum class ManifestCheck {
  kSizes,    // cheap
  kContents  // reads every file
};

// Why the folder is not what its manifest says, naming the file; nothing if it is. Never throws for
// a damaged folder.
std::optional<std::string> manifest_problem(const std::filesystem::path& folder, ManifestCheck);

}  // namespace rollcall
