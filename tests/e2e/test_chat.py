"""Chat completions over scripted answers: fields, replies, streams and their errors."""
import http.client
import json
import threading

import pytest
from conftest import PIXEL, Stream, finishes, image_part, text_of, text_part

pytestmark = pytest.mark.tsan


def test_reply(fake):
    r = fake.chat("tokens=3")
    assert r.status == 200 and r.headers["Content-Type"] == "application/json"
    d = r.json()
    assert d["object"] == "chat.completion" and d["id"].startswith("chatcmpl-") and d["model"] == "vlmd-tiny"
    assert isinstance(d["created"], int) and len(d["choices"]) == 1
    c = d["choices"][0]
    assert c["index"] == 0 and c["finish_reason"] == "stop" and c["logprobs"] is None
    assert c["message"]["role"] == "assistant" and c["message"]["content"] == "word word word "
    assert d["usage"] == {"prompt_tokens": 8, "completion_tokens": 3, "total_tokens": 11,
                          "prompt_tokens_details": {"cached_tokens": 0}}
    assert "prompt_token_ids" not in d and "token_ids" not in c
    assert fake.chat("tokens=9", max_tokens=2).json()["choices"][0]["finish_reason"] == "length"
    assert fake.chat("tokens=1").json()["id"] != d["id"]


def test_lengths(fake):
    """The newer name wins; null is absent."""
    for fields, n in (({"max_tokens": 2, "max_completion_tokens": 3}, 3), ({"max_tokens": 2, "max_completion_tokens": None}, 2),
                      ({"max_tokens": None}, 5), ({"max_tokens": 4.0}, 4)):
        assert fake.chat("tokens=5", **fields).json()["usage"]["completion_tokens"] == n
    for name in ("max_tokens", "max_completion_tokens"):
        r = fake.chat("tokens=5", **{name: 5000})
        assert r.status == 400 and r.error()["param"] == name
        assert "5000" in r.error()["message"] and "2048" in r.error()["message"]


def test_model(fake):
    assert fake.chat("tokens=1", model="vlmd-tiny").status == 200
    assert fake.chat("tokens=1", model=None).status == 200
    r = fake.chat("tokens=1", model="gpt-4o")
    assert r.status == 404
    assert r.error()["code"] == "model_not_found" and r.error()["param"] == "model" and "gpt-4o" in r.error()["message"]


def test_stream_form(fake):
    events = fake.stream("tokens=4 delay_ms=15 say=a_")
    assert events[-1] == "[DONE]" and events.count("[DONE]") == 1
    chunks = events[:-1]
    assert len({c["id"] for c in chunks}) == 1 and chunks[0]["id"].startswith("chatcmpl-")
    assert {c["object"] for c in chunks} == {"chat.completion.chunk"}
    assert len({c["created"] for c in chunks}) == 1 and {c["model"] for c in chunks} == {"vlmd-tiny"}
    roles = [c["choices"][0]["delta"].get("role") for c in chunks]
    assert roles[0] == "assistant" and not any(roles[1:])
    assert finishes(events) == ["stop"]
    assert chunks[-1]["choices"][0]["finish_reason"] == "stop" and chunks[-1]["choices"][0]["delta"] == {}
    assert all("usage" not in c for c in chunks)
    assert text_of(events) == "a a a a " == fake.chat("tokens=4 say=a_").json()["choices"][0]["message"]["content"]
    assert len(chunks) >= 4  # a slow answer comes in pieces


def test_stream_headers(fake):
    with Stream(fake, {"messages": [{"role": "user", "content": "tokens=1"}], "stream": True}) as s:
        assert s.status == 200
        assert s.headers["Content-Type"].startswith("text/event-stream")
        assert s.headers["Cache-Control"] == "no-cache"


def test_stream_usage(fake):
    events = fake.stream("tokens=3", stream_options={"include_usage": True})
    usage = events[-2]
    assert usage["choices"] == [] and usage["usage"] == {"prompt_tokens": 8, "completion_tokens": 3, "total_tokens": 11,
                          "prompt_tokens_details": {"cached_tokens": 0}}
    assert all(e["usage"] is None for e in events[:-2])
    assert all("usage" not in e for e in fake.stream("tokens=3", stream_options={"include_usage": False})[:-1])


