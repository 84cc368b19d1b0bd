#!/usr/bin/env python3
"""What the reference's processors make of pictures of many sizes: plans.json (grids, tiles, tokens; published shapes),
buckets.json (Idefics3's position buckets) and ../image/cut.json (pixels of tiles).

    python tests/golden/families/make_plans.py

For plans.json the processors' own code runs on shapes alone: resizing is replaced by an array of the new shape that holds
nothing."""
import importlib.util
import json
import pathlib
import random

import numpy as np
import torch
from transformers.image_processing_backends import PilBackend
from transformers.image_processing_utils import get_patch_output_size, select_best_resolution
from transformers.image_utils import ChannelDimension
from transformers.models.got_ocr2.image_processing_pil_got_ocr2 import GotOcr2ImageProcessorPil, get_optimal_tiled_canvas
from transformers.models.idefics3.image_processing_pil_idefics3 import Idefics3ImageProcessorPil
from transformers.models.llava_next.image_processing_pil_llava_next import LlavaNextImageProcessorPil
from transformers.models.llava_next.processing_llava_next import LlavaNextProcessor
from transformers.models.llava_onevision.image_processing_pil_llava_onevision import LlavaOnevisionImageProcessorPil
from transformers.models.llava_onevision.processing_llava_onevision import LlavaOnevisionProcessor
from transformers.models.smolvlm.image_processing_pil_smolvlm import SmolVLMImageProcessorPil

HERE = pathlib.Path(__file__).resolve().parent
IMAGE = HERE.parent / "image"
spec = importlib.util.spec_from_file_location("make_goldens", IMAGE / "make_goldens.py")
images = importlib.util.module_from_spec(spec)
spec.loader.exec_module(images)

TEXT = {"hidden_size": 48, "intermediate_size": 44, "num_hidden_layers": 1, "num_attention_heads": 6, "vocab_size": 64}


def vision(kind, size, patch):
    return {"model_type": kind, "hidden_size": 12, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 3,
            "image_size": size, "patch_size": patch}


def sizes(n, seed, most=2600):
    r = random.Random(seed)
    out = [(1, 1), (2, 3), (336, 336), (384, 384), (448, 448), (364, 364), (512, 512), (1024, 768), (768, 1024), (1920, 1080),
           (1080, 1920), (3000, 40), (40, 3000), (5000, 1), (1, 5000), (672, 336), (337, 336), (335, 336), (1, 2), (640, 480)]
    while len(out) < n:
        kind = r.randrange(4)
        if kind == 0:
            out.append((r.randint(1, most), r.randint(1, most)))
        elif kind == 1:
            out.append((r.randint(1, 400), r.randint(1, 400)))
        elif kind == 2:  # about a ratio of small numbers
            k = r.randint(20, 300)
            out.append((max(1, k * r.randint(1, 7) + r.randint(-1, 1)), max(1, k * r.randint(1, 7) + r.randint(-1, 1))))
        else:
            w, h = r.randint(1, most), r.randint(1, 60)
            out.append((w, h) if r.random() < 0.5 else (h, w))
    return out


def shaped(h, w):
    return np.broadcast_to(np.uint8(0), (3, h, w))


