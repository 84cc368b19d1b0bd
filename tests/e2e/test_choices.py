"""n choices of one request: each is the answer that its seed gives alone; the prompt and its pictures are computed once."""
import json
import time

import pytest
from conftest import Server, Stream, image_part, picture, text_part
from test_disconnect import wait_running

SHAPE = picture("easy-vqa-1044.png")
ASK = [image_part(SHAPE), text_part("What is in the image? Say more than you know of every shape and its color.")]
SAMPLED = {"temperature": 1.3, "max_tokens": 20, "ignore_eos": True, "seed": 40, "logprobs": True, "top_logprobs": 2, "return_token_ids": True}


def of_stream(events):
    """[(text, token ids, logprobs, finish)] by index, after checking the form: one role, first of all, and one finish a choice; one
    usage chunk; one [DONE]."""
    assert events[-1] == "[DONE]" and events.count("[DONE]") == 1
    assert events[-2]["choices"] == [] and sum(not e["choices"] for e in events[:-1]) == 1
    out = {}
    for e in events[:-2]:
        assert len(e["choices"]) == 1 and e["usage"] is None
        c = e["choices"][0]
        if c["index"] not in out:
            assert c["delta"] == {"role": "assistant", "content": ""}
            out[c["index"]] = ["", [], [], None]
            continue
        assert "role" not in c["delta"] and out[c["index"]][3] is None
        mine = out[c["index"]]
        mine[0] += c["delta"].get("content", "")
        mine[1] += c.get("token_ids") or []
        mine[2] += (c["logprobs"] or {}).get("content", [])
        mine[3] = c["finish_reason"]
    return [tuple(out[i]) for i in range(len(out))], events[-2]["usage"]


def of_reply(r):
    assert r.status == 200, r.body
    d = r.json()
    assert [c["index"] for c in d["choices"]] == list(range(len(d["choices"])))
    return [(c["message"]["content"], c["token_ids"], c["logprobs"]["content"], c["finish_reason"]) for c in d["choices"]], d["usage"]


@pytest.fixture(scope="module", params=[[], ["--no-prefix-caching"], ["--image-cache-memory", "0"],
                                        ["--no-prefix-caching", "--image-cache-memory", "0", "--max-num-seqs", "2"]], ids=" ".join)
def own(request):
    with Server(*request.param) as s:
        s.caches = "--no-prefix-caching" not in request.param
        yield s


def test_each_is_its_seeds_answer(own):
    """Bit for bit: the server's numbers are printed so that they tell floats apart."""
    alone = [of_reply(own.chat(ASK, **{**SAMPLED, "seed": 40 + i})) for i in range(4)]
    prompt = alone[0][1]["prompt_tokens"]
    assert len({a[0][0][0] for a in alone}) == 4
    own.wait_idle()
    before = {m: own.metric(m) for m in ("prompt_tokens_total", "generation_tokens_total", "images_total")}
    together, usage = of_reply(own.chat(ASK, n=4, **SAMPLED))
    assert together == [a[0][0] for a in alone]
    made = sum(len(c[1]) for c in together)
    assert (usage["prompt_tokens"], usage["completion_tokens"], usage["total_tokens"]) == (prompt, made, prompt + made)
    assert (usage["prompt_tokens_details"]["cached_tokens"] > 0) == own.caches
    own.wait_idle()
    assert own.metric("prompt_tokens_total") == before["prompt_tokens_total"] + prompt
    assert own.metric("generation_tokens_total") == before["generation_tokens_total"] + made
    assert own.metric("images_total") <= before["images_total"] + 1
    streamed = own.stream(ASK, n=4, stream_options={"include_usage": True}, **SAMPLED)
    assert of_stream(streamed) == (together, usage)
    assert [("prompt_token_ids" in e) for e in streamed[:-1]] == [True] + [False] * (len(streamed) - 2)


def test_greedy_choices_are_one_answer(server):
    got, _ = of_reply(server.chat(ASK, n=3, temperature=0, max_tokens=8, logprobs=True, return_token_ids=True))
    assert got == [got[0]] * 3


def test_sixteen_without_a_seed_differ(server):
    got, usage = of_reply(server.chat("Hello", n=16, temperature=2, max_tokens=6, ignore_eos=True, logprobs=True, return_token_ids=True))
    assert len(got) == 16 and len({tuple(c[1]) for c in got}) > 8
    assert usage["completion_tokens"] == 96


def test_pages_are_shared():
    """A cache that holds the prompt twice: choices with pages of their own would need many times that."""
    with Server("--max-model-len", "512", "--kv-cache-memory", "4M", "--max-num-seqs", "16", "--no-prefix-caching") as s:
        long = "what is it " * 100
        # Two tokens take two turns: the gauge of the first says until the end of the second that its figures are to come.
        prompt = s.chat(long, max_tokens=2, ignore_eos=True).json()["usage"]["prompt_tokens"]
        s.wait_idle()
        steps = s.metric("iteration_tokens_total_sum")
        d = s.chat(long, n=8, max_tokens=4, ignore_eos=True, temperature=1).json()
        assert len(d["choices"]) == 8 and d["usage"]["prompt_tokens_details"]["cached_tokens"] == 0
        # rows: the prompt once, of each other choice at most a page of it again, and the answers but their last tokens
        s.wait_idle()
        assert prompt + 24 <= s.metric("iteration_tokens_total_sum") - steps <= prompt + 7 * 16 + 24
        assert s.metric("prefix_cache_queries_total") == 0 and s.metric("num_preemptions_total") == 0


