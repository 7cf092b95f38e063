// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "configs/field.h"
#include "slurm/site_options.h"

namespace rollcall {

// The keys of a site file.
std::vector<Field<SiteOptions>> site_fields();

// Reads a site file as strictly as a run file. Throws one input Error that names every problem with
// file, line and column.
SiteOptions read_site_options(const std::filesystem::path& file);

// The same for a text: `file` names it in errors.
SiteOptions parse_site_options(const std::string& text, const std::filesystem::path& file);

}  // namespace rollcall
