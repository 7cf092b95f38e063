# SPDX-License-Identifier: Apache-2.0
"""compare.py PROGRAM TOKENIZER_JSON...: encoding speed of Rollcall and of Hugging Face's `tokenizers`, one thread each,
in one run.

PROGRAM is tokenizer_benchmark. Both encode the same documents, turn by turn; the ratio is the median of the pairs, with the extremes. Times
are of the processor. Ids are compared first. Needs the package tokenizers. The text: English and code from this Python's own library, JSON of random
records, and Chinese and Japanese characters drawn at random, frequent ones more often.
"""

import argparse
import array
import json
import os
import pathlib
import random
import statistics
import subprocess
import sysconfig
import tempfile
import time

os.environ.update(TOKENIZERS_PARALLELISM="false", RAYON_NUM_THREADS="1")
import tokenizers  # noqa: E402

DOCUMENT = 4000  # characters


def code(size):
    sources = sorted(pathlib.Path(sysconfig.get_paths()["stdlib"]).glob("*.py"))
    return "".join(path.read_text("utf-8", "ignore") for path in sources)[:size]


def english(size):
    """The paragraphs of doc strings: runs of lines that hold no code."""
    lines = [line.strip() for line in code(1 << 24).splitlines()]
    words = [line for line in lines if len(line) > 40 and not set(line) & set("()[]{}=_\\<>|@") and line[0].isalpha()]
    return " ".join(words)[:size]


def records(size, dice):
    names = [word for word in english(100_000).split() if word.isalpha()]
    def record():
        return {"id": dice.randrange(10**6), "name": " ".join(dice.choices(names, k=2)), "price": round(dice.random() * 100, 2),
                "tags": dice.choices(names, k=3), "open": dice.random() < 0.5}
    text = "\n".join(json.dumps(record()) for _ in range(size // 100))
    return text[:size]


def cjk(size, dice):
    characters = [chr(c) for c in (*range(0x4E00, 0x9FA5), *range(0x3041, 0x3097), *range(0x30A1, 0x30FB))]
    dice.shuffle(characters)
    weights = [1 / (10 + rank) for rank in range(len(characters))]
    drawn = dice.choices(characters, weights, k=size)
    for i in range(0, size, 17):
        drawn[i] = dice.choice("，。、「」！？")
    return "".join(drawn)


def texts(megabytes):
    """Kind -> documents. A character of CJK takes three bytes."""
    dice, size = random.Random(1), int(megabytes * 1e6)
    kinds = {"english": english(size), "code": code(size), "json": records(size, dice), "cjk": cjk(size // 3, dice)}
    cut = {kind: [t[i : i + DOCUMENT] for i in range(0, len(t), DOCUMENT)] for kind, t in kinds.items()}
    return {kind: [document.replace("\0", " ") for document in documents] for kind, documents in cut.items()}


class Ours:
    def __init__(self, program, tokenizer, documents, folder):
        file, ids = folder / "documents", folder / "ids"
        file.write_bytes(b"".join(document.encode() + b"\0" for document in documents))
        command = [program, tokenizer, file, ids]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        if self._process.stdout.readline() != "ready\n":
            raise SystemExit(f"{program} failed with {tokenizer}")
        self.ids = array.array("i", ids.read_bytes())

    def seconds(self):
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        return float(self._process.stdout.readline())

    def stop(self):
        self._process.communicate()


class Theirs:
    def __init__(self, tokenizer, documents):
        self._tokenizer, self._documents = tokenizers.Tokenizer.from_file(str(tokenizer)), documents
        self.ids = array.array("i")
        for encoding in self._encode():
            self.ids.extend([*encoding.ids, -1])

    def _encode(self):
        return self._tokenizer.encode_batch_fast(self._documents, add_special_tokens=False)

    def seconds(self):
        begin = time.process_time()
        self._encode()
        return time.process_time() - begin


def compare(program, tokenizer, kind, documents, repetitions):
    with tempfile.TemporaryDirectory() as folder:
        ours, theirs = Ours(program, tokenizer, documents, pathlib.Path(folder)), Theirs(tokenizer, documents)
        if ours.ids != theirs.ids:
            raise SystemExit(f"{tokenizer}, {kind}: the ids differ")
        pairs = [(ours.seconds(), theirs.seconds()) for _ in range(repetitions)]
        ours.stop()
    size = sum(len(document.encode()) for document in documents) / 1e6
    mine, other = (size / statistics.median(column) for column in zip(*pairs))
    ratios = sorted(t / o for o, t in pairs)
    print(f"{tokenizer.parent.name:<14}{kind:<9}{size:6.2f}{mine:9.1f}{other:9.1f}"
          f"{statistics.median(ratios):8.2f}  ({ratios[0]:.2f} - {ratios[-1]:.2f})", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("program")
    parser.add_argument("tokenizers", nargs="+", type=pathlib.Path)
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--megabytes", type=float, default=1.0, help="of each kind of text")
    options = parser.parse_args()
    kinds = texts(options.megabytes)
    kinds["mixed"] = [document for four in zip(*kinds.values()) for document in four]
    print(f"tokenizers {tokenizers.__version__}\n{'':<23}{'MB':>6}{'ours':>9}{'theirs':>9}{'ratio':>8}  MB/s; ratio above 1: ours is faster")
    for tokenizer in options.tokenizers:
        for kind, documents in kinds.items():
            compare(options.program, tokenizer, kind, documents, options.repetitions)


if __name__ == "__main__":
    main()
