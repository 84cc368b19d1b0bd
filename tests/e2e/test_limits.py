"""Sizes, keys, deadlines, and forms of HTTP that are used to trick servers."""
import json
import socket
import time

import pytest
from conftest import Stream

pytestmark = pytest.mark.tsan

CHAT = json.dumps({"messages": [{"role": "user", "content": "tokens=1"}]}).encode()


def test_body_too_large(make_fake):
    s = make_fake("--max-body-size", "100k")
    small = json.dumps({"messages": [{"role": "user", "content": "tokens=1"}], "user": "x" * 90_000})
    assert s.post("/v1/chat/completions", small).status == 200
    for n in (110_000, 5_000_000, 60_000_000):
        r = s.post("/v1/chat/completions", b"x" * n)
        assert r.status == 413, n
        assert "102400" in r.error()["message"]
    # Chunked: the length is not told beforehand.
    import http.client
    c = http.client.HTTPConnection("127.0.0.1", s.port, timeout=60)
    c.request("POST", "/v1/chat/completions", iter([b"x" * 10000] * 300), encode_chunked=True, headers={"Transfer-Encoding": "chunked"})
    r = c.getresponse()
    assert r.status == 413 and json.loads(r.read())["error"]["code"] == "body_too_large"
    c.close()
    # Exactly at the limit is no refusal by size.
    assert s.post("/v1/chat/completions", b" " * 102400).status == 400
    assert s.post("/v1/chat/completions", b" " * 102401).status == 413


