# SPDX-License-Identifier: Apache-2.0
"""`rollcall doctor` says what works and what to do about the rest, ends, and leaves nothing behind."""

import json
import os
import pathlib
import socket
import subprocess
import tempfile
import unittest

from case import Case, environment
from places import ROLLCALL


class Doctor(Case):
    def examine(self, *words, seconds=90, **changes):
        """The exit code and the findings by what they are about; the last one of each."""
        words = [ROLLCALL, "doctor", "--json", *map(str, words)]
        scratch = self.folder / "scratch"
        scratch.mkdir(exist_ok=True)
        shared = self.shared_memory()
        done = subprocess.run(words, env=environment() | {"TMPDIR": str(scratch)} | changes, capture_output=True, text=True, timeout=seconds, cwd=self.folder)
        lines = [json.loads(line) for line in done.stdout.splitlines()]
        for line in lines:
            self.assertEqual(sorted(line), ["detail", "remedy", "state", "what"])
            self.assertEqual(line["state"] != "ok", bool(line["remedy"]), line)
        self.assertEqual(list(scratch.iterdir()), [])
        # Ranks of others keep a folder there while they start.
        self.wait_for(lambda: self.shared_memory() <= shared, "shared memory is left over")
        return done.returncode, {line["what"]: line for line in lines}

    def shared_memory(self):
        return set(pathlib.Path("/dev/shm").iterdir())

    def fake(self, **programs):
        """A PATH with shell scripts in front."""
        folder = self.folder / "programs"
        folder.mkdir()
        for name, script in programs.items():
            (folder / name).write_text(f"#!/bin/sh\n{script}\n")
            (folder / name).chmod(0o755)
        return f"{folder}:{os.environ['PATH']}"

    def test_a_machine_that_works(self):
        run = self.make_run("sound")
        (self.folder / "scratch").mkdir()
        before = sorted(self.folder.rglob("*"))
        code, found = self.examine(run.file)
        self.assertEqual(code, 0, found)
        self.assertRegex(found["MPI"]["detail"], r"2 ranks on \S+ in .* s, Open MPI .*transports .*vader.*MB/s")
        for what in ("HDF5 journal", "file locks", "rename, fsync", "model and data", "endpoint", "open files"):
            self.assertEqual(found[what]["state"], "ok", found[what])
        self.assertEqual(sorted(self.folder.rglob("*")), before)

    def test_text_without_a_run_file(self):
        done = subprocess.run([ROLLCALL, "doctor"], env=environment(), capture_output=True, text=True, timeout=90, cwd=self.folder)
        self.assertEqual(done.returncode, 0, done.stdout)
        self.assertRegex(done.stdout, r"(?m)^MPI launcher +ok +mpirun \(Open MPI\)")
        self.assertNotIn("endpoint", done.stdout)

    def test_no_launcher(self):
        with tempfile.TemporaryDirectory() as empty:
            code, found = self.examine(PATH=empty)
        self.assertEqual(code, 1)
        self.assertEqual(found["MPI launcher"]["state"], "failed")
        self.assertIn("openmpi", found["MPI launcher"]["remedy"])
        self.assertEqual(found["Slurm"]["state"], "missing")

    def test_a_run_folder_that_takes_no_files(self):
        # /proc refuses root too, whom no permission stops.
        run = self.make_run("readonly", run={"dir": "/proc/rollcall-runs"})
        code, found = self.examine(run.file)
        self.assertEqual(code, 1)
        self.assertEqual(found["run folder"]["state"], "failed")
        self.assertIn("run.dir", found["run folder"]["remedy"])

    def test_an_endpoint_that_is_down(self):
        with socket.socket() as unused:
            unused.bind(("127.0.0.1", 0))
            url = f"http://127.0.0.1:{unused.getsockname()[1]}/grade"
            run = self.make_run("down", grader={"url": url})
            code, found = self.examine(run.file)
        self.assertEqual(code, 1)
        self.assertEqual(found["endpoint"]["state"], "failed")
        self.assertIn(url, found["endpoint"]["detail"])

    def test_a_launcher_and_a_slurm_that_hang(self):
        code, found = self.examine(PATH=self.fake(sinfo="exec sleep 600", mpirun="exec sleep 600"))
        self.assertEqual(code, 1)
        self.assertEqual(found["MPI launcher"]["state"], "failed")
        self.assertEqual(found["Slurm"]["state"], "warning")

    def test_ranks_that_do_not_start(self):
        mpirun = 'if [ "$1" = --version ]; then echo "mpirun (Open MPI) 9"; else exec sleep 600; fi'
        code, found = self.examine(PATH=self.fake(mpirun=mpirun))
        self.assertEqual(code, 1)
        self.assertIn("within 20 s", found["MPI"]["detail"])

    def test_a_job_that_may_not_be_requeued(self):
        path = self.fake(sinfo="echo slurm 22.05.8", squeue="echo 1:00:00", scontrol="echo JobId=17 Requeue=0 Restarts=0")
        _, found = self.examine(PATH=path, SLURM_JOB_ID="17", SLURM_STEP_NUM_TASKS="1")
        self.assertEqual(found["Slurm"], {"what": "Slurm", "state": "ok", "detail": "slurm 22.05.8", "remedy": ""})
        self.assertEqual(found["Slurm job"]["detail"], "17, 60 minutes left")
        self.assertIn("--chain", found["requeue"]["remedy"])
        self.assertIn("srun", found["MPI"]["detail"])

    def test_a_run_file_that_is_wrong(self):
        wrong = self.folder / "wrong.yaml"
        wrong.write_text("run: {nam: x}\n")
        code, found = self.examine(wrong)
        self.assertEqual(code, 1)
        self.assertEqual(found["run file"]["state"], "failed")
        self.assertEqual(found["MPI"]["state"], "ok")


if __name__ == "__main__":
    unittest.main()
