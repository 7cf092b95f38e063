# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash
# What ./quickstart and ./test share: packages, libtorch, configure and build. Sourced by scripts in the root that run
# under `set -euo pipefail`. Everything of ours goes under build/: app (the build of both commands, apart from the
# presets' folders), venv (libtorch), engines (what exports are compared with) and log. Nothing here writes to standard output.

rollcall_root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
log_dir=$rollcall_root/build/log
build_dir=$rollcall_root/build/app
venv_dir=$rollcall_root/build/venv
engines_dir=$rollcall_root/build/engines
binary=$build_dir/rollcall/rollcall

# shellcheck disable=SC2034  # for the scripts that source this file
build_packages=(ca-certificates ccache cmake g++ git libasio-dev libcli11-dev libcurl4-openssl-dev libhdf5-dev
  libjemalloc-dev libopenmpi-dev libspdlog-dev libutf8proc-dev libxxhash-dev libyaml-cpp-dev ninja-build nlohmann-json3-dev
  openmpi-bin python3 python3-venv)
# shellcheck disable=SC2034
test_packages=(libgmock-dev libgtest-dev python3-h5py valgrind)
# shellcheck disable=SC2034
slurm_packages=(iproute2 munge slurm-wlm)
compiler_kb=900000  # memory that one compiler may take

say() { printf '[%4d s] %s\n' "$SECONDS" "$*" >&2; }