def test_expect_continue(make_fake):
    """Who asks first is refused before the body, and told to go on when it is welcome."""
    s = make_fake("--max-body-size", "100k")
    out = s.raw(b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 1000000\r\n\r\n")
    assert out.startswith(b"HTTP/1.1 413")
    with socket.create_connection(("127.0.0.1", s.port), timeout=60) as c:
        c.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: %d\r\n\r\n" % len(CHAT))
        assert c.recv(100).startswith(b"HTTP/1.1 100")
        c.sendall(CHAT)
        assert c.recv(100).startswith(b"HTTP/1.1 200")


def test_endless_body(make_fake):
    """A length beyond all sense is answered at once."""
    s = make_fake("--max-body-size", "100k")
    for length in (b"9999999999999", b"99999999999999999999999"):
        out = s.raw(b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: " + length + b"\r\n\r\nxxx")
        assert out[9:12] in (b"413", b"400") or out == b"", out
    assert s.get("/health").status == 200


@pytest.mark.parametrize("head", [b"Content-Length: 5\r\nTransfer-Encoding: chunked", b"Content-Length: 5\r\nContent-Length: 6",
                                  b"Content-Length: +5", b"Content-Length: -1", b"Content-Length: 5x", b"Content-Length: 0x5",
                                  b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity", b"Transfer-Encoding: gzip, chunked",
                                  b"Content-Length : 50", b"Transfer-Encoding\t: chunked"])
def test_smuggling(fake, head):
    hidden = b"0\r\n\r\nGET /version HTTP/1.1\r\nHost: x\r\n\r\n"
    out = fake.raw(b"POST /tokenize HTTP/1.1\r\nHost: x\r\n" + head + b"\r\nConnection: close\r\n\r\n" + hidden)
    assert b'"version"' not in out
    assert out == b"" or out[9:10] in (b"4", b"5"), out
    assert fake.get("/health").status == 200


def test_header_flood(make_fake):
    fake = make_fake("--headers-timeout", "2")
    lines = b"".join(b"X-%d: %s\r\n" % (i, b"y" * 100) for i in range(3000))
    try:
        out = fake.raw(b"GET /health HTTP/1.1\r\nHost: x\r\n" + lines + b"\r\n")
    except (ConnectionResetError, BrokenPipeError):
        out = b""
    assert out == b"" or out[9:10] == b"4"
    try:
        fake.raw(b"GET /" + b"a" * 200_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n")
    except (ConnectionResetError, BrokenPipeError):
        pass
    for junk in (b"\x00\x01\x02\r\n\r\n", b"GET\r\n\r\n", b"\r\n\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n"):
        with socket.create_connection(("127.0.0.1", fake.port), timeout=60) as c:
            c.sendall(junk)
            c.shutdown(socket.SHUT_WR)
            try:
                while c.recv(65536):
                    pass
            except ConnectionResetError:
                pass
    assert fake.get("/health").status == 200


def test_api_key(make_fake):
    s = make_fake("--api-key", "secret-one", "--api-key=two", wait=True)
    body = {"messages": [{"role": "user", "content": "tokens=1"}]}
    for auth in (None, "Bearer wrong", "Bearer ", "Bearer secret-on", "Bearer secret-onex", "Bearer SECRET-ONE", "Basic secret-one", "secret-one",
                 "Bearer secret-one x"):
        headers = {"Authorization": auth} if auth is not None else {}
        r = s.post("/v1/chat/completions", body, headers=headers)
        assert r.status == 401, auth
        assert r.headers["WWW-Authenticate"] == "Bearer" and r.error()["code"] == "invalid_api_key"
        assert s.get("/v1/models", headers=headers).status == 401
        # A large body does not keep the refusal from arriving.
        assert s.post("/tokenize", b"x" * 3_000_000, headers=headers).status == 401
    for auth in ("Bearer secret-one", "Bearer two", "bearer two", "Bearer two \t"):
        assert s.post("/v1/chat/completions", body, headers={"Authorization": auth}).status == 200
        assert s.get("/v1/models", headers={"Authorization": auth}).status == 200
    assert s.get("/health").status == 200 and s.get("/metrics").status == 200
    assert "secret-one" not in s.text()


def test_slow_headers_and_body(make_fake):
    s = make_fake("--headers-timeout", "1", "--body-timeout", "1")
    with socket.create_connection(("127.0.0.1", s.port), timeout=60) as c:
        t0 = time.time()
        c.sendall(b"GET /health HT")
        assert c.recv(100) == b""
        assert time.time() - t0 < 20
    # A byte now and then does not reset the clock of the headers.
    with socket.create_connection(("127.0.0.1", s.port), timeout=60) as c:
        t0 = time.time()
        try:
            for b in b"GET /health HTTP/1.1\r\nX: " + b"y" * 200:
                c.sendall(bytes([b]))
                time.sleep(0.1)
            raise AssertionError("still there")
        except OSError:
            assert time.time() - t0 < 20
    with socket.create_connection(("127.0.0.1", s.port), timeout=60) as c:
        c.sendall(b"POST /tokenize HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{")
        out = b""
        while part := c.recv(65536):
            out += part
        assert out.startswith(b"HTTP/1.1 408") and json.loads(out.split(b"\r\n\r\n")[1])["error"]["message"]


def test_request_timeout(make_fake):
    s = make_fake("--request-timeout", "1")
    r = s.chat("tokens=1 first_ms=100000")
    assert r.status == 503 and "longer" in r.error()["message"]
    events = s.stream("tokens=10000 delay_ms=50")
    assert "longer" in events[-2]["error"]["message"]
    s.wait_idle()


def test_too_many_connections(make_fake):
    s = make_fake("--max-connections", "8")
    idle = [socket.create_connection(("127.0.0.1", s.port)) for _ in range(8)]
    time.sleep(0.3)
    r = s.get("/version")
    assert r.status == 503 and r.error()["code"] == "too_many_connections" and r.headers["Retry-After"]
    for c in idle:
        c.close()
    end = time.time() + 30
    while s.get("/version").status != 200:
        assert time.time() < end
        time.sleep(0.05)


def test_idle_connections(make_fake):
    s = make_fake("--max-connections", "600")
    idle = [socket.create_connection(("127.0.0.1", s.port)) for _ in range(500)]
    assert s.chat("tokens=2").status == 200
    with Stream(s, {"messages": [{"role": "user", "content": "tokens=2"}], "stream": True}) as st:
        assert list(st.events())[-1] == "[DONE]"
    for c in idle:
        c.close()


def test_nothing_secret_in_the_log(fake):
    fake.chat("tokens=1 say=private-words")
    assert "private-words" not in fake.text()
