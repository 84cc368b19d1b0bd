"""The whole path with the bundled model: what must agree with itself whatever the words are."""
import base64
import json
import socket
import struct
import threading
import time
import zlib

import pytest
from conftest import Stream, finishes, image_part, picture, text_of, text_part

ASK = "What is in the image?"
GREEDY = {"temperature": 0, "max_tokens": 24}


def shape(i=0):
    return picture(["easy-vqa-1044.png", "easy-vqa-550.png", "easy-vqa-3128.png", "twemoji-1f436.png"][i % 4])


def content(r):
    assert r.status == 200, r.body
    return r.json()["choices"][0]["message"]["content"]


def png(width, height, lines=None):
    """A grey picture; `lines` replaces the true pixel data."""
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    data = zlib.compress(lines if lines is not None else (b"\0" + b"\x80" * width) * height)
    return (b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)) + chunk(b"IDAT", data) +
            chunk(b"IEND", b""))


def url(data):
    return "data:image/png;base64," + base64.b64encode(data).decode()


@pytest.mark.tsan
def test_stream_equals_reply(server):
    for fields in ({}, {"seed": 5, "temperature": 1.0}, {"max_tokens": 3}, {"stop": ["e"]}, {"stop": [" a", "zzz"]}, {"ignore_eos": True}):
        f = {**GREEDY, **fields}
        r = server.chat([image_part(shape()), text_part(ASK)], **f).json()
        events = server.stream([image_part(shape()), text_part(ASK)], stream_options={"include_usage": True}, **f)
        assert text_of(events) == r["choices"][0]["message"]["content"], fields
        assert finishes(events) == [r["choices"][0]["finish_reason"]]
        for usage in (events[-2]["usage"], r["usage"]):
            usage.pop("prompt_tokens_details")  # the second finds what the first computed
        assert events[-2]["usage"] == r["usage"]


def test_lengths_and_finish(server):
    r = server.chat(ASK, temperature=0, max_tokens=5, ignore_eos=True).json()
    assert r["usage"]["completion_tokens"] == 5 and r["choices"][0]["finish_reason"] == "length"
    r = server.chat(ASK, temperature=0, max_tokens=30, min_tokens=20).json()
    assert r["usage"]["completion_tokens"] >= 20