def test_logprobs(fake):
    d = fake.chat("tokens=2 say=x", logprobs=True, top_logprobs=3).json()["choices"][0]
    content = d["logprobs"]["content"]
    assert len(content) == 2
    for e in content:
        assert e["token"] == "x" and e["bytes"] == [120] and e["logprob"] == -0.5 and len(e["top_logprobs"]) == 3
        assert e["top_logprobs"][1]["token"] == "\ufffd" and e["top_logprobs"][1]["bytes"] == [0xE2, 0x82]
    d = fake.chat("tokens=2 say=x", logprobs=True).json()["choices"][0]
    assert [e["top_logprobs"] for e in d["logprobs"]["content"]] == [[], []]
    events = fake.stream("tokens=3 say=x delay_ms=10", logprobs=True, top_logprobs=1)
    entries = [e for c in events[:-1] for ch in c["choices"] if ch["logprobs"] for e in ch["logprobs"]["content"]]
    assert [e["token"] for e in entries] == ["x"] * 3


def test_token_ids(fake):
    d = fake.chat("tokens=2", return_token_ids=True).json()
    assert d["prompt_token_ids"] == [100 + c for c in b"tokens=2"] and d["choices"][0]["token_ids"] == [7, 7]
    events = fake.stream("tokens=2 delay_ms=10", return_token_ids=True)
    assert events[0]["prompt_token_ids"] == [100 + c for c in b"tokens=2 delay_ms=10"]
    assert all("prompt_token_ids" not in e for e in events[1:-1])
    assert [i for e in events[:-1] for c in e["choices"] for i in c.get("token_ids") or []] == [7, 7]


def test_pictures(fake):
    parts = [image_part(), text_part("tokens=1"), {"type": "image_url", "image_url": PIXEL},
             {"type": "image_url", "image_url": {"url": PIXEL.replace("/", "\\/"), "detail": "low"}}, text_part("tokens=1")]
    body = json.dumps({"messages": [{"role": "user", "content": parts}], "return_token_ids": True}).replace("\\\\/", "\\/")
    d = fake.post("/v1/chat/completions", body).json()
    assert d["prompt_token_ids"].count(4) == 3 * 36
    r = fake.chat([text_part("tokens=1"), image_part(), image_part("data:image/png;base64,BADBAD")])
    assert r.status == 400 and r.error()["param"] == "messages[0].content[2].image_url.url"
    r = fake.chat([text_part("a"), image_part("https://example.org/a.png")])
    assert r.status == 400 and r.error()["param"] == "messages[0].content[1].image_url.url" and "network" in r.error()["message"]


def test_big_picture(fake):
    """20 MB of base64 with every slash escaped."""
    url = "data:image/jpeg;base64," + "QUJD\\/+8=" * 2_500_000
    body = '{"messages":[{"role":"user","content":[{"type":"image_url","image_url":{"url":"%s"}},{"type":"text","text":"tokens=1"}]}]}' % url
    assert fake.post("/v1/chat/completions", body).status == 200


@pytest.mark.parametrize("fields,param", [
    ({"n": 17}, "n"), ({"n": 0}, "n"), ({"n": -1}, "n"), ({"n": 1.5}, "n"), ({"n": "2"}, "n"), ({"n": 2, "best_of": 3}, "best_of"),
    ({"tools": [{"type": "function", "function": {"name": "f"}}]}, "tools"),
    ({"response_format": {"type": "json_object"}}, "response_format"), ({"tool_choice": "required"}, "tool_choice"),
    ({"temperature": 3}, "temperature"), ({"top_logprobs": 2}, "top_logprobs"), ({"logprobs": True, "top_logprobs": 21}, "top_logprobs"),
    ({"stop": [""]}, "stop"), ({"logit_bias": {"a": 1}}, "logit_bias"), ({"max_tokens": -1}, "max_tokens"),
    ({"messages": []}, "messages"), ({"messages": [{"role": "user", "content": [{"type": "video_url"}]}]}, "messages[0].content[0].type"),
    ({"messages": [{"role": "user", "content": "x" * 3000}]}, "messages"),
    ({"stream": True, "temperature": "hot"}, "temperature"),
])
def test_refusals(fake, fields, param):
    r = fake.chat(**fields)
    assert r.status == 400 and r.error()["param"] == param and r.error()["type"] == "invalid_request_error"


