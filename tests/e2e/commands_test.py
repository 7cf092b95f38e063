# SPDX-License-Identifier: Apache-2.0
"""The command line refuses what it cannot do, says what it can, and leaves nothing behind."""

import pathlib
import subprocess
import tempfile
import unittest

from case import Case, environment
from places import GOLDEN_MODELS, ROLLCALL


class Commands(unittest.TestCase):
    def refused(self, *words):
        done = subprocess.run([ROLLCALL, *map(str, words)], env=environment(), capture_output=True, text=True, timeout=60)
        self.assertEqual(done.returncode, 2, done.stderr)
        self.assertEqual(done.stdout, "")
        return done.stderr

    def test_unknown_commands(self):
        told = self.refused("frob")
        for word in ("'frob'", "train", "eval", "inspect", "doctor"):
            self.assertIn(word, told)
        self.assertIn("did you mean train?", self.refused("trian"))
        self.assertIn("tokenize, render, parse", self.refused("model", "frob"))

    def test_folders_that_are_no_runs(self):
        with tempfile.TemporaryDirectory() as folder:
            for command in ("report", "inspect"):
                for path in (folder, f"{folder}/absent"):
                    self.assertIn("runs/<name>", self.refused(command, path))
            self.assertEqual(list(pathlib.Path(folder).iterdir()), [])

    def test_a_row_below_zero(self):
        self.assertIn("--row", self.refused("inspect", "/tmp", "--row", "-5"))


class Inspect(Case):
    def test_a_prompt_as_the_template_was_told(self):
        for thinking in (True, False):
            model = {"path": str(GOLDEN_MODELS / "qwen3-tied"), "chat": {"enable_thinking": thinking}}
            rollout = {"max_turns": 1, "max_new_tokens": 4, "context": 4096}
            run = self.trained(f"thinking-{thinking}", run={"steps": 1}, model=model, rollout=rollout, batch={"prompts": 1, "group_size": 2})
            command = [ROLLCALL, "inspect", run.dir, "--row", "0", "--text"]
            shown = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=60, check=True).stdout
            self.assertRegex(shown, r"(?s)prompt, tokens 0 to (\d+)\n.*\nsampled, tokens \1 to ")
            self.assertEqual("<think>" in shown.split("\nsampled, tokens")[0], not thinking, shown)


if __name__ == "__main__":
    unittest.main()
