#!/usr/bin/env python3
"""Checkpoints whose pictures or prompts attend both ways, made and asked as make_models.py does it: PaliGemma, Gemma 3.

    python tests/golden/models/make_both_ways.py [name ...]      (all by default)"""
import json
import sys

import torch
import transformers
from transformers import (Gemma2Config, Gemma3Config, Gemma3ForConditionalGeneration, Gemma3Processor, Gemma3TextConfig,
                          GemmaConfig, PaliGemmaConfig, PaliGemmaForConditionalGeneration, PaliGemmaProcessor,
                          SiglipVisionConfig)
from transformers.models.gemma3.image_processing_pil_gemma3 import Gemma3ImageProcessorPil
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

from make_models import SIGLIP_BASE, VOCAB, img, make, pictures, rename, scene, text, tokenizer, txt, HERE

EMBED = 0.5  # as in make_decoders.py
# What vlmd renders where a PaliGemma brings no template (engine/families/paligemma.c).
PALIGEMMA = ("{%- for m in messages %}{% if m.content is string %}{{ m.content }}{% else %}"
             "{% for p in m.content if p.type == 'image' %}<image>{% endfor %}"
             "{% for p in m.content if p.type == 'text' %}{{ p.text }}{% endfor %}{% endif %}"
             "{% if not loop.last %}{{ '\\n' }}{% endif %}{% endfor %}")
GEMMA3 = ("{{ bos_token }}{%- if messages[0]['role'] == 'system' -%}{%- if messages[0]['content'] is string -%}"
          "{%- set first_user_prefix = messages[0]['content'] + '\n\n' -%}{%- else -%}"
          "{%- set first_user_prefix = messages[0]['content'][0]['text'] + '\n\n' -%}{%- endif -%}"
          "{%- set loop_messages = messages[1:] -%}{%- else -%}{%- set first_user_prefix = '' -%}"
          "{%- set loop_messages = messages -%}{%- endif -%}{%- for message in loop_messages -%}"
          "{%- set role = 'model' if message['role'] == 'assistant' else message['role'] -%}"
          "{{ '<|turn|>' + role + '\n' + (first_user_prefix if loop.first else '') }}"
          "{%- if message['content'] is string -%}{{ message['content'] | trim }}{%- else -%}"
          "{%- for item in message['content'] -%}{%- if item['type'] == 'image' -%}{{ '<|start|>' }}"
          "{%- elif item['type'] == 'text' -%}{{ item['text'] | trim }}{%- endif -%}{%- endfor -%}{%- endif -%}"
          "{{ '</s>\n' }}{%- endfor -%}{%- if add_generation_prompt -%}{{ '<|turn|>model\n' }}{%- endif -%}")


NEW_NAMES = [("vision_tower.vision_model.", "model.vision_tower."), ("vision_tower.", "model.vision_tower."),
             ("multi_modal_projector.", "model.multi_modal_projector."), ("language_model.model.", "model.language_model."),
             ("language_model.lm_head", "lm_head")]


def new_names(c, w, folder):
    return c, rename(w, NEW_NAMES)


def extra_pictures():
    made = {"speck.png": scene(3, 2, 7), "long.png": scene(300, 30, 8), "exact36.png": scene(36, 36, 36)}
    for name, im in made.items():
        if not (HERE / "pictures" / name).exists():
            im.save(HERE / "pictures" / name)


def asks(exact, chat):
    """Cases as make_models.py's; chat: turns and prompts without a picture are something that the model knows."""
    user = lambda *parts: {"role": "user", "content": list(parts)}
    out = [("exact", lambda a: [user(img(exact), txt(a))]),
           ("wide", lambda a: [user(img("wide.jpg"), txt(a))]),
           ("tall", lambda a: [user(img("tall.png"), txt(a))]),
           ("long", lambda a: [user(img("long.png"), txt(a))]),
           ("tiny", lambda a: [user(img("speck.png"), txt(a))]),
           ("two_pictures", lambda a: [user(img("wide.jpg"), img(exact), txt(a))])]
    if chat:
        out += [("text_only", lambda a: [{"role": "user", "content": a}]),
                ("system", lambda a: [{"role": "system", "content": "You are a careful helper."},
                                      {"role": "user", "content": a}]),
                ("text_around", lambda a: [user(txt("Look:"), img("grey.jpg"), txt("and"), img(exact), txt(a))]),
                ("picture_two_turns", lambda a: [user(img("tall.png"), txt("What is it?")),
                                                 {"role": "assistant", "content": [txt("A blue circle.")]},
                                                 user(txt(a), img("other.jpg"))])]
    return out


