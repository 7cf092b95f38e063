#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# What only a GPU shows, in one go: builds the GPU's decoder, compares it with the same kernels on the CPU, measures it beside
# the roofs of that GPU, and prints the table. Needs nvcc, g++ and python3, and nothing else of Rollcall. Ends after eight minutes at
# most: what was not measured by then is missing in the table.
set -euo pipefail
readonly LIMIT_S=470

here=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
out=${1:-$here/build/device}
mkdir -p "$out"
cd "$here"
nvcc=$(command -v nvcc || echo /usr/local/cuda/bin/nvcc)
# cuBLAS may be the toolkit's or a wheel's, which has no libcublas.so.
wheels=$(python3 -c 'import glob, nvidia; print(*[g for p in nvidia.__path__ for g in glob.glob(p + "/cu1*") + glob.glob(p + "/cublas")])' 2>/dev/null || true)
cublas=(-lcublas)
for root in "$(dirname "$(dirname "$(readlink -f "$nvcc")")")" /usr/local/cuda $wheels; do
  library=$(find "$root"/lib* -maxdepth 1 -name 'libcublas.so*' 2>/dev/null | sort | head -1) || true
  if [ -e "$root/include/cublas_v2.h" ] && [ -n "$library" ]; then
    cublas=("-I$root/include" "$library" -Xlinker -rpath -Xlinker "$(dirname "$library")")
    break
  fi
done
sources=(benchmarks/gpu_benchmark.cu model/cuda/gpu_decoder.cu)
if command -v nvidia-smi >/dev/null; then
  nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader
  architecture=native
else
  architecture=sm_90
fi
"$nvcc" -O3 -std=c++17 -arch="$architecture" -I. "${sources[@]}" model/cuda/cuda_device.cu "${cublas[@]}" -o "$out/gpu_benchmark" &
nvcc_build=$!
trap 'kill "$nvcc_build" 2>/dev/null || true' EXIT
emulated=(tests/cuda/emulated_device.cpp tests/cuda/emulated_grid.cpp)
g++ -O2 -std=c++20 -I. -Itests/cuda -x c++ "${sources[@]}" "${emulated[@]}" -o "$out/cpu_selftest"
wait "$nvcc_build"

"$out/cpu_selftest" selftest >"$out/cpu.txt"
if ! command -v nvidia-smi >/dev/null; then
  echo "built for sm_90; there is no GPU here to run it on"
  exit 0
fi
"$out/gpu_benchmark" selftest >"$out/gpu.txt"
python3 benchmarks/device_table.py compare "$out/cpu.txt" "$out/gpu.txt"
status=0
left_s=$((LIMIT_S - SECONDS))
timeout $((left_s > 1 ? left_s : 1)) "$out/gpu_benchmark" | tee "$out/results.jsonl" || status=$?
case $status in
  0) ;;
  124) echo "stopped after $LIMIT_S s: the table lacks what comes later" ;;
  *) exit "$status" ;;
esac
python3 benchmarks/device_table.py table "$out/results.jsonl"
