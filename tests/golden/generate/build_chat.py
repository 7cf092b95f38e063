# SPDX-License-Identifier: Apache-2.0
"""Build chat/: python build_chat.py SOURCES OUT (after the tokenizers)"""
import sys
from pathlib import Path

import common as C
import conversations
import gen_chat as G
import parse_cases
import sources as S
from build_tokenizers import strip_qwen3_only

QWEN_TEMPLATES = ("qwen2_5", "qwen3", "qwen3_rev", "qwen3_instruct_2507", "smollm2")


def templates(src: Path) -> dict:
    out = {n: S.template(src, n) for n in ("qwen2_5", "qwen3_instruct_2507", "llama3_1", "llama3_2")}
    out["qwen3"] = S.qwen3_config(src)["chat_template"]  # as published with the models in April 2025
    out["qwen3_rev"] = S.template(src, "qwen3")  # a later revision
    out["smollm2"] = S.smollm2(src)[1]["chat_template"]
    return out


def tokenizer_texts(out: Path) -> dict:
    qwen3 = C.read_bytes(out / "tokenizers/qwen3/tokenizer.json.gz").decode()
    return {
        "qwen2_5": strip_qwen3_only(qwen3), "qwen3": qwen3, "qwen3_rev": qwen3, "qwen3_instruct_2507": qwen3,
        "smollm2": C.read_bytes(out / "tokenizers/smollm2/tokenizer.json.gz").decode(),
        "llama3_1": (out / "tokenizers/tiny-llama3/tokenizer.json").read_text(),
        "llama3_2": (out / "tokenizers/tiny-llama3/tokenizer.json").read_text(),
    }


def parse_rows(cases):
    return [{"id": k, "format": f, "text": t, "expect_any": list(o)} for k, f, t, *o in cases]


def main(src: Path, out: Path):
    tmpl, toks = templates(src), tokenizer_texts(out)
    fams = [G.Family(n, tmpl[n], toks[n], "<|begin_of_text|>" if n.startswith("llama") else None) for n in G.STOP]
    n = G.build(out / "chat/render.jsonl.gz", fams, conversations.CONVERSATIONS)
    m = C.write_jsonl(out / "chat/parse.jsonl", parse_rows(parse_cases.CASES))
    for name in QWEN_TEMPLATES:
        (out / "chat/templates").mkdir(parents=True, exist_ok=True)
        (out / f"chat/templates/{name}.jinja").write_text(tmpl[name], encoding="utf-8")
    C.write_json(out / "chat/fingerprints.json", {
        k: {"sha256": C.sha256(v.encode()), "sha256_without_trailing_newline": C.sha256(v.rstrip("\n").encode()), "bytes": len(v.encode())}
        for k, v in sorted(tmpl.items())}, indent=2)
    print("render", n, "parse", m)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
