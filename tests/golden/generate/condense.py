# SPDX-License-Identifier: Apache-2.0
"""Cuts the reference data down to what the unit tests read: python3 condense.py REFERENCE tests/golden

REFERENCE holds tokenizers/ and chat/ as build_tokenizers.py and build_chat.py write them. Needs the package
`tokenizers`: the ids of conversations are re-encoded with the tiny tokenizers, run by run between control tokens.
"""
import gzip
import json
import shutil
import sys
from itertools import groupby
from pathlib import Path

from tokenizers import Tokenizer

TINY = ("tiny-llama3", "tiny-qwen2_5", "tiny-qwen3", "tiny-smollm2")
WITH_IDS = {"user", "parallel", "look-alike", "look-alike-plain", "thinking-loop", "thinking-off", "unicode", "odd-whitespace", "middle-system"}


def read(path):
    return [json.loads(line) for line in gzip.decompress(path.read_bytes()).decode("utf-8").split("\n") if line]


def write(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(r, ensure_ascii=False, separators=(",", ":")) + "\n" for r in rows), encoding="utf-8")


def tokenizers(source, out):
    texts = {r["id"]: r["text"] for r in read(source / "texts.jsonl.gz")}
    used = set()
    for name in TINY:
        (out / name).mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source / name / "tokenizer.json", out / name / "tokenizer.json")
        own = {r["id"]: r["text"] for r in read(source / name / "own_texts.jsonl.gz")}
        rows = read(source / name / "encode.jsonl.gz")
        used |= {r["id"] for r in rows} - set(own)
        write(out / name / "encode.jsonl", [dict(r, text=own[r["id"]]) if r["id"] in own else r for r in rows])
        write(out / name / "decode.jsonl", read(source / name / "decode.jsonl.gz"))
        runs = [{**{k: v for k, v in r.items() if k != "ids"}, "runs": [[i, len(list(g))] for i, g in groupby(r["ids"])]} for r in read(source / name / "long.jsonl.gz")]
        write(out / name / "long.jsonl", runs)
    write(out / "texts.jsonl", [{"id": k, "text": t} for k, t in texts.items() if k in used])
    shutil.copyfile(source / "unicode.json", out / "unicode.json")


class Recoder:
    """Ids of a real tokenizer, said again by a tiny one of the same family."""

    def __init__(self, real, tiny):
        self.real, self.control = Tokenizer.from_str(real), {a["id"]: a["content"] for a in json.loads(real)["added_tokens"]}
        self.added = {a["content"]: a["id"] for a in json.loads(tiny)["added_tokens"]}
        plain = dict(json.loads(tiny), added_tokens=[], post_processor=None)
        self.plain = Tokenizer.from_str(json.dumps(plain))

    def ids(self, ids):
        out = []
        for control, run in groupby(ids, lambda i: i in self.control):
            out += [self.added[self.control[i]] for i in run] if control else self.plain.encode(self.real.decode(list(run)), add_special_tokens=False).ids
        return out


def chat(source, out, tokenizers_dir):
    qwen = gzip.decompress((tokenizers_dir / "qwen3/tokenizer.json.gz").read_bytes()).decode()
    smol = gzip.decompress((tokenizers_dir / "smollm2/tokenizer.json.gz").read_bytes()).decode()
    tiny = {n: (tokenizers_dir / n / "tokenizer.json").read_text("utf-8") for n in TINY}
    recoders = {"qwen3": Recoder(qwen, tiny["tiny-qwen3"]), "smollm2": Recoder(smol, tiny["tiny-smollm2"])}
    rows = []
    for r in read(source / "render.jsonl.gz"):
        key, family = r["id"].split("/")[1], r["template"]
        r.pop("ids_plain_hf", None)
        recoder = None if family.startswith("llama") else recoders["smollm2" if family == "smollm2" else "qwen3"]
        keep = key in WITH_IDS and family != "qwen2_5"
        for part in [r, *r.get("deltas", [])]:
            ids = part.pop("ids", None)
            if keep and ids:
                part["ids"] = recoder.ids(ids) if recoder else ids
        rows.append(r)
    write(out / "render.jsonl", rows)
    shutil.copyfile(source / "parse.jsonl", out / "parse.jsonl")
    for path in sorted((source / "templates").iterdir()):
        (out / "templates").mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, out / "templates" / path.name)


def main():
    source, out = Path(sys.argv[1]), Path(sys.argv[2])
    tokenizers(source / "tokenizers", out / "tokenizers")
    chat(source / "chat", out / "chat", source / "tokenizers")


if __name__ == "__main__":
    main()
