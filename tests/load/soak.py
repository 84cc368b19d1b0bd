#!/usr/bin/env python3
"""Keeps a server of the bundled model under mixed load and abuse, and looks for what is hung, lost, leaked or wrong.

First every case is asked alone, one after the other, of a server of its own; then SOAK_CLIENTS (24) clients ask the same cases
for SOAK_SECONDS (600) of a fresh server with a small KV cache, while some of them leave at every stage, read or write slowly,
and send broken pictures and bad JSON. Ends with 0 when nothing was found. SOAK_SEED makes another run, SOAK_ARGS adds options
of `vlmd serve` to the server under load, arguments (--device cuda --deterministic) to both, VLMD_BIN names the program. On a GPU
its memory must not grow either."""
import asyncio
import collections
import json
import os
import random
import shlex
import subprocess
import sys
import time

from cases import GOLDEN, ask_alone, cases, wait_idle
from wire import CHAT, MODEL, VLMD, Broken, Conn, Server, chat_body, choices_of, empty_answer, gpu_memory, image_part, percentile, png
from wire import read_stream_event, seeded, text_part, words

SECONDS = float(os.environ.get("SOAK_SECONDS", 600))
CLIENTS = int(os.environ.get("SOAK_CLIENTS", 24))
SEED = int(os.environ.get("SOAK_SEED", 1))
HANG_S = 180  # a request that takes longer hangs
ARGS = ["--kv-cache-memory", "12M", "--headers-timeout", "5", "--body-timeout", "5", "--log-level", "warn", *sys.argv[1:]]


def options():
    """Those of the server that is asked alone, without caches, and those of the one under load, with a picture cache so small that
    the run fills it early: a leak must not hide behind a cache that grows."""
    known = subprocess.run([str(VLMD), "serve", "--help"], capture_output=True, text=True, check=True).stdout
    alone = [o for o in ("--no-prefix-caching",) if o in known] + (["--image-cache-memory", "0"] if "--image-cache-memory" in known else [])
    small = ["--image-cache-memory", "4M"] if "--image-cache-memory" in known else []
    return ARGS + alone, ARGS + small + shlex.split(os.environ.get("SOAK_ARGS", ""))


def bad_pictures():
    out = [p.read_bytes() for p in sorted(GOLDEN.glob("bad_*"))]
    rng = seeded("bad", SEED)
    out += [b"", b"x", png(50, 50, rng, b"\0" * 20), png(64, 64, rng)[:-30]]
    return out


BAD_JSON = [b"", b"{", b"null", b"[]", b'{"messages":[]}', b'{"messages":[{"role":"user","content":"\xff"}]}', b"[" * 50000, b'{"a":' * 50000,
            b'{"messages":[{"role":"user","content":"a"}],"temperature":"hot"}', b'{"messages":[{"role":"user","content":"a"}],"max_tokens":-1}',
            b'{"messages":[{"role":"user","content":"a"}],"seed":' + b"9" * 400 + b"}", b"\x00" * 100,
            b'{"messages":[{"role":"user","content":[{"type":"image_url","image_url":{"url":"data:image/png;base64,%%%"}}]}]}']


# ---- one request of each kind ----

