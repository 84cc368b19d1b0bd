#!/usr/bin/env python3
"""Small random-weight checkpoints of the families that read pictures at their own size, and what the reference library says to
them: Qwen2-VL, Qwen2.5-VL, Qwen3-VL. See common.py and ../models/make_models.py.

    python tests/golden/families/make_qwen_vl.py [name ...]      (all by default)

And numbers alone, from the library's own functions: sizes.json (smart_resize), positions.json (get_rope_index),
windows.json (get_vision_window_index, resampled position tables), patches.json (the image processor)."""
import json
import math
import random

import common
import make_models as mm
import numpy as np
import torch
from common import ASKS, HERE, MIN_GAP, PINNED, rename, txt
from transformers import (Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration, Qwen2_5_VLProcessor, Qwen2VLConfig,
                          Qwen2VLForConditionalGeneration, Qwen2VLProcessor, Qwen3VLConfig, Qwen3VLForConditionalGeneration,
                          Qwen3VLProcessor)
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil, smart_resize
from transformers.vision_utils import get_vision_interpolation_indices_and_weights, get_vision_window_index

VOCAB = 353
SPECIALS = ["<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>"]
IDS = dict(image_token_id=8, video_token_id=9, vision_start_token_id=6, vision_end_token_id=7)
TEMPLATE = ("{% set image_count = namespace(value=0) %}{% set video_count = namespace(value=0) %}{% for message in messages %}"
            "{% if loop.first and message['role'] != 'system' %}<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
            "{% endif %}<|im_start|>{{ message['role'] }}\n{% if message['content'] is string %}{{ message['content'] }}"
            "<|im_end|>\n{% else %}{% for content in message['content'] %}{% if content['type'] == 'image' or 'image' in content "
            "or 'image_url' in content %}{% set image_count.value = image_count.value + 1 %}{% if add_vision_id %}Picture "
            "{{ image_count.value }}: {% endif %}<|vision_start|><|image_pad|><|vision_end|>{% elif content['type'] == 'video' or "
            "'video' in content %}{% set video_count.value = video_count.value + 1 %}{% if add_vision_id %}Video "
            "{{ video_count.value }}: {% endif %}<|vision_start|><|video_pad|><|vision_end|>{% elif 'text' in content %}"
            "{{ content['text'] }}{% endif %}{% endfor %}<|im_end|>\n{% endif %}{% endfor %}{% if add_generation_prompt %}"
            "<|im_start|>assistant\n{% endif %}")
TEXT = dict(vocab_size=VOCAB, hidden_size=60, intermediate_size=44, num_hidden_layers=2, num_attention_heads=6,
            num_key_value_heads=2, max_position_embeddings=2048, bos_token_id=1, eos_token_id=2, pad_token_id=3)


def ask(folder, model, proc, size, parts=False):
    """As common.ask; the model is told which rows are a picture's, and forgets the case before."""
    out, model = [], model.eval()
    model.model.visual.rotary_pos_emb.original_max_seq_len = 0  # mm.greedy asks every rope
    for name, make in common.cases(size):
        for question in ASKS:
            messages = make(question)
            inputs = proc.apply_chat_template(common.for_library(messages), tokenize=True, return_dict=True,
                                              add_generation_prompt=True, return_tensors="pt")
            inputs = {k: v for k, v in inputs.items() if k != "attention_mask"}
            model.model.rope_deltas = None
            ids, top, gap = mm.greedy(model, inputs)
            if gap >= MIN_GAP:
                break
        else:
            raise SystemExit(f"{folder.name}: {name}: no clear winners")
        out.append({"name": name, "messages": messages, "prompt_ids": inputs["input_ids"][0].tolist(), "tokens": ids,
                    "top": top, "min_gap": round(gap, 4)})
    mm.dump(folder / "golden.json", {"model": folder.name, "versions": PINNED, "image_size": size, "cases": out})
    print(folder.name, "smallest gap", min(c["min_gap"] for c in out), "prompts of",
          sorted(len(c["prompt_ids"]) for c in out), flush=True)


common.ask = ask


def processor(cls, **image):
    tok = common.tokenizer(VOCAB - 5, False, SPECIALS, {"image_token": "<|image_pad|>", "video_token": "<|video_pad|>",
                                                        "vision_start_token": "<|vision_start|>",
                                                        "vision_end_token": "<|vision_end|>"})
    return cls(Qwen2VLImageProcessorPil(**image), tok, None, chat_template=TEMPLATE)


