#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Rollcall beside its peers and the machine's roofs, in one run on an otherwise idle machine.

    benchmarks/run.py [--build build/app] [--peers build/peers] [--out build/performance] [PART...]

Parts: roofs, decode, prefix, turns, learner, learners, packed, loop, tools, workers, lag, http, journal, weights, cost, long (default: all, about
two hours and a half). The peers are made by peers/setup.sh; without them our own numbers are measured alone. Every measurement is a line of OUT/rows.jsonl;
a part that is run again replaces its lines. Ends with the tables of OUT/performance.md, medians with the extremes, and a ratio for each
row: above 1 where Rollcall is better.
"""

import argparse
import contextlib
import json
import os
import pathlib
import shutil
import statistics
import subprocess
import sys
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE / "peers"))
import cost  # noqa: E402
import task_server as task  # noqa: E402
from measure import THREADS, spread  # noqa: E402
from serving import serving  # noqa: E402

MODELS = ("3m", "smollm2-135m")
BATCHES = (1, 16, 64)
DELAYS_MS = (0, 10, 100, 1000)
# policy.max_lag, and whether rollouts under way take newer weights up.
LAGS = ((0, True), (1, True), (2, True), (2, False), (4, True), (4, False))
IDLE = 0.15  # cores that others may use during a measurement


def busy_seconds():
    """Of all cores together since the machine's start, as far as this machine was ours to use; and our children's."""
    ticks = [int(word) for word in pathlib.Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]]
    used = sum(ticks[i] for i in (0, 1, 2, 5, 6, 7)) / os.sysconf("SC_CLK_TCK")
    times = os.times()
    return used, times.user + times.system + times.children_user + times.children_system


class Bench:
    def __init__(self, options):
        self.build = options.build.resolve()
        self.peers = options.peers.resolve()
        self.out = options.out.resolve()
        self.models = options.model or MODELS
        self.out.mkdir(parents=True, exist_ok=True)
        self.file = self.out / "rows.jsonl"
        self.rows = [json.loads(line) for line in self.file.read_text().splitlines()] if self.file.exists() else []

    def has(self, peer):
        return (self.peers / peer).exists()

    def ours(self, name):
        return self.build / "benchmarks" / name

    def model(self, name):
        folder = self.peers / "models" / name
        if not folder.exists():
            raise SystemExit(f"there is no model {folder}: make it with {HERE}/peers/setup.sh {self.peers}")
        return folder

    def add(self, part, row):
        self.rows.append({"part": part, **row})
        print("  " + json.dumps(row), file=sys.stderr, flush=True)
        self.save()

    def save(self):
        self.file.write_text("".join(json.dumps(row) + "\n" for row in self.rows))

    def forget(self, part):
        self.rows = [row for row in self.rows
                     if row["part"] != part or row.get("model", self.models[0]).removesuffix("-agent") not in self.models]

    @contextlib.contextmanager
    def watch(self, part):
        """Marks the rows added meanwhile if others used the machine."""
        first, begin, (busy, own) = len(self.rows), time.monotonic(), busy_seconds()
        yield
        used, ours = busy_seconds()
        foreign = max(0.0, (used - busy) - (ours - own)) / (time.monotonic() - begin)
        for row in self.rows[first:]:
            row["foreign_cores"] = round(foreign, 2)
        if foreign > IDLE:
            print(f"  others used {foreign:.2f} cores meanwhile: repeat {part}", file=sys.stderr)
        self.save()

    def lines_of(self, command):
        """The lines of JSON that the command prints."""
        words = [str(word) for word in command]
        print(" ".join(words), file=sys.stderr, flush=True)
        done = subprocess.run(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=self.out,
                              env={**os.environ, "OMP_NUM_THREADS": str(THREADS), "PYTHONDONTWRITEBYTECODE": "1"})
        if done.returncode != 0:
            raise SystemExit(f"it failed with exit code {done.returncode}:\n{done.stderr[-3000:]}")
        return [json.loads(line) for line in done.stdout.splitlines() if line.startswith('{"bench"')]

    def measure(self, part, command, **more):
        """Adds them, and `more` to each."""
        with self.watch(part):
            for line in self.lines_of(command):
                self.add(part, {**line, **more})

    def measure_in_turn(self, part, commands, rounds, **more):
        """Adds the lines of each command, of so many turns: of what is [median, lowest, highest] the middle median and the extremes.
        And `more` to each."""
        with self.watch(part):
            turns = [[line for command in commands for line in self.lines_of(command)] for _ in range(rounds)]
            for lines in zip(*turns):
                self.add(part, {**{key: merged([line[key] for line in lines]) for key in lines[0]}, **more})

    def roofs(self):
        self.add("roofs", machine())
        self.measure("roofs", [self.ours("roof_benchmark"), THREADS])

    def decode(self):
        for model in self.models:
            for dtype, gguf in (("float32", "F32"), ("bfloat16", "BF16")):
                commands = [[self.ours("roof_benchmark"), THREADS],
                            [self.ours("engine_benchmark"), self.model(model), *BATCHES, "--dtype", dtype, "--threads", THREADS]]
                if self.has("llama"):
                    commands.append([self.peers / "torch/bin/python", HERE / "peers/decode_llamacpp.py",
                                     self.peers / "llama/bin/llama-batched-bench", f"{self.model(model)}.{gguf}.gguf", dtype, *BATCHES])
                if self.has("vllm"):
                    commands.append([self.peers / "vllm/bin/python", HERE / "peers/decode_vllm.py", self.model(model), dtype, *BATCHES])
                if self.has("torch"):  # for its memory, with the most sequences
                    commands.append([self.peers / "torch/bin/python", HERE / "peers/decode_transformers.py", self.model(model), dtype,
                                     BATCHES[-1]])
                self.measure_in_turn("decode", commands, {"3m": 3, "smollm2-135m": 1}[model], model=model, dtype=dtype)

    def prefix(self):
        for model in self.models:
            self.measure("prefix", [self.ours("engine_benchmark"), self.model(model), 16, "--what", "prefix", "--prompt", 1024])

    def turns(self):
        self.measure("turns", [self.ours("engine_benchmark"), self.model("3m"), 2, 4, 8, 16, "--what", "turns", "--prompt", 512])

    def learner(self):
        # The peers' micro-batch is the largest that is not slower, ours the smallest, in sequences and in tokens; where a group shares
        # its prompt, one that the group fits into. Of so many sequences of 512 tokens.
        for model in self.models:
            micro, alone, whole_group, few, rounds = {"3m": (16, 8192, 8192, 16, 5), "smollm2-135m": (4, 1024, 256 + 8 * 256, 4, 1)}[model]
            for dtype, theirs, group, prompt, sequences, tokens in (("float32", ("float32",), 1, 128, few, alone),
                                                                    ("bfloat16", ("bfloat16", "autocast"), 1, 128, few, alone),
                                                                    ("float32", ("float32",), 8, 256, 16, whole_group)):
                work = ("--prompt", prompt, "--sequences", sequences)
                commands = [[self.ours("learner_benchmark"), self.model(model), "--dtype", dtype, "--group", group, *work,
                             "--max-tokens", tokens]]
                for kind in theirs if self.has("torch") else ():
                    commands.append([self.peers / "torch/bin/python", HERE / "peers/learner_transformers.py", self.model(model), kind,
                                     micro, *work])
                self.measure_in_turn("learner", commands, rounds)

    def packed(self):
        """Sequences of 33 to 512 tokens beside as many of 512, which padding would make of them; the head by chunks, trained and frozen,
        beside all logits."""
        for words in ((), ("--uneven",)):
            self.measure("packed", [self.ours("learner_benchmark"), self.model("3m"), "--prompt", 32, *words])
        for words in ((), ("--whole",), ("--frozen",), ("--frozen", "--whole")):
            self.measure("packed", [self.ours("loss_benchmark"), *words])

    def server(self, *words):
        return serving(HERE / "peers/task_server.py", *words)

    def train(self, url, model, steps, settings, watch=lambda: None):
        """The lines of metrics of a run on the task of task_server.py. `watch` is called every second."""
        folder = self.out / "runs"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        rows = [{"messages": task.messages(), "tools": [task.SCHEMA], "target": i % 10} for i in range(4096)]
        (folder / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        run = {"run": {"name": "run", "dir": str(folder), "seed": 1, "steps": steps}, "model": {"path": str(self.model(model))},
               "data": {"train": "train.jsonl"}, "tools": [{"name": "guess", "url": url + "/tool", "max_concurrency": 4096}],
               "grader": {"url": url + "/grade", "max_concurrency": 4096},
               "rollout": {"max_turns": 3, "max_tool_calls": 3, "max_new_tokens": 64, "context": 1024},
               "batch": {"prompts": 4, "group_size": 8},
               "algorithm": {"learning_rate": 1e-5}, "cluster": {"learners": 1, "workers": 2},
               "checkpoint": {"every": 0}, **settings}
        (folder / "run.yaml").write_text(json.dumps(run))
        with open(folder / "log", "w") as log:
            process = subprocess.Popen([str(self.build / "rollcall/rollcall"), "train", str(folder / "run.yaml")], stdout=log,
                                       stderr=log)
        while process.poll() is None:
            watch()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(1)
        if process.returncode != 0:
            raise SystemExit(f"rollcall train failed with exit code {process.returncode}:\n{(folder / 'log').read_text()[-3000:]}")
        lines = [json.loads(line) for line in (folder / "run/metrics.jsonl").read_text().splitlines()]
        return [line for line in lines if "rollouts" in line]

    def loop(self):
        for model in self.models:
            small, model = model == "3m", f"{model}-agent"
            # Micro-batches, TRL's in sequences and ours in tokens: the largest that are not slower, and ours the smallest.
            steps, warm, micro, tokens = (20, 4, 32, 8192) if small else (3, 1, 8, 2048)
            for delay in (0, 50) if small else (0,):
                with self.server("--delay-ms", delay) as url:
                    for lag in (0, 2) if small else (0,):
                        with self.watch("loop"):
                            self.rollcall_loop(url, model, delay, lag, tokens, steps, warm)
                    if self.has("torch"):
                        self.measure("loop", [self.peers / "torch/bin/python", HERE / "peers/loop_trl.py", self.model(model), url,
                                              "--steps", 7 if small else steps, "--warm", 2 if small else warm,
                                              "--micro", micro, "--out", self.out / "trl"], delay_ms=delay)

    def rollcall_loop(self, url, model, delay, lag, tokens, steps, warm):
        seen = []
        settings = {"policy": {"max_lag": lag}, "algorithm": {"learning_rate": 1e-5, "microbatch_tokens": tokens}}
        lines = self.train(url, model, steps, settings, lambda: seen.append(memory_of(rank_pids())))[warm:]
        most = max(seen, key=lambda held: sum(held.values()))
        self.add("loop", {"bench": "loop", "engine": "rollcall", "model": model, "delay_ms": delay, "max_lag": lag,
                          "rollouts_per_s": spread([line["rollouts"] / line["seconds_step"] for line in lines]),
                          **{key: spread([line[name] for line in lines]) for key, name in (
                              ("step_s", "seconds_step"), ("generate_s", "seconds_rollout"), ("update_s", "seconds_update"),
                              ("sampled_tokens", "tokens_sampled"), ("reward", "reward_mean"))},
                          **{key: spread([line[name] / line["seconds_step"] for line in lines]) for key, name in (
                              ("journal_share", "seconds_journal"), ("publish_share", "seconds_publish"), ("load_share", "seconds_load_max"))},
                          "peak_rss_mb": sum(most.values()), "ranks_mb": sorted(most.values(), reverse=True)})

    def tools(self):
        """8,192 rollouts, 1,024 of them in flight, tools that take longer and longer in turn; no updates."""
        rates = {delay: [] for delay in DELAYS_MS}
        with self.watch("tools"):
            for _ in range(3):
                for delay in DELAYS_MS:
                    with self.server("--delay-ms", delay, "--flat") as url:
                        line = self.train(url, "3m-agent", 1, {"batch": {"prompts": 1024, "group_size": 8},
                                                               "cluster": {"learners": 1, "workers": 1, "rollouts_per_worker": 1024}})[0]
                        rates[delay].append(line["tokens_sampled"] / line["seconds_rollout"])
            for delay in DELAYS_MS:
                self.add("tools", {"bench": "tools", "delay_ms": delay, "tokens_per_s": spread(rates[delay]),
                                   "of_no_delay": spread([rate / base for rate, base in zip(rates[delay], rates[0])])})

    def workers(self):
        """Tokens a second of one worker and of two, one core each, in turn."""
        rates = {1: [], 2: []}
        with self.server("--flat") as url, self.watch("workers"):
            for _ in range(3):
                for count, of in rates.items():
                    line = self.train(url, "3m-agent", 1, {"batch": {"prompts": 128, "group_size": 8},
                                                           "cluster": {"learners": 1, "workers": count}})[0]
                    of.append(line["tokens_sampled"] / line["seconds_rollout"])
            self.add("workers", {"bench": "workers", "one": spread(rates[1]), "two": spread(rates[2]),
                                 "gain": spread([two / one for one, two in zip(rates[1], rates[2])])})

    def learners(self):
        """Two learners, one core each: what the sum of their gradients takes, and what of it they wait for."""
        for model in self.models:
            sequences, tokens = {"3m": (8, 8192), "smollm2-135m": (2, 1024)}[model]
            self.measure("learners", [self.ours("learner_benchmark"), self.model(model), "--learners", 2, "--threads", 1,
                                      "--sequences", sequences, "--max-tokens", tokens, "--repetitions", 5])

    def lag(self):
        """Rollouts that go on during updates beside those that wait, where every call takes the same time and where some take long."""
        steps, warm, repeats = 24, 8, 3
        for delay, sigma in ((0, 0), (100, 0), (100, 1)):
            rates = {lag: [] for lag in LAGS}
            waits = {lag: [] for lag in LAGS}
            with self.server("--delay-ms", delay, "--sigma", sigma) as url, self.watch("lag"):
                for _ in range(repeats):
                    for lag in LAGS:
                        policy = {"max_lag": lag[0], "in_flight_updates": lag[1]}
                        lines = self.train(url, "3m-agent", steps, {"policy": policy})[warm:]
                        seconds = sum(line["seconds_step"] for line in lines)
                        rates[lag].append(sum(line["rollouts"] for line in lines) / seconds)
                        waits[lag].append(sum(line["seconds_rollout"] for line in lines) / seconds)
                for lag in LAGS:
                    self.add("lag", {"bench": "lag", "delay_ms": delay, "sigma": sigma, "max_lag": lag[0], "in_flight": lag[1],
                                     "rollouts_per_s": spread(rates[lag]), "learner_waits": spread(waits[lag])})

    def http(self):
        self.measure("http", [self.ours("http_benchmark"), 2000, 100])

    def journal(self):
        self.measure("journal", [self.ours("journal_benchmark")])

    def weights(self):
        for mib in (11, 513):  # the two models
            for workers in (1, 2, 4):
                self.measure("weights", [self.ours("weights_benchmark"), mib, workers])

    def cost(self):
        with self.watch("cost"):
            cost.Cost(self).run()

    def long(self):
        """Memory and open files of every rank over 10,000 rollouts, by the second half: the first fills caches."""
        seen = {}

        def look():
            for pid in rank_pids():
                with contextlib.suppress(OSError, IndexError):
                    pages = int(pathlib.Path(f"/proc/{pid}/statm").read_text().split()[1])
                    seen.setdefault(pid, []).append((pages * os.sysconf("SC_PAGE_SIZE") / 1e6, len(os.listdir(f"/proc/{pid}/fd"))))

        with self.server() as url, self.watch("long"):
            lines = self.train(url, "3m-agent", 40, {"batch": {"prompts": 32, "group_size": 8}}, look)
            subprocess.run([self.build / "rollcall/rollcall", "preflight", self.out / "runs/run.yaml"], stdout=subprocess.DEVNULL,
                           stderr=subprocess.DEVNULL)
        predicted = json.loads((self.out / "runs/run/preflight.json").read_text())["disk"]["journal_bytes"]
        journal = sum(file.stat().st_size for file in (self.out / "runs/run/journal").iterdir())
        self.add("long", {"bench": "journal", "mb": journal / 1e6, "of_predicted": journal / predicted})
        rollouts = sum(line["rollouts"] for line in lines)
        for pid, points in sorted(seen.items()):
            half = points[len(points) // 2:]
            self.add("long", {"bench": "long", "process": pid - min(seen), "rollouts": rollouts, "samples": len(points),
                              "rss_mb": half[-1][0],
                              "growth_mb_per_1000": slope([mb for mb, _ in half]) * len(half) / (rollouts / 2) * 1000,
                              "open_files": [half[0][1], half[-1][1]]})

    def find(self, part, **wanted):
        return [row for row in self.rows if row["part"] == part and all(row.get(key) == value for key, value in wanted.items())]

    def best_peer(self, part, key, **wanted):
        peers = [row for row in self.find(part, **wanted) if row.get("engine", "rollcall") != "rollcall"]
        return max(peers, key=lambda row: row[key][0], default=None)


def machine():
    """What was measured, and on what."""
    cpus = [line.split(":", 1)[1].strip() for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    head = subprocess.run(["git", "-C", HERE, "rev-parse", "--short", "HEAD"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    return {"bench": "machine", "cpu": cpus[0] if cpus else "", "cores": os.cpu_count(), "threads": THREADS, "commit": head.stdout.strip(),
            "when": time.strftime("%Y-%m-%d %H:%M")}


def rank_pids():
    """The processes of the run that hold a model."""
    for folder in pathlib.Path("/proc").iterdir():
        if folder.name.isdigit():
            with contextlib.suppress(OSError):
                words = (folder / "cmdline").read_bytes().split(b"\0")
                if words[0].endswith(b"rollcall") and b"OMPI_COMM_WORLD_RANK=" in (folder / "environ").read_bytes():
                    yield int(folder.name)


def memory_of(pids):
    """What each process holds now, MiB: of memory that several share, its part of it."""
    held = {}
    for pid in pids:
        with contextlib.suppress(OSError, StopIteration):
            lines = pathlib.Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
            held[pid] = next(int(line.split()[1]) for line in lines if line.startswith("Pss:")) // 1024
    return held


def merged(values):
    if not isinstance(values[0], list):
        return max(values) if isinstance(values[0], (int, float)) else values[0]
    return [statistics.median(v[0] for v in values), min(v[1] for v in values), max(v[2] for v in values)]


def slope(values):
    """Per step, by least squares."""
    return statistics.linear_regression(range(len(values)), values).slope if len(values) > 1 else 0.0


def number(values, digits=3):
    """The median with the extremes."""
    median, low, high = values if isinstance(values, list) else (values,) * 3

    def text(value):
        return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.{digits}g}"

    return text(median) if low == high else f"{text(median)} ({text(low)} - {text(high)})"


def ratio(ours, theirs):
    return f"{ours[0] / theirs[0]:.2f} ({ours[1] / theirs[2]:.2f} - {ours[2] / theirs[1]:.2f})"


def table(head, rows):
    rows = list(rows)
    if not rows:
        return []
    return ["", "| " + " | ".join(head) + " |", "|" + "---|" * len(head), *("| " + " | ".join(row) + " |" for row in rows)]


def compared(bench, part, key, label, wanted):
    """A row for each of `wanted`: ours, the best peer's, the ratio."""
    rows = []
    for keys in wanted:
        ours = bench.find(part, engine="rollcall", **keys)
        if not ours:
            continue
        row = [*label(keys), number(ours[-1][key])]
        peer = bench.best_peer(part, key, **keys)
        row += [f"{number(peer[key])} {peer['engine']}", ratio(ours[-1][key], peer[key])] if peer else ["", ""]
        rows.append(row)
    return rows


