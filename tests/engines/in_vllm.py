# SPDX-License-Identifier: Apache-2.0
"""in_vllm.py MODEL PROMPT_IDS COUNT: the greedy continuation of a prompt by vLLM on the CPU, as one JSON line.

It is too large for ./test: vllm.sh makes a Python that has it.
"""

import json
import os
import sys

os.environ.update(VLLM_CPU_KVCACHE_SPACE="1", VLLM_ENABLE_V1_MULTIPROCESSING="0", VLLM_NO_USAGE_STATS="1", HF_HUB_OFFLINE="1")


def main():
    from vllm import LLM, SamplingParams

    folder, prompt, count = sys.argv[1], json.loads(sys.argv[2]), int(sys.argv[3])
    engine = LLM(model=folder, dtype="float32", max_model_len=512, max_num_seqs=1, enforce_eager=True)
    sampling = SamplingParams(max_tokens=count, temperature=0.0, logprobs=0, repetition_penalty=1.0)
    answer = engine.generate([{"prompt_token_ids": prompt}], sampling)[0].outputs[0]
    ids = list(answer.token_ids)
    logprobs = [chosen[token].logprob for token, chosen in zip(ids, answer.logprobs)]
    print(json.dumps({"ids": ids, "logprobs": logprobs, "text": answer.text}))


if __name__ == "__main__":
    main()
