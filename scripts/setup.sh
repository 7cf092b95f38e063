# shellcheck shell=bash
# What ./quickstart and ./test share: packages, libtorch, configure and build. Sourced, not run.
# Everything of ours goes under build/: build/venv (libtorch), build/app (the build), build/log.

rollcall_root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
log_dir=$rollcall_root/build/log
build_dir=$rollcall_root/build/app
venv_dir=$rollcall_root/build/venv
binary=$build_dir/rollcall/rollcall

build_packages=(g++ cmake ninja-build python3 python3-venv openmpi-bin libopenmpi-dev libhdf5-dev libyaml-cpp-dev
  libspdlog-dev libcurl4-openssl-dev nlohmann-json3-dev libcli11-dev libxxhash-dev libasio-dev libutf8proc-dev ccache mold)
test_packages=(libgtest-dev libgmock-dev python3-h5py)
wheels=(nvidia-cuda-runtime==13.0.96 nvidia-cuda-cupti==13.0.85)  # what libtorch_cpu.so itself links

say() { printf '[%4ds] %s\n' "$SECONDS" "$*" >&2; }

die() {
  printf '\nFailed: %s\n' "$1" >&2
  shift
  for line in "$@"; do printf '  %s\n' "$line" >&2; done
  exit 1
}

# run_step LOG WHAT COMMAND...: quiet on success; on failure the log's end and its place.
run_step() {
  local log=$log_dir/$1 what=$2
  shift 2
  mkdir -p "$log_dir"
  say "$what"
  if ! "$@" >"$log" 2>&1; then
    tail -n 25 "$log" >&2
    die "$what" "The whole output is in $log." "Correct what it says and run the same command again: it goes on from here."
  fi
}

missing_packages() {
  local package
  for package in "$@"; do
    dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || printf '%s\n' "$package"
  done
}

# install_packages DRY_RUN PACKAGE...
install_packages() {
  local dry_run=$1 missing sudo=()
  shift
  command -v dpkg-query >/dev/null || die "this is not a Debian system" \
    "Rollcall's scripts install on Debian 12 and its relatives. Elsewhere install the equivalents of:" "$*" \
    "and build with CMake: cmake --preset release && cmake --build --preset release"
  mapfile -t missing < <(missing_packages "$@")
  if [ ${#missing[@]} -eq 0 ]; then return; fi
  say "to install with apt-get: ${missing[*]}"
  if [ "$dry_run" = yes ]; then return; fi
  if [ "$(id -u)" -ne 0 ]; then
    command -v sudo >/dev/null || die "packages are missing, and this is neither root nor a user with sudo" \
      "Ask an administrator to run:" "apt-get install -y --no-install-recommends ${missing[*]}"
    sudo=(sudo)
  fi
  run_step apt-update.log "updating the package lists" "${sudo[@]}" apt-get update
  run_step apt-install.log "installing ${#missing[@]} packages" \
    "${sudo[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "${missing[@]}"
}

torch_version() { sed -n 's/^set(ROLLCALL_TORCH_VERSION \(.*\))$/\1/p' "$rollcall_root/cmake/torch.cmake"; }

# The wheel as a library: no Python package of it is ever imported.
install_torch() {
  local dry_run=$1 stamp
  if [ -n "${ROLLCALL_TORCH_DIR:-}" ]; then
    [ -e "$ROLLCALL_TORCH_DIR/lib/libtorch_cpu.so" ] ||
      die "ROLLCALL_TORCH_DIR=$ROLLCALL_TORCH_DIR has no lib/libtorch_cpu.so" "Unset it, or point it at the folder 'torch' of an installed wheel."
    return
  fi
  stamp=$venv_dir/complete-$(torch_version)
  if [ ! -e "$stamp" ]; then
    say "to install with pip into build/venv: torch==$(torch_version) as a library (540 MB to download, 1.2 GB on disk)"
    if [ "$dry_run" = yes ]; then return; fi
    rm -rf "$venv_dir"
    run_step venv.log "making build/venv" /usr/bin/python3 -m venv "$venv_dir"
    run_step pip.log "downloading torch==$(torch_version)" \
      "$venv_dir/bin/pip" install --no-input --disable-pip-version-check --no-deps "torch==$(torch_version)" "${wheels[@]}"
    touch "$stamp"
  fi
  ROLLCALL_TORCH_DIR=$(echo "$venv_dir"/lib/python3*/site-packages/torch)
}

# A compiler can take 0.9 GB.
jobs() {
  local cores memory_gb
  cores=$(nproc)
  memory_gb=$(awk '/MemAvailable/ {print int($2 / 943718)}' /proc/meminfo)
  echo $((memory_gb < 1 ? 1 : memory_gb < cores ? memory_gb : cores))
}

# build TESTS
build() {
  run_step configure.log "configuring build/app" \
    cmake -G Ninja -S "$rollcall_root" -B "$build_dir" -DCMAKE_BUILD_TYPE=Release -DROLLCALL_TORCH_DIR="$ROLLCALL_TORCH_DIR" \
    -DROLLCALL_TESTS="$1"
  local log=$log_dir/build.log last=0 count
  say "building with $(jobs) jobs"
  # Ninja's "[12/140]" becomes a line every ten seconds.
  if ! ninja -C "$build_dir" -j "$(jobs)" 2>&1 | tee "$log" | while IFS= read -r line; do
    if [[ $line =~ ^\[([0-9]+)/([0-9]+)\] ]] && [ $((SECONDS - last)) -ge 10 ]; then
      count="${BASH_REMATCH[1]} of ${BASH_REMATCH[2]}"
      last=$SECONDS
      say "building: $count"
    fi
  done; then
    grep -E 'error|FAILED|undefined' "$log" | head -20 >&2 || true
    die "the build" "The whole output is in $log."
  fi
  say "built $binary"
}
