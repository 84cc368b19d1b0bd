"""What a full server says, at every bound: 429 with Retry-After for what does not fit now, 400 or 413 for what never will, and that
every account is back at its start when the requests are over, however they ended."""
import base64
import concurrent.futures
import json
import pathlib
import re
import socket
import struct
import subprocess
import threading
import time
import zlib

import pytest
from conftest import MODEL, PATIENCE, VLMD, Server, Stream, image_part, text_part

CHAT = "/v1/chat/completions"
LONG = {"max_tokens": 1500, "ignore_eos": True, "stream": True}


def png(width, height, seed=0):
    """Cheap noise: every picture another."""
    row = bytes((x * 7 + seed * 31) % 256 for x in range(width * 3))
    raw = b"".join(b"\0" + row[y % 64:] + row[:y % 64] for y in range(height))

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    data = (b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)) + chunk(b"IDAT", zlib.compress(raw, 1)) +
            chunk(b"IEND", b""))
    return "data:image/png;base64," + base64.b64encode(data).decode()


def wait_metric(server, name, value, **labels):
    end = time.time() + PATIENCE
    while server.metric(name, **labels) != value:
        assert time.time() < end, (name, value, server.metric(name, **labels))
        time.sleep(0.02)


def wait_nothing_held(server):
    server.wait_idle()
    for name in ("num_requests_queued", "queued_prompt_tokens", "request_memory_used_bytes", "image_pixels_in_flight"):
        wait_metric(server, name, 0)
    wait_metric(server, "image_memory_used_bytes", server.metric("image_cache_bytes"))


def is_busy(reply, seconds=range(1, 601)):
    assert reply.status == 429, reply.body
    assert int(reply.headers["Retry-After"]) in seconds
    e = reply.error()
    assert e["type"] == "rate_limit_error" and e["code"] == "rate_limit_exceeded" and e["param"] is None
    return True


def peak(server):
    return int(re.search(r"VmHWM:\s+(\d+)", pathlib.Path(f"/proc/{server.proc.pid}/status").read_text()).group(1)) << 10


def sanitized(server):
    return re.search("lib[at]san", pathlib.Path(f"/proc/{server.proc.pid}/maps").read_text())


# ---- the queue ----

@pytest.mark.tsan
def test_queue_of_requests(make_fake):
    s = make_fake("--max-queued-requests", "3")
    waiting = [Stream(s, {"messages": [{"role": "user", "content": "queue_ms=600000 tokens=1"}], "stream": True}) for _ in range(3)]
    assert s.metric("num_requests_queued") == 3 and s.metric("num_requests_waiting") == 3
    before = s.metric("request_refusals_total", reason="busy")
    for stream in (False, True):
        is_busy(s.chat("tokens=1", stream=stream), [7])
    # Who asks first learns it before the body; a large body is read and dropped; nothing else is refused.
    head = b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nConnection: close\r\nContent-Length: 1000000\r\n\r\n"
    assert s.raw(head).startswith(b"HTTP/1.1 429")
    is_busy(s.post(CHAT, b"x" * 20_000_000), [7])
    assert s.get("/v1/models").status == 200 and s.post("/tokenize", {"prompt": "a"}).status == 200
    wait_metric(s, "request_refusals_total", before + 4, reason="busy")
    assert "refused=busy" in s.text()
    # One leaves: there is room for one.
    waiting.pop().close()
    wait_metric(s, "num_requests_queued", 2)
    assert s.chat("tokens=1").status == 200
    for w in waiting:
        w.close()
    wait_nothing_held(s)
    assert s.chat("tokens=1").status == 200


