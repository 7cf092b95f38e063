# SPDX-License-Identifier: Apache-2.0
"""decode_transformers.py MODEL_DIR DTYPE BATCH...: transformers' generate(), greedy, with its cache; as decode_vllm.py measures."""

import os

os.environ.update({"TRANSFORMERS_VERBOSITY": "error", "HF_HUB_OFFLINE": "1"})

import pathlib  # noqa: E402
import statistics  # noqa: E402
import sys  # noqa: E402

import torch  # noqa: E402
from measure import NEW, PROMPT, REPETITIONS, THREADS, emit, peak_rss_mb, seconds_of, spread  # noqa: E402
from transformers import AutoModelForCausalLM  # noqa: E402

path, dtype, *batches = sys.argv[1:]
torch.set_num_threads(THREADS)
torch.manual_seed(0)
model = AutoModelForCausalLM.from_pretrained(path, dtype=getattr(torch, dtype)).eval()


def generate(prompts, count):
    model.generate(prompts, attention_mask=torch.ones_like(prompts), min_new_tokens=count, max_new_tokens=count, do_sample=False,
                   pad_token_id=0)


for batch in map(int, batches):
    prompts = torch.randint(10, model.config.vocab_size - 10, (batch, PROMPT))
    generate(prompts, 4)
    first = [seconds_of(lambda: generate(prompts, 1)) for _ in range(REPETITIONS)]
    whole = [seconds_of(lambda: generate(prompts, NEW)) for _ in range(REPETITIONS)]
    emit({"bench": "decode", "engine": "transformers", "model": pathlib.Path(path).name, "dtype": dtype, "threads": THREADS,
          "batch": batch, "decode_tps": spread([batch * (NEW - 1) / (s - statistics.median(first)) for s in whole]),
          "prefill_tps": spread([batch * PROMPT / s for s in first]), "peak_rss_mb": peak_rss_mb()}, "transformers", "torch")
