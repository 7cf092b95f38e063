# SPDX-License-Identifier: Apache-2.0
"""random_models.py ROLLCALL [--count N] [--seed S] [--only FAMILY] [--keep FOLDER]: random checkpoints of every model
family, computed by `rollcall model logits` and by transformers and PEFT from the same files. Every choice that
config.json offers is drawn: sizes, grouped heads, biases, tying, rotary positions, windows, keys missing or null, the
spelling of transformers 4 and 5, the weights' type, shards; and a LoRA adapter. Compared are logits, gradients of the
mean negative log-likelihood, the same with the adapter, and what transformers computes from `rollcall export`. Prints
the worst differences of each family; exits 1 if one is over what is allowed: logits 1e-4 absolute + 1e-4 relative,
gradients 1e-4 of the largest entry + 1e-3 relative. Without these packages here or in ROLLCALL_HF_PYTHON it exits 77."""
import argparse
import json
import os
import pathlib
import random
import subprocess
import sys
import tempfile

try:
    import peft
    import torch
    import transformers
    from safetensors.torch import save_file
except ImportError:
    OTHER = os.environ.pop("ROLLCALL_HF_PYTHON", None)  # asked once
    if OTHER is None:
        print("left out: ROLLCALL_HF_PYTHON names no Python with transformers")
        sys.exit(77)
    os.execv(OTHER, [OTHER, *sys.argv])

TOLERANCE = 1e-4
FAMILIES = ("llama", "ministral", "mistral", "qwen2", "qwen3", "smollm3")
CLASS_KV_HEADS = {"ministral": 8, "mistral": 8, "qwen2": 32, "qwen3": 32, "smollm3": 4}


def draw_sizes(rng, family):
    heads = rng.choice([1, 2, 3, 4, 6, 8])
    keys = {"num_attention_heads": heads, "num_key_value_heads": rng.choice([k for k in range(1, heads + 1) if heads % k == 0])}
    if family not in ("ministral", "mistral") and rng.random() < 0.15:
        keys["num_key_value_heads"] = None
    if family in CLASS_KV_HEADS and rng.random() < 0.15:
        keys["num_attention_heads"] = heads = CLASS_KV_HEADS[family] * rng.choice([1, 2])
        del keys["num_key_value_heads"]
    head_dim = rng.choice([2, 4, 10, 16, 24, 32, 40] if heads < 16 else [2, 4])
    if family == "ministral" or family == "qwen3" or rng.random() < 0.4:
        keys["head_dim"] = head_dim
        keys["hidden_size"] = rng.choice([24, 40, 64, 100])
        if family == "llama":  # its class insists
            keys["hidden_size"] = heads * rng.choice([4, 8, 12])
    else:
        keys["hidden_size"] = heads * head_dim
    if family == "qwen3" and rng.random() < 0.1:
        del keys["head_dim"]
    if family == "mistral" and "head_dim" not in keys and rng.random() < 0.3:
        keys["head_dim"] = None
    keys |= {
        "intermediate_size": rng.choice([8, 50, 96, 129]),
        "num_hidden_layers": rng.randint(1, 5),
        "vocab_size": rng.choice([33, 100, 257]),
        "rms_norm_eps": rng.choice([1e-6, 1e-5, 1e-2]),
    }
    if rng.random() < 0.2:
        del keys["rms_norm_eps"]
    return keys


def draw_yarn(rng):
    keys = {"factor": rng.choice([2.0, 4, 7.5, 0.5])}
    optional = {
        "beta_fast": [32, 8.0, 0, None],
        "beta_slow": [1, 2.5, None],
        "truncate": [True, False],
        "attention_factor": [1.3, 0.8, None],
        "mscale": [0.7, 1.0, 0],
        "mscale_all_dim": [1.2, 0.5, None],
    }
    for key, values in optional.items():
        if rng.random() < 0.4:
            keys[key] = rng.choice(values)
    if rng.random() < 0.15:
        keys["factor"] = None
    return keys


