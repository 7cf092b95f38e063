#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""instructions_test.py HOT_PATHS GOLDEN_DIR [--write]: no hot path takes more instructions than before.

Wall time is noise on a shared machine; callgrind counts the same instructions every time. It stands for a CPU with AVX2, so the
AVX-512 kernels are not seen here. A path that takes more than LIMIT times its count in counts.json fails; one that takes
clearly less is to be written down, by --write, so that the gain is kept.
"""

import json
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

LIMIT = 1.05
COUNTS = pathlib.Path(__file__).with_name("counts.json")


def measure(program, golden):
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(["valgrind", "--tool=callgrind", "--instr-atstart=no", f"--callgrind-out-file={folder}/out", program, golden],
                       check=True, stderr=subprocess.PIPE, env={"OMP_NUM_THREADS": "1", "PATH": "/usr/bin:/bin"})
        counts = {}
        for dump in pathlib.Path(folder).glob("out.*"):
            text = dump.read_text()
            name = re.search(r"Client Request: (\w+)", text)
            if name:
                counts[name[1]] = int(re.search(r"^(?:summary|totals): (\d+)", text, re.M)[1])
        return counts


def main():
    program, golden = sys.argv[1:3]
    if shutil.which("valgrind") is None:
        print("valgrind is not installed")
        return 77
    counts = measure(program, golden)
    if "--write" in sys.argv:
        COUNTS.write_text(json.dumps(dict(sorted(counts.items())), indent=2) + "\n")
        return 0
    known = json.loads(COUNTS.read_text())
    if counts.keys() != known.keys():
        raise SystemExit(f"measured {sorted(counts)}, known {sorted(known)}: write them down with --write")
    slower = []
    for name, instructions in sorted(counts.items()):
        ratio = instructions / known[name]
        print(f"{name:10} {instructions:>13,} instructions, {ratio:.3f} of {known[name]:,}")
        if ratio > LIMIT:
            slower.append(name)
        elif ratio < 2 - LIMIT:
            print(f"  faster than written down in {COUNTS.name}: keep it with --write")
    if slower:
        raise SystemExit(f"more than {LIMIT} times the instructions: {', '.join(slower)}. `callgrind_annotate` shows where they go; if they "
                         f"are worth it, write the new counts down with --write")
    return 0


if __name__ == "__main__":
    sys.exit(main())
