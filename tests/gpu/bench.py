#!/usr/bin/env python3
"""Figures of a GPU beside that GPU's own bounds, measured in the same run: build/gpu-bench.json, and a table in build/gpu-bench.md.

  decode    1, 8, 32, 128 sequences at once: seconds a step, by the server's own counters, against the bytes that it reads (weights,
            keys and values) at the rate at which this GPU copies
  prefill   one long prompt; encode: 16 pictures at once; against the rate of cuBLAS's bf16 products
  load      1, 8, 32, 128 clients, each a new picture, 64 tokens of text, 128 tokens of answer, streamed: requests a second, time to
            the first token, between tokens
  others    the same work by transformers on the same GPU, and by vLLM where it can be imported
  start     seconds to the first answer of /health

The checkpoint is random, of LLaVA-1.5-7B's shape in bf16, written once to build/bench by our own tool (--model: another). Without
torch the bounds are missing. VLMD_BIN or BUILD names the program, BENCH_ARGS are options of `vlmd serve`.
usage: bench.py [--device NAME] [--model FOLDER] [--parts decode,prefill,...] [--smoke]"""
import argparse
import asyncio
import datetime
import json
import os
import pathlib
import shlex
import subprocess
import sys
import threading
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
BUILD = ROOT / os.environ.get("BUILD", "build")
os.environ.setdefault("VLMD_BIN", str(BUILD / "vlmd"))
if (ROOT / "lib").is_dir():
    os.environ["LD_LIBRARY_PATH"] = os.pathsep.join([str(ROOT / "lib"), *filter(None, [os.environ.get("LD_LIBRARY_PATH")])])
try:  # cuBLASLt of the Python that runs torch, unless another is named or lies in the bundle
    import nvidia
    LT = sorted(f for d in nvidia.__path__ for f in pathlib.Path(d).glob("cu*/lib/libcublasLt.so.1[23]"))
    if LT and not list(ROOT.glob("lib/libcublasLt.so.1[23]")):
        os.environ.setdefault("VLMD_CUBLASLT", str(LT[-1]))
except ImportError:
    pass
sys.path.insert(0, str(ROOT / "tests" / "load"))
from shape import Shape  # noqa: E402
from wire import CHAT, MODEL, Conn, Server, chat_body, image_part, percentile, png, seeded, text_part, words  # noqa: E402

PARTS = ["start", "decode", "prefill", "encode", "load", "hf", "vllm"]


def others(what, *args):
    """others.py's object, or {"note": why there is none}."""
    try:
        r = subprocess.run([sys.executable, str(ROOT / "tests" / "gpu" / "others.py"), what, *args], capture_output=True, text=True, timeout=1500)
    except subprocess.TimeoutExpired:
        return {"note": "took more than 1500 s"}
    for line in reversed(r.stdout.splitlines()):
        if line.startswith("RESULT "):
            return json.loads(line[7:])
    return {"note": (r.stderr.strip().splitlines() or ["nothing was printed"])[-1][:300]}


class Busy:
    """How much of the time the GPU had work, as nvidia-smi samples it."""

    def __enter__(self):
        self.samples, self.over = [], threading.Event()
        self.thread = threading.Thread(target=self._sample, daemon=True)
        self.thread.start()
        return self

    def _sample(self):
        while not self.over.wait(0.5):
            try:
                out = subprocess.run(["nvidia-smi", "--query-gpu=utilization.gpu", "--format=csv,noheader,nounits"], capture_output=True, text=True, timeout=10)
                self.samples.append(float(out.stdout.split()[0]))
            except (OSError, ValueError, IndexError, subprocess.TimeoutExpired):
                return

    def __exit__(self, *_):
        self.over.set()
        self.thread.join()

    @property
    def mean(self):
        return sum(self.samples) / len(self.samples) / 100 if self.samples else None


