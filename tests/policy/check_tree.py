#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Holds the tree to its rules: which room includes which, where foreign headers may appear, licence lines, no paths of
one machine, one type a name. `check_tree.py ROOT` prints violations and exits 1 if there are any; `--self-test` plants one of each."""
import pathlib
import re
import subprocess
import sys
import tempfile

MAY_INCLUDE = {
    "comms": set(),
    "model": {"comms"},
    "rollout_workers": {"comms", "model"},
    "trainer": {"comms", "model"},
    "slurm": {"comms"},
    "configs": {"comms", "model", "rollout_workers", "trainer", "slurm"},
    "rollcall": {"comms", "model", "rollout_workers", "trainer", "slurm", "configs"},
}
FOREIGN = {  # header -> files it may appear in
    "mpi.h": r"comms/[a-z_]+\.cpp|comms/mpi_[a-z_]+\.h|tests/mpi/.*\.cpp",
    "nccl.h": r"comms/cuda/.*\.(cpp|cu|h)",
    "hdf5.h": r"(trainer|benchmarks)/journal[a-z0-9_]*\.(cpp|h)",
    "curl/curl.h": r"rollout_workers/http_[a-z_]+\.(cpp|h)",
}
HEADER_FORBIDS = ("nlohmann/json.hpp", "spdlog/", "yaml-cpp/", "CLI/", "fmt/")  # slow to compile: in .cpp files alone
FORBIDDEN = ("torch/torch.h", "ATen/ATen.h")  # every operator at once: tenfold the compile time
SCRIPT_LICENCE = "# SPDX-License-Identifier: Apache-2.0"
MARKER = re.compile(r"\b(TO" + r"DO|FIX" + r"ME)\b")
SOURCES = (".cpp", ".h", ".cu")
INCLUDE = re.compile(r'^\s*#\s*include\s*(["<])([^">]+)[">]', re.MULTILINE)
NAMESPACE = re.compile(r"(?:inline )?namespace ?([\w:]*) ?\{$|\}  // namespace")
TYPE = re.compile(r"(?:struct|class|enum|enum class) (\w+)(?: final)?(?: :[^;]*)?(?: \{.*)?$")
MACHINE_PATH = re.compile(r"/(work|root|home)/[a-z.]")


def tracked(root):
    out = subprocess.run(["git", "-C", root, "ls-files", "-z"], capture_output=True, check=False)
    if out.returncode == 0:
        return [p for p in out.stdout.decode().split("\0") if p]
    return [str(p.relative_to(root)) for p in pathlib.Path(root).rglob("*") if p.is_file()]


def check_source(path, text):
    room = path.split("/")[0]
    if not text.startswith("// SPDX-License-Identifier: Apache-2.0"):
        yield f"{path}: the first line is not the licence line"
    for quote, header in INCLUDE.findall(text):
        target = header.split("/")[0]
        if quote == '"' and room in MAY_INCLUDE and target in MAY_INCLUDE and target != room:
            if target not in MAY_INCLUDE[room]:
                yield f"{path}: {room}/ must not include {header}"
        if header in FORBIDDEN:
            yield f"{path}: <{header}> is forbidden; include ATen/core/Tensor.h and ATen/ops/NAME.h"
        if path.endswith(".h") and header.startswith(HEADER_FORBIDS) and not path.startswith("tests/"):
            yield f"{path}: <{header}> belongs in .cpp files"
        if header in FOREIGN and not re.fullmatch(FOREIGN[header], path):
            yield f"{path}: <{header}> belongs in {FOREIGN[header]}"


def types_defined(text):
    """Names of types, with their namespaces, that other files could define too; of unnamed namespaces none."""
    spaces = []
    for line in text.split("\n"):
        found = NAMESPACE.match(line)
        if found and line.startswith("}"):
            spaces.pop()
        elif found:
            spaces.append(found[1])
        elif (named := TYPE.match(line)) and "" not in spaces:
            yield "::".join([*spaces, named[1]])


def is_script(path, text):
    return path.endswith((".py", ".sh")) or text.startswith("#!")


def check(root):
    defined = {}  # a type -> the file that does
    for path in sorted(tracked(root)):
        file = pathlib.Path(root) / path
        if not file.is_file() or path.startswith("tests/golden/"):
            continue
        try:
            text = file.read_text()
        except UnicodeDecodeError:
            continue
        if path.endswith(SOURCES):
            yield from check_source(path, text)
        if path.endswith(SOURCES) and path.split("/")[0] in MAY_INCLUDE:
            for name in types_defined(text):
                first = defined.setdefault(name, path)
                if first != path:
                    yield f"{path}: {name} is the name of a type in {first} too"
        if is_script(path, text) and SCRIPT_LICENCE not in text.split("\n")[:2]:
            yield f"{path}: the licence line is not among the first two lines"
        if path.endswith(SOURCES) or is_script(path, text):
            yield from (f"{path}: left-over marker {found[0]}" for found in MARKER.finditer(text))
        if not path.startswith((".ci/", "tests/policy/")) and MACHINE_PATH.search(text):
            yield f"{path}: names a path of one machine"


def self_test():
    licence = "// SPDX-License-Identifier: Apache-2.0\n"
    planted = {
        "comms/a.cpp": licence + '#include "model/engine.h"\n',
        "trainer/b.cpp": licence + '#include "rollout_workers/worker.h"\n',
        "rollout_workers/c.cpp": licence + '#include "trainer/journal.h"\n',
        "trainer/d.cpp": licence + "#include <mpi.h>\n",
        "comms/e.h": licence + "#include <mpi.h>\n",
        "trainer/f.cpp": licence + "#include <hdf5.h>\n",
        "rollout_workers/g.cpp": licence + "#include <curl/curl.h>\n",
        "comms/h.cpp": licence + "#include <nccl.h>\n",
        "model/i.cpp": "int x;\n",
        "slurm/j.cpp": licence + '#include "configs/run_config.h"\n',
        "model/j.cpp": licence + "// see /ho" + "me/someone\n",
        "model/k.h": licence + "#include <nlohmann/json.hpp>\n",
        "model/l.cpp": licence + "#include <torch/torch.h>\n",
        "model/m.cpp": licence + "// TO" + "DO: more\n",
        "scripts/n.py": "print()\n",
        "trainer/o.cpp": licence + "namespace rollcall {\nstruct Twice {\n};\n}  // namespace rollcall\n",
    }
    allowed = {
        "comms/world.cpp": licence + "#include <mpi.h>\n",
        "trainer/journal_hdf5.cpp": licence + '#include <hdf5.h>\n#include "comms/error.h"\n',
        "rollcall/main.cpp": licence + '#include <CLI/CLI.hpp>\n#include "trainer/learner.h"\n',
        "comms/once.h": licence + "namespace rollcall {\nclass Twice : Base {\n};\n}  // namespace rollcall\n",
        "trainer/p.cpp": licence + "namespace rollcall {\nnamespace {\nstruct Twice {\n};\n}  // namespace\n}  // namespace rollcall\n",
        "trainer/q.h": licence + "namespace rollcall {\nclass Twice;\n}  // namespace rollcall\n",
        "scripts/o.py": "#!/usr/bin/env python3\n" + SCRIPT_LICENCE + "\n",
    }
    with tempfile.TemporaryDirectory() as root:
        for path, text in (planted | allowed).items():
            (pathlib.Path(root) / path).parent.mkdir(exist_ok=True)
            (pathlib.Path(root) / path).write_text(text)
        found = {line.split(":")[0] for line in check(root)}
    missed = sorted(set(planted) - found)
    accused = sorted(found - set(planted))
    print("planted violations missed:", *missed) if missed else print("every planted violation was found")
    print("wrongly accused:", *accused) if accused else print("no file that keeps the rules was accused")
    return bool(missed or accused)


def main():
    if sys.argv[1:] == ["--self-test"]:
        return self_test()
    violations = list(check(sys.argv[1]))
    print("\n".join(violations) or "the tree keeps its rules")
    return bool(violations)


if __name__ == "__main__":
    sys.exit(main())
