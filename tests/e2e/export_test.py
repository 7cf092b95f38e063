# SPDX-License-Identifier: Apache-2.0
"""What is exported computes what the source computes; engines_test.py asks other engines."""

import json
import subprocess
import unittest

from case import Case, environment
from places import GOLDEN_MODELS, LEDGER, ROLLCALL

IDS = [3, 17, 42, 5, 99, 64, 23, 8]

def rollcall(*arguments):
    return subprocess.run([ROLLCALL, *arguments], env=environment(), capture_output=True, text=True, timeout=60)


class Export(Case):
    def logits(self, model):
        done = rollcall("model", "logits", model, "--ids", ",".join(map(str, IDS)))
        self.assertEqual(done.returncode, 0, done.stderr)
        return json.loads(done.stdout)["logits"]

    def export(self, source, *arguments):
        out = self.folder / "exported"
        done = rollcall("export", source, "--out", out, *arguments)
        self.assertEqual(done.returncode, 0, done.stderr)
        return out

    def assert_close(self, ours, theirs, tolerance):
        self.assertEqual(len(ours), len(theirs))
        for row, other in zip(ours, theirs):
            self.assertEqual(len(row), len(other))
            worst = max(abs(a - b) for a, b in zip(row, other))
            self.assertLessEqual(worst, tolerance)

    def test_a_model_exported_in_float32_computes_the_same_logits(self):
        for name in ("qwen3-tied", "llama3-scaled-sharded"):
            with self.subTest(name):
                source = GOLDEN_MODELS / name
                out = self.folder / name
                done = rollcall("export", source, "--out", out)
                self.assertEqual(done.returncode, 0, done.stderr)
                self.assertEqual(self.logits(out), self.logits(source))

    def test_bfloat16_comes_close(self):
        source = GOLDEN_MODELS / "qwen3-tied"
        exact, rounded = self.logits(source), self.logits(self.export(source, "--dtype", "bfloat16"))
        self.assertNotEqual(rounded, exact)
        self.assert_close(rounded, exact, 0.5)

    def test_a_run_exports_what_it_left(self):
        run = self.trained("trained")
        self.assert_learnt(run)
        out = self.export(run.dir)
        self.assertEqual((out / "model.safetensors").read_bytes(), (run.dir / "export" / "model.safetensors").read_bytes())
        self.assertNotEqual(self.logits(out), self.logits(LEDGER / "model"))

    def test_nothing_to_export_leaves_nothing(self):
        for name in ("absent", "empty"):
            source, out = self.folder / name, self.folder / f"out-{name}"
            if name == "empty":
                source.mkdir()
            done = rollcall("export", source, "--out", out)
            self.assertEqual(done.returncode, 2, done.stderr)
            self.assertIn(str(source), done.stderr)
            self.assertFalse(out.exists())


if __name__ == "__main__":
    unittest.main()
