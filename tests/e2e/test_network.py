"""How clients reach the server: TLS, Unix sockets, browsers of other origins, keys."""
import http.client
import os
import pathlib
import signal
import socket
import ssl
import subprocess
import threading
import time

import pytest
from conftest import FAKE, PATIENCE, ROOT, Server, Stream, image_part, need_fake, text_of, text_part

TLS = pathlib.Path(__file__).parent / "tls"
CERT, KEY = TLS / "test-only-cert.pem", TLS / "test-only-key.pem"


def start(*args):
    """A start that fails: (exit status, stderr)."""
    need_fake()
    r = subprocess.run([str(FAKE), "serve", "--port", "0", *map(str, args)], capture_output=True, text=True, timeout=PATIENCE, cwd=ROOT,
                       env={**os.environ, "ASAN_OPTIONS": "detect_leaks=0"})  # GnuTLS keeps a certificate that has no key
    assert len(r.stderr.splitlines()) <= 2, r.stderr
    return r.returncode, r.stderr


# ---- TLS ----

@pytest.fixture
def tls(make_fake):
    return make_fake("--ssl-certfile", CERT, "--ssl-keyfile", KEY, "--body-timeout", "1", "--max-body-size", "1M",
                     tls=ssl.create_default_context(cafile=CERT))


