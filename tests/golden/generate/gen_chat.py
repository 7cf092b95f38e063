# SPDX-License-Identifier: Apache-2.0
"""Chat rendering: real templates through transformers, as text, ids and per-step deltas."""
import json
import re
from pathlib import Path

import common as C
import sources as S
from gen_tokenizers import Reference

MARK = "\ue9a7"  # put inside look-alikes of control tokens so that only the template's own ones are matched

STOP = {"qwen2_5": "<|im_end|>", "qwen3": "<|im_end|>", "qwen3_rev": "<|im_end|>", "qwen3_instruct_2507": "<|im_end|>",
        "smollm2": "<|im_end|>", "llama3_1": "<|eot_id|>", "llama3_2": "<|eot_id|>"}


class Family:
    """One chat template with the tokenizer that gives its ids."""

    def __init__(self, name: str, template: str, tokenizer_json: str, bos: str | None):
        from tokenizers import Tokenizer
        from transformers import PreTrainedTokenizerFast

        self.name, self.template = name, template
        self.ref = Reference(tokenizer_json)
        extra = {"bos_token": bos} if bos else {}
        self.hf = PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(tokenizer_json), **extra)
        self.pattern = re.compile("|".join(re.escape(t) for t in sorted(self.ref.contents, key=len, reverse=True)))

    def render(self, conv: dict) -> str:
        kw = {k: conv[k] for k in ("enable_thinking", "date_string") if k in conv}
        return self.hf.apply_chat_template(
            conv["messages"], tools=conv.get("tools"), chat_template=self.template, tokenize=False,
            add_generation_prompt=conv.get("add_generation_prompt", True), **kw,
        )

    def protect(self, conv: dict) -> dict:
        """The same conversation with marked look-alikes in everything that users and tools wrote."""

        def fix(x):
            if isinstance(x, str):
                return self.pattern.sub(lambda m: m.group(0)[0] + MARK + m.group(0)[1:], x)
            if isinstance(x, list):
                return [fix(v) for v in x]
            if isinstance(x, dict):
                return {k: fix(v) for k, v in x.items()}
            return x

        out = dict(conv)
        out["messages"] = [dict(m, content=fix(m["content"])) if m["role"] != "assistant" else m for m in conv["messages"]]
        if conv.get("tools"):
            out["tools"] = fix(conv["tools"])
        return out

    def encode(self, text: str):
        """Control tokens of the template by id; each run of text between them encoded once, matching off."""
        ids, last = [], 0
        vocab = self.ref.on

        def run(s):
            s = s.replace(MARK, "")
            ids.extend(self.ref.off.encode(s, add_special_tokens=False).ids if s else [])

        for m in self.pattern.finditer(text):
            run(text[last:m.start()])
            ids.append(vocab.token_to_id(m.group(0)))
            last = m.end()
        run(text[last:])
        return ids

    def deltas(self, conv: dict):
        """For each place where the model speaks again: the text after the previous stop token up to the generation prompt."""
        out = []
        msgs = conv["messages"]
        stop = STOP[self.name]
        for i, m in enumerate(msgs):
            later = i + 1 < len(msgs) and m["role"] == "assistant" and msgs[i + 1]["role"] in ("tool", "user")
            if not later:
                continue
            j = i + 1
            while j < len(msgs) and msgs[j]["role"] in ("tool", "user"):
                j += 1
            step = dict(conv, messages=msgs[:j], add_generation_prompt=True)
            text = self.render(self.protect(step))
            # the assistant turn ends at the stop token in front of the first message that follows it
            n_after = text.count(stop) - self.render(self.protect(dict(step, messages=msgs[:i + 1], add_generation_prompt=False))).count(stop)
            pos = len(text)
            for _ in range(n_after + 1):
                pos = text.rindex(stop, 0, pos)
            delta = text[pos + len(stop):]
            out.append({"after_message": i, "text": delta.replace(MARK, ""), "ids": self.encode(delta)})
        return out

    def case(self, key: str, conv: dict) -> dict:
        row = {"id": f"{self.name}/{key}", "template": self.name, "conversation": conv}
        try:
            text = self.render(conv)
        except Exception as e:  # templates raise on what they do not allow
            return dict(row, error=str(e))
        row["text"] = text
        prot = self.render(self.protect(conv))
        if prot.replace(MARK, "") != text:
            row["ids"] = None  # the template's logic reads the look-alike: text only
            return row
        row["ids"] = self.encode(prot)
        hf = self.ref.on.encode(text, add_special_tokens=False).ids
        if hf != row["ids"]:
            row["ids_plain_hf"] = hf
        d = self.deltas(conv)
        if d:
            row["deltas"] = d
        return row


def build(path: Path, families, convs) -> int:
    rows = []
    for fam in families:
        for key, names, conv in convs:
            if fam.name in names:
                rows.append(fam.case(key, conv))
    return C.write_jsonl(path, rows)