def tables(bench):
    text = []
    for row in bench.find("roofs", bench="machine"):
        text.append(f"{row['cpu']}, {row['cores']} cores, {row['threads']} threads, {row['when']}, commit {row['commit'] or 'unknown'}")
    roofs = bench.find("roofs", bench="roof")
    text += table(["roof", "rate"], [[row["roof"], f"{number(row['rate'])} {row['unit']}"] for row in roofs])
    wanted = [{"model": model, "dtype": dtype, "batch": batch} for model in MODELS for dtype in ("float32", "bfloat16")
              for batch in BATCHES]
    for key, what in (("decode_tps", "decoding"), ("prefill_tps", "prefill")):
        text += table([f"{what}, tokens/s", "weights", "sequences", "Rollcall", "best peer", "ratio"],
                      compared(bench, "decode", key, lambda k: [k["model"], k["dtype"], str(k["batch"])], wanted))
    text += table(["decoding, of the roofs", "weights", "sequences", "of the memory's", "of the matrix product's"],
                  filter(None, (decode_roofs(bench, keys) for keys in wanted)))
    text += table(["64 sequences, MB", "weights", "Rollcall", "transformers", "ratio", "leanest peer", "ratio"], memory_rows(bench))
    text += table(["first token of a group of 16", "prompts of their own, s", "one prompt, s", "one : own"],
                  [[f"{row['model']}, prompt of {row['prompt']}", number(row["separate_s"]), number(row["shared_s"]), number(row["ratio"])]
                   for row in bench.find("prefix")])
    text += table(["turns of a dialogue", "cache kept, s", "prefilled again, s", "kept : again"],
                  [[str(row["batch"]), number(row["kept_s"]), number(row["prefilled_again_s"]), number(row["ratio"])]
                   for row in bench.find("turns")])
    return text + update_table(bench) + packed_tables(bench) + loop_tables(bench)


