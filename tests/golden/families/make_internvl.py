#!/usr/bin/env python3
"""InternVL in the library's own format: small checkpoints and what the reference library says to them (common.py)."""
import torch

import common
from common import text
from transformers import (InternVLConfig, InternVLForConditionalGeneration, InternVLProcessor, InternVLVisionConfig,
                          LlamaConfig, Qwen2Config, Qwen3Config)
from transformers.models.got_ocr2.image_processing_pil_got_ocr2 import GotOcr2ImageProcessorPil

VISION = dict(hidden_size=30, num_hidden_layers=2, num_attention_heads=3, intermediate_size=44, image_size=[28, 28],
              patch_size=[7, 7])


def processor(size, seq, bos=False, start="<img>", end="</img>", **prep):
    t = common.tokenizer(330, bos, ["<IMG_CONTEXT>", "<|start|>", "<|end|>", "<video>", start, end],
                         {"context_image_token": "<IMG_CONTEXT>", "start_image_token": start, "end_image_token": end,
                          "video_token": "<video>"})
    ip = GotOcr2ImageProcessorPil(size={"height": size, "width": size}, **prep)
    return InternVLProcessor(ip, t, None, image_seq_length=seq, chat_template=common.parts_template("<IMG_CONTEXT>\n"))


def model(vision, txt, **over):
    return InternVLForConditionalGeneration(InternVLConfig(
        vision_config=InternVLVisionConfig(**{**VISION, **vision}), text_config=txt, image_token_id=4, **over))


def internvl_qwen2():
    """As the small published ones: no norm behind the tower, biases; tied; new names. max_patches 6."""
    m = model({"attention_bias": True}, Qwen2Config(**text(head_dim=None, tie_word_embeddings=True)), image_seq_length=4)
    p = processor(28, 4, max_patches=6, crop_to_patches=False, image_mean=[0.485, 0.456, 0.406], image_std=[0.229, 0.224, 0.225])
    common.make("internvl_qwen2", m, p, 28, torch.bfloat16, 131, tweak=lambda c, w, folder: (c, common.new_names(w)))


def internvl_llama():
    """As the large published ones: RMS norms, q and k normed over the whole width; here with a norm behind the tower, sixteen
    neighbours to a row, at least two tiles, other markers; old names and files; the decoder's head its own."""
    m = model({"norm_type": "rms_norm", "use_qk_norm": True, "use_mean_pooling": False, "image_size": [56, 56],
               "layer_norm_eps": 1e-3, "hidden_act": "gelu_pytorch_tanh", "use_mask_token": True},
              LlamaConfig(**text()), image_seq_length=4, downsample_ratio=0.25, projector_hidden_act="silu",
              tie_word_embeddings=False)
    p = processor(56, 4, True, "<picture>", "</picture>", min_patches=2, max_patches=4, resample=2)

    def tweak(c, w, folder):
        common.old_preprocessor(folder, "GotOcr2ImageProcessorFast")
        c["torch_dtype"] = c.pop("dtype")
        w = common.old_names(w)
        return c, {n.replace("vision_tower.vision_model.", "vision_tower."): t for n, t in w.items()}
    common.make("internvl_llama", m, p, 56, torch.float16, 132, tweak=tweak)


def internvl_qwen3():
    """One tile always; features of a layer before the last."""
    m = model({"layer_norm_eps": 1e-5, "use_mean_pooling": False}, Qwen3Config(**text()), image_seq_length=16,
              downsample_ratio=1.0, vision_feature_layer=1)
    p = processor(28, 16, max_patches=1)

    def tweak(c, w, folder):
        for k in ("vision_feature_select_strategy", "projector_hidden_act"):
            c.pop(k)
        c["vision_config"]["image_size"] = 28
        return c, w
    common.make("internvl_qwen3", m, p, 28, torch.bfloat16, 133, tweak=tweak)


if __name__ == "__main__":
    common.main([internvl_qwen2, internvl_llama, internvl_qwen3])
