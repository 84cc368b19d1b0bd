#!/usr/bin/env python3
"""What the compiler makes of the kernels: registers, spills, shared memory, and how many warps of a multiprocessor follow.

Compiles kernels/cuda/*.cu to cubins for A100 (8.0) and H100/H200 (9.0); no GPU is needed. Registers and spills are ptxas's,
threads come from the cubin (.nv.info, launch bounds), dynamic shared memory, which the host chooses, from SHARED below, which
repeats the host's formulas for the largest head size of a kernel.

usage: cuda_report.py [--check] [--out FILE]. --check: fails when a hot kernel spills; writes nothing. NVCC names the compiler."""
import argparse
import concurrent.futures
import os
import pathlib
import re
import shutil
import struct
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
GPUS = {"80": ("A100", 164 << 10), "90": ("H100, H200", 228 << 10)}  # shared memory of a multiprocessor
WARPS, REGISTERS, BLOCKS, RESERVED = 64, 65536, 32, 1 << 10  # of both; RESERVED bytes a block
# Kernels whose time is a step's or a picture's; of them those that may spill, and why.
HOT = re.compile(r"^(mma_kernel|tile_kernel|split_kernel|linear_kernel|linear_mma_kernel|combine_kernel|(add_)?norm_kernel|cu_each)\b")
SPARED = {"mma_kernel<precise, 256>": "f32 weights with heads of over 128 numbers: rare; a few bytes once a block of keys",
          **{f"cu_each<table_op, {n}>": "rotary angles, once a step: the range reduction of a sine of a large angle" for n in (1, 4)}}


def mma_shared(args):
    precise, width = args[0] == "precise", int(args[1])
    vecs = 64 * (2 if width <= (96 if precise else 128) else 1)
    keys = 32 if width <= 128 and not (precise and width == 96) else 16
    return (vecs + 2 * keys) * (width + 4) * 4


def tile_shared(args):
    ld = (int(args[0]) * 16 | 1) * 4
    sizes = ((v + (1 if one else 2) * 64) * ld + v * 72 for v, one in ((64, 0), (32, 0), (32, 1), (16, 1)))
    return next(4 * s for s in sizes if 4 * s <= 99 << 10)


