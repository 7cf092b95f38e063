// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <filesystem>
#include <limits>
#include <optional>
#include <string>

#include "model/model_options.h"
#include "trainer/optimized_weights.h"

namespace rollcall {

struct CriticState {
  OptimizedWeights trunk;  // empty: it uses the policy's
  OptimizedWeights head;
};

// Everything a run needs to go on bit for bit.
struct TrainState {
  std::int64_t step = 0;            // optimizer steps done
  std::int64_t version = 0;         // policy version of the masters
  std::int64_t journal_rows = 0;    // rows before those of later steps
  std::string sampler;              // BatchScaler::state()
  std::string spec;                 // config.json of the model, to refuse a foreign checkpoint
  std::optional<LoraOptions> lora;  // of the adapter that is trained; nothing: every weight is
  std::string base_xxh3;            // of the frozen weights below the adapter
  OptimizedWeights policy;          // all weights, or the adapter's
  std::optional<CriticState> critic;
};

// Writes DIR/step-<6 digits>/ aside (state.json, state.safetensors), syncs, writes MANIFEST.json
// (size and xxh3 of every file) last, renames, then deletes all but the newest `keep` (manifest
// first). A crash at any point leaves either a complete checkpoint or none. Returns the folder.
std::filesystem::path save_checkpoint(const std::filesystem::path& dir, const TrainState&,
                                      int keep);

// The newest complete checkpoint under `dir`, of a step up to `last`, if any. Folders without a
// manifest, or whose files do not match it, are skipped with a warning that names the file.
std::optional<std::filesystem::path> newest_checkpoint(
    const std::filesystem::path& dir, std::int64_t last = std::numeric_limits<std::int64_t>::max());

// Where save_checkpoint() puts the state of a step.
std::filesystem::path checkpoint_folder(const std::filesystem::path& dir, std::int64_t step);

// Its floats are read where they lie in the file. Throws Error naming file and reason if the folder
// is not a complete checkpoint.
TrainState load_checkpoint(const std::filesystem::path& folder);

}  // namespace rollcall