@pytest.mark.tsan
def test_queue_of_tokens(make_fake):
    s = make_fake("--max-queued-tokens", "100")
    with Stream(s, {"messages": [{"role": "user", "content": "queue_ms=600000 " + "x" * 200}], "stream": True}) as alone:
        assert alone.status == 200  # the bound is on what waits together
        is_busy(s.chat("tokens=1"))
    wait_nothing_held(s)
    with Stream(s, {"messages": [{"role": "user", "content": "queue_ms=600000 " + "x" * 40}], "stream": True}):
        is_busy(s.chat("tokens=1 " + "x" * 60))
        assert s.chat("tokens=1").status == 200
    wait_nothing_held(s)


def test_queue_of_the_engine():
    """One runs, two wait, the fourth is refused; then they run one after the other."""
    with Server(MODEL, "--max-num-seqs", "1", "--max-queued-requests", "2") as s:
        with Stream(s, {"messages": [{"role": "user", "content": "Hello"}], **LONG}) as first:
            next(first.events())
            wait_metric(s, "num_requests_running", 1)
            wait_metric(s, "num_requests_queued", 0)
            waiting = [Stream(s, {"messages": [{"role": "user", "content": "Hello"}], "stream": True, "max_tokens": 4}) for _ in range(2)]
            assert s.metric("num_requests_queued") == 2 and s.metric("queued_prompt_tokens") > 2
            is_busy(s.chat("Hello", max_tokens=4))
            assert s.metric("num_requests_running") == 1, "the first was over too soon for this test"
        for w in waiting:
            assert list(w.events())[-1] == "[DONE]"
            w.close()
        wait_nothing_held(s)
        assert s.chat("Hello", max_tokens=4).status == 200


def test_full_under_load():
    """Many more than fit, with and without pictures, some of whom leave: each is answered or refused, none hangs, and all is given back."""
    with Server(MODEL, "--max-num-seqs", "2", "--max-queued-requests", "4", "--image-memory", "4M", "--image-cache-memory", "1M") as s:
        def one(i):
            content = "Hello" if i % 3 else [image_part(png(60, 40, i)), text_part("What?")]
            if i % 5 == 0:
                with Stream(s, {"messages": [{"role": "user", "content": content}], **LONG}) as st:
                    return st.status
            r = s.chat(content, max_tokens=30)
            return r.status if r.status == 200 else is_busy(r) and 429
        with concurrent.futures.ThreadPoolExecutor(32) as pool:
            got = list(pool.map(one, range(200)))
        assert set(got) <= {200, 429} and 200 in got and 429 in got, got
        wait_nothing_held(s)
        assert s.metric("request_refusals_total", reason="busy") >= got.count(429)
        assert s.chat("Hello", max_tokens=4).status == 200


# ---- pictures ----

def test_picture_that_never_fits():
    with Server(MODEL, "--image-memory", "32M", "--image-cache-memory", "1M") as s:
        big = png(4000, 3000)
        r = s.chat([image_part(), image_part(big), text_part("What?")])
        assert r.status == 400 and "--image-memory" in r.error()["message"] and str(32 << 20) in r.error()["message"]
        assert r.error()["param"] == "messages[0].content[1].image_url.url"
        wait_metric(s, "request_refusals_total", 1, reason="bad_image")  # counted when the reply is sent
        assert s.chat([image_part(), text_part("What?")], max_tokens=2).status == 200
        wait_nothing_held(s)


def test_pictures_that_do_not_fit_now():
    """While a long answer keeps the rows of its pictures, others find less room; cached rows give way to them."""
    with Server(MODEL, "--image-memory", "4M", "--image-cache-memory", "4M") as s:
        for i in range(80):  # more than the room holds, one after the other: old rows give way, nobody is refused
            assert s.chat([image_part(png(40, 40, i)), text_part("What?")], max_tokens=1).status == 200
            assert s.metric("image_memory_used_bytes") <= 4 << 20
        assert s.metric("image_cache_bytes") > 0
        wait_nothing_held(s)
        streams, busy = [], 0
        for i in range(12):
            many = [image_part(png(40, 40, 100 + 12 * i + k)) for k in range(12)]
            st = Stream(s, {"messages": [{"role": "user", "content": [*many, text_part("What?")]}], **LONG})
            busy += st.status == 429
            assert st.status in (200, 429)
            streams.append(st)
            assert s.metric("image_memory_used_bytes") <= 4 << 20
        assert 0 < busy < 12
        for st in streams:
            st.close()
        wait_nothing_held(s)
        assert s.chat([image_part(png(40, 40, 1)), text_part("What?")], max_tokens=1).status == 200