class Soak:
    def __init__(self, server, bodies, solo):
        self.server, self.bodies, self.solo = server, bodies, solo
        self.bad = bad_pictures()
        self.count = collections.Counter()
        self.faults = collections.Counter()
        self.examples = []
        self.latency = []
        self.complete = 0
        self.kinds = [(self.whole, 20), (self.stream, 22), (self.slow_reader, 3), (self.slow_writer, 3), (self.chunked, 2), (self.leave, 22),
                      (self.bad_picture, 10), (self.bad_json, 6), (self.small_route, 5), (self.several, 7)]

    def fault(self, what, detail=""):
        self.faults[what] += 1
        if len(self.examples) < 20:
            self.examples.append(f"{what}: {detail}")

    def pick(self, rng, stream):
        i = rng.randrange(len(self.bodies))
        return i, json.dumps({**self.bodies[i], "stream": stream}).encode()

    def compare(self, i, choices):
        self.complete += 1
        if choices != self.solo[i]:
            self.fault("wrong answer", f"case {i}: {choices}, alone {self.solo[i]}")

    async def refused(self, c, status):
        """A refusal for want of room: in order, when it says when to come back."""
        e = json.loads(await c.rest())["error"]
        if status not in (429, 503) or "retry-after" not in c.headers:
            self.fault("unexpected status", f"{status} {e}")
        self.count[f"refused {status}"] += 1

    async def read_whole(self, c, i):
        status = await c.reply()
        if status != 200:
            return await self.refused(c, status)
        self.compare(i, choices_of(json.loads(await c.rest())))

    async def read_events(self, c, i, pause=None):
        status = await c.reply()
        if status != 200:
            return await self.refused(c, status)
        out = empty_answer()
        async for e in c.events():
            read_stream_event(e, out)
            if pause:
                await asyncio.sleep(pause())
        if out["error"] or not out["done"]:
            return self.fault("stream ended in error", out["error"])
        self.compare(i, out["choices"])

    async def whole(self, rng, c):
        i, body = self.pick(rng, False)
        await c.request("POST", CHAT, body)
        await self.read_whole(c, i)
        return True

    async def stream(self, rng, c):
        i, body = self.pick(rng, True)
        await c.request("POST", CHAT, body)
        await self.read_events(c, i)
        return True

    async def several(self, rng, c):
        """Five requests on one connection, errors among them."""
        for _ in range(4):
            await rng.choice([self.whole, self.stream, self.bad_json])(rng, c)
        return await self.whole(rng, c)

    async def slow_reader(self, rng, _):
        c = await Conn(self.server.port, rcvbuf=2048).open()
        try:
            i, body = self.pick(rng, True)
            await c.request("POST", CHAT, body)
            await asyncio.sleep(rng.random() * 2)
            await self.read_events(c, i, lambda: rng.random() * 0.1)
        finally:
            c.close()

    async def slow_writer(self, rng, c):
        i, body = self.pick(rng, True)
        await c.send(b"POST %s HTTP/1.1\r\nHost: x\r\n" % CHAT.encode())
        await asyncio.sleep(rng.random())
        await c.send(b"Content-Length: %d\r\n\r\n" % len(body))
        cuts = sorted(rng.randrange(len(body)) for _ in range(4))
        for a, b in zip([0, *cuts], [*cuts, len(body)]):
            await c.send(body[a:b])
            await asyncio.sleep(rng.random() * 0.3)
        await self.read_events(c, i)
        return True

    async def chunked(self, rng, c):
        i, body = self.pick(rng, False)
        await c.send(b"POST %s HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n" % CHAT.encode())
        at = 0
        while at < len(body):
            n = rng.choice([1, 100, 5000, 60000])
            part = body[at:at + n]
            await c.send(b"%x\r\n%s\r\n" % (len(part), part))
            at += n
        await c.send(b"0\r\n\r\n")
        await self.read_whole(c, i)
        return True

    async def leave(self, rng, c):
        """Hangs up, by FIN or RST, at one of the stages of a request that would run on for long."""
        stage = rng.choice(["in the head", "in the body", "sent", "soon", "begun", "midway", "midway"])
        i = rng.randrange(len(self.bodies))
        stream = stage in ("begun", "midway") or rng.random() < 0.5
        body = json.dumps({**self.bodies[i], "stream": stream, "max_tokens": 600, "ignore_eos": True, "stop": None}).encode()
        head = b"POST %s HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % (CHAT.encode(), len(body))
        data = head + body
        if stage == "in the head":
            data = data[:rng.randrange(1, len(head))]
        elif stage == "in the body":
            data = data[:rng.randrange(len(head), len(data))]
        await c.send(data)
        if stage == "soon":
            await asyncio.sleep(rng.random() * 0.2)
        if stage in ("begun", "midway"):
            status = await c.reply()
            if status != 200:
                await self.refused(c, status)
            elif stage == "midway":
                left, out = rng.randint(1, 60), empty_answer()
                async for e in c.events():
                    read_stream_event(e, out)
                    left -= 1
                    if not left:
                        break
        c.close(reset=rng.random() < 0.5)
        self.count["left " + stage] += 1

    async def bad_picture(self, rng, c):
        """400, or where the 200 is already there, an error event; never an answer."""
        stream = rng.random() < 0.4
        at = rng.randrange(len(self.bad))
        content = [text_part(words(rng, 5)), image_part(self.bad[at])]
        await c.request("POST", CHAT, json.dumps(chat_body(content, stream=stream, max_tokens=4)).encode())
        status = await c.reply()
        if status == 200 and stream:
            out = empty_answer()
            async for e in c.events():
                read_stream_event(e, out)
            if not out["error"]:
                self.fault("broken picture answered", f"picture {at}")
        elif status in (429, 503):
            await self.refused(c, status)
        else:
            e = json.loads(await c.rest())["error"]
            if status != 400 or not e["message"]:
                self.fault("broken picture", f"picture {at}: {status} {e}")
        return True

    async def bad_json(self, rng, c):
        await c.request("POST", CHAT, rng.choice(BAD_JSON))
        status = await c.reply()
        e = json.loads(await c.rest())["error"]
        if status != 400 or not e["message"]:
            self.fault("bad JSON", f"{status} {e}")
        return True

    async def small_route(self, rng, c):
        method, path, body, want = rng.choice([("GET", "/health", b"", 200), ("GET", "/metrics", b"", 200), ("GET", "/v1/models", b"", 200),
                                               ("POST", "/tokenize", b'{"prompt":"hello there"}', 200), ("GET", "/nothing", b"", 404)])
        await c.request(method, path, body)
        status = await c.reply()
        if status != want or not await c.rest():
            self.fault("small route", f"{path}: {status}")
        return True

    # ---- the run ----

    async def client(self, number, until):
        rng, c = seeded("client", SEED, number), None
        kinds, weights = zip(*self.kinds)
        while time.time() < until:
            kind = rng.choices(kinds, weights)[0]
            begin, keep = time.time(), False
            try:
                if not c:
                    c = await Conn(self.server.port).open()
                keep = await asyncio.wait_for(kind(rng, c), HANG_S)
            except asyncio.TimeoutError:
                self.fault("hung", kind.__name__)
            except (Broken, OSError, ValueError, KeyError, IndexError) as e:
                if c and c.uses > 1 and isinstance(e, OSError):
                    self.count["kept connection was closed"] += 1  # allowed between requests
                else:
                    self.fault("lost", f"{kind.__name__}: {e!r}")
            self.count[kind.__name__] += 1
            self.latency.append((time.time() - begin, kind.__name__))
            if c and (not keep or rng.random() < 0.3):
                c.close()
                c = None
        if c:
            c.close()

    async def run(self):
        clients = [asyncio.create_task(self.client(k, time.time() + SECONDS)) for k in range(CLIENTS)]
        rss, said = [], time.time()
        while True:
            done, _ = await asyncio.wait(clients, timeout=1)
            if len(done) == len(clients):
                break
            if self.server.proc.poll() is not None:
                raise SystemExit("the server ended:\n" + "".join(self.server.log[-40:]))
            rss.append(self.server.rss())
            if time.time() - said > 30:
                said = time.time()
                print(f"  {sum(self.count[k.__name__] for k, _ in self.kinds)} requests, {sum(self.faults.values())} faults, RSS {rss[-1] >> 20} MiB", flush=True)
        for d in done:
            d.result()
        return rss


