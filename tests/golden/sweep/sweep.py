#!/usr/bin/env python3
"""Checkpoints drawn at random from the reference library's own classes, answered by the reference and by the running server:
what the goldens beside this folder are a few frozen cases of, without end.

    python tests/golden/sweep/sweep.py [-n 3] [-s FIRST_SEED] [-k] [family ...]     (all families by default)

Needs torch, torchvision and the pinned reference library (see ../models/make_models.py), and a built vlmd (VLMD_BIN, by default
build/vlmd). A family and a seed make the same checkpoint every time: random sizes and options, then a random layout (older
names and config keys, settings left out, shards, mixed dtypes). The reference reads the folder itself; where it does not, the
case is passed over. A failure prints family and seed and leaves its folder under build/sweep."""
import argparse
import concurrent.futures
import math
import os
import pathlib
import random
import re
import shutil
import subprocess
import sys
import traceback
import types
import warnings

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))
warnings.filterwarnings("ignore")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import parts  # noqa: E402  (sets the path)
import cases  # noqa: E402
import composed  # noqa: E402
import layouts  # noqa: E402
import common  # noqa: E402
import conftest  # noqa: E402
import dual  # noqa: E402
import others  # noqa: E402
import make_models as mm  # noqa: E402
import test_parity  # noqa: E402
import torch  # noqa: E402
import transformers as T  # noqa: E402
from transformers.models.auto.video_processing_auto import AutoVideoProcessor  # noqa: E402

OUT = mm.ROOT / "build" / "sweep"
# Pictures need no processor of videos.
AutoVideoProcessor.from_pretrained = classmethod(lambda *a, **k: types.SimpleNamespace(num_frames=1, fps=1))
T.ProcessorMixin.__repr__ = object.__repr__
T.ProcessorMixin.check_argument_for_proper_class = lambda self, name, arg: arg
torch.set_num_threads(1)
# Refused on purpose, see docs/parity.md.
ON_PURPOSE = ["maximum context length", "max_tokens is too large", "too narrow"]
PENALTY = 1.3
FAMILIES = {**composed.FAMILIES, **others.FAMILIES, **dual.FAMILIES}


class Passed(Exception):
    """The reference does not take this."""


class Failed(Exception):
    """vlmd differs."""


def save(family, seed, folder):
    r = random.Random(f"{family} {seed}")
    torch.manual_seed(seed)
    try:
        v = FAMILIES[family](r)
    except (ValueError, TypeError, ZeroDivisionError, AttributeError, KeyError) as e:
        raise Passed(f"not built: {type(e).__name__}: {e}") from e
    dtype = r.choice([torch.float32, torch.bfloat16, torch.float16])
    (v.fill or mm.fill)(v.model, seed, dtype, v.embed)
    for n, p in v.model.named_parameters():
        if "lambda_" in n:  # layer scales
            p.data = (0.6 + 2 * p.data).to(dtype).float()
    if hasattr(v.model, "generation_config"):
        v.model.generation_config.eos_token_id = 2
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    v.model.to(dtype).save_pretrained(folder)
    if isinstance(v.processor, tuple):
        dual.save(r, v, folder, dtype)
        return r, v
    cls = type(v.processor)
    attributes = cls.__dict__.get("get_attributes")
    if isinstance(v.processor, T.ProcessorMixin):
        common.save_processor(v.processor, folder)
        if attributes is None:
            del cls.get_attributes
        else:
            cls.get_attributes = attributes
    else:
        v.processor.save_pretrained(folder)
    layouts.rewrite(r, folder, v, dtype)
    return r, v


def load(v, folder):
    """The model and the processor as the reference reads them."""
    try:
        m, info = type(v.model).from_pretrained(folder, dtype=torch.float32, attn_implementation="eager",
                                                output_loading_info=True)
        if info["missing_keys"] or info["mismatched_keys"] or any("inv_freq" not in k for k in info["unexpected_keys"]):
            raise Passed(f"weights: {({k: sorted(map(str, x))[:3] for k, x in info.items() if x})}")
        if isinstance(v.processor, T.ProcessorMixin):
            p = type(v.processor).from_pretrained(folder, backend="pil")
        else:
            p = T.AutoTokenizer.from_pretrained(folder)
    except Passed:
        raise
    except Exception as e:
        raise Passed(f"not read: {type(e).__name__}: {str(e)[:300]}") from e
    m = m.eval()
    return v.ready(m) if v.ready else m, p