@pytest.mark.tsan
def test_pictures_all_at_once():
    """More decodes than the room takes, of the same and of different pictures, good and broken, and clients that leave."""
    with Server(MODEL, "--image-memory", "24M", "--image-cache-memory", "1M") as s:
        pictures = [png(900, 700, i) for i in range(3)]
        broken = pictures[0][:len(pictures[0]) // 2]

        def one(i):
            content = [image_part(broken if i % 7 == 3 else pictures[i % 3]), text_part("What?")]
            if i % 5 == 2:
                with Stream(s, {"messages": [{"role": "user", "content": content}], **LONG}) as st:
                    return 0 if st.status == 200 else st.status
            return s.chat(content, max_tokens=2).status
        with concurrent.futures.ThreadPoolExecutor(16) as pool:
            got = list(pool.map(one, range(64)))
        assert set(got) <= {0, 200, 400, 429} and 200 in got, got
        wait_nothing_held(s)
        assert s.metric("image_memory_used_bytes") <= 1 << 20


# ---- bodies ----

@pytest.mark.tsan
def test_bodies_together(make_fake):
    s = make_fake("--max-body-size", "1M", "--request-memory", "1M")
    body = json.dumps({"messages": [{"role": "user", "content": "tokens=1"}], "user": "x" * 400_000}).encode()

    def begin(n):
        c = socket.create_connection(("127.0.0.1", s.port), timeout=60)
        c.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(body) + body[:n])
        return c
    # A promise takes nothing: many slow writers of a few bytes do not keep others out.
    slow = [begin(100) for _ in range(20)]
    assert s.post(CHAT, body).status == 200
    for c in slow:
        c.close()
    wait_metric(s, "request_memory_used_bytes", 0)
    # What has come takes room.
    held = [begin(390_000) for _ in range(2)]
    wait_metric(s, "request_memory_used_bytes", 780_000)
    is_busy(s.post(CHAT, body))
    assert s.chat("tokens=1").status == 200
    # Refused in the middle, a body is still read to its end.
    assert s.metric("request_memory_used_bytes") == 780_000
    for c in held:
        c.sendall(body[390_000:])
        assert c.recv(100).startswith(b"HTTP/1.1 200")
        c.close()
    wait_nothing_held(s)
    assert s.post(CHAT, body).status == 200


@pytest.mark.tsan
def test_body_is_kept_while_its_pictures_wait(make_fake):
    s = make_fake()
    with Stream(s, {"messages": [{"role": "user", "content": "input_ms=1500 tokens=1"}], "user": "x" * 1000, "stream": True}) as st:
        assert s.metric("request_memory_used_bytes") > 1000
        assert list(st.events())[-1] == "[DONE]"
    wait_nothing_held(s)


def test_text_that_no_prompt_could_be():
    """Forty megabytes of text for a model that takes 2,048 tokens: refused before anything that takes a multiple of it."""
    with Server(MODEL, "--max-body-size", "64M") as s:
        s.chat("hello", max_tokens=1)
        before = peak(s)
        text = "word " * 8_000_000
        for path, body in ((CHAT, {"messages": [{"role": "user", "content": text}]}), ("/tokenize", {"prompt": text}),
                           (CHAT, {"messages": [{"role": "user", "content": "hi"}], "metadata": [text]})):
            r = s.post(path, body)
            assert r.status == 400 and str(1 << 20) in r.error()["message"], r.body
            assert re.search(r"40\d{6} bytes", r.error()["message"])
        if not sanitized(s):
            assert peak(s) - before < 80 << 20
        # Just below the bound the model's own says no; pictures do not count.
        r = s.post(CHAT, {"messages": [{"role": "user", "content": "word " * 200_000}]})
        assert r.status == 400 and "maximum context length" in r.error()["message"]
        assert s.post(CHAT, {"messages": [{"role": "user", "content": [image_part("data:image/png;base64," + "A" * 5_000_000)]}]}).status == 400
        r = s.post(CHAT, {"messages": [{"role": "user", "content": "hi"}], "user": "x" * 1_000_000, "max_tokens": 1})
        assert r.status == 200
        wait_nothing_held(s)


