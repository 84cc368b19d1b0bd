#!/usr/bin/env python3
"""Which boxes of a picture Gemma 3's image processor takes by pan and scan -> crops.json, for tests/engine/families/test_crops.c."""
import json
import pathlib
import random

import numpy as np
from transformers.models.gemma3.image_processing_pil_gemma3 import Gemma3ImageProcessorPil

HERE = pathlib.Path(__file__).resolve().parent
random.seed(4)


def boxes(w, h, side, most, ratio):
    """By a picture whose pixels say where they are."""
    at = np.stack(np.meshgrid(np.arange(w), np.arange(h)))
    crops = Gemma3ImageProcessorPil().pan_and_scan(at, side, most, ratio)
    return [[int(c[0].min()), int(c[1].min()), c.shape[2], c.shape[1]] for c in crops]


groups = []
for side, most, ratio in ((256, 4, 1.2), (20, 3, 1.5), (64, 1, 1.0), (30, 9, 2.0)):
    sizes = [(1024, 768), (768, 1024), (300, 30), (30, 300), (512, 512), (511, 512), (1537, 512), (512, 1537)]
    sizes += [(random.randint(10, 1500), random.randint(10, 1500)) for _ in range(30)]
    sizes += [(random.randint(40, 200) * k, random.randint(40, 200)) for k in range(1, 9)]
    groups.append({"settings": [side, most, ratio], "cases": [[w, h, boxes(w, h, side, most, ratio)] for w, h in sizes]})
(HERE / "crops.json").write_text("[\n" + ",\n".join(json.dumps(g, separators=(",", ":")) for g in groups) + "\n]\n")
