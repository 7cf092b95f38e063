// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <filesystem>

namespace rollcall {

// A policy that a person names by a model directory, a run's folder, its export or a checkpoint.
struct EvaluatedModel {
  std::filesystem::path dir;         // Hugging Face directory to sample from
  std::filesystem::path checkpoint;  // not empty: `dir` is made from it first
};

// The run that it comes from, if its folder is there with a config.yaml; empty: none is known.
std::filesystem::path run_of_policy(const std::filesystem::path& named);

// Looks, and changes nothing. Of a run: its export if it is done, else its newest checkpoint; what
// has to be made goes to `scratch`. Throws an input Error for what is none of these.
EvaluatedModel find_evaluated_model(const std::filesystem::path& named,
                                    const std::filesystem::path& scratch);

// Writes `dir` from `checkpoint`, if there is one.
void make_evaluated_model(const EvaluatedModel&);

}  // namespace rollcall