def points(proc, ip, w, h, side, drop):
    """columns, rows, resized width and height, tokens"""
    bh, bw = select_best_resolution((h, w), ip.image_grid_pinpoints)
    rh, rw = get_patch_output_size(shaped(h, w), (bh, bw), ChannelDimension.FIRST)
    return [bw // side, bh // side, rw, rh, proc._get_number_of_features(h, w, side, side) - drop]


def bare(cls, **attributes):
    p = object.__new__(cls)
    p.__dict__.update(attributes)
    return p


def llava_next():
    ip = LlavaNextImageProcessorPil(size={"shortest_edge": 336}, crop_size={"height": 336, "width": 336})
    p = bare(LlavaNextProcessor, image_processor=ip, patch_size=14, num_additional_image_tokens=1)
    return {"config": {"model_type": "llava_next", "text_config": TEXT, "vision_config": vision("clip_vision_model", 336, 14)},
            "prep": {"image_processor_type": "LlavaNextImageProcessor", "size": {"shortest_edge": 336},
                     "crop_size": {"height": 336, "width": 336}},
            "sizes": [[w, h, 1] + points(p, ip, w, h, 336, 1) for w, h in sizes(250, 1)]}


def llava_onevision():
    ip = LlavaOnevisionImageProcessorPil()
    p = bare(LlavaOnevisionProcessor, image_processor=ip, num_image_tokens=729, vision_aspect_ratio="anyres_max_9")
    rows = []
    for w, h in sizes(250, 2, 5000):
        try:
            rows.append([w, h, 1] + points(p, ip, w, h, 384, 0))
        except ZeroDivisionError:
            continue
        if len(rows) % 9 == 0:
            rows.append([w, h, 3, 1, 1, 384, 384, 730])
    return {"config": {"model_type": "llava_onevision", "text_config": {**TEXT, "num_key_value_heads": 6},
                       "vision_config": vision("siglip_vision_model", 384, 14)},
            "prep": {"image_processor_type": "LlavaOnevisionImageProcessor"}, "sizes": rows}


def internvl(least, most, seed):
    rows = []
    for w, h in sizes(200, seed):
        x, y = get_optimal_tiled_canvas((h, w), (448, 448), least, most)
        n = GotOcr2ImageProcessorPil(size={"height": 448, "width": 448}, min_patches=least, max_patches=most,
                                     crop_to_patches=True).get_number_of_image_patches(h, w)
        rows.append([w, h, 1, x, y, 448 * x, 448 * y, 256 * n])
    return {"config": {"model_type": "internvl", "text_config": {**TEXT, "num_key_value_heads": 6},
                       "vision_config": vision("internvl_vision", [448, 448], [14, 14])},
            "prep": {"image_processor_type": "GotOcr2ImageProcessorFast", "size": {"height": 448, "width": 448},
                     "min_patches": least, "max_patches": most}, "sizes": rows}


def edge(kind, cls, size, patch, scale, longest, seed, split=True):
    ip = cls(size={"longest_edge": longest}, max_image_size={"longest_edge": size}, do_image_splitting=split)
    seq, rows = (size // patch // scale) ** 2, []
    was = PilBackend.resize
    PilBackend.resize = lambda self, image, size, resample=None, **kw: shaped(size.height, size.width)
    for w, h in sizes(200, seed):
        first = ip.resize(shaped(h, w), ip.size)
        if split:
            frames, y, x = ip.split_images(ip.resize_for_vision_encoder(first, size), {"longest_edge": size})
            assert all(f.shape == (3, size, size) for f in frames) and len(frames) == (x * y + 1 if x else 1)
            n = len(frames)
        else:
            x, y, n = 1, 1, 1
        rows.append([w, h, 1, x or 1, y or 1, first.shape[2], first.shape[1], seq * n])
    PilBackend.resize = was
    return {"config": {"model_type": kind, "text_config": TEXT, "scale_factor": scale,
                       "vision_config": vision(kind, size, patch)},
            "prep": {"image_processor_type": cls.__name__, "size": {"longest_edge": longest},
                     "max_image_size": {"longest_edge": size}, "do_image_splitting": split}, "sizes": rows}


def write_plans():
    all_ = [llava_next(), llava_onevision(), internvl(1, 12, 3), internvl(2, 6, 4),
            edge("idefics3", Idefics3ImageProcessorPil, 364, 14, 2, 1456, 5),
            edge("smolvlm", SmolVLMImageProcessorPil, 512, 16, 4, 2048, 6),
            edge("smolvlm", SmolVLMImageProcessorPil, 384, 14, 3, 1536, 7),
            edge("smolvlm", SmolVLMImageProcessorPil, 384, 14, 3, 4700, 8),
            edge("idefics3", Idefics3ImageProcessorPil, 364, 14, 2, 1457, 9, split=False)]
    (HERE / "plans.json").write_text("[\n" + ",\n".join(json.dumps(c, separators=(",", ":")) for c in all_) + "\n]\n")
    print("plans:", sum(len(c["sizes"]) for c in all_))


def write_buckets():
    rows = []
    for side in range(1, 78):
        for n in sorted({side, max(1, side // 2), side + 3, 7}):
            bounds = torch.arange(1 / side, 1.0, 1 / side)
            where = torch.arange(n, dtype=torch.float32)[None, :] * (1.0 / torch.tensor([n]))[:, None]
            ids = torch.bucketize(torch.clamp(where, max=(1.0 - 1e-6)), bounds, right=True)[0].tolist()
            rows.append([side] + ids)
    (HERE / "buckets.json").write_text("[\n" + ",\n".join(json.dumps(r, separators=(",", ":")) for r in rows) + "\n]\n")
    print("buckets:", len(rows))


# ---- pixels ----------------------------------------------------------------------------------------------------------


def tiles_of(ip, im, **kw):
    out = ip(im, return_tensors=None, do_rescale=False, do_normalize=False, **kw)["pixel_values"]
    while len(out) == 1 and np.ndim(out[0]) == 4:
        out = out[0]
    return [np.asarray(t).transpose(1, 2, 0).astype(np.uint8) for t in out]


def write_cut():
    grids = [[28, 56], [56, 28], [56, 56], [84, 28], [28, 84]]
    base = {"size": {"height": 28, "width": 28}}
    kinds = [("LlavaNextImageProcessor", LlavaNextImageProcessorPil,
              {"size": {"shortest_edge": 28}, "crop_size": {"height": 28, "width": 28}, "image_grid_pinpoints": grids}, {}),
             ("LlavaOnevisionImageProcessor", LlavaOnevisionImageProcessorPil,
              {**base, "image_grid_pinpoints": [[28 * h, 28 * w] for h in (1, 2, 3) for w in (1, 2, 3)], "resample": 2}, {}),
             ("GotOcr2ImageProcessor", GotOcr2ImageProcessorPil, {**base, "max_patches": 7}, {"crop_to_patches": True}),
             ("Idefics3ImageProcessor", Idefics3ImageProcessorPil,
              {"size": {"longest_edge": 100}, "max_image_size": {"longest_edge": 28}}, {}),
             ("SmolVLMImageProcessor", SmolVLMImageProcessorPil,
              {"size": {"longest_edge": 61}, "max_image_size": {"longest_edge": 27}, "do_image_splitting": False,
               "resample": 3}, {}),
             ("Idefics3ImageProcessor", Idefics3ImageProcessorPil,
              {"do_resize": False, "max_image_size": {"longest_edge": 40}}, {}),
             ("SmolVLMImageProcessor", SmolVLMImageProcessorPil,
              {"size": {"height": 45, "width": 70}, "max_image_size": {"longest_edge": 32}}, {})]
    rows = []
    for name, cls, config, kw in kinds:
        for seed, (w, h) in enumerate([(28, 28), (157, 61), (45, 133), (3, 5), (211, 17), (11, 160), (90, 90), (91, 45), (1, 1),
                                       (56, 57)]):
            im = images.Image.fromarray(images.source(w, h, seed))
            try:
                made = tiles_of(cls(**config), im, **kw)
            except (ValueError, ZeroDivisionError):
                continue
            rows.append({"config": {"image_processor_type": name, **config}, "in": [w, h, seed],
                         "tiles": [list(t.shape[1::-1]) for t in made],
                         "sum": images.fnv(np.concatenate([t.reshape(-1) for t in made]))})
    (IMAGE / "cut.json").write_text("[\n" + ",\n".join(json.dumps(r, separators=(",", ":")) for r in rows) + "\n]\n")
    print("cut:", len(rows))


if __name__ == "__main__":
    write_plans()
    write_buckets()
    write_cut()
