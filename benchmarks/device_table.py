#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What benchmarks/device.sh found: `compare CPU GPU` fails where two selftests differ, `table RESULTS` is Markdown."""

import json
import sys

TOLERANCE = {32: 2e-3, 16: 0.2}  # nats, by the bits of the weights; products on a GPU add in another order
LEAST_SAME = 0.9  # of the drawn tokens: a draw at the border of two may fall otherwise


def read(path):
    lines = [line.split() for line in open(path, encoding="utf-8")]
    return {(int(bits), int(step), int(row)): (int(token), float(logprob)) for bits, step, row, token, logprob in lines}


def compare(cpu, gpu):
    one, other = read(cpu), read(gpu)
    assert one and one.keys() == other.keys(), "the two selftests do not tell the same story"
    for bits, tolerance in TOLERANCE.items():
        keys = [key for key in one if key[0] == bits]
        same = [key for key in keys if one[key][0] == other[key][0]]
        worst = max((abs(one[key][1] - other[key][1]) for key in same), default=0)
        print(f"{bits}-bit weights: {len(same)} of {len(keys)} tokens are the CPU's, log-probabilities differ by {worst:.2g} nats at most")
        near = all(abs(one[key][1] - other[key][1]) <= tolerance for key in same)
        if not keys or len(same) < LEAST_SAME * len(keys) or not near:
            sys.exit("the GPU computes something else than the same kernels on the CPU")


def table(path):
    roofs, *rows = [json.loads(line) for line in open(path, encoding="utf-8")]
    print(f"\nRoofs: {roofs['roof_bytes_per_second'] / 1e9:.0f} GB/s of copying, {roofs['roof_flops'] / 1e12:.0f} TFLOP/s of bfloat16 products.\n")
    print("| model | batch | decode, tokens/s (P10 - P90) | of the roof | prefill, tokens/s | of the roof |")
    print("|---|---|---|---|---|---|")
    for row in rows:
        decode = f"{row['decode_tokens_per_second']:,.0f} ({row['decode_p10']:,.0f} - {row['decode_p90']:,.0f})"
        print(f"| {row['model']} | {row['batch']} | {decode} | {row['decode_over_roof']:.2f} | {row['prefill_tokens_per_second']:,.0f} | {row['prefill_over_roof']:.2f} |")


if __name__ == "__main__":
    {"compare": compare, "table": table}[sys.argv[1]](*sys.argv[2:])
