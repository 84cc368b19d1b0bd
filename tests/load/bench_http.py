#!/usr/bin/env python3
"""What HTTP alone costs, and how soon a full server says no.

Null engine: the server over scripted answers (tests/server/vlmd_fake), whose one token is there before engine_submit returns, under
wrk with connections that are used again; answered, and refused by a full queue. Real engine: the bundled model with its queue kept
full by long streams, while some clients ask in a loop and others send 3 MB each; the time from a request to its 429.

BENCH_SECONDS (10) a scene, BENCH_CONNECTIONS (64). Load generator and server share the machine's cores."""
import asyncio
import json
import os
import re
import subprocess
import tempfile
import time

import wire
from wire import CHAT, MODEL, Conn, Server, chat_body, machine_line, percentile

SECONDS = int(os.environ.get("BENCH_SECONDS", 10))
CONNECTIONS = int(os.environ.get("BENCH_CONNECTIONS", 64))
FAKE = wire.VLMD.parent / "tests" / "server" / "vlmd_fake"
QUIET = ("--log-level", "error")


def wrk(port, body):
    """(requests/s, the replies that were no 2xx, {percentile or max: ms})."""
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as f:
        f.write(f"wrk.method='POST' wrk.headers['Content-Type']='application/json' wrk.body={json.dumps(json.dumps(body))}")
        f.flush()
        out = subprocess.run(["wrk", "-t1", f"-c{CONNECTIONS}", f"-d{SECONDS}s", "--latency", "-s", f.name, f"http://127.0.0.1:{port}{CHAT}"],
                             capture_output=True, text=True, check=True).stdout
    if "Socket errors" in out:
        raise SystemExit(out)

    def ms(text):
        n, unit = re.match(r"([\d.]+)(us|ms|s)", text).groups()
        return float(n) * {"us": 1e-3, "ms": 1, "s": 1e3}[unit]
    times = {p: ms(re.search(rf"^\s+{p}%\s+(\S+)", out, re.M)[1]) for p in (50, 99)}
    times["max"] = ms(re.search(r"Latency\s+\S+\s+\S+\s+(\S+)", out)[1])
    refused = re.search(r"Non-2xx or 3xx responses: (\d+)", out)
    return float(re.search(r"Requests/sec:\s+(\S+)", out)[1]), int(refused[1]) if refused else 0, times


def line(name, rate, times):
    print(f"{name:58s}{rate:10.0f} /s{times[50]:9.2f}{times[99]:9.2f}{times['max']:9.2f}")


def null_engine():
    small = chat_body("inline=1 tokens=1")
    server = Server(MODEL, *QUIET, binary=FAKE)
    try:
        rate, refused, times = wrk(server.port, small)
        if refused:
            raise SystemExit(f"{refused} requests were refused")
        line("null engine, small requests", rate, times)
    finally:
        server.stop()
    server = Server(MODEL, *QUIET, "--max-queued-requests", "1", binary=FAKE)
    try:
        waits = subprocess.Popen(["curl", "-sN", f"http://127.0.0.1:{server.port}{CHAT}", "-d", json.dumps(chat_body("queue_ms=10000000", stream=True))],
                                 stdout=subprocess.DEVNULL)
        while server.metrics()["num_requests_queued"] < 1:
            time.sleep(0.01)
        rate, refused, times = wrk(server.port, small)
        waits.kill()
        line(f"null engine, queue full: {refused} times 429", rate, times)
    finally:
        server.stop()


async def stream_for_ever(port, until):
    while time.perf_counter() < until:
        c = await Conn(port).open()
        await c.request("POST", CHAT, json.dumps(chat_body("Hello", stream=True, ignore_eos=True, max_tokens=1500)).encode())
        if await c.reply() == 200:
            async for _ in c.events():
                if time.perf_counter() > until:
                    break
        c.close()


async def probe(port, until, body, out, pause):
    c = await Conn(port).open()
    while time.perf_counter() < until:
        begin = time.perf_counter()
        await c.request("POST", CHAT, body)
        status = await c.reply()
        await c.rest()
        if status == 429:
            out.append(1e3 * (time.perf_counter() - begin))
        await asyncio.sleep(pause)
    c.close()


async def full(port, clients, large):
    until = time.perf_counter() + SECONDS
    streams = [asyncio.create_task(stream_for_ever(port, until)) for _ in range(24)]
    await asyncio.sleep(1)
    small, times, others = json.dumps(chat_body("Hello", max_tokens=1)).encode(), [], []
    big = json.dumps(chat_body("word " * 200_000)).encode()
    work = [probe(port, until, small, times, 0.005)] + [probe(port, until, small, others, 0.001) for _ in range(clients)]
    work += [probe(port, until, big, others, 0.01) for _ in range(large)]
    await asyncio.gather(*work)
    for s in streams:
        s.cancel()
    return times, len(times) + len(others)


def real_engine():
    server = Server(MODEL, *QUIET, "--max-num-seqs", "8", "--max-queued-requests", "8")
    try:
        for clients, large in ((0, 0), (16, 0), (8, 8)):
            times, n = asyncio.run(full(server.port, clients, large))
            line(f"real engine, full, {clients} ask in a loop, {large} send 1 MB ({len(times)})", n / SECONDS,
                 {50: percentile(times, 50), 99: percentile(times, 99), "max": max(times, default=float("nan"))})
    finally:
        server.stop()


def main():
    load = os.getloadavg()[0]
    print(machine_line(load))
    print(f"{SECONDS:g} s a scene; wrk with 1 thread and {CONNECTIONS} connections\n")
    print(f"{'':58s}{'replies':>13s}{'p50 ms':>9s}{'p99 ms':>9s}{'max ms':>9s}")
    null_engine()
    real_engine()


if __name__ == "__main__":
    main()
