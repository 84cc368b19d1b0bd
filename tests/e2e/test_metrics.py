"""/metrics: the names and meanings that boards and alerts rely on, and the board under docker/."""
import json
import re

import pytest
from conftest import MODEL, ROOT, Server, image_part, picture, text_part

HISTOGRAMS = ["time_to_first_token_seconds", "inter_token_latency_seconds", "e2e_request_latency_seconds", "request_queue_time_seconds",
              "request_prefill_time_seconds", "request_decode_time_seconds", "iteration_tokens_total", "request_prompt_tokens",
              "request_generation_tokens"]
GAUGES = ["num_requests_running", "num_requests_waiting", "kv_cache_usage_perc", "image_pixels_in_flight", "num_requests_queued",
          "queued_prompt_tokens", "image_memory_used_bytes", "request_memory_used_bytes", "weight_bytes", "kv_cache_bytes", "activation_bytes",
          "image_memory_bytes", "request_memory_bytes"]
COUNTERS = ["num_preemptions_total", "prompt_tokens_total", "generation_tokens_total", "request_success_total", "image_tokens_total",
            "image_decode_seconds_total", "image_resize_seconds_total", "image_encode_seconds_total", "request_refusals_total",
            "device_idle_seconds_total"]


def parse(text):
    """(types by name, values by name and labels), after checking the form of every line."""
    types, values = {}, {}
    for line in text.splitlines():
        if m := re.match(r"# TYPE (vlmd:\w+) (counter|gauge|histogram)$", line):
            assert m[1] not in types, "two blocks of " + m[1]
            types[m[1]] = m[2]
        elif not line.startswith("# HELP "):
            m = re.match(r'(vlmd:\w+)(?:\{((?:[a-z_]+="[^"]*",?)*)\})? ([-+0-9.e]+)$', line)
            assert m, line
            assert (m[1], m[2]) not in values, "twice: " + line
            values[m[1], m[2]] = float(m[3])
    for name, _ in values:
        assert name in types or types.get(re.sub(r"_(bucket|sum|count)$", "", name)) == "histogram", name
    return types, values


def buckets(values, name):
    """The cumulative counts by bound, in order."""
    out = [(float(re.search(r'le="([^"]+)"', labels)[1]), v) for (n, labels), v in values.items() if n == f"vlmd:{name}_bucket"]
    assert out == sorted(out) and out[-1][0] == float("inf")
    assert all(a[1] <= b[1] for a, b in zip(out, out[1:]))
    return out


def count_of(values, name):
    n, = (v for (k, _), v in values.items() if k == f"vlmd:{name}_count")
    assert buckets(values, name)[-1][1] == n
    return n


def sum_of(values, name):
    v, = (v for (k, _), v in values.items() if k == f"vlmd:{name}_sum")
    return v


@pytest.fixture(scope="module")
def own():
    """A server that nobody else counts on."""
    with Server(MODEL) as s:
        yield s


def test_names_and_counts(own):
    types, before = parse(own.get("/metrics").body.decode())
    for kind, names in (("histogram", HISTOGRAMS), ("gauge", GAUGES), ("counter", COUNTERS)):
        for n in names:
            assert types["vlmd:" + n] == kind, n
    r = own.chat([image_part(picture("easy-vqa-1044.png")), text_part("What is it?")], max_tokens=5, ignore_eos=True, temperature=0).json()
    usage = r["usage"]
    assert usage["completion_tokens"] == 5
    own.stream("Hello", max_tokens=3, ignore_eos=True)
    own.wait_idle()
    _, v = parse(own.get("/metrics").body.decode())
    for n in HISTOGRAMS:
        if n in ("inter_token_latency_seconds", "iteration_tokens_total"):
            continue
        assert count_of(v, n) == count_of(before, n) + 2, n
    assert count_of(v, "inter_token_latency_seconds") == count_of(before, "inter_token_latency_seconds") + 4 + 2
    assert sum_of(v, "request_generation_tokens") == sum_of(before, "request_generation_tokens") + 8
    assert sum_of(v, "request_prompt_tokens") > sum_of(before, "request_prompt_tokens") + usage["prompt_tokens"]
    # Every prompt row and every generated token but each answer's last runs through a step.
    rows = sum_of(v, "iteration_tokens_total") - sum_of(before, "iteration_tokens_total")
    assert rows == sum_of(v, "request_prompt_tokens") - sum_of(before, "request_prompt_tokens") + 4 + 2
    # The parts of a request's time do not exceed the whole.
    parts = sum(sum_of(v, f"request_{p}_time_seconds") for p in ("queue", "prefill", "decode"))
    assert 0 < parts <= sum_of(v, "e2e_request_latency_seconds") * 1.01 + 0.01
    assert own.metric("image_tokens_total") > 0 and own.metric("image_pixels_in_flight") == 0
    for n in ("decode", "resize", "encode"):
        assert own.metric(f"image_{n}_seconds_total") > 0


def test_refusals(own):
    def refused():
        return {r: own.metric("request_refusals_total", reason=r) for r in ("bad_request", "bad_image", "not_found", "method")}
    before = refused()
    assert own.post("/v1/chat/completions", b"{").status == 400
    assert own.chat([image_part("data:image/png;base64,AAAA")]).status == 400
    assert own.get("/nowhere").status == 404
    assert own.get("/v1/chat/completions").status == 405
    assert refused() == {k: v + 1 for k, v in before.items()}


def test_board(own):
    """Every metric that the board asks for is there, with the labels it asks for."""
    board = json.loads((ROOT / "docker" / "grafana" / "vlmd.json").read_text())
    exprs = [t["expr"] for p in board["panels"] for t in p.get("targets", [])]
    exprs += [v["query"]["query"] for v in board["templating"]["list"] if isinstance(v["query"], dict)]
    assert len(exprs) > 30
    _, values = parse(own.get("/metrics").body.decode())
    names, used = {n for n, _ in values}, set()
    for e in exprs:
        found = re.findall(r"vlmd:\w+", e)
        assert found and set(found) <= names, e
        used |= set(found)
        for label in re.findall(r"by \((\w+)\)", e):
            assert any(n == found[0] and label + "=" in (labels or "") for n, labels in values), e
    for n in HISTOGRAMS + GAUGES + COUNTERS:
        assert any(u == "vlmd:" + n or re.sub(r"_(bucket|sum|count)$", "", u) == "vlmd:" + n for u in used), n + " is on no panel"
    ids = [p["id"] for p in board["panels"]]
    assert len(set(ids)) == len(ids)


def test_documented(own):
    """What docs/operation.md promises is there."""
    types, _ = parse(own.get("/metrics").body.decode())
    table = (ROOT / "docs" / "operation.md").read_text().split("## Metrics")[1]
    for line in re.findall(r"^\| (`.*?`) \| (counter|gauge|histogram) \|", table, re.M):
        for name in re.findall(r"`(\w+)", line[0]):
            assert types["vlmd:" + name] == line[1], name
