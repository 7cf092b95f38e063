#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Makes examples/ledger/model again: a tokenizer, drills, then sloppy demonstrations.
# recipe.sh ROLLCALL PYTHON: the rollcall binary, and a Python that has the package `tokenizers`.
set -euo pipefail
rollcall=$(realpath "$1") python=$2
cd "$(dirname "${BASH_SOURCE[0]}")"
python3 make_data.py --out data --drills 100000 --demos 24000
"$python" make_model.py --data data --out build/fresh
"$rollcall" sft sft.yaml
"$rollcall" sft sft.yaml --set model.path=build/drilled --set sft.from_scratch=false --set sft.out=model \
  --set sft.demonstrations=data/demos.jsonl --set sft.steps=400 --set sft.batch=32 --set sft.learning_rate=2e-3 --set sft.warmup_steps=10
