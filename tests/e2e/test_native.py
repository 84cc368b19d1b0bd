"""Pictures at their own size through the running server: grids in the caches' keys, choices, what is refused. The numbers are
test_parity.py's."""
import concurrent.futures
import json
import shutil

import pytest

from conftest import ROOT, Server, image_part, text_part
from test_picture_cache import png, url

FAMILIES = ROOT / "tests" / "golden" / "families"
NAMES = ["qwen2_vl", "qwen2_5_vl", "qwen3_vl"]
BYTES_A_TOKEN = {"qwen2_vl": 320, "qwen2_5_vl": 320, "qwen3_vl": 960}
GREEDY = {"temperature": 0, "max_tokens": 8, "ignore_eos": True, "logprobs": True, "top_logprobs": 3}


def grey(w, h):
    return url(png(w, h, bytes([120, 130, 140]) * (w * h)))


def scene(w, h):
    return url(png(w, h, bytes(v for y in range(h) for x in range(w) for v in (x * 2 % 256, y * 2 % 256, (x ^ y) % 256))))


def answer(server, parts, **more):
    reply = server.chat(parts, **{**GREEDY, **more})
    assert reply.status == 200, reply.body
    return [(c["message"]["content"], c["logprobs"]) for c in reply.json()["choices"]]


@pytest.mark.parametrize("name", NAMES)
def test_grids_are_in_the_keys(name):
    """Pictures of the same bytes and as many tokens in other grids: nothing of one answers for the other, and the long text
    behind them, the same to the letter, is computed for each, for its positions differ."""
    text = text_part("What is it, and where does the road lead? Describe the small red square on the left. " * 3)
    pictures = [grey(112, 56), grey(56, 112), grey(28, 224), grey(224, 28)]
    with Server("--no-prefix-caching", "--image-cache-memory", "0", FAMILIES / name) as server:
        cold = [answer(server, [image_part(p), text]) for p in pictures]
    assert len({json.dumps(c) for c in cold}) == len(cold)
    with Server(FAMILIES / name) as server:
        for order in (range(4), reversed(range(4)), range(4)):
            for i in order:
                assert answer(server, [image_part(pictures[i]), text]) == cold[i]


@pytest.mark.parametrize("name", NAMES)
def test_choices_share_a_prompt(name):
    with Server(FAMILIES / name) as server:
        parts = [image_part(scene(90, 40)), text_part("and"), image_part(scene(40, 90)), text_part("Which one?")]
        one = answer(server, parts)
        assert answer(server, parts, n=3) == one * 3


@pytest.mark.parametrize("name", NAMES)
def test_preempted_answers_stay(name):
    """So little room for keys and values that answers give way to each other and are computed again."""
    parts = [image_part(scene(120, 60)), text_part("Tell me more.")]
    with Server(FAMILIES / name) as server:
        want = answer(server, parts, max_tokens=60)
    with Server("--kv-cache-memory", str(BYTES_A_TOKEN[name] * 272), "--max-model-len", "192", "--no-prefix-caching", FAMILIES / name) as server:
        with concurrent.futures.ThreadPoolExecutor(4) as pool:
            got = list(pool.map(lambda _: answer(server, parts, max_tokens=60), range(4)))
        assert got == [want] * 4
        assert server.metric("num_preemptions_total") > 0


def test_refused(tmp_path):
    with Server(FAMILIES / "qwen2_vl") as server:
        reply = server.chat([image_part(grey(601, 3)), text_part("?")])
        assert reply.status == 400 and "200 times" in reply.error()["message"], reply.body
        assert "messages[0]" in reply.error()["param"]
        reply = server.chat([{"type": "video_url", "video_url": {"url": "data:video/mp4;base64,AAAA"}}])
        assert reply.status == 400 and "video_url" in reply.error()["message"], reply.body
        # typed by a user it is text like any other
        assert server.chat("<|video_pad|> <|image_pad|>", max_tokens=1).status == 200
    folder = tmp_path / "video"
    shutil.copytree(FAMILIES / "qwen2_vl", folder)
    (folder / "chat_template.jinja").write_text("<|video_pad|>{% for m in messages %}{{ m.content }}{% endfor %}")
    with Server(folder) as server:
        reply = server.chat("Hm?")
        assert reply.status == 400 and "no videos" in reply.error()["message"], reply.body