def draw_rope(rng, config):
    """Adds the keys of rotary positions in the spelling of transformers 4 or 5."""
    kind = rng.choice(["default", "linear", "llama3", "yarn", "yarn"])
    rope = {"rope_type": kind}
    if kind == "linear":
        rope["factor"] = rng.choice([2.0, 3, 8.5])
    if kind == "llama3":
        rope |= {"factor": rng.choice([8.0, 32]), "low_freq_factor": 1.0, "high_freq_factor": rng.choice([4.0, 2.5])}
    if kind == "yarn":
        rope |= draw_yarn(rng)
    original = "original_max_position_embeddings"
    if kind in ("llama3", "yarn"):
        place = rng.choice([rope, rope, rope, config])
        place[original] = rng.choice([8, 16, 32, 64])
        if place is config and rng.random() < 0.5:
            rope[original] = 24
        if rng.random() < 0.1:
            place.pop(original)
    theta = rng.choice([None, 1e4, 5e5, 123.4, 1000000])
    if rng.random() < 0.5:  # transformers 5
        if theta is not None:
            (rope if rng.random() < 0.8 else config)["rope_theta"] = theta
        config["rope_parameters"] = rope
        return
    if theta is not None:
        config["rope_theta"] = theta
    if rng.random() < 0.5:
        rope["type"] = rope.pop("rope_type")
    config["rope_scaling"] = None if kind == "default" and rng.random() < 0.8 else rope
    if rng.random() < 0.1:  # the older key wins, and what the newer one says is dropped
        config["rope_parameters"] = {"rope_type": "linear", "factor": 5.0, "rope_theta": 77.0}


def draw_layer_types(rng, layers, window):
    kinds = ["full_attention", "sliding_attention"] if window else ["full_attention"]
    return [rng.choice(kinds) for _ in range(layers)]


def draw_layers(rng, family, config):
    layers = config["num_hidden_layers"]
    window = rng.choice([1, 2, 5, 15, 16, 17, 31, 200])
    if family == "smollm3":
        if rng.random() < 0.5:
            config["no_rope_layers"] = [rng.randint(0, 1) for _ in range(layers + rng.randint(0, 1))]
        elif rng.random() < 0.7:
            config["no_rope_layer_interval"] = rng.randint(1, 3)
    slides = family != "llama" and rng.random() < 0.7
    if family in ("qwen2", "qwen3", "smollm3"):
        config["use_sliding_window"] = slides
        if rng.random() < 0.7:
            config["max_window_layers"] = rng.randint(0, layers)
    if slides:
        config["sliding_window"] = window
        if rng.random() < 0.1:
            del config["sliding_window"]
    elif family != "ministral":
        config["sliding_window"] = None
    # transformers reads a mistral with layer_types as a ministral, which has no default head_dim and always a window.
    strict = family == "mistral" and (config.get("head_dim") is None or not slides)
    if rng.random() < 0.3 and not strict and (family != "smollm3" or "sliding_window" in config):
        config["layer_types"] = draw_layer_types(rng, layers, slides)


def draw_config(rng, family):
    config = {"model_type": family, "hidden_act": "silu", "pad_token_id": None, **draw_sizes(rng, family)}
    config["max_position_embeddings"] = rng.choice([64, 128, 512])
    for key, classes in (("attention_bias", ("llama", "qwen3", "smollm3")), ("mlp_bias", ("llama", "smollm3"))):
        if family in classes and rng.random() < 0.6:
            config[key] = rng.random() < 0.7
    if rng.random() < 0.6:
        config["tie_word_embeddings"] = rng.random() < 0.5
    draw_rope(rng, config)
    draw_layers(rng, family, config)
    config["dtype" if "rope_parameters" in config else "torch_dtype"] = rng.choice(["float32", "bfloat16", "float16"])
    return config


def fill(model, generator):
    """Weights under which every part of the model shows."""
    for name, value in model.named_parameters():
        noise = torch.randn(value.shape, generator=generator)
        if name.endswith("norm.weight"):
            value.data = 1 + 0.3 * noise
        elif name.endswith(".bias"):
            value.data = 0.5 * noise
        elif "embed_tokens" in name:
            value.data = noise
        else:
            value.data = noise / value.shape[1] ** 0.5


