#!/usr/bin/env python3
"""What running text streams notice of pictures: inter-token latency beside pictures without end, as ratios to idle.

Rounds of two phases, many times over so that a noisy machine disturbs them alike: two text streams alone, then the same beside
clients that each send one new picture after the other (1024 x 768, made before the first phase; answers of one token, so a
request is decode, encode and prefill). Latencies are between events of one stream, its first token left out, and in the second
phase only while all picture clients are at work.

BENCH_SECONDS (60) in all, BENCH_ROUNDS (4), BENCH_CLIENTS (3) that send pictures, BENCH_PICTURES (1000) made
before, BENCH_MODEL a checkpoint folder (the bundled model), BENCH_ARGS options of `vlmd serve`."""
import asyncio
import json
import os
import pathlib
import shlex
import struct
import time
import zlib

from wire import CHAT, MODEL, Broken, Conn, Server, chat_body, image_part, machine_line, percentile, seeded, text_part, words

SECONDS = float(os.environ.get("BENCH_SECONDS", 60))
ROUNDS = int(os.environ.get("BENCH_ROUNDS", 4))
CLIENTS = int(os.environ.get("BENCH_CLIENTS", 3))
PICTURES = int(os.environ.get("BENCH_PICTURES", 1000))
STREAMS = 2


class Phase:
    def __init__(self, name):
        self.name, self.itl, self.ttft, self.pictures, self.seconds = name, [], [], 0, 0.0


IDLE, BUSY = Phase("two text streams alone"), Phase("beside pictures without end")


def pictures(n):
    """PNGs of 1024 x 768, some 300 kB and as much work to decode as a photograph: faint noise in the lower half. Only the upper
    rows differ, so that a thousand are made in no time."""
    def chunk(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    def deflate(data, flush):
        z = zlib.compressobj(1, wbits=-15)
        return z.compress(data) + z.flush(flush)

    w, h, top, rng = 1024, 768, 96, seeded("itl pictures")
    faint = bytes(120 + (i & 3) for i in range(256))
    rest = b"".join(b"\0" + (bytes([120]) * 3 * w if y < h // 2 else rng.randbytes(3 * w).translate(faint)) for y in range(top, h))
    packed = deflate(rest, zlib.Z_FINISH)
    for _ in range(n):
        first = b"".join(b"\0" + bytes(rng.randrange(256) for _ in range(3)) * w for y in range(top))
        data = b"\x78\x01" + deflate(first, zlib.Z_FULL_FLUSH) + packed + struct.pack(">I", zlib.adler32(rest, zlib.adler32(first)))
        yield (b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", w, h, 8, 2, 0, 0, 0)) + chunk(b"IDAT", data) + chunk(b"IEND", b""))


async def stream(conn, body, stop, times):
    """Streams answers until `stop`, one after the other; the time of each token goes to `times`, None where one begins."""
    while not stop.is_set():
        times.append(None)
        await conn.request("POST", CHAT, body)
        if await conn.reply() != 200:
            raise SystemExit("refused: " + (await conn.rest()).decode())
        async for e in conn.events():
            if e != "[DONE]" and sum(len(c.get("token_ids") or []) for c in json.loads(e).get("choices", ())):
                times.append(time.perf_counter())
            if stop.is_set():
                conn.close()  # the server notices, and drops the sequence
                return


async def picture_client(conn, bodies, stop, phase):
    while not stop.is_set() and bodies:
        begin = time.perf_counter()
        await conn.request("POST", CHAT, bodies.pop())
        if await conn.reply() != 200:
            raise SystemExit("refused: " + (await conn.rest()).decode())
        await conn.rest()
        phase.ttft.append(time.perf_counter() - begin)
        phase.pictures += 1


async def settle(server):
    while server.metrics().get("num_requests_running", 0) > 0:
        await asyncio.sleep(0.05)


async def run_phase(server, phase, number, seconds, bodies):
    text = {"temperature": 0, "max_tokens": 2000, "ignore_eos": True, "stream": True, "return_token_ids": True}
    stop, rest = asyncio.Event(), asyncio.Event()
    times = [[] for _ in range(STREAMS)]
    tasks = []
    for i in range(STREAMS):
        body = json.dumps(chat_body(words(seeded("itl", number, i), 12), **text)).encode()
        tasks.append(asyncio.create_task(stream(await Conn(server.port).open(), body, rest, times[i])))
    while not all(len(t) > 6 for t in times):  # both are past their prompts
        await asyncio.sleep(0.02)
        for t in tasks:
            if t.done():
                t.result()
    begin = time.perf_counter()
    senders = [asyncio.create_task(picture_client(await Conn(server.port).open(), bodies, stop, phase))
               for _ in range(CLIENTS if phase is BUSY else 0)]
    await asyncio.sleep(seconds)
    end = time.perf_counter()
    if any(s.done() for s in senders):
        raise SystemExit("the pictures did not last: more BENCH_PICTURES")
    phase.seconds += end - begin
    for t in times:
        phase.itl += [b - a for a, b in zip(t, t[1:]) if a and b and a >= begin and b <= end]
    rest.set()
    await asyncio.gather(*tasks)
    stop.set()
    await asyncio.gather(*senders)
    await settle(server)


async def run(server, bodies):
    for p in (IDLE, BUSY):  # warms up
        await run_phase(server, p, -1, 1, bodies)
        p.itl, p.ttft, p.pictures, p.seconds = [], [], 0, 0.0
    for number in range(ROUNDS):
        for p in (IDLE, BUSY):
            await run_phase(server, p, number, SECONDS / ROUNDS / 2, bodies)


def main():
    load = os.getloadavg()[0]
    model = os.environ.get("BENCH_MODEL", MODEL)
    ask = text_part("What is in the image?")
    bodies = [json.dumps(chat_body([image_part(p), ask], temperature=0, max_tokens=1)).encode() for p in pictures(PICTURES)]
    server = Server(model, "--log-level", "warn", *shlex.split(os.environ.get("BENCH_ARGS", "")))
    try:
        asyncio.run(run(server, bodies))
    except (Broken, OSError) as e:
        raise SystemExit(f"a reply was lost: {e!r}") from None
    finally:
        server.stop()
    print(machine_line(load))
    print(f"model: {pathlib.Path(model).name}; {STREAMS} text streams, {CLIENTS} clients with pictures of 1024 x 768, {ROUNDS} rounds")
    print()
    print(f"{'ITL ms':33s}{'p50':>9s}{'p95':>9s}{'p99':>9s}{'most':>9s}{'tokens':>9s}")
    for p in (IDLE, BUSY):
        print(f"{p.name:33s}" + "".join(f"{1e3 * percentile(p.itl, q):9.2f}" for q in (50, 95, 99, 100)) + f"{len(p.itl):9d}")
    print(f"{'ratio':33s}" + "".join(f"{percentile(BUSY.itl, q) / percentile(IDLE.itl, q):9.2f}" for q in (50, 95, 99, 100)))
    print(f"{'ratio to idle p50':33s}" + "".join(f"{percentile(BUSY.itl, q) / percentile(IDLE.itl, 50):9.2f}" for q in (50, 95, 99, 100)))
    print()
    print(f"pictures meanwhile: {BUSY.pictures / BUSY.seconds:.2f} a second; TTFT p50 {1e3 * percentile(BUSY.ttft, 50):.0f} ms, "
          f"p95 {1e3 * percentile(BUSY.ttft, 95):.0f} ms")


if __name__ == "__main__":
    main()
