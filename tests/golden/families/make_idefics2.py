#!/usr/bin/env python3
"""Idefics2: small random-weight checkpoints and what the reference library says to them; see common.py.

    python tests/golden/families/make_idefics2.py [name ...]"""
import json

import torch

import common
from common import text
from transformers import Idefics2Config, Idefics2ForConditionalGeneration, Idefics2Processor, MistralConfig
from transformers.models.idefics2.image_processing_pil_idefics2 import Idefics2ImageProcessorPil

VISION = dict(hidden_size=33, intermediate_size=50, num_hidden_layers=2, num_attention_heads=3, image_size=42, patch_size=6)
TEMPLATE = common.parts_template("<image>", end="<end_of_utterance>")


def tokenizer():
    return common.tokenizer(347, True, ["<image>", "<fake_token_around_image>", "<end_of_utterance>", "<|start|>"],
                            {"image_token": "<image>", "image_boundary_token": "<fake_token_around_image>"})


def make(name, perceiver, ip, seed, dtype, tweak=None, embed=3.5, **over):
    p = {"hidden_size": 36, "rms_norm_eps": 1e-4, **perceiver}
    m = Idefics2ForConditionalGeneration(Idefics2Config(
        vision_config=VISION, perceiver_config=p, text_config=MistralConfig(**text(vocab_size=350, **over)), image_token_id=4,
        pad_token_id=3))
    for n, x in m.named_parameters():
        if n.endswith("latents"):
            torch.nn.init.normal_(x)
    proc = Idefics2Processor(ip, tokenizer(), image_seq_len=perceiver["resampler_n_latents"], chat_template=TEMPLATE)
    common.make(name, m, proc, 42, dtype, seed, tweak=tweak, parts=True, embed=embed)


def idefics2():
    """Split in quarters; grids that are no multiple of a patch; latents in two groups of heads."""
    make("idefics2", dict(resampler_n_latents=5, resampler_depth=2, resampler_n_heads=4, resampler_head_dim=9,
                          num_key_value_heads=2),
         Idefics2ImageProcessorPil(size={"shortest_edge": 20, "longest_edge": 62}, do_image_splitting=True), 161, torch.bfloat16)


def idefics2_whole():
    """Whole pictures; a perceiver whose width does not fit and is taken from the decoder; settings as published."""
    def tweak(c, w, folder):
        common.old_preprocessor(folder, "Idefics2ImageProcessor")
        return c, w
    make("idefics2_whole", dict(hidden_size=64, resampler_n_latents=7, resampler_depth=1, resampler_n_heads=3,
                                resampler_head_dim=10, num_key_value_heads=1),
         Idefics2ImageProcessorPil(size={"shortest_edge": 31, "longest_edge": 77}, resample=3), 162, torch.float32, tweak=tweak,
         sliding_window=None)


if __name__ == "__main__":
    import sys
    common.pictures()
    for n in sys.argv[1:] or ["idefics2", "idefics2_whole"]:
        globals()[n]()
