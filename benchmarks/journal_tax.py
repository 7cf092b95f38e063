#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What share of its steps a run has waited for its journal.

    ./quickstart --name tax && python3 benchmarks/journal_tax.py runs/tax
"""

import json
import pathlib
import statistics
import sys

lines = [json.loads(line) for line in (pathlib.Path(sys.argv[1]) / "metrics.jsonl").read_text().splitlines()]
steps = [line for line in lines if "seconds_step" in line]
shares = [100 * line["seconds_journal"] / line["seconds_step"] for line in steps]
journal, step = (sum(line[key] for line in steps) for key in ("seconds_journal", "seconds_step"))
print(f"{len(steps)} steps of {step / len(steps):.2f} s, {steps[0]['rollouts']:.0f} rollouts each: {100 * journal / step:.2f} % of them for the journal "
      f"(median {statistics.median(shares):.2f} %, largest {max(shares):.2f} %)")