def split_shared(args):
    nv, hd = int(args[1]), int(args[2]) * int(args[3])
    ld = (hd // 4 | 1) * 4
    key = ld if args[0] == "cu_f32" else (hd // 8 | 1) * 4
    fixed = nv * (ld + 68) + 16
    return 4 * (fixed + (2 if 4 * (fixed + 128 * key) <= 99 << 10 else 1) * 64 * key)


SHARED = {"mma_kernel": mma_shared, "tile_kernel": tile_shared, "split_kernel": split_shared, "linear_kernel": lambda args: 48 << 10,
          "linear_mma_kernel": lambda args: 8 * 16 * (8 * int(args[1]) + 8) * 4}


def sections(elf):
    """Name and bytes of each section of a 64-bit little-endian ELF file."""
    at, = struct.unpack_from("<Q", elf, 40)
    size, count, names = struct.unpack_from("<HHH", elf, 58)
    heads = [struct.unpack_from("<IIQQQQ", elf, at + i * size) for i in range(count)]
    table = heads[names][4]
    for name, _, _, _, offset, length in heads:
        yield elf[table + name:elf.index(b"\0", table + name)].decode(), elf[offset:offset + length]


def threads_of(elf):
    """Kernel to threads a block, as __launch_bounds__ says (EIATTR_MAX_THREADS)."""
    found = {}
    for name, data in sections(elf):
        if not name.startswith(".nv.info."):
            continue
        at = 0
        while at + 4 <= len(data):
            kind, what, size = struct.unpack_from("<BBH", data, at)
            if what == 0x05 and kind == 4:
                x, y, z = struct.unpack_from("<III", data, at + 4)
                found[name[len(".nv.info."):]] = x * y * z
            at += 4 + (size if kind == 4 else 0)
    return found


def plain(names):
    """Mangled names as a reader wants them: no parameters, no casts of enums."""
    out = subprocess.run(["c++filt"], input="\n".join(names), capture_output=True, text=True, check=True).stdout.split("\n")
    for name in out[:len(names)]:
        name = re.sub(r"^void ", "", name)
        yield re.sub(r"\((?:[a-z_ ]+)\)(?=\d)", "", re.sub(r"\((?!int\)\d|bool\)\d|\w+\)\d).*", "", name))


def compile_one(nvcc, source, arch, folder):
    cubin = pathlib.Path(folder) / f"{source.stem}.{arch}.cubin"
    run = subprocess.run([nvcc, "-std=c++17", "-O3", "-lineinfo", "-I.", f"-arch=sm_{arch}", "-Xptxas", "-v", "-cubin",
                          str(source.relative_to(ROOT)), "-o", str(cubin)], cwd=ROOT, capture_output=True, text=True)
    if run.returncode:
        raise SystemExit(run.stderr)
    threads, rows = threads_of(cubin.read_bytes()), []
    for m in re.finditer(r"Compiling entry function '(\w+)'.*?(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads.*?Used (\d+) registers",
                         run.stderr, re.S):
        rows.append((m[1], int(m[5]), int(m[3]) + int(m[4]) or int(m[2]), threads.get(m[1])))
    return [(source.name, arch, name, *row[1:]) for name, row in zip(plain([r[0] for r in rows]), rows)]


def warps(registers, threads, shared, room):
    """Of a multiprocessor: by registers (in eights), shared memory, and the most there can be."""
    each = (threads + 31) // 32
    by_registers = REGISTERS // ((registers + 7) // 8 * 8 * 32) // each
    return min(WARPS // each, by_registers, room // (shared + RESERVED), BLOCKS) * each


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--check", action="store_true")
    p.add_argument("--out", default=str(ROOT / "docs" / "gpu-kernels.md"))
    args = p.parse_args()
    nvcc = os.environ.get("NVCC") or shutil.which("nvcc") or "/usr/local/cuda/bin/nvcc"
    if not pathlib.Path(nvcc).exists():
        print("SKIPPED: no nvcc")
        return 0
    sources = sorted((ROOT / "kernels" / "cuda").glob("*.cu"))
    with tempfile.TemporaryDirectory() as folder, concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        jobs = [pool.submit(compile_one, nvcc, s, a, folder) for s in sources for a in GPUS]
        rows = [r for j in jobs for r in j.result()]
    bad = [r for r in rows if r[4] and HOT.match(r[2]) and r[2] not in SPARED]
    for source, arch, name, registers, spilt, _ in bad:
        print(f"{source}: {name} for sm_{arch} spills {spilt} bytes with {registers} registers")
    if args.check:
        print(f"{len(rows)} kernels, {len(bad)} hot ones spill")
        return bool(bad)
    version = re.search(r"release ([\d.]+)", subprocess.run([nvcc, "--version"], capture_output=True, text=True).stdout)
    lines = ["# What the compiler makes of the CUDA kernels", "",
             f"Written by `make cuda-report` (`tests/cuda_report.py`), nvcc {version[1] if version else '?'}. For each GPU: registers a thread, "
             "bytes of spills (stores and loads, or of what else is in local memory; static, not how often), and warps of a multiprocessor at once, of 64: as registers, "
             "threads and shared memory allow, worked out, not measured. Shared memory is dynamic: KiB at the largest head size of a "
             "kernel; where none stands it is at most 1 KiB or small beside the rest. `make cuda-report CHECK=1` fails when a hot kernel spills.", ""]
    if SPARED:
        lines += ["May spill: " + "; ".join(f"`{k}` ({v})" for k, v in SPARED.items()) + ".", ""]
    by = {}
    for source, arch, name, registers, spilt, threads in rows:
        by.setdefault((source, name), {})[arch] = (registers, spilt, threads)
    heads = " | ".join(f"{g[0]}: registers | spills | warps" for g in GPUS.values())
    lines += [f"| file | kernel | threads | shared | {heads} |", "|---|---|---|---|" + "---|---|---|" * len(GPUS)]
    for (source, name), per in sorted(by.items()):
        kernel, _, rest = name.partition("<")
        shared = SHARED[kernel]([a.strip() for a in rest.rstrip(">").split(",")]) if kernel in SHARED else 0
        cells = []
        for arch, (_, room) in GPUS.items():
            registers, spilt, threads = per[arch]
            cells += [str(registers), str(spilt), str(warps(registers, threads, shared, room)) if threads else ""]
        threads = next(iter(per.values()))[2]
        lines.append(f"| {source} | `{name}` | {threads or ''} | {f'{shared / 1024:.1f}' if shared else ''} | " + " | ".join(cells) + " |")
    pathlib.Path(args.out).write_text("\n".join(lines) + "\n")
    print(f"{args.out}: {len(by)} kernels, {len(bad)} hot ones spill")
    return 0


sys.exit(main())
