# SPDX-License-Identifier: Apache-2.0
"""compare_export.py [SOURCE EXPORT DTYPE]...: both of each three load in transformers and hold the same weights."""
import sys

import torch
from transformers import AutoModelForCausalLM


def compare(source, export, dtype):
    expected = AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32)
    model, report = AutoModelForCausalLM.from_pretrained(export, dtype="auto", output_loading_info=True)
    for problem, names in report.items():
        if names:
            sys.exit(f"{export}: {problem}: {names}")
    if model.dtype != dtype:
        sys.exit(f"{export}: dtype is {model.dtype}, not {dtype}")
    weights = model.state_dict()
    for name, tensor in expected.state_dict().items():
        if not torch.equal(tensor.to(dtype), weights[name]):
            sys.exit(f"{export}: {name} differs")
    if set(weights) != set(expected.state_dict()):
        sys.exit(f"{export}: names differ")


def main():
    arguments = iter(sys.argv[1:])
    for source, export, dtype in zip(arguments, arguments, arguments):
        compare(source, export, getattr(torch, dtype))


if __name__ == "__main__":
    main()
