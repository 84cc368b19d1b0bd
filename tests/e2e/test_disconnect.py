"""Clients that leave, read slowly or not at all: their sequence is freed, for them alone."""
import json
import socket
import threading
import time

import pytest
from conftest import Stream, image_part, text_part

pytestmark = pytest.mark.tsan


def send(server, content, stream):
    body = json.dumps({"messages": [{"role": "user", "content": content}], "stream": stream}).encode()
    s = socket.create_connection(("127.0.0.1", server.port), timeout=60)
    s.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
    return s


def wait_running(server, n):
    end = time.time() + 60
    while server.metric("num_requests_running") != n:
        assert time.time() < end
        time.sleep(0.02)


# Each would run for minutes.
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("script", ["tokens=10000 delay_ms=50", "tokens=1 first_ms=300000", "tokens=1 delay_ms=300000"])
def test_leaves(fake, stream, script):
    fake.wait_idle()
    aborted = fake.metric("request_success_total", finished_reason="abort")
    s = send(fake, script, stream)
    wait_running(fake, 1)
    if stream and "tokens=10000" in script:
        assert s.recv(100)
    t0 = time.time()
    s.close()
    fake.wait_idle()
    assert time.time() - t0 < 5
    if "delay_ms=300000" not in script:  # that one had made its only token
        assert fake.metric("request_success_total", finished_reason="abort") == aborted + 1


def test_reset(fake):
    """A hang-up by RST instead of FIN."""
    fake.wait_idle()
    s = send(fake, "tokens=10000 delay_ms=50", True)
    wait_running(fake, 1)
    s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")
    s.close()
    fake.wait_idle()


def test_only_the_one_that_left(fake):
    fake.wait_idle()
    result = []
    stay = threading.Thread(target=lambda: result.append(fake.chat("tokens=30 delay_ms=30")))
    stay.start()
    gone = [send(fake, "tokens=10000 delay_ms=20", i % 2 == 0) for i in range(10)]
    wait_running(fake, 11)
    for s in gone:
        s.close()
    stay.join()
    assert result[0].status == 200 and result[0].json()["usage"]["completion_tokens"] == 30
    fake.wait_idle()


def test_leaves_while_sending(fake):
    for cut in (10, 60, 120):
        body = json.dumps({"messages": [{"role": "user", "content": "tokens=1" + " " * 200}]}).encode()
        data = b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)
        s = socket.create_connection(("127.0.0.1", fake.port))
        s.sendall(data[:cut])
        s.close()
    assert fake.get("/health").status == 200
    fake.wait_idle()


def test_slow_reader(fake):
    """Reads a little, late; everything arrives."""
    with Stream(fake, {"messages": [{"role": "user", "content": "tokens=300 big=2000"}], "stream": True}) as s:
        got = 0
        for e in s.events():
            if e != "[DONE]" and e["choices"]:
                got += len(e["choices"][0]["delta"].get("content", ""))
                time.sleep(0.01)
    assert got == 600_000


def test_reader_that_does_not_read(fake):
    """The outbox is bounded: the sequence ends, and the client is told when it reads at last."""
    fake.wait_idle()
    body = json.dumps({"messages": [{"role": "user", "content": "tokens=100000 big=20000 delay_ms=1"}], "stream": True}).encode()
    s = socket.socket()
    s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    s.settimeout(60)
    s.connect(("127.0.0.1", fake.port))
    s.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
    wait_running(fake, 1)
    fake.wait_idle()
    data = b""
    while True:
        part = s.recv(1 << 20)
        if not part:
            break
        data += part
    s.close()
    assert b"reads too slowly" in data[-2000:] and b"[DONE]" in data[-200:]
    assert len(data) < 40_000_000


def test_hundreds_at_once(fake):
    fake.wait_idle()
    all_ = [send(fake, "tokens=10000 delay_ms=200", i % 2 == 0) for i in range(100)]
    wait_running(fake, 100)
    assert fake.get("/health").status == 200
    for s in all_:
        s.close()
    fake.wait_idle()


def scans(side, n):
    """A grey progressive JPEG of n scans in which nothing is coded: small, and slow to decode."""
    def segment(mark, data):
        return bytes([0xFF, mark]) + (len(data) + 2).to_bytes(2, "big") + data
    blocks = ((side + 7) // 8) ** 2
    out = b"\xff\xd8" + segment(0xDB, b"\0" + b"\1" * 64) + segment(0xC2, b"\x08" + side.to_bytes(2, "big") * 2 + b"\1\1\x11\0")
    out += segment(0xC4, b"\0\1" + bytes(15) + b"\0")  # DC: "0" is no difference
    out += segment(0xC4, b"\x10\0\2" + bytes(14) + b"\xe0\0")  # AC: "00" ends a run of blocks, 14 bits say how many
    dc = bytearray((blocks + 7) // 8)
    dc[-1] |= (1 << -blocks % 8) - 1
    out += segment(0xDA, b"\1\1\0\0\0\0") + bytes(dc)
    bits = ""
    while blocks:
        run = min(blocks, 32767)
        bits += "00" + format(run - 16384, "014b") if run >= 16384 else "01" * run
        blocks -= run
    bits += "1" * (-len(bits) % 8)
    ac = int(bits, 2).to_bytes(len(bits) // 8, "big").replace(b"\xff", b"\xff\0")
    bands = [(k, 0, 1) for k in range(1, 64)] + [(k, 1, 0) for k in range(1, 64)]
    for k, high, low in bands[:n - 1]:
        out += segment(0xDA, b"\1\1\0" + bytes([k, k, high << 4 | low])) + ac
    return out + b"\xff\xd9"


def test_leaves_while_a_picture_is_decoded(server):
    """Eight megapixels in 100 scans; a fault of the pictures behind it would come much later."""
    import base64
    jpeg = scans(2880, 100)

    def url(end):  # bytes behind the picture: the same content, but a decode of its own
        return "data:image/jpeg;base64," + base64.b64encode(jpeg + b"%d" % end).decode()
    r = server.chat([image_part(url(0)), text_part("What?")], max_tokens=1)
    assert r.status == 200, r.body
    r = server.chat([image_part("data:;base64," + base64.b64encode(scans(64, 120)).decode())])
    assert r.status == 400 and "scans" in r.error()["message"]
    server.wait_idle()
    for stream in (False, True):
        images = [image_part(url(1 + i + 20 * stream)) for i in range(20)]
        s = send(server, images, stream)
        wait = time.time() + 60
        while server.metric("num_requests_waiting") != 1:
            assert time.time() < wait
            time.sleep(0.01)
        s.close()
        server.wait_idle(10)
