# SPDX-License-Identifier: Apache-2.0
"""Rollouts, optimizer steps and seconds until half of the held-out tasks are solved, by how the batch is sized.

    ROLLCALL=build/app/rollcall/rollcall python3 benchmarks/sparse/run.py --drilled examples/ledger/build/drilled --out sparse

Problems are those of problems.py; methods are fixed batches, each with several learning rates, dynamic sampling (DAPO's), and
`batch.adaptive` with one setting for all. Every run is added to OUT/results.jsonl as it ends, and is not made again: the whole
is hours of work on two cores and may be done in pieces (--problem, --method, --seeds). Ends with the table of all results.
Evaluations are not counted, neither their rollouts nor their time. Learner and worker share the machine: keep it idle.
"""

import argparse
import json
import os
import pathlib
import shutil
import signal
import statistics
import subprocess
import sys
import time

import problems

sys.path.insert(0, str(problems.LEDGER))

GOAL = 0.5
GROUP = 16
LEARNING_RATES = (2.5e-4, 5e-4, 1e-3)
FIXED = {"fixed 64": 4, "fixed 256": 16, "fixed 1024": 64, "fixed 4096": 256}  # rollouts of a step -> prompts
TARGET_SIGNAL = 16
EVAL_EVERY = {"5%": 2, "0.5%": 2, "0.1%": 2, "mixture": 4}


def methods():
    """Name -> settings."""
    found = {}
    for rate in LEARNING_RATES:
        for name, prompts in FIXED.items():
            found[f"{name}, lr {rate:g}"] = {"batch.prompts": prompts, "algorithm.learning_rate": rate}
        found[f"dynamic 256, lr {rate:g}"] = {"batch.prompts": 16, "batch.resample": 10, "algorithm.learning_rate": rate}
    found["adaptive"] = {"batch.prompts": 16, "batch.adaptive.target_signal": TARGET_SIGNAL, "algorithm.learning_rate": 5e-4}
    return found


def folder_of(name):
    return name.replace("%", "").replace(".", "_").replace(" ", "-").replace(",", "")


class Server:
    """The example's tools and grader, in a process of their own."""

    def __enter__(self):
        self.process = subprocess.Popen([sys.executable, str(problems.LEDGER / "server.py"), "--port", "0"],
                                        stdout=subprocess.PIPE, text=True)
        self.url = self.process.stdout.readline().split()[-1]
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()


def start(rollcall, folder, settings, url):
    words = [word for key, value in settings.items() for word in ("--set", f"{key}={value}")]
    endpoints = [word for i in range(4) for word in ("--set", f"tools.{i}.url={url}/call")] + ["--set", f"grader.url={url}/grade"]
    log = (folder.parent / f"{settings['run.name']}.log").open("w")
    return subprocess.Popen([rollcall, "train", str(problems.LEDGER / "run.yaml"), *words, *endpoints], stdout=log, stderr=log,
                            env={**os.environ, "OMP_NUM_THREADS": "1"})


def read_metrics(path):
    """Whole lines of a file that is being written."""
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text().splitlines(keepends=True) if line.endswith("\n")]


def progress(lines):
    """(rollouts, steps, seconds, held-out pass@1) at each evaluation, of training alone."""
    rollouts = steps = seconds = 0
    points = []
    for line in lines:
        if "eval_pass_at_1" in line:
            points.append((rollouts, steps, seconds, line["eval_pass_at_1"]))
        elif "rollouts" in line:
            rollouts += line["rollouts"]
            steps += 1
            seconds += line["seconds_step"]
    return points


def crossing(points):
    """Where the straight line between two evaluations meets the goal; None if none does."""
    for a, b in zip(points, points[1:]):
        if b[3] >= GOAL:
            share = (GOAL - a[3]) / (b[3] - a[3]) if a[3] < GOAL else 0
            return [x + share * (y - x) for x, y in zip(a[:3], b[:3])]
    return None


