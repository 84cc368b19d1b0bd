#!/usr/bin/env python3
"""Figures of a GPU beside that GPU's own bounds, measured in the same run, and whether the goals (table.py) are met:
build/gpu-bench.json, and tables in build/gpu-bench.md.

  decode    1, 8, 32, 128 sequences at once: seconds a step, by the server's own counters, against the bytes that it reads (weights,
            keys and values) at the rate at which this GPU copies
  prefill   one long prompt; encode: 16 pictures at once; against the rate of cuBLAS's bf16 products
  load      1, 8, 32, 128 clients, each a new picture, 64 tokens of text, 128 tokens of answer, streamed: requests a second, time to
            the first token, between tokens; and how much of the wall the device stood still between turns, by its own clock
            (device_idle_seconds_total)
  deterministic  decode, prefill and encode once more by a server with --deterministic: what that costs
  hf        the same work by transformers on the same GPU, whole batches at a time
  vllm      the same clients at vLLM's server, where vLLM can be imported
  start     seconds to the first answer of /health
  profile   of each goal that was missed: what its step, prefill or encode spends its time on, op by op (tests/tools/trace_ops), and
            where nsys is on the machine its summary of the same (build/gpu-bench-GOAL.nsys.txt)

The checkpoint is random, of LLaVA-1.5-7B's shape in bf16, written once to build/bench by our own tool (--model: another; --smoke:
a tiny one). Without torch the bounds are missing. VLMD_BIN or BUILD names the program, BENCH_ARGS are options of `vlmd serve`.
usage: bench.py [--device NAME] [--model FOLDER] [--parts decode,prefill,...] [--smoke]"""
import argparse
import asyncio
import datetime
import json
import os
import pathlib
import shlex
import shutil
import subprocess
import sys
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
from table import goals, table  # noqa: E402
from vllm_server import VllmServer  # noqa: E402
from wire import CHAT, MODEL, Broken, Conn, Server, chat_body, image_part, percentile, png, seeded, text_part, words  # noqa: E402

PARTS = ["start", "decode", "prefill", "encode", "load", "deterministic", "hf", "vllm", "profile"]


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


def run_text(command, seconds=600):
    """What a program says; None and why where it fails."""
    try:
        r = subprocess.run([str(x) for x in command], capture_output=True, text=True, timeout=seconds)
    except (OSError, subprocess.TimeoutExpired) as e:
        return None, str(e)
    return (r.stdout, None) if r.returncode == 0 else (None, (r.stderr.strip() or f"ends with {r.returncode}")[-300:])