async def makes_choices(port):
    """Whether the server knows n above 1."""
    c = await Conn(port).open()
    await c.request("POST", CHAT, json.dumps(chat_body("hello", n=2, max_tokens=1)).encode())
    status = await c.reply()
    await c.rest()
    c.close()
    return status == 200


def main():
    random.seed(SEED)
    alone_args, args = options()
    alone = Server(MODEL, *alone_args)
    bodies = cases(240, SEED, asyncio.run(makes_choices(alone.port)))
    solo = asyncio.run(ask_alone(alone.port, bodies, choices_of))
    if alone.stop() != 0:
        raise SystemExit("the first server did not end well")
    server = Server(MODEL, *args)
    files, threads = server.files(), server.threads()
    s = Soak(server, bodies, solo)
    print(f"soak: {SECONDS:.0f} s, {CLIENTS} clients, {len(bodies)} cases, seed {SEED}, options: {' '.join(args)}", flush=True)
    begin, on_gpu = time.time(), gpu_memory()
    rss = asyncio.run(s.run())
    took = time.time() - begin
    m = wait_idle(server)
    for name, value in m.items():
        if name in ("num_requests_running", "num_requests_waiting", "kv_cache_usage_perc") or "in_flight" in name:
            if value != 0:
                s.fault("left over", f"{name} is {value}")
    ended = m["request_success_total"]
    if ended < s.complete:
        s.fault("accounting", f"{s.complete} answers, the server counts {ended}")
    until = time.time() + 20  # connections that were left half open are closed by their timeouts, of 5 s
    while server.files() > files + 2 and time.time() < until:
        time.sleep(0.5)
    after_files, after_threads = server.files(), server.threads()
    if after_files > files + 2:
        s.fault("file descriptors", f"{files} before, {after_files} after: {server.open_files()}")
    if after_threads > threads:
        s.fault("threads", f"{threads} before, {after_threads} after")
    # From the middle of the run on, when every buffer has met its largest request.
    middle = sorted(rss[len(rss) * 4 // 10:len(rss) // 2 + 1])
    last = sorted(rss[len(rss) * 9 // 10:])
    growth = last[len(last) // 2] - middle[len(middle) // 2]
    if growth > (24 << 20) + 0.03 * middle[0] and not os.environ.get("SOAK_NO_RSS"):
        s.fault("RSS grows", f"{middle[len(middle) // 2] >> 20} MiB in the middle, {last[len(last) // 2] >> 20} MiB at the end")
    gpu_growth = (gpu_memory() or 0) - (on_gpu or 0)
    if gpu_growth > 64 << 20 or any("more than was planned" in line for line in server.log):
        s.fault("GPU memory grows", f"{gpu_growth >> 20} MiB; " + "".join(line for line in server.log if "planned" in line))
    code = server.stop()
    if code != 0:
        s.fault("stop", f"ended with {code}: " + "".join(server.log[-5:]))
    requests = sum(s.count[k.__name__] for k, _ in s.kinds) + 4 * s.count["several"]
    print(f"requests            {requests} in {took:.0f} s ({requests / took:.0f}/s)")
    for name, n in sorted(s.count.items()):
        print(f"  {name:32s}{n}")
    print(f"answers compared    {s.complete}, of {len(bodies)} cases")
    print(f"preemptions         {m['num_preemptions_total']:.0f}")
    times = [t for t, _ in s.latency]
    print(f"latency s           p50 {percentile(times, 50):.2f}  p95 {percentile(times, 95):.2f}  max {max(times):.2f}"
          f" ({', '.join(f'{k} {t:.1f}' for t, k in sorted(s.latency)[:-4:-1])})")
    print(f"RSS MiB             start {rss[0] >> 20}  middle {middle[len(middle) // 2] >> 20}  end {last[len(last) // 2] >> 20}  peak {max(rss) >> 20}")
    print(f"descriptors         {files} before, {after_files} after; threads {threads} before, {after_threads} after")
    print(f"left over           running {m['num_requests_running']:.0f}, waiting {m['num_requests_waiting']:.0f}, KV {m['kv_cache_usage_perc']:.3f}")
    print(f"hung                {s.faults['hung']}")
    print(f"lost                {s.faults['lost']}")
    print(f"wrong               {s.faults['wrong answer']}")
    print(f"faults in all       {sum(s.faults.values())}")
    for e in s.examples:
        print("  " + e[:400])
    return 1 if s.faults else 0


if __name__ == "__main__":
    sys.exit(main())
