#!/usr/bin/env python3
"""BLIP-2: small random-weight checkpoints and what the reference library says to them; see common.py.

    python tests/golden/families/make_blip2.py [name ...]

The reference has no chat template: what vlmd renders where a checkpoint brings none (engine/families/blip2.c) is rendered by
the library too, and goes through its processor with the picture."""
import json
import types

import torch
import transformers

import common
from common import img, txt
from transformers import Blip2Config, Blip2ForConditionalGeneration, Blip2Processor, OPTConfig
from transformers.models.blip.image_processing_pil_blip import BlipImageProcessorPil

TEXT = "{% for p in m.content if p.type == 'text' %}{{ p.text }}{% endfor %}"
TEMPLATE = ("{%- for m in messages %}{% set text %}{% if m.content is string %}{{ m.content }}{% else %}" + TEXT +
            "{% endif %}{% endset %}{% if text %}{% if not loop.first %}{{ ' ' }}{% endif %}"
            "{% if m.role == 'user' %}Question: {{ text }}{% elif m.role == 'assistant' %}Answer: {{ text }}."
            "{% else %}{{ text }}{% endif %}"
            "{% if loop.last and m.role == 'user' and add_generation_prompt %} Answer:{% endif %}{% endif %}{% endfor %}")
DECODER = dict(vocab_size=350, hidden_size=36, ffn_dim=44, num_hidden_layers=2, num_attention_heads=6,
               max_position_embeddings=400, bos_token_id=1, eos_token_id=2, pad_token_id=3)


def cases(size):
    user = lambda *parts: {"role": "user", "content": list(parts)}
    return [("exact", lambda a: [user(img(f"exact{size}.png"), txt(a))]),
            ("wide", lambda a: [user(img("wide.jpg"), txt(a))]),
            ("very_tall", lambda a: [user(img("column.png"), txt(a))]),
            ("tiny", lambda a: [user(txt(a), img("tiny.png"))]),
            ("grey_in_between", lambda a: [user(txt("Look:"), img("grey.jpg"), txt(a))]),
            ("caption", lambda a: [user(img(a))]),
            ("system", lambda a: [{"role": "system", "content": "a photo of a dog."}, user(img("strip.png"), txt(a))]),
            ("two_turns", lambda a: [user(img("tall.png"), txt("What is it?")), {"role": "assistant", "content": "A blue circle"},
                                     {"role": "user", "content": a}])]


def asked(name, make):
    """The one case without words is asked of other pictures until one gives clear winners."""
    return (name, lambda a: make(a if name != "caption" else CAPTIONS[common.ASKS.index(a) % len(CAPTIONS)]))


CAPTIONS = ["other.jpg", "wide.jpg", "tall.png", "grey.jpg", "exact42.png", "exact56.png", "exact28.png", "exact96.png",
            "strip.png", "tiny.png", "column.png"]


class Asked:
    """The model as make_models.greedy asks it: a step behind the prompt has no picture, so it is the decoder's alone."""

    def __init__(self, model):
        self.model = model

    def eval(self):
        self.model.eval()
        return self

    def modules(self):
        return self.model.modules()

    def __call__(self, **now):
        if "pixel_values" not in now:
            return self.model.language_model(**now)
        o = self.model(**now)
        return types.SimpleNamespace(logits=o.logits, past_key_values=o.language_model_outputs.past_key_values)


def make(name, side, patch, queries, qformer, tok, seed, dtype, tweak=None, ready=Asked, vision=None, embed=0.7, **over):
    config = Blip2Config(
        vision_config=dict(hidden_size=33, intermediate_size=50, num_hidden_layers=2, num_attention_heads=3, image_size=side,
                           patch_size=patch, **(vision or {})),
        qformer_config=dict(hidden_size=30, intermediate_size=46, num_attention_heads=5, vocab_size=90, **qformer),
        text_config=OPTConfig(**{**DECODER, **over}), num_query_tokens=queries)
    ip = BlipImageProcessorPil(size={"height": side, "width": side})
    proc = Blip2Processor(ip, tok, num_query_tokens=queries)
    config.image_token_index = tok.convert_tokens_to_ids("<image>")
    proc.chat_template = TEMPLATE

    def without_template(c, w, folder):
        (folder / "chat_template.jinja").unlink()
        return tweak(c, w, folder) if tweak else (c, w)
    common.make(name, Blip2ForConditionalGeneration(config), proc, side, dtype, seed, tweak=without_template, embed=embed,
                ready=ready, cases=[asked(*c) for c in cases(side)])


