# SPDX-License-Identifier: Apache-2.0
"""A server in a process of its own."""

import contextlib
import subprocess
import sys


@contextlib.contextmanager
def serving(script, *words):
    """Runs the script meanwhile; gives the URL that its first line ends in."""
    process = subprocess.Popen([sys.executable, str(script), *map(str, words)], stdout=subprocess.PIPE, text=True)
    try:
        yield process.stdout.readline().split()[-1]
    finally:
        process.kill()
        process.wait()
