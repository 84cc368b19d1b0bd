"""Dual encoders through the running server: vectors and probabilities are the reference library's
(tests/golden/dual/make.py), a request's company changes no bit of them, and what cannot be is refused by name."""
import base64
import json
import math
import struct
import threading

import pytest

from conftest import PIXEL, ROOT, Server, image_part, text_part

GOLDEN = ROOT / "tests" / "golden" / "dual"
NAMES = sorted(p.parent.name for p in GOLDEN.glob("*/golden.json"))
TOLERANCE = 1e-4


def golden(name):
    return json.loads((GOLDEN / name / "golden.json").read_text())


def data_url(name):
    kind = "png" if name.endswith("png") else "jpeg"
    return f"data:image/{kind};base64," + base64.b64encode((GOLDEN / "pictures" / name).read_bytes()).decode()


def unit(v):
    n = math.sqrt(sum(x * x for x in v))
    return [x / n for x in v]


def near(got, want, what):
    assert len(got) == len(want), what
    worst = max(abs(a - b) for a, b in zip(got, want))
    assert worst <= TOLERANCE, (what, worst)


def embed(server, inputs, **more):
    r = server.post("/v1/embeddings", {"input": inputs, **more})
    assert r.status == 200, r.body
    data = r.json()["data"]
    assert [d["index"] for d in data] == list(range(len(data)))
    return [d["embedding"] for d in data]


@pytest.fixture(scope="module", params=NAMES)
def model(request):
    with Server(GOLDEN / request.param) as s:
        s.name, s.golden = request.param, golden(request.param)
        yield s


@pytest.fixture(scope="module")
def clip():
    with Server(GOLDEN / "clip_base", "--scheduling-policy", "priority") as s:
        yield s


def test_enough_goldens():
    assert len(NAMES) >= 5


def test_texts(model):
    cases = model.golden["texts"]
    for c in cases:
        near(embed(model, c["text"], truncate=True)[0], unit(c["vector"]), c["name"])
        near(embed(model, c["text"], truncate=True, normalize=False)[0], c["vector"], c["name"])
    together = embed(model, [c["text"] for c in cases], truncate=True)
    for c, v in zip(cases, together):
        near(v, unit(c["vector"]), c["name"])


def test_token_ids(model):
    cases = model.golden["texts"]
    alone = embed(model, cases[0]["ids"])
    assert alone == embed(model, cases[0]["text"])
    assert embed(model, [c["ids"] for c in cases]) == embed(model, [c["text"] for c in cases], truncate=True)


def test_pictures(model):
    cases = model.golden["pictures"]
    for c in cases:
        item = image_part(data_url(c["path"]))
        near(embed(model, [item])[0], unit(c["vector"]), c["path"])
        near(embed(model, item, normalize=False)[0], c["vector"], c["path"])
    together = embed(model, [image_part(data_url(c["path"])) for c in cases])
    for c, v in zip(cases, together):
        near(v, unit(c["vector"]), c["path"])


def test_zero_shot(model):
    for c in model.golden["zero_shot"]:
        r = model.post("/v1/zero-shot", {"image": data_url(c["path"]), "labels": c["labels"], "template": c["template"],
                                        "truncate": True})
        assert r.status == 200, r.body
        data = r.json()["data"]
        assert [d["label"] for d in data] == c["labels"] and [d["index"] for d in data] == list(range(len(c["labels"])))
        near([d["probability"] for d in data], c["probabilities"], c["path"])
        for d, want in zip(data, c["logits"]):
            assert abs(d["logit"] - want) <= 1e-3, (c["path"], d, want)
        assert r.json()["rule"] == ("sigmoid" if "siglip" in model.name else "softmax")


def test_usage(model):
    g = model.golden
    r = model.post("/v1/embeddings", {"input": g["texts"][0]["text"], "user": "me"}).json()
    pad = g["texts"][0]["ids"][-1]
    n = len(g["texts"][0]["ids"])
    while n > 1 and g["texts"][0]["ids"][n - 2] == pad:  # padding is not counted; one may be the end token itself
        n -= 1
    ends = 0 if "siglip2" in model.name else 1
    assert r["usage"]["prompt_tokens"] == r["usage"]["total_tokens"] == (n if ends else n - 1), (r["usage"], g["texts"][0])
    assert r["object"] == "list" and r["data"][0]["object"] == "embedding" and r["model"] == model.name
    rows = model.post("/v1/embeddings", {"input": [image_part(data_url("tall.png"))]}).json()["usage"]["prompt_tokens"]
    grid = g["pictures"][[c["path"] for c in g["pictures"]].index("tall.png")]["grid"]
    assert rows == (grid[0] * grid[1] if grid else {"clip_base": 17, "clip_old": 10, "siglip_base": 9}[model.name])


