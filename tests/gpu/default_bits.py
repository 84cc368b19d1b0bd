#!/usr/bin/env python3
"""What docs/gpu.md promises bit for bit without --deterministic, through the server: log-probabilities, digit by digit.

  decode   one answer beside so many others that each of its steps has as many rows: 1, 2, 5, 8 among each other, and 9, 12, 16;
           with f32 weights all of these. Its prompt is in the prefix cache but for one row, so that no step of it has more rows.
  prefill  one prompt in pieces of 2, 5, 8 rows, of 9, 12, 16, each by a server of its own; with f32 weights likewise.

The bundled model (bf16) and an f32 checkpoint of tests/golden. usage: default_bits.py [--device NAME] [--smoke] [-- OPTION...]. Standard
library only; VLMD_BIN names the program, OPTION... are more of the server's. An answer whose neighbours ended before it is asked for again."""
import argparse
import asyncio
import json
import pathlib
import sys
import time

sys.path[:0] = [str(pathlib.Path(__file__).resolve().parent.parent / "load")]
from parity import is_f32  # noqa: E402
from wire import CHAT, MODEL, ROOT, Conn, Server, chat_body, exact, image_part, png, seeded, text_part, words  # noqa: E402

F32 = ROOT / "tests" / "golden" / "models" / "clip_llama"
PAGE = 16  # tokens of a KV page
FEW, SOME = [1, 2, 5, 8], [9, 12, 16]


def plain(text):
    reply = exact(text)
    return reply["choices"][0]["token_ids"], reply["choices"][0]["logprobs"]


class Bits:
    def __init__(self, folder, o):
        self.folder, self.smoke, self.options = folder, o.smoke, ["--device", o.device, "--log-level", "warn", *o.options]
        few, some = ([1, 3, 8], [9, 12]) if o.smoke else (FEW, SOME)
        self.classes = [few + some] if is_f32(folder) else [few, some]
        self.wrong = []

    def serve(self, *args):
        return Server(self.folder, *self.options, *args)

    def end(self, server):
        if server.stop() != 0:
            raise SystemExit("the server did not end well: " + "".join(server.log[-5:]))

    async def ask(self, port, content, tokens):
        c = await Conn(port).open()
        body = chat_body(content, temperature=0, max_tokens=tokens, ignore_eos=True, logprobs=True, top_logprobs=3, return_token_ids=True)
        await c.request("POST", CHAT, json.dumps(body).encode())
        status, text = await c.reply(), (await c.rest()).decode()
        c.close()
        if status != 200:
            raise SystemExit(f"refused with {status}: {text[:300]}")
        return text

    def same(self, what, got):
        """got: {rows: what came of it}, all of which are to be equal."""
        first, *others = got
        for n in others:
            if got[n] != got[first]:
                self.wrong.append(f"{self.folder.name}, {what}: {n} rows and {first} differ: {got[n]} and {got[first]}")
        print(f"{self.folder.name}: {what} of {', '.join(map(str, got))} rows", flush=True)

    # ---- decode ----

    async def prompt_of(self, port, fits, with_picture=False):
        """Content whose prompt has a fitting number of tokens."""
        picture = [image_part(png(64, 48, seeded("picture")))] if with_picture else []
        for k in range(400):
            content = [*picture, text_part("x " * (k % 20) + words(seeded(k), 2 + k // 8))]
            n = json.loads(await self.ask(port, content, 1))["usage"]["prompt_tokens"]
            if fits(n):
                return content, n
        raise SystemExit("no prompt of a fitting length was found")

    async def neighbour(self, port, i, decodes):
        c = await Conn(port).open()
        try:
            body = chat_body(words(seeded("neighbour", i), 3), temperature=1, seed=i, ignore_eos=True, stream=True, return_token_ids=True)
            await c.request("POST", CHAT, json.dumps(body).encode())
            if await c.reply() != 200:
                raise SystemExit("a neighbour is refused: " + (await c.rest()).decode()[:300])
            async for e in c.events():
                if not decodes.is_set() and any(x.get("token_ids") for x in json.loads(e)["choices"]):
                    decodes.set()
        finally:
            c.close(reset=True)

    async def beside(self, server, content, others):
        """The answer while so many others are decoded all the time."""
        for _ in range(20):
            decode = [asyncio.Event() for _ in range(others)]
            tasks = [asyncio.ensure_future(self.neighbour(server.port, i, d)) for i, d in enumerate(decode)]
            while not all(d.is_set() for d in decode) and not any(t.done() for t in tasks):
                await asyncio.sleep(0.001)
            text = await self.ask(server.port, content, 6 if self.smoke else 24)
            over = any(t.done() for t in tasks)
            for t in tasks:
                t.cancel()
            failed = [e for e in await asyncio.gather(*tasks, return_exceptions=True) if e and not isinstance(e, asyncio.CancelledError)]
            if failed:
                raise failed[0]
            while (await asyncio.to_thread(server.metrics))["num_requests_running"]:
                await asyncio.sleep(0.01)
            if not over:
                return text
        raise SystemExit(f"{others} neighbours never lasted as long as an answer")

    def decode(self):
        server = self.serve("--max-num-seqs", "16")

        async def run():
            content, n = await self.prompt_of(server.port, lambda n: n > PAGE and n % PAGE == 1)
            for rows in self.classes:
                got = {}
                for r in rows:
                    text = await self.beside(server, content, r - 1)
                    if json.loads(text)["usage"]["prompt_tokens_details"]["cached_tokens"] != n - 1:
                        raise SystemExit("the prompt was not in the cache")
                    got[r] = plain(text)
                self.same("decode steps", got)
        asyncio.run(run())
        self.end(server)

    # ---- prefill ----

    def prefill(self, with_picture):
        contents = {}
        for rows in self.classes:
            # No piece, the last one neither, is of another class or a single row.
            low, high = (9, 16) if rows[0] > 8 else (2, 16 if rows[-1] > 8 else 8)
            got = {}
            for r in rows[rows[0] == 1:]:
                server = self.serve("--max-num-batched-tokens", str(r), "--max-num-seqs", "1", "--no-prefix-caching")
                if low not in contents:
                    contents[low], n = asyncio.run(self.prompt_of(server.port, lambda n: n > 24 and all(
                        n % k == 0 or low <= n % k <= high for k in rows[rows[0] == 1:]), with_picture))
                if with_picture:  # encoded before: else what stands in front of it is a piece of its own
                    asyncio.run(self.ask(server.port, contents[low][:1], 1))
                before = server.metrics()["engine_steps_total"]
                got[r] = plain(asyncio.run(self.ask(server.port, contents[low], 3)))
                if server.metrics()["engine_steps_total"] - before < n / r:
                    raise SystemExit(f"{n} rows in pieces of {r}: too few steps")
                self.end(server)
            self.same("prefill" + (" of a picture" if with_picture else "") + " in pieces", got)


def main():
    a = argparse.ArgumentParser()
    a.add_argument("--device", default="cuda")
    a.add_argument("--smoke", action="store_true", help="fewer sizes")
    a.add_argument("options", nargs="*", help="more of the server's")
    o = a.parse_args()
    begin, wrong = time.time(), []
    for folder in (MODEL, F32):
        b = Bits(folder, o)
        b.decode()
        b.prefill(False)
        b.prefill(True)
        wrong += b.wrong
    for w in wrong:
        print("WRONG " + w[:800])
    print(f"{len(wrong)} wrong, {time.time() - begin:.0f} s")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
