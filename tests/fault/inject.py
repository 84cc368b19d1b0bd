"""Arms and reads tests/fault/vlmd_fault while it runs, asks it requests, and judges what comes back.

A fault has a kind ("memory", or "library memory" when a library of the request path made the call) and a number: the n-th
call from now. What may follow it is a right answer, an error object with 500 or 503, or, where the connection itself was hit,
its end. Python's standard library alone."""
import base64
import ctypes
import http.client
import json
import mmap
import os
import pathlib
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT / "tests" / "load"))
from wire import CHAT, MODEL, VLMD, Full, Server, chat_body, exact, image_part, png, seeded, text_part, words  # noqa: E402

BINARY = pathlib.Path(os.environ.get("VLMD_FAULT_BIN", VLMD.parent / "tests" / "fault" / "vlmd_fault"))
HANG_S = 60
FORMATS = ["cmyk_progressive.jpg", "exif6.jpg", "interlaced.gif", "lossless_alpha.webp", "lossy.webp", "grey16_interlaced.png"]
FUNCTIONS = ["memory", "map", "open", "read", "thread", "lock", "fd", "watch", "wait", "send", "recv", "random"]
KINDS = [who + f for f in FUNCTIONS for who in ("", "library ")]
# What a client's connection is made of: its failure may end the connection.
CONNECTION = {"send", "recv", "library send", "library recv", "library fd", "library watch", "library memory"}


# ---- the shared file (wrap.h) ----

class _Kind(ctypes.Structure):
    _fields_ = [(f, ctypes.c_uint64) for f in ("calls", "first", "last", "threshold", "failed")]


class _Site(ctypes.Structure):
    _fields_ = [(f, ctypes.c_uint64) for f in ("hash", "kind", "first", "last")]


class _Control(ctypes.Structure):
    _fields_ = [("base", ctypes.c_uint64), ("record", ctypes.c_uint64), ("random", ctypes.c_uint64), ("budget", ctypes.c_int64),
                ("frames", ctypes.c_uint64 * 16), ("kinds", _Kind * len(KINDS)), ("n_sites", ctypes.c_uint64), ("sites", _Site * (1 << 14))]


class Control:
    def __init__(self):
        fd, self.path = tempfile.mkstemp(prefix="vlmd-fault-")
        os.ftruncate(fd, ctypes.sizeof(_Control))
        self.map = mmap.mmap(fd, ctypes.sizeof(_Control))
        os.close(fd)
        self.c = _Control.from_buffer(self.map)
        self.env = {"VLMD_FAULT": self.path}

    def close(self):
        os.unlink(self.path)

    def arm(self, kind, n, count=1):
        """The n-th call of the kind from now fails, and those after it up to count."""
        k = self.c.kinds[KINDS.index(kind)]
        k.last = k.calls + n + count - 1
        k.first = k.calls + n

    def arm_at_random(self, chances, seed, budget):
        """chances: {kind: probability}; no more than budget faults in all."""
        self.c.random, self.c.budget = seed, budget
        for kind, p in chances.items():
            self.c.kinds[KINDS.index(kind)].threshold = min(1 << 32, int(p * (1 << 32)))

    def disarm(self):
        for k in self.c.kinds:
            k.first = k.last = k.threshold = 0

    def calls(self):
        return {kind: k.calls for kind, k in zip(KINDS, self.c.kinds)}

    def failed(self):
        return sum(k.failed for k in self.c.kinds)

    def failed_by_kind(self):
        return {kind: k.failed for kind, k in zip(KINDS, self.c.kinds) if k.failed}

    def sites(self):
        """[(kind, number of its first call, of its last)], one for each call stack that was recorded."""
        return [(KINDS[s.kind], s.first, s.last) for s in self.c.sites if s.hash]

    def stack(self):
        """The call stack of the last fault."""
        at = [hex(f - self.c.base - 1) for f in self.c.frames if self.c.base <= f < self.c.base + (1 << 28)]
        if not at:
            return "(no frame of vlmd)"
        out = subprocess.run(["addr2line", "-fse", str(BINARY), *at], capture_output=True, text=True).stdout.split("\n")
        return " < ".join(f"{out[i]} {out[i + 1]}" for i in range(0, len(out) - 1, 2) if "vlmd_fault.c" not in out[i + 1])


