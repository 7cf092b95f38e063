# SPDX-License-Identifier: Apache-2.0
"""in_transformers.py MODEL PROMPT_IDS COUNT: the greedy continuation of a prompt by transformers, as one JSON line."""

import json
import sys

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer


def main():
    folder, prompt, count = sys.argv[1], json.loads(sys.argv[2]), int(sys.argv[3])
    model, loading = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, output_loading_info=True)
    assert not any(loading.values()), loading
    ids = torch.tensor([prompt])
    with torch.no_grad():
        logits = model(ids).logits[0]
        out = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=count, do_sample=False, repetition_penalty=1.0,
                             output_logits=True, return_dict_in_generate=True)
    new = out.sequences[0, len(prompt):]
    logprobs = torch.log_softmax(torch.cat(out.logits), -1)[torch.arange(len(new)), new]
    text = AutoTokenizer.from_pretrained(folder).decode(new)
    print(json.dumps({"ids": new.tolist(), "logprobs": logprobs.tolist(), "text": text, "logits": logits.tolist()}))


if __name__ == "__main__":
    main()
