"""What the load programs share: a server as a child process, HTTP/1.1 over asyncio streams, and pictures.

Python's standard library alone. The client is written out, and not http.client, because the load needs to stop, stall and
hang up at any byte."""
import asyncio
import base64
import json
import os
import pathlib
import random
import re
import signal
import socket
import struct
import subprocess
import threading
import time
import urllib.request
import zlib

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
VLMD = pathlib.Path(os.environ.get("VLMD_BIN", ROOT / "build" / "vlmd"))
MODEL = ROOT / "models" / "vlmd-tiny"
CHAT = "/v1/chat/completions"


def machine_line(load):
    """What a benchmark says first; load: os.getloadavg()[0] before it began."""
    lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
    cpu = next((x.split(":", 1)[1].strip() for x in lines if x.startswith("model name")), "unknown")
    return f"cpu: {cpu}, {os.cpu_count()} cores; load before the run {load:.1f}" + (" - NOT QUIET" if load > 0.5 else "")


def gpu_memory():
    """Bytes of all GPUs that are in use, or None where there are none."""
    try:
        out = subprocess.run(["nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader,nounits"], capture_output=True, text=True, timeout=20)
        return sum(int(x) << 20 for x in out.stdout.split())
    except (OSError, ValueError, subprocess.TimeoutExpired):
        return None


class Server:
    """A running vlmd; its log is kept, line by line."""

    def __init__(self, model, *args, binary=VLMD, env=None):
        self.log, self.port = [], None
        self.proc = subprocess.Popen([str(binary), "serve", str(model), "--port", "0", *map(str, args)], cwd=ROOT, stdout=subprocess.PIPE,
                                     stderr=subprocess.STDOUT, text=True, errors="replace", env={**os.environ, **(env or {})})
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()
        end = time.time() + 300
        while time.time() < end and self.proc.poll() is None:
            try:
                if self.port and urllib.request.urlopen(self.url("/health"), timeout=10).status == 200:
                    return
            except OSError:
                pass
            time.sleep(0.05)
        raise SystemExit("the server did not start:\n" + "".join(self.log))

    def _read(self):
        for line in self.proc.stdout:
            self.log.append(line)
            m = re.search(r"listening on http://\S+:(\d+)", line)
            if m:
                self.port = int(m.group(1))

    def url(self, path):
        return f"http://127.0.0.1:{self.port}{path}"

    def metrics(self):
        """The samples of /metrics without buckets, summed over labels: {name: value}."""
        out = {}
        for line in urllib.request.urlopen(self.url("/metrics"), timeout=60).read().decode().splitlines():
            m = re.match(r"vlmd:(\w+)(\{.*\})? (\S+)$", line)
            if m and not m.group(1).endswith("_bucket"):
                out[m.group(1)] = out.get(m.group(1), 0) + float(m.group(3))
        return out

    def _status(self, field):
        text = pathlib.Path(f"/proc/{self.proc.pid}/status").read_text()
        return int(re.search(rf"^{field}:\s+(\d+)", text, re.M).group(1))

    def rss(self):
        return self._status("VmRSS") * 1024

    def threads(self):
        return self._status("Threads")

    def files(self):
        return len(os.listdir(f"/proc/{self.proc.pid}/fd"))

    def open_files(self):
        folder = f"/proc/{self.proc.pid}/fd"
        return " ".join(os.readlink(f"{folder}/{n}") for n in os.listdir(folder))

    def stop(self):
        """SIGTERM; the exit status."""
        if self.proc.poll() is None:
            self.proc.send_signal(signal.SIGTERM)
        try:
            code = self.proc.wait(120)
        except subprocess.TimeoutExpired:
            self.proc.kill()
            return "did not stop"
        self.reader.join(10)
        return code


class Broken(Exception):
    """The reply ended before it was whole, or is no HTTP."""


