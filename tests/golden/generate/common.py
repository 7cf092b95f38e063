# SPDX-License-Identifier: Apache-2.0
"""Parts shared by the generators: JSON writing, compression, versions."""
import gzip
import hashlib
import io
import json
from pathlib import Path


def dumps(obj) -> str:
    """Compact JSON; floats in shortest round-trip form (Python repr)."""
    return json.dumps(obj, ensure_ascii=False, separators=(",", ":"))


def write_json(path: Path, obj, indent=None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(obj, ensure_ascii=False, indent=indent) if indent else dumps(obj)
    path.write_text(text + "\n", encoding="utf-8")


def write_bytes_gz(path: Path, data: bytes) -> None:
    """Deterministic gzip (no name, no time)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    buf = io.BytesIO()
    with gzip.GzipFile(filename="", mode="wb", fileobj=buf, compresslevel=9, mtime=0) as f:
        f.write(data)
    path.write_bytes(buf.getvalue())


def write_jsonl(path: Path, rows) -> int:
    """Write JSON lines; a name ending in .gz is compressed. Returns the number of rows."""
    rows = list(rows)
    data = "".join(dumps(r) + "\n" for r in rows).encode("utf-8")
    if path.name.endswith(".gz"):
        write_bytes_gz(path, data)
    else:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return len(rows)


def read_bytes(path: Path) -> bytes:
    data = Path(path).read_bytes()
    return gzip.decompress(data) if str(path).endswith(".gz") else data


def read_jsonl(path: Path):
    # split on "\n" only: U+2028 and friends may stand inside strings
    return [json.loads(line) for line in read_bytes(path).decode("utf-8").split("\n") if line]


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def versions() -> dict:
    """Versions of the reference libraries that made the data (only those installed)."""
    import importlib.metadata as md
    import platform

    out = {"python": platform.python_version()}
    for name in ("torch", "transformers", "tokenizers", "safetensors", "peft", "trl", "jinja2", "gguf", "numpy"):
        try:
            out[name] = md.version(name)
        except md.PackageNotFoundError:
            pass
    return out
