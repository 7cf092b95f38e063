#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
set -euo pipefail

usage() {
  cat <<'USAGE'
recipe.sh ROLLCALL PYTHON

Makes examples/ledger/model again: a tokenizer, drills, then sloppy demonstrations.

  ROLLCALL  the rollcall binary, for example build/app/rollcall/rollcall
  PYTHON    a Python that has the packages tokenizers and jinja2
USAGE
}

case ${1-} in -h | --help) usage; exit 0 ;; esac
if [ $# -ne 2 ]; then usage >&2; exit 2; fi
command -v "$1" > /dev/null || { echo "recipe.sh: $1 is no program that can be run" >&2; exit 2; }
rollcall=$(realpath "$(command -v "$1")") python=$2
"$python" -c 'import jinja2, tokenizers' 2> /dev/null || { echo "recipe.sh: install them: $python -m pip install tokenizers jinja2" >&2; exit 2; }
cd "$(dirname "${BASH_SOURCE[0]}")"
python3 make_data.py --out data --drills 100000 --demos 24000
"$python" make_model.py --data data --out build/fresh
"$rollcall" sft sft.yaml
"$rollcall" sft sft.yaml --set model.path=build/drilled --set sft.from_scratch=false --set sft.out=model \
  --set sft.demonstrations=data/demos.jsonl --set sft.steps=400 --set sft.batch=32 --set sft.learning_rate=2e-3 --set sft.warmup_steps=10
