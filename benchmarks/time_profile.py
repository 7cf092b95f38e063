#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Where updates, prefills and decoding steps spend their time, and the lead learner a trajectory's: `perf record` of the benchmarks, symbols
gathered into the columns of docs/performance.md. Needs Linux' perf, and the models of peers/setup.sh.

    benchmarks/time_profile.py [--build build/app] [--peers build/peers] [ROW...]      a row is so many words of its name, such as "update, 3m"; "lead"
"""

import argparse
import collections
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
LEAD = "lead, 64 workers"
# Of the lead's time while it collects a step: what is below one function, innermost first.
LEAD_COLUMNS = {"reading a record": "decode_trajectory", "the journal": "Journal::append", "waiting": "Backoff|nanosleep"}


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
                                                                             "--repetitions", {"3m": 1600 if batch == 1 else 80, "smollm2-135m": 10 if batch == 1 else 2}[model]]


def shares(command):
    """Column -> its share of the samples; what is in none is left out."""
    with tempfile.NamedTemporaryFile() as data:
        subprocess.run(["perf", "record", "-q", "-e", "cpu-clock", "-F", "1999", "-D", str(WARM_MS), "-o", data.name, *map(str, command)],
                       check=True, stdout=subprocess.DEVNULL, env={**os.environ, "OMP_NUM_THREADS": str(THREADS)})
        report = subprocess.run(["perf", "report", "-i", data.name, "--stdio", "--no-children", "-F", "overhead,dso,symbol"], check=True,
                                stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True).stdout
    found = dict.fromkeys(COLUMNS, 0.0)
    for line in report.splitlines():
        share, _, what = line.strip().partition("%")
        if not line.startswith("#") and what:
            column = next((name for name, pattern in COLUMNS.items() if re.search(pattern, what)), None)
            if column:
                found[column] += float(share)
    if sum(found.values()) < 50:
        raise SystemExit(f"{command}: no profile; it may end within the {WARM_MS / 1000:.0f} s that are left out, or perf may need kernel.perf_event_paranoid <= 1")
    return found


def lead_shares(program):
    """Of the samples below Collector::collect: those below each function of LEAD_COLUMNS, and the rest, which is the messages'."""
    with tempfile.NamedTemporaryFile(dir=".") as data:
        subprocess.run(["perf", "record", "-q", "-e", "cpu-clock", "-F", "999", "--call-graph", "dwarf,4096", "-o", data.name, program, "64"],
                       check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        stacks = subprocess.run(["perf", "script", "-i", data.name, "-F", "ip,sym", "--no-inline"], check=True, stdout=subprocess.PIPE,
                                stderr=subprocess.DEVNULL, text=True).stdout.split("\n\n")
    stacks = [stack for stack in stacks if "Collector::collect" in stack]
    found = collections.Counter(next((name for name, pattern in LEAD_COLUMNS.items() if re.search(pattern, stack)), "messages") for stack in stacks)
    return {name: 100 * found[name] / len(stacks) for name in ("messages", *LEAD_COLUMNS)}


def print_row(name, found):
    print(f"| {name} | " + " | ".join(f"{share:.0f} %" for share in found.values()) + " |", flush=True)


def print_head(columns):
    print("| | " + " | ".join(columns) + " |", "|---|" + "---|" * len(columns), sep="\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    root = pathlib.Path(__file__).resolve().parent.parent
    parser.add_argument("--build", type=pathlib.Path, default=root / "build/app")
    parser.add_argument("--peers", type=pathlib.Path, default=root / "build/peers")
    parser.add_argument("row", nargs="*")
    options = parser.parse_args()
    wanted = [row for row in (*rows(), (LEAD, None, None)) if not options.row or any(row[0].startswith(word) for word in options.row)]
    models = [row for row in wanted if row[0] != LEAD]
    if models:
        print_head(COLUMNS)
    for name, model, (program, *words) in models:
        print_row(name, shares([options.build / "benchmarks" / program, options.peers / "models" / model, *words]))
    if len(wanted) > len(models):
        print_head(["messages", *LEAD_COLUMNS])
        print_row(LEAD, lead_shares(options.build / "benchmarks/scale_benchmark"))


if __name__ == "__main__":
    main()
