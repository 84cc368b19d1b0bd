#!/usr/bin/env python3
"""The golden checkpoints of the reference library through a server on a device: by default, and bit for bit with --deterministic.

  --deterministic   token ids are the reference's, log-probabilities within EXACT: everything is computed in f32, as the reference
                    did (its checkpoints' 16-bit weights widened).
  default           f32 checkpoints likewise. With 16-bit weights, products of more than 16 rows take activations rounded to that
                    type: each carries a relative error of up to 2^-8 (bf16; f16: 2^-11), 0.2 % in the mean, they are independent of
                    each other and add up as their root over the 2 to 12 products on the way to a logit: to some 0.6 %, and hardly
                    beyond 1 % of logits that are near 10, and twice that in a difference. So ROUNDED; and where the reference's first two tokens lie closer than that either
                    may be chosen, after which the answers are two different texts and are compared no further.
  captured = eager  the same answers, digit by digit, with --enforce-eager.

Every family of tests/golden/models and tests/golden/families, whatever joins its pictures to its text. tests/cuda_emu/run.sh runs it on
the emulated device as well, with --smoke and --steps.

usage: parity.py [--device NAME] [--smoke] [--steps N] [--jobs N] [--only NAME,NAME] [-- OPTION...]. Standard library only; VLMD_BIN names the
program, OPTION... are more of the server's."""
import argparse
import asyncio
import base64
import concurrent.futures
import json
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "load"))
from wire import CHAT, MODEL, ROOT, Conn, Server, exact  # noqa: E402

PARTS = [ROOT / "tests" / "golden" / part for part in ("models", "families")]
EXACT, ROUNDED = 1e-3, 0.2
LOOSE = {"blip_vqa_old": 0.5}  # sharp weights in a row: the reference itself, run in bf16, is 0.38 off what it is in f32


def for_api(messages):
    def part(p):
        if p["type"] != "image":
            return p
        kind = "png" if p["path"].endswith("png") else "jpeg"
        data = base64.b64encode(next(f for f in (d / "pictures" / p["path"] for d in PARTS) if f.exists()).read_bytes()).decode()
        return {"type": "image_url", "image_url": {"url": f"data:image/{kind};base64,{data}"}}
    return [{**m, "content": m["content"] if isinstance(m["content"], str) else [part(p) for p in m["content"]]} for m in messages]


def body(case):
    return {"messages": for_api(case["messages"]), "max_tokens": len(case["tokens"]), "temperature": 0, "ignore_eos": True,
            "repetition_penalty": 1.0, "logprobs": True, "top_logprobs": 5, "return_token_ids": True}


async def ask_all(port, bodies):
    c, out = await Conn(port).open(), []
    for b in bodies:
        await c.request("POST", CHAT, json.dumps(b).encode())
        status = await c.reply()
        text = await c.rest()
        if status != 200:
            raise SystemExit(f"refused with {status}: {text.decode()[:300]}")
        out.append(text.decode())
    c.close()
    return out


def compare(reply, case, tolerance):
    """What is wrong, and the largest difference of a log-probability."""
    choice, worst = reply["choices"][0], 0.0
    if reply["prompt_token_ids"] != case["prompt_ids"]:
        return "other prompt ids", worst
    for step, (mine, entry, top) in enumerate(zip(choice["token_ids"], choice["logprobs"]["content"], case["top"])):
        want = dict((k, v) for k, v in top)
        if mine != case["tokens"][step]:
            margin = top[0][1] - top[1][1]
            if tolerance > EXACT and mine in want and top[0][1] - want[mine] <= 2 * tolerance:
                return None, worst
            return f"step {step}: token {mine} instead of {case['tokens'][step]}, which leads by {margin:.4f}", worst
        for t, (_, w) in zip(entry["top_logprobs"], top):  # the n-th best of both: ties may change places
            worst = max(worst, abs(t["logprob"] - w))
        if worst > tolerance:
            return f"step {step}: a log-probability is {worst:.5f} off", worst
    return None, worst


def answers(folder, cases, *args):
    server = Server(folder, "--log-level", "warn", *args)
    out = asyncio.run(ask_all(server.port, [body(c) for c in cases]))
    if server.stop() != 0:
        raise SystemExit("the server did not end well: " + "".join(server.log[-5:]))
    return out


def plain(text):
    """Without what differs from one asking to the next; numbers as they are spelled."""
    reply = exact(text)
    return reply["choices"], reply["prompt_token_ids"]


def is_f32(folder):
    file = sorted(pathlib.Path(folder).glob("*.safetensors"))[0].open("rb")
    header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    return all(t["dtype"] == "F32" for name, t in header.items() if name != "__metadata__")


def shorten(case, steps):
    return {**case, "tokens": case["tokens"][:steps], "top": case["top"][:steps]}


def check(folder, file, o):
    """What is wrong with a checkpoint, and a line that says how far off it is."""
    more, wrong, said, f32 = ["--device", o.device, *o.options], [], [], is_f32(folder)
    cases = json.loads(file.read_text())["cases"]
    cases = [shorten(c, o.steps) for c in ([cases[0], cases[-1]] if o.smoke else cases)]
    for name, tolerance, args in (("deterministic", EXACT, ["--deterministic"]), ("default", EXACT if f32 else LOOSE.get(folder.name, ROUNDED), [])):
        replies, worst = answers(folder, cases, *more, *args), 0.0
        for case, text in zip(cases, replies):
            what, off = compare(json.loads(text), case, tolerance)
            worst = max(worst, off)
            if what:
                wrong.append(f"{folder.name}, {name}, {case['name']}: {what}")
        said.append(f"{name} {worst:.2e} of {tolerance:g}")
        if not args and not o.smoke:
            eager = answers(folder, cases, *more, "--enforce-eager")
            if [plain(t) for t in eager] != [plain(t) for t in replies]:
                wrong.append(f"{folder.name}: captured steps and eager ones differ")
            said.append("captured = eager")
    return wrong, f"{folder.name:28s} {'f32' if f32 else '16 bits'}, {len(cases)} cases: {', '.join(said)}"


def main():
    a = argparse.ArgumentParser()
    a.add_argument("--device", default="cuda")
    a.add_argument("--smoke", action="store_true", help="two cases of each checkpoint, captured and eager steps not compared")
    a.add_argument("--steps", type=int, help="tokens of each answer, fewer than the goldens have")
    a.add_argument("--jobs", type=int, default=1, help="servers at a time; a GPU has room for one")
    a.add_argument("--only", default="", help="names of checkpoints")
    a.add_argument("options", nargs="*", help="more options of the server, after --")
    o = a.parse_args()
    only = [x for x in o.only.split(",") if x]
    files = {p.parent: p for d in PARTS for p in sorted(d.glob("*/golden.json"))}
    files[MODEL] = PARTS[0] / "vlmd_tiny.json"
    wrong = []
    with concurrent.futures.ThreadPoolExecutor(o.jobs) as pool:
        for bad, line in pool.map(lambda f: check(*f, o), [f for f in files.items() if not only or f[0].name in only]):
            wrong += bad
            print(line, flush=True)
    for w in wrong:
        print("WRONG " + w)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
