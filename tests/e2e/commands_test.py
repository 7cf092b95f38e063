# SPDX-License-Identifier: Apache-2.0
"""The command line refuses what it cannot do, says what it can, and leaves nothing behind."""

import pathlib
import subprocess
import tempfile
import unittest

from case import environment
from places import ROLLCALL


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


if __name__ == "__main__":
    unittest.main()