class Bench:
    def __init__(self, o):
        self.o, self.tiny = o, o.smoke
        self.counts = [1, 2] if self.tiny else [1, 8, 32, 128]
        self.text, self.tokens = (8, 48) if self.tiny else (64, 128)
        self.model = pathlib.Path(o.model) if o.model else self.checkpoint("llava-tiny" if self.tiny else "llava-1.5-7b")
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

    def serve(self, *more):
        args = ["--device", self.o.device, "--log-level", "warn", "--max-model-len", "1024" if self.tiny else "4096",
                "--max-num-seqs", str(max(self.counts)), *shlex.split(os.environ.get("BENCH_ARGS", "")), *more]
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
        tokens = 900 if self.tiny else 384
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

    async def client(self, port, body, seen):
        """One streamed answer. Who does not say which tokens an event brings is taken to bring them evenly."""
        c = await Conn(port).open()
        begin = last = time.perf_counter()
        await c.request("POST", CHAT, body, b"Content-Type: application/json\r\n")
        if await c.reply() != 200:
            raise SystemExit("refused: " + (await c.rest()).decode()[:300])
        first, told, gaps = None, 0, []
        async for e in c.events():
            if '"error"' in e:
                raise SystemExit("an answer ended in error: " + e[:300])
            choices = [] if e == "[DONE]" else json.loads(e)["choices"]
            new = sum(len(x.get("token_ids") or []) for x in choices)
            if not new and not any(x["delta"].get("content") for x in choices):
                continue
            now = time.perf_counter()
            if first is None:
                first = now
            elif new:
                gaps += [(now - last) / new] * new
            told, last = told + new, now
        c.close()
        if first is None:
            raise SystemExit("an answer without a token")
        seen["ttft"].append(first - begin)
        seen["itl"] += gaps if told == self.tokens else [(last - first) / max(1, self.tokens - 1)] * (self.tokens - 1)

    def clients(self, port, n, **more):
        """n clients at a server that speaks OpenAI's protocol: requests a second, and what they wait for."""
        seen = {"ttft": [], "itl": []}
        rounds = 1 if self.tiny else 8 if n == 1 else 2
        bodies = [[self.body([self.picture(), text_part(self.text_of(self.text))], self.tokens, stream=True, return_token_ids=True, **more)
                   for _ in range(rounds)] for _ in range(n)]

        async def one(mine):
            for b in mine:
                await self.client(port, b, seen)

        async def run():
            await asyncio.gather(*[one(b) for b in bodies])
        begin = time.perf_counter()
        asyncio.run(run())
        wall = time.perf_counter() - begin
        return {"clients": n, "requests": n * rounds, "wall_s": wall, "requests_s": n * rounds / wall, "tokens_s": n * rounds * self.tokens / wall,
                **{f"{k}_{p}_s": percentile(v, p) for k, v in seen.items() if v for p in (50, 95)}}

    def load(self, n):
        before = self.server.metrics()["device_idle_seconds_total"]
        x = self.clients(self.server.port, n)
        time.sleep(0.1)
        idle = self.server.metrics()["device_idle_seconds_total"] - before
        return {**x, "device_idle": None if self.o.device == "cpu" else idle / x["wall_s"]}

    def vllm(self):
        try:
            server = VllmServer(self.model, max(self.counts), BUILD / "gpu-bench-vllm.log")
        except RuntimeError as e:
            return {"note": str(e)}
        out = {"start_s": server.start_s, "clients": {}}
        try:
            self.clients(server.port, 1, model=server.name)  # warms it
            for n in self.counts:
                out["clients"][str(n)] = self.clients(server.port, n, model=server.name)
        except (SystemExit, OSError, Broken) as e:
            out["note"] = f"ended early: {e}"
        server.stop()
        return out

    # ---- the run ----

    def profile(self, out):
        """Of the goals that were missed (smoke: of all) where the time goes."""
        of = {"decode_one": ["--decode", 1], "decode_step": ["--decode", max(self.counts)], "prefill": ["--prefill", 2048], "encode": ["--encode", 16],
              "gaps": ["--decode", max(self.counts)], "first_token": ["--prefill", 640, "--encode", 1]}
        found, seen = {}, {}
        for g in out["goals"]:
            if g["verdict"] != "missed" and not self.tiny:
                continue
            command = [BUILD / "tests" / "tools" / "trace_ops", self.model, "--device", self.o.device, "--past", 256, *of[g["name"]]]
            key = tuple(of[g["name"]])
            if key not in seen:
                text, why = run_text(command)
                seen[key] = {"text": text} if text else {"note": "trace_ops: " + why}
                if shutil.which("nsys"):
                    at = ROOT / "build" / f"gpu-bench-{g['name']}"
                    summary, why = run_text(["nsys", "profile", "--stats=true", "--force-overwrite=true", "-o", at, *command])
                    at.with_suffix(".nsys.txt").write_text(summary or "nsys: " + why)
                    seen[key]["nsys"] = at.with_suffix(".nsys.txt").name
            found[g["name"]] = seen[key]
            self.say("profile", g["name"])
        return found

    def say(self, part, what):
        print(f"{part} {what}", flush=True)
        return what

    def warm(self):
        self.kv_per_token = self.start_message_bytes()
        asyncio.run(self.at_once([self.body([self.picture(), text_part("warm")], 4)]))

    def measure(self, out, parts, name=""):
        for part in ("decode", "load"):
            if part in parts:
                out[part] = [self.say(name + part, getattr(self, part)(n)) for n in self.counts]
        for part in ("prefill", "encode"):
            if part in parts:
                out[part] = self.say(name + part, getattr(self, part)())
        if self.server.stop() != 0:
            out["note"] = "the server did not end well: " + "".join(self.server.log[-3:])

    def run(self):
        o, out = self.o, self.out
        where = "cpu" if o.device == "cpu" or o.smoke else o.device
        out["bounds"] = others("probe", where)
        start = self.serve()
        if "start" in o.parts:
            out["start"] = {"s": start}
        self.warm()
        self.measure(out, o.parts)
        if "deterministic" in o.parts:
            self.serve("--deterministic")
            self.warm()
            self.measure(out.setdefault("deterministic", {}), [p for p in o.parts if p in ("decode", "prefill", "encode")], "deterministic: ")
        case = json.dumps({"clients": self.counts, "text": self.text, "tokens": self.tokens, "image": self.shape.image})
        if "hf" in o.parts:
            out["hf"] = self.say("hf", others("hf", where, str(self.model), case))
        if "vllm" in o.parts:
            out["vllm"] = self.say("vllm", self.vllm())
        out["goals"] = goals(out)
        if "profile" in o.parts:
            out["profile"] = self.profile(out)
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
