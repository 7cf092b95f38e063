// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <filesystem>

namespace rollcall {

// Builds runs/<name>/report.html, self-contained, from the journal, metrics.jsonl, result.json and
// config.yaml alone.
void write_report(const std::filesystem::path& run_dir);

}  // namespace rollcall
