#!/usr/bin/env python3
"""What several clients get, beside what one gets alone on the same server in the same run.

Scenes, in turn and many times over so that a noisy machine disturbs them alike: one client with text, one with a picture, eight
with text, eight with eight pictures, eight with one picture; every picture and every text is new, so nothing comes from a cache
of an earlier round. Texts are as long in tokens as the prompts with a picture. All streams, greedy, to a fixed number of tokens.

BENCH_SECONDS (60) in all, BENCH_TOKENS (48) an answer, BENCH_MODEL a checkpoint folder (the bundled model), BENCH_ARGS options
of `vlmd serve`."""
import asyncio
import json
import os
import pathlib
import shlex
import time

from wire import CHAT, MODEL, Broken, Conn, Server, chat_body, image_part, machine_line, percentile, png, seeded, text_part, words

SECONDS = float(os.environ.get("BENCH_SECONDS", 60))
TOKENS = int(os.environ.get("BENCH_TOKENS", 48))
CLIENTS = 8
ASK = "What is in the image?"


class Scene:
    def __init__(self, name, clients, picture, alone):
        self.name, self.clients, self.picture, self.alone = name, clients, picture, alone
        self.ttft, self.itl, self.tokens, self.seconds = [], [], 0, 0.0

    @property
    def rate(self):
        return self.tokens / self.seconds


SCENES = [Scene("1 client, text", 1, None, None), Scene("1 client, a new picture", 1, "own", None),
          Scene("8 clients, text", CLIENTS, None, 0), Scene("8 clients, 8 new pictures", CLIENTS, "own", 1),
          Scene("8 clients, the same new picture", CLIENTS, "same", 1)]


async def ask(conn, body, scene, gate):
    """One streamed answer; its time to the first token, and between tokens, go to the scene."""
    await gate.wait()
    begin = last = time.perf_counter()
    await conn.request("POST", CHAT, body)
    if await conn.reply() != 200:
        raise SystemExit("refused: " + (await conn.rest()).decode())
    n = 0
    async for e in conn.events():
        if e == "[DONE]":
            continue  # the stream is read to its end, for the connection is used again
        d = json.loads(e)
        if "error" in d:
            raise SystemExit("an answer ended in error: " + e)
        now, new = time.perf_counter(), sum(len(c.get("token_ids") or []) for c in d["choices"])
        if not new:
            continue
        if not n:
            scene.ttft.append(now - begin)
        else:
            scene.itl += [(now - last) / new] * new
        last, n = now, n + new
    scene.tokens += n


async def round_of(scene, conns, number, text_words):
    rng = seeded("bench", number, scene.name)

    def content(same):
        if scene.picture:
            return [image_part(same if scene.picture == "same" else png(256, 256, rng)), text_part(f"{number % 10} {ASK}")]
        return words(rng, text_words)
    same = png(256, 256, rng)
    fields = {"temperature": 0, "max_tokens": TOKENS, "ignore_eos": True, "stream": True, "return_token_ids": True}
    bodies = [json.dumps(chat_body(content(same), **fields)).encode() for _ in range(scene.clients)]
    gate = asyncio.Event()
    tasks = [asyncio.create_task(ask(c, b, scene, gate)) for c, b in zip(conns, bodies)]
    await asyncio.sleep(0.05)
    begin = time.perf_counter()
    gate.set()
    await asyncio.gather(*tasks)
    scene.seconds += time.perf_counter() - begin


async def count_tokens(port, content):
    c = await Conn(port).open()
    await c.request("POST", "/tokenize", json.dumps({"messages": [{"role": "user", "content": content}]}).encode())
    if await c.reply() != 200:
        raise SystemExit("refused: " + (await c.rest()).decode())
    n = json.loads(await c.rest())["count"]
    c.close()
    return n


async def same_length(port):
    """How many words make a text prompt as long as one with a picture: (words, tokens)."""
    want = await count_tokens(port, [image_part(png(256, 256, seeded(0))), text_part("1 " + ASK)])
    n = 1
    while await count_tokens(port, words(seeded("length"), n)) < want:
        n += 1
    return n, want


async def run(port):
    text_words, prompt = await same_length(port)
    conns = [await Conn(port).open() for _ in range(CLIENTS)]
    until, number = None, 0
    while until is None or time.time() < until:
        for s in SCENES:
            await round_of(s, conns, number, text_words)
        if until is None:  # the first round warms up
            for s in SCENES:
                s.ttft, s.itl, s.tokens, s.seconds = [], [], 0, 0.0
            until = time.time() + SECONDS
        number += 1
    for c in conns:
        c.close()
    return prompt, number - 1


def main():
    load = os.getloadavg()[0]
    model = os.environ.get("BENCH_MODEL", MODEL)
    server = Server(model, "--log-level", "warn", *shlex.split(os.environ.get("BENCH_ARGS", "")))
    try:
        prompt, rounds = asyncio.run(run(server.port))
    except (Broken, OSError) as e:
        raise SystemExit(f"a reply was lost: {e!r}") from None
    finally:
        server.stop()
    print(machine_line(load))
    print(f"model: {pathlib.Path(model).name}; prompts of {prompt} tokens, answers of {TOKENS}; {rounds} rounds")
    print()
    print(f"{'':33s}{'tokens/s':>10s}{'TTFT ms':>22s}{'ITL ms':>22s}   as ratios to one client alone")
    print(f"{'':33s}{'':>10s}{'p50':>8s}{'p95':>7s}{'p99':>7s}{'p50':>8s}{'p95':>7s}{'p99':>7s}   tokens/s  TTFT p50   p95  ITL p50   p95   p99")
    for s in SCENES:
        t, i = ([1e3 * percentile(v, p) for p in (50, 95, 99)] for v in (s.ttft, s.itl))
        line = f"{s.name:33s}{s.rate:10.0f}" + "".join(f"{v:{w}.1f}" for v, w in zip(t, (8, 7, 7))) + "".join(f"{v:{w}.2f}" for v, w in zip(i, (8, 7, 7)))
        if s.alone is not None:
            a = SCENES[s.alone]
            line += (f"   {s.rate / a.rate:8.2f}  {t[0] / 1e3 / percentile(a.ttft, 50):8.2f} {t[1] / 1e3 / percentile(a.ttft, 95):5.2f}"
                     f" {i[0] / 1e3 / percentile(a.itl, 50):8.2f} {i[1] / 1e3 / percentile(a.itl, 95):5.2f} {i[2] / 1e3 / percentile(a.itl, 99):5.2f}")
        print(line)
    text, one, texts, _, same = (percentile(s.ttft, 50) for s in SCENES)
    encode = max(one - text, 0)
    bound = 1.3 * texts + encode
    print()
    print(f"one encode (one client's TTFT with a picture less with text): {1e3 * encode:.1f} ms")
    print(f"same picture, TTFT p50 {1e3 * same:.1f} ms; 1.3 x text of equal length + one encode = {1e3 * bound:.1f} ms: {'within' if same <= bound else 'NOT within'}")


if __name__ == "__main__":
    main()
