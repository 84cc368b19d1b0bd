#!/usr/bin/env python3
"""Asks MIXED_REQUESTS (2000) different requests twice, in random order and many at once, of a server whose caches are too small
for them, and compares every answer bit by bit with that of a server of its own without caches that was asked one by one.

Text, token ids, log-probabilities digit by digit, finish_reason and usage have to be equal; streamed and whole replies are mixed,
and some clients leave. Ends with an error also when nothing was preempted, shared, or dropped from a cache: it would have proved
nothing. MIXED_SEED makes another run, VLMD_BIN names the program; MIXED_ARGS are options for both
servers (--device cuda --deterministic)."""
import asyncio
import collections
import json
import os
import shlex
import sys
import time

from cases import ask_alone, cases, wait_idle
from wire import CHAT, MODEL, Broken, Conn, Full, Server, exact, seeded

N = int(os.environ.get("MIXED_REQUESTS", 2000))
SEED = int(os.environ.get("MIXED_SEED", 1))
CLIENTS, HANG_S = 24, 180
LENGTH = ["--max-model-len", "1024", "--log-level", "warn", *shlex.split(os.environ.get("MIXED_ARGS", ""))]
ALONE = [*LENGTH, "--no-prefix-caching", "--image-cache-memory", "0"]
SMALL = [*LENGTH, "--kv-cache-memory", "5M", "--image-cache-memory", "400K", "--max-num-batched-tokens", "96"]


def bodies(n, seed):
    """The cases with all that can be compared asked for, and some long answers, for which sequences have to give way."""
    rng, out = seeded("mixed", seed), []
    for b in cases(n, seed, False):
        out.append({**b, "logprobs": True, "top_logprobs": rng.choice([0, 0, 3]), "return_token_ids": True})
        if rng.random() < 0.15:
            out[-1].update(max_tokens=rng.randint(100, 250), ignore_eos=True)
    return out


class Mixed:
    def __init__(self, port, all_bodies, right, seed):
        self.port, self.bodies, self.right, self.rng = port, all_bodies, right, seeded("order", seed)
        self.count, self.wrong = collections.Counter(), []
        self.work = [(i, self.rng.random() < 0.5) for i in range(len(all_bodies)) for _ in range(2)]
        self.rng.shuffle(self.work)

    async def one(self, c, i, stream):
        options = {"stream": True, "stream_options": {"include_usage": True}} if stream else {}
        await c.request("POST", CHAT, json.dumps({**self.bodies[i], **options}).encode())
        status = await c.reply()
        full = Full()
        if status == 200 and stream:
            async for e in c.events():
                full.event(e)
            value = full.value() if full.done and not full.error else full.error
        else:
            reply = exact(await c.rest())
            value = Full.of_reply(reply) if status == 200 else reply
        self.count["streamed" if stream else "whole"] += 1
        if value != self.right[i]:
            self.wrong.append(f"request {i}, stream {stream}: {value}, alone {self.right[i]}")

    async def leave(self, rng, i):
        """Hangs up during a long answer."""
        c = await Conn(self.port).open()
        body = {**self.bodies[i], "stream": True, "max_tokens": 400, "ignore_eos": True, "stop": None}
        await c.request("POST", CHAT, json.dumps(body).encode())
        await asyncio.sleep(rng.random() * 0.5)
        c.close(reset=rng.random() < 0.5)
        self.count["left"] += 1

    async def client(self, number):
        rng, c = seeded("client", number), None
        while self.work:
            i, stream = self.work.pop()
            try:
                if rng.random() < 0.08:
                    await self.leave(rng, rng.randrange(len(self.bodies)))
                c = c or await Conn(self.port).open()
                await asyncio.wait_for(self.one(c, i, stream), HANG_S)
            except asyncio.TimeoutError:
                self.wrong.append(f"request {i} hung")
            except (Broken, OSError, ValueError, KeyError) as e:
                self.wrong.append(f"request {i}: {e!r}")
            if c and (rng.random() < 0.3 or self.wrong):
                c.close()
                c = None
        if c:
            c.close()

    async def run(self):
        await asyncio.gather(*[self.client(k) for k in range(CLIENTS)])


def run(n=N, seed=SEED):
    """What is wrong, as a list of lines, and what was done, as text."""
    begin, all_bodies = time.time(), bodies(n, seed)
    assert len({json.dumps(b) for b in all_bodies}) == n
    alone = Server(MODEL, *ALONE)
    right = asyncio.run(ask_alone(alone.port, all_bodies, Full.of_reply))
    wrong = [] if alone.stop() == 0 else ["the server that was asked alone did not end well"]
    solo_s = time.time() - begin
    server = Server(MODEL, *SMALL)
    m = Mixed(server.port, all_bodies, right, seed)
    asyncio.run(m.run())
    after = wait_idle(server)
    wrong += m.wrong
    wrong += [f"{k} is {after[k]}" for k in ("num_requests_running", "num_requests_waiting", "kv_cache_usage_perc") if after[k]]
    if server.stop() != 0:
        wrong.append("the server did not end well: " + "".join(server.log[-5:]))
    # Pictures encoded again although each was asked for before: the cache let them go.
    encoded, known = after["images_total"], after["mm_cache_hits_total"]
    done = {"preempted": after["num_preemptions_total"], "tokens from the prefix cache": after["prefix_cache_hits_total"],
            "pictures from the cache": known, "pictures encoded": encoded}
    wrong += [f"nothing {k}: this proves nothing" for k, v in done.items() if not v]
    if encoded <= len(distinct_pictures(all_bodies)):
        wrong.append(f"{encoded:.0f} pictures encoded, no more than there are: none was dropped")
    text = (f"{sum(m.count[k] for k in ('whole', 'streamed'))} answers of {n} requests compared ({dict(m.count)}); alone {solo_s:.0f} s, "
            f"all {time.time() - begin:.0f} s; " + ", ".join(f"{k} {v:.0f}" for k, v in done.items()) +
            f" of {len(distinct_pictures(all_bodies))} different; wrong {len(wrong)}")
    return wrong, text


def distinct_pictures(all_bodies):
    return {p["image_url"]["url"] for b in all_bodies for m in b["messages"] if isinstance(m["content"], list) for p in m["content"] if "image_url" in p}


if __name__ == "__main__":
    found, summary = run()
    for line in found[:20]:
        print("  " + line[:600])
    print(summary)
    sys.exit(1 if found else 0)
