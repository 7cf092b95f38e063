# SPDX-License-Identifier: Apache-2.0
"""The processes of one run, told from all others by the run file's path on their command lines."""

import os
import pathlib
import shutil
import signal
import time


def _read(pid, name):
    try:
        return pathlib.Path(f"/proc/{pid}/{name}").read_bytes()
    except OSError:
        return b""


def _alive(pid):
    fields = _read(pid, "stat").rpartition(b")")[2].split()
    return bool(fields) and fields[0] not in (b"Z", b"X")


def of_run(run_file):
    """Process ids whose command line names the run file, launcher included."""
    wanted = os.fsencode(str(run_file))
    ids = [int(name) for name in os.listdir("/proc") if name.isdigit()]
    return [pid for pid in ids if wanted in _read(pid, "cmdline").split(b"\0") and _alive(pid)]


def ranks(run_file):
    """rank -> process id."""
    found = {}
    for pid in of_run(run_file):
        for variable in _read(pid, "environ").split(b"\0"):
            if variable.startswith(b"OMPI_COMM_WORLD_RANK="):
                found[int(variable.partition(b"=")[2])] = pid
    return found


def mpirun(run_file):
    return next(pid for pid in of_run(run_file) if b"mpirun" in _read(pid, "cmdline").split(b"\0")[0])


def shared_memory(run_file):
    """What the run has mapped of /dev/shm. \"(deleted)\" follows the name of what nobody has to remove."""
    files = set()
    for pid in of_run(run_file):
        for line in _read(pid, "maps").splitlines():
            path = line.partition(b"/dev/shm/")[2]
            if path:
                files.add(pathlib.Path("/dev/shm") / os.fsdecode(path))
    return files


def scratch_folders(run_file):
    """Folders that the run's launcher keeps files in."""
    folders = set()
    for pid in of_run(run_file):
        words = _read(pid, "cmdline").split(b"\0")
        if b"orte_tmpdir_base" in words:
            folders.add(pathlib.Path(os.fsdecode(words[words.index(b"orte_tmpdir_base") + 1])))
    return folders


def kill_all(run_file):
    """kill -9 for everything, and what such an end cannot clean up is cleaned up here."""
    folders = scratch_folders(run_file)
    deadline = time.monotonic() + 20
    while pids := of_run(run_file):
        for pid in pids:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        if time.monotonic() > deadline:
            raise AssertionError(f"processes {pids} do not die")
        time.sleep(0.02)
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)