def save(rng, model, folder, dtype):
    weights = {k: v.detach().to(dtype).contiguous().clone() for k, v in model.state_dict().items()}
    if model.config.tie_word_embeddings and rng.random() < 0.8:  # else the copy stays
        del weights["lm_head.weight"]
    count = rng.choice([1, 1, 2, 3])
    if count == 1:
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
        return
    shard_of = {name: f"model-{rng.randint(1, count):05}-of-{count:05}.safetensors" for name in weights}
    for shard in set(shard_of.values()):
        tensors = {name: weights[name] for name in weights if shard_of[name] == shard}
        save_file(tensors, folder / shard, metadata={"format": "pt"})
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": shard_of}))


def make(rng, family, folder):
    config = draw_config(rng, family)
    (folder / "config.json").write_text(json.dumps(config, indent=1))
    model = transformers.AutoModelForCausalLM.from_config(transformers.AutoConfig.from_pretrained(folder), dtype=torch.float32)
    model.tie_weights()
    fill(model, torch.Generator().manual_seed(rng.getrandbits(32)))
    save(rng, model, folder, getattr(torch, config.get("dtype") or config["torch_dtype"]))


def load(folder, dtype=torch.float32):
    return transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, attn_implementation="eager")


def make_adapter(rng, folder, base):
    """Saves an adapter that changes what the model says; few of its choices are its class's defaults."""
    linears = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    config = peft.LoraConfig(
        r=rng.choice([1, 2, 3, 8]), lora_alpha=rng.choice([1, 2, 5]), use_rslora=rng.random() < 0.5, task_type="CAUSAL_LM",
        target_modules=rng.sample(linears, rng.randint(1, len(linears))))
    model = peft.get_peft_model(load(base), config)
    generator = torch.Generator().manual_seed(rng.getrandbits(32))
    for name, value in model.named_parameters():
        if ".lora_" in name:
            size = 1 if ".lora_A" in name else 0.2
            value.data = size * torch.randn(value.shape, generator=generator) / value.shape[1] ** 0.5
    model.save_pretrained(folder)


def reference(model, ids, names=()):
    """Logits of a transformers model, and the named gradients of the mean negative log-likelihood."""
    tokens = torch.tensor([ids])
    logits = model(tokens, use_cache=False).logits[0]
    if not names:
        return logits.detach(), {}
    loss = torch.nn.functional.cross_entropy(logits[:-1], tokens[0, 1:])
    parameters = {name.replace(".default", ""): value for name, value in model.named_parameters()}
    gradients = torch.autograd.grad(loss, [parameters[name] for name in names])
    return logits.detach(), dict(zip(names, gradients))