def test_forms_of_input(model):
    url = data_url("wide.jpg")
    want = embed(model, [image_part(url)])[0]
    for form in ({"type": "image_url", "image_url": url}, {"image": url}, {"image": {"url": url}}, {"image_url": {"url": url}},
                 {"content": [image_part(url)]}, {"type": "image_url", "image_url": {"url": url, "detail": "low"}}):
        assert embed(model, [form]) == [want], form
        assert embed(model, form) == [want], form
    text = embed(model, "a photo")[0]
    for form in ({"type": "text", "text": "a photo"}, {"text": "a photo"}, {"content": "a photo"},
                 {"content": [text_part("a photo")]}):
        assert embed(model, [form]) == [text], form
    for content, v in ((([image_part(url)]), want), ("a photo", text), ([text_part("a photo")], text)):
        r = model.post("/v1/embeddings", {"messages": [{"role": "user", "content": content}]})
        assert r.status == 200 and r.json()["data"][0]["embedding"] == v, content
    # escapes in a JSON string are the same picture
    body = json.dumps({"input": [image_part(url)]}).replace("/", "\\/")
    assert model.post("/v1/embeddings", body).json()["data"][0]["embedding"] == want
    for image in (url, {"url": url}, {"type": "image_url", "image_url": {"url": url}}, {"image_url": url}):
        r = model.post("/v1/zero-shot", {"image": image, "labels": ["cat", "dog"]})
        assert r.status == 200, (image, r.body)


def test_base64_is_float(model):
    inputs = ["a photo of a cat", image_part(data_url("grey.jpg")), "dog"]
    floats = embed(model, inputs, encoding_format="float")
    packed = embed(model, inputs, encoding_format="base64")
    for f, b in zip(floats, packed):
        raw = base64.b64decode(b, validate=True)
        v = struct.unpack(f"<{len(raw) // 4}f", raw)
        assert [struct.unpack("<f", struct.pack("<f", x))[0] for x in f] == list(v)


def test_cold_is_warm(model):
    """The picture cache and the company of other pictures of the same request change no bit."""
    inputs = [image_part(data_url(n)) for n in ("wide.jpg", "tall.png", "wide.jpg")]
    encoded = model.metric("images_total")
    with Server(GOLDEN / model.name) as cold:
        first = embed(cold, inputs)
        assert first[0] == first[2]
        assert embed(cold, inputs[1:2]) == first[1:2]
        cold.wait_idle()
        assert cold.metric("images_total") == 2
    assert embed(model, inputs) == first
    assert model.metric("images_total") <= encoded + 2


def test_bits_under_load(model):
    """Many requests of texts and pictures at once: each gets, bit for bit, what it gets alone."""
    texts = [c["text"] for c in model.golden["texts"]]
    images = [image_part(data_url(c["path"])) for c in model.golden["pictures"]]
    mixed = [x for pair in zip(texts, images) for x in pair]
    requests = [mixed, texts * 5, images, [mixed[3]], [mixed[4]], texts[:1], images[2:5], mixed[::-1]]
    with Server(GOLDEN / model.name, "--max-num-batched-tokens", 200, "--image-cache-memory", 0) as s:
        alone = [embed(s, r, truncate=True, encoding_format="base64") for r in requests]
        got, threads = {}, []
        for k in range(3):
            for i, r in enumerate(requests):
                def run(k=k, i=i, r=r):
                    got[k, i] = embed(s, r, truncate=True, encoding_format="base64")
                threads.append(threading.Thread(target=run))
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        assert len(got) == len(threads)
        for (k, i), v in got.items():
            assert v == alone[i], i
        s.wait_idle()
        assert s.metric("embeddings_total") == 4 * sum(map(len, requests))
    assert embed(model, mixed, truncate=True, encoding_format="base64") == alone[0]


def test_small_step():
    """A text that is longer than a step may be runs in one by itself."""
    g = golden("siglip2_naflex")
    with Server(GOLDEN / "siglip2_naflex", "--max-num-batched-tokens", 3, "--max-num-seqs", 1) as s:
        for c, v in zip(g["texts"], embed(s, [c["text"] for c in g["texts"]], truncate=True)):
            near(v, unit(c["vector"]), c["name"])