def for_library(messages, pictures, parts_only):
    out = []
    for m in messages:
        c = m["content"]
        if isinstance(c, str):
            c = [common.txt(c)] if parts_only else c
        else:
            c = [{"type": "image", "image": pictures.of(p["path"])} if p["type"] == "image" else p for p in c]
        out.append({**m, "content": c})
    return out


def pictures_of(messages):
    return [p["path"] for m in messages if not isinstance(m["content"], str) for p in m["content"] if p["type"] == "image"]


def greedy(model, inputs, **more):
    """As mm.greedy, by the model's own generate; more: settings of it."""
    for m in model.modules():
        if hasattr(m, "original_inv_freq") and hasattr(m, "original_max_seq_len"):
            m.inv_freq, m.max_seq_len_cached = m.original_inv_freq.clone(), m.original_max_seq_len
    g = T.GenerationConfig(max_new_tokens=parts.STEPS, do_sample=False, eos_token_id=None, pad_token_id=3, output_scores=True,
                           return_dict_in_generate=True, **more)
    for m in (model, getattr(model, "language_model", None)):
        if m is not None:
            m.generation_config = g
    with torch.no_grad():
        o = model.generate(**inputs)
    ids, top, gap = [], [], math.inf
    for x in o.scores:
        v, i = torch.log_softmax(x[0].double(), -1).topk(mm.TOP)
        gap = min(gap, float(v[0] - v[1]))
        ids.append(int(i[0]))
        top.append([[int(a), float(b)] for a, b in zip(i, v)])
    return ids, top, gap


def answers(r, v, folder, pictures):
    if isinstance(v.processor, tuple):
        try:
            return dual.answers(r, v, folder, pictures), ""
        except Exception as e:
            raise Passed(f"not read: {type(e).__name__}: {str(e)[:300]}") from e
    m, p = load(v, folder)
    v.stops = m.generation_config.eos_token_id
    bans = {k: getattr(m.generation_config, k) for k in ("bad_words_ids", "suppress_tokens")}
    words = T.AutoTokenizer.from_pretrained(folder)
    out, why = [], ""
    for name, make in cases.cases(r, pictures, *v.pictures):
        for question in r.sample(mm.ASKS, len(mm.ASKS)):
            messages = make(question)
            shaped = for_library(messages, pictures, v.parts)
            try:
                if v.ask:
                    inputs = v.ask(p, shaped)
                else:
                    more = {"chat_template": v.template} if v.template else {}
                    inputs = p.apply_chat_template(shaped, tokenize=True, return_dict=True, add_generation_prompt=True,
                                                   return_tensors="pt", **more)
                ids, top, gap = v.greedy(m, dict(inputs)) if v.greedy else greedy(m, dict(inputs), **bans)
            except Exception as e:
                why = f"{name}: {type(e).__name__}: {str(e)[:200]}"
                break
            if gap >= mm.MIN_GAP:
                other = ([], [], 0) if v.greedy else greedy(m, dict(inputs), repetition_penalty=PENALTY, **bans)
                # vlmd's log-probabilities are the model's own, before bans
                out.append({"name": name, "messages": messages, "tokens": ids, "top": None if any(bans.values()) and not v.greedy else top,
                            "penalised": other[0] if other[2] >= mm.MIN_GAP else None,
                            "text": words.decode(ids, skip_special_tokens=True),
                            "prompt_ids": v.prompt(m, inputs) if v.prompt else inputs["input_ids"][0].tolist()})
                break
    if not any(v.pictures[1] == 0 or pictures_of(c["messages"]) for c in out):
        raise Passed("no case: " + why)
    return out, why


def stops(folder):
    """The ids that end an answer, as vlmd inspect says."""
    said = subprocess.run([conftest.VLMD, "inspect", folder], capture_output=True, text=True).stdout
    line = next((x for x in said.splitlines() if "stops at" in x), "")
    return sorted(int(x) for x in re.findall(r"id (\d+)", line))