# die WHAT WHAT_TO_DO...
die() {
  printf '\nFailed: %s\n' "$1" >&2
  shift
  if [ $# -gt 0 ]; then printf '  %s\n' "$@" >&2; fi
  exit 1
}

# A sign of life every 15 seconds; ends by itself with the script.
report_progress() {
  local what=$1 log=$2 line nap=''
  trap 'kill $nap 2>/dev/null; exit' TERM  # a nap left behind would keep standard error open
  while sleep 15 & nap=$!; wait "$nap" && kill -0 $$ 2>/dev/null; do
    line=$(tail -n 1 "$log" 2>/dev/null | tr -d '\r' | cut -c1-90) || true
    say "$what: ${line:-still running}"
  done
}

# run_step LOG WHAT COMMAND...: quiet on success; on failure the log's end and its place.
run_step() {
  local log=$log_dir/$1 what=$2 progress status=0
  shift 2
  mkdir -p "$log_dir"
  say "$what"
  report_progress "$what" "$log" >/dev/null </dev/null &
  progress=$!
  "$@" >"$log" 2>&1 </dev/null || status=$?
  kill "$progress" 2>/dev/null || true
  wait "$progress" 2>/dev/null || true
  if [ "$status" -ne 0 ]; then
    # What a compiler complains about first says more than the end of a parallel build.
    grep -m 5 -E '(error|FAILED|undefined)[: ]' "$log" >&2 || true
    tail -n 25 "$log" >&2
    die "$what (exit code $status)" "The whole output is in $log." \
      "Correct what it says and run the same command again: it goes on from here."
  fi
}

# Those of the packages that are not installed, one a line.
missing_packages() {
  local package installed
  installed=$(dpkg-query -W -f='${Package} ${db:Status-Status}\n' "$@" 2>/dev/null) || true
  for package in "$@"; do
    grep -qxF "$package installed" <<<"$installed" || printf '%s\n' "$package"
  done
}

# apt_install PACKAGE...: by "${sudo[@]}".
apt_install() {
  # Stale lists may still do; if not, the installation fails and says so.
  "${sudo[@]}" apt-get update -o Acquire::Retries=3 || printf 'apt-get update failed; going on with the lists here\n'
  "${sudo[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends \
    -o Acquire::Retries=3 -o DPkg::Lock::Timeout=300 "$@"
}

# install_packages DRY_RUN PACKAGE...
install_packages() {
  local dry_run=$1 missing sudo=() advice
  shift
  command -v dpkg-query >/dev/null || die "this is not a Debian system" \
    "Rollcall's scripts install on Debian 12 and its relatives. Elsewhere install the equivalents of:" "$*" \
    "and build with CMake: cmake --preset release && cmake --build --preset release"
  mapfile -t missing < <(missing_packages "$@")
  if [ ${#missing[@]} -eq 0 ]; then return; fi
  say "to install with apt-get: ${missing[*]}"
  if [ "$dry_run" = yes ]; then return; fi
  advice="apt-get update && apt-get install -y --no-install-recommends ${missing[*]}"
  if [ "$(id -u)" -ne 0 ]; then
    command -v sudo >/dev/null ||
      die "packages are missing, and this is neither root nor a user with sudo" "Ask an administrator to run:" "$advice"
    sudo=(sudo)
    # A password is asked for here, where the prompt is seen.
    sudo -v || die "sudo gave no permission to install packages" "Ask an administrator to run:" "$advice"
  fi
  run_step apt.log "installing ${#missing[@]} packages" apt_install "${missing[@]}"
}

# The system's python3: Debian's h5py belongs to it, not to one of a version manager.
find_python() {
  local candidate
  for candidate in /usr/bin/python3 "$(command -v python3 || true)"; do
    if [ -x "$candidate" ]; then
      printf '%s\n' "$candidate"
      return
    fi
  done
  die "there is no python3" "Install it, with its venv module."
}

# What libtorch_cpu.so is and needs, with or without a GPU.
torch_wheels() {
  local version
  version=$(sed -n 's/^set(ROLLCALL_TORCH_VERSION \(.*\))$/\1/p' "$rollcall_root/cmake/torch.cmake")
  [ -n "$version" ] || die "cmake/torch.cmake names no ROLLCALL_TORCH_VERSION"
  printf '%s ' "torch==$version" nvidia-cuda-runtime==13.0.96 nvidia-cuda-cupti==13.0.85
}

# make_venv WHEEL...: from nothing, since what an interrupted run left cannot be told from a whole one.
make_venv() {
  rm -rf "$venv_dir" && "$(find_python)" -m venv "$venv_dir" &&
    env -u PYTHONHOME -u PYTHONPATH PIP_USER=false "$venv_dir/bin/python" -m pip install --no-input \
      --disable-pip-version-check --progress-bar off --no-deps "$@"
}

venv_site_packages() { printf '%s\n' "$venv_dir"/lib/python3*/site-packages; }

# venv_complete WHEELS: the stamp is written last.
venv_complete() {
  local site
  site=$(venv_site_packages)
  [ "$(cat "$venv_dir/complete" 2>/dev/null)" = "$1" ] && [ -e "$site/torch/lib/libtorch_cpu.so" ] &&
    [ -e "$site/nvidia/cu13/lib/libcudart.so.13" ] && [ -e "$site/nvidia/cu13/lib/libcupti.so.13" ]
}

# install_torch DRY_RUN: the wheel as a library, no Python package of it is ever imported. Sets ROLLCALL_TORCH_DIR.
install_torch() {
  local dry_run=$1 wheels list
  if [ -n "${ROLLCALL_TORCH_DIR:-}" ]; then
    [ -e "$ROLLCALL_TORCH_DIR/lib/libtorch_cpu.so" ] ||
      die "ROLLCALL_TORCH_DIR=$ROLLCALL_TORCH_DIR has no lib/libtorch_cpu.so" \
        "Unset it, or point it at the folder 'torch' of an installed wheel."
    return
  fi
  wheels=$(torch_wheels)
  read -ra list <<<"$wheels"
  if ! venv_complete "$wheels"; then
    say "to install with pip into build/venv: ${list[*]} (540 MB to download, 1.2 GB on disk)"
    if [ "$dry_run" = yes ]; then return; fi
    run_step pip.log "installing ${list[0]} as a library" make_venv "${list[@]}"
    printf '%s\n' "$wheels" >"$venv_dir/complete"
    venv_complete "$wheels" || die "the wheels lack libtorch_cpu.so or the CUDA runtime it links" \
      "An x86-64 Linux with glibc 2.28 or newer is needed; pip's output is in $log_dir/pip.log."
  fi
  ROLLCALL_TORCH_DIR=$(venv_site_packages)/torch
}

# The interpreter that the wheel's own extension module is made for, or the usual one.
torch_python() {
  local module version
  for module in "$ROLLCALL_TORCH_DIR"/_C.cpython-3*.so; do
    version=$(sed -n 's/.*_C\.cpython-3\([0-9]*\)-.*/3.\1/p' <<<"$module")
    if [ -x "/usr/bin/python$version" ]; then printf '%s\n' "/usr/bin/python$version" && return; fi
    if command -v "python$version"; then return; fi
  done
  find_python
}

make_engines() {
  local tests=$rollcall_root/tests/engines
  rm -rf "$engines_dir" && "$(torch_python)" -m venv "$engines_dir" &&
    env -u PYTHONHOME -u PYTHONPATH PIP_USER=false "$engines_dir/bin/python" -m pip install --no-input \
      --disable-pip-version-check --progress-bar off --no-deps --only-binary :all: -r "$tests/requirements.txt" &&
    "$engines_dir/bin/python" "$tests/add_torch.py" "$ROLLCALL_TORCH_DIR"
}

# install_engines DRY_RUN: transformers, PEFT and llama.cpp with the libtorch that is there. Sets ROLLCALL_HF_PYTHON. Two at once take turns.
install_engines() {
  local dry_run=$1 stamp engines_lock
  if [ -n "${ROLLCALL_HF_PYTHON:-}" ]; then return; fi
  stamp=$(cat "$rollcall_root"/tests/engines/{requirements.txt,add_torch.py} <(printf '%s\n' "${ROLLCALL_TORCH_DIR:-}") | sha256sum)
  if [ "$dry_run" = no ]; then exec {engines_lock}>"$rollcall_root/build/lock" && flock "$engines_lock"; fi
  if [ "$(cat "$engines_dir/complete" 2>/dev/null)" != "$stamp" ]; then
    say "to install with pip into build/engines: transformers, PEFT, llama.cpp (95 MB to download, 530 MB on disk)"
    if [ "$dry_run" = yes ]; then return; fi
    run_step engines.log "installing the engines that exports are tested with; ./test --quick does without" make_engines
    printf '%s\n' "$stamp" >"$engines_dir/complete"
  fi
  exec {engines_lock}>&-
  export ROLLCALL_HF_PYTHON=$engines_dir/bin/python
}

# As many compilers as there are cores and memory for, a container's own limit included; or ROLLCALL_JOBS.
compiler_jobs() {
  local count memory_kb limit
  count=$(nproc)
  memory_kb=$(awk '/^MemAvailable:/ {print $2}' /proc/meminfo)
  limit=$(cat /sys/fs/cgroup/memory.max 2>/dev/null) || true
  if [[ $limit =~ ^[0-9]+$ ]] && [ $((limit / 1024)) -lt "$memory_kb" ]; then memory_kb=$((limit / 1024)); fi
  if [ $((memory_kb / compiler_kb)) -lt "$count" ]; then count=$((memory_kb / compiler_kb)); fi
  if [ "$count" -lt 1 ]; then count=1; fi
  printf '%s\n' "${ROLLCALL_JOBS:-$count}"
}

# The folder of a checkout that was moved or copied cannot be used again.
drop_foreign_build() {
  local source_dir
  source_dir=$(sed -n 's/^CMAKE_HOME_DIRECTORY:INTERNAL=//p' "$build_dir/CMakeCache.txt" 2>/dev/null) || true
  if [ -n "$source_dir" ] && [ "$source_dir" != "$rollcall_root" ]; then
    say "build/app was made for $source_dir: starting it over"
    rm -rf "$build_dir"
  fi
}

# configure TESTS: once for the same arguments; what changes in CMake files later is ninja's business. Afresh, since a
# configuration that failed or was cut off leaves wrong answers in the cache.
configure() {
  local arguments=(--fresh -G Ninja -S "$rollcall_root" -B "$build_dir" -DCMAKE_BUILD_TYPE=Release
    "-DROLLCALL_TORCH_DIR=$ROLLCALL_TORCH_DIR" "-DROLLCALL_TESTS=$1" "-DPython3_EXECUTABLE=$(find_python)")
  drop_foreign_build
  if [ "$(cat "$build_dir/configured" 2>/dev/null)" = "${arguments[*]}" ]; then return; fi
  rm -f "$build_dir/configured"
  run_step configure.log "configuring build/app" cmake "${arguments[@]}"
  printf '%s\n' "${arguments[*]}" >"$build_dir/configured"
}

# build TESTS: ON builds everything; OFF what a run needs, in a folder that keeps the tests of an earlier ./test.
build() {
  local tests=$1 targets=() targets_known
  if grep -q '^ROLLCALL_TESTS:.*=ON' "$build_dir/CMakeCache.txt" 2>/dev/null; then configure ON; else configure "$tests"; fi
  if [ "$tests" = OFF ]; then
    targets=(rollcall/rollcall)
    # A target only where a CUDA toolkit was found.
    targets_known=$(ninja -C "$build_dir" -t targets all)
    if [[ $targets_known == *$'\n'"rollcall_cuda: phony"* ]]; then targets+=(rollcall_cuda); fi
  fi
  run_step build.log "building with $(compiler_jobs) jobs" ninja -C "$build_dir" -j "$(compiler_jobs)" "${targets[@]}"
  say "built $binary"
}

# prepare DRY_RUN TESTS PACKAGE...: from a bare machine to a built Rollcall; two at once take turns.
prepare() {
  local dry_run=$1 tests=$2
  shift 2
  if [ "$dry_run" = no ]; then
    mkdir -p "$log_dir" || die "cannot write to $rollcall_root" "Use a checkout of your own."
    exec {build_lock}>"$rollcall_root/build/lock"
    flock --nonblock "$build_lock" || {
      say "waiting for another ./quickstart or ./test to finish its build"
      flock "$build_lock"
    }
  fi
  install_packages "$dry_run" "$@"
  install_torch "$dry_run"
  if [ "$dry_run" = yes ]; then
    say "to build: $binary with $(compiler_jobs) jobs"
    return
  fi
  build "$tests"
  exec {build_lock}>&-
}

# Open MPI refuses root unless told twice; in a container root is the only user there is.
if [ "$(id -u)" -eq 0 ]; then export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1; fi
