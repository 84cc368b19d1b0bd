"""--chat-template: a template for checkpoints that bring none, or another one than theirs."""
import json
import shutil

import pytest

from conftest import ROOT, Server

MODELS = ROOT / "tests" / "golden" / "models"
HELLO = {"messages": [{"role": "user", "content": "Hello"}], "max_tokens": 2, "temperature": 0, "return_token_ids": True}


@pytest.fixture
def folder(tmp_path):
    """A decoder's checkpoint as a base model is published."""
    out = tmp_path / "model"
    shutil.copytree(MODELS / "text_llama", out)
    (out / "chat_template.jinja").unlink()
    return out


def ids(server):
    reply = server.post("/v1/chat/completions", HELLO)
    assert reply.status == 200, reply.body
    return reply.json()["prompt_token_ids"]


def test_without_one_chats_are_refused(folder):
    with Server(folder) as server:
        reply = server.post("/v1/chat/completions", HELLO)
        assert reply.status == 400 and "--chat-template" in reply.error()["message"], reply.body
        assert "--chat-template" in server.text()


def test_as_if_the_folder_had_it(folder, tmp_path):
    with Server(MODELS / "text_llama") as server:
        want = ids(server)
    source = (MODELS / "text_llama" / "chat_template.jinja").read_text()
    (tmp_path / "own.jinja").write_text(source)
    (tmp_path / "own.json").write_text(json.dumps({"chat_template": source}))
    for name in ("own.jinja", "own.json"):
        with Server("--chat-template", tmp_path / name, folder) as server:
            assert ids(server) == want


def test_it_goes_before_the_checkpoints_own(tmp_path):
    (tmp_path / "own.jinja").write_text("{{ bos_token }}{{ messages[0].content }}{{ messages[0].content }}")
    with Server("--chat-template", tmp_path / "own.jinja", MODELS / "text_llama") as server:
        own = ids(server)
        reply = server.post("/detokenize", {"tokens": own}).json()
    assert reply["prompt"].endswith("HelloHello"), reply


def test_one_that_cannot_be_read(folder, tmp_path):
    (tmp_path / "broken.jinja").write_text("{% if %}")
    for name, why in (("broken.jinja", "chat template"), ("nothing.jinja", "no such file")):
        with pytest.raises(AssertionError, match=why):
            Server("--chat-template", tmp_path / name, folder)
