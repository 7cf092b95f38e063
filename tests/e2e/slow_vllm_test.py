# SPDX-License-Identifier: Apache-2.0
"""What is exported continues a prompt in vLLM as it does here. ROLLCALL_VLLM_PYTHON names a Python that has it: see tests/engines/vllm.sh."""

import os
import sys
import unittest

from engines import IDS, EngineCase, greedy, in_engine, rollcall
from places import GOLDEN_MODELS

PYTHON = os.environ.get("ROLLCALL_VLLM_PYTHON")


class Vllm(EngineCase):
    def compare(self, model, prompt):
        self.assert_same_continuation(greedy(model, prompt), in_engine(PYTHON, "in_vllm.py", model, prompt), f"{model.name}, vLLM")

    def test_a_small_model_in_shards(self):
        # Of the small models, the one whose heads have a size that vLLM's attention on CPUs knows.
        out = self.folder / "exported"
        rollcall("export", GOLDEN_MODELS / "qwen3-untied-sharded", "--out", out)
        self.compare(out, IDS)

    def test_what_a_run_leaves(self):
        self.compare(*self.trained_model())


if __name__ == "__main__":
    if PYTHON is None:
        print("ROLLCALL_VLLM_PYTHON is not set")
        sys.exit(77)
    unittest.main()