def server(control, *args):
    return Server(MODEL, "--threads", "2", "--log-level", "error", *args, binary=BINARY, env=control.env)


# ---- requests ----

def cases():
    """{name: (method, path, body)}, all with one right answer."""
    picture = image_part((ROOT / "docs" / "pictures" / "red-circle.png").read_bytes())
    ask = {"temperature": 0, "logprobs": True, "top_logprobs": 2, "return_token_ids": True, "max_tokens": 8}
    seen = chat_body([picture, text_part("What is in the image?")], **ask)
    said = chat_body("how are you", temperature=0.8, seed=3, max_tokens=6, stop=["zq"], logit_bias={"5": -1}, frequency_penalty=0.2)
    golden = ROOT / "tests" / "golden" / "image" / "pictures"
    formats = {p: ("POST", CHAT, chat_body([image_part((golden / p).read_bytes(), p.split(".")[1].replace("jpg", "jpeg"))], temperature=0, max_tokens=2))
               for p in FORMATS}
    return {"picture": ("POST", CHAT, seen),
            "picture streamed": ("POST", CHAT, {**seen, "stream": True, "stream_options": {"include_usage": True}}),
            "text": ("POST", CHAT, said),
            "tokenize": ("POST", "/tokenize", {"prompt": "hello there, a red circle"}),
            "detokenize": ("POST", "/detokenize", {"tokens": [5, 300, 400]}),
            "models": ("GET", "/v1/models", None),
            "metrics": ("GET", "/metrics", None),
            **formats}


def drawn(n):
    """n bodies with a picture each that no other has."""
    rng = seeded("drawn")
    return [("POST", CHAT, chat_body([image_part(png(96, 64 + i, rng)), text_part(words(rng, 5))], temperature=0, logprobs=True, max_tokens=4))
            for i in range(n)]


class Answer:
    """status None: the connection ended before the reply was whole. value: what has to be equal to the right answer's."""

    def __init__(self, status, value, detail):
        self.status, self.value, self.detail = status, value, detail


def _plain(o):
    """Without what differs from one asking to the next."""
    if isinstance(o, dict):
        return {k: _plain(v) for k, v in o.items() if k not in ("id", "created", "cached_tokens")}
    return [_plain(v) for v in o] if isinstance(o, list) else o


def _stream(text):
    full = Full()
    for event in text.split("\n\n"):
        if event.startswith("data: "):
            full.event(event[6:])
    return full


def ask(port, case, timeout=HANG_S):
    """Raises TimeoutError when it hangs."""
    method, path, body = case
    c = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout)
    status, data = None, b""
    try:
        c.request(method, path, json.dumps(body) if body is not None else None, {"Content-Type": "application/json", "Connection": "close"})
        r = c.getresponse()
        status, kind = r.status, r.headers.get("Content-Type", "")
        data = r.read()
    except TimeoutError:
        raise
    except (OSError, http.client.HTTPException) as e:
        return Answer(None, None, f"{'after status %d' % status if status else 'no reply'}: {e!r}")
    finally:
        c.close()
    text = data.decode("utf-8")
    if status == 200 and kind.startswith("text/event-stream"):
        full = _stream(text)
        if full.error and full.done:
            return Answer(503, {"error": full.error}, "in the stream")
        return Answer(200, full.value() + [full.done], text)
    if path == "/metrics" and status == 200:
        return Answer(status, "vlmd:" in text and text.endswith("\n"), text[:200])
    return Answer(status, _plain(exact(text)), text[:300])


def judge(answer, right, kind):
    """None, or what is wrong with an answer after a fault of that kind."""
    if answer.status is None:
        streamed = answer.detail.startswith("after status 200")
        return None if kind in CONNECTION or streamed else f"the connection ended, {answer.detail}"
    if answer.status == 200:
        return None if answer.value == right else f"a wrong answer: {answer.value}"
    error = answer.value.get("error") if isinstance(answer.value, dict) else None
    if answer.status not in (500, 503) or not error or set(error) != {"message", "type", "param", "code"} or not error["message"]:
        return f"status {answer.status}: {answer.detail}"
    return None


def gauges(server):
    """What is left over, as text, or None."""
    m = server.metrics()
    left = {k: v for k, v in m.items() if v and (k in ("num_requests_running", "num_requests_waiting", "kv_cache_usage_perc") or "in_flight" in k)}
    return f"left over: {left}" if left else None
