"""Checkpoint folders of random weights for the benchmarks in Python: written, filled by tests/tools/random_checkpoint, weighed.
Standard library only."""
import json
import math
import os
import pathlib
import shutil
import subprocess
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
BUILD = ROOT / os.environ.get("BUILD", "build")
GOLDEN = ROOT / "tests" / "golden"


def filled(files, like=None):
    """A new folder with `files` (name: JSON or text), `like`'s tokenizers and chat template, and bf16 weights. The caller removes it."""
    folder = pathlib.Path(tempfile.mkdtemp(prefix="bench-", dir=BUILD))
    for name, content in files.items():
        (folder / name).write_text(content if isinstance(content, str) else json.dumps(content))
    second = GOLDEN / (like or "") / "qformer_tokenizer"
    if second.is_dir():
        shutil.copytree(second, folder / second.name)
    run = subprocess.run([str(BUILD / "tests" / "tools" / "random_checkpoint"), *(["--like", str(GOLDEN / like)] if like else []), str(folder)],
                         capture_output=True, text=True)
    if run.returncode:
        shutil.rmtree(folder)
        raise SystemExit(f"random_checkpoint: {run.stderr}")
    return folder


def parameters(folder, tower, join):
    """How many numbers lie under names that begin with one of `tower`, one of `join`, and all others."""
    with (folder / "model.safetensors").open("rb") as f:
        header = json.loads(f.read(int.from_bytes(f.read(8), "little")))
    out = [0, 0, 0]
    for name, t in header.items():
        name = name.removeprefix("model.")
        part = 1 if name.startswith(tuple(join)) else 0 if name.startswith(tuple(tower)) else 2
        out[part] += math.prod(t["shape"])
    return out


def inspected(folder):
    run = subprocess.run([str(BUILD / "vlmd"), "inspect", str(folder)], capture_output=True, text=True)
    if run.returncode:
        raise SystemExit(f"vlmd inspect: {run.stderr}")
    return run.stdout


def machine(load):
    """Date, processor, what else ran; load: os.getloadavg()[0] before the measuring."""
    lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
    cpu = next((x.split(":", 1)[1].strip() for x in lines if x.startswith("model name")), "unknown")
    flags = next((x for x in lines if x.startswith("flags")), "")
    isa = "AVX-512" if " avx512f" in flags else "AVX2" if " avx2" in flags else "no AVX2"
    return (f"{time.strftime('%Y-%m-%d')}, {os.cpu_count()} cores of {cpu} ({isa}), load before the run {load:.1f}" +
            (" (others ran beside it: times are too long)" if load > 1 else ""))


def rewrite(path, mark, text):
    """Puts the text between the two lines that name `mark` in a document."""
    begin, end = f"<!-- {mark} -->\n", f"<!-- end of {mark} -->\n"
    doc = path.read_text()
    if doc.count(begin) != 1 or doc.count(end) != 1:
        raise SystemExit(f"{path}: expected one line {begin.strip()} and one {end.strip()}")
    path.write_text(doc[:doc.index(begin) + len(begin)] + "\n" + text + "\n" + doc[doc.index(end):])