class Conn:
    """One connection. `request` sends, `reply` reads the head, `body` yields the parts of the body as they come."""

    def __init__(self, port, rcvbuf=None):
        self.port, self.rcvbuf = port, rcvbuf
        self.r = self.w = None
        self.uses = 0

    async def open(self):
        s = socket.socket()
        if self.rcvbuf:
            s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, self.rcvbuf)
        s.setblocking(False)
        await asyncio.get_running_loop().sock_connect(s, ("127.0.0.1", self.port))
        self.r, self.w = await asyncio.open_connection(sock=s, limit=1 << 16 if not self.rcvbuf else 4096)
        return self

    def close(self, reset=False):
        if not self.w:
            return
        if reset:
            self.w.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.w.transport.abort()
        else:
            self.w.close()
        self.w = None

    async def send(self, data):
        self.w.write(data)
        await self.w.drain()

    async def request(self, method, path, body=b"", headers=b""):
        self.uses += 1
        await self.send(b"%s %s HTTP/1.1\r\nHost: x\r\n%sContent-Length: %d\r\n\r\n" % (method.encode(), path.encode(), headers, len(body)) + body)

    async def _line(self):
        line = await self.r.readline()
        if not line.endswith(b"\n"):
            raise Broken("closed within a line")
        return line.rstrip(b"\r\n")

    async def reply(self):
        """The status; the headers go to self.headers."""
        line = await self._line()
        m = re.match(rb"HTTP/1\.1 (\d\d\d) ", line)
        if not m:
            raise Broken(f"no status line: {line[:60]!r}")
        self.headers = {}
        while line := await self._line():
            name, _, value = line.partition(b":")
            self.headers[name.strip().lower().decode()] = value.strip().decode()
        return int(m.group(1))

    async def body(self):
        try:
            if self.headers.get("transfer-encoding") == "chunked":
                while True:
                    n = int(await self._line(), 16)
                    if n:
                        yield await self.r.readexactly(n)
                    if await self._line():
                        raise Broken("a chunk is longer than it says")
                    if not n:
                        return
            left = int(self.headers["content-length"])
            while left:
                part = await self.r.read(min(left, 65536))
                if not part:
                    raise Broken("closed within the body")
                left -= len(part)
                yield part
        except asyncio.IncompleteReadError:
            raise Broken("closed within a chunk") from None

    async def rest(self):
        return b"".join([part async for part in self.body()])

    async def events(self):
        """The data of each SSE event, as text; comments are left out."""
        held = b""
        async for part in self.body():
            held += part
            *lines, held = held.split(b"\n")
            for line in lines:
                if line.startswith(b"data: "):
                    yield line[6:].decode("utf-8")
                elif line and not line.startswith(b":"):
                    raise Broken(f"no event: {line[:60]!r}")
        if held:
            raise Broken("the stream ends within an event")


def read_stream_event(data, out):
    """Adds one event to what empty_answer() made."""
    if data == "[DONE]":
        out["done"] = True
        return
    d = json.loads(data)
    if "error" in d:
        out["error"] = d["error"]
    for c in d.get("choices", []):
        text, finish = out["choices"].get(c["index"], ("", None))
        out["choices"][c["index"]] = (text + (c["delta"].get("content") or ""), c["finish_reason"] or finish)


def empty_answer():
    return {"choices": {}, "done": False, "error": None}


def choices_of(reply):
    """Of a whole reply what a stream's events add up to: {index: (text, finish_reason)}."""
    return {c["index"]: (c["message"]["content"], c["finish_reason"]) for c in reply["choices"]}


def exact(text):
    """JSON whose numbers with a point stay text: compared digit by digit."""
    return json.loads(text, parse_float=str)


class Full:
    """All that an answer says but its id, its time and what came from a cache; the same for one reply and for a stream's events."""

    def __init__(self):
        self.choices, self.usage, self.prompt_ids, self.done, self.error = {}, None, None, False, None

    def _add(self, d, text_of):
        self.error = self.error or d.get("error")
        if d.get("usage"):
            self.usage = {k: v for k, v in d["usage"].items() if k != "prompt_tokens_details"}
        self.prompt_ids = d.get("prompt_token_ids", self.prompt_ids)
        for c in d.get("choices", []):
            text, ids, logprobs, finish = self.choices.get(c["index"], ("", [], [], None))
            self.choices[c["index"]] = (text + (text_of(c) or ""), ids + (c.get("token_ids") or []),
                                        logprobs + ((c.get("logprobs") or {}).get("content") or []), c["finish_reason"] or finish)

    def event(self, data):
        if data == "[DONE]":
            self.done = True
        else:
            self._add(exact(data), lambda c: c["delta"].get("content"))

    def value(self):
        return [self.choices, self.usage, self.prompt_ids]

    @classmethod
    def of_reply(cls, reply):
        full = cls()
        full._add(reply, lambda c: c["message"]["content"])
        return full.value()


def png(width, height, rng, data=None):
    """An RGB picture: a plain ground with a few rectangles. `data` replaces the scan lines before compression."""
    def chunk(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    if data is None:
        ground = bytes(rng.randrange(256) for _ in range(3))
        rows = [bytearray(ground * width) for _ in range(height)]
        for _ in range(3):
            x0, y0 = rng.randrange(width), rng.randrange(height)
            w, h = rng.randint(1, width - x0), rng.randint(1, height - y0)
            colour = bytes(rng.randrange(256) for _ in range(3)) * w
            for y in range(y0, y0 + h):
                rows[y][3 * x0:3 * (x0 + w)] = colour
        data = b"".join(b"\0" + bytes(r) for r in rows)
    return (b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)) + chunk(b"IDAT", zlib.compress(data)) +
            chunk(b"IEND", b""))


def image_part(data, kind="png"):
    return {"type": "image_url", "image_url": {"url": f"data:image/{kind};base64," + base64.b64encode(data).decode()}}


def text_part(text):
    return {"type": "text", "text": text}


def chat_body(content, **fields):
    return {"messages": [{"role": "user", "content": content}], **fields}


WORDS = ("what which where colour shape is the a red green blue picture image of in square circle flag country animal how many tell me about "
         "does contain not there near left right big small please describe answer shortly").split()


def words(rng, n):
    return " ".join(rng.choice(WORDS) for _ in range(n))


def seeded(*what):
    return random.Random(repr(what))


def percentile(values, p):
    """Nearest rank."""
    v = sorted(values)
    return v[min(len(v) - 1, int(p / 100 * len(v)))] if v else float("nan")
