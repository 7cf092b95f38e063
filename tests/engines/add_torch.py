# SPDX-License-Identifier: Apache-2.0
"""Lets the interpreter that runs this import the torch of another folder, on the CPU, without the CUDA libraries of 3 GB.

add_torch.py TORCH: TORCH is the folder `torch` of a wheel. Each library that the wheel links and does not hold gets an empty stand-in,
which is loaded first; its functions are bound on first use, so never.
"""

import pathlib
import re
import subprocess
import sys
import sysconfig

SITE = pathlib.Path(sysconfig.get_paths()["purelib"])
NVIDIA = re.compile(r"lib(cu|nv|nccl)")

LOADER = """import ctypes, os, pathlib, sys
for library in sorted(pathlib.Path(__file__).with_name("no_cuda").iterdir()):
    ctypes.CDLL(str(library))
sys.setdlopenflags(os.RTLD_LAZY)
"""


def needed(library):
    dynamic = subprocess.run(["readelf", "-d", library], check=True, capture_output=True, text=True).stdout
    return re.findall(r"\(NEEDED\).*\[(.*)\]", dynamic)


def missing_libraries(torch):
    """Sonames of NVIDIA's libraries that neither torch nor the CUDA runtime beside it holds."""
    held = {path.name for folder in (torch / "lib", torch.parent / "nvidia/cu13/lib") for path in folder.glob("*.so*")}
    wanted = {name for library in torch.glob("**/*.so") for name in needed(library)}
    return sorted(name for name in wanted - held if NVIDIA.match(name))


def make_stand_in(path):
    command = ["gcc", "-shared", "-nostdlib", "-x", "c", "/dev/null", f"-Wl,-soname,{path.name}", "-o", path]
    subprocess.run(command, check=True)


def check_tag(torch):
    """A wheel's extension module is made for one version of Python."""
    extension = f"_C{sysconfig.get_config_var('EXT_SUFFIX')}"
    if not (torch / extension).exists():
        there = ", ".join(path.name for path in torch.glob("_C.*.so"))
        sys.exit(f"{torch} is no torch for Python {sys.version.split()[0]}: it holds {there or 'no extension module'}, not {extension}")


def main():
    torch = pathlib.Path(sys.argv[1]).resolve()
    check_tag(torch)
    stand_ins = SITE / "no_cuda"
    stand_ins.mkdir(exist_ok=True)
    for name in missing_libraries(torch):
        make_stand_in(stand_ins / name)
    (SITE / "load_no_cuda.py").write_text(LOADER)
    # Lines of a .pth file are folders for the end of sys.path, or imports.
    (SITE / "torch.pth").write_text(f"{torch.parent}\nimport load_no_cuda\n")


if __name__ == "__main__":
    main()