def test_seeds(server):
    """The same seed, the same text, alone or in company; other seeds differ somewhere."""
    ask = {"temperature": 1.5, "max_tokens": 20, "ignore_eos": True}
    alone = [content(server.chat(ASK, seed=i, **ask)) for i in range(6)]
    assert len(set(alone)) > 1
    together = [None] * 6
    threads = [threading.Thread(target=lambda i=i: together.__setitem__(i, content(server.chat(ASK, seed=i, **ask)))) for i in range(6)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert together == alone


def test_stop_strings(server):
    full = content(server.chat([image_part(shape()), text_part(ASK)], **GREEDY))
    assert len(full) > 5
    for at in range(1, len(full) - 2):
        stop = full[at:at + 3]
        r = server.chat([image_part(shape()), text_part(ASK)], stop=stop, **GREEDY).json()
        assert r["choices"][0]["message"]["content"] == full[:full.index(stop)]
        assert r["choices"][0]["finish_reason"] == "stop"


def test_logprobs(server):
    r = server.chat([image_part(shape()), text_part(ASK)], logprobs=True, top_logprobs=5, return_token_ids=True, **GREEDY).json()
    c = r["choices"][0]
    entries = c["logprobs"]["content"]
    assert len(entries) == len(c["token_ids"]) == r["usage"]["completion_tokens"]
    assert len(r["prompt_token_ids"]) == r["usage"]["prompt_tokens"] and r["prompt_token_ids"].count(4) == 36
    joined = b"".join(bytes(e["bytes"]) for e in entries).decode("utf-8", "replace")
    assert joined.lstrip().startswith(c["message"]["content"].strip())
    for e in entries:
        assert len(e["top_logprobs"]) == 5 and e["logprob"] <= 0
        values = [t["logprob"] for t in e["top_logprobs"]]
        assert values == sorted(values, reverse=True) and values[0] == e["logprob"]
        assert e["token"] == e["top_logprobs"][0]["token"]
    # The end is named, and adds nothing to the text.
    assert c["finish_reason"] != "stop" or (entries[-1]["token"], entries[-1]["bytes"]) == ("</s>", [])
    assert all(e["token"] for e in entries)
    events = server.stream([image_part(shape()), text_part(ASK)], logprobs=True, top_logprobs=5, return_token_ids=True, **GREEDY)
    got = [e for ev in events[:-1] for ch in ev["choices"] if ch["logprobs"] for e in ch["logprobs"]["content"]]
    assert got == entries
    assert [i for ev in events[:-1] for ch in ev["choices"] for i in ch.get("token_ids") or []] == c["token_ids"]


def test_logit_bias_and_stop_ids(server):
    r = server.chat("hello", logit_bias={"300": 100}, return_token_ids=True, temperature=0, max_tokens=4).json()
    assert r["choices"][0]["token_ids"] == [300] * 4
    r = server.chat("hello", logit_bias={"300": 100}, stop_token_ids=[300], return_token_ids=True, temperature=0, max_tokens=4).json()
    assert r["choices"][0]["finish_reason"] == "stop" and r["usage"]["completion_tokens"] == 1


def test_tokenize_agrees(server):
    messages = [{"role": "user", "content": [image_part(shape()), text_part(ASK)]}]
    r = server.post("/v1/chat/completions", {"messages": messages, "return_token_ids": True, "max_tokens": 1}).json()
    t = server.post("/tokenize", {"messages": messages}).json()
    assert t["tokens"] == r["prompt_token_ids"] and t["count"] == r["usage"]["prompt_tokens"]
    for text in ("Hello world", "h\u00e9 \U0001F600 \u4e2d\u6587", "  spaces  ", ""):
        t = server.post("/tokenize", {"prompt": text, "add_special_tokens": False, "return_token_strs": True}).json()
        assert len(t["token_strs"]) == t["count"]
        assert server.post("/detokenize", {"tokens": t["tokens"]}).json()["prompt"] == text


def test_special_tokens_typed_by_users(server):
    plain = server.post("/tokenize", {"messages": [{"role": "user", "content": "x"}]}).json()["tokens"]
    for text in ("<image>", "</s>", "<s>", "a<image>b</s>"):
        ids = server.post("/tokenize", {"messages": [{"role": "user", "content": text}]}).json()["tokens"]
        assert ids.count(4) == plain.count(4) and ids.count(2) == plain.count(2) and ids.count(1) == plain.count(1)
        assert server.chat(text, max_tokens=2).status == 200


def test_prompt_too_long(server):
    r = server.chat("word " * 5000)
    assert r.status == 400 and "2048" in r.error()["message"]
    r = server.chat([image_part(shape())] * 60 + [text_part("x")])
    assert r.status == 400 and "2048" in r.error()["message"]
    r = server.chat("hi", max_completion_tokens=100000)
    assert r.status == 400 and r.error()["param"] == "max_completion_tokens"


@pytest.mark.parametrize("data", [b"x", b"hello world, this is no picture", b"\x89PNG\r\n\x1a\n", b"GIF89a", b"\xff\xd8\xff\xe0", b"RIFF0000WEBP",
                                  png(8, 8)[:-30], png(0, 5), png(100000, 100000, b"\0"), png(50, 50, b"\0" * 20)],
                         ids=["byte", "text", "png-head", "gif-head", "jpeg-head", "webp-head", "cut", "empty", "bomb", "lying"])
def test_broken_pictures(server, data):
    r = server.chat([image_part(shape()), text_part(ASK), image_part(url(data))])
    assert r.status == 400, r.body
    e = r.error()
    assert e["param"].startswith("messages[0].content[2].image_url") and e["message"].startswith(e["param"] + ": ")
    assert "\x00" not in e["message"]
    # Streamed, it is refused before or after the 200.
    with Stream(server, {"messages": [{"role": "user", "content": [image_part(url(data))]}], "stream": True}) as s:
        assert s.status == 400 or "error" in list(s.events())[-2]
    assert server.chat("hi", max_tokens=1).status == 200


@pytest.mark.parametrize("b64", ["!!!!", "QUJD=QUJD", "Q", "data:", "%%%"])
def test_bad_base64(server, b64):
    r = server.chat([image_part("data:image/png;base64," + b64)])
    assert r.status == 400 and r.error()["param"] == "messages[0].content[0].image_url.url"


@pytest.mark.parametrize("size", [(1, 1), (20000, 1), (1, 20000), (3000, 2000)])
def test_odd_sizes(server, size):
    r = server.chat([image_part(url(png(*size))), text_part(ASK)], max_tokens=2)
    assert r.status in (200, 400), r.body
    if r.status == 400:
        assert r.error()["param"].startswith("messages[0].content[0]")


@pytest.mark.tsan
def test_leaving(server):
    """Hang-ups while waiting and while streaming free the sequence at once."""
    for stream in (False, True):
        body = json.dumps({"messages": [{"role": "user", "content": [image_part(shape()), text_part(ASK)]}], "stream": stream,
                           "ignore_eos": True, "max_tokens": 1900}).encode()
        socks = []
        for _ in range(8):
            s = socket.create_connection(("127.0.0.1", server.port), timeout=60)
            s.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
            socks.append(s)
        end = time.time() + 60
        while server.metric("num_requests_running") + server.metric("num_requests_waiting") < 8:
            assert time.time() < end
        for s in socks:
            s.close()
        t0 = time.time()
        server.wait_idle()
        assert time.time() - t0 < 10
        assert server.metric("kv_cache_usage_perc") < 0.01


@pytest.mark.tsan
def test_many_clients(server):
    """Mixed texts and pictures at once; each answer is what it is alone."""
    cases = [([image_part(shape(i)), text_part(ASK)] if i % 3 else f"What is {i}?") for i in range(12)]
    alone = [content(server.chat(c, **GREEDY)) for c in cases]
    wrong = []

    def client(k):
        for i in range(len(cases)):
            j = (i * 5 + k) % len(cases)
            got = text_of(server.stream(cases[j], **GREEDY)) if k % 2 else content(server.chat(cases[j], **GREEDY))
            if got != alone[j]:
                wrong.append((j, got, alone[j]))
    threads = [threading.Thread(target=client, args=(k,)) for k in range(8)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not wrong
    server.wait_idle()
