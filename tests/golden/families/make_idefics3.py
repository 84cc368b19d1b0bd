#!/usr/bin/env python3
"""Idefics3 and SmolVLM: small checkpoints and what the reference library says to them (common.py)."""
import types

import torch

import common
from common import text
from transformers import (Idefics3Config, Idefics3ForConditionalGeneration, Idefics3Processor, LlamaConfig, SmolVLMConfig,
                          SmolVLMForConditionalGeneration)
from transformers.models.idefics3.image_processing_pil_idefics3 import Idefics3ImageProcessorPil
from transformers.models.smolvlm import processing_smolvlm
from transformers.models.smolvlm.image_processing_pil_smolvlm import SmolVLMImageProcessorPil

processing_smolvlm.num2words = str  # for videos only

VISION = dict(hidden_size=33, intermediate_size=44, num_hidden_layers=2, num_attention_heads=3, image_size=28, patch_size=7)
TEMPLATE = ("<|start|>{% for m in messages %}{{ m.role | capitalize }}{% if m.content[0].type == 'image' %}:{% else %}: "
            "{% endif %}{% for p in m.content %}{% if p.type == 'text' %}{{ p.text }}{% elif p.type == 'image' %}<image>"
            "{% endif %}{% endfor %}<end_of_utterance>\n{% endfor %}{% if add_generation_prompt %}Assistant:{% endif %}")
MARKERS = ["<image>", "<|start|>", "<end_of_utterance>", "<fake_token_around_image>", "<global-img>", "<row_1_col_1>",
           "<row_1_col_2>", "<row_2_col_1>", "<row_2_col_2>"]


def tok(bos, named):
    return common.tokenizer(330, bos, MARKERS, named)


def idefics3():
    """Several tiles, a tower of its own size; the markers beyond the second row or column are no tokens."""
    m = Idefics3ForConditionalGeneration(Idefics3Config(vision_config=VISION, text_config=LlamaConfig(**text(
        rope_parameters={"rope_type": "llama3", "factor": 4.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
                         "original_max_position_embeddings": 64, "rope_theta": 5000.0})),
        image_token_id=4, pad_token_id=3))
    ip = Idefics3ImageProcessorPil(size={"longest_edge": 84}, max_image_size={"longest_edge": 28})
    p = Idefics3Processor(ip, tok(True, {"image_token": "<image>"}), image_seq_len=4, chat_template=TEMPLATE)
    common.make("idefics3", m, p, 28, torch.bfloat16, 141, parts=True)


def smolvlm(name, ip, seq, vision, seed, dtype, tweak=None, scale=3, **over):
    m = SmolVLMForConditionalGeneration(SmolVLMConfig(vision_config=vision, text_config=LlamaConfig(**text(**over)),
                                                      image_token_id=4, scale_factor=scale, pad_token_id=3, **{
                                                          k: v for k, v in over.items() if k == "tie_word_embeddings"}))
    named = {"image_token": "<image>", "fake_image_token": "<fake_token_around_image>", "global_image_token": "<global-img>",
             "end_of_utterance_token": "<end_of_utterance>"}
    p = processing_smolvlm.SmolVLMProcessor(ip, tok(False, named), None, image_seq_len=seq, chat_template=TEMPLATE)
    p.video_processor = types.SimpleNamespace(num_frames=1, fps=1)
    common.make(name, m, p, 28, dtype, seed, tweak=tweak, parts=True)


def smolvlm_tiles():
    """Tied; tiles that are no multiple of a patch, nine neighbours to a row, a larger table of positions than the tile's
    grid; settings in files of their own."""
    def tweak(c, w, folder):
        common.old_preprocessor(folder, "SmolVLMImageProcessor")
        c["torch_dtype"] = c.pop("dtype")
        c["vision_config"].update({"max_image_size": {"longest_edge": 45}, "size": {"longest_edge": 90}, "use_base_siglip": False,
                                   "model_type": "smolvlm"})
        return c, w
    smolvlm("smolvlm", SmolVLMImageProcessorPil(size={"longest_edge": 90}, max_image_size={"longest_edge": 45}), 4,
            {**VISION, "image_size": 63}, 142, torch.float16, tweak, tie_word_embeddings=True)


def smolvlm_whole():
    """No splitting: scaled, then squashed. The buckets do not read the table of 25 x 25 in order."""
    smolvlm("smolvlm_whole", SmolVLMImageProcessorPil(size={"longest_edge": 70}, max_image_size={"longest_edge": 50},
                                                      do_image_splitting=False, resample=3), 25,
            {**VISION, "image_size": 50, "patch_size": 2}, 143, torch.bfloat16, scale=5, num_key_value_heads=6, head_dim=6)


if __name__ == "__main__":
    common.main([idefics3, smolvlm_tiles, smolvlm_whole])
