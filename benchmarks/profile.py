#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Where updates, prefills and decoding steps spend their time: `perf record` of the benchmarks, symbols gathered into the columns of
docs/performance.md. Needs Linux' perf, and the models of peers/setup.sh.

    benchmarks/profile.py [--build build/app] [--peers build/peers] [ROW...]      a row is so many words of its name, such as "update, 3m"
"""

import argparse
import os
import pathlib
import re
import subprocess
import tempfile

from peers.measure import THREADS

# The first that a symbol or its library matches.
COLUMNS = {
    "waiting": r"libgomp",
    "attention": r"attend|score_|mix_stretch|gradient_team|gradient_scores|gradient_rows|HeadAttention|attention_",
    "log-probabilities, sampling": r"Logprob|logit_gradients|softmax|logsumexp|exponentials|sample",
    "packing, rounding": r"pack|round|transpose|store_key",
    "products": r"linear|outer|share_products|gemm",
    "elementwise": r"norm|rope|silu|add_product|Vectorized|memmove|memset|AdamW|Forward|embed",
}
WARM_MS = 4000


def rows():
    """Name -> words of its command, behind the model."""
    for model in ("3m", "smollm2-135m"):
        for dtype in ("float32", "bfloat16"):
            update = ["--sequences", "4", "--max-tokens", "1024"] if model != "3m" else ["--sequences", "16"]
            yield f"update, {model}, {dtype}", model, ["learner_benchmark", *update, "--dtype", dtype, "--repetitions", 12 if model == "3m" else 2]
            yield f"prefill, {model}, {dtype}, 64 prompts of 128", model, ["engine_benchmark", 64, "--new", 2, "--dtype", dtype, "--repetitions",
                                                                          50 if model == "3m" else 2]
            for batch in (1, 64):
                yield f"decode, {model}, {dtype}, {batch} at once", model, ["engine_benchmark", batch, "--prompt", 16, "--dtype", dtype,
                                                                             "--repetitions", {"3m": 400, "smollm2-135m": 10}[model] // (1 if batch == 1 else 8) + 1]


def shares(command):
    """Column -> its share of the samples; what is in none is left out."""
    with tempfile.NamedTemporaryFile() as data:
        subprocess.run(["perf", "record", "-q", "-e", "cpu-clock", "-F", "1999", "-D", str(WARM_MS), "-o", data.name, *map(str, command)],
                       check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env={**os.environ, "OMP_NUM_THREADS": str(THREADS)})
        report = subprocess.run(["perf", "report", "-i", data.name, "--stdio", "--no-children", "-F", "overhead,dso,symbol"], check=True,
                                stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True).stdout
    found = dict.fromkeys(COLUMNS, 0.0)
    for line in report.splitlines():
        share, _, what = line.strip().partition("%")
        if not line.startswith("#") and what:
            column = next((name for name, pattern in COLUMNS.items() if re.search(pattern, what)), None)
            if column:
                found[column] += float(share)
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    root = pathlib.Path(__file__).resolve().parent.parent
    parser.add_argument("--build", type=pathlib.Path, default=root / "build/app")
    parser.add_argument("--peers", type=pathlib.Path, default=root / "build/peers")
    parser.add_argument("row", nargs="*")
    options = parser.parse_args()
    print("| | " + " | ".join(COLUMNS) + " |", "|---|" + "---|" * len(COLUMNS), sep="\n")
    for name, model, (program, *words) in rows():
        if not options.row or any(name.startswith(row) for row in options.row):
            found = shares([options.build / "benchmarks" / program, options.peers / "models" / model, *words])
            print(f"| {name} | " + " | ".join(f"{found[column]:.0f} %" for column in COLUMNS) + " |", flush=True)


if __name__ == "__main__":
    main()
