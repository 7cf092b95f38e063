// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <filesystem>
#include <iosfwd>
#include <optional>

namespace rollcall {

// `rollcall inspect RUN`: a summary of the journals of a run for a person, or with `row` one
// trajectory of the first learner's journal, and with `text` its tokens too, decoded by the model's
// tokenizer. Returns the exit code; throws Error if there is no journal, no such row or no
// tokenizer.
int run_inspect(const std::filesystem::path& run_dir, std::optional<std::int64_t> row, bool text,
                std::ostream& out);

// `rollcall inspect RUN --batch`: how many rollouts each step was given, and why, decided again
// from the journal. Returns the exit code; throws Error as above, and where the journal holds other
// rollouts than the run's settings ask for.
int run_inspect_batch(const std::filesystem::path& run_dir, std::ostream& out);

}  // namespace rollcall
