"""The KV cache's numbers in 16 bits (--kv-cache-dtype): answers stay near the reference library's, which keeps f32, an answer's bits do not
depend on what runs beside it either, and a token takes half the memory."""
import json

import pytest

from conftest import Server
from test_parity import FOLDERS, answers, ask

# Rounding gives each key and value a relative error of up to 2^-8 (bfloat16) or 2^-11 (float16) in every layer; log-probabilities were
# seen to move by up to 0.07 and 0.009. Where the reference's first two tokens lie closer than twice that, either may be chosen.
TOLERANCE = {"bfloat16": 0.15, "float16": 0.02}


def near(reply, case, tolerance):
    """Whether all 24 tokens are the reference's."""
    choice = reply["choices"][0]
    for step, (entry, top) in enumerate(zip(choice["logprobs"]["content"], case["top"])):
        if choice["token_ids"][step] != case["tokens"][step]:
            assert top[0][1] - top[1][1] <= 2 * tolerance, (case["name"], step)
            return False
        assert abs(entry["logprob"] - top[0][1]) <= tolerance, (case["name"], step)
    return True


@pytest.mark.parametrize("kind", TOLERANCE)
def test_golden(kind):
    """Not far; with the eleven bits of float16 hardly any other word is chosen."""
    same, all_of_them = 0, 0
    for folder in FOLDERS.values():
        golden = json.loads((folder / "golden.json").read_text())
        with Server("--kv-cache-dtype", kind, folder) as server:
            for case in golden["cases"]:
                reply = ask(server, case)
                same += near(reply, case, TOLERANCE[kind])
                all_of_them += 1
    assert same >= (0.9 if kind == "bfloat16" else 0.98) * all_of_them


@pytest.mark.parametrize("name", ("clip_llama", "qwen2_5_vl", "text_mistral"))
def test_alone_is_batched_and_cold_is_warm(name):
    cases = json.loads((FOLDERS[name] / "golden.json").read_text())["cases"]
    with Server("--kv-cache-dtype", "bfloat16", FOLDERS[name]) as server:
        alone = answers(server, cases, 1)
    with Server("--kv-cache-dtype", "float32", FOLDERS[name]) as server:
        assert answers(server, cases, 1) != alone  # it was rounded
    with Server("--kv-cache-dtype", "bfloat16", "--max-num-batched-tokens", "24", FOLDERS[name]) as server:
        for _ in range(2):
            assert answers(server, cases, len(cases)) == alone


def test_memory():
    """The same pages in half the memory; the start message says what they are made of."""
    sizes = {}
    for kind in ("auto", "float32", "bfloat16", "float16"):
        with Server("--kv-cache-dtype", kind, "--max-model-len", "128", "--device", "cpu") as server:
            sizes[kind] = server.metric("kv_cache_bytes")
            kept = "float32" if kind == "auto" else kind
            assert f"of KV cache each ({kept})" in server.text()
            assert f'cache_config_info{{model_name="vlmd-tiny",block_size="16",cache_dtype="{kept}",num_gpu_blocks="' in server.get("/metrics").body.decode()
    assert sizes["auto"] == sizes["float32"] == 2 * sizes["bfloat16"] == 2 * sizes["float16"]


def test_unknown():
    server = Server("--kv-cache-dtype", "fp8", wait=False)
    assert server.proc.wait(60) == 2
    server.reader.join(10)
    assert '--kv-cache-dtype: expected auto, float32, bfloat16 or float16, found "fp8"' in server.text()