def ours(rollcall, folder, ids, names=(), *options):
    command = [rollcall, "model", "logits", folder, "--ids", ",".join(map(str, ids)), *options]
    if names:
        command += ["--grad", ",".join(names)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    if done.returncode != 0:
        raise RuntimeError(done.stderr.strip())
    reply = json.loads(done.stdout)
    gradients = {name: torch.tensor(g["values"]).reshape(g["shape"]) for name, g in reply.get("grads", {}).items()}
    return torch.tensor(reply["logits"]), gradients


def nested(folder, target):
    """The same model with rope_parameters nested by layer type, which transformers reads for other families only."""
    config = json.loads((folder / "config.json").read_text())
    rope = config.get("rope_scaling") or config.pop("rope_parameters", None)
    config.pop("rope_scaling", None)
    if rope is None:
        return False
    config["rope_parameters"] = {"full_attention": rope, "sliding_attention": rope}
    for file in folder.iterdir():
        (target / file.name).symlink_to(file)
    (target / "config.json").unlink()
    (target / "config.json").write_text(json.dumps(config))
    return True


def off_by(got, want, absolute, relative):
    """The largest difference, absolute and as a share of what is allowed."""
    difference = (want - got).abs()
    return difference.max().item(), (difference / (absolute + relative * want.abs())).max().item()


def compare_passes(got, want):
    """Differences of (logits, gradients); gradients in units of their largest entry."""
    found = {"logits": off_by(got[0], want[0], TOLERANCE, TOLERANCE)}
    for name, gradient in want[1].items():
        scale = gradient.abs().max().clamp(min=1e-3)  # behind a window of one key all are 0
        found["gradients"] = max(found.get("gradients", (0, 0)), off_by(got[1][name] / scale, gradient / scale, 1e-4, 1e-3), key=lambda x: x[1])
    return found


def draw_names(rng, names, ids):
    """A prediction needs two tokens."""
    return rng.sample(sorted(names), min(4, len(names))) if len(ids) > 1 else []


def compare(rollcall, seed, family, folder):
    """Differences by what is compared."""
    rng = random.Random(seed)
    make(rng, family, folder)
    vocabulary = json.loads((folder / "config.json").read_text())["vocab_size"]
    ids = [rng.randrange(vocabulary) for _ in range(rng.choice([1, 20, 50, 90]))]
    model = load(folder)
    names = draw_names(rng, dict(model.named_parameters()), ids)
    want, got = reference(model, ids, names), ours(rollcall, folder, ids, names)
    found = compare_passes(got, want)
    if found["logits"][1] > 1:
        exact = reference(load(folder, torch.float64), ids)[0]
        print(f"{folder.name}: from double precision {(got[0] - exact).abs().max():.1e}, transformers {(want[0] - exact).abs().max():.1e}")
    with tempfile.TemporaryDirectory() as scratch:
        other = pathlib.Path(scratch)
        (other / "nested").mkdir()
        if nested(folder, other / "nested") and not torch.equal(ours(rollcall, other / "nested", ids)[0], got[0]):
            raise RuntimeError("rope_parameters nested by layer type give other logits")
        make_adapter(rng, other / "adapter", folder)
        adapted = peft.PeftModel.from_pretrained(load(folder), other / "adapter", is_trainable=True)
        names = draw_names(rng, peft.get_peft_model_state_dict(adapted), ids)
        want = reference(adapted, ids, names)
        for what, values in compare_passes(ours(rollcall, folder, ids, names, "--adapter", other / "adapter"), want).items():
            found["LoRA " + what] = values
        done = subprocess.run([rollcall, "export", folder, "--out", other / "export"], capture_output=True, text=True, timeout=120)
        if done.returncode != 0:
            raise RuntimeError(done.stderr.strip())
        found["export"] = off_by(got[0], reference(load(other / "export"), ids)[0], TOLERANCE, TOLERANCE)
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("rollcall")
    parser.add_argument("--count", type=int, default=24)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", choices=FAMILIES)
    parser.add_argument("--keep", type=pathlib.Path, help="leave the checkpoints here")
    args = parser.parse_args()
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    torch.set_num_threads(1)
    worst, failed = {}, 0
    with tempfile.TemporaryDirectory() as temporary:
        for i in range(args.count):
            family = args.only or FAMILIES[i % len(FAMILIES)]
            name = f"{family}-{args.seed}-{i}"
            folder = (args.keep or pathlib.Path(temporary)).resolve() / name
            folder.mkdir(parents=True)
            try:
                found = compare(args.rollcall, name, family, folder)
            except (RuntimeError, subprocess.TimeoutExpired) as error:
                found = {"logits": (float("inf"), float("inf"))}
                print(f"{name}: {error}")
            wrong = {what: values for what, values in found.items() if not values[1] <= 1}
            if wrong:
                failed += 1
                for what, (absolute, share) in wrong.items():
                    print(f"{name}: {what} off by {absolute:.3g}, {share:.3g} of what is allowed")
                print((folder / "config.json").read_text())
            for what, values in found.items():
                before = worst.setdefault(family, {}).setdefault(what, (0, 0.0, 0.0))
                worst[family][what] = (before[0] + 1, *map(max, before[1:], values))
    for family, columns in sorted(worst.items()):
        for what, (count, absolute, share) in columns.items():
            print(f"{family:10} {what:14} {count:4} models, worst difference {absolute:.1e}, {share:.3f} of what is allowed")
    print(f"{args.count - failed} passed, {failed} failed")
    sys.exit(failed > 0)


if __name__ == "__main__":
    main()
