# SPDX-License-Identifier: Apache-2.0
"""loop_trl.py MODEL_DIR URL [--steps 6] [--warm 2] [--micro 32] [--out DIR]: TRL's GRPOTrainer with an HTTP tool and an HTTP grader, those of
task_server.py at URL. Four prompts of eight rollouts a step, at most three turns of 64 tokens.

TRL has no limit on a turn (max_completion_length covers all of them and the tool's words), so generation_config.max_new_tokens is set by
hand; its environments get no trace id, so that they make one up.
"""

import argparse
import os
import uuid
import warnings

os.environ.update({"TRANSFORMERS_VERBOSITY": "error", "TQDM_DISABLE": "1", "HF_HUB_OFFLINE": "1", "TRL_EXPERIMENTAL_SILENCE": "1",
                   "TOKENIZERS_PARALLELISM": "false", "CUDA_VISIBLE_DEVICES": "", "WANDB_MODE": "disabled"})
warnings.filterwarnings("ignore")

import json  # noqa: E402
import pathlib  # noqa: E402
import time  # noqa: E402

import requests  # noqa: E402
import task_server as task  # noqa: E402
import torch  # noqa: E402
import trl  # noqa: E402
from datasets import Dataset  # noqa: E402
from measure import THREADS, emit, peak_rss_mb, spread  # noqa: E402
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback  # noqa: E402
from trl import GRPOConfig, GRPOTrainer  # noqa: E402

PROMPTS, GROUP, TURNS, TURN_TOKENS = 4, 8, 3, 64

parser = argparse.ArgumentParser()
parser.add_argument("model")
parser.add_argument("url")
parser.add_argument("--steps", type=int, default=6)
parser.add_argument("--warm", type=int, default=2)
parser.add_argument("--micro", type=int, default=PROMPTS * GROUP)
parser.add_argument("--out", default="/tmp/trl")
a = parser.parse_args()
torch.set_num_threads(THREADS)
http = requests.Session()


class Environment:
    def reset(self, **row):
        self.trace, self.item, self.calls = f"trace_{uuid.uuid4()}", {"target": row["target"]}, 0

    def guess(self, x: int) -> str:
        """
        Guess the hidden digit.

        Args:
            x: The digit.

        Returns:
            higher, lower or correct.
        """
        self.calls += 1
        call = {"type": "function_call", "id": f"fc_{self.calls}", "call_id": f"call_{self.calls}", "name": "guess",
                "arguments": json.dumps({"x": x}), "trace_id": self.trace, "item": self.item}
        return http.post(a.url + "/tool", json=call, timeout=60).json()["output"]


def reward(prompts, completions, environments=None, target=None, **_):
    def score(i):
        body = {"sample": {"output_text": str(completions[i])[:2000]}, "item": {"target": target[i]},
                "trace_id": environments[i].trace}
        return http.post(a.url + "/grade", json=body, timeout=60).json()["score"]
    return [score(i) for i in range(len(completions))]


class Timed(GRPOTrainer):
    now = {}
    steps = []

    def add(self, name, value):
        self.now[name] = self.now.get(name, 0) + value

    def _generate_single_turn(self, ids, *arguments, **named):
        begin = time.perf_counter()
        result = super()._generate_single_turn(ids, *arguments, **named)
        self.add("generate_s", time.perf_counter() - begin)
        self.add("sampled_tokens", sum(map(len, result[0])))
        self.add("prefilled_tokens", sum(map(len, ids)))
        return result

    def _calculate_rewards(self, *arguments, **named):
        rewards = super()._calculate_rewards(*arguments, **named)
        self.add("reward", rewards.mean().item())
        return rewards

    def _generate_and_score_completions(self, inputs):
        begin = time.perf_counter()
        result = super()._generate_and_score_completions(inputs)
        self.add("rollout_s", time.perf_counter() - begin)
        return result


class Clock(TrainerCallback):
    def on_step_begin(self, *_, **__):
        trainer.now = {}
        self.begin = time.perf_counter()

    def on_step_end(self, *_, **__):
        Timed.steps.append({**trainer.now, "step_s": time.perf_counter() - self.begin})


model = AutoModelForCausalLM.from_pretrained(a.model, dtype=torch.float32)
tokenizer = AutoTokenizer.from_pretrained(a.model)
tokenizer.chat_template = (pathlib.Path(trl.__file__).parent / "chat_templates" / "qwen3_instruct_2507.jinja").read_text()
rows = Dataset.from_list([{"prompt": task.messages(), "target": i % 10} for i in range(400)])
config = GRPOConfig(output_dir=a.out, use_cpu=True, bf16=False, fp16=False, num_generations=GROUP, per_device_train_batch_size=a.micro,
                    gradient_accumulation_steps=PROMPTS * GROUP // a.micro, max_steps=a.steps, max_completion_length=256,
                    max_tool_calling_iterations=TURNS - 1, temperature=1.0, learning_rate=1e-5, lr_scheduler_type="constant",
                    logging_steps=1, report_to="none", save_strategy="no", beta=0.0, disable_tqdm=True, seed=0,
                    gradient_checkpointing=False, dataloader_pin_memory=False)
trainer = Timed(model=model, reward_funcs=reward, args=config, train_dataset=rows, processing_class=tokenizer,
                callbacks=[Clock()], environment_factory=Environment)
trainer.generation_config.max_new_tokens = TURN_TOKENS
trainer.train()
steps = Timed.steps[a.warm:]


def of(name):
    return spread([step.get(name, 0) for step in steps])


rollouts = PROMPTS * GROUP
emit({"bench": "loop", "engine": "TRL", "model": pathlib.Path(a.model).name, "dtype": "float32", "threads": THREADS, "steps": len(steps),
      "rollouts_per_s": spread([rollouts / step["step_s"] for step in steps]), "step_s": of("step_s"),
      "generate_s": of("generate_s"), "update_s": spread([step["step_s"] - step["rollout_s"] for step in steps]),
      "sampled_tokens": of("sampled_tokens"), "prefilled_tokens": of("prefilled_tokens"), "reward": of("reward"),
      "peak_rss_mb": peak_rss_mb()}, "trl", "transformers", "torch")
os._exit(0)  # its threads would keep the process for seconds
