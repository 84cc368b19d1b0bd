"""A model that captions one picture: what it refuses and why, and how its captions end (parity: test_parity.py)."""
import json
import shutil
import subprocess

import pytest

from conftest import ROOT, VLMD, Server, image_part
from conftest import text_part as text

FAMILIES = ROOT / "tests" / "golden" / "families"
IMAGE = image_part()


def user(*parts):
    return {"role": "user", "content": list(parts)}


@pytest.fixture(scope="module")
def server():
    with Server(FAMILIES / "coca") as s:
        yield s


def ask(server, *messages, **more):
    return server.post("/v1/chat/completions", {"messages": list(messages), "max_tokens": 6, "return_token_ids": True, **more})


@pytest.mark.parametrize("messages, says", [
    ([user(text("a photo of"))], ["picture", "none"]),
    ([{"role": "user", "content": "a photo of"}], ["picture", "none"]),
    ([user(IMAGE, text("and"), IMAGE)], ["1 picture", "hold 2"]),
    ([user(IMAGE), {"role": "assistant", "content": "a dog"}, user(text("and?"))], ["one message", "found 3"]),
    ([{"role": "system", "content": "Be brief."}, user(IMAGE)], ["one message", "found 2", "system"]),
    ([{"role": "assistant", "content": [IMAGE]}], ["one message", "assistant"]),
    ([user(IMAGE, text("oh !?"))], ["id 0", "padding"]),
    ([user(IMAGE, text("a b " * 40))], ["43 tokens"]),
])
def test_refused(server, messages, says):
    reply = ask(server, *messages)
    assert reply.status == 400, reply.body
    error = reply.error()
    assert error["param"].startswith("messages") and all(s in error["message"] for s in says), error


def test_what_a_user_types_is_text(server):
    """Neither the start token nor the picture's mark is made of it."""
    plain = ask(server, user(IMAGE, text("a")), max_tokens=1).json()["prompt_token_ids"]
    assert len(plain) == 2
    for typed in ("<image>", "<|startoftext|>", "<|endoftext|>"):
        ids = ask(server, user(IMAGE, text(typed)), max_tokens=1).json()["prompt_token_ids"]
        assert ids[0] == plain[0] and len(ids) > 2 and plain[0] not in ids[1:], (typed, ids)


def test_parts_are_words(server):
    whole = ask(server, user(IMAGE, text("a photo of")), logprobs=True).json()
    parts = ask(server, user(text("a"), IMAGE, text("photo"), text("of")), logprobs=True).json()
    assert parts["prompt_token_ids"] == whole["prompt_token_ids"]
    assert parts["choices"][0]["logprobs"] == whole["choices"][0]["logprobs"]


def test_ends_at_the_padding_too(server):
    """As the reference's generate(): forced to it, a caption ends."""
    for token in (0, 172):
        reply = ask(server, user(IMAGE), logit_bias={str(token): 100}).json()
        assert reply["choices"][0]["finish_reason"] == "stop" and reply["choices"][0]["message"]["content"] == "", reply
    assert ask(server, user(IMAGE), logit_bias={"9": 100}).json()["choices"][0]["finish_reason"] == "length"


# ---- folders ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path):
    for f in (FAMILIES / "coca").iterdir():
        shutil.copy(f, tmp_path)
    return tmp_path


def inspect(folder):
    p = subprocess.run([VLMD, "inspect", folder], capture_output=True, text=True)
    return p.returncode, p.stdout + p.stderr


def change(folder, key, value):
    path = folder / "open_clip_config.json"
    config = at = json.loads(path.read_text())
    *way, last = key.split(".")
    for k in way:
        at = at[k]
    if value is None:
        at.pop(last)
    else:
        at[last] = value
    path.write_text(json.dumps(config))


