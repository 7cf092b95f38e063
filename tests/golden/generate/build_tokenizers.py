# SPDX-License-Identifier: Apache-2.0
"""Build tokenizers/: python build_tokenizers.py SOURCES OUT/tokenizers"""
import json
import random
import sys
from pathlib import Path

import common as C
import fuzz
import gen_tokenizers as G
import sources as S
import texts

RUNS = [
    ("run-a-1000000", "", "a", 1_000_000, ""), ("run-space-100000", "x", " ", 100_000, "y"), ("run-newline-50000", "", "\n", 50_000, ""),
    ("run-eq-65536", "", "=", 65_536, ""), ("run-zero-9999", "", "0", 9_999, " "), ("run-hiragana-30000", "", "あ", 30_000, ""),
    ("run-emoji-5000", "", "👩‍👩‍👧‍👦", 5_000, ""), ("run-word-20000", "The", " token", 20_000, "."), ("run-crlf-5000", "", "\r\n", 5_000, "x"),
    ("run-abc-200000", "", "abcdefghij", 20_000, ""),
]


def strip_qwen3_only(text: str) -> str:
    """Qwen2.5's tokenizer: the same vocabulary and merges without the four tokens that Qwen3 added."""
    tok = json.loads(text)
    tok["added_tokens"] = [a for a in tok["added_tokens"] if a["id"] <= 151664]
    return json.dumps(tok, ensure_ascii=False, indent=2)


def main(src: Path, out: Path):
    rng = random.Random(20240607)
    qwen3 = S.qwen3_bytes(src).decode("utf-8")
    smol, smol_cfg = S.smollm2(src)
    gpt2, gpt2_cfg = S.gpt2(src)
    reals = {"qwen3": qwen3, "smollm2": json.dumps(smol, ensure_ascii=False), "gpt2": json.dumps(gpt2, ensure_ascii=False)}
    added = []
    for t in reals.values():
        added += [a["content"] for a in json.loads(t)["added_tokens"] if a["content"] not in added]
    rows = [(f"{cat}-{i:03d}", t) for i, (cat, t) in enumerate(texts.cases(added))]
    rows += [(f"fuzz-{i:04d}", t) for i, t in enumerate(fuzz.strings(rng, 2000, added))]
    C.write_jsonl(out / "texts.jsonl.gz", ({"id": k, "text": t} for k, t in rows))

    cfgs = {"qwen3": S.qwen3_config(src), "smollm2": smol_cfg, "gpt2": gpt2_cfg}
    refs = {}
    for name, text in reals.items():
        C.write_bytes_gz(out / name / "tokenizer.json.gz", text.encode("utf-8"))
        C.write_json(out / name / "tokenizer_config.json", cfgs[name], indent=2)
        refs[name] = G.build_set(out, name, text, rows, rng, RUNS)

    # Qwen2.5: only what differs from Qwen3
    cfg = json.loads(json.dumps(cfgs["qwen3"]))
    cfg["added_tokens_decoder"] = {k: v for k, v in cfg["added_tokens_decoder"].items() if int(k) <= 151664}
    cfg["chat_template"] = S.template(src, "qwen2_5")
    C.write_json(out / "qwen2_5" / "tokenizer_config.json", cfg, indent=2)
    ref = G.Reference(strip_qwen3_only(qwen3))
    diff = []
    for k, t in rows:
        a, b = ref.case(k, t), refs["qwen3"].case(k, t)
        if a != b:
            diff.append(a)
    C.write_jsonl(out / "qwen2_5" / "encode_diff.jsonl.gz", diff)

    for kind, merges in (("qwen3", 96), ("qwen2_5", 64), ("llama3", 80), ("smollm2", 72)):
        tok, cfg = G.tiny(kind, merges)
        name = f"tiny-{kind}"
        text = json.dumps(tok, ensure_ascii=False, indent=1)
        (out / name).mkdir(parents=True, exist_ok=True)
        (out / name / "tokenizer.json").write_text(text + "\n", encoding="utf-8")
        C.write_json(out / name / "tokenizer_config.json", cfg, indent=2)
        part = rows[:-2000] + rows[-2000::10]
        tiny_added = [a["content"] for a in tok["added_tokens"]]
        part += [(f"own-{i:03d}", t) for i, t in enumerate(f"{a}{b}{c}" for a in ("", "x ", " zyzzyva", "e\u0301\n") for b in tiny_added for c in ("", " y", "\n"))]
        G.build_set(out, name, text, part, rng, RUNS[1:5], decode_count=60)
        C.write_jsonl(out / name / "own_texts.jsonl.gz", ({"id": k, "text": t} for k, t in part if k.startswith("own-")))
    C.write_json(out / "unicode.json", G.unicode_tables())
    print("texts", len(rows), "qwen2_5 differences", len(diff))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