def decode_roofs(bench, keys):
    """Of what the roofs of the same turns allow: each step reads every parameter once, caches aside, and multiplies it with each sequence."""
    ours = bench.find("decode", engine="rollcall", **keys)
    roofs = {row["roof"]: row["rate"][0] for row in bench.find("decode", bench="roof", model=keys["model"], dtype=keys["dtype"])}
    if not ours or not roofs:
        return None
    parameters, rate = 1e-9 * ours[-1]["parameters"], ours[-1]["decode_tps"][0]
    read = parameters * {"float32": 4, "bfloat16": 2}[keys["dtype"]] * rate / keys["batch"]
    return [keys["model"], keys["dtype"], str(keys["batch"]), f"{read / roofs['memory read']:.2f}",
            f"{2 * parameters * rate / max(roofs[name] for name in product_roofs(keys['dtype'])):.2f}"]


def memory_rows(bench):
    for ours in bench.find("decode", engine="rollcall", batch=BATCHES[-1]):
        mb = ours["peak_rss_mb"]
        peers = {row["engine"]: row["peak_rss_mb"] for row in bench.find("decode", model=ours["model"], dtype=ours["dtype"], batch=ours["batch"])
                 if row["engine"] != "rollcall"}
        leanest = min(peers, key=peers.get, default=None)
        yield [ours["model"], ours["dtype"], number(mb),
               *(text for engine in ("transformers", leanest)
                 for text in ([f"{peers[engine]:,.0f}" + (f" {engine}" if engine == leanest else ""), f"{mb / peers[engine]:.2f}"]
                              if engine in peers else ["", ""]))]