def check(server, case):
    """The greatest difference of a chosen token's log-prob."""
    try:
        reply = test_parity.ask(server, case)
        ids, want, choice = reply["prompt_token_ids"], case["prompt_ids"], reply["choices"][0]
        at = next((k for k, (a, b) in enumerate(zip(ids, want)) if a != b), None)
        assert at is None, (case["name"], "prompt's id", at, ids[at:at + 9], want[at:at + 9])
        if case["top"]:
            test_parity.check(reply, case)
        else:
            assert choice["token_ids"] == case["tokens"], case["name"]
        said = choice["message"]["content"]
        assert said == case["text"], (case["name"], said, case["text"])
        if case["penalised"]:
            ids = test_parity.ask(server, case, repetition_penalty=PENALTY)["choices"][0]["token_ids"]
            assert ids == case["penalised"], (case["name"], "repetition_penalty", ids, case["penalised"])
    except AssertionError as e:
        if any(x in str(e) for x in ON_PURPOSE):
            return 0
        raise Failed(f"{case['name']}: {str(e)[:700]}") from e
    return max(abs(e["logprob"] - t[0][1]) for e, t in zip(choice["logprobs"]["content"], case["top"])) if case["top"] else 0


def compare(v, folder, asked, pictures):
    """All cases at once, so that they share the server's steps and encodes."""
    test_parity.data_url = pictures.url
    server = test_parity.Server(folder, wait=False)
    try:
        server.wait_ready()
    except (AssertionError, OSError) as e:
        server.stop()
        raise Failed("refused: " + server.text().strip().splitlines()[-1][:700]) from e
    with server:
        notes = [x.strip() for x in server.log if "warn" in x]
        if isinstance(asked[0], tuple):
            try:
                return dual.compare(server, asked, pictures), notes
            except AssertionError as e:
                raise Failed(str(e)[:700]) from e
        with concurrent.futures.ThreadPoolExecutor(len(asked)) as pool:
            worst = max(pool.map(lambda case: check(server, case), asked))
    want = v.stops if isinstance(v.stops, list) else [v.stops]
    if v.stops is not None and not v.greedy and stops(folder) != sorted(want):
        raise Failed(f"stops at {stops(folder)}, the reference at {want}")
    return worst, notes


def run(family, seed, pictures, keep):
    folder = OUT / f"{family}-{seed}"
    r, v = save(family, seed, folder)
    asked, why = answers(r, v, folder, pictures)
    worst, notes = compare(v, folder, asked, pictures)
    if not keep:
        shutil.rmtree(folder)
    return f"{len(asked)} cases, worst {worst:.1e}" + (f", reference: {why}" if why else ""), notes


def main():
    a = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    a.add_argument("families", nargs="*", metavar="family", help=", ".join(FAMILIES))
    a.add_argument("-n", type=int, default=3, help="seeds")
    a.add_argument("-s", type=int, default=0, help="the first")
    a.add_argument("-k", action="store_true", help="keep every folder")
    a.add_argument("-v", action="store_true", help="show what the server warns about")
    o = a.parse_args()
    pictures, count = cases.Pictures(), {"ok": 0, "passed over": 0, "FAILED": 0}
    for seed in range(o.s, o.s + o.n):
        for family in o.families or FAMILIES:
            notes = []
            try:
                said, notes = run(family, seed, pictures, o.k)
                verdict = "ok"
            except Passed as e:
                verdict, said = "passed over", str(e)[:400]
                shutil.rmtree(OUT / f"{family}-{seed}", ignore_errors=True)
            except Failed as e:
                verdict, said = "FAILED", str(e)
            except Exception:
                verdict, said = "FAILED", " | ".join(traceback.format_exc().strip().splitlines()[-3:])[-600:]
            count[verdict] += 1
            print(f"{family} {seed}: {verdict}: {said}", flush=True)
            for n in notes if o.v else []:
                print("   ", n)
    print(", ".join(f"{n} {k}" for k, n in count.items()))
    return 1 if count["FAILED"] else 0


if __name__ == "__main__":
    sys.exit(main())
