"""Failures that servers of this kind were seen to have in public, each by name. Those that other files show already are not
shown twice; docs/reliability.md has the whole list and where each is."""
import base64
import concurrent.futures
import json
import pathlib
import re
import resource
import socket
import struct
import time
import zlib

import pytest
from conftest import MODEL, ROOT, Server, Stream, image_part, picture, text_of, text_part

GOLDEN = ROOT / "tests" / "golden" / "image" / "pictures"
ASK = "what color is the shape?"


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width, height, lines, colour_type, *extra):
    """8 bits a sample; lines as they are before the filter byte."""
    n = len(lines) // height
    raw = b"".join(b"\0" + lines[y * n:(y + 1) * n] for y in range(height))
    return (b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, colour_type, 0, 0, 0)) +
            b"".join(chunk(k, d) for k, d in extra) + chunk(b"IDAT", zlib.compress(raw)) + chunk(b"IEND", b""))


def url(data):
    return "data:image/png;base64," + base64.b64encode(data).decode()


def seen(server, *pictures):
    """What the model makes of pictures: its text and the log-probs of every token, which tell pictures apart where words do not."""
    r = server.chat([image_part(url(p)) for p in pictures] + [text_part(ASK)], temperature=0, max_tokens=6, ignore_eos=True, logprobs=True, top_logprobs=5)
    assert r.status == 200, r.body
    c = r.json()["choices"][0]
    return c["message"]["content"], c["logprobs"]


def rss(server):
    return int(re.search(r"VmRSS:\s+(\d+)", pathlib.Path(f"/proc/{server.proc.pid}/status").read_text()).group(1)) * 1024


def sanitized(server):
    return "libasan" in pathlib.Path(f"/proc/{server.proc.pid}/maps").read_text()


# ---- pictures ----

def test_decompression_bomb(server):
    """40 KB that would become 1.2 GB: refused by its header, soon and without the memory."""
    z = zlib.compressobj(9)
    row = b"\0" * (1 + 3 * 20000)
    data = b"".join(z.compress(row) for _ in range(2000)) + z.flush()  # the first tenth is enough, nobody should come to read it
    bomb = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", 20000, 20000, 8, 2, 0, 0, 0)) + chunk(b"IDAT", data) + chunk(b"IEND", b"")
    server.chat("hello", max_tokens=1)
    before, t0 = rss(server), time.time()
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        replies = list(pool.map(lambda _: server.chat([image_part(url(bomb)), text_part(ASK)]), range(8)))
    assert all(r.status in (400, 413) for r in replies), [r.body for r in replies]
    assert "20000x20000" in replies[0].error()["message"]
    assert time.time() - t0 < 20
    assert rss(server) - before < 100 << 20 or sanitized(server)


def test_bomb_of_many_chunks(server):
    """Two hundred thousand empty chunks before the pixels."""
    many = [(b"tEXt", b"")] * 200_000
    t0 = time.time()
    r = server.chat([image_part(url(png(4, 4, b"\x80" * 48, 2, *many))), text_part(ASK)], max_tokens=2)
    assert r.status in (200, 400) and time.time() - t0 < 20, r.body