def update_table(bench):
    rows = []
    for ours in bench.find("learner", engine="rollcall"):
        theirs = [row for row in bench.find("learner", engine="transformers", model=ours["model"])
                  if row["prompt"] == ours["prompt"] and (row["dtype"] == "float32") == (ours["dtype"] == "float32")]
        shared = "" if ours["group"] == 1 else f", {ours['group']} share a prompt of {ours['prompt']}"
        row = [ours["model"], ours["dtype"] + shared, number(ours["train_tps"]), share_of_roof(bench, ours)]
        if theirs:
            best = max(theirs, key=lambda row: row["train_tps"][0])
            row += [f"{number(best['train_tps'])} {best['dtype']}", ratio(ours["train_tps"], best["train_tps"]),
                    f"{ours['peak_rss_mb'] / best['peak_rss_mb']:.2f}"]
        else:
            row += [""] * 3
        rows.append(row)
    return table(["update, tokens/s", "weights", "Rollcall", "of the matrix roof", "transformers", "ratio", "memory, ours : theirs"], rows)


def product_roofs(dtype):
    """The faster of them is the roof: not every CPU multiplies bfloat16 faster."""
    return "matrix product, float32", f"matrix product, {dtype}"


def share_of_roof(bench, update):
    """Of the matrix product: 6 operations a parameter and token computed."""
    roofs = [row["rate"][0] for row in bench.find("roofs", bench="roof") if row["roof"] in product_roofs(update["dtype"])]
    computed = update["computed_tokens"] / update["update_s"][0]
    return f"{6e-9 * update['parameters'] * computed / max(roofs):.2f}" if roofs else ""


