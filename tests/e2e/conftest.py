"""What the end-to-end tests share: the program, a server on the bundled model, a server over scripted answers, and a
small client of Python's standard library.

VLMD_BIN names the program (default build/vlmd). The scripted server is tests/server/vlmd_fake beside it: its answers
follow words in the last user text, such as "tokens=5 delay_ms=20" (see tests/server/fake_engine.c)."""
import http.client
import json
import os
import pathlib
import re
import signal
import socket
import subprocess
import threading
import time

import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
VLMD = pathlib.Path(os.environ.get("VLMD_BIN", ROOT / "build" / "vlmd"))
FAKE = VLMD.parent / "tests" / "server" / "vlmd_fake"
MODEL = ROOT / "models" / "vlmd-tiny"
PICTURES = ROOT / "tests" / "e2e" / "pictures"
# A sanitizer's program is many times slower.
PATIENCE = 120
# 1x1, white.
PIXEL = ("data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAIAAACQd1PeAAAADElEQVR4nGP4//8/AAX+Av4N70a4AAAAAElFTkSuQmCC")


def pytest_configure(config):
    config.addinivalue_line("markers", "tsan: worth running under ThreadSanitizer")


class Reply:
    def __init__(self, status, headers, body):
        self.status, self.headers, self.body = status, headers, body

    def json(self):
        return json.loads(self.body)

    def error(self):
        """The error object, after checking its form."""
        e = self.json()["error"]
        assert set(e) == {"message", "type", "param", "code"}, e
        assert isinstance(e["message"], str) and e["message"]
        return e