def blip2():
    """More patches than a block of the tower's rows; cross-attention in every other layer; no biases on q, k, v of the
    tower; layers for a text that nobody reads."""
    make("blip2", 96, 8, 7, dict(num_hidden_layers=3, hidden_act="gelu_new", layer_norm_eps=1e-5, use_qformer_text_input=True),
         common.tokenizer(347, True, ["<image>"], {}), 171, torch.bfloat16, vision=dict(qkv_bias=False))


def blip2_old():
    """As first published: GPT-2's class of tokenizer, no word of <image> in it nor in the config; more queries than a block of
    rows."""
    base = json.loads(common.tokenizer(330, True, [], {})._tokenizer.to_str())
    tok = transformers.GPT2Tokenizer(vocab=base["model"]["vocab"], merges=[tuple(m) for m in base["model"]["merges"]],
                                     bos_token="</s>", eos_token="</s>", pad_token="<pad>", unk_token="</s>")

    def tweak(c, w, folder):
        write = lambda name, j: (folder / name).write_text(json.dumps(j, indent=1) + "\n")
        read = lambda name: json.loads((folder / name).read_text())
        del c["image_token_index"], c["use_decoder_only_language_model"]
        c["torch_dtype"] = c["text_config"]["torch_dtype"] = c.pop("dtype")
        c.update({"tie_word_embeddings": False, "is_composition": True})
        keep = {"vocab_size", "ffn_dim", "hidden_size", "model_type", "num_attention_heads", "num_hidden_layers", "torch_dtype",
                "word_embed_proj_dim", "max_position_embeddings"}
        c["text_config"] = {**{k: v for k, v in c["text_config"].items() if k in keep}, "activation_dropout": 0.0,
                            "eos_token_id": 2, "prefix": "</s>"}
        keep = {"hidden_size", "intermediate_size", "model_type", "num_attention_heads", "num_hidden_layers"}
        c["qformer_config"] = {**{k: v for k, v in c["qformer_config"].items() if k in keep}, "classifier_dropout": None,
                               "position_embedding_type": "absolute"}
        c["vision_config"].update({"dropout": 0.0, "num_channels": 3, "projection_dim": 512, "initializer_factor": 1.0})
        common.old_preprocessor(folder, "BlipImageProcessor")
        write("processor_config.json", {"processor_class": "Blip2Processor"})
        t = read("tokenizer.json")
        t["added_tokens"] = [a for a in t["added_tokens"] if a["content"] != "<image>"]
        t["post_processor"] = {"type": "TemplateProcessing", "pair": [],
                               "single": [{"SpecialToken": {"id": "</s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
                               "special_tokens": {"</s>": {"id": "</s>", "ids": [2], "tokens": ["</s>"]}}}
        write("tokenizer.json", t)
        write("tokenizer_config.json", {"add_bos_token": True, "add_prefix_space": False, "bos_token": "</s>", "eos_token": "</s>",
                                        "errors": "replace", "model_max_length": 1000000000000000019884624838656,
                                        "pad_token": "<pad>", "processor_class": "Blip2Processor",
                                        "tokenizer_class": "GPT2Tokenizer", "unk_token": "</s>"})
        tok.__dict__.update(transformers.AutoTokenizer.from_pretrained(folder).__dict__)  # what the processor will ask
        tok.add_tokens([transformers.AddedToken("<image>", normalized=False, special=True)], special_tokens=True)
        return c, w

    def ready(model):
        """The library's model finds the rows by an id, which the file does not name; its processor's is the tokenizer's next."""
        model.config.image_token_index = 330
        return Asked(model)
    make("blip2_old", 42, 14, 131, dict(num_hidden_layers=2), tok, 172, torch.float16, tweak=tweak, ready=ready)


if __name__ == "__main__":
    import sys
    common.pictures()
    for n in sys.argv[1:] or ["blip2", "blip2_old"]:
        globals()[n]()
