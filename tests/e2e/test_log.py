"""The log: one line a request, as text or JSON, and never what a request carries."""
import json
import re
import time

import pytest
from conftest import MODEL, PATIENCE, PIXEL, Server, Stream, image_part, picture, text_part


def lines_of(server, n, match):
    """The n lines that match, once they are there."""
    with server.lines:
        assert server.lines.wait_for(lambda: sum(match in x for x in list(server.log)) >= n, PATIENCE), server.text()
    found = [x for x in server.log if match in x]
    assert len(found) == n, found
    return found


def test_text_lines(make_fake):
    s = make_fake()
    s.chat([image_part(), text_part("tokens=4 first_ms=60")], headers=None)
    s.request("POST", "/v1/chat/completions", {"messages": [{"role": "user", "content": "tokens=2"}]}, {"X-Request-Id": "mine-1"})
    s.get("/health"), s.get("/metrics")
    first, second = lines_of(s, 2, "POST /v1/chat/completions 200 ")
    assert re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3} info POST ", first)
    assert re.search(r" prompt=\d+ cached=0 completion=4 pictures=1 finish=stop queue=1\.0ms ttft=([\d.]+)ms total=([\d.]+)ms$", first)
    ttft, total = map(float, re.search(r"ttft=([\d.]+)ms total=([\d.]+)ms", first).groups())
    assert 60 <= ttft <= total
    assert " id=mine-1 " in second and " pictures=0 " in second
    s.chat("x", temperature="hot")
    assert "refused=bad_request" in lines_of(s, 1, " 400 ")[0]
    assert "/health" not in "".join(x for x in s.log if " info " in x)


def test_json_lines(make_fake):
    s = make_fake("--log-format", "json")
    s.request("POST", "/v1/chat/completions", {"messages": [{"role": "user", "content": "tokens=5"}]}, {"X-Request-Id": "a\"b\\c"})
    s.get('/no%22pe%0A%FF?x=1')
    # Each connection's line comes from its own thread, after the reply: in either order.
    ok, bad = sorted((json.loads(x) for x in lines_of(s, 2, '"event":"request"')), key=lambda x: x["status"])
    assert ok.pop("time") and ok.pop("ttft_ms") <= ok.pop("total_ms")
    assert ok == {"level": "info", "event": "request", "method": "POST", "path": "/v1/chat/completions", "id": "a\"b\\c", "status": 200,
                  "prompt_tokens": 8, "cached_tokens": 0, "completion_tokens": 5, "pictures": 0, "finish_reason": "stop", "queue_ms": 1.0,
                  "client_left": False}
    assert bad["status"] == 404 and bad["refused"] == "not_found" and bad["path"].startswith('/no"pe\n')
    s.chat("x", unheard_of=1)
    line = json.loads(lines_of(s, 1, "unheard_of")[0])
    assert line["level"] == "warn" and '"unheard_of"' in line["message"]


def test_client_that_leaves(make_fake):
    s = make_fake("--log-format", "json")
    st = Stream(s, {"messages": [{"role": "user", "content": "tokens=1000 delay_ms=20"}], "stream": True})
    next(st.events())
    st.close()
    line = json.loads(lines_of(s, 1, '"event":"request"')[0])
    assert line["client_left"] and line["status"] == 200 and line["finish_reason"] in ("abort", "error")
    assert 1 <= line["completion_tokens"] < 1000


@pytest.mark.parametrize("form", ["text", "json"])
def test_no_secrets(form):
    """Not a body, a key or a picture's bytes, at the most talkative level, whatever the outcome."""
    with Server(MODEL, "--log-format", form, "--log-level", "debug", "--api-key", "sesame-4711") as s:
        key = {"Authorization": "Bearer sesame-4711"}
        for content in ("xyzzy plugh", [image_part(picture("easy-vqa-1044.png")), text_part("xyzzy plugh")], [image_part(PIXEL[:-30])]):
            for more in ({}, {"temperature": 99}, {"stop": ["xyzzy plugh"]}):
                body = {"messages": [{"role": "user", "content": content}], "max_tokens": 2, **more}
                s.post("/v1/chat/completions", body, headers=key)
        s.post("/v1/chat/completions", b'{"xyzzy plugh', headers=key)
        s.post("/tokenize", {"prompt": "xyzzy plugh"}, headers=key)
        s.post("/tokenize", {"prompt": "xyzzy plugh"}, headers={"Authorization": "Bearer sesame-4712"})
        time.sleep(0.3)
        text = s.text()
    for secret in ("xyzzy", "plugh", "sesame", PIXEL[-30:-10], picture("easy-vqa-1044.png")[200:240]):
        assert secret not in text, secret