class Server:
    """A running program. Use as a context manager, or through the fixtures."""

    def __init__(self, *args, binary=VLMD, env=None, wait=True, tls=None):
        """tls: an ssl.SSLContext, when the options ask for HTTPS."""
        self.log, self.tls, self.uds = [], tls, None
        self.proc = subprocess.Popen([str(binary), "serve", "--port", "0", *map(str, args)], cwd=ROOT,
                                     stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace",
                                     env={**os.environ, **(env or {})})
        self.port = None
        self.lines = threading.Condition()
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()
        with self.lines:
            self.lines.wait_for(lambda: self.port or self.proc.poll() is not None and not self.reader.is_alive(), PATIENCE)
        if wait:
            assert self.port, "".join(self.log)
            self.wait_ready()

    def _read(self):
        for line in self.proc.stdout:
            with self.lines:
                self.log.append(line)
                m = re.search(r"listening on (?:https?://\S+:(\d+)|unix:(\S+), )", line)
                if m:
                    self.port, self.uds = int(m.group(1) or -1), m.group(2)
                self.lines.notify_all()
        with self.lines:
            self.lines.notify_all()

    def text(self):
        return "".join(self.log)

    def wait_ready(self):
        end = time.time() + PATIENCE
        while time.time() < end:
            if self.proc.poll() is not None:
                self.reader.join(10)
                raise AssertionError("the server ended: " + self.text())
            try:
                if self.request("GET", "/health").status == 200:
                    return
            except ConnectionError:
                pass  # it is ending
            time.sleep(0.05)
        raise AssertionError("not ready: " + self.text())

    def stop(self, sig=signal.SIGTERM):
        if self.proc.poll() is None:
            self.proc.send_signal(sig)
        try:
            code = self.proc.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self.proc.kill()
            raise
        self.reader.join(10)
        return code

    def __enter__(self):
        return self

    def __exit__(self, *_):
        code = self.stop()
        assert code == 0, (code, self.text())

    # ---- client ----

    def connect(self, timeout=PATIENCE):
        if self.tls:
            return http.client.HTTPSConnection("127.0.0.1", self.port, timeout=timeout, context=self.tls)
        c = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        if self.uds:
            c.sock = socket.socket(socket.AF_UNIX)
            c.sock.settimeout(timeout)
            c.sock.connect(self.uds)
        return c

    def request(self, method, path, body=None, headers=None, timeout=PATIENCE):
        c = self.connect(timeout)
        try:
            if isinstance(body, (dict, list)):
                body = json.dumps(body)
            if isinstance(body, str):
                body = body.encode()
            c.request(method, path, body, {"Content-Type": "application/json", **(headers or {})})
            r = c.getresponse()
            return Reply(r.status, r.headers, r.read())
        finally:
            c.close()

    def get(self, path, **kw):
        return self.request("GET", path, **kw)

    def post(self, path, body, **kw):
        return self.request("POST", path, body, **kw)

    def chat(self, content="tokens=3", **fields):
        """POSTs a chat with one user message; returns the Reply."""
        return self.post("/v1/chat/completions", {"messages": [{"role": "user", "content": content}], **fields})

    def stream(self, content="tokens=3", **fields):
        """A streamed chat: the list of its events, parsed, and [DONE] as text."""
        s = Stream(self, {"messages": [{"role": "user", "content": content}], "stream": True, **fields})
        with s:
            return list(s.events())

    def raw(self, data, timeout=PATIENCE):
        """Sends bytes as they are and returns what comes back until the server closes."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=timeout) as s:
            s.sendall(data)
            out = b""
            while True:
                try:
                    part = s.recv(65536)
                except ConnectionResetError:
                    break
                if not part:
                    break
                out += part
            return out

    def metric(self, name, **labels):
        """One sample of /metrics."""
        for line in self.get("/metrics").body.decode().splitlines():
            m = re.match(r"vlmd:(\w+)(\{.*\})? (\S+)$", line)
            if m and m.group(1) == name and all(f'{k}="{v}"' in (m.group(2) or "") for k, v in labels.items()):
                return float(m.group(3))
        raise KeyError(name)

    def wait_idle(self, seconds=PATIENCE):
        """Until no request is running or waiting."""
        end = time.time() + seconds
        while time.time() < end:
            if self.metric("num_requests_running") + self.metric("num_requests_waiting") == 0:
                return
            time.sleep(0.05)
        raise AssertionError("requests still run")


class Stream:
    """A streamed chat whose reading the test controls."""

    def __init__(self, server, body, headers=None):
        self.c = server.connect()
        self.c.request("POST", "/v1/chat/completions", json.dumps(body).encode(), {"Content-Type": "application/json", **(headers or {})})
        self.r = self.c.getresponse()
        self.status, self.headers = self.r.status, self.r.headers
        self.comments = 0

    def events(self):
        for line in self.r:
            line = line.decode("utf-8").rstrip("\r\n")
            if line.startswith(":"):
                self.comments += 1
            elif line.startswith("data: "):
                data = line[6:]
                yield data if data == "[DONE]" else json.loads(data)
            else:
                assert line == "", line

    def close(self):
        self.c.close()
        self.r.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def text_of(events):
    return "".join(c["delta"].get("content", "") for e in events if e != "[DONE]" and "choices" in e for c in e["choices"])


def finishes(events):
    return [c["finish_reason"] for e in events if e != "[DONE]" and "choices" in e for c in e["choices"] if c["finish_reason"]]


def picture(name):
    """A file of tests/e2e/pictures as a data URL."""
    import base64
    return "data:image/png;base64," + base64.b64encode((PICTURES / name).read_bytes()).decode()


def image_part(url=PIXEL):
    return {"type": "image_url", "image_url": {"url": url}}


def text_part(text):
    return {"type": "text", "text": text}


@pytest.fixture(scope="session")
def server():
    """The bundled model, for the whole session."""
    s = Server(MODEL)
    yield s
    assert s.stop() == 0, s.text()


def need_fake():
    if not FAKE.exists():
        pytest.skip(f"{FAKE} is not built")


@pytest.fixture(scope="session")
def fake():
    """Scripted answers, for the whole session."""
    need_fake()
    s = Server(binary=FAKE)
    yield s
    assert s.stop() == 0, s.text()


@pytest.fixture
def make_fake():
    """Starts scripted servers with other options; they are stopped at the end of the test."""
    need_fake()
    made = []

    def make(*args, **kw):
        made.append(Server(*args, binary=FAKE, **kw))
        return made[-1]
    yield make
    codes = [(s.stop(), s.text()) for s in made if s.proc.poll() is None]
    assert all(code == 0 for code, _ in codes), codes  # also a sanitizer's doubts
