# SPDX-License-Identifier: Apache-2.0
"""What is exported continues a prompt in other engines as it does here: the same greedy text and log-probabilities.

ROLLCALL_HF_PYTHON names a Python with the packages of tests/engines/requirements.txt; ./test makes one.
"""

import os
import shutil
import sys
import unittest

from engines import IDS, TOLERANCE, EngineCase, greedy, in_engine, rollcall
from places import GOLDEN_MODELS

PYTHON = os.environ.get("ROLLCALL_HF_PYTHON")

# Small models, how llama.cpp would call their way of cutting text into words, and whose tokenizer one without borrows.
# llama.cpp has no window for mistral, and SmolLM3's layers without positions at a fixed interval only.
MODELS = {
    "qwen3-tied": ("qwen2", None),
    "qwen3-untied-sharded": ("qwen2", None),
    "qwen3-yarn": ("qwen2", "qwen3-tied"),
    "qwen2-untied": ("smollm", "llama-tied-bf16"),
    "llama3-scaled-sharded": ("llama-bpe", None),
    "llama-bias-v5": ("llama-bpe", None),
    "llama-tied-bf16": ("smollm", None),
    "smollm3-nope": (None, "llama-bias-v5"),
    "mistral-window": (None, "llama-bias-v5"),
}
TOKENIZER = ("tokenizer.json", "tokenizer_config.json")


class Engines(EngineCase):
    def compare(self, model, prompt, pre):
        ours = greedy(model, prompt)
        with self.subTest("transformers", model=model.name):
            theirs = in_engine(PYTHON, "in_transformers.py", model, prompt)
            self.assert_same_continuation(ours, theirs, f"{model.name}, transformers")
            self.assertEqual(theirs["text"], self.decode(model, theirs["ids"]))
            self.assert_close(ours["logits"], theirs["logits"], f"{model.name}, transformers, logits")
        if pre is None:
            return
        with self.subTest("llama.cpp", model=model.name):
            theirs = in_engine(PYTHON, "in_llama_cpp.py", model, prompt, pre)
            text = self.decode(model, ours["ids"])
            self.assertTrue(theirs["text"])
            self.assertTrue(text.startswith(theirs["text"]), (text, theirs["text"]))
            listed = self.listed(ours, theirs)
            self.assert_close(listed, theirs["logprobs"], f"{model.name}, llama.cpp, log-probabilities")

    def listed(self, ours, theirs):
        """Our log-probabilities of the tokens in their list; llama.cpp lists no token that ends within a character."""
        mine = iter(zip(ours["ids"], ours["logprobs"]))
        found = []
        for token, logprob in zip(theirs["ids"], theirs["logprobs"]):
            match = next((value for id, value in mine if id == token and abs(value - logprob) < TOLERANCE), None)
            self.assertIsNotNone(match, (token, logprob, ours["ids"], ours["logprobs"]))
            found.append(match)
        return found

    def test_small_models(self):
        for name, (pre, lender) in MODELS.items():
            out = self.folder / name
            rollcall("export", GOLDEN_MODELS / name, "--out", out)
            for file in TOKENIZER if lender else ():
                shutil.copy(GOLDEN_MODELS / lender / file, out)
            self.compare(out, IDS, pre)

    def test_bfloat16_weights(self):
        out = self.folder / "bfloat16"
        rollcall("export", GOLDEN_MODELS / "qwen3-tied", "--out", out, "--dtype", "bfloat16")
        self.compare(out, IDS, "qwen2")

    def test_what_a_run_leaves(self):
        self.compare(*self.trained_model(), "qwen2")


if __name__ == "__main__":
    if PYTHON is None:
        print("ROLLCALL_HF_PYTHON is not set")
        sys.exit(77)
    unittest.main()
