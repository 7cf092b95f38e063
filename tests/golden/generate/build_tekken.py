# SPDX-License-Identifier: Apache-2.0
"""A small tokenizer of Mistral's kind, Tekken, and what the reference makes of it: python3 build_tekken.py tests/golden/tokenizers

Writes tiny-tekken/ as build_tokenizers.py and condense.py do for the other families, from texts.jsonl, and words.jsonl:
how the expression cuts random strings of characters of every class that it tells apart.
"""
import json
import random
import sys
from itertools import groupby
from pathlib import Path

import gen_tokenizers as G
import sources as S
from condense import write
from tokenizers import Regex, Tokenizer, models, pre_tokenizers, trainers

TEKKEN_REGEX = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*"
    r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
CONTROL = ["<unk>", "<s>", "</s>", "[INST]", "[/INST]", "[AVAILABLE_TOOLS]", "[/AVAILABLE_TOOLS]", "[TOOL_RESULTS]", "[/TOOL_RESULTS]", "[TOOL_CALLS]"]
# Lu, Ll, Lt, Lm, Lo, M, N, white space, and what else the expression names.
ALPHABET = ["A", "Ö", "b", "ß", "\u01C5", "\u02B0", "\u05D0", "あ", "\u0301", "\u20DD", "7", "½", " ", "\t", "\u00A0", "\n", "\r", "/", "!", "🙂"]
RUNS = [("run-space", "x", " ", 20_000, "y"), ("run-newline", "", "\n", 20_000, ""), ("run-upper", "", "A", 20_000, "b"),
        ("run-either", "", "\u05D0A", 2_000, ""), ("run-slash", "", "!/\n", 1_000, "")]


def tokenizer(texts):
    pre = [S.split(TEKKEN_REGEX), S.byte_level(False)]
    trained = Tokenizer(models.BPE())
    trained.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(TEKKEN_REGEX), "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    trained.train_from_iterator(texts, trainers.BpeTrainer(
        vocab_size=600, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False))
    model = json.loads(trained.to_str())["model"]
    order = sorted(model["vocab"], key=model["vocab"].get)
    vocab = {token: i for i, token in enumerate(CONTROL + order)}
    merges = [" ".join(m) if isinstance(m, list) else m for m in model["merges"]]
    return S.tokenizer_json(vocab, merges, normalizer=None, pre={"type": "Sequence", "pretokenizers": pre}, post=None,
                            added_tokens=[S.added(i, t) for i, t in enumerate(CONTROL)], ignore_merges=True)


def main(out):
    rng = random.Random(3)
    rows = [json.loads(line) for line in (out / "texts.jsonl").open(encoding="utf-8")]
    text = json.dumps(tokenizer([r["text"] for r in rows]), ensure_ascii=False, indent=1)
    folder = out / "tiny-tekken"
    folder.mkdir(exist_ok=True)
    (folder / "tokenizer.json").write_text(text + "\n", encoding="utf-8")
    reference = G.Reference(text)
    write(folder / "encode.jsonl", [reference.case(r["id"], r["text"]) for r in rows])
    write(folder / "decode.jsonl", G.decode_cases(reference, rng, 60))
    write(folder / "long.jsonl", [{**{k: v for k, v in r.items() if k != "ids"}, "runs": [[i, len(list(g))] for i, g in groupby(r["ids"])]}
                                  for r in G.long_cases(reference, RUNS)])
    cut = pre_tokenizers.Split(Regex(TEKKEN_REGEX), "isolated")
    strings = ["".join(rng.choices(ALPHABET, k=rng.randint(1, 9))) for _ in range(4000)]
    write(folder / "words.jsonl", [[word for word, _ in cut.pre_tokenize_str(s)] for s in strings])


main(Path(sys.argv[1]))
