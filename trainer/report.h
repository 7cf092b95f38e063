// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <filesystem>

namespace rollcall {

// Builds runs/<name>/report.html and audit.html (audit.h), self-contained, from the journal,
// metrics.jsonl, result.json and config.yaml alone; whatever is missing leaves its part of the page
// out. Works on a run that is still going. Throws Error if a file is damaged, a page cannot be
// written, or the folder is not a run's; then the old pages stay.
void write_report(const std::filesystem::path& run_dir);

}  // namespace rollcall
