#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Makes examples/ledger/model again: a tokenizer, drills, then sloppy demonstrations. About 20 minutes on one core.
# recipe.sh ROLLCALL PYTHON: the rollcall binary, and a Python that has the package `tokenizers`.
set -euo pipefail
rollcall=$(realpath "$1") python=$2
cd "$(dirname "${BASH_SOURCE[0]}")"
python3 make_data.py --out data --drills 60000 --demos 60000
"$python" make_model.py --data data --out build/fresh
"$rollcall" sft sft.yaml
stage() { "$rollcall" sft sft.yaml --set sft.from_scratch=false --set sft.demonstrations=data/demos.jsonl --set sft.warmup_steps=10 "$@"; }
stage --set model.path=build/drilled --set sft.out=build/shown --set sft.steps=200 --set sft.learning_rate=3e-3
stage --set model.path=build/shown --set sft.out=model --set sft.steps=500 --set sft.learning_rate=2e-3 --set sft.seed=2
