"""A model that answers one question about one picture (tests/golden/families/blip_vqa): what it takes, what it refuses and
how it says so, and what a picture's cache keeps apart."""
import json

import pytest

from conftest import ROOT, Server, image_part
from conftest import text_part as text
from test_parity import data_url

FOLDER = ROOT / "tests" / "golden" / "families" / "blip_vqa"
PICTURE = image_part(data_url("wide.jpg"))
OTHER = image_part(data_url("tall.png"))


def user(*parts):
    return {"role": "user", "content": list(parts)}


@pytest.fixture(scope="module")
def server():
    with Server(FOLDER) as s:
        yield s


def ask(server, *parts, **more):
    return server.post("/v1/chat/completions", {"messages": [user(*parts)], "temperature": 0, "max_tokens": 8, **more})


REFUSED = {
    "no picture": ([user(text("What is this?"))], "no picture", "messages"),
    "a string": ([{"role": "user", "content": "What is this?"}], "no picture", "messages"),
    "no text": ([user(PICTURE)], "no text", "messages[0].content"),
    "empty text": ([user(PICTURE, text(""))], "an empty text", "messages[0].content"),
    "two texts": ([user(PICTURE, text("What is this?"), text("And that?"))], "2 texts", "messages[0].content"),
    "two pictures": ([user(PICTURE, OTHER, text("Which one?"))], "2 pictures", "messages[0].content[1]"),
    "system": ([{"role": "system", "content": "Be brief."}, user(PICTURE, text("What is this?"))], "2 messages", "messages"),
    "turns": ([user(PICTURE, text("What is this?")), {"role": "assistant", "content": "A square."}, user(text("Red?"))],
              "3 messages", "messages"),
    "assistant": ([{"role": "assistant", "content": "What is this?"}], "one of role assistant", "messages[0].role"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused(server, case):
    messages, found, param = REFUSED[case]
    reply = server.post("/v1/chat/completions", {"messages": messages})
    assert reply.status == 400, reply.body
    error = reply.error()
    assert "expected one user message with one picture and one text; found " + found in error["message"], error
    assert error["param"].startswith(param), error


def test_no_answer_wanted(server):
    reply = ask(server, PICTURE, text("What is this?"), add_generation_prompt=False)
    assert reply.status == 400 and reply.error()["param"] == "add_generation_prompt"


def test_too_long(server):
    """150 positions: refused by its number of tokens, before the picture is decoded; exactly so many are taken."""
    before = server.get("/metrics").body.decode()
    reply = ask(server, PICTURE, text("a " * 149))
    assert reply.status == 400 and reply.error()["param"] == "messages"
    assert "at most 150 tokens" in reply.error()["message"] and "151 tokens" in reply.error()["message"]
    count = [line for line in before.splitlines() if "image_decodes_total " in line]
    assert count and count == [line for line in server.get("/metrics").body.decode().splitlines()
                               if "image_decodes_total " in line]
    reply = ask(server, PICTURE, text("a " * 148))
    assert reply.status == 200 and reply.json()["usage"]["prompt_tokens"] == 151
    broken = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
    assert ask(server, broken, text("What is this?")).status == 400


def test_usage_and_end(server):
    """The question counts, and the token behind which the answer starts; [SEP] ends it."""
    reply = ask(server, PICTURE, text("What is this?"), logit_bias={"3": 100}, return_token_ids=True).json()
    assert reply["usage"] == {"prompt_tokens": 7, "completion_tokens": 1, "total_tokens": 8,
                              "prompt_tokens_details": {"cached_tokens": 0}}
    assert reply["choices"][0]["finish_reason"] == "stop" and reply["choices"][0]["message"]["content"] == ""
    assert reply["prompt_token_ids"][0] == 2 and reply["prompt_token_ids"][-2:] == [3, 138]
    ids = server.post("/tokenize", {"messages": [user(PICTURE, text("What is this?"))]}).json()["tokens"]
    assert ids == reply["prompt_token_ids"]


def test_all_its_context(server):
    """The answer has the decoder's positions to itself, whatever the question took."""
    reply = ask(server, PICTURE, text("a " * 100), max_tokens=149, ignore_eos=True)
    assert reply.status == 200 and reply.json()["usage"]["completion_tokens"] == 149
    assert ask(server, PICTURE, text("a"), max_tokens=150).status == 400


def test_one_picture_many_questions(server):
    """Rows belong to picture and question together: in the picture cache, and in the pages of answers."""
    def says(parts, **more):
        r = ask(server, *parts, logprobs=True, max_tokens=40, ignore_eos=True, **more).json()
        return [c["logprobs"]["content"] for c in r["choices"]]

    questions = ["What is this?", "Is it blue?", "what is this ?", "Who?"]
    alone = {}
    for q in questions:
        with Server("--no-prefix-caching", "--image-cache-memory", "0", FOLDER) as fresh:
            r = ask(fresh, PICTURE, text(q), logprobs=True, max_tokens=40, ignore_eos=True).json()
            alone[q] = r["choices"][0]["logprobs"]["content"]
    assert alone[questions[0]] == alone[questions[2]] != alone[questions[1]] != alone[questions[3]]
    for _ in range(2):
        for q in questions:
            assert says([PICTURE, text(q)]) == [alone[q]]
            assert says([text(q), PICTURE], n=3) == [alone[q]] * 3
            assert says([OTHER, text(q)]) != [alone[q]]


def test_says_so_at_start(server):
    assert "join text reader" in server.text() and "brings no chat template" not in server.text()
    golden = json.loads((FOLDER / "golden.json").read_text())
    assert len(golden["cases"]) >= 10
