# SPDX-License-Identifier: Apache-2.0
"""A checkpoint is loaded into memory of about its own size, and a long run takes no more and more of it."""

import json
import math
import os
import random
import statistics
import struct
import subprocess
import time
import unittest

import processes
from case import Case, environment
from places import GOLDEN_MODELS, ROLLCALL

CONFIG = {
    "model_type": "llama", "hidden_size": 512, "intermediate_size": 2048, "num_hidden_layers": 8,
    "num_attention_heads": 8, "num_key_value_heads": 8, "vocab_size": 4096, "tie_word_embeddings": True,
    "max_position_embeddings": 512, "rms_norm_eps": 1e-5, "hidden_act": "silu", "torch_dtype": "bfloat16",
}


def shapes(c):
    hidden, mlp = c["hidden_size"], c["intermediate_size"]
    yield "model.embed_tokens.weight", [c["vocab_size"], hidden]
    for i in range(c["num_hidden_layers"]):
        layer = f"model.layers.{i}"
        for norm in ("input_layernorm", "post_attention_layernorm"):
            yield f"{layer}.{norm}.weight", [hidden]
        for name in ("q_proj", "k_proj", "v_proj", "o_proj"):
            yield f"{layer}.self_attn.{name}.weight", [hidden, hidden]
        yield f"{layer}.mlp.gate_proj.weight", [mlp, hidden]
        yield f"{layer}.mlp.up_proj.weight", [mlp, hidden]
        yield f"{layer}.mlp.down_proj.weight", [hidden, mlp]
    yield "model.norm.weight", [hidden]


def write_checkpoint(folder):
    """Random small bfloat16 weights; the number of their bytes."""
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(CONFIG))
    header, size = {}, 0
    for name, shape in shapes(CONFIG):
        end = size + 2 * math.prod(shape)
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [size, end]}
        size = end
    block = bytearray(random.Random(1).randbytes(1 << 20))
    block[1::2] = b"\x3c" * (len(block) // 2)  # sign and most of the exponent
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    weights = (bytes(block) * (size // len(block) + 1))[:size]
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + weights)
    return size


class Memory(Case):
    def peak_bytes(self, model, *arguments):
        """The largest resident set of a forward pass, files included."""
        command = [ROLLCALL, "model", "logits", str(model), "--ids", "1,2,3", *arguments]
        process = subprocess.Popen(command, env=environment(), stdout=subprocess.DEVNULL)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        self.assertEqual(process.returncode, 0)
        return 1024 * usage.ru_maxrss

    def test_a_checkpoint_is_in_memory_once(self):
        size = write_checkpoint(self.folder / "model")
        before = self.peak_bytes(GOLDEN_MODELS / "llama-tied-bf16")
        for dtype, factor in (("bfloat16", 1), ("float32", 2)):
            with self.subTest(dtype=dtype):
                extra = self.peak_bytes(self.folder / "model", "--dtype", dtype) - before
                self.assertLess(extra, (factor + 0.25) * size)


def held(pid):
    """Resident MB and open files; None of a process that has ended."""
    try:
        with open(f"/proc/{pid}/statm") as file:
            pages = int(file.read().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 1e6, len(os.listdir(f"/proc/{pid}/fd"))
    except (OSError, IndexError):
        return None


class LongRun(Case):
    def test_memory_and_open_files_stay_as_they_are(self):
        """The last quarter beside the second: the first one fills caches. The medians lie 800 rollouts apart, so what is lost
        with each would show, from 40 KB on. Less would not: a process comes to its largest step now and then as late as that, by 20 MB."""
        run = self.make_run("long", run={"steps": 25}, batch={"prompts": 8, "group_size": 8}, cluster={"workers": 2})
        process = run.start()
        seen = {}
        while process.poll() is None:
            for rank, pid in processes.ranks(run.file).items():
                if (now := held(pid)) is not None:
                    seen.setdefault(rank, []).append(now)
            time.sleep(0.1)
        code, errors = run.finish(process)
        self.assertEqual(code, 0, errors)
        self.assertEqual(sum(line["rollouts"] for line in run.metrics()), 1600)
        self.assertEqual(sorted(seen), [0, 1, 2])
        for rank, points in seen.items():
            quarter = len(points) // 4
            self.assertGreater(quarter, 5, "too few samples")
            for what, most in (("MB", 32), ("open files", 8)):
                values = [point[what != "MB"] for point in points]
                before, after = (statistics.median(part) for part in (values[quarter:2 * quarter], values[3 * quarter:]))
                self.assertLess(after - before, most, f"rank {rank}: from {before} to {after} {what}")


if __name__ == "__main__":
    unittest.main()
