# SPDX-License-Identifier: Apache-2.0
"""Writes the small model's folder without weights: configuration, tokenizer and chat template.

Needs the `tokenizers` and `jinja2` packages; nothing else of the example does. The weights come from
`rollcall sft sft.yaml`, see recipe.sh.
"""

import argparse
import itertools
import json
import os

ADDED = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
MARKUP = ("<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>")
SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
    r"|\s+(?!\S)|\s+"
)
SAMPLE = {"demos.jsonl": 4000, "drills.jsonl": 400}  # rows of each file the tokenizer is trained on
CONTEXT = 768  # tokens

ARCHITECTURE = {
    "hidden_size": 64,
    "intermediate_size": 192,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "head_dim": 64,
}


def read_template():
    path = os.path.join(os.path.dirname(os.path.abspath(__file__)), "chat_template.jinja")
    with open(path, encoding="utf-8", newline="") as file:
        return file.read()


def rendered(path, template, count):
    """The first rows of a file as the model sees them."""
    import jinja2

    environment = jinja2.Environment(trim_blocks=True, lstrip_blocks=True)
    environment.filters["tojson"] = lambda value: json.dumps(value, ensure_ascii=False)
    compiled = environment.from_string(template)
    with open(path, encoding="utf-8") as file:
        for line in itertools.islice(file, count):
            row = json.loads(line)
            yield compiled.render(messages=row["messages"], tools=row.get("tools"))


def without_added(text):
    for token in ADDED + MARKUP:
        text = text.replace(token, "\0")
    return text.split("\0")


def train_tokenizer(texts):
    """A byte-level BPE whose merges stop at the syllables, so that new names fall into known tokens."""
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    split = pre_tokenizers.Split(Regex(SPLIT), "isolated")
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, byte_level])
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=1024,
        min_frequency=len(texts) // 20,  # a syllable is in one name of 16, a pair of them in one of 256
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator((part for text in texts for part in without_added(text)), trainer)
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in ADDED])
    tokenizer.add_tokens([AddedToken(token, special=False, normalized=False) for token in MARKUP])
    return tokenizer


def write_json(folder, name, value):
    with open(os.path.join(folder, name), "w", encoding="utf-8") as out:
        json.dump(value, out, indent=2, ensure_ascii=False)
        out.write("\n")


def write_model(folder, tokenizer, template):
    end_of_text, end_of_turn = (tokenizer.token_to_id(token) for token in ("<|endoftext|>", "<|im_end|>"))
    config = {
        "architectures": ["Qwen3ForCausalLM"],
        "model_type": "qwen3",
        **ARCHITECTURE,
        "attention_bias": False,
        "attention_dropout": 0.0,
        "bos_token_id": end_of_text,
        "eos_token_id": end_of_turn,
        "hidden_act": "silu",
        "initializer_range": 0.08,
        "max_position_embeddings": CONTEXT,
        "rms_norm_eps": 1e-06,
        "rope_scaling": None,
        "rope_theta": 10000,
        "tie_word_embeddings": True,
        "torch_dtype": "float32",
        "use_cache": True,
        "use_sliding_window": False,
        "vocab_size": tokenizer.get_vocab_size(),
    }
    generation = {"bos_token_id": end_of_text, "eos_token_id": [end_of_turn, end_of_text], "do_sample": True}
    tokenizer_config = {
        "tokenizer_class": "Qwen2Tokenizer",
        "added_tokens_decoder": {
            str(tokenizer.token_to_id(token)): {
                "content": token,
                "lstrip": False,
                "normalized": False,
                "rstrip": False,
                "single_word": False,
                "special": token in ADDED,
            }
            for token in ADDED + MARKUP
        },
        "bos_token": None,
        "eos_token": "<|im_end|>",
        "pad_token": "<|endoftext|>",
        "unk_token": None,
        "model_max_length": CONTEXT,
        "chat_template": template,
    }
    os.makedirs(folder, exist_ok=True)
    tokenizer.save(os.path.join(folder, "tokenizer.json"))
    write_json(folder, "config.json", config)
    write_json(folder, "generation_config.json", generation)
    write_json(folder, "tokenizer_config.json", tokenizer_config)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", required=True, help="folder make_data.py has filled")
    parser.add_argument("--out", required=True, help="model folder to write")
    options = parser.parse_args()
    template = read_template()
    texts = [
        text
        for name, count in SAMPLE.items()
        for text in rendered(os.path.join(options.data, name), template, count)
    ]
    write_model(options.out, train_tokenizer(texts), template)


if __name__ == "__main__":
    main()