@pytest.mark.tsan
def test_tls(tls):
    assert f"listening on https://127.0.0.1:{tls.port}" in tls.text()
    assert tls.chat("tokens=3").json()["choices"][0]["message"]["content"] == "word word word "
    assert text_of(tls.stream("tokens=20 delay_ms=5")) == "word " * 20
    big = tls.chat([image_part("data:image/png;base64," + "A" * 600_000), text_part("tokens=1")])
    assert big.status == 200
    assert tls.post("/v1/chat/completions", b"x" * (2 << 20)).status == 413
    results = []
    threads = [threading.Thread(target=lambda: results.append(tls.chat("tokens=10 delay_ms=5").status)) for _ in range(24)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert results == [200] * 24
    # Several requests on one connection.
    c = tls.connect()
    for _ in range(3):
        c.request("GET", "/version")
        assert c.getresponse().read()
    c.close()


def test_tls_and_others(tls):
    """Plain HTTP gets no answer, and neither it nor silence harms anybody."""
    with pytest.raises((http.client.HTTPException, OSError)):
        c = http.client.HTTPConnection("127.0.0.1", tls.port, timeout=5)
        c.request("GET", "/health")
        c.getresponse()
    for junk in (b"", b"\x16\x03\x01", b"\x16\x03\x01\xff\xff" + b"\0" * 70000):
        s = socket.create_connection(("127.0.0.1", tls.port))
        try:
            s.sendall(junk)
        except OSError:
            pass
        s.close()
    with pytest.raises(ssl.SSLCertVerificationError):
        tls_context = ssl.create_default_context()
        http.client.HTTPSConnection("127.0.0.1", tls.port, context=tls_context, timeout=5).request("GET", "/health")
    assert tls.get("/health").status == 200


@pytest.mark.tsan
def test_tls_leaving(tls):
    """A client that leaves ends its job; a body that stops coming ends its connection without plain text in it."""
    st = Stream(tls, {"messages": [{"role": "user", "content": "tokens=100000 delay_ms=20"}], "stream": True})
    next(st.events())
    st.close()
    tls.wait_idle(20)
    assert tls.metric("request_success_total", finished_reason="abort") == 1
    with socket.create_connection(("127.0.0.1", tls.port), timeout=30) as raw, tls.tls.wrap_socket(raw, server_hostname="127.0.0.1") as s:
        s.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{")
        t0 = time.time()
        try:
            assert s.recv(100) == b""
        except ssl.SSLError as e:
            assert "EOF" in str(e), e
        except ConnectionResetError:
            pass
        assert time.time() - t0 < 20
    end = time.time() + 10  # the count follows the close
    while tls.metric("request_refusals_total", reason="timeout") < 1 and time.time() < end:
        time.sleep(0.05)
    assert tls.metric("request_refusals_total", reason="timeout") == 1


def test_tls_drain(tls):
    results = []
    t = threading.Thread(target=lambda: results.append(tls.stream("tokens=30 delay_ms=50")))
    t.start()
    while tls.metric("num_requests_running") < 1:
        time.sleep(0.02)
    assert tls.stop() == 0
    t.join()
    assert results[0][-1] == "[DONE]" and text_of(results[0]) == "word " * 30


def test_tls_files(tmp_path):
    empty, junk = tmp_path / "empty.pem", tmp_path / "junk.pem"
    empty.write_text("")
    junk.write_text("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
    cases = [(["--ssl-certfile", CERT], 2, "--ssl-keyfile is missing"), (["--ssl-keyfile", KEY], 2, "--ssl-certfile is missing"),
             (["--ssl-certfile", "/none.pem", "--ssl-keyfile", KEY], 1, "--ssl-certfile /none.pem: No such file"),
             (["--ssl-certfile", CERT, "--ssl-keyfile", tmp_path], 1, "no file"),
             (["--ssl-certfile", KEY, "--ssl-keyfile", CERT], 1, "swapped"),
             (["--ssl-certfile", CERT, "--ssl-keyfile", CERT], 1, "no private key"),
             (["--ssl-certfile", empty, "--ssl-keyfile", KEY], 1, "empty"),
             (["--ssl-certfile", CERT, "--ssl-keyfile", TLS / "test-only-encrypted-key.pem"], 1, "encrypted"),
             (["--ssl-certfile", CERT, "--ssl-keyfile", TLS / "test-only-other-key.pem"], 1, "must be that of the certificate"),
             (["--ssl-certfile", junk, "--ssl-keyfile", KEY], 1, "undamaged")]
    for args, code, says in cases:
        got, err = start(*args)
        assert got == code and says in err, (args, got, err)


# ---- Unix socket ----

@pytest.mark.tsan
def test_unix_socket(make_fake, tmp_path):
    path = tmp_path / "vlmd.sock"
    s = make_fake("--uds", path)
    assert s.uds == str(path) and "unix:" in s.text()
    assert s.chat("tokens=2").status == 200
    assert text_of(s.stream("tokens=5")) == "word " * 5
    with s.lines:
        assert s.lines.wait_for(lambda: "curl" in s.text(), PATIENCE)
    assert f"curl --unix-socket '{path}' http://localhost/v1/chat/completions" in s.text()
    with Stream(s, {"messages": [{"role": "user", "content": "tokens=100000 delay_ms=20"}], "stream": True}) as st:
        next(st.events())
    s.wait_idle(20)
    code, err = start("--uds", path)
    assert code == 1 and "in use" in err
    assert s.stop() == 0 and not path.exists()


def test_unix_socket_after_a_kill(make_fake, tmp_path):
    path = tmp_path / "vlmd.sock"
    s = make_fake("--uds", path)
    s.stop(signal.SIGKILL)
    assert path.exists()
    assert make_fake("--uds", path).get("/health").status == 200


def test_unix_socket_paths(tmp_path):
    file = tmp_path / "file"
    file.write_text("keep me")
    for path, says in ((file, "no socket"), (tmp_path / "none" / "x", "No such file"), ("/" + "x" * 200, "at most 107 bytes")):
        code, err = start("--uds", path)
        assert code == 1 and says in err, err
    assert file.read_text() == "keep me"
    assert start("--uds", "")[0] == 2
    # A start that fails later leaves no socket.
    code, _ = start("--uds", tmp_path / "s", "--ssl-certfile", CERT, "--ssl-keyfile", TLS / "test-only-other-key.pem")
    assert code == 1 and os.listdir(tmp_path) == ["file"]


# ---- CORS ----

PREFLIGHT = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "content-type,authorization"}


def cors_of(r):
    return {k.lower(): v for k, v in r.headers.items() if k.lower().startswith("access-control-") or k.lower() == "vary"}


def test_cors_off(fake):
    assert cors_of(fake.get("/version", headers={"Origin": "https://a.example"})) == {}
    assert cors_of(fake.request("OPTIONS", "/v1/chat/completions", headers={"Origin": "https://a.example", **PREFLIGHT})) == {}


def test_cors_list(make_fake):
    s = make_fake("--allowed-origins", "https://a.example", "--allowed-origins", '["http://localhost:3000", "null"]', "--api-key", "k")
    for origin in ("https://a.example", "http://localhost:3000", "null"):
        r = s.request("OPTIONS", "/v1/chat/completions", headers={"Origin": origin, **PREFLIGHT})
        assert r.status == 204  # a preflight brings no key
        assert cors_of(r) == {"access-control-allow-origin": origin, "access-control-allow-methods": "GET, POST, OPTIONS", "vary": "Origin",
                              "access-control-allow-headers": "content-type,authorization", "access-control-max-age": "600"}
        r = s.chat("tokens=1")
        # A refusal can be read, too.
        r = s.get("/v1/models", headers={"Origin": origin})
        assert r.status == 401 and cors_of(r)["access-control-allow-origin"] == origin
        with Stream(s, {"messages": [{"role": "user", "content": "x"}], "stream": True},
                    {"Origin": origin, "Authorization": "Bearer k"}) as st:
            assert st.status == 200 and st.headers["Access-Control-Allow-Origin"] == origin
            assert "X-Request-Id" in st.headers["Access-Control-Expose-Headers"]
    for origin in ("https://b.example", "https://a.example.evil", "https://a.example/", "HTTPS://A.EXAMPLE", "https://a.example, https://b.example"):
        r = s.request("OPTIONS", "/v1/chat/completions", headers={"Origin": origin, **PREFLIGHT})
        assert cors_of(r) == {"vary": "Origin"}, origin


def test_cors_all(make_fake):
    s = make_fake("--allowed-origins", "*", "--allowed-methods", '["POST"]', "--allowed-headers", "x-one", "--allowed-headers", "x-two")
    r = s.request("OPTIONS", "/v1/chat/completions", headers={"Origin": "https://a.example", **PREFLIGHT})
    assert cors_of(r) == {"access-control-allow-origin": "*", "access-control-allow-methods": "POST",
                          "access-control-allow-headers": "x-one, x-two", "access-control-max-age": "600"}
    s = make_fake("--allowed-origins", '["*"]', "--allow-credentials")
    r = s.get("/version", headers={"Origin": "https://a.example"})
    assert cors_of(r) == {"access-control-allow-origin": "https://a.example", "access-control-allow-credentials": "true", "vary": "Origin",
                          "access-control-expose-headers": "X-Request-Id, Retry-After"}


@pytest.mark.parametrize("value,says", [("https://a.example/", "without a path"), ("a.example", "origins such as"), ("[1]", "text"),
                                        ('["x', "JSON list"), ("", "text")])
def test_cors_bad_options(value, says):
    code, err = start("--allowed-origins", value)
    assert code == 2 and says in err and "--allowed-origins" in err


# ---- keys ----

def test_several_keys(make_fake):
    s = make_fake("--api-key", "alpha", "--api-key", "beta")
    for key, status in (("alpha", 200), ("beta", 200), ("alph", 401), ("alphaa", 401), ("Alpha", 401), ("alphabeta", 401), ("", 401)):
        assert s.get("/v1/models", headers={"Authorization": "Bearer " + key}).status == status, key
    assert s.get("/health").status == 200 and s.get("/metrics").status == 200
    assert s.metric("request_refusals_total", reason="api_key") == 5


def test_key_for_all(make_fake):
    s = Server("--api-key", "k", "--api-key-for-all", binary=FAKE, wait=False)
    try:
        key = {"Authorization": "Bearer k"}
        while s.get("/health", headers=key).status == 503:
            time.sleep(0.02)
        for path in ("/health", "/metrics", "/version"):
            assert s.get(path).status == 401 and s.get(path, headers=key).status == 200
    finally:
        assert s.stop() == 0
