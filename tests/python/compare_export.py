# SPDX-License-Identifier: Apache-2.0
"""compare_export.py SOURCE EXPORT DTYPE: both load in transformers and hold the same weights."""
import sys

import torch
from transformers import AutoModelForCausalLM


def main():
    source, export, dtype = sys.argv[1], sys.argv[2], getattr(torch, sys.argv[3])
    expected = AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32)
    model, report = AutoModelForCausalLM.from_pretrained(export, dtype="auto", output_loading_info=True)
    for problem, names in report.items():
        if names:
            sys.exit(f"{problem}: {names}")
    if model.dtype != dtype:
        sys.exit(f"dtype is {model.dtype}, not {dtype}")
    weights = model.state_dict()
    for name, tensor in expected.state_dict().items():
        if not torch.equal(tensor.to(dtype), weights[name]):
            sys.exit(f"{name} differs")
    if set(weights) != set(expected.state_dict()):
        sys.exit("names differ")


if __name__ == "__main__":
    main()
