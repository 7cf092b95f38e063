# SPDX-License-Identifier: Apache-2.0
"""How time and memory grow with what a run asks for, as exponents beside those to be expected; run.py's part "cost".

Each series is measured by a program for each size, and y = a * x^exponent is fitted to the medians by least squares of logarithms.
"""

import json
import math
import pathlib
import statistics
import struct
import tempfile

# (parameters, hidden size, layers): Qwen3, heads of 64 numbers, 1,024 tokens. Random, for nothing but their cost.
RANDOM_MODELS = (("1m", 128, 4), ("10m", 320, 7), ("100m", 768, 13), ("1b", 2048, 18))
BYTES_OF_LEARNT_PARAMETER = 20  # weights, gradients, two moments, and room for what the update needs beside


def tensors(hidden, layers):
    """(name, shape) of each."""
    yield "model.embed_tokens.weight", (1024, hidden)
    yield "model.norm.weight", (hidden,)
    for layer in range(layers):
        prefix = f"model.layers.{layer}."
        for name in ("input_layernorm", "post_attention_layernorm"):
            yield f"{prefix}{name}.weight", (hidden,)
        for name in ("q_norm", "k_norm"):
            yield f"{prefix}self_attn.{name}.weight", (64,)
        for name in ("q_proj", "k_proj", "v_proj", "o_proj"):
            yield f"{prefix}self_attn.{name}.weight", (hidden, hidden)
        for name in ("gate_proj", "up_proj"):
            yield f"{prefix}mlp.{name}.weight", (3 * hidden, hidden)
        yield f"{prefix}mlp.down_proj.weight", (hidden, 3 * hidden)