def paligemma(name, text_config, dtype, seed, tweak=None, vision=None, **more):
    v = SiglipVisionConfig(**{**SIGLIP_BASE, **(vision or {})})
    m = PaliGemmaForConditionalGeneration._from_config(
        PaliGemmaConfig(vision_config=v, text_config=text_config, projection_dim=48, hidden_size=48, image_token_index=4,
                        vocab_size=VOCAB), **({"attn_implementation": more["attn"]} if "attn" in more else {}))

    def processor(tok):
        ip = SiglipImageProcessorPil(size={"height": v.image_size, "width": v.image_size})
        ip.image_seq_length = (v.image_size // v.patch_size) ** 2
        tok.add_tokens = lambda *a, **k: 0  # a thousand places and a hundred segments
        return PaliGemmaProcessor(ip, tok, chat_template=PALIGEMMA)

    def no_template(c, w, folder):
        (folder / "chat_template.jinja").unlink()
        return tweak(c, w, folder) if tweak else (c, w)
    make(name, m, v.image_size, True, PALIGEMMA, dtype, seed, tweak=no_template, embed=EMBED, processor=processor,
         cases=asks(f"exact{v.image_size}.png", False), **more)


def both_ways_paligemma():
    """As first published: old names, no word of the head."""
    def tweak(c, w, folder):
        c["text_config"] = {k: v for k, v in c["text_config"].items() if k != "use_bidirectional_attention"}
        c.pop("tie_word_embeddings", None)
        return c, rename(w, [("model.vision_tower.", "vision_tower.vision_model."),
                             ("vision_tower.", "vision_tower.vision_model."),
                             ("model.multi_modal_projector.", "multi_modal_projector."),
                             ("model.language_model.", "language_model.model.")])
    paligemma("both_ways_paligemma", GemmaConfig(**text(head_dim=12, num_key_value_heads=1)), torch.bfloat16, 111, tweak=tweak)


def both_ways_paligemma2():
    """A window shorter than the prompt, which sees itself whole all the same."""
    paligemma("both_ways_paligemma2", Gemma2Config(**text(
        head_dim=14, sliding_window=6, attn_logit_softcapping=4.0, final_logit_softcapping=12.0, query_pre_attn_scalar=20)),
        torch.float32, 112, tweak=new_names, vision={"image_size": 28, "patch_size": 7, "hidden_act": "gelu"}, attn="eager")


def gemma3(name, dtype, seed, pan, vision, tokens, tweak=None, **over):
    t = Gemma3TextConfig(**text(**{"query_pre_attn_scalar": 15, "num_hidden_layers": 4, "sliding_window": 7,
                                   "layer_types": ["sliding_attention", "full_attention"] * 2, **over}))
    v = SiglipVisionConfig(**{**SIGLIP_BASE, **vision, "vision_use_head": False})
    m = Gemma3ForConditionalGeneration(Gemma3Config(vision_config=v, text_config=t, mm_tokens_per_image=tokens,
                                                    boi_token_index=5, eoi_token_index=6, image_token_index=4))
    settings = {"do_pan_and_scan": True, "pan_and_scan_min_crop_size": 20, "pan_and_scan_max_num_crops": 3,
                "pan_and_scan_min_ratio_to_activate": 1.5} if pan else {}

    def processor(tok):
        tok = transformers.PreTrainedTokenizerFast(
            tokenizer_object=tok._tokenizer, bos_token="<s>", eos_token="</s>", pad_token="<pad>", unk_token="<unk>",
            extra_special_tokens={"image_token": "<image>", "boi_token": "<|start|>", "eoi_token": "<|end|>"})
        ip = Gemma3ImageProcessorPil(size={"height": v.image_size, "width": v.image_size}, **settings)
        return Gemma3Processor(ip, tok, chat_template=GEMMA3, image_seq_length=tokens)
    make(name, m, v.image_size, True, GEMMA3, dtype, seed, embed=EMBED, processor=processor, tweak=tweak,
         cases=asks(f"exact{v.image_size}.png", True), call=settings)


def both_ways_gemma3():
    """Windows shorter than a picture; names and ropes of the first release."""
    def tweak(c, w, folder):
        t = c["text_config"]
        r = t.pop("rope_parameters")
        t.update({"rope_theta": r["full_attention"]["rope_theta"], "rope_scaling": {"rope_type": "linear", "factor": 2.0},
                  "rope_local_base_freq": r["sliding_attention"]["rope_theta"]})
        return c, rename(w, [("model.vision_tower.", "vision_tower.vision_model."),
                             ("model.multi_modal_projector.", "multi_modal_projector."),
                             ("model.language_model.", "language_model.model.")])
    gemma3("both_ways_gemma3", torch.bfloat16, 113, False, {"image_size": 56, "patch_size": 14}, 4, tweak=tweak,
           rope_parameters={"full_attention": {"rope_type": "linear", "factor": 2.0, "rope_theta": 3e5},
                            "sliding_attention": {"rope_type": "default", "rope_theta": 900.0}})


def both_ways_gemma3_crops():
    """Pan and scan; 9 x 9 patches, of which a pool of 2 leaves the last row out."""
    gemma3("both_ways_gemma3_crops", torch.float16, 114, True, {"image_size": 36, "patch_size": 4}, 16,
           tweak=new_names, sliding_window=30)


ALL = [both_ways_paligemma, both_ways_paligemma2, both_ways_gemma3, both_ways_gemma3_crops]
if __name__ == "__main__":
    pictures()
    extra_pictures()
    for f in ALL:
        if len(sys.argv) < 2 or f.__name__ in sys.argv[1:]:
            f()