def packed_tables(bench):
    even_and_uneven = bench.find("packed", bench="learner")
    text = table(["16 sequences of `3m`", "tokens", "update, s"],
                 [[name, f"{row['tokens']:,}", number(row["update_s"])] for name, row in zip(("padded to 512", "packed"), even_and_uneven)])
    return text + table(["log-probabilities of 4,096 tokens of 49,152, with gradients", "s", "peak memory, MB"],
                        [[("all logits" if row["whole"] else "by chunks") + (", frozen head" if row.get("frozen") else ""), number(row["seconds"]),
                          number(row["peak_rss_mb"])] for row in bench.find("packed", bench="loss")])


def loop_table(bench):
    rows = []
    for ours in bench.find("loop", engine="rollcall"):
        row = [ours["model"], f"{ours['delay_ms']} ms", str(ours["max_lag"]), number(ours["rollouts_per_s"])]
        theirs = bench.best_peer("loop", "rollouts_per_s", model=ours["model"], delay_ms=ours["delay_ms"])
        row += [number(theirs["rollouts_per_s"]), ratio(ours["rollouts_per_s"], theirs["rollouts_per_s"]),
                f"{ours['peak_rss_mb'] / theirs['peak_rss_mb']:.2f}"] if theirs else [""] * 3
        rows.append(row + [f"{100 * ours[key][0]:.2f} %" if key in ours else "" for key in ("journal_share", "publish_share", "load_share")])
    return table(["whole loop, rollouts/s", "tools", "`max_lag`", "Rollcall", "TRL", "ratio", "memory, ours : theirs", "journal, of a step",
                  "weights, of a step", "a worker's loading, of a step"], rows)


