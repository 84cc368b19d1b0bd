#!/usr/bin/env python3
"""Checks the walls of the house: includes point one way, nothing goes in a circle, only engine/families names a
model, the server sees only engine.h, one allocator, no exit outside main, no file longer than a sitting, no
test named that is not there."""
import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
MAX_LINES = 800
LEVEL = {"kernels": 0, "engine": 1, "server": 2}
# Inside the engine, lower rooms never include higher ones.
ROOM = {"engine/ckpt": 0, "engine/tok": 0, "engine/tmpl": 0, "engine/image": 0, "engine/model": 1,
        "engine/families": 2, "engine": 3, "engine/tools": 4}
# What the lower rooms may share, and the two places where a pair of rooms meets on purpose.
ALLOWED = {("engine/model", "engine/families/registry.h"), ("engine/tmpl", "engine/engine.h"),
           ("engine/tok", "engine/engine.h"), ("engine/model", "engine/engine.h")}
NAMES = re.compile(r"\b(llava|llama|mistral|qwen|siglip|clip_vision|clipvision|gemma|phi3|idefics|smolvlm|internvl|blip|"
                   r"mllama|paligemma|coca)\w*", re.I)
problems = []


def files():
    out = subprocess.run(["git", "ls-files", "kernels", "engine", "server"], cwd=ROOT, capture_output=True, text=True)
    return [ROOT / f for f in out.stdout.split() if f.endswith((".c", ".h", ".inc", ".cu", ".cuh"))]


def code_only(text):
    """The text without comments; strings stay, since a name in a string is a name."""
    return re.sub(r"//[^\n]*|/\*.*?\*/", lambda m: "\n" * m.group().count("\n"), text, flags=re.S)


def room(path):
    parts = path.split("/")
    key = "/".join(parts[:2]) if parts[0] == "engine" and len(parts) > 2 else parts[0]
    return key


graph = {}
for f in files():
    rel = str(f.relative_to(ROOT))
    text = f.read_text()
    lines = text.count("\n")
    generated = "generated" in text[:600].lower() or "_tables." in rel
    if lines > MAX_LINES and not generated:
        problems.append(f"{rel}: {lines} lines (over {MAX_LINES}: two rooms in one?)")
    if not text.lstrip().startswith("/*"):
        problems.append(f"{rel}: no opening comment (purpose, thread, owner of memory)")
    for test in re.findall(r"\btests/[\w/]+\.(?:c|py)\b", text):
        if not (ROOT / test).exists():
            problems.append(f"{rel}: speaks of {test}, which is not there")
    code = code_only(text)
    top = rel.split("/")[0]
    for inc in re.findall(r'^\s*#\s*include\s+"([^"]+)"', code, re.M):
        if not (ROOT / inc).exists():
            problems.append(f"{rel}: include \"{inc}\" is not written from the root")
            continue
        graph.setdefault(rel, set()).add(inc)
        other = inc.split("/")[0]
        if LEVEL[other] > LEVEL[top]:
            problems.append(f"{rel}: includes {inc}, which lies above it")
        if top == "server" and other == "engine" and inc != "engine/engine.h":
            problems.append(f"{rel}: the server includes {inc}; engine/engine.h is its only door")
        if top == "engine" and other == "kernels" and inc.startswith("kernels/c"):
            problems.append(f"{rel}: includes {inc}, the inside of a backend")
        a, b = room(rel), room(inc)
        if a in ROOM and b in ROOM and ROOM[b] > ROOM[a] and (a, inc) not in ALLOWED:
            problems.append(f"{rel}: {a} includes {inc} of a higher room")
    if not rel.startswith("engine/families/"):
        for n, line in enumerate(code.split("\n"), 1):
            m = NAMES.search(line)
            if m:
                problems.append(f"{rel}:{n}: names a model ({m.group()}); only engine/families does")
    if rel != "kernels/cuda/cuda.h" and re.search(r"\(cuda_backend \*\)|\bcudaSetDevice\b", code):
        problems.append(f"{rel}: a cuda_backend is had by cuda_enter alone, which makes its device the thread's")
    if rel != "kernels/cuda/cu.cuh" and "<<<" in code:
        problems.append(f"{rel}: a kernel is launched by cu_launch alone, which has it loaded at the start")
    for n, line in enumerate(code.split("\n"), 1):
        if rel != "server/main.c" and re.search(r"\b_?exit\s*\(", line):
            problems.append(f"{rel}:{n}: exit outside main")
        if not rel.startswith("kernels/base") and re.search(r"(?<![\w.>])(malloc|calloc|realloc|strdup)\s*\(", line):
            problems.append(f"{rel}:{n}: {line.strip()[:60]} - use mem_*")

done, path = set(), []


def walk(node):
    if node in path:
        problems.append("include circle: " + " -> ".join(path[path.index(node):] + [node]))
        return
    if node in done:
        return
    path.append(node)
    for nxt in sorted(graph.get(node, ())):
        walk(nxt)
    path.pop()
    done.add(node)


for node in sorted(graph):
    walk(node)

# What documents point at: `file.c`, `folder/file.py`, and `file.c: name, name` or `file.c`: `name`.
tracked = subprocess.run(["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True).stdout.split()
for doc in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]:
    for m in re.finditer(r"`([\w./-]+\.(?:c|h|cu|cuh|py|sh)(?![\w.]))(?:`: `|: )?((?:\w+(?:,\s)?)*)`", doc.read_text()):
        found = [f for f in tracked if ("/" + f).endswith("/" + m.group(1))]
        text = "".join((ROOT / f).read_text() for f in found if (ROOT / f).exists())
        for name in [m.group(1)] if not found else re.findall(r"\w+", m.group(2)):
            if not re.search(rf"\b{re.escape(name)}\b", text):
                problems.append(f"{doc.relative_to(ROOT)}: points at {m.group()}; there is no {name}")

for p in problems:
    print("lint:", p)
sys.exit(1 if problems else 0)
