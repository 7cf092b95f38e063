// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "model/chat_format.h"

namespace rollcall {

// The shape of a LoRA adapter: `model.lora` of a run file.
struct LoraOptions {
  std::int64_t rank = 32;
  double alpha = 32;  // the update is scaled by alpha / rank
  std::vector<std::string> targets{
      // linear layers that get an adapter, by the end of their path
      "q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"};
  bool rslora = false;  // scaled by alpha / sqrt(rank) instead

  bool operator==(const LoraOptions&) const = default;
};

// `model:` of a run file.
struct ModelOptions {
  std::string path;               // Hugging Face directory
  std::string dtype = "float32";  // of the policy's weights: "float32" or "bfloat16"
  std::string train = "full";     // what is trained: full, lora
  LoraOptions lora;               // of a fresh adapter
  ChatOptions chat;
  std::string adapter;  // PEFT directory to start from instead; empty: none
};

}  // namespace rollcall
