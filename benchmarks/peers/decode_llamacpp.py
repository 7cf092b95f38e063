# SPDX-License-Identifier: Apache-2.0
"""decode_llamacpp.py LLAMA_BATCHED_BENCH MODEL.gguf TYPE BATCH...: llama.cpp's own benchmark, which does not sample at all."""

import json
import pathlib
import resource
import subprocess
import sys

from measure import NEW, PROMPT, REPETITIONS, THREADS, emit, peak_rss_mb, spread

program, model, dtype, *batches = sys.argv[1:]
most = max(map(int, batches))
command = [program, "-m", model, "-npp", PROMPT, "-ntg", NEW, "-npl", ",".join(batches), "-c", most * (PROMPT + NEW) + 256,
           "-b", 2048, "-ub", 512, "-t", THREADS, "-tb", THREADS, "--output-format", "jsonl"]
rates = {}
for _ in range(REPETITIONS):
    done = subprocess.run(list(map(str, command)), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, check=True)
    for line in done.stdout.splitlines():
        if line.startswith("{"):
            row = json.loads(line)
            rates.setdefault(row["pl"], []).append((row["speed_tg"], row["speed_pp"]))
for batch, seen in sorted(rates.items()):
    decode, prefill = zip(*seen, strict=True)
    emit({"bench": "decode", "engine": "llama.cpp", "model": pathlib.Path(model).stem.split(".")[0], "dtype": dtype,
          "threads": THREADS, "batch": batch, "decode_tps": spread(decode), "prefill_tps": spread(prefill),
          "peak_rss_mb": peak_rss_mb(resource.RUSAGE_CHILDREN)})