def old(c, w, folder, vision, rope):
    """As the first published ones: text keys at the top, rope_scaling of type mrope, the vision part's type the whole's, names
    without "language_model", the image processor's settings in a file of their own."""
    t = c.pop("text_config")
    r = t.pop("rope_parameters")
    for k in ("model_type", "dtype", "layer_types", "use_cache", "initializer_range", "attention_dropout"):
        t.pop(k, None)
    c = {**c, **t, "rope_theta": r["rope_theta"], "rope_scaling": {"type": "mrope", "mrope_section": rope},
         "torch_dtype": c["dtype"], "vision_token_id": 5}
    c.pop("dtype")
    c["vision_config"] = {**{k: c["vision_config"][k] for k in vision}, "in_chans": 3,
                          "spatial_patch_size": c["vision_config"]["patch_size"]}
    p = json.loads((folder / "processor_config.json").read_text())
    image = p.pop("image_processor")
    size = image.pop("size")
    image.update(min_pixels=size["shortest_edge"], max_pixels=size["longest_edge"],
                 image_processor_type="Qwen2VLImageProcessor")
    (folder / "preprocessor_config.json").write_text(json.dumps(image, indent=1) + "\n")
    (folder / "processor_config.json").unlink()
    return c, rename(w, [("model.language_model.", "model."), ("model.visual.", "visual.")])