class Bench:
    def __init__(self, o):
        self.o, self.tiny = o, o.smoke
        self.counts = [1, 2] if self.tiny else [1, 8, 32, 128]
        self.text, self.tokens = (8, 6) if self.tiny else (64, 128)
        self.model = pathlib.Path(o.model) if o.model else MODEL if self.tiny else self.checkpoint("llava-1.5-7b")
        self.shape = Shape(self.model)
        self.serial = 0
        self.out = {"date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"), "commit": self.commit(), "model": str(self.model.name),
                    "device": o.device, "smoke": o.smoke}

    @staticmethod
    def commit():
        if (ROOT / "COMMIT").exists():
            return (ROOT / "COMMIT").read_text().strip()
        return subprocess.run(["git", "describe", "--always", "--dirty"], cwd=ROOT, capture_output=True, text=True).stdout.strip() or "unknown"

    @staticmethod
    def checkpoint(preset):
        folder = ROOT / "build" / "bench" / preset
        if not (folder / "done").exists():
            folder.mkdir(parents=True, exist_ok=True)
            print(f"writing {folder}", flush=True)
            subprocess.run([str(BUILD / "tests" / "tools" / "random_checkpoint"), "--preset", preset, "--dtype", "bf16", "--like", str(MODEL), str(folder)], check=True)
            (folder / "done").write_text("1\n")
        return folder

    def serve(self):
        args = ["--device", self.o.device, "--log-level", "warn", "--max-model-len", "256" if self.tiny else "4096",
                "--max-num-seqs", str(max(self.counts)), *shlex.split(os.environ.get("BENCH_ARGS", ""))]
        begin = time.perf_counter()
        self.server = Server(self.model, *args)
        return time.perf_counter() - begin

    # ---- requests ----

    def picture(self):
        self.serial += 1
        side = self.shape.image
        return image_part(png(side, side, seeded("bench", self.serial)))

    def body(self, content, tokens, **more):
        return json.dumps(chat_body(content, temperature=0, max_tokens=tokens, ignore_eos=True, **more)).encode()

    def text_of(self, n):
        self.serial += 1
        return f"{self.serial} " + words(seeded("text", self.serial), max(1, n - 2))

    async def whole(self, body):
        c = await Conn(self.server.port).open()
        await c.request("POST", CHAT, body)
        status, reply = await c.reply(), json.loads(await c.rest())
        c.close()
        if status != 200:
            raise SystemExit(f"refused: {reply}")
        return reply["usage"]["prompt_tokens"]

    async def at_once(self, bodies):
        return await asyncio.gather(*[self.whole(b) for b in bodies])

    # ---- the device's work, by the server's counters ----

    def decode(self, n):
        tokens = 150 if self.tiny else 384
        prompt, samples = [], []

        async def run():
            jobs = asyncio.ensure_future(self.at_once([self.body(self.text_of(16), tokens) for _ in range(n)]))
            while not jobs.done():
                m = await asyncio.to_thread(self.server.metrics)
                samples.append((time.perf_counter(), m["engine_steps_total"], m["generation_tokens_total"], m["num_requests_running"]))
                await asyncio.sleep(0.01 if self.tiny else 0.05)
            prompt.extend(await jobs)
        before = self.server.metrics()["generation_tokens_total"]
        begin = time.perf_counter()
        asyncio.run(run())
        # While all of them decode: their prompts are over, and none has ended.
        steady = [s for s in samples if s[3] == n and s[2] - before >= 2 * n]
        took = {"sequences": n, "tokens_s": n * tokens / (time.perf_counter() - begin)}
        if len(steady) < 2 or steady[-1][1] == steady[0][1]:
            return {**took, "note": "over too soon to be seen"}
        (t0, steps0, made0, _), (t1, steps1, made1, _) = steady[0], steady[-1]
        step_s = (t1 - t0) / (steps1 - steps0)
        keys = n * (sum(prompt) / n + (made0 + made1 - 2 * before) / 2 / n)
        read = self.shape.decoder_bytes + keys * self.kv_per_token
        return {**took, "step_s": step_s, "steady_tokens_s": (made1 - made0) / (t1 - t0), "read_bytes": read, "read_bytes_s": read / step_s}

    def spent(self, bodies, seconds, count):
        """Of two counters, what these requests add to them, and the wall."""
        a, begin = self.server.metrics(), time.perf_counter()
        prompts = asyncio.run(self.at_once(bodies))
        wall = time.perf_counter() - begin
        time.sleep(0.1)  # a turn's counters are out when it is over
        b = self.server.metrics()
        return b[seconds] - a[seconds], b[count] - a[count], wall, prompts

    def prefill(self):
        best = None
        for _ in range(3):
            took, _, wall, prompts = self.spent([self.body(self.text_of(60 if self.tiny else 1400), 1)], "request_prefill_time_seconds_sum",
                                                "prompt_tokens_total")
            one = {"tokens": prompts[0], "s": took, "wall_s": wall, "flop_s": self.shape.prefill_flop(prompts[0]) / took}
            best = one if not best or one["flop_s"] > best["flop_s"] else best
        return best

    def encode(self):
        n = 2 if self.tiny else 16
        best = None
        for _ in range(3):
            took, images, wall, _ = self.spent([self.body([self.picture(), text_part("?")], 1) for _ in range(n)], "image_encode_seconds_total", "images_total")
            one = {"pictures": images, "s": took, "wall_s": wall, "flop_s": images * self.shape.encode_flop / took}
            best = one if not best or one["flop_s"] > best["flop_s"] else best
        return best

    # ---- what clients see ----

    async def client(self, body, seen):
        c = await Conn(self.server.port).open()
        begin = last = time.perf_counter()
        await c.request("POST", CHAT, body)
        if await c.reply() != 200:
            raise SystemExit("refused: " + (await c.rest()).decode()[:300])
        first = True
        async for e in c.events():
            if '"error"' in e:
                raise SystemExit("an answer ended in error: " + e[:300])
            new = 0 if e == "[DONE]" else sum(len(x.get("token_ids") or []) for x in json.loads(e)["choices"])
            if not new:
                continue
            now = time.perf_counter()
            if first:
                seen["ttft"].append(now - begin)
            else:
                seen["itl"] += [(now - last) / new] * new
            first, last = False, now
        c.close()

    def load(self, n):
        seen = {"ttft": [], "itl": []}
        rounds = 1 if self.tiny else 4 if n == 1 else 2
        bodies = [[self.body([self.picture(), text_part(self.text_of(self.text))], self.tokens, stream=True, return_token_ids=True) for _ in range(rounds)]
                  for _ in range(n)]

        async def one(mine):
            for b in mine:
                await self.client(b, seen)

        async def run():
            await asyncio.gather(*[one(b) for b in bodies])
        begin = time.perf_counter()
        with Busy() as busy:
            asyncio.run(run())
        wall = time.perf_counter() - begin
        return {"clients": n, "requests": n * rounds, "requests_s": n * rounds / wall, "tokens_s": n * rounds * self.tokens / wall, "gpu_busy": busy.mean,
                **{f"{k}_{p}_s": percentile(v, p) for k, v in seen.items() for p in (50, 95)}}

    # ---- the run ----

    def run(self):
        o, out = self.o, self.out
        where = "cpu" if o.device == "cpu" or o.smoke else o.device
        out["bounds"] = others("probe", where)
        start = self.serve()
        if "start" in o.parts:
            out["start"] = {"s": start}
        self.kv_per_token = self.start_message_bytes()
        asyncio.run(self.at_once([self.body([self.picture(), text_part("warm")], 4)]))
        for part in ("decode", "load"):
            if part in o.parts:
                out[part] = []
                for n in self.counts:
                    out[part].append(getattr(self, part)(n))
                    print(f"{part} {out[part][-1]}", flush=True)
        for part in ("prefill", "encode"):
            if part in o.parts:
                out[part] = getattr(self, part)()
                print(f"{part} {out[part]}", flush=True)
        if self.server.stop() != 0:
            out["note"] = "the server did not end well: " + "".join(self.server.log[-3:])
        case = json.dumps({"clients": self.counts, "text": self.text, "tokens": self.tokens, "image": self.shape.image})
        for part in ("hf", "vllm"):
            if part in o.parts:
                out[part] = others(part, where, str(self.model), case)
                print(f"{part} {out[part]}", flush=True)
        return out

    def start_message_bytes(self):
        """How many bytes a token's keys and values take."""
        end = time.time() + 10  # /health may be faster than the message
        while time.time() < end:
            for line in self.server.log:
                if "bytes of KV cache each" in line:
                    return int(line.split("at most, ")[1].split()[0])
            time.sleep(0.05)
        raise SystemExit("no start message:\n" + "".join(self.server.log))


