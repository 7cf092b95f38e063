// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <span>
#include <string>

#include "configs/yaml_tree.h"

namespace rollcall {

// Puts each "a.b.c=value" into the tree, in order; the value is YAML, and nothing after '=' is
// empty text. A part of a path names a key, or an entry of a list by its index or by its `name`.
// Adds a problem for each one that cannot be applied.
void apply_overrides(std::span<const std::string> overrides, YamlNode& root, Problems& problems);

}  // namespace rollcall
