// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "model/model_options.h"
#include "model/model_spec.h"
#include "model/ops.h"
#include "model/weights.h"

namespace rollcall {

// A low-rank adapter (LoRA, Hu et al. 2021): the policy's weight of each of its modules is
// W + scaling * B @ A, with W frozen. Copies share storage.
struct LoraAdapter {
  LoraOptions options;
  std::vector<std::string>
      modules;             // "model.layers.0.self_attn.q_proj", in parameter_shapes() order
  FlatWeights parameters;  // by PEFT key; module by module A [rank, in], then B [out, rank]
};

// The linear layers of a block: what an adapter may be on.
std::span<const std::string_view> lora_target_names();

std::string lora_a_key(const std::string& module);  // PEFT's names
std::string lora_b_key(const std::string& module);

double lora_scaling(const LoraOptions&);

// An adapter on every module whose path is a target or ends with ".target"; zero-filled, on the
// CPU. Throws an input Error for a target that no module has.
LoraAdapter make_lora_adapter(const ModelSpec&, const LoraOptions&);

// As PEFT begins: A uniform within 1 / sqrt(in) (Kaiming, a = sqrt(5)), B zero. The same for the
// same seed.
void init_lora(std::uint64_t seed, LoraAdapter&);

// W + scaling * B @ A as a float32 tensor of its own, for the weight W of one of the adapter's
// modules, in any float type on the CPU. The same bits on every machine, whatever the number of
// threads.
at::Tensor merge_lora(const LoraAdapter&, const std::string& module, const at::Tensor& weight);

// The parameters of `base`, with the adapter merged into those of its modules. Follows the
// adapter's present values.
TensorSource with_lora(const LoraAdapter&, TensorSource base);

// What the decoder takes to train the adapter: `leaves` are its parameters by PEFT key. By module.
std::map<std::string, LoraLeaves> lora_leaves(const LoraAdapter&, const NamedTensors& leaves);

// "rank 32, alpha 32, rslora off, targets q_proj v_proj": the same text for the same options.
std::string describe(const LoraOptions&);

// Reads a PEFT directory (adapter_config.json, adapter_model.safetensors) as an adapter of this
// model. Throws an input Error that names file and key or tensor for whatever plain LoRA on linear
// layers is not: another peft_type, DoRA, biases, whole modules, ranks by pattern, an option not
// known here; a target that no module has; tensors missing, extra, misshaped or not finite.
LoraAdapter read_lora_adapter(const std::filesystem::path& dir, const ModelSpec&);

// Writes the two files, in float32, into a folder that is there. `base_model` is what PEFT shall
// load the adapter onto. Throws Error for a value that is not finite.
void save_lora_adapter(const std::filesystem::path& dir, const LoraAdapter&,
                       const std::string& base_model);

}  // namespace rollcall
