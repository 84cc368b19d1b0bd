"""Every golden checkpoint through the running server: prompt ids, 24 greedy tokens and their log-probs are the
reference library's (tests/golden/models/make_models.py says how the goldens were made)."""
import base64
import json

import pytest

from conftest import MODEL, ROOT, Server

GOLDEN = ROOT / "tests" / "golden" / "models"
NAMES = sorted(p.parent.name for p in GOLDEN.glob("*/golden.json"))
TOLERANCE = 1e-3


def data_url(name):
    kind = "png" if name.endswith("png") else "jpeg"
    return f"data:image/{kind};base64," + base64.b64encode((GOLDEN / "pictures" / name).read_bytes()).decode()


def for_api(messages):
    out = []
    for m in messages:
        content = m["content"]
        if not isinstance(content, str):
            content = [{"type": "image_url", "image_url": {"url": data_url(p["path"])}} if p["type"] == "image" else p
                       for p in content]
        out.append({**m, "content": content})
    return out


def ask(server, case, **more):
    reply = server.post("/v1/chat/completions", {
        "messages": for_api(case["messages"]), "max_tokens": len(case["tokens"]), "temperature": 0, "ignore_eos": True,
        "repetition_penalty": 1.0, "logprobs": True, "top_logprobs": 5, "return_token_ids": True, **more})
    assert reply.status == 200, (case["name"], reply.body)
    return reply.json()


def check(reply, case):
    name, choice = case["name"], reply["choices"][0]
    assert reply["prompt_token_ids"] == case["prompt_ids"], name
    assert choice["token_ids"] == case["tokens"], name
    assert reply["usage"]["prompt_tokens"] == len(case["prompt_ids"])
    assert reply["usage"]["completion_tokens"] == len(case["tokens"])
    entries = choice["logprobs"]["content"]
    assert len(entries) == len(case["top"])
    for step, (entry, top) in enumerate(zip(entries, case["top"])):
        assert abs(entry["logprob"] - top[0][1]) <= TOLERANCE, (name, step)
        assert len(entry["top_logprobs"]) == len(top)
        for mine, (_, want) in zip(entry["top_logprobs"], top):
            assert abs(mine["logprob"] - want) <= TOLERANCE, (name, step)


def run(folder, golden):
    with Server(folder) as server:
        for case in golden["cases"]:
            check(ask(server, case), case)
        if golden["image_size"] == 0:  # a picture sent to a text model is refused by name
            reply = server.post("/v1/chat/completions", {"messages": for_api(
                [{"role": "user", "content": [{"type": "image", "path": "wide.jpg"}]}])})
            assert reply.status == 400 and "messages[0]" in (reply.error()["param"] or ""), reply.body


@pytest.mark.parametrize("name", NAMES)
def test_golden(name):
    run(GOLDEN / name, json.loads((GOLDEN / name / "golden.json").read_text()))


def test_bundled():
    run(MODEL, json.loads((GOLDEN / "vlmd_tiny.json").read_text()))


def test_enough_goldens():
    assert len(NAMES) >= 8
