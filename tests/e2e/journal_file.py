# SPDX-License-Identifier: Apache-2.0
"""Reads a run's journal with h5py, as docs/journal.md describes it, also while the run writes."""

import h5py

TRAIN, VALID = 0, 1
NO_FAULT, MASKED = 0, 3
COMMITTED_ROWS, COMMITTED_USES = 2, 3  # places in the dataset `counts`


def open_journal(path):
    return h5py.File(path, "r", libver="latest", swmr=True)


def committed_rows(path):
    with open_journal(path) as file:
        return int(file["counts"][COMMITTED_ROWS])


def sampled(path):
    """Tokens and their log-probabilities of every rollout, whatever the order of arrival."""
    with open_journal(path) as file:
        count = int(file["counts"][COMMITTED_ROWS])
        rows, offsets = file["rows"][:count], file["offsets"][: count + 1]
        arrays = [file[name][: offsets[-1]] for name in ("tokens", "behavior_logprobs")]
    spans = zip(rows, offsets[:-1], offsets[1:])
    return {(int(row["group"]), int(row["member"])): [array[begin:end].tobytes() for array in arrays] for row, begin, end in spans}


def uses(path):
    """What updates made of rows, as far as it is committed."""
    with open_journal(path) as file:
        return file["uses"][: int(file["counts"][COMMITTED_USES])]


def check_rows(path, case):
    """Every committed row can be read in full, and its arrays fit together."""
    with open_journal(path) as file:
        count = int(file["counts"][COMMITTED_ROWS])
        rows, offsets = file["rows"][:count], file["offsets"][: count + 1]
        tokens, is_action = file["tokens"][: offsets[-1]], file["is_action"][: offsets[-1]]
        logprobs = file["behavior_logprobs"][: offsets[-1]]
    case.assertEqual(len(rows), count)
    case.assertEqual(len(tokens), offsets[-1])
    for row, begin, end in zip(rows, offsets[:-1], offsets[1:]):
        case.assertLess(row["prompt_length"], end - begin)
        case.assertFalse(is_action[begin : begin + row["prompt_length"]].any(), "the prompt is no action")
        case.assertTrue(is_action[begin:end].any(), "the agent said nothing")
        case.assertTrue((logprobs[begin:end][is_action[begin:end] == 0] == 0).all())
        case.assertTrue((logprobs[begin:end] <= 0).all())
    return rows