def qwen2_vl():
    """As the first published ones; tied, bfloat16."""
    vision = dict(depth=3, embed_dim=36, hidden_size=60, mlp_ratio=3, num_heads=3, patch_size=7, spatial_merge_size=2,
                  temporal_patch_size=2)
    m = Qwen2VLForConditionalGeneration(Qwen2VLConfig(
        text_config={**TEXT, "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [1, 2, 2]}},
        vision_config=vision, tie_word_embeddings=True, **IDS))
    p = processor(Qwen2VLProcessor, patch_size=7, min_pixels=14 * 14 * 4, max_pixels=14 * 14 * 40)
    common.make("qwen2_vl", m, p, 56, torch.bfloat16, 201,
                tweak=lambda c, w, f: old(c, w, f, [k for k in vision], [1, 2, 2]))


def qwen2_vl_new():
    """As the library writes them now: nested, new names; three by three patches of a single frame merged, YaRN, windows in the
    decoder, float16."""
    vision = dict(depth=2, embed_dim=24, hidden_size=48, mlp_ratio=3, num_heads=2, patch_size=14, spatial_merge_size=3,
                  temporal_patch_size=1, hidden_act="gelu")
    m = Qwen2VLForConditionalGeneration(Qwen2VLConfig(
        text_config={**TEXT, "hidden_size": 48, "num_attention_heads": 4, "max_position_embeddings": 160,
                     "use_sliding_window": True, "sliding_window": 11, "max_window_layers": 1,
                     "rope_parameters": {"rope_type": "yarn", "rope_theta": 5000.0, "factor": 4.0, "mrope_section": [3, 1, 2],
                                         "original_max_position_embeddings": 40}},
        vision_config=vision, **IDS))
    p = processor(Qwen2VLProcessor, patch_size=14, merge_size=3, temporal_patch_size=1, do_normalize=True,
                  image_mean=[0.5, 0.4, 0.6], image_std=[0.3, 0.2, 0.4],
                  size={"shortest_edge": 42 * 42, "longest_edge": 42 * 42 * 30})
    common.make("qwen2_vl_new", m, p, 42, torch.float16, 202)


def qwen2_5_vl():
    """As the first published ones; windows that do not divide the grid, one layer in the middle sees all, bfloat16."""
    vision = dict(depth=3, hidden_size=36, hidden_act="silu", intermediate_size=50, num_heads=3, out_hidden_size=60,
                  patch_size=7, spatial_merge_size=2, temporal_patch_size=2, window_size=47, fullatt_block_indexes=[1],
                  tokens_per_second=2)
    m = Qwen2_5_VLForConditionalGeneration(Qwen2_5_VLConfig(
        text_config={**TEXT, "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [1, 2, 2]}},
        vision_config=vision, tie_word_embeddings=False, **IDS))
    p = processor(Qwen2_5_VLProcessor, patch_size=7, min_pixels=14 * 14 * 4, max_pixels=14 * 14 * 60)

    def tweak(c, w, folder):
        return old(c, w, folder, [k for k in vision], [1, 2, 2])
    common.make("qwen2_5_vl", m, p, 56, torch.bfloat16, 203, tweak=tweak)


def qwen2_5_vl_new():
    """New names; windows larger than most pictures and than a block of rows; tied; float32."""
    m = Qwen2_5_VLForConditionalGeneration(Qwen2_5_VLConfig(
        text_config={**TEXT, "hidden_size": 32, "num_attention_heads": 4, "num_key_value_heads": 4, "num_hidden_layers": 2,
                     "tie_word_embeddings": True,
                     "rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [2, 2, 0]}},
        vision_config=dict(depth=2, hidden_size=32, intermediate_size=39, num_heads=2, out_hidden_size=32, patch_size=4,
                           window_size=64, fullatt_block_indexes=[0]), tie_word_embeddings=True, **IDS))
    p = processor(Qwen2_5_VLProcessor, patch_size=4, size={"shortest_edge": 8 * 8, "longest_edge": 8 * 8 * 150})
    common.make("qwen2_5_vl_new", m, p, 56, torch.float32, 204)


def qwen3_vl():
    """As published; two layers go deep, not in order, a table of positions that is not quite a square; tied; bfloat16."""
    m = Qwen3VLForConditionalGeneration(Qwen3VLConfig(
        text_config={**TEXT, "num_hidden_layers": 3, "head_dim": 20, "attention_bias": True,
                     "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [4, 3, 3],
                                         "mrope_interleaved": True}},
        vision_config=dict(depth=3, hidden_size=24, intermediate_size=50, num_heads=2, out_hidden_size=60, patch_size=8,
                           num_position_embeddings=52, deepstack_visual_indexes=[2, 0]), tie_word_embeddings=True, **IDS))
    p = processor(Qwen3VLProcessor, patch_size=8, image_mean=[0.5] * 3, image_std=[0.5] * 3,
                  size={"shortest_edge": 16 * 16 * 4, "longest_edge": 16 * 16 * 40})

    def tweak(c, w, folder):
        t = c["text_config"]
        r = t.pop("rope_parameters")
        t.update(rope_theta=r.pop("rope_theta"), rope_scaling=r, tie_word_embeddings=True)
        c["vision_config"]["model_type"] = "qwen3_vl"
        p = json.loads((folder / "processor_config.json").read_text())
        (folder / "preprocessor_config.json").write_text(json.dumps(
            {**p["image_processor"], "image_processor_type": "Qwen2VLImageProcessorFast"}, indent=1) + "\n")
        (folder / "processor_config.json").unlink()
        return c, w
    common.make("qwen3_vl", m, p, 96, torch.bfloat16, 205, tweak=tweak)


def qwen3_vl_plain():
    """Nothing goes deep; a table larger than most grids; patches by ones; its own head; float16."""
    m = Qwen3VLForConditionalGeneration(Qwen3VLConfig(
        text_config={**TEXT, "hidden_size": 48, "head_dim": 14, "num_hidden_layers": 2,
                     "rope_parameters": {"rope_type": "default", "rope_theta": 5e5, "mrope_section": [1, 2, 1]}},
        vision_config=dict(depth=2, hidden_size=24, intermediate_size=50, num_heads=2, out_hidden_size=48, patch_size=14,
                           num_position_embeddings=144, deepstack_visual_indexes=[], spatial_merge_size=1,
                           hidden_act="gelu"), **IDS))
    p = processor(Qwen3VLProcessor, patch_size=14, merge_size=1, size={"shortest_edge": 14 * 14 * 6, "longest_edge": 14 * 14 * 90})
    common.make("qwen3_vl_plain", m, p, 56, torch.float16, 206)


# ---- numbers alone --------------------------------------------------------------------------------------------------


def write(name, obj):
    out = HERE / "native"
    out.mkdir(exist_ok=True)
    (out / name).write_text(json.dumps(obj, separators=(",", ":")) + "\n")


def sizes():
    """[patch, merge, min, max, w, h, resized w, h]; 0, 0: the library refuses the picture."""
    r = random.Random(7)
    settings = [(14, 2, 56 * 56, 28 * 28 * 1280), (16, 2, 65536, 16777216), (14, 2, 3136, 12845056), (7, 3, 5000, 90000),
                (16, 1, 256, 256 * 9)]
    rows = []
    for i in range(700):
        p, m, lo, hi = settings[i % len(settings)]
        w, h = (int(math.exp(r.uniform(0, 9.2))) for _ in range(2))
        if i % 7 == 0:  # halves: a side that lies between two multiples
            w, h = p * m * r.randrange(1, 30) + p * m // 2, p * m * r.randrange(1, 30) + (p * m // 2 if i % 2 else 0)
        try:
            rh, rw = smart_resize(h, w, p * m, lo, hi)
        except ValueError:
            rh = rw = 0
        rows.append([p, m, lo, hi, w, h, rw, rh])
    write("sizes.json", rows)


def positions():
    """merge, the prompt as [rows of text] or [grid w, grid h], and the three positions of each row and of three of the
    answer's."""
    r = random.Random(8)
    config = Qwen2VLConfig(text_config={**TEXT, "rope_parameters": {"rope_type": "default", "mrope_section": [1, 2, 2]}},
                           vision_config=dict(depth=1, embed_dim=12, hidden_size=60, num_heads=1), **IDS)
    out = []
    for case in range(60):
        merge = r.choice([1, 2, 2, 3])
        config.vision_config.spatial_merge_size = merge
        model = Qwen2VLForConditionalGeneration(config).model if case == 0 else model
        model.config.vision_config.spatial_merge_size = merge
        parts, ids, types, grids = [], [], [], []
        for k in range(r.randrange(1, 7)):
            if k % 2 == case % 2:
                n = r.randrange(1, 9)
                parts.append([n])
                ids += [11] * n
                types += [0] * n
            else:
                w, h = r.randrange(1, 6), r.randrange(1, 6)
                parts.append([w, h])
                ids += [8] * (w * h)
                types += [1] * (w * h)
                grids.append([1, h * merge, w * merge])
        t = lambda x: torch.tensor([x])
        pos, delta = model.get_rope_index(t(ids), t(types), torch.tensor(grids) if grids else None)
        answer = [[len(ids) + i + int(delta)] * 3 for i in range(3)]
        out.append({"merge": merge, "parts": parts, "at": pos[:, 0].T.tolist() + answer})
    write("positions.json", out)


def windows():
    """Of a grid: cells in the order of windows, the ends of windows in rows; taps of a resampled table as [indices], [weights]
    in the order of blocks of merge x merge."""
    r = random.Random(9)
    out = []
    for case in range(40):
        merge, patch = r.choice([1, 2, 3]), r.choice([7, 14])
        w, h = (merge * r.randrange(1, r.choice([4, 13, 30])) for _ in range(2))
        size = patch * merge * r.choice([1, 2, 3, 4, 9, 14]) + r.randrange(0, patch)
        grid = torch.tensor([[1, h, w]])
        order, ends = get_vision_window_index(grid, merge, size, patch)
        side = r.choice([2, 5, 12, 48])
        idx, by = get_vision_interpolation_indices_and_weights(grid, side, "bilinear", True, merge)
        some = sorted(r.sample(range(w * h), min(w * h, 6)))
        out.append({"merge": merge, "patch": patch, "window_size": size, "w": w, "h": h, "order": order.tolist(),
                    "ends": ends.tolist(), "side": side, "rows": some, "taps": idx[some].tolist(),
                    "by": [[round(float(x), 9) for x in b] for b in by[some]]})
    write("windows.json", out)


def patches():
    """The image processor's own numbers: settings, picture, grid, rows (every 7th)."""
    out = []
    for path, kw in [("tall.png", dict(patch_size=4, merge_size=2, min_pixels=64, max_pixels=2000)),
                     ("tiny.png", dict(patch_size=3, merge_size=3, temporal_patch_size=1, size={"shortest_edge": 400, "longest_edge": 4000})),
                     ("strip.png", dict(patch_size=5, merge_size=1, temporal_patch_size=3, min_pixels=25, max_pixels=2500, resample=2,
                                        image_mean=[0.5] * 3, image_std=[0.25, 0.5, 0.75]))]:
        p = Qwen2VLImageProcessorPil(**kw)
        o = p(images=[common.picture(path)], return_tensors="np")
        rows = o["pixel_values"][::7].astype(np.float64)
        out.append({"picture": path, "config": {"image_processor_type": "Qwen2VLImageProcessor", **kw},
                    "grid": o["image_grid_thw"][0].tolist(), "rows": np.round(rows, 6).tolist()})
    write("patches.json", out)


if __name__ == "__main__":
    common.main([qwen2_vl, qwen2_vl_new, qwen2_5_vl, qwen2_5_vl_new, qwen3_vl, qwen3_vl_plain, sizes, positions, windows, patches])