# ---- the table ----

def table(out):
    bounds, rows = out["bounds"], []
    copy, peak = bounds.get("copy_bytes_s"), max(bounds.get("matmul_flop_s", {}).values(), default=None)

    def row(what, value, ratio=None, goal=None):
        verdict = "" if ratio is None or goal is None else "met" if ratio >= goal else "missed"
        rows.append((what, value, "" if ratio is None else f"{ratio:.2f}", "" if goal is None else f"{goal:.2f} {verdict}"))
    if "start" in out:
        row("start to /health", f"{out['start']['s']:.1f} s")
    for d in out.get("decode", []):
        if "step_s" not in d:
            row(f"decode, {d['sequences']} sequences", f"{d['tokens_s']:.0f} tokens/s ({d['note']})")
            continue
        row(f"decode, {d['sequences']} sequences", f"{d['step_s'] * 1e3:.2f} ms a step, {d['steady_tokens_s']:.0f} tokens/s",
            d["read_bytes_s"] / copy if copy else None, 0.9 if d["sequences"] == 1 else 0.8)
    for part, unit, goal in (("prefill", "tokens", 0.7), ("encode", "pictures", 0.5)):
        if part in out:
            p = out[part]
            row(f"{part}, {p[unit]:.0f} {unit}", f"{p['s'] * 1e3:.1f} ms (wall {p['wall_s'] * 1e3:.1f})", p["flop_s"] / peak if peak else None, goal)
    for x in out.get("load", []):
        n = x["clients"]
        busy = "" if x["gpu_busy"] is None else f", GPU busy {x['gpu_busy']:.2f}"
        row(f"load, {n} clients", f"{x['requests_s']:.2f} requests/s; TTFT {x['ttft_50_s'] * 1e3:.0f} / {x['ttft_95_s'] * 1e3:.0f} ms; "
            f"ITL {x['itl_50_s'] * 1e3:.1f} / {x['itl_95_s'] * 1e3:.1f} ms{busy}")
        for other in ("hf", "vllm"):
            theirs = out.get(other, {}).get("clients", {}).get(str(n), {})
            if "requests_s" in theirs:
                row(f"  {other}, {n} at once", f"{theirs['requests_s']:.2f} requests/s", x["requests_s"] / theirs["requests_s"], 1.0)
    for other in ("hf", "vllm"):
        if "note" in out.get(other, {}):
            row(other, "not run: " + out[other]["note"])
    head = [f"{out['date']}, commit {out['commit']}, {bounds.get('gpu', out['device'])}, {out['model']}{', smoke: no figures' if out['smoke'] else ''}.",
            f"Copies {copy / 1e9:.0f} GB/s, bf16 products {peak / 1e12:.1f} TFLOP/s." if copy else f"No bounds: {bounds.get('note')}.",
            "Ratios: to the copy rate, to the product rate, to the other's requests/s; p50 / p95.", "",
            "| what | figure | ratio | goal |", "|---|---|---|---|"]
    return "\n".join(head + [f"| {a} | {b} | {c} | {d} |" for a, b, c, d in rows]) + "\n"


def main():
    a = argparse.ArgumentParser()
    a.add_argument("--device")
    a.add_argument("--model")
    a.add_argument("--parts", type=lambda s: s.split(","), default=PARTS)
    a.add_argument("--smoke", action="store_true")
    o = a.parse_args()
    o.device = o.device or ("cpu" if o.smoke else "cuda")
    if set(o.parts) - set(PARTS):
        a.error(f"parts are {','.join(PARTS)}")
    out = Bench(o).run()
    (ROOT / "build").mkdir(exist_ok=True)
    (ROOT / "build" / "gpu-bench.json").write_text(json.dumps(out, indent=1) + "\n")
    text = table(out)
    (ROOT / "build" / "gpu-bench.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
