"""Every route, its replies and its errors, over scripted answers."""
import json
import re

import pytest
from conftest import Stream

pytestmark = pytest.mark.tsan


def test_health_version_models(fake):
    r = fake.get("/health")
    assert r.status == 200 and r.headers["Content-Type"] == "application/json"
    assert re.match(r"\d+\.\d+", fake.get("/version").json()["version"])
    models = fake.get("/v1/models").json()
    assert models["object"] == "list" and len(models["data"]) == 1
    m = models["data"][0]
    assert m["id"] == "vlmd-tiny" and m["object"] == "model" and m["max_model_len"] == 2048 and m["created"] > 1e9
    assert fake.get("/v1/models/vlmd-tiny").json() == m
    r = fake.get("/v1/models/other")
    assert r.status == 404 and r.error()["code"] == "model_not_found"


def test_unknown_route(fake):
    for method in ("GET", "POST"):
        for path in ("/", "/v1", "/v1/chat", "/v1/chat/completions/x", "/healthz", "/v1/models/", "/%00", "/..%2f"):
            if path == "/" and method == "GET":
                continue
            r = fake.request(method, path, b"{}" if method == "POST" else None)
            assert r.status == 404, path
            assert r.error()["type"] == "invalid_request_error"


@pytest.mark.parametrize("path,right", [("/health", "GET"), ("/metrics", "GET"), ("/version", "GET"), ("/v1/models", "GET"),
                                        ("/v1/chat/completions", "POST"), ("/v1/embeddings", "POST"), ("/v1/zero-shot", "POST"),
                                        ("/tokenize", "POST"), ("/detokenize", "POST")])
def test_wrong_method(fake, path, right):
    for method in {"GET", "POST", "PUT", "DELETE", "PATCH"} - {right}:
        r = fake.request(method, path, b"{}" if method != "GET" else None)
        assert r.status == 405, (method, path)
        allow = r.headers["Allow"].replace(" ", "").split(",")
        assert right in allow and method not in allow
        assert r.error()["message"]
    r = fake.request("OPTIONS", path)
    assert r.status == 204 and right in r.headers["Allow"]
    r = fake.request("HEAD", path)
    assert r.status == (200 if right == "GET" else 405) and r.body == b""


def test_request_id(fake):
    assert fake.get("/version", headers={"X-Request-Id": "abc-1"}).headers["X-Request-Id"] == "abc-1"
    ids = {fake.get("/version").headers["X-Request-Id"] for _ in range(3)}
    assert len(ids) == 3 and all(len(i) >= 16 for i in ids)
    # What would not be safe in a log or a header is replaced.
    for bad in ("x" * 129, "a b"):
        assert fake.get("/version", headers={"X-Request-Id": bad}).headers["X-Request-Id"] != bad
    assert fake.chat("tokens=1", headers=None).headers["X-Request-Id"]
    with Stream(fake, {"messages": [{"role": "user", "content": "x"}], "stream": True}, {"X-Request-Id": "s-1"}) as s:
        assert s.headers["X-Request-Id"] == "s-1"


def test_tokenize(fake):
    r = fake.post("/tokenize", {"prompt": "ab"})
    assert r.status == 200
    assert r.json() == {"count": 3, "max_model_len": 2048, "tokens": [1, 197, 198], "token_strs": None}
    r = fake.post("/tokenize", {"model": "vlmd-tiny", "prompt": "ab", "add_special_tokens": False, "return_token_strs": True})
    assert r.json() == {"count": 2, "max_model_len": 2048, "tokens": [197, 198], "token_strs": ["a", "b"]}
    assert fake.post("/tokenize", {"prompt": ""}).json()["count"] == 1
    r = fake.post("/tokenize", {"messages": [{"role": "user", "content": "ab"}], "add_generation_prompt": True})
    assert r.json()["tokens"] == [197, 198]


@pytest.mark.parametrize("body,status,param", [
    ({}, 400, "prompt"), ({"prompt": 5}, 400, "prompt"), ({"prompt": ["a"]}, 400, "prompt"),
    ({"prompt": "a", "add_special_tokens": "x"}, 400, "add_special_tokens"),
    ({"prompt": "a", "return_token_strs": 1}, 400, "return_token_strs"),
    ({"prompt": "a", "model": "other"}, 404, "model"), ({"messages": []}, 400, "messages"),
    ({"messages": [{"role": "user"}]}, 400, "messages[0].content"), ([], 400, None),
    ({"messages": [{"role": "user", "content": "a"}], "continue_final_message": True}, 400, "continue_final_message"),
])
def test_tokenize_errors(fake, body, status, param):
    r = fake.post("/tokenize", body)
    assert r.status == status and r.error()["param"] == param