# ---- priority ----

def test_priority_is_refused_where_nobody_minds_it(server, fake):
    for s, text in ((server, "hello"), (fake, "tokens=1")):
        assert s.chat(text, priority=0, max_tokens=1).status == 200
        r = s.chat(text, priority=1, max_tokens=1)
        assert r.status == 400 and r.error()["param"] == "priority"
        r = s.chat(text, priority="high")
        assert r.status == 400 and r.error()["param"] == "priority"
        assert s.chat(text, priority=1 << 40).status == 400


def test_priority_goes_first():
    with Server(MODEL, "--max-num-seqs", "1", "--scheduling-policy", "priority") as s:
        done, lock = [], threading.Lock()

        def ask(priority, name):
            r = s.chat("Hello", max_tokens=400, ignore_eos=True, priority=priority)  # long enough to arrive before the next
            assert r.status == 200, r.body
            with lock:
                done.append(name)
        with Stream(s, {"messages": [{"role": "user", "content": "Hello"}], **LONG}) as first:
            next(first.events())
            wait_metric(s, "num_requests_running", 1)
            threads = []
            for n, (priority, name) in enumerate([(0, "b1"), (5, "c1"), (-3, "a1"), (0, "b2"), (-3, "a2"), (5, "c2")], 1):
                threads.append(threading.Thread(target=ask, args=(priority, name)))
                threads[-1].start()
                wait_metric(s, "num_requests_queued", n)
        for t in threads:
            t.join()
        # Replies of neighbours may overtake one another on their way here.
        assert [n[0] for n in done] == ["a", "a", "b", "b", "c", "c"], done
        wait_nothing_held(s)


# ---- the plan ----

def test_start_message_states_the_plan():
    with Server(MODEL, "--image-memory", "300M", "--image-cache-memory", "100M", "--request-memory", "200M") as s:
        end = time.time() + 10
        while "together" not in s.text() and time.time() < end:
            time.sleep(0.05)
        m = re.search(r"memory: ([\d.]+) MB weights, ([\d.]+) MB KV cache, ([\d.]+) MB activations, pictures up to 314.6 MB \(104.9 MB of them "
                      r"may be kept\), request bodies up to 209.7 MB; ([\d.]+) MB together", s.text())
        assert m, s.text()
        names = ("weight_bytes", "kv_cache_bytes", "activation_bytes", "image_memory_bytes", "request_memory_bytes")
        assert abs(sum(s.metric(n) for n in names) / 1e6 - float(m[4])) < 1
        for i, name in enumerate(names[:3], 1):
            assert abs(s.metric(name) / 1e6 - float(m[i])) < 0.1


@pytest.mark.parametrize("args,says", [(["--image-memory", "1M", "--image-cache-memory", "2M"], "--image-memory"),
                                       (["--request-memory", "1M", "--max-body-size", "2M"], "--request-memory"),
                                       (["--scheduling-policy", "lifo"], "fcfs or priority"), (["--max-queued-requests", "0"], "max-queued-requests")])
def test_plans_that_make_no_sense(args, says):
    r = subprocess.run([str(VLMD), "serve", "--port", "0", *args, str(MODEL)], capture_output=True, text=True, timeout=PATIENCE)
    assert r.returncode == 2 and says in r.stderr, r.stderr