def test_truncated_jpeg(server):
    """400 wherever the file is cut, and no answer about a half-grey picture; the whole file is answered."""
    whole = (GOLDEN / "rgb420.jpg").read_bytes()
    for kind in ("rgb420.jpg", "progressive.jpg"):
        whole = (GOLDEN / kind).read_bytes()
        assert server.chat([image_part("data:image/jpeg;base64," + base64.b64encode(whole).decode())], max_tokens=1).status == 200
        scan = whole.index(b"\xff\xda")
        for cut in [10, scan, scan + 20, (scan + len(whole)) // 2, len(whole) * 9 // 10]:
            u = "data:image/jpeg;base64," + base64.b64encode(whole[:cut]).decode()
            r = server.chat([image_part(u), text_part(ASK)], max_tokens=2)
            assert r.status == 400, (kind, cut, r.body)
            assert r.error()["param"].startswith("messages[0].content[0].image_url")


@pytest.mark.parametrize("name", ["bad_lying.png", "bad_lying_far.png", "bad_lying.jpg", "bad_lying.webp", "bad_lying.gif", "bad_tall_lie.jpg"])
def test_lying_header_sizes(server, name):
    u = "data:image/png;base64," + base64.b64encode((GOLDEN / name).read_bytes()).decode()
    before = rss(server)
    r = server.chat([image_part(u), text_part(ASK)], max_tokens=2)
    assert r.status in (400, 413), r.body
    assert r.error()["param"].startswith("messages[0].content[0].image_url")
    assert rss(server) - before < 400 << 20


# Pairs whose bytes of pixels, or of indices, are the same. Each has an RGB twin that nothing could confuse.

def stripes(n):
    return bytes((7 * i) % 256 if (i // 37) % 2 else 255 - i % 200 for i in range(n))


def twins(pairs):
    """In one order, the other, and all at once, each picture is what its twin is, and no two are the same."""
    def check(server):
        want = [seen(server, twin) for _, twin in pairs]
        assert len({repr(w) for w in want}) == len(pairs)
        for order in (range(len(pairs)), reversed(range(len(pairs)))):
            for i in order:
                assert seen(server, pairs[i][0]) == want[i], i
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            assert list(pool.map(lambda k: seen(server, pairs[k % len(pairs)][0]), range(8))) == [want[k % len(pairs)] for k in range(8)]
        both = [p for p, _ in pairs]
        assert seen(server, *both) == seen(server, *[t for _, t in pairs])
        assert seen(server, *both) != seen(server, *both[::-1])
    return check


def test_hash_confusion_by_size(server):
    grey = stripes(30 * 150)
    rgb = bytes(b for g in grey for b in (g, g, g))
    twins([(png(30, 150, grey, 0), png(30, 150, rgb, 2)), (png(150, 30, grey, 0), png(150, 30, rgb, 2)), (png(50, 90, grey, 0), png(50, 90, rgb, 2))])(server)


def test_hash_confusion_by_palette(server):
    indices = bytes(i // 12 % 4 for i in range(48 * 48))
    palettes = [bytes([255, 0, 0, 0, 255, 0, 0, 0, 255, 9, 9, 9]), bytes([0, 0, 255, 255, 0, 0, 0, 255, 0, 9, 9, 9]),
                bytes([255, 255, 0, 0, 255, 255, 255, 0, 255, 200, 200, 200])]
    twins([(png(48, 48, indices, 3, (b"PLTE", p)), png(48, 48, b"".join(p[3 * i:3 * i + 3] for i in indices), 2)) for p in palettes])(server)


def test_hash_confusion_by_alpha(server):
    """Alpha lies over white: equal colours under other alphas are other pictures, and grey with alpha is not taken for colour."""
    colours, grey = stripes(3 * 40 * 40), stripes(40 * 40)
    masks = [bytes(255 * (i % 40 < 20) for i in range(1600)), bytes(255 * (i < 800) for i in range(1600)), b"\xff" * 1600]
    pairs = []
    for m in masks:
        rgba = b"".join(colours[3 * i:3 * i + 3] + m[i:i + 1] for i in range(1600))
        pairs.append((png(40, 40, rgba, 6), png(40, 40, b"".join(colours[3 * i:3 * i + 3] if m[i] else b"\xff" * 3 for i in range(1600)), 2)))
    for m in masks[:2]:
        la = b"".join(bytes([grey[i], m[i]]) for i in range(1600))
        pairs.append((png(40, 40, la, 4), png(40, 40, b"".join(grey[i:i + 1] * 3 if m[i] else b"\xff" * 3 for i in range(1600)), 2)))
    twins(pairs)(server)


# ---- sizes ----

def test_data_url_of_133_megabytes():
    """Refused by size without being read to the end, or, where the limit allows it, answered like any other; the memory comes back."""
    small = base64.b64encode((ROOT / "tests" / "e2e" / "pictures" / "easy-vqa-1044.png").read_bytes())
    with Server(MODEL, "--max-body-size", "256M") as big, Server(MODEL) as usual:
        def body(data):
            return b'{"max_tokens":2,"messages":[{"role":"user","content":[{"type":"image_url","image_url":{"url":"data:image/png;base64,' + data + b'"}}]}]}'
        long = body(b"A" * 133_000_000)
        before = rss(big)
        for _ in range(2):
            r = big.post("/v1/chat/completions", long)
            assert r.status == 400 and r.error()["param"].startswith("messages[0].content[0].image_url"), r.body
        # A small picture with a hundred megabytes of nothing behind its end.
        padded = body(base64.b64encode(base64.b64decode(small) + bytes(100_000_000)))
        assert big.post("/v1/chat/completions", padded).status in (200, 400)
        assert big.chat("hello", max_tokens=2).status == 200
        if not sanitized(big):
            assert rss(big) - before < 300 << 20
        t0 = time.time()
        r = usual.post("/v1/chat/completions", long)
        assert r.status == 413 and r.error()["code"] == "body_too_large" and time.time() - t0 < 20


@pytest.mark.parametrize("where", ["messages", "content", "metadata", "tools", "logit_bias", "unknown"])
def test_deep_json(fake, where):
    """In every place where anything may stand: a refusal, or an answer where the field is free; the stack holds."""
    for deep in (b"[" * 200_000 + b"]" * 200_000, b'{"a":' * 200_000 + b"1" + b"}" * 200_000, b'[{"a":' * 100_000):
        value = {"messages": b'{"messages":%s}', "content": b'{"messages":[{"role":"user","content":%s}]}'}.get(
            where, b'{"messages":[{"role":"user","content":"tokens=1"}],"' + where.encode() + b'":%s}') % deep
        r = fake.request("POST", "/v1/chat/completions", value)
        assert r.status == 400 and r.error()["message"], where
    assert fake.chat("tokens=1").status == 200


# ---- UTF-8 ----

@pytest.mark.parametrize("bad", [b"\x80", b"\xc0\xaf", b"\xe2\x82", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xf8\x88\x80\x80\x80", b"\xff", b"\\udc00", b"\\ud83dx"])
def test_invalid_utf8_in(server, bad):
    for body in (b'{"messages":[{"role":"user","content":"a%sb"}]}' % bad, b'{"messages":[{"role":"user","content":"hi"}],"stop":"%s"}' % bad,
                 b'{"model":"%s","messages":[{"role":"user","content":"hi"}]}' % bad, b'{"prompt":"%s"}' % bad, b'{"%s":1}' % bad):
        path = "/tokenize" if body.startswith(b'{"prompt') else "/v1/chat/completions"
        r = server.request("POST", path, body)
        assert r.status == 400, r.body
        r.body.decode("utf-8")
        assert r.error()["message"]


def test_invalid_utf8_in_the_head(server):
    for line in (b"GET /v1/models/\xff\xfe HTTP/1.1\r\nHost: x", b"GET /v1/models/%ff%fe HTTP/1.1\r\nHost: x", b"GET /health HTTP/1.1\r\nHost: x\r\nX-Request-Id: \xff\xc3"):
        out = server.raw(line + b"\r\nConnection: close\r\n\r\n")
        head, _, body = out.partition(b"\r\n\r\n")
        assert out == b"" or out[9:12] in (b"200", b"400", b"404")
        body.decode("utf-8")
        assert b"\xff" not in head


def test_invalid_utf8_out(server):
    """Tokens that are parts of characters, in any order: every reply and every chunk is UTF-8, and both ways say the same."""
    parts = []
    for i in range(5, 2048):
        if len(parts) == 6:
            break
        if "\ufffd" in server.post("/detokenize", {"tokens": [i]}).json()["prompt"]:
            parts.append(i)
    if not parts:
        pytest.skip("this vocabulary has whole characters only")
    for seed in range(6):
        fields = {"logit_bias": {str(i): 90 for i in parts}, "temperature": 2, "seed": seed, "max_tokens": 40, "ignore_eos": True, "logprobs": True, "top_logprobs": 3}
        r = server.chat("hello", **fields)
        text = r.json()["choices"][0]["message"]["content"]  # json.loads decodes strictly
        assert r.status == 200 and "\ufffd" in text
        assert text_of(server.stream("hello", **fields)) == text


# ---- HTTP ----

@pytest.mark.tsan
def test_chunked_body_without_end(make_fake):
    s = make_fake("--max-body-size", "100k", "--body-timeout", "1")
    head = b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    # Nothing more comes.
    rests = (b"", b"5\r\n{\"a\":", b"5\r\n{\"a\":\r\n", b"5\r\n{\"", b"5", b"5\r\n{\"a\":\r\n0\r\n")
    open_, t0 = [], time.time()
    for rest in rests:
        open_.append(socket.create_connection(("127.0.0.1", s.port), timeout=60))
        open_[-1].sendall(head + rest)
    for rest, c in zip(rests, open_):
        with c:
            out = c.recv(65536)
        assert (out == b"" or out[9:12] == b"408") and time.time() - t0 < 20, (rest, out)
    # More comes for ever: the size ends it.
    with socket.create_connection(("127.0.0.1", s.port), timeout=60) as c:
        c.sendall(head)
        out, sent = b"", 0
        try:
            while sent < 300_000_000:
                c.sendall(b"8000\r\n" + b" " * 0x8000 + b"\r\n")
                sent += 0x8000
        except OSError:
            pass
        try:
            out = c.recv(65536)
        except OSError:
            pass
    assert sent < 300_000_000 and (out == b"" or out[9:12] == b"413"), (sent, out)
    assert s.get("/health").status == 200
    s.wait_idle()


@pytest.mark.parametrize("head", [b"Transfer-Encoding : chunked", b"Transfer-Encoding: xchunked", b"Transfer-Encoding: chunked, identity",
                                  b"Transfer-Encoding:\x0bchunked", b"Content-Length: 5, 5", b"Content-Length: 5\r\n Transfer-Encoding: chunked",
                                  b"Content-Length : 5", b"X: y\nTransfer-Encoding: chunked", b"Transfer-Encoding: chunked\r\nContent-Length: 0"])
def test_smuggling_by_spelling(fake, head):
    """A second request never comes out of the body of the first, whatever a proxy before us would make of the head."""
    hidden = b"0\r\n\r\nGET /version HTTP/1.1\r\nHost: x\r\n\r\n"
    out = fake.raw(b"POST /tokenize HTTP/1.1\r\nHost: x\r\n" + head + b"\r\nConnection: close\r\n\r\n" + hidden)
    assert b'"version"' not in out, out
    assert out.count(b"HTTP/1.1 200") == 0 or out.count(b"HTTP/1.1 ") == 1, out
    assert fake.get("/health").status == 200


@pytest.mark.parametrize("size", [b"ffffffffffffffff", b"10000000000000000", b"-1", b"0x5", b"5 5", b"", b"g"])
def test_chunk_sizes_that_lie(make_fake, size):
    s = make_fake("--body-timeout", "1")
    out = s.raw(b"POST /tokenize HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n" + size + b"\r\n{}\r\n0\r\n\r\n")
    assert out == b"" or out[9:10] == b"4", out
    assert s.get("/health").status == 200


def test_key_in_wrong_case(make_fake):
    """The key is compared as it is; the header's name has no case. Fields of a request do have one."""
    s = make_fake("--api-key", "Secret-One")
    for key in ("secret-one", "SECRET-ONE", "Secret-one", "secret-One"):
        assert s.get("/v1/models", headers={"Authorization": "Bearer " + key}).status == 401
    for name in ("authorization", "AUTHORIZATION", "AuThOrIzAtIoN"):
        out = s.raw(b"GET /v1/models HTTP/1.1\r\nHost: x\r\nConnection: close\r\n%s: Bearer Secret-One\r\n\r\n" % name.encode())
        assert out[9:12] == b"200", out
    key = {"Authorization": "Bearer Secret-One"}
    r = s.post("/v1/chat/completions", {"Messages": [{"role": "user", "content": "tokens=1"}]}, headers=key)
    assert r.status == 400 and r.error()["param"] == "messages"
    r = s.post("/v1/chat/completions", {"messages": [{"Role": "user", "content": "tokens=1"}]}, headers=key)
    assert r.status == 400 and r.error()["param"].startswith("messages[0]")


def test_thousands_of_idle_connections(make_fake):
    """As many as the limit of descriptors lets one process open, some of them in the middle of a request: others are served."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    want = min(hard if hard != resource.RLIM_INFINITY else 6000, 6000)
    resource.setrlimit(resource.RLIMIT_NOFILE, (want, hard))  # the server inherits it
    idle = []
    try:
        n = min(5000, want - 500)
        s = make_fake("--max-connections", n + 200, "--headers-timeout", "60")
        for i in range(n):
            c = socket.create_connection(("127.0.0.1", s.port), timeout=60)
            if i % 3 == 0:
                c.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 50\r\n\r\n{" if i % 2 else b"GET /hea")
            idle.append(c)
        t0 = time.time()
        for _ in range(5):
            assert s.chat("tokens=2").status == 200
        with Stream(s, {"messages": [{"role": "user", "content": "tokens=2"}], "stream": True}) as st:
            assert list(st.events())[-1] == "[DONE]"
        assert s.get("/metrics").status == 200 and time.time() - t0 < 20
        for c in idle:
            c.close()
        idle = []
        end = time.time() + 60
        while len(list(pathlib.Path(f"/proc/{s.proc.pid}/fd").iterdir())) > 100:
            assert time.time() < end
            time.sleep(0.1)
        assert s.chat("tokens=2").status == 200
    finally:
        for c in idle:
            c.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_broken_request_takes_no_other_down(server):
    """While every kind of broken picture arrives, answers about good ones are what they are alone."""
    good = [image_part(picture("easy-vqa-1044.png")), text_part(ASK)]

    def ask():
        r = server.chat(good, temperature=0, max_tokens=8)
        return r.status, r.json()["choices"][0]["message"]["content"]

    alone = ask()
    bad = [p.read_bytes() for p in sorted(GOLDEN.glob("bad_*"))]
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        refused = [pool.submit(lambda b=b: server.chat([image_part(url(b)), text_part(ASK)], max_tokens=2).status) for b in bad]
        kept = [pool.submit(ask) for _ in range(12)]
        assert all(f.result() == alone for f in kept)
        assert all(f.result() in (400, 413) for f in refused), [(p.name, f.result()) for p, f in zip(sorted(GOLDEN.glob("bad_*")), refused)]
    assert alone[0] == 200