def test_user_text_is_no_special_token(clip):
    assert embed(clip, "a<|endoftext|>photo") != embed(clip, "a")
    plain = clip.post("/v1/embeddings", {"input": "a<|endoftext|>photo"}).json()["usage"]["prompt_tokens"]
    assert plain > 5


def test_models_and_metrics(clip):
    m = clip.get("/v1/models").json()["data"][0]
    assert m["task"] == "embed" and m["embedding_size"] == 21 and m["max_model_len"] == 19
    clip.wait_idle()
    before = clip.metric("prompt_tokens_total"), clip.metric("embeddings_total")
    embed(clip, ["a", "b"])
    clip.wait_idle()
    assert clip.metric("embeddings_total") == before[1] + 2 and clip.metric("prompt_tokens_total") > before[0]
    assert "POST /v1/embeddings 200" in clip.text()
    r = clip.request("OPTIONS", "/v1/zero-shot")
    assert r.status == 204 and "POST" in r.headers["Allow"]


REFUSED = [
    ({}, 400, "input"), ({"input": []}, 400, "input"), ({"input": 5}, 400, "input"), ({"input": None}, 400, "input"),
    ({"input": [[]]}, 400, "input[0]"), ({"input": ["a", 5]}, 400, "input[1]"), ({"input": [5, "a"]}, 400, "input[1]"),
    ({"input": [[1, "a"]]}, 400, "input[0][1]"), ({"input": [-1]}, 400, "input[0]"), ({"input": [1.5]}, 400, "input[0]"),
    ({"input": ["a", [1, 99999]]}, 400, "input[1][1]"), ({"input": [{}]}, 400, "input[0]"),
    ({"input": {"type": "audio"}}, 400, "input.type"), ({"input": {"type": "text"}}, 400, "input.text"),
    ({"input": {"type": "text", "text": 1}}, 400, "input.text"),
    ({"input": [{"type": "image_url"}]}, 400, "input[0].image_url"),
    ({"input": [{"type": "image_url", "image_url": {}}]}, 400, "input[0].image_url.url"),
    ({"input": [image_part("http://x/y.png")]}, 400, "input[0].image_url.url"),
    ({"input": [image_part("data:image/png;base64,AAAA")]}, 400, "input[0].image_url.url"),
    ({"input": ["x", image_part(PIXEL[:60])]}, 400, "input[1].image_url.url"),
    ({"input": [{"content": [text_part("a"), image_part()]}]}, 400, "input[0].content"),
    ({"input": [{"content": []}]}, 400, "input[0].content"), ({"messages": []}, 400, "messages"),
    ({"messages": [{"role": "user", "content": "a"}] * 2}, 400, "messages"), ({"messages": "a"}, 400, "messages"),
    ({"messages": [5]}, 400, "messages[0]"), ({"messages": [{"role": "user"}]}, 400, "messages[0].content"),
    ({"messages": [{"role": "user", "content": "a"}], "input": "a"}, 400, "messages"),
    ({"input": "a", "encoding_format": "int8"}, 400, "encoding_format"),
    ({"input": "a", "encoding_format": 1}, 400, "encoding_format"), ({"input": "a", "dimensions": 20}, 400, "dimensions"),
    ({"input": "a", "dimensions": 0}, 400, "dimensions"), ({"input": "a", "user": 1}, 400, "user"),
    ({"input": "a", "normalize": "x"}, 400, "normalize"), ({"input": "a", "truncate": 1}, 400, "truncate"),
    ({"input": "a", "truncate_prompt_tokens": 5}, 400, "truncate_prompt_tokens"),
    ({"input": "a", "add_special_tokens": False}, 400, "add_special_tokens"),
    ({"input": "a", "model": "other"}, 404, "model"), ({"input": ["a"] * 2049}, 400, "input"),
    ({"input": "the old town hall " * 9}, 400, "input"), ({"input": ["a", list(range(20))]}, 400, "input[1]"), ([], 400, None),
]


@pytest.mark.parametrize("body,status,param", REFUSED, ids=range(len(REFUSED)))
def test_refused(clip, body, status, param):
    r = clip.post("/v1/embeddings", body)
    assert r.status == status, r.body
    assert r.error()["param"] == param, r.body


def test_too_long_says_both_numbers(clip):
    e = clip.post("/v1/embeddings", {"input": ["a", "the old town hall " * 9]}).error()
    assert "19" in e["message"] and "38" in e["message"] and e["param"] == "input[1]", e
    assert len(embed(clip, "the old town hall " * 9, truncate_prompt_tokens=-1)[0]) == 21
    assert embed(clip, list(range(5, 30)), truncate=True) == embed(clip, list(range(5, 24)))


