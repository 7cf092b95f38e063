# SPDX-License-Identifier: Apache-2.0
"""Rollouts, optimizer steps and seconds until half of the held-out tasks are solved, by how the batch is sized.

    ROLLCALL=build/app/rollcall/rollcall python3 benchmarks/sparse/run.py --drilled examples/ledger/build/drilled --out sparse

Problems are those of problems.py; methods are fixed batches and dynamic sampling (DAPO's), each with several learning rates, and
`batch.adaptive` with one setting for all. Every run is added to OUT/results.jsonl as it ends, and is not made again: the whole
is hours of work on two cores and may be done in pieces (--problem, --method, --seeds). Ends with the table of all results, in
which each method stands with its best learning rate (best_rate() says which that is). Evaluations are not counted, neither their
rollouts nor their time. Rollouts and steps are the same on every machine; for seconds keep it idle.
"""

import argparse
import concurrent.futures
import json
import os
import pathlib
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time

import problems

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
from serving import serving  # noqa: E402

GOAL = 0.5
GROUP = 8
LEARNING_RATES = (2.5e-4, 5e-4, 1e-3)
SIZES = (32, 128, 512)
DYNAMIC = 32  # rollouts of a round, of which as many groups as it has must have a signal
RESAMPLE = 64
LAGS = (1, 2, 4)  # steps that rollouts may run ahead
ADAPTIVE = {"batch.prompts": 8, "batch.adaptive.target_signal": 1, "batch.adaptive.min_rollouts": 64, "algorithm.learning_rate": 5e-4}
# Rollouts between evaluations, about; and after which a run is given up.
EVAL_EVERY = {"5%": 64, "0.5%": 512, "0.1%": 512, "mixture": 64}
MOST_ROLLOUTS = {"5%": 5_000, "0.5%": 12_000, "0.1%": 16_000, "mixture": 5_000}