def loop_tables(bench):
    text = loop_table(bench)
    text += table(["weights", "workers of a host", "shared memory, s", "GB/s to each", "MPI broadcast, s", "broadcast : shared"],
                  [[f"{row['mib']} MiB", str(row["workers"]), number(row["shared_s"]), number(row["mib"] * 1.048576e-3 / row["shared_s"][0]),
                    number(row["broadcast_s"]), number(row["ratio"])] for row in bench.find("weights")])
    text += table(["with", "grows", "at", "", "exponent", "expected"], cost.table_rows(bench.find("cost")))
    text += table(["10,000 rollouts", "memory, MB", "growth, MB per 1,000 rollouts", "open files, half-way and at the end"],
                  [["learner" if i == 0 else f"worker {i}", number(row["rss_mb"]), number(row["growth_mb_per_1000"]),
                    " and ".join(map(str, row["open_files"]))] for i, row in enumerate(bench.find("long", bench="long"))])
    text += table(["journal of them, MB", "of what `preflight` said"],
                  [[number(row["mb"]), f"{row['of_predicted']:.2f}"] for row in bench.find("long", bench="journal")])
    text += table(["requests in flight", "server's delay", "speed, of what the delay allows", "CPU a request, us"],
                  [[str(row["in_flight"]), f"{row['delay_ms']} ms", number(row["of_ideal"]), number(row["cpu_us"])] for row in bench.find("http")])
    text += table(["trajectories of 1,500 tokens", "flat arrays, 1/s", "variable-length types, 1/s", "flat : variable-length", "the journal, 1/s"],
                  [[f"{row['trajectories']:,}", *(number(row[key]) for key in ("flat_per_s", "variable_per_s", "ratio", "journal_per_s") if key in row)]
                   for row in bench.find("journal")])
    lags = [(row, bench.find("lag", delay_ms=row["delay_ms"], sigma=row["sigma"], max_lag=0)[-1]) for row in bench.find("lag")]
    text += table(["`policy.max_lag`", "tools of", "rollouts/s", "of the synchronous", "share of the time that the learner waits"],
                  [[str(row["max_lag"]) + ("" if row.get("in_flight", True) else ", drained"), f"{row['delay_ms']} ms" + (f", lognormal, sigma {row['sigma']}" if row["sigma"] else ""),
                    number(row["rollouts_per_s"]), ratio(row["rollouts_per_s"], base["rollouts_per_s"]), number(row["learner_waits"], 2)]
                   for row, base in lags])
    text += table(["workers", "sampled tokens/s", "of one"],
                  [[name, number(row[key]), gain] for row in bench.find("workers")
                   for name, key, gain in (("1", "one", "1"), ("2", "two", number(row["gain"])))])
    text += table(["two learners", "update, s", "sum of gradients by itself, s", "waited for in an update, s"],
                  [[row["model"], number(row["update_s"]), number(row["sum_s"]), number(row["waited_s"])]
                   for row in bench.find("learners")])
    return text + table(["tools of", "sampled tokens/s", "of those with 0 ms"],
                        [[f"{row['delay_ms']} ms", number(row["tokens_per_s"]), number(row["of_no_delay"])] for row in bench.find("tools")])


PARTS = ("roofs", "decode", "prefix", "turns", "learner", "learners", "packed", "loop", "tools", "workers", "lag", "http", "journal", "weights", "cost", "long")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    root = HERE.parent
    parser.add_argument("--build", type=pathlib.Path, default=root / "build/app", help="build folder, with the target 'benchmarks' built")
    parser.add_argument("--peers", type=pathlib.Path, default=root / "build/peers")
    parser.add_argument("--out", type=pathlib.Path, default=root / "build/performance")
    parser.add_argument("--model", action="append", choices=MODELS, help="default: both")
    parser.add_argument("--table", action="store_true", help="only make the tables again")
    parser.add_argument("part", nargs="*", choices=[[], *PARTS], default=[])
    options = parser.parse_args()
    bench = Bench(options)
    for part in [] if options.table else options.part or PARTS:
        bench.forget(part)
        getattr(bench, part)()
    text = "\n".join(tables(bench)).strip() + "\n"
    (bench.out / "performance.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
