#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Reads a journal with h5py while another process writes it: journal_h5py_test.py WRITER.

Checks that every row below counts[0] is whole: its text of known content, its offsets, its trace id.
Exit code 77 (skipped) where h5py is missing.
"""
import os
import subprocess
import sys
import tempfile

try:
    import h5py
except ImportError:
    print("skipped: no h5py")
    sys.exit(77)

ROWS = 3000
TEXTS = 6  # explanation, final_text, fault_detail, sub_rewards, gates, flags


def final_text(file, row):
    begin, end = file["text_offsets"][row * TEXTS + 1 : row * TEXTS + 3]
    return bytes(file["texts"][begin:end]).decode()


def check_rows(file, begin, end):
    rows = file["rows"][begin:end]
    offsets = file["offsets"][begin : end + 1]
    for row, record in zip(range(begin, end), rows):
        assert record["trace_id"].endswith(str(100000000000 + row).encode()), row
        assert record["group"] == row // 4, row
        assert record["passed"] == (row % 3 == 0), row
        assert final_text(file, row) == f"Σ = 12 €, row {row}", row
    first, last = offsets[0], offsets[-1]
    actions = file["is_action"][first:last] == 1
    versions = file["token_version"][first:last]
    assert len(versions) == len(actions) == last - first
    assert (versions[~actions] == -1).all() and (versions[actions] >= 0).all()
    assert (file["behavior_logprobs"][first:last][~actions] == 0).all()


def open_when_there(path, writer):
    """Retries: a journal that is just being opened is no SWMR file for a moment."""
    while True:
        running = writer.poll() is None
        try:
            return h5py.File(path, "r", libver="latest", swmr=True)
        except OSError:
            assert running, "the writer left no readable file"


def follow(path, writer):
    seen, growths = 0, 0
    with open_when_there(path, writer) as file:
        assert file.attrs["format"].decode() == "rollcall journal" and file.attrs["schema"] == 3
        assert file.attrs["about"].decode() == '{"run":"h5py"}'
        while seen < ROWS:
            running = writer.poll() is None
            file["counts"].refresh()
            rows = int(file["counts"][0])
            if rows > seen:
                for dataset in file.values():
                    dataset.refresh()
                check_rows(file, seen, rows)
                seen, growths = rows, growths + 1
            assert running or rows == ROWS, f"the writer ended with {rows} rows"
    return growths


def main():
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "journal.h5")
        writer = subprocess.Popen([sys.argv[1], path, str(ROWS)])
        growths = follow(path, writer)
        assert writer.wait() == 0
        assert growths > 1, f"only {growths} growths seen"
        with h5py.File(path, "r") as file:  # closed cleanly: no swmr needed
            check_rows(file, 0, ROWS)
            assert list(file["counts"][:4]) == [ROWS, ROWS // 100, ROWS, ROWS // 100]
            assert file["uses"]["step"][-1] == ROWS // 100 - 1
        print(f"{ROWS} rows in {growths} growths: none torn")


if __name__ == "__main__":
    main()
