# SPDX-License-Identifier: Apache-2.0
"""A full disk ends a run with a message, keeps what is complete, and the run goes on when there is space again.

The disk is a tmpfs in a mount namespace of its own, so this needs a kernel that lets its users make one.
"""

import json
import subprocess
import sys
import unittest

from case import Case, environment
from places import ROLLCALL

IN_A_NAMESPACE = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c"]
SKIPPED = 77

FILL = """
mount -t tmpfs -o size={size} tmpfs "$0" || exit 99
"$1" train "$2"; echo "$?" > "$3/code"
cp -r "$0" "$3/after"
mount -o remount,size=64m "$0"
"$1" train "$2" || exit 98
cp -r "$0" "$3/mended"
"""


class DiskFull(Case):
    def fill(self, name, size):
        """A run on a disk of that size, then again on a larger one."""
        disk, copies = self.folder / f"disk-{name}", self.folder / f"copies-{name}"
        disk.mkdir()
        copies.mkdir()
        run = self.make_run(name, run={"dir": str(disk), "steps": 4}, checkpoint={"every": 2})
        command = [*IN_A_NAMESPACE, FILL.format(size=size), disk, ROLLCALL, run.file, copies]
        done = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=100)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assert_nothing_left(run)
        return int((copies / "code").read_text()), done.stderr, copies / "after" / name, copies / "mended" / name

    def check(self, name, size, checkpoints):
        code, errors, after, mended = self.fill(name, size)
        self.assertEqual(code, 3, errors)
        self.assertIn("No space left on device", errors)
        self.assertIn("free ", errors)  # what to do
        self.assertEqual(sorted(p.name for p in (after / "checkpoints").glob("*")), checkpoints)
        self.assertFalse((after / "export").exists())
        self.assertEqual(json.loads((mended / "result.json").read_text())["status"], "done")
        self.assertTrue((mended / "export" / "model.safetensors").exists())

    def test_no_room_for_the_journal(self):
        self.check("journal", "400k", [])

    def test_no_room_for_the_second_checkpoint(self):
        self.check("checkpoint", "5m", ["step-000002"])


def can_mount():
    return subprocess.run([*IN_A_NAMESPACE, "mount -t tmpfs tmpfs /mnt"], capture_output=True).returncode == 0


if __name__ == "__main__":
    if not can_mount():
        sys.exit(SKIPPED)
    unittest.main()