def methods():
    """Method -> learning rate -> settings."""
    fixed = {f"fixed {size}": {"batch.prompts": size // GROUP} for size in SIZES}
    fixed["dynamic"] = {"batch.prompts": DYNAMIC // GROUP, "batch.resample": RESAMPLE}
    tuned = {name: {rate: {**settings, "algorithm.learning_rate": rate} for rate in LEARNING_RATES}
             for name, settings in fixed.items()}
    lags = {f"fixed 128, lag {lag}": {5e-4: {**tuned["fixed 128"][5e-4], "policy.max_lag": lag}} for lag in LAGS}
    return {**tuned, "adaptive": {ADAPTIVE["algorithm.learning_rate"]: ADAPTIVE}, **lags}


def folder_of(name):
    return "".join(c if c.isalnum() else "_" for c in name)


def start(rollcall, settings, url):
    words = [word for key, value in settings.items() for word in ("--set", f"{key}={value}")]
    endpoints = [word for i in range(4) for word in ("--set", f"tools.{i}.url={url}/call")] + ["--set", f"grader.url={url}/grade"]
    with open(settings["run.dir"] / "log", "w") as log:
        return subprocess.Popen([rollcall, "train", str(problems.LEDGER / "run.yaml"), *words, *endpoints], stdout=log, stderr=log,
                                env={**os.environ, "OMP_NUM_THREADS": "1"})


def read_lines(path):
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


def spent(lines):
    return sum(line.get("rollouts", 0) for line in lines)


def since_signal(lines):
    taught = [i for i, line in enumerate(lines) if line.get("groups_signal")]
    return lines[taught[-1] + 1:] if taught else lines


def crossing(points):
    """Where the straight line between two evaluations meets the goal; None if none does."""
    for a, b in zip(points, points[1:]):
        if b[3] >= GOAL:
            share = (GOAL - a[3]) / (b[3] - a[3]) if a[3] < GOAL else 0
            return [x + share * (y - x) for x, y in zip(a[:3], b[:3])]
    return None


def measure(rollcall, problem, settings, seed, out):
    folder = out / folder_of(problem)
    dry = MOST_ROLLOUTS[problem] / 8  # rollouts without a signal, after which nothing is to be expected
    runs = pathlib.Path(tempfile.mkdtemp(dir=out))
    step_rollouts = settings["batch.prompts"] * GROUP * (4 if "batch.resample" in settings else 1)  # about
    settings = {**settings, "run.name": "run", "run.dir": runs, "run.seed": seed, "run.steps": 100000, "batch.group_size": GROUP,
                "algorithm.warmup_steps": 3,
                "model.path": folder / "model", "data.train": folder / "train.jsonl", "data.valid": folder / "valid.jsonl",
                "eval.every": max(1, EVAL_EVERY[problem] // step_rollouts), "eval.samples": 1, "checkpoint.every": 0,
                "cluster.workers": 1}
    metrics = runs / "run" / "metrics.jsonl"
    with serving(problems.LEDGER / "server.py", "--port", 0) as url:
        process = start(rollcall, settings, url)
        while process.poll() is None:
            time.sleep(0.5)
            lines = read_lines(metrics)
            if crossing(progress(lines)) or spent(lines) > MOST_ROLLOUTS[problem] or spent(since_signal(lines)) > dry:
                process.send_signal(signal.SIGTERM)
                process.wait()
    points = progress(read_lines(metrics))
    if process.returncode not in (0, 3) or not points:
        raise SystemExit(f"rollcall ended with exit code {process.returncode}:\n{(runs / 'log').read_text()}")
    shutil.rmtree(runs)
    found = crossing(points)
    return {"initial": points[0][3], "best": max(point[3] for point in points), "reached": found is not None,
            **dict(zip(("rollouts", "steps", "seconds"), found or points[-1][:3]))}


def spread(values):
    values = sorted(values)
    return f"{statistics.median(values):,.0f} ({values[0]:,.0f} - {values[-1]:,.0f})"


def of(results, problem, method, rate):
    return [r for r in results if (r["problem"], r["method"], r["learning_rate"]) == (problem, method, rate)]


def best_rate(results, problem, method):
    """The learning rate that most seeds were tried with (--best goes on with one), of these the one with the largest share of seeds
    that got there, of these the one with fewest rollouts; None without results."""

    def rank(rate):
        these = of(results, problem, method, rate)
        return (-len(these), -sum(r["reached"] for r in these), statistics.median(r["rollouts"] for r in these))

    return min((rate for rate in methods()[method] if of(results, problem, method, rate)), key=rank, default=None)


def table(results):
    print("| problem | method | learning rate | seeds that got there | rollouts | steps | seconds |\n|---|---|---|---|---|---|---|")
    for problem in problems.PROBLEMS:
        for method in methods():
            rate = best_rate(results, problem, method)
            if rate is None:
                continue
            these = of(results, problem, method, rate)
            there = [r for r in these if r["reached"]]
            cells = [spread([r[key] for r in there]) if there else "-" for key in ("rollouts", "steps", "seconds")]
            print(f"| {problem} | {method} | {rate:g} | {len(there)} of {len(these)} | {' | '.join(cells)} |")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--drilled", required=True, help="the ledger example's drilled model, made by its recipe.sh")
    parser.add_argument("--out", required=True, type=pathlib.Path, help="folder for models, runs and results")
    parser.add_argument("--problem", action="append", choices=list(problems.PROBLEMS), help="default: all")
    parser.add_argument("--method", action="append", choices=list(methods()), help="default: all")
    parser.add_argument("--seeds", type=lambda text: [int(seed) for seed in text.split(",")], default=[1, 2, 3, 4, 5])
    parser.add_argument("--best", action="store_true", help="with each method's best learning rate by the results that there are")
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time")
    parser.add_argument("--table", action="store_true", help="only show what there is")
    options = parser.parse_args()
    rollcall = os.environ["ROLLCALL"]
    out = options.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    file = out / "results.jsonl"
    results = read_lines(file)
    done = {(r["problem"], r["method"], r["learning_rate"], r["seed"]) for r in results}
    writing = threading.Lock()

    def run(problem, method, rate, seed):
        result = measure(rollcall, problem, methods()[method][rate], seed, out)
        with writing, file.open("a") as text:
            results.append({"problem": problem, "method": method, "learning_rate": rate, "seed": seed, **result})
            text.write(json.dumps(results[-1]) + "\n")
            print(json.dumps(results[-1]), file=sys.stderr, flush=True)

    wanted = [] if options.table else [
        (problem, method, rate, seed)
        for problem in options.problem or problems.PROBLEMS
        for seed in options.seeds
        for method in options.method or methods()
        for rate in ([best_rate(results, problem, method)] if options.best else methods()[method])]
    for problem in {problem for problem, *_ in wanted}:
        problems.make(problem, out / folder_of(problem), rollcall, options.drilled)
    with concurrent.futures.ThreadPoolExecutor(options.jobs) as pool:
        for future in [pool.submit(run, *one) for one in wanted if one not in done]:
            future.result()
    table(results)


if __name__ == "__main__":
    main()
