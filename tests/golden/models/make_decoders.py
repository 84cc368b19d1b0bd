#!/usr/bin/env python3
"""Checkpoints of decoders on their own, made and asked as make_models.py does it.

    python tests/golden/models/make_decoders.py [name ...]      (all by default)"""
import sys

import torch
from transformers import (Gemma2Config, Gemma2ForCausalLM, Gemma3ForCausalLM, Gemma3TextConfig, GemmaConfig,
                          GemmaForCausalLM, OPTConfig, OPTForCausalLM)

from make_models import PARTS_TEMPLATE, PLAIN_TEMPLATE, make, text


EMBED = 0.5  # Gemma scales by 7 what it looks up: more, and every answer would be the question's last word


def text_gemma():
    """As first released: the activation under its wrong name, no word about the head."""
    m = GemmaForCausalLM(GemmaConfig(**text(head_dim=12, num_key_value_heads=1)))

    def tweak(c, w, folder):
        c["hidden_act"], c["hidden_activation"] = "gelu", None
        c["rope_theta"] = c.pop("rope_parameters")["rope_theta"]
        c.pop("tie_word_embeddings")
        return c, w
    make("text_gemma", m, 0, True, PLAIN_TEMPLATE, torch.bfloat16, 101, tweak=tweak, embed=EMBED)


def text_gemma2():
    m = Gemma2ForCausalLM(Gemma2Config(**text(
        head_dim=14, sliding_window=9, attn_logit_softcapping=3.0, final_logit_softcapping=11.0, attention_bias=True,
        query_pre_attn_scalar=20, num_hidden_layers=4)))

    def tweak(c, w, folder):
        c.pop("layer_types")
        c["cache_implementation"] = "hybrid"
        return c, w
    make("text_gemma2", m, 0, True, PLAIN_TEMPLATE, torch.float16, 102, tweak=tweak, attn="eager", embed=EMBED)


def text_gemma3():
    m = Gemma3ForCausalLM(Gemma3TextConfig(**text(
        sliding_window=7, query_pre_attn_scalar=30, final_logit_softcapping=9.0, num_hidden_layers=5,
        layer_types=["sliding_attention", "sliding_attention", "full_attention"] + ["sliding_attention"] * 2,
        rope_parameters={"full_attention": {"rope_type": "linear", "factor": 4.0, "rope_theta": 5e5},
                         "sliding_attention": {"rope_type": "default", "rope_theta": 700.0}})))

    def tweak(c, w, folder):
        c.pop("layer_types")
        r = c.pop("rope_parameters")
        c.update({"sliding_window_pattern": 3, "rope_theta": r["full_attention"]["rope_theta"],
                  "rope_local_base_freq": r["sliding_attention"]["rope_theta"],
                  "rope_scaling": {"rope_type": "linear", "factor": 4.0}})
        return c, w
    make("text_gemma3", m, 0, True, PARTS_TEMPLATE, torch.bfloat16, 103, tweak=tweak, embed=EMBED)


def opt(**over):
    c = text(num_hidden_layers=3, hidden_size=42, ffn_dim=50, num_attention_heads=6, max_position_embeddings=320, **over)
    return OPTForCausalLM(OPTConfig(**{k: v for k, v in c.items() if k not in (
        "intermediate_size", "num_key_value_heads", "head_dim")}))


def text_opt():
    m = opt(enable_bias=False, layer_norm_elementwise_affine=False, activation_function="gelu")
    make("text_opt", m, 0, True, PLAIN_TEMPLATE, torch.float16, 104)


def text_opt_after():
    """The one with norms behind the residual and narrow embeddings, by its old names."""
    m = opt(do_layer_norm_before=False, word_embed_proj_dim=31, tie_word_embeddings=False)

    def tweak(c, w, folder):
        c.update({"activation_dropout": 0.0, "prefix": "</s>", "output_projection": True})
        return c, {n.removeprefix("model."): t for n, t in w.items()}
    make("text_opt_after", m, 0, True, PLAIN_TEMPLATE, torch.float32, 105, tweak=tweak)


ALL = [text_gemma, text_gemma2, text_gemma3, text_opt, text_opt_after]
if __name__ == "__main__":
    for f in ALL:
        if len(sys.argv) < 2 or f.__name__ in sys.argv[1:]:
            f()