@pytest.mark.parametrize("key, value, says", [
    ("model_cfg.multimodal_cfg", None, ["model_cfg.multimodal_cfg", "missing", "only CoCa", "model_type clip"]),
    ("model_cfg", None, ["model_cfg", "missing"]),
    ("model_cfg.text_cfg.hf_model_name", "roberta-base", ["text_cfg.hf_model_name", "roberta-base"]),
    ("model_cfg.text_cfg.embed_cls", None, ["text_cfg.embed_cls", "only true"]),
    ("model_cfg.text_cfg.no_causal_mask", True, ["text_cfg.no_causal_mask"]),
    ("model_cfg.text_cfg.mlp_ratio", 3, ["text_cfg.mlp_ratio", "88", "66"]),
    ("model_cfg.text_cfg.act_kwargs", {"approximate": "tanh"}, ["text_cfg.act_kwargs"]),
    ("model_cfg.text_cfg.tokenizer_kwargs", {"clean": "canonicalize"}, ["text_cfg.tokenizer_kwargs"]),
    ("model_cfg.multimodal_cfg.heads", 7, ["multimodal_cfg.heads", "expected 2", "found 7"]),
    ("model_cfg.multimodal_cfg.width", 32, ["multimodal_cfg.width", "expected 22", "found 32"]),
    ("model_cfg.multimodal_cfg.ls_init_value", 0.1, ["multimodal_cfg.ls_init_value"]),
    ("model_cfg.vision_cfg.timm_model_name", "vit_base", ["vision_cfg.timm_model_name", "vit_base"]),
    ("model_cfg.vision_cfg.attentional_pool", "parallel", ["vision_cfg.attentional_pool", "parallel"]),
    ("model_cfg.vision_cfg.attn_pooler_heads", 3, ["vision_cfg.attn_pooler_heads", "22", "3"]),
    ("model_cfg.vision_cfg.attn_pooler_queries", 12, ["visual.attn_pool.query", "[12, 22]", "[11, 22]"]),
    ("model_cfg.vision_cfg.qk_norm", True, ["vision_cfg.qk_norm"]),
    ("model_cfg.vision_cfg.pool_type", "max", ["vision_cfg.pool_type", "max"]),
    ("model_cfg.vision_cfg.layers", [3, 4, 6, 3], ["vision_cfg.layers"]),
    ("model_cfg.embed_dim", 30, ["model_cfg.embed_dim", "expected multimodal_cfg.width 22", "30"]),
    ("preprocess_cfg.resize_mode", "longest", ["preprocess_cfg.resize_mode", "longest"]),
    ("preprocess_cfg.interpolation", "nearest", ["preprocess_cfg.interpolation", "nearest"]),
    ("preprocess_cfg.std", [1, 1, 0], ["preprocess_cfg.std"]),
])
def test_configs(folder, key, value, says):
    change(folder, key, value)
    code, out = inspect(folder)
    assert code != 0 and "open_clip_config.json: " in out or key.endswith("queries"), out
    assert code != 0 and all(s in out for s in says), out


def test_an_unknown_key_is_a_warning(folder):
    change(folder, "model_cfg.vision_cfg.new_thing", 1)
    code, out = inspect(folder)
    assert code == 0 and "vision_cfg" in out and "new_thing" in out


def test_without_start_token(folder):
    (folder / "generation_config.json").unlink()
    code, out = inspect(folder)
    assert code != 0 and "bos_token_id" in out and "49406" in out


@pytest.mark.parametrize("name", ["open_clip_pytorch_model.bin", "pytorch_model.bin"])
def test_pickles(folder, name):
    (folder / "open_clip_model.safetensors").rename(folder / name)
    code, out = inspect(folder)
    assert code != 0 and name in out and "convert" in out and "safetensors" in out


def test_words(folder):
    code, out = inspect(folder)
    assert code == 0
    for line in ("family coca", "11 learned latents attend once", "2 of 5 layers attend to them", "no token in the prompt",
                 "text_decoder.cross_attn.*.ln_1_kv.weight"):
        assert line in out, (line, out)


def test_the_tokenizers_class_need_not_be_named(folder):
    """The folder's format says that it is CLIP's."""
    (folder / "tokenizer_config.json").unlink()
    case = json.loads((folder / "golden.json").read_text())["cases"][0]
    with Server(folder) as server:
        reply = ask(server, user(IMAGE, text("A  Photo OF"))).json()
        with Server(FAMILIES / "coca") as other:
            named = ask(other, user(IMAGE, text("a photo of"))).json()
        assert reply["prompt_token_ids"] == named["prompt_token_ids"] and reply["prompt_token_ids"][0] == case["prompt_ids"][0]
        assert reply["choices"][0]["message"] == named["choices"][0]["message"]


def test_without_tokenizer(folder):
    (folder / "tokenizer.json").unlink()
    p = subprocess.run([VLMD, "serve", "--port", "0", folder], capture_output=True, text=True, timeout=60)
    assert p.returncode != 0 and "no tokenizer.json" in p.stdout + p.stderr and "merges.txt" in p.stdout + p.stderr