def test_detokenize(fake):
    assert fake.post("/detokenize", {"tokens": [197, 198]}).json() == {"prompt": "ab"}
    assert fake.post("/detokenize", {"tokens": []}).json() == {"prompt": ""}
    # Half a character comes out as U+FFFD.
    assert fake.post("/detokenize", {"tokens": [100 + 0xE2, 100 + 0x82]}).json() == {"prompt": "\ufffd"}
    for tokens, param in ((None, "tokens"), ("x", "tokens"), ([1.5], "tokens[0]"), ([1, -1], "tokens[1]"),
                          ([2048], "tokens[0]"), ([True], "tokens[0]"), ([2 ** 40], "tokens[0]")):
        r = fake.post("/detokenize", {"tokens": tokens})
        assert r.status == 400 and r.error()["param"] == param
    assert fake.post("/detokenize", {"tokens": [1], "model": "x"}).status == 404


def test_metrics_text(fake):
    fake.chat("tokens=3")
    r = fake.get("/metrics")
    assert r.status == 200 and r.headers["Content-Type"].startswith("text/plain; version=0.0.4")
    typed = set()
    for line in r.body.decode().splitlines():
        if line.startswith("# TYPE "):
            typed.add(line.split()[2])
        elif not line.startswith("#"):
            m = re.match(r'^(vlmd:[a-z0-9_]+)(\{([a-z_]+="[^"]*",?)*\})? [-+0-9.e]+$|^.*Inf.*$', line)
            assert m, line
    for name in ("num_requests_running", "num_requests_waiting", "kv_cache_usage_perc", "num_preemptions_total",
                 "prompt_tokens_total", "generation_tokens_total", "request_success_total",
                 "time_to_first_token_seconds", "e2e_request_latency_seconds"):
        assert "vlmd:" + name in typed, name
    before = fake.metric("generation_tokens_total")
    fake.chat("tokens=4")
    assert fake.metric("generation_tokens_total") == before + 4
    assert fake.metric("request_success_total", finished_reason="stop") >= 1


def test_keep_alive(fake):
    """Several requests on one connection, with errors among them."""
    import http.client
    c = http.client.HTTPConnection("127.0.0.1", fake.port, timeout=60)
    c.connect()
    first = c.sock
    chat = json.dumps({"messages": [{"role": "user", "content": "tokens=2"}]})
    stream = json.dumps({"messages": [{"role": "user", "content": "tokens=2"}], "stream": True})
    for method, path, body, status in [("POST", "/v1/chat/completions", chat, 200), ("GET", "/nope", None, 404),
                                       ("POST", "/v1/chat/completions", stream, 200), ("POST", "/tokenize", "{", 400),
                                       ("POST", "/health", "{}", 405), ("POST", "/v1/chat/completions", chat, 200)]:
        c.request(method, path, body)
        r = c.getresponse()
        data = r.read()
        assert r.status == status and data
        assert c.sock is first
    c.close()


def test_http_1_0(fake):
    body = json.dumps({"messages": [{"role": "user", "content": "tokens=2"}], "stream": True}).encode()
    out = fake.raw(b"POST /v1/chat/completions HTTP/1.0\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
    head, text = out.split(b"\r\n\r\n", 1)
    assert b" 200 " in head and b"Transfer-Encoding" not in head
    assert text.startswith(b"data: ") and text.endswith(b"data: [DONE]\n\n")


def test_absolute_form(fake):
    """GET http://host/path, as proxies send it."""
    out = fake.raw(b"GET http://x/health?a=b HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    assert b" 200 " in out.split(b"\r\n")[0] and out.endswith(b'{"status":"ok"}\n')
    assert b" 404 " in fake.raw(b"GET http://x/nope HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").split(b"\r\n")[0]


def test_pipelined(fake):
    """Requests sent at once on one connection are answered in turn."""
    def post(fields, close=b""):
        body = json.dumps({"messages": [{"role": "user", "content": "tokens=2"}], **fields}).encode()
        return b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\n%sContent-Length: %d\r\n\r\n%s" % (close, len(body), body)
    out = fake.raw(post({}) + post({"stream": True}) + post({"n": 0}) + post({}, b"Connection: close\r\n"))
    assert re.findall(rb"HTTP/1.1 (\d+)", out) == [b"200", b"200", b"400", b"200"]
    assert out.count(b"data: [DONE]") == 1 and out.count(b'"chat.completion"') == 2