def measure(rollcall, problem, settings, seed, out, most_rollouts, url):
    folder = out / folder_of(problem)
    runs = out / "runs"
    settings = {**settings, "run.name": "run", "run.dir": runs, "run.seed": seed, "run.steps": 100000, "batch.group_size": GROUP,
                "model.path": folder / "model", "data.train": folder / "train.jsonl", "data.valid": folder / "valid.jsonl",
                "eval.every": EVAL_EVERY[problem], "eval.samples": 1, "checkpoint.every": 0, "cluster.workers": 1}
    shutil.rmtree(runs, ignore_errors=True)
    runs.mkdir(parents=True)
    process = start(rollcall, folder, settings, url)
    metrics = runs / "run" / "metrics.jsonl"
    points = []
    while process.poll() is None:
        time.sleep(0.5)
        points = progress(read_metrics(metrics))
        spent = sum(line.get("rollouts", 0) for line in read_metrics(metrics))
        if crossing(points) or spent > most_rollouts:
            process.send_signal(signal.SIGTERM)
            process.wait()
    if process.returncode not in (0, 3):
        raise SystemExit(f"rollcall ended with exit code {process.returncode}:\n{(folder.parent / 'run.log').read_text()}")
    found = crossing(points)
    return {"initial": points[0][3], "best": max(point[3] for point in points), "reached": found is not None,
            **dict(zip(("rollouts", "steps", "seconds"), found or progress_end(points)))}


def progress_end(points):
    return points[-1][:3]


def spread(values):
    values = sorted(values)
    return f"{statistics.median(values):,.0f} ({values[0]:,.0f} - {values[-1]:,.0f})"


def table(results):
    print("| problem | method | seeds that got there | rollouts | steps | seconds |\n|---|---|---|---|---|---|")
    for problem in problems.PROBLEMS:
        for method in methods():
            these = [r for r in results if r["problem"] == problem and r["method"] == method]
            if not these:
                continue
            there = [r for r in these if r["reached"]]
            cells = [spread([r[key] for r in there]) if there else "-" for key in ("rollouts", "steps", "seconds")]
            print(f"| {problem} | {method} | {len(there)} of {len(these)} | {' | '.join(cells)} |")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--drilled", required=True, help="the ledger example's drilled model, made by its recipe.sh")
    parser.add_argument("--out", required=True, type=pathlib.Path, help="folder for models, runs and results")
    parser.add_argument("--problem", action="append", choices=list(problems.PROBLEMS), help="default: all")
    parser.add_argument("--method", action="append", help="methods whose name begins so; default: all")
    parser.add_argument("--seeds", default="1,2,3,4,5")
    parser.add_argument("--most-rollouts", type=int, default=200_000, help="where a run is given up")
    parser.add_argument("--table", action="store_true", help="only show what there is")
    options = parser.parse_args()
    rollcall = os.environ["ROLLCALL"]
    options.out.mkdir(parents=True, exist_ok=True)
    file = options.out / "results.jsonl"
    results = read_metrics(file)
    done = {(r["problem"], r["method"], r["seed"]) for r in results}
    wanted = [] if options.table else [
        (problem, method, settings, int(seed))
        for problem in options.problem or problems.PROBLEMS
        for seed in options.seeds.split(",")
        for method, settings in methods().items()
        if not options.method or any(method.startswith(prefix) for prefix in options.method)]
    for problem, method, settings, seed in wanted:
        if (problem, method, seed) in done:
            continue
        problems.make(problem, options.out / folder_of(problem), rollcall, options.drilled)
        with Server() as server:
            result = measure(rollcall, problem, settings, seed, options.out, options.most_rollouts, server.url)
        results.append({"problem": problem, "method": method, "seed": seed, **result})
        with file.open("a") as out:
            out.write(json.dumps(results[-1]) + "\n")
        print(json.dumps(results[-1]), file=sys.stderr, flush=True)
    table(results)


if __name__ == "__main__":
    main()
