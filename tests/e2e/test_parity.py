"""Every golden checkpoint through the running server: prompt ids, 24 greedy tokens and their log-probs are the
reference library's (tests/golden/models/make_models.py says how the goldens were made)."""
import base64
import concurrent.futures
import json

import pytest

from conftest import MODEL, ROOT, Server

GOLDEN = ROOT / "tests" / "golden"
FOLDERS = {p.parent.name: p.parent for part in ("models", "families") for p in sorted((GOLDEN / part).glob("*/golden.json"))}
TOLERANCE = 1e-3


def data_url(name):
    kind = "png" if name.endswith("png") else "jpeg"
    path = next(p for p in (GOLDEN / part / "pictures" / name for part in ("models", "families")) if p.exists())
    return f"data:image/{kind};base64," + base64.b64encode(path.read_bytes()).decode()


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


@pytest.mark.parametrize("name", FOLDERS)
def test_golden(name):
    run(FOLDERS[name], json.loads((FOLDERS[name] / "golden.json").read_text()))


def answers(server, cases, at_once):
    """Ids and log-probs of every case, to the last bit."""
    with concurrent.futures.ThreadPoolExecutor(at_once) as pool:
        replies = list(pool.map(lambda case: ask(server, case), cases))
    return [(r["choices"][0]["token_ids"], r["choices"][0]["logprobs"]) for r in replies]


@pytest.mark.parametrize("name", FOLDERS)
def test_alone_is_batched_and_cold_is_warm(name):
    """One after the other on a fresh server; all at once in small chunks with little room, twice, the second time from
    the caches: no bit of a log-prob differs."""
    cases = json.loads((FOLDERS[name] / "golden.json").read_text())["cases"]
    with Server("--no-prefix-caching", "--image-cache-memory", "0", FOLDERS[name]) as server:
        alone = answers(server, cases, 1)
    with Server("--max-num-batched-tokens", "24", "--max-num-seqs", "6", FOLDERS[name]) as server:
        assert answers(server, cases, len(cases)) == alone
        assert answers(server, cases, len(cases)) == alone


@pytest.mark.parametrize("name, most", [("both_ways_paligemma", None), ("blip2", 1), ("instructblip", 1)])
def test_a_model_of_pictures_wants_one(name, most):
    """The reference takes no prompt of PaliGemma's, BLIP-2's or InstructBLIP's without a picture, of the last two none with two."""
    with Server(FOLDERS[name]) as server:
        reply = server.post("/v1/chat/completions", {"messages": [{"role": "user", "content": "What is it?"}]})
        assert reply.status == 400 and reply.error()["param"] == "messages" and "picture" in reply.error()["message"]
        if most:
            reply = server.post("/v1/chat/completions", {"messages": for_api(
                [{"role": "user", "content": [{"type": "image", "path": "wide.jpg"}] * (most + 1)}])})
            assert reply.status == 400 and reply.error()["param"].startswith(f"messages[0].content[{most}]"), reply.body
            assert f"at most {most} picture" in reply.error()["message"], reply.body


def test_bundled():
    run(MODEL, json.loads((GOLDEN / "models" / "vlmd_tiny.json").read_text()))


def test_enough_goldens():
    assert len(FOLDERS) >= 8
