# SPDX-License-Identifier: Apache-2.0
"""learner_transformers.py MODEL_DIR float32|bfloat16|autocast MICRO_BATCH [--sequences 16] [--length 512] [--prompt 128]: forward, backward
and AdamW of TRL's clipped policy loss on random sequences, with transformers."""

import argparse
import os

os.environ.update({"TRANSFORMERS_VERBOSITY": "error", "HF_HUB_OFFLINE": "1", "TQDM_DISABLE": "1"})

import pathlib  # noqa: E402

import torch  # noqa: E402
from measure import REPETITIONS, THREADS, emit, peak_rss_mb, seconds_of, spread  # noqa: E402
from transformers import AutoModelForCausalLM  # noqa: E402
from trl.trainer.utils import selective_log_softmax  # noqa: E402

parser = argparse.ArgumentParser()
parser.add_argument("model")
parser.add_argument("dtype", choices=["float32", "bfloat16", "autocast"])
parser.add_argument("micro", type=int)
parser.add_argument("--sequences", type=int, default=16)
parser.add_argument("--length", type=int, default=512)
parser.add_argument("--prompt", type=int, default=128)
a = parser.parse_args()
torch.set_num_threads(THREADS)
torch.manual_seed(0)
dtype = torch.bfloat16 if a.dtype == "bfloat16" else torch.float32
model = AutoModelForCausalLM.from_pretrained(a.model, dtype=dtype).train()
autocast = torch.autocast("cpu", torch.bfloat16, enabled=a.dtype == "autocast")
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-6)
ids = torch.randint(10, model.config.vocab_size - 10, (a.sequences, a.length))
advantages = torch.randn(a.sequences)


def logprobs(rows):
    with autocast:
        logits = model(input_ids=rows, use_cache=False, logits_to_keep=a.length - a.prompt + 1).logits[:, :-1]
    return selective_log_softmax(logits.float(), rows[:, a.prompt:])


with torch.no_grad():
    old = torch.cat([logprobs(rows) for rows in ids.split(2)])


def update():
    for rows, before, advantage in zip(ids.split(a.micro), old.split(a.micro), advantages.split(a.micro), strict=True):
        ratio = (logprobs(rows) - before).exp()
        gain = torch.min(ratio * advantage[:, None], ratio.clamp(0.8, 1.2) * advantage[:, None])
        (-gain.mean() * (len(rows) / a.sequences)).backward()
    optimizer.step()
    optimizer.zero_grad(set_to_none=False)


update()
seconds = [seconds_of(update) for _ in range(REPETITIONS)]
tokens = a.sequences * a.length
emit({"bench": "learner", "engine": "transformers", "model": pathlib.Path(a.model).name, "dtype": a.dtype, "threads": THREADS,
      "tokens": tokens, "prompt": a.prompt, "update_s": spread(seconds), "train_tps": spread([tokens / s for s in seconds]),
      "peak_rss_mb": peak_rss_mb()}, "transformers", "torch", "trl")