@pytest.mark.parametrize("stream", [False, True])
def test_a_broken_picture_is_one_refusal(server, stream):
    cut = SHAPE[:len(SHAPE) // 2 // 4 * 4]
    r = server.chat([image_part(SHAPE), image_part(cut)], n=3, stream=stream)
    if stream and r.status == 200:  # noticed by the decoder, when the stream was begun
        events = [json.loads(x[6:]) if x != "data: [DONE]" else "[DONE]" for x in r.body.decode().split("\n\n") if x]
        assert len(events) == 2 and events[1] == "[DONE]" and events[0]["error"]["type"] == "invalid_request_error"
    else:
        assert r.status == 400 and r.error()["param"] == "messages[0].content[1].image_url.url"
    server.wait_idle()
    assert server.metric("kv_cache_usage_perc") == 0


@pytest.mark.tsan
@pytest.mark.parametrize("stream", [False, True])
def test_client_leaves(server, stream):
    aborted = server.metric("request_success_total", finished_reason="abort")
    body = {"messages": [{"role": "user", "content": ASK}], "n": 5, "stream": stream, "ignore_eos": True, "temperature": 1}
    if stream:
        with Stream(server, body) as s:
            seen = set()
            for e in s.events():
                seen.add(e["choices"][0]["index"])
                if len(seen) == 5:
                    break
    else:
        c = server.connect()
        c.request("POST", "/v1/chat/completions", json.dumps(body), {"Content-Type": "application/json"})
        wait_running(server, 5)
        c.close()
    server.wait_idle()
    assert server.metric("request_success_total", finished_reason="abort") == aborted + 5
    assert server.metric("kv_cache_usage_perc") == 0


# ---- over scripted answers ----

@pytest.mark.tsan
def test_unstreamed_form(fake):
    d = fake.chat("tokens=2 more=3 say=#_", n=3, max_tokens=6, return_token_ids=True).json()
    assert [c["message"]["content"] for c in d["choices"]] == ["0 " * 2, "1 " * 5, "2 " * 6]
    assert [c["finish_reason"] for c in d["choices"]] == ["stop", "stop", "length"]
    assert [c["token_ids"] for c in d["choices"]] == [[7] * 2, [8] * 5, [9] * 6]
    assert d["usage"]["completion_tokens"] == 13 and d["usage"]["prompt_tokens"] == len("tokens=2 more=3 say=#_")


@pytest.mark.tsan
@pytest.mark.parametrize("delay", [0, 15])
def test_streamed_form(fake, delay):
    got, usage = of_stream(fake.stream(f"tokens=2 more=3 say=#_ delay_ms={delay}", n=3, max_tokens=6, return_token_ids=True,
                                       stream_options={"include_usage": True}))
    assert [(c[0], c[1], c[3]) for c in got] == [("0 0 ", [7] * 2, "stop"), ("1 " * 5, [8] * 5, "stop"), ("2 " * 6, [9] * 6, "length")]
    assert usage["completion_tokens"] == 13


@pytest.mark.tsan
@pytest.mark.parametrize("script", ["error_after=2 error_choice=1", "error_after=0 error_choice=2", "error_after=0", "error_after=3"])
def test_one_failure_is_the_requests(fake, script):
    """At once, although the other choices would run for minutes."""
    fake.wait_idle()
    text = f"tokens=100000 delay_ms=20 {script}"
    r = fake.chat(text, n=3)
    assert r.status == 500 and r.error()["message"] == "the device failed"
    fake.wait_idle(10)
    events = fake.stream(text, n=3)
    assert events[-1] == "[DONE]" and events[-2]["error"]["message"] == "the device failed"
    assert all("choices" in e and not e["choices"][0]["finish_reason"] for e in events[:-2])
    fake.wait_idle(10)


def test_latencies_are_a_choices_own(make_fake):
    """Three choices of four tokens each: three first tokens, nine gaps, each as long as a round."""
    s = make_fake()
    s.chat("tokens=4 delay_ms=60", n=3)
    s.wait_idle()
    assert s.metric("time_to_first_token_seconds_count") == 3
    assert s.metric("inter_token_latency_seconds_count") == 9
    assert s.metric("inter_token_latency_seconds_sum") >= 9 * 0.06
    assert s.metric("request_success_total", finished_reason="stop") == 3
    assert s.metric("e2e_request_latency_seconds_count") == 3


def test_log_line(make_fake):
    s = make_fake("--log-format", "json")
    for fields in ({}, {"max_tokens": 4}):
        s.chat("tokens=2 more=3", n=3, **fields)
    end = time.time() + 30
    while sum('"event":"request"' in x for x in list(s.log)) < 2 and time.time() < end:
        time.sleep(0.02)
    first, second = (json.loads(x) for x in s.log if '"event":"request"' in x)
    assert (first["completion_tokens"], first["finish_reason"]) == (2 + 5 + 8, "stop")
    assert (second["completion_tokens"], second["finish_reason"]) == (2 + 4 + 4, "mixed")
