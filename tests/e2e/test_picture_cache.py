"""The picture cache of the running program: who shares an encode, who must not, and that nobody can tell from an answer."""
import base64
import random
import struct
import threading
import zlib

import pytest
from conftest import Server, image_part, picture, text_part

ASK = "What is in the image?"
GREEDY = {"temperature": 0, "max_tokens": 8, "logprobs": True, "top_logprobs": 3}


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width, height, raw, color=2, extra=b""):
    stride = len(raw) // height
    lines = b"".join(b"\0" + raw[i * stride:(i + 1) * stride] for i in range(height))
    return (b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, color, 0, 0, 0)) + extra +
            chunk(b"IDAT", zlib.compress(lines)) + chunk(b"IEND", b""))


def palette(*colors):
    return chunk(b"PLTE", b"".join(bytes(c) for c in colors))


def url(data):
    return "data:image/png;base64," + base64.b64encode(data).decode()


def noise(n, seed):
    return random.Random(seed).randbytes(n)


def answer(server, *urls):
    r = server.chat([*map(image_part, urls), text_part(ASK)], **GREEDY)
    assert r.status == 200, r.body
    c = r.json()["choices"][0]
    return c["message"]["content"], c["logprobs"]


def counters(server):
    names = ["mm_cache_queries_total", "mm_cache_hits_total", "images_total", "image_decodes_total"]
    return [server.metric(n) for n in names]


@pytest.fixture(scope="module")
def off():
    with Server("--image-cache-memory", "0", "--no-prefix-caching") as s:
        yield s


@pytest.mark.tsan
def test_one_new_picture_at_once(off):
    with Server() as server:
        for n, file in enumerate([png(300, 200, noise(180000, 1)), png(20, 10, noise(600, 2))], 1):
            got = [None] * 8
            threads = [threading.Thread(target=lambda i=i: got.__setitem__(i, answer(server, url(file)))) for i in range(8)]
            for t in threads:
                t.start()
            for t in threads:
                t.join()
            assert got == [answer(off, url(file))] * 8
            assert counters(server) == [8 * n, 7 * n, n, n]
    assert counters(off)[:2] == [0, 0]


def test_content_behind_other_bytes(server, off):
    raw = noise(40 * 30 * 3, 3)
    before = counters(server)
    answers = [answer(server, url(png(40, 30, raw, extra=chunk(b"tEXt", b"n\0" + n)))) for n in (b"1", b"2", b"3", b"3")]
    assert answers == [answer(off, url(png(40, 30, raw)))] * 4
    assert [b - a for a, b in zip(before, counters(server))] == [4, 3, 1, 3]


def test_what_must_not_be_confused(server, off):
    """Equal bytes in another shape, another palette, another opacity, another order."""
    raw = noise(30 * 150 * 3, 4)
    grey = noise(64 * 64, 5)
    dots = bytes(i % 2 for i in range(64 * 64))
    files = [png(30, 150, raw), png(150, 30, raw), png(75, 60, raw),
             png(64, 64, grey, color=0), png(32, 64, grey, color=4), png(64, 64, bytes(reversed(grey)), color=0),
             png(64, 64, dots, color=3, extra=palette((0, 0, 0), (255, 0, 0))),
             png(64, 64, dots, color=3, extra=palette((255, 0, 0), (0, 0, 0))),
             png(64, 64, dots, color=3, extra=palette((0, 0, 255), (0, 255, 0)))]
    before = counters(server)
    for f in files + files:
        assert answer(server, url(f)) == answer(off, url(f))
    queries, hits, images, decodes = (b - a for a, b in zip(before, counters(server)))
    assert (queries, hits, images, decodes) == (2 * len(files), len(files), len(files), len(files))


def test_one_request_with_one_picture_twice(server, off):
    a, b = picture("twemoji-1f981.png"), picture("easy-vqa-3471.png")
    for urls in ((a, a), (a, b), (b, a, b)):
        assert answer(server, *urls) == answer(off, *urls)


def test_a_budget_for_hardly_one(off):
    with Server("--image-cache-memory", "1K", "--no-prefix-caching") as server:
        files = [url(png(9, 9, noise(243, i))) for i in range(4)]
        for f in files * 2:
            assert answer(server, f) == answer(off, f)
        server.wait_idle()
        assert server.metric("image_cache_bytes") <= 1024
        assert counters(server)[2] == 8
