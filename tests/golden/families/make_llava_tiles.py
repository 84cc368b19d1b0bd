#!/usr/bin/env python3
"""LLaVA-NeXT and LLaVA-OneVision: small checkpoints and what the reference library says to them (common.py)."""
import torch

import common
from common import mm, text
from transformers import (CLIPVisionConfig, LlamaConfig, LlavaNextConfig, LlavaNextForConditionalGeneration,
                          LlavaNextProcessor, LlavaOnevisionConfig, LlavaOnevisionForConditionalGeneration,
                          LlavaOnevisionProcessor, MistralConfig, Qwen2Config, SiglipVisionConfig)
from transformers.models.llava_next.image_processing_pil_llava_next import LlavaNextImageProcessorPil
from transformers.models.llava_onevision.image_processing_pil_llava_onevision import LlavaOnevisionImageProcessorPil

CLIP = {**mm.CLIP_BASE, "num_hidden_layers": 3, "intermediate_size": 40}
SIGLIP = {**mm.SIGLIP_BASE, "num_hidden_layers": 2, "intermediate_size": 40}


def tok(bos):
    return common.tokenizer(330, bos, ["<image>", "<|start|>", "<|end|>"], {"image_token": "<image>"})


def points(side, *grids):
    return [[side * h, side * w] for h, w in grids]


FIVE = points(28, (1, 2), (2, 1), (2, 2), (3, 1), (1, 3))


def next_clip():
    """Default strategy, CLS dropped; new names."""
    m = LlavaNextForConditionalGeneration(LlavaNextConfig(
        vision_config=CLIPVisionConfig(**CLIP), text_config=LlamaConfig(**text()), image_token_index=4, image_grid_pinpoints=FIVE))
    ip = LlavaNextImageProcessorPil(size={"shortest_edge": 28}, crop_size={"height": 28, "width": 28}, image_grid_pinpoints=FIVE)
    p = LlavaNextProcessor(ip, tok(True), patch_size=7, vision_feature_select_strategy="default", num_additional_image_tokens=1,
                           chat_template=mm.LLAVA_TEMPLATE)
    common.make("llava_next_clip", m, p, 28, torch.bfloat16, 111, tweak=lambda c, w, folder: (c, common.new_names(w)))


def next_siglip():
    """Full strategy of a tower without CLS, two joined layers, a grid of 3 x 3 features, Mistral with a window; old names and
    settings in files of their own."""
    grids = points(42, (1, 1), (4, 1), (2, 3), (1, 4), (3, 2))
    m = LlavaNextForConditionalGeneration(LlavaNextConfig(
        vision_config=SiglipVisionConfig(**SIGLIP), text_config=MistralConfig(**text(sliding_window=23)), image_token_index=4,
        image_grid_pinpoints=grids, vision_feature_select_strategy="full", vision_feature_layer=[-2, 2],
        multimodal_projector_bias=False, projector_hidden_act="silu"))
    ip = LlavaNextImageProcessorPil(size={"height": 42, "width": 42}, do_center_crop=False, crop_size={"height": 42, "width": 42},
                                    image_grid_pinpoints=grids, resample=2, image_mean=[0.4, 0.5, 0.6])
    p = LlavaNextProcessor(ip, tok(False), patch_size=14, vision_feature_select_strategy="full", num_additional_image_tokens=0,
                           chat_template=common.parts_template("<image>"))

    def tweak(c, w, folder):
        common.old_preprocessor(folder, "LlavaNextImageProcessor")
        c["use_image_newline_parameter"] = True
        c["torch_dtype"] = c.pop("dtype")
        return c, common.old_names(w)
    common.make("llava_next_siglip", m, p, 42, torch.float16, 112, tweak=tweak)


def next_qwen2():
    """The published list of the class's defaults is too large for a test: the third decoder, one point only."""
    m = LlavaNextForConditionalGeneration(LlavaNextConfig(
        vision_config=CLIPVisionConfig(**{**CLIP, "hidden_act": "gelu"}), image_token_index=4, vision_feature_layer=1,
        text_config=Qwen2Config(**text(head_dim=None)), image_grid_pinpoints=points(28, (2, 2))))
    ip = LlavaNextImageProcessorPil(size={"shortest_edge": 28}, crop_size={"height": 28, "width": 28},
                                    image_grid_pinpoints=points(28, (2, 2)), do_normalize=False)
    p = LlavaNextProcessor(ip, tok(False), patch_size=7, vision_feature_select_strategy="default", num_additional_image_tokens=1,
                           chat_template=common.parts_template("<image>"))
    common.make("llava_next_qwen2", m, p, 28, torch.bfloat16, 113)


def onevision(name, limit, seed, dtype, **over):
    grids = points(42, *[(h, w) for h in range(1, 5) for w in range(1, 5)])
    m = LlavaOnevisionForConditionalGeneration(LlavaOnevisionConfig(
        vision_config=SiglipVisionConfig(**SIGLIP, vision_use_head=False), image_token_index=4, video_token_index=7,
        text_config=Qwen2Config(**text(head_dim=None, **over)), image_grid_pinpoints=grids,
        vision_aspect_ratio=f"anyres_max_{limit}"))
    ip = LlavaOnevisionImageProcessorPil(size={"height": 42, "width": 42}, image_grid_pinpoints=grids,
                                         image_mean=[0.5, 0.25, 0.7], image_std=[0.5, 0.5, 0.4])
    t = common.tokenizer(330, False, ["<image>", "<|start|>", "<|end|>", "<video>"],
                         {"image_token": "<image>", "video_token": "<video>"})
    p = LlavaOnevisionProcessor(ip, t, None, num_image_tokens=9, vision_feature_select_strategy="full",
                                vision_aspect_ratio=f"anyres_max_{limit}", chat_template=common.parts_template("<image>"))
    return m, p


def onevision_pooled():
    """Three tiles' worth of features: most pictures are resampled."""
    m, p = onevision("pooled", 3, 121, torch.bfloat16)
    common.make("llava_onevision", m, p, 42, torch.bfloat16, 121)


def onevision_whole():
    """The published limit, tied embeddings, old names and files."""
    m, p = onevision("whole", 9, 122, torch.float32, tie_word_embeddings=True)

    def tweak(c, w, folder):
        common.old_preprocessor(folder, "LlavaOnevisionImageProcessor")
        c["torch_dtype"] = c.pop("dtype")
        c.pop("vision_aspect_ratio")
        return c, common.old_names(w)
    common.make("llava_onevision_tied", m, p, 42, torch.float16, 122, tweak=tweak)


if __name__ == "__main__":
    common.main([next_clip, next_siglip, next_qwen2, onevision_pooled, onevision_whole])