def make_model(folder, hidden, layers):
    folder.mkdir(parents=True)
    config = {"architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3", "hidden_size": hidden, "intermediate_size": 3 * hidden,
              "num_hidden_layers": layers, "num_attention_heads": hidden // 64, "num_key_value_heads": hidden // 64, "head_dim": 64,
              "vocab_size": 1024, "max_position_embeddings": 1 << 20, "rope_theta": 10000.0, "rms_norm_eps": 1e-6, "hidden_act": "silu",
              "tie_word_embeddings": True, "attention_bias": False, "eos_token_id": 0, "torch_dtype": "float32"}
    (folder / "config.json").write_text(json.dumps(config))
    header, end = {}, 0
    for name, shape in tensors(hidden, layers):
        size = 4 * math.prod(shape)
        header[name] = {"dtype": "F32", "shape": list(shape), "data_offsets": [end, end + size]}
        end += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    period = struct.pack("<4096f", *(0.02 * math.sin(i * i) for i in range(4096)))
    with open(folder / "model.safetensors", "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        while end > 0:
            end -= file.write(period[:end])
    return sum(math.prod(shape) for _, shape in tensors(hidden, layers))


def available_bytes():
    lines = pathlib.Path("/proc/meminfo").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable:"))


class Cost:
    """Adds the points of every series to the bench as rows {"series", "of", "x", "y": [median, lowest, highest], "unit", "expected"}."""

    def __init__(self, bench):
        self.bench = bench
        self.small = bench.model("3m")

    def run(self):
        self.context()
        self.turns()
        self.groups()
        self.batches()
        self.updates()
        self.workers()
        self.models()

    def lines(self, program, *words):
        return self.bench.lines_of([self.bench.ours(program), *words])

    def point(self, series, of, x, y, unit, expected):
        values = y if isinstance(y, list) else [y, y, y]
        self.bench.add("cost", {"series": series, "of": of, "x": x, "y": values, "unit": unit, "expected": expected})

    def engine(self, model, batch, *words):
        return self.lines("engine_benchmark", model, batch, *words)[0]

    def context(self):
        for prompt in (256, 1024, 4096, 16384):
            line = self.engine(self.small, 4, "--prompt", prompt, "--new", 32)
            self.point("context", "a decoding step", prompt, inverse(line["decode_tps"], 4), "s", "0 to 1")
            self.point("context", "prefill of a prompt", prompt, inverse(line["prefill_tps"], prompt), "s", "1 to 2")
            self.point("context", "memory of the engine", prompt, line["peak_rss_mb"], "MB", "0 to 1")

    def turns(self):
        for line in self.lines("engine_benchmark", self.small, 2, 4, 8, 16, 32, "--what", "turns", "--prompt", 128):
            self.point("turns", "a dialogue", line["batch"], line["kept_s"], "s", "1")
            self.point("turns", "a dialogue without cache", line["batch"], line["prefilled_again_s"], "s", "1 to 2")
            self.point("turns", "memory of the engine, with and without cache", line["batch"], line["peak_rss_mb"], "MB", "0 to 1")

    def groups(self):
        for line in self.lines("engine_benchmark", self.small, 1, 4, 16, 64, "--what", "prefix", "--prompt", 1024):
            self.point("group size", "first tokens of a group", line["batch"], line["shared_s"], "s", "0 to 1")
        for group in (1, 4, 16):
            line = self.lines("learner_benchmark", self.small, "--group", group, "--prompt", 256, "--sequences", 16)[0]
            self.point("group size", "update of 16 sequences, half of each a prompt", group, line["update_s"], "s", "-1 to 0")
            self.point("group size", "memory of the learner", group, line["peak_rss_mb"], "MB", "-1 to 0")

    def batches(self):
        for batch in (1, 4, 16, 64, 256):
            line = self.engine(self.small, batch, "--prompt", 128, "--new", 32)
            self.point("sequences at once", "a decoding step", batch, inverse(line["decode_tps"], batch), "s", "0 to 1")
            self.point("sequences at once", "memory of the engine", batch, line["peak_rss_mb"], "MB", "0 to 1")

    def updates(self):
        for sequences in (8, 16, 32, 64):
            line = self.lines("learner_benchmark", self.small, "--sequences", sequences)[0]
            self.point("batch", "update", sequences, line["update_s"], "s", "1")
            self.point("batch", "memory of the learner", sequences, line["peak_rss_mb"], "MB", "0 to 1")
        for length in (512, 1024, 2048, 4096, 8192):
            line = self.lines("learner_benchmark", self.small, "--sequences", 4, "--length", length)[0]
            self.point("length of 4 sequences", "update", length, line["update_s"], "s", "1 to 2")
            self.point("length of 4 sequences", "memory of the learner", length, line["peak_rss_mb"], "MB", "0 to 1")

    def workers(self):
        with tempfile.TemporaryDirectory(dir=self.bench.out) as folder:
            file = pathlib.Path(folder) / "rows"
            self.lines("scale_benchmark", "--json", file, 1, 4, 16, 64)
            for line in map(json.loads, file.read_text().splitlines()):
                self.point("workers", "lead's CPU for a trajectory", line["workers"], 1e-6 * line["lead_us"], "s", "0")
                # Of as many rollouts a step, with the script that plays the workers.
                self.point("workers", "memory of the lead with 4,096 rollouts", line["workers"], 1.048576 * line["resident_mib"], "MB", "0")

    def models(self):
        for name, hidden, layers in RANDOM_MODELS:
            with tempfile.TemporaryDirectory(dir=self.bench.out) as folder:
                model = pathlib.Path(folder) / name
                parameters = make_model(model, hidden, layers)
                for dtype in ("float32", "bfloat16"):
                    line = self.engine(model, 4, "--prompt", 128, "--new", 16, "--dtype", dtype)
                    self.point("parameters", f"a decoding step, {dtype}", parameters, inverse(line["decode_tps"], 4), "s", "1")
                    self.point("parameters", f"prefill of a prompt, {dtype}", parameters, inverse(line["prefill_tps"], 128), "s", "1")
                    self.point("parameters", f"memory of the engine, {dtype}", parameters, line["peak_rss_mb"], "MB", "0 to 1")
                if BYTES_OF_LEARNT_PARAMETER * parameters < available_bytes():
                    line = self.lines("learner_benchmark", model, "--sequences", 4, "--length", 256, "--repetitions", 2)[0]
                    self.point("parameters", "update", parameters, line["update_s"], "s", "1")
                    self.point("parameters", "memory of the learner", parameters, line["peak_rss_mb"], "MB", "0 to 1")


def inverse(rate, of):
    """Seconds for `of` things at [median, lowest, highest] things a second."""
    return [of / rate[0], of / rate[2], of / rate[1]]


def exponent(points):
    return statistics.linear_regression([math.log(x) for x, _ in points], [math.log(y) for _, y in points]).slope


def series(rows):
    """(series, of) -> its rows, in the order in which they were measured."""
    found = {}
    for row in rows:
        found.setdefault((row["series"], row["of"]), []).append(row)
    return found


def table_rows(rows):
    for (name, of), points in series(rows).items():
        scale = {"s": (1000, "ms")}.get(points[0]["unit"], (1, points[0]["unit"]))
        values = ", ".join(f"{scale[0] * point['y'][0]:,.3g}" if scale[0] * point["y"][0] < 1000 else f"{scale[0] * point['y'][0]:,.0f}"
                           for point in points)
        yield [name, f"{of}, {scale[1]}", ", ".join(f"{point['x']:,}" for point in points), values,
               f"{exponent([(point['x'], point['y'][0]) for point in points]):.2f}", points[0]["expected"]]
