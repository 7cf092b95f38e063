# SPDX-License-Identifier: Apache-2.0
"""generate.py > cases.jsonl: rotary frequencies and attention factors as transformers computes them from config.json
keys. Wants a Python with transformers (5.23 made the file)."""
import copy
import json

from transformers import CONFIG_MAPPING
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

SIZES = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4,
         "num_key_value_heads": 2, "vocab_size": 100, "max_position_embeddings": 4096}
LLAMA3 = {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
ORIGINAL = "original_max_position_embeddings"
YARN = {"rope_type": "yarn", "factor": 4.0, ORIGINAL: 1024}
CASES = [
    {},
    {"model_type": "smollm3"},
    {"head_dim": 128, "rope_theta": 1000000.0},
    {"head_dim": 40, "rope_theta": 54321.123},
    {"rope_parameters": {"rope_theta": 5000.0}},
    {"rope_parameters": {"rope_type": "default"}, "rope_theta": 70000.0},
    {"rope_scaling": {"type": "linear", "factor": 3.0}},
    {"head_dim": 128, "rope_theta": 500000.0, "rope_scaling": {"rope_type": "llama3", ORIGINAL: 1024, **LLAMA3}},
    {"head_dim": 64, "rope_parameters": {"rope_type": "llama3", "rope_theta": 10000.0, **LLAMA3}},
    {"head_dim": 64, ORIGINAL: 256, "rope_scaling": {"rope_type": "llama3", ORIGINAL: 1024, **LLAMA3}},
    {"head_dim": 128, "rope_theta": 1000000.0, "rope_scaling": {**YARN, "type": "yarn"}},
    {"head_dim": 40, "rope_scaling": {**YARN, "beta_fast": 8.0, "beta_slow": 2}},
    {"head_dim": 40, "rope_scaling": {**YARN, "beta_fast": 0, "beta_slow": None, "mscale": 0.0, "mscale_all_dim": 1}},
    {"head_dim": 64, "rope_scaling": {**YARN, "truncate": False, "attention_factor": 1.25}},
    {"head_dim": 64, "rope_scaling": {**YARN, "truncate": None, "attention_factor": None}},
    {"head_dim": 64, "rope_parameters": {**YARN, "mscale": 0.7, "mscale_all_dim": 1.3, "rope_theta": 20000}},
    {"head_dim": 64, "rope_scaling": {**YARN, "mscale": 0.7}},
    {"head_dim": 64, "rope_scaling": {**YARN, "factor": None}},
    {"head_dim": 64, "rope_scaling": {**YARN, "factor": 0.5}},
    {"head_dim": 64, "rope_scaling": {"rope_type": "yarn", "factor": 2.0}},
    {"head_dim": 64, ORIGINAL: 512, "rope_scaling": YARN},
    {"head_dim": 16, "rope_scaling": {**YARN, ORIGINAL: 6}},
    {"head_dim": 64, "rope_theta": 3.0, "rope_scaling": YARN},
]

for case in CASES:
    keys = {"model_type": "llama", **SIZES, **case}
    config = CONFIG_MAPPING[keys["model_type"]].from_dict(copy.deepcopy(keys))
    rope = LlamaRotaryEmbedding(config)
    print(json.dumps({"config": keys, "attention_factor": rope.attention_scaling, "frequencies": rope.inv_freq.tolist()}))
