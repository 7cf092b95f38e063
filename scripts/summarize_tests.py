#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Prints a table of ctest's JUnit file, one line a kind (the name up to its first dot), and the names of what failed or was skipped."""
import collections
import sys
import xml.etree.ElementTree as ElementTree

STATES = ("passed", "failed", "skipped")


def state_of(case):
    """A test that could not be started is a failure, though ctest's file calls it skipped."""
    skipped = case.find("skipped")
    if case.get("status") == "disabled" or (skipped is not None and "SKIP_R" in skipped.get("message", "")):
        return "skipped"
    return "passed" if case.get("status") == "run" else "failed"


def main():
    try:
        cases = list(ElementTree.parse(sys.argv[1]).getroot().iter("testcase"))
    except (OSError, ElementTree.ParseError) as error:
        sys.exit(f"no test results: {error}")
    counts = collections.defaultdict(collections.Counter)
    seconds = collections.Counter()
    named = {state: [] for state in STATES}
    for case in cases:
        state = state_of(case)
        named[state].append(case.get("name"))
        label = case.get("name").split(".")[0]
        counts[label][state] += 1
        seconds[label] += float(case.get("time", 0))
    print(f"\n{'tests':<12}" + "".join(f"{state:>9}" for state in STATES) + f"{'seconds':>10}")
    for label in sorted(counts):
        print(f"{label:<12}" + "".join(f"{counts[label][state]:>9}" for state in STATES) + f"{seconds[label]:>10.1f}")
    for state in ("skipped", "failed"):
        for name in named[state]:
            print(f"{state}: {name}")
    print(f"{len(named['passed'])} of {len(cases)} tests passed")
    return bool(named["failed"] or not named["passed"])


if __name__ == "__main__":
    sys.exit(main())