def test_accepted(clip):
    for more in ({"dimensions": 21}, {"user": "u"}, {"encoding_format": None}, {"priority": -3}, {"unknown_field": 1},
                 {"add_special_tokens": True}, {"truncate_prompt_tokens": None}):
        embed(clip, "a", **more)
    assert len(embed(clip, ["a"] * 2048)) == 2048


ZERO_SHOT_REFUSED = [
    ({}, "labels"), ({"labels": []}, "labels"), ({"labels": "cat"}, "labels"), ({"labels": ["cat", 5], "image": PIXEL}, "labels[1]"),
    ({"labels": ["cat"]}, "image"), ({"labels": ["cat"], "image": 5}, "image"),
    ({"labels": ["cat"], "image": "https://x/y"}, "image"), ({"labels": ["cat"], "image": {"url": 1}}, "image.url"),
    ({"labels": ["cat"], "image": {"image_url": {"url": "x"}}}, "image.image_url.url"),
    ({"labels": ["cat"], "image": PIXEL, "template": "no place"}, "template"),
    ({"labels": ["cat"], "image": PIXEL, "template": "{} and {}"}, "template"),
    ({"labels": ["cat"], "image": PIXEL, "template": 5}, "template"),
    ({"labels": ["cat", "the old town hall " * 9], "image": PIXEL}, "labels[1]"),
    ({"labels": ["cat"] * 2048, "image": PIXEL}, "labels"), ({"labels": ["cat"], "image": PIXEL, "truncate": 5}, "truncate"),
]


@pytest.mark.parametrize("body,param", ZERO_SHOT_REFUSED, ids=range(len(ZERO_SHOT_REFUSED)))
def test_zero_shot_refused(clip, body, param):
    r = clip.post("/v1/zero-shot", body)
    assert r.status == 400 and r.error()["param"] == param, r.body


def test_wrong_kind_of_model(clip, server):
    r = clip.chat("hello")
    assert r.status == 400 and "/v1/embeddings" in r.error()["message"] and r.error()["code"] == "unsupported_value"
    r = clip.post("/tokenize", {"messages": [{"role": "user", "content": "a"}]})
    assert r.status == 400 and "/v1/embeddings" in r.error()["message"]
    assert clip.post("/tokenize", {"prompt": "a photo"}).json()["count"] == 4
    for path, body in (("/v1/embeddings", {"input": "a"}), ("/v1/zero-shot", {"image": PIXEL, "labels": ["a"]})):
        r = server.post(path, body)
        assert r.status == 400 and "/v1/chat/completions" in r.error()["message"], r.body


@pytest.mark.tsan
def test_disconnect_cancels(clip):
    """A client that leaves takes its job along; others go on."""
    body = json.dumps({"input": ["the old town hall and the harbour"] * 2048}).encode()
    aborted = clip.metric("request_success_total", finished_reason="abort")
    for _ in range(20):  # one that leaves before its body is read is no job yet
        conns = [clip.connect() for _ in range(6)]
        for c in conns:
            c.request("POST", "/v1/embeddings", body, {"Content-Type": "application/json"})
        for _ in range(200):
            if clip.metric("num_requests_running") + clip.metric("num_requests_waiting") > 0:
                break
        for c in conns:
            c.close()
        assert len(embed(clip, "a photo")[0]) == 21
        clip.wait_idle()
        if clip.metric("request_success_total", finished_reason="abort") > aborted:
            break
    assert clip.metric("request_success_total", finished_reason="abort") > aborted


@pytest.mark.tsan
def test_short_is_not_starved(clip):
    """A request of one text does not wait for those of thousands that came before it."""
    import time
    done = {}

    def long(i):
        embed(clip, ["the old town hall and the harbour seen from below"] * 2048)
        done[i] = time.time()
    threads = [threading.Thread(target=long, args=(i,)) for i in range(4)]
    for t in threads:
        t.start()
    while clip.metric("num_requests_running") < 4 and len(done) < 1:
        pass
    embed(clip, "a photo")
    short = time.time()
    for t in threads:
        t.join()
    assert sum(short < t for t in done.values()) >= 3, (short, done)


@pytest.mark.tsan
def test_queue_is_bounded():
    with Server(GOLDEN / "clip_base", "--max-queued-requests", 1, "--max-num-seqs", 1) as s:
        body = {"input": ["the old town hall and the harbour seen from below"] * 2048}
        codes = []
        threads = [threading.Thread(target=lambda: codes.append(s.post("/v1/embeddings", body).status)) for _ in range(8)]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        assert set(codes) == {200, 429}, codes
