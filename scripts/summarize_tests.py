#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Prints a table of ctest's JUnit files, one line a kind (the name up to its first dot), and the names of what failed or was skipped.

A test that stands in several files counts as in the last of them. With --unloaded: only the names of tests whose program
the system's loader could not start, as a pattern for ctest -R.
"""
import collections
import re
import sys
import xml.etree.ElementTree as ElementTree

STATES = ("passed", "failed", "skipped")


def state_of(case):
    """A test that could not be started is a failure, though ctest's file calls it skipped."""
    skipped = case.find("skipped")
    if case.get("status") == "disabled" or (skipped is not None and "SKIP_R" in skipped.get("message", "")):
        return "skipped"
    return "passed" if case.get("status") == "run" else "failed"


def unloaded(case):
    """Out of memory in the loader: the test has said nothing yet. A library that is missing is another matter."""
    return state_of(case) == "failed" and re.search(
        r"error while loading shared libraries: .*Cannot allocate memory", case.findtext("system-out", ""))


def main():
    files = [name for name in sys.argv[1:] if name != "--unloaded"]
    try:
        cases = {case.get("name"): case for name in files for case in ElementTree.parse(name).getroot().iter("testcase")}
    except (OSError, ElementTree.ParseError) as error:
        sys.exit(f"no test results: {error}")
    if "--unloaded" in sys.argv:
        names = "|".join(re.escape(name) for name, case in cases.items() if unloaded(case))
        print(f"^({names})$" if names else "")
        return 0
    cases = cases.values()
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
