# SPDX-License-Identifier: Apache-2.0
"""What the peers' programs share: one line of JSON for each measurement, numbers as [median, lowest, highest]."""

import json
import os
import resource
import statistics
import time
from importlib.metadata import version

THREADS = int(os.environ.get("BENCHMARK_THREADS", "2"))
REPETITIONS = int(os.environ.get("BENCHMARK_REPETITIONS", "3"))
PROMPT, NEW = 128, 128


def spread(values):
    return [statistics.median(values), min(values), max(values)]


def peak_rss_mb(who=resource.RUSAGE_SELF):
    return resource.getrusage(who).ru_maxrss // 1024


def seconds_of(work):
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


def emit(row, *packages):
    print(json.dumps({**row, "versions": {name: version(name) for name in packages}}), flush=True)
