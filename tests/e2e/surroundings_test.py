# SPDX-License-Identifier: Apache-2.0
"""What surrounds a run: the shell that starts it, the terminal that shows it, the moment at which somebody asks it to stop."""

import os
import pty
import signal
import subprocess
import time
import unittest

from case import Case
from places import ROLLCALL


class Surroundings(Case):
    def test_a_request_to_stop_while_ranks_are_being_started_is_kept(self):
        for number in (signal.SIGTERM, signal.SIGUSR1):
            run = self.make_run(f"early{number}")
            self.endpoints.hold_from(1)
            process = run.start()
            while not (run.dir / "result.json").exists():
                pass
            process.send_signal(number)
            code, errors = run.finish(process, seconds=20)
            self.endpoints.release()
            self.assertEqual(code, 3, errors)
            self.assertEqual(run.result()["status"], "stopped")
            self.assertEqual(run.train()[0], 0)

    def test_a_terminal_that_nobody_reads_keeps_no_run_from_stopping(self):
        run = self.make_run("unread", run={"steps": 100000}, batch={"prompts": 1, "group_size": 2})
        outer, inner = pty.openpty()
        # Filled up, as by Ctrl-S.
        os.set_blocking(inner, False)
        try:
            while True:
                os.write(inner, b"x" * 4096)
        except BlockingIOError:
            os.set_blocking(inner, True)
        process = subprocess.Popen([ROLLCALL, "train", run.file], stdin=inner, stdout=inner, stderr=inner)
        self.wait_for(lambda: (run.dir / "metrics.jsonl").exists() and len(run.metrics()) > 20, "it trains")
        process.send_signal(signal.SIGTERM)
        self.assertEqual(process.wait(20), 3)
        self.assertEqual(run.result()["status"], "stopped")
        os.close(inner)
        os.close(outer)

    def test_a_shell_inside_a_job_step_is_no_launcher(self):
        for number, variables in enumerate(({"PMI_SIZE": "1", "PMI_RANK": "0", "PMI_FD": "9"}, {"PMIX_RANK": "0", "PMIX_NAMESPACE": "x"})):
            run = self.make_run(f"step{number}")
            run.variables = variables
            code, errors = run.train()
            self.assertEqual(code, 0, errors)

    def test_a_run_that_comes_back_while_its_endpoints_are_down_waits_for_them(self):
        run = self.make_run("patient")
        self.endpoints.hold_from(20)
        process = run.start()
        self.endpoints.wait_until_held()
        process.send_signal(signal.SIGTERM)
        self.assertEqual(run.finish(process)[0], 3)
        self.endpoints.go_down()
        self.endpoints.release()
        process = run.start()
        time.sleep(8)
        self.assertIsNone(process.poll())
        self.endpoints.come_up()
        code, errors = run.finish(process)
        self.assertEqual(code, 0, errors)
        self.assertIn("the run goes on and waits for it", errors)

    def test_a_hangup_that_nohup_ignores_stops_nothing(self):
        run = self.make_run("nohup")
        self.endpoints.hold_from(20)
        process = subprocess.Popen(["nohup", ROLLCALL, "train", run.file], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                                   stderr=subprocess.DEVNULL)
        self.endpoints.wait_until_held()
        process.send_signal(signal.SIGHUP)
        time.sleep(0.5)
        self.endpoints.release()
        self.assertEqual(process.wait(60), 0)

    def test_a_folder_for_temporary_files_that_is_not_there_is_named(self):
        run = self.make_run("homeless")
        run.variables = {"TMPDIR": "/nowhere/at/all"}
        code, errors = run.train()
        self.assertEqual(code, 2, errors)
        self.assertIn("TMPDIR", errors)

    def test_a_reader_that_goes_away_ends_no_run(self):
        run = self.make_run("piped")
        process = subprocess.Popen([ROLLCALL, "train", run.file], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        process.stderr.read(1)
        process.stderr.close()
        self.assertEqual(process.wait(60), 0)


if __name__ == "__main__":
    unittest.main()
