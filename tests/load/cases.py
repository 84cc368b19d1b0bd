"""Requests with one right answer each, and that answer as a server gives it to one client alone. Shared by soak.py and mixed.py."""
import json
import os
import time

from wire import CHAT, ROOT, Conn, chat_body, exact, image_part, png, seeded, text_part, words

GOLDEN = ROOT / "tests" / "golden" / "image" / "pictures"


def pictures(seed):
    """[(bytes, kind)] that are all good: files of every format, and drawn ones of many sizes."""
    out = [((ROOT / "tests" / "e2e" / "pictures" / p).read_bytes(), "png") for p in sorted(os.listdir(ROOT / "tests" / "e2e" / "pictures"))
           if p.endswith(".png")]
    out += [((GOLDEN / p).read_bytes(), p.rsplit(".", 1)[1].replace("jpg", "jpeg")) for p in sorted(json.loads((GOLDEN / ".." / "decode.json").read_text())["good"])]
    rng = seeded("pictures", seed)
    sizes = [(1, 1), (1, 90), (400, 3), (30, 150), (150, 30), (96, 96), (97, 95), (1200, 800)] + [(rng.randint(2, 300), rng.randint(2, 300)) for _ in range(40)]
    return out + [(png(w, h, rng), "png") for w, h in sizes]


def cases(n, seed, several):
    """Bodies whose answers are compared: with and without pictures, greedy and by seed, conversations, stop strings, and several
    choices where the server makes them."""
    rng, shots, out = seeded("cases", seed), pictures(seed), []
    for i in range(n):
        fields = {"temperature": rng.choice([0, 0, 0.8, 1.4]), "seed": i, "max_tokens": rng.choice([1, 4, 16, 24, 24, 60])}
        if rng.random() < 0.2:
            fields["ignore_eos"] = True
        if rng.random() < 0.15:
            fields["stop"] = ["e", "th"]
        if rng.random() < 0.1:
            fields.update(repetition_penalty=1.2, frequency_penalty=0.3)
        if rng.random() < 0.06 and several:
            fields["n"] = rng.choice([2, 3, 5])
        kind = rng.random()
        if kind < 0.35:
            content = words(rng, rng.choice([1, 8, 8, 40, 300]))
        else:
            content = [image_part(*rng.choice(shots)) for _ in range(rng.choice([1, 1, 1, 2, 4]))]
            content.insert(rng.randint(0, len(content)), text_part(words(rng, 8)))
        body = chat_body(content, **fields)
        if rng.random() < 0.2:  # a system prompt that many share, and turns before
            body["messages"][:0] = [{"role": "system", "content": words(seeded("system", i % 3), 60)}, {"role": "user", "content": words(rng, 6)},
                                    {"role": "assistant", "content": words(rng, 6)}]
        out.append(body)
    return out


async def ask_alone(port, bodies, value_of):
    """value_of each reply, one after the other on one connection."""
    out, c = [], await Conn(port).open()
    for b in bodies:
        await c.request("POST", CHAT, json.dumps(b).encode())
        status = await c.reply()
        reply = exact(await c.rest())
        if status != 200:
            raise SystemExit(f"a case is refused: {reply}")
        out.append(value_of(reply))
    c.close()
    return out


def wait_idle(server):
    """The gauges after the load, once nothing runs any more or 60 s went by."""
    end = time.time() + 60
    while True:
        m = server.metrics()
        if m["num_requests_running"] + m["num_requests_waiting"] + m["kv_cache_usage_perc"] == 0 or time.time() > end:
            return m
        time.sleep(0.1)
