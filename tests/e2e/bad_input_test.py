# SPDX-License-Identifier: Apache-2.0
"""Bad input ends a run at once, with a message that says what, where and what to do."""

import json
import os
import shutil
import socket
import time
import unittest

from case import Case
from places import LEDGER

BAD_INPUT, NO_ENDPOINT = 2, 5
OUR_FAULT = ("terminate called", "rollcall: unexpected", "bug in rollcall", "Traceback", "Segmentation", "MPI_ABORT", "MPI_Abort")


class BadInput(Case):
    def assert_refused(self, run, code, *words, arguments=(), seconds=40):
        """The run ends with the code, names everything that helps, and leaves no half of a model."""
        got, errors = run.train(*arguments, seconds=seconds)
        self.assertEqual(got, code, errors)
        for word in words:
            self.assertIn(str(word), errors)
        for word in OUR_FAULT:
            self.assertNotIn(word, errors)
        self.assertIn("what to do", errors)
        self.assertFalse((run.dir / "export").exists())
        self.assertEqual(run.checkpoints() if run.dir.is_dir() else [], [])
        self.assert_nothing_left(run)
        return errors

    # The run file.

    def test_unknown_key(self):
        run = self.make_run("typo", batch={"promts": 3})
        line = run.file.read_text().splitlines().index('  "promts": 3') + 1
        self.assert_refused(run, BAD_INPUT, f"{run.file}:{line}:", "promts", "prompts")

    def test_every_problem_is_told_at_once(self):
        run = self.make_run("several", batch={"prompts": "many"}, rollout={"context": -1})
        self.assert_refused(run, BAD_INPUT, "batch.prompts", "rollout.context", "many")

    def test_no_yaml(self):
        run = self.make_run("torn")
        run.file.write_text(run.file.read_text()[:-40])
        self.assert_refused(run, BAD_INPUT, run.file)

    def test_no_run_file(self):
        run = self.make_run("absent")
        run.file.unlink()
        self.assert_refused(run, BAD_INPUT, run.file)

    def test_bad_override(self):
        run = self.make_run("override")
        self.assert_refused(run, BAD_INPUT, "--set 1", "promts", "prompts", arguments=["--set", "batch.promts=3"])

    # The dataset.

    def test_no_dataset(self):
        path = self.folder / "none.jsonl"
        self.assert_refused(self.make_run("nodata", data={"train": str(path)}), BAD_INPUT, "data.train", path)

    def test_bad_rows(self):
        good = (self.folder / "data" / "train.jsonl").read_text().splitlines()[0]
        for name, row in {"without_messages": '{"x": 1}', "no_json": '{"messages": [', "no_object": "[1]"}.items():
            with self.subTest(name):
                path = self.folder / f"{name}.jsonl"
                path.write_text(f"{good}\n{row}\n")
                self.assert_refused(self.make_run(name, data={"train": str(path)}), BAD_INPUT, f"{path}:2")

    def changed_rows(self, name, change):
        """The training rows with the third one changed, as a file."""
        rows = [json.loads(line) for line in (self.folder / "data" / "train.jsonl").read_text().splitlines()]
        change(rows[2])
        path = self.folder / f"{name}.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return path

    def test_a_row_that_cannot_be_asked_is_found_at_the_start(self):
        image = [{"type": "text", "text": "Pay this:"}, {"type": "image_url", "image_url": {"url": "x"}}]
        rows = {
            "image": ({"role": "user", "content": image}, "messages[0].content[1]", "image_url"),
            "long": ({"role": "user", "content": "pay " * 1000}, "rollout.context", "tokens"),
        }
        for name, (message, *words) in rows.items():
            with self.subTest(name):
                path = self.changed_rows(name, lambda row: row.update(messages=[message]))
                for key in ("train", "valid"):
                    data = {"data": {key: str(path)}}
                    run = self.make_run(f"{name}-{key}", **data)
                    self.assert_refused(run, BAD_INPUT, f"data.{key}", f"{path}:3: ", *words)
        self.assertEqual(self.endpoints.requests["/grade"], 0)

    def test_a_developers_row_of_text_parts_is_trained_on(self):
        parts = [{"type": "text", "text": "Be "}, {"type": "text", "text": "careful."}]

        def as_openai(row):
            row["messages"].insert(0, {"role": "developer", "content": parts})

        path = self.changed_rows("developer", as_openai)
        self.trained("developer", run={"steps": 4}, data={"train": str(path)})

    def test_unserved_tools_are_told_at_the_start(self):
        run = self.make_run("unserved", run={"steps": 1}, tools=self.settings("x")["tools"][1:])
        code, errors = run.train()
        self.assertEqual(code, 0, errors)
        self.assertIn("16 of 16 rows offer tools that no entry of `tools:` serves (find_customer)", errors)

    def test_empty_dataset(self):
        path = self.folder / "empty.jsonl"
        path.write_text("")
        self.assert_refused(self.make_run("empty", data={"train": str(path)}), BAD_INPUT, path)

    # The model.

    def model_copy(self, name):
        folder = self.folder / name
        shutil.copytree(LEDGER / "model", folder)
        return folder

    def test_no_model(self):
        path = self.folder / "no" / "model"
        self.assert_refused(self.make_run("nomodel", model={"path": str(path)}), BAD_INPUT, path)

    def test_truncated_weights(self):
        model = self.model_copy("cut")
        weights = model / "model.safetensors"
        os.truncate(weights, weights.stat().st_size // 2)
        for learners in (1, 2):
            with self.subTest(learners=learners):
                run = self.make_run(f"cut{learners}", model={"path": str(model)}, cluster={"learners": learners})
                self.assert_refused(run, BAD_INPUT, weights)

    def test_config_that_does_not_fit_the_weights(self):
        model = self.model_copy("misfit")
        config = json.loads((model / "config.json").read_text())
        config["intermediate_size"] += 64
        (model / "config.json").write_text(json.dumps(config))
        self.assert_refused(self.make_run("misfit", model={"path": str(model)}), BAD_INPUT, model, "mlp")

    def test_broken_model_files(self):
        for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
            with self.subTest(name):
                model = self.model_copy(f"broken-{name}")
                (model / name).write_text('{"a": ')
                self.assert_refused(self.make_run(f"broken-{name}", model={"path": str(model)}), BAD_INPUT, model / name)

    def test_missing_model_files_are_not_called_damaged(self):
        for name in ("tokenizer_config.json", "model.safetensors"):
            with self.subTest(name):
                model = self.model_copy(f"without-{name}")
                (model / name).unlink()
                run = self.make_run(f"without-{name}", model={"path": str(model)})
                self.assertNotIn("damaged", self.assert_refused(run, BAD_INPUT, model, name))

    # The run folder.

    def test_run_dir_is_a_file(self):
        path = self.folder / "file"
        path.write_text("")
        self.assert_refused(self.make_run("isfile", run={"dir": str(path)}), BAD_INPUT, path)

    def test_run_dir_cannot_be_written(self):
        self.assert_refused(self.make_run("unwritable", run={"dir": "/proc/runs"}), BAD_INPUT, "/proc/runs")

    def test_two_runs_in_one_folder(self):
        run = self.make_run("twice")
        self.endpoints.hold_from(3)
        process = run.start()
        self.endpoints.wait_until_held()
        begun = (run.dir / "config.yaml").read_text()
        code, errors = run.train("--set", "batch.prompts=2")
        self.assertEqual(code, 3, errors)
        self.assertIn(f"{run.dir}: another process is writing it", errors)
        self.assertEqual(run.result()["status"], "running")
        self.assertEqual((run.dir / "config.yaml").read_text(), begun)
        self.endpoints.release()
        code, errors = run.finish(process)
        self.assertEqual(code, 0, errors)

    # Endpoints.

    def test_unreachable_tool(self):
        with socket.socket() as unused:
            unused.bind(("127.0.0.1", 0))  # bound, not listening: refuses
            url = f"http://127.0.0.1:{unused.getsockname()[1]}/call"
            run = self.make_run("unreachable", tools=[{"name": "get_invoice", "url": url}])
            begin = time.monotonic()
            self.assert_refused(run, NO_ENDPOINT, "get_invoice", url)
        self.assertLess(time.monotonic() - begin, 30)

    def test_endpoints_that_always_fail_train_nothing(self):
        for name, reply in {"http500": (500, b"sorry"), "garbage": (200, b"<html>"), "wordy": (200, b'{"score": "A"}')}.items():
            with self.subTest(name):
                self.endpoints = self.serve(reply)
                self.patience = "2s"
                run = self.make_run(name)
                self.assert_refused(run, NO_ENDPOINT, "tool find_customer at http://", reply[1].decode(), "start again")
                self.assertEqual(run.result()["status"], "failed")
                self.assertEqual(run.result()["exit_code"], NO_ENDPOINT)
                self.assertEqual(run.metrics(), [], "a step was taken")

    def test_a_run_goes_on_once_its_endpoints_work(self):
        good, self.endpoints = self.endpoints, self.serve((500, b"sorry"))
        broken = self.endpoints.url("")
        self.patience = "2s"
        run = self.make_run("mended")
        self.assert_refused(run, NO_ENDPOINT)
        run.file.write_text(run.file.read_text().replace(broken, good.url("")))
        self.endpoints = good
        code, errors = run.train()
        self.assertEqual(code, 0, errors)
        self.assert_learnt(run)
        undisturbed = self.undisturbed_digests()
        for name in ("state.safetensors", "model.safetensors"):
            self.assertEqual(run.digests(3)[name], undisturbed[name])


if __name__ == "__main__":
    unittest.main()
