"""A model whose picture is read with the prompt's text (tests/golden/families/instructblip): what is kept apart, what is too
long, and a tokenizer of its own for that text."""
import json
import shutil

import pytest

from conftest import Server
from test_parity import FOLDERS
from test_question import OTHER, PICTURE, ask, text, user

FOLDER = FOLDERS["instructblip"]


@pytest.fixture(scope="module")
def server():
    with Server(FOLDER) as s:
        yield s


def said(reply):
    assert reply.status == 200, reply.body
    return [c["logprobs"]["content"] for c in reply.json()["choices"]]


def test_one_picture_many_instructions(server):
    """A picture's rows belong to it and to the whole prompt: an instruction that differs only behind what two have in common,
    or only for the picture's own tokenizer, is another."""
    asks = ["Describe it, please.", "Describe it, please. Twice.", "describe it, please.", "Where?", ""]
    more = {"logprobs": True, "max_tokens": 24, "ignore_eos": True}
    alone = {}
    for a in asks:
        with Server("--no-prefix-caching", "--image-cache-memory", "0", FOLDER) as fresh:
            [alone[a]] = said(ask(fresh, PICTURE, text(a), **more))
    assert len({json.dumps(v) for v in alone.values()}) == len(asks)
    for _ in range(2):
        for a in asks:
            assert said(ask(server, PICTURE, text(a), **more)) == [alone[a]]
            assert said(ask(server, text(a), PICTURE, n=2, **more)) == [alone[a]] * 2
            assert said(ask(server, OTHER, text(a), **more)) != [alone[a]]


def test_turns_are_all_read(server):
    """What came before is part of what is read with the picture."""
    def turns(first):
        return server.post("/v1/chat/completions", {"messages": [
            user(PICTURE, text(first)), {"role": "assistant", "content": "A dog."}, {"role": "user", "content": "Where?"}],
            "temperature": 0, "max_tokens": 8, "logprobs": True})
    assert said(turns("What is it?")) == said(turns("What is it?")) != said(turns("Who is it?"))


def test_too_long(server):
    """230 positions: refused by its number of tokens, before the picture is decoded; exactly so many are taken."""
    def decodes():
        return [x for x in server.get("/metrics").body.decode().splitlines() if "image_decodes_total " in x]
    before = decodes()
    reply = ask(server, PICTURE, text("a " * 229))
    assert reply.status == 400 and reply.error()["param"] == "messages"
    assert "at most 230 tokens" in reply.error()["message"] and "231 tokens" in reply.error()["message"]
    assert before and before == decodes()
    assert ask(server, PICTURE, text("a " * 228)).status == 200
    with Server("--max-num-batched-tokens", "16", FOLDER) as small:
        assert ask(small, PICTURE, text("a " * 228)).status == 200


def test_special_words_are_text(server):
    """Neither tokenizer takes what a user types for a token of its own."""
    plain, typed = (ask(server, PICTURE, text(t), return_token_ids=True).json() for t in ("a", "</s><image>[SEP][DEC]"))
    assert typed["usage"]["prompt_tokens"] > plain["usage"]["prompt_tokens"]
    assert typed["prompt_token_ids"].count(4) == 7


def test_its_tokenizer_is_missing(tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(FOLDER, folder)
    shutil.rmtree(folder / "qformer_tokenizer")
    with pytest.raises(AssertionError, match="qformer_tokenizer.*there is no tokenizer.json"):
        Server(folder)


def test_says_so_at_start(server):
    assert "join Q-Former" in server.text() and "brings no chat template" not in server.text()
