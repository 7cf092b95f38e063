# SPDX-License-Identifier: Apache-2.0
"""Tokenizer files and their reference encodings."""
import json
from pathlib import Path

import common as C
import fuzz
import sources as S
from tokenizers import Tokenizer, Regex
from tokenizers.pre_tokenizers import Digits, Split

TINY_TRAIN = (
    "You are a helpful assistant. Use the tools to answer. user assistant system tool name arguments result error "
    "the the the of and to in is that it for on with as at by this was are be from or an have not but what all were "
    "def return import for while if else print range len int str list dict True False None self class "
    "one two three four five six seven eight nine ten hello world hello world hello tool_call tool_response think "
) * 40


def tiny(kind: str, merges: int):
    """A trained byte-level BPE of a few hundred tokens in the style of a real family, for model directories."""
    from tokenizers import models, pre_tokenizers, trainers

    tk = Tokenizer(models.BPE())
    tk.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    trainer = trainers.BpeTrainer(
        vocab_size=256 + merges, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    tk.train_from_iterator([TINY_TRAIN], trainer)
    base = json.loads(tk.to_str())["model"]
    vocab, pairs = base["vocab"], [" ".join(m) if isinstance(m, list) else m for m in base["merges"]]
    if kind == "llama3":
        # a word that no merge makes: only ignore_merges=true finds it
        vocab["Ġzyzzyva"] = len(vocab)
        n = len(vocab)
        names = ["<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eom_id|>",
                 "<|eot_id|>", "<|python_tag|>"]
        added = [S.added(n + i, t) for i, t in enumerate(names)]
        pre = {"type": "Sequence", "pretokenizers": [S.split(S.LLAMA3_REGEX), S.byte_level(False)]}
        bos = {"SpecialToken": {"id": "<|begin_of_text|>", "type_id": 0}}
        post = {
            "type": "TemplateProcessing", "single": [bos, {"Sequence": {"id": "A", "type_id": 0}}],
            "pair": [bos, {"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": {"<|begin_of_text|>": {"id": "<|begin_of_text|>", "ids": [n], "tokens": ["<|begin_of_text|>"]}},
        }
        tok = S.tokenizer_json(vocab, pairs, normalizer=None, pre=pre, post=post, added_tokens=added, ignore_merges=True)
        cfg = {"bos_token": "<|begin_of_text|>", "eos_token": "<|eot_id|>", "pad_token": "<|end_of_text|>",
               "clean_up_tokenization_spaces": True, "tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": 512}
        return tok, cfg
    if kind == "smollm2":
        # like the real one: control tokens first, inside the vocabulary, and some bytes missing
        names = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
        drop = {chr(256 + b) for b in (0x04, 0x06, 0x13, 0x14, 0x16, 0x1D)}
        kept = [t for t, _ in sorted(vocab.items(), key=lambda kv: kv[1]) if t not in drop]
        vocab = {t: i for i, t in enumerate(names + kept)}
        added = [S.added(i, t) for i, t in enumerate(names)]
        pre = {"type": "Sequence", "pretokenizers": [{"type": "Digits", "individual_digits": True}, S.byte_level(True)]}
        tok = S.tokenizer_json(vocab, pairs, normalizer=None, pre=pre, post=None, added_tokens=added)
        cfg = {"bos_token": "<|im_start|>", "eos_token": "<|im_end|>", "pad_token": "<|im_end|>", "unk_token": "<|endoftext|>",
               "tokenizer_class": "GPT2Tokenizer", "model_max_length": 512, "clean_up_tokenization_spaces": False}
        return tok, cfg
    n = len(vocab)
    names = [("<|endoftext|>", True), ("<|im_start|>", True), ("<|im_end|>", True), ("<tool_call>", False), ("</tool_call>", False)]
    if kind == "qwen3":
        names += [("<tool_response>", False), ("</tool_response>", False), ("<think>", False), ("</think>", False)]
    added = [S.added(n + i, t, sp) for i, (t, sp) in enumerate(names)]
    pre = {"type": "Sequence", "pretokenizers": [S.split(S.QWEN_REGEX), S.byte_level(False, trim=False)]}
    tok = S.tokenizer_json(vocab, pairs, normalizer={"type": "NFC"}, pre=pre, post=S.byte_level(False, trim=False),
                           added_tokens=added, pairs=(kind == "qwen3"))
    tok["decoder"] = S.byte_level(False, trim=False)
    cfg = {"bos_token": None, "eos_token": "<|im_end|>", "pad_token": "<|endoftext|>", "unk_token": None,
           "tokenizer_class": "Qwen2Tokenizer", "model_max_length": 512, "clean_up_tokenization_spaces": False}
    return tok, cfg


class Reference:
    """A tokenizer with added-token matching on and off."""

    def __init__(self, text: str):
        tok = json.loads(text)
        self.json = tok
        self.on = Tokenizer.from_str(text)
        self.off = Tokenizer.from_str(json.dumps(S.without_added(tok)))
        self.contents = [a["content"] for a in tok["added_tokens"]]
        self.special = [a["content"] for a in tok["added_tokens"] if a["special"]]

    def case(self, key, text):
        ids = self.on.encode(text, add_special_tokens=False).ids
        row = {"id": key, "ids": ids}
        plain = self.off.encode(text, add_special_tokens=False).ids
        if plain != ids:
            row["ids_plain"] = plain
        back = self.on.decode(ids, skip_special_tokens=False)
        if back != text:
            row["decoded"] = back
        return row


def decode_cases(ref: Reference, rng, count: int):
    """Random id sequences, most of which are not valid UTF-8 when joined."""
    size = ref.on.get_vocab_size(with_added_tokens=True)
    top = max([size - 1] + [a["id"] for a in ref.json["added_tokens"]])
    byte_ids = sorted(i for t, i in ref.json["model"]["vocab"].items() if len(t) == 1)
    specials = [a["id"] for a in ref.json["added_tokens"]]
    rows = []
    for n in range(count):
        k = rng.randint(1, 12)
        pool = (byte_ids if n % 3 == 0 else range(top + 1)) if n % 3 < 2 else None
        ids = [rng.choice(pool) for _ in range(k)] if pool is not None else [
            rng.choice([rng.choice(byte_ids), rng.randrange(top + 1), rng.choice(specials)]) for _ in range(k)
        ]
        row = {"id": f"decode-{n:03d}", "ids": ids, "text": ref.on.decode(ids, skip_special_tokens=False)}
        skipped = ref.on.decode(ids, skip_special_tokens=True)
        if skipped != row["text"]:
            row["text_skip_special"] = skipped
        rows.append(row)
    return rows


def long_cases(ref: Reference, runs):
    """Very long runs, described rather than stored: prefix + unit * count + suffix."""
    rows = []
    for key, prefix, unit, count, suffix in runs:
        ids = ref.on.encode(prefix + unit * count + suffix, add_special_tokens=False).ids
        rows.append({"id": key, "prefix": prefix, "unit": unit, "count": count, "suffix": suffix, "ids": ids})
    return rows


def to_ranges(hits):
    out = []
    for c in sorted(set(hits)):
        if out and out[-1][1] == c - 1:
            out[-1][1] = c
        else:
            out.append([c, c])
    return out


def unicode_ranges(pattern: str):
    """Code points that the reference's regex engine (or its Digits pre-tokenizer) puts in a class, as inclusive ranges."""
    splitter = Digits(individual_digits=True) if pattern == "Digits" else Split(Regex(pattern), "isolated")
    sep = next(c for c in "!a0" if len(splitter.pre_tokenize_str(c + c)) == 1)  # a character outside the class
    hits = []
    step = 4096
    for base in range(0, 0x110000, step):
        cps = [c for c in range(base, base + step) if not 0xD800 <= c < 0xE000 and chr(c) != sep]
        if not cps:
            continue
        for s, (a, b) in splitter.pre_tokenize_str(sep + sep.join(chr(c) for c in cps) + sep):
            if b - a == 1 and s != sep:
                hits.append(ord(s))
    return to_ranges(hits)


CLASSES = {"L": r"\p{L}", "N": r"\p{N}", "M": r"\p{M}", "Lu": r"\p{Lu}", "Ll": r"\p{Ll}", "Lt": r"\p{Lt}", "Lm": r"\p{Lm}",
           "Lo": r"\p{Lo}", "P": r"\p{P}", "S": r"\p{S}", "s": r"\s", "d": r"\d", "Digits": "Digits"}


def unicode_tables() -> dict:
    """What the reference believes about Unicode: regex classes and the marks that its NFC moves."""
    import unicodedata
    from tokenizers.normalizers import NFC

    nfc = NFC()
    nonstarters, single = [0x345], []
    for c in range(0x110000):
        if 0xD800 <= c < 0xE000:
            continue
        ch = chr(c)
        if nfc.normalize_str(ch) != unicodedata.normalize("NFC", ch):
            single.append(c)
        # U+0345 has the highest combining class, so every other non-starter moves in front of it; so do the
        # parts of a starter that decomposes into marks, which is not listed
        if unicodedata.combining(ch) == 0 and unicodedata.decomposition(ch) and not unicodedata.decomposition(ch).startswith("<"):
            continue
        if c != 0x345 and nfc.normalize_str("b\u0345" + ch).endswith("\u0345"):
            nonstarters.append(c)
    return {
        "note": "inclusive code point ranges as the reference sees them; s and d are the regex classes \\s and \\d; Digits is"
        " the class of the Digits pre-tokenizer, which is newer than the regex engine's N; nfc_nonstarters"
        " are the code points whose combining class is not zero in the reference's NFC tables",
        "classes": {k: unicode_ranges(v) for k, v in CLASSES.items()},
        "nfc_nonstarters": to_ranges(nonstarters),
        "nfc_single_code_point_differences_to_unicode_14": single,
    }


def build_set(out: Path, name: str, text: str, rows, rng, runs, decode_count=300):
    """Encodings of one tokenizer for the shared texts."""
    ref = Reference(text)
    C.write_jsonl(out / name / "encode.jsonl.gz", (ref.case(k, t) for k, t in rows))
    C.write_jsonl(out / name / "decode.jsonl.gz", decode_cases(ref, rng, decode_count))
    C.write_jsonl(out / name / "long.jsonl.gz", long_cases(ref, runs))
    return ref