def test_neutral_fields(fake):
    r = fake.chat("tokens=1", n=1, tools=[], tool_choice="none", response_format={"type": "text"}, parallel_tool_calls=True,
                  user="me", stop=None, seed=None, logit_bias=None, stream=False, stream_options=None, metadata={"a": "b"}, store=True)
    assert r.status == 200, r.body
    assert fake.chat("tokens=1", some_new_field=1).status == 200
    assert fake.chat("tokens=1", some_new_field=2).status == 200
    assert fake.text().count('unknown field "some_new_field"') == 1


@pytest.mark.parametrize("body", [b"", b"{", b"null", b"[]", b'"x"', b"\xff\xfe", b'{"messages":[{"role":"user","content":"\xff"}]}',
                                  b'{"messages":[{"role":"user","content":"\\ud800"}]}', b"[" * 100000, b'{"a":' * 100000,
                                  b'{"messages":[],"messages":[]}', b'{"temperature":NaN}', b'{"temperature":1e999}',
                                  b'{"messages":[{"role":"user","content":"a"}],"seed":' + b"9" * 400 + b"}", b"\x00"])
def test_bad_json(fake, body):
    r = fake.request("POST", "/v1/chat/completions", body)
    assert r.status == 400 and r.error()["type"] == "invalid_request_error"


def test_content_type_leniency(fake):
    body = json.dumps({"messages": [{"role": "user", "content": "tokens=1"}]}).encode()
    for kind in ("text/plain", "application/x-www-form-urlencoded", "application/json; charset=utf-8", ""):
        assert fake.request("POST", "/v1/chat/completions", body, headers={"Content-Type": kind}).status == 200
    assert fake.request("POST", "/v1/chat/completions", b"\xef\xbb\xbf" + body).status == 200


def test_chunked_body(fake):
    c = http.client.HTTPConnection("127.0.0.1", fake.port, timeout=60)
    body = json.dumps({"messages": [{"role": "user", "content": [image_part(), text_part("tokens=2")]}]}).encode()
    c.request("POST", "/v1/chat/completions", iter([body[i:i + 7] for i in range(0, len(body), 7)]), encode_chunked=True,
              headers={"Transfer-Encoding": "chunked"})
    r = c.getresponse()
    assert r.status == 200 and json.loads(r.read())["usage"]["completion_tokens"] == 2
    c.close()


def test_late_error(fake):
    r = fake.chat("tokens=5 error_after=2")
    assert r.status == 500 and r.error()["type"] == "server_error"
    events = fake.stream("tokens=5 error_after=2 say=x")
    assert events[-1] == "[DONE]" and "device failed" in events[-2]["error"]["message"]
    assert text_of(events) == "xx" and finishes(events) == []


def test_refused_at_admission(fake):
    """What the engine refuses is no 200, streamed or not."""
    for stream in (False, True):
        r = fake.chat("refuse=1", stream=stream)
        assert r.status == 429 and r.headers["Retry-After"] and r.error()["type"] == "rate_limit_error"


def test_stream_commits_early(fake):
    """The 200 is there while the first token is not."""
    import time
    t0 = time.time()
    with Stream(fake, {"messages": [{"role": "user", "content": "tokens=1 first_ms=3000"}], "stream": True}) as s:
        assert s.status == 200 and time.time() - t0 < 2.5
        assert finishes(list(s.events())) == ["stop"]


def test_keep_alive_comments(make_fake):
    s = make_fake("--keepalive-seconds", "0.5")
    with Stream(s, {"messages": [{"role": "user", "content": "tokens=3 first_ms=2500 delay_ms=900"}], "stream": True}) as st:
        events = list(st.events())
    assert 2 <= st.comments <= 5 and finishes(events) == ["stop"]


def test_many_clients(fake):
    """Streams and plain replies side by side, each with its own text."""
    wrong = []

    def client(i):
        word = f"w{i}_"
        try:
            for k in range(4):
                if (i + k) % 2:
                    got = text_of(fake.stream(f"tokens=20 delay_ms={i % 3} say={word}"))
                else:
                    got = fake.chat(f"tokens=20 delay_ms={i % 3} say={word}").json()["choices"][0]["message"]["content"]
                if got != word.replace("_", " ") * 20:
                    wrong.append((i, got))
        except Exception as e:
            wrong.append((i, repr(e)))
    threads = [threading.Thread(target=client, args=(i,)) for i in range(24)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not wrong
    fake.wait_idle()


def test_big_output(fake):
    """More than the outbox holds at a time, to a client that reads."""
    r = fake.chat("tokens=100 big=100000")
    assert len(r.json()["choices"][0]["message"]["content"]) == 10_000_000
