#!/usr/bin/env python3
"""Writes small random-weight checkpoints with the reference library's own classes, and what the library says to them.

    python tests/golden/models/make_models.py [name ...]      (all by default)

Needs the pinned versions below; the tests need only what this script wrote. Every dimension is odd on purpose: heads
that do not fill the width, 6 query heads on 2 key heads, a feed-forward of 44. Weights are scaled so that the next
token is not a coin's toss, and a case's text is the first of a few whose two best tokens differ by at least 0.01 at
each of 24 greedy steps. Weights are stored in the checkpoint's dtype and computed in f32, as vlmd does."""
import io
import json
import math
import pathlib
import random
import re
import shutil
import sys

import PIL
import tokenizers
import torch
import transformers
from PIL import Image
from safetensors.torch import load_file, save_file

PINNED = {"transformers": "5.23.0", "tokenizers": tokenizers.__version__, "pillow": PIL.__version__,
          "torch": torch.__version__}
assert transformers.__version__ == PINNED["transformers"], transformers.__version__
HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent.parent
STEPS, TOP, MIN_GAP = 24, 5, 0.01
torch.set_num_threads(2)
transformers.logging.set_verbosity_error()

# ---- pictures -------------------------------------------------------------------------------------------------------


def scene(w, h, seed):
    """Smooth colour fields with a few hard shapes: resizing errors show, compression stays small."""
    r = random.Random(seed)
    small = Image.new("RGB", (4, 4))
    small.putdata([(r.randrange(256), r.randrange(256), r.randrange(256)) for _ in range(16)])
    im = small.resize((w, h), Image.BICUBIC)
    for _ in range(4):
        x, y = r.randrange(w), r.randrange(h)
        im.paste((r.randrange(256), r.randrange(256), r.randrange(256)),
                 (x, y, min(w, x + 1 + w // 5), min(h, y + 1 + h // 5)))
    return im


def pictures():
    out = HERE / "pictures"
    out.mkdir(exist_ok=True)
    made = {f"exact{n}.png": scene(n, n, n) for n in (28, 42, 56, 96)}
    made["wide.jpg"] = scene(157, 61, 1)
    made["tall.png"] = scene(45, 133, 2)
    made["grey.jpg"] = scene(90, 71, 3).convert("L")
    made["other.jpg"] = scene(64, 80, 4)
    for name, im in made.items():
        if not (out / name).exists():
            im.save(out / name, **({"quality": 88} if name.endswith("jpg") else {}))


# ---- tokenizer and templates ------------------------------------------------------------------------------------------

LLAVA_TEMPLATE = (ROOT / "models/vlmd-tiny/chat_template.jinja").read_text()
PLAIN_TEMPLATE = ("{{ bos_token }}{% for m in messages %}{% if m.role == 'system' %}<<{{ m.content }}>>\n"
                  "{% elif m.role == 'user' %}[USER] {{ m.content }}\n{% else %}[BOT] {{ m.content }}</s>\n"
                  "{% endif %}{% endfor %}{% if add_generation_prompt %}[BOT]{% endif %}")
PARTS_TEMPLATE = ("{% for m in messages %}<|start|>{{ m.role }}\n{% if m.content is string %}{{ m.content }}{% else %}"
                  "{% for p in m.content %}{% if p.type == 'image' %}<image>{% else %}{{ p.text }}{% endif %}"
                  "{% endfor %}{% endif %}<|end|>\n{% endfor %}"
                  "{% if add_generation_prompt %}<|start|>assistant\n{% endif %}")
TEXT = ("What is in the picture? Describe the small red square on the left of the blue circle. USER: ASSISTANT: "
        "Answer in a few words, please. The quick brown fox jumps over the lazy dog; 0123456789 times. "
        "You are a careful helper who looks twice. Where does the road lead, and who is walking there? ") * 3


def tokenizer(vocab, bos):
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    t = Tokenizer(models.BPE())
    t.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    t.decoder = decoders.ByteLevel()
    specials = ["<unk>", "<s>", "</s>", "<pad>", "<image>", "<|start|>", "<|end|>"]
    t.train_from_iterator([TEXT], trainers.BpeTrainer(
        vocab_size=vocab, special_tokens=[AddedToken(s, special=True, normalized=False) for s in specials],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False))
    if bos:
        t.post_processor = processors.TemplateProcessing(single="<s> $A", pair="<s> $A <s> $B",
                                                         special_tokens=[("<s>", t.token_to_id("<s>"))])
    return transformers.PreTrainedTokenizerFast(tokenizer_object=t, bos_token="<s>", eos_token="</s>", pad_token="<pad>",
                                                unk_token="<unk>", extra_special_tokens={"image_token": "<image>"})


# ---- weights ---------------------------------------------------------------------------------------------------------


def fill(model, seed, dtype, embed=3.5):
    g = torch.Generator().manual_seed(seed)
    from_zero = {f"{n}.weight" for n, m in model.named_modules() if re.fullmatch("Gemma.*RMSNorm", type(m).__name__)}
    for name, p in model.named_parameters():
        x = torch.randn(p.shape, generator=g)
        if p.ndim == 1 and name.endswith("weight"):
            x = (0 if name in from_zero else 1) + 0.15 * x
        elif p.ndim == 1:
            x = 0.1 * x
        elif "lm_head" in name or "embed_tokens" in name:
            x = x * (embed / math.sqrt(p.shape[-1]))
        elif "position_embedding" in name:
            x = 0.3 * x
        else:
            x = x * (1.2 / math.sqrt(p[0].numel()))
        p.data = x.to(dtype).to(torch.float32)
    return model


# ---- cases -----------------------------------------------------------------------------------------------------------

ASKS = ["What is this?", "Describe the picture.", "Who is walking there?", "Where does the road lead?", "How many times?",
        "Is the square red?", "What do you see on the left?", "Look twice and answer.", "Name one thing.",
        "Which word fits?", "Say it in a few words.", "And what else, please?", "Why is the dog lazy?", "Tell me more.",
        "Is it blue?", "Who jumps over what?", "A quick answer.", "Left or right?", "0123 or 4567?", "Hm, and then?"]


def img(name):
    return {"type": "image", "path": name}


def txt(s):
    return {"type": "text", "text": s}


def cases(size, takes_images):
    """(name, messages made from a question); message texts vary until every step has a clear winner."""
    user = lambda *parts: {"role": "user", "content": list(parts)}
    plain = lambda role, s: {"role": role, "content": s}
    out = [("text_only", lambda a: [plain("user", a)]),
           ("system", lambda a: [plain("system", "You are a careful helper."), plain("user", a)]),
           ("two_turns", lambda a: [plain("user", "What is it?"), plain("assistant", "A small red square."),
                                    plain("user", a)])]
    if takes_images:
        exact = f"exact{size}.png"
        out += [("exact", lambda a: [user(img(exact), txt(a))]),
                ("wide", lambda a: [user(img("wide.jpg"), txt(a))]),
                ("tall", lambda a: [user(img("tall.png"), txt(a))]),
                ("grey", lambda a: [user(img("grey.jpg"), txt(a))]),
                ("text_before", lambda a: [user(txt(a), img("other.jpg"))]),
                ("two_pictures", lambda a: [user(img("wide.jpg"), txt("and"), img(exact), txt(a))]),
                ("picture_two_turns", lambda a: [user(img("tall.png"), txt("What is it?")),
                                                 {"role": "assistant", "content": [txt("A blue circle.")]},
                                                 user(txt(a), img("grey.jpg"))])]
    return out


def for_library(messages):
    out = []
    for m in messages:
        c = m["content"]
        if not isinstance(c, str):
            c = [{"type": "image", "image": Image.open(HERE / "pictures" / p["path"])} if p["type"] == "image" else p
                 for p in c]
        out.append({"role": m["role"], "content": c})
    return out


def greedy(model, inputs):
    """24 tokens and five log-probs a step. The model is asked fresh, since a dynamic rope remembers longer prompts."""
    rotary = [m for m in model.modules() if hasattr(m, "original_inv_freq")]
    for r in rotary:
        r.inv_freq, r.max_seq_len_cached = r.original_inv_freq.clone(), r.original_max_seq_len
    ids, top, gap, cache = [], [], math.inf, None
    now = dict(inputs)
    with torch.no_grad():
        for _ in range(STEPS):
            o = model(**now, past_key_values=cache, use_cache=True)
            cache = o.past_key_values
            lp = torch.log_softmax(o.logits[0, -1].double(), -1)
            v, i = lp.topk(TOP)
            gap = min(gap, float(v[0] - v[1]))
            ids.append(int(i[0]))
            top.append([[int(a), round(float(b), 6)] for a, b in zip(i, v)])
            now = {"input_ids": i[:1].view(1, 1)}
            if gap < MIN_GAP:
                break
    return ids, top, gap


def goldens(folder, model, processor, size, own_cases=None, call=None):
    """call: what the processor is told besides, where it does not take it from its files."""
    is_mm = size > 0
    out, model = [], model.eval()
    for name, make in own_cases or cases(size, is_mm):
        for ask in ASKS:
            messages = make(ask)
            inputs = processor.apply_chat_template(for_library(messages), tokenize=True, return_dict=True,
                                                   add_generation_prompt=True, return_tensors="pt",
                                                   **({"processor_kwargs": call} if call else {}))
            inputs = {k: v for k, v in inputs.items() if k in ("input_ids", "pixel_values", "token_type_ids")
                      and (k != "token_type_ids" or own_cases)}
            ids, top, gap = greedy(model, inputs)
            if gap >= MIN_GAP:
                break
        else:
            raise SystemExit(f"{folder}: {name}: no question of {len(ASKS)} gives clear winners")
        out.append({"name": name, "messages": messages, "prompt_ids": inputs["input_ids"][0].tolist(), "tokens": ids,
                    "top": top, "min_gap": round(gap, 4)})
    return out


def dump(path, obj):
    """One line a case: small, and a diff shows which case moved."""
    lines = ",\n".join(json.dumps(c, separators=(",", ":")) for c in obj["cases"])
    head = json.dumps({k: v for k, v in obj.items() if k != "cases"})
    path.write_text(head[:-1] + ', "cases": [\n' + lines + "\n]}\n")


# ---- the checkpoints -------------------------------------------------------------------------------------------------

from transformers import (CLIPVisionConfig, LlamaConfig, LlamaForCausalLM, LlavaConfig,  # noqa: E402
                          LlavaForConditionalGeneration, LlavaProcessor, MistralConfig, MistralForCausalLM, Qwen2Config,
                          Qwen2ForCausalLM, Qwen3Config, Qwen3ForCausalLM, SiglipVisionConfig)
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil  # noqa: E402
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil  # noqa: E402

VOCAB = 331
TEXT_BASE = dict(vocab_size=VOCAB, hidden_size=48, intermediate_size=44, num_hidden_layers=3, num_attention_heads=6,
                 num_key_value_heads=2, head_dim=10, max_position_embeddings=512, bos_token_id=1, eos_token_id=2,
                 pad_token_id=3)
CLIP_BASE = dict(hidden_size=30, intermediate_size=52, num_hidden_layers=4, num_attention_heads=3, image_size=28,
                 patch_size=7, projection_dim=16)
SIGLIP_BASE = dict(hidden_size=33, intermediate_size=50, num_hidden_layers=3, num_attention_heads=3, image_size=42,
                   patch_size=14)


def text(**over):
    return {**TEXT_BASE, **over}


def make(name, model, size, tok_bos, template, dtype, seed, tower="clip", tweak=None, shards=None,
         select="default", extra_tokens=1, prep=None, attn=None, embed=3.5,
         processor=None, cases=None, call=None):
    """Writes the checkpoint, reads it back in f32 and asks it. tweak(config, weights) rewrites what was saved."""
    folder = HERE / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    fill(model, seed, dtype, embed)
    tok = tokenizer(VOCAB - 7, tok_bos)
    if processor:
        proc = processor(tok)
    elif size:
        if tower == "clip":
            ip = CLIPImageProcessorPil(size={"shortest_edge": size}, crop_size={"height": size, "width": size},
                                       **(prep or {}))
        else:
            ip = SiglipImageProcessorPil(size={"height": size, "width": size}, **(prep or {}))
        patch = model.config.vision_config.patch_size
        proc = LlavaProcessor(ip, tok, patch_size=patch, vision_feature_select_strategy=select,
                              num_additional_image_tokens=extra_tokens, chat_template=template)
    else:
        tok.chat_template = template
        proc = tok
    model.generation_config.eos_token_id = [2, 5] if seed % 2 else 2
    buffers = {n: b.clone() for n, b in model.named_buffers()}
    model.to(dtype).save_pretrained(folder)
    model.float()
    for n, b in model.named_buffers():  # rope frequencies went through the checkpoint's dtype
        b.data = buffers[n].data
    proc.save_pretrained(folder)
    config = json.loads((folder / "config.json").read_text())
    weights = load_file(folder / "model.safetensors")
    if tweak:
        config, weights = tweak(config, weights, folder)
    (folder / "config.json").write_text(json.dumps(config, indent=1) + "\n")
    (folder / "model.safetensors").unlink()
    if shards:
        names = sorted(weights)
        index = {}
        for k in range(shards):
            mine = names[k::shards]
            file = f"model-{k + 1:05d}-of-{shards:05d}.safetensors"
            save_file({n: weights[n].contiguous() for n in mine}, folder / file, metadata={"format": "pt"})
            index.update({n: file for n in mine})
        size_b = sum(w.numel() * w.element_size() for w in weights.values())
        (folder / "model.safetensors.index.json").write_text(
            json.dumps({"metadata": {"total_size": size_b}, "weight_map": index}, indent=1) + "\n")
    else:
        save_file({n: w.contiguous() for n, w in weights.items()}, folder / "model.safetensors",
                  metadata={"format": "pt"})
    if config.get("mm_projector_type") != "linear":  # else the reference has no class for it
        model = type(model).from_pretrained(folder, dtype=torch.float32, attn_implementation=attn)
    ask(name, folder, size, proc, model, cases, call)


def ask(name, folder, size, proc, model, cases=None, call=None):
    out = goldens(name, model, proc, size, cases, call)
    dump(folder / "golden.json" if folder.parent == HERE else HERE / f"{name}.json",
         {"model": name, "versions": PINNED, "image_size": size, "cases": out})
    print(name, "smallest gap", min(c["min_gap"] for c in out), flush=True)


def llava(vision, text_config, **over):
    kw = dict(vision_config=vision, text_config=text_config, image_token_index=4, vision_feature_layer=-2,
              vision_feature_select_strategy="default")
    kw.update(over)
    return LlavaForConditionalGeneration(LlavaConfig(**kw))


def rename(weights, table):
    out = {}
    for n, w in weights.items():
        for a, b in table:
            if n.startswith(a):
                n = b + n[len(a):]
                break
        out[n] = w
    return out


def clip_llama():
    m = llava(CLIPVisionConfig(**CLIP_BASE), LlamaConfig(**text()))
    make("clip_llama", m, 28, True, LLAVA_TEMPLATE, torch.float32, 11)


def siglip_qwen2_full():
    m = llava(SiglipVisionConfig(**SIGLIP_BASE),
              Qwen2Config(**{k: v for k, v in text(hidden_size=60, tie_word_embeddings=True).items() if k != "head_dim"}),
              vision_feature_select_strategy="full", vision_feature_layer=-1)
    make("siglip_qwen2_full", m, 42, False, PARTS_TEMPLATE, torch.bfloat16, 22, tower="siglip",
         select="full", extra_tokens=0)


def clip_mistral_window():
    m = llava(CLIPVisionConfig(**{**CLIP_BASE, "hidden_act": "gelu"}), MistralConfig(**text(sliding_window=9)),
              projector_hidden_act="silu")
    make("clip_mistral_window", m, 28, True, LLAVA_TEMPLATE, torch.float16, 33)


def siglip_qwen3_layers():
    m = llava(SiglipVisionConfig(**SIGLIP_BASE), Qwen3Config(**text(head_dim=14)), vision_feature_layer=[-3, 1, -1],
              projector_hidden_act="gelu_pytorch_tanh")
    make("siglip_qwen3_layers", m, 42, False, PARTS_TEMPLATE, torch.float32, 44, tower="siglip", shards=2,
         extra_tokens=0)


def old_style():
    """As the first converted checkpoints look: a config that leaves out what it can, torch_dtype, old names, shards."""
    m = llava(CLIPVisionConfig(**{**CLIP_BASE, "image_size": 56, "patch_size": 14}),
              LlamaConfig(**{**text(head_dim=8, num_key_value_heads=6),
                             "rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 10000.0}}))

    def tweak(c, w, folder):
        t, v = c["text_config"], c["vision_config"]
        c["text_config"] = {"_name_or_path": "somebody/text-7b", "architectures": ["LlamaForCausalLM"],
                            "model_type": "llama", "torch_dtype": "float16", "pad_token_id": 3,
                            "rope_scaling": {"type": "linear", "factor": 2.0},
                            **{k: t[k] for k in ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers",
                                                 "num_attention_heads", "max_position_embeddings")}}
        c["vision_config"] = {"vocab_size": 32000, "model_type": "clip_vision_model",
                              **{k: v[k] for k in ("hidden_size", "intermediate_size", "num_hidden_layers",
                                                   "num_attention_heads", "image_size", "patch_size",
                                                   "projection_dim")}}
        for k in ("multimodal_projector_bias", "dtype", "image_seq_length", "tie_word_embeddings", "vision_feature_layer",
                  "vision_feature_select_strategy", "projector_hidden_act"):
            c.pop(k, None)
        c.update({"torch_dtype": "float16", "ignore_index": -100, "image_token_index": 4})
        w = rename(w, [("vision_tower.", "vision_tower.vision_model."),
                       ("model.vision_tower.", "vision_tower.vision_model."),
                       ("model.language_model.", "language_model.model."), ("lm_head.", "language_model.lm_head.")])
        for i in range(3):
            w[f"language_model.model.layers.{i}.self_attn.rotary_emb.inv_freq"] = torch.ones(4)
        w["vision_tower.vision_model.embeddings.position_ids"] = torch.arange(17).view(1, 17)
        # The image processor's settings in a file of their own, with the sizes as plain numbers.
        p = json.loads((folder / "processor_config.json").read_text())
        (folder / "preprocessor_config.json").write_text(json.dumps(
            {**p.pop("image_processor"), "size": 56, "crop_size": 56,
             "image_processor_type": "CLIPImageProcessor"}, indent=1) + "\n")
        (folder / "processor_config.json").write_text(json.dumps(p, indent=1) + "\n")
        return c, w
    make("old_style", m, 56, True, LLAVA_TEMPLATE, torch.float16, 55, shards=3, tweak=tweak)


def new_names():
    m = llava(CLIPVisionConfig(**CLIP_BASE),
              LlamaConfig(**{**text(head_dim=12), "rope_parameters": {
                  "rope_type": "llama3", "factor": 4.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
                  "original_max_position_embeddings": 64, "rope_theta": 5000.0}}),
              vision_feature_layer=2, vision_feature_select_strategy="full", multimodal_projector_bias=False,
              projector_hidden_act="relu")

    def tweak(c, w, folder):
        c["image_token_id"] = c.pop("image_token_index")
        return c, rename(w, [("vision_tower.", "model.vision_tower."), ("language_model.model.", "model.language_model."),
                             ("language_model.lm_head", "lm_head"),
                             ("multi_modal_projector.", "model.multi_modal_projector.")])
    make("new_names", m, 28, True, LLAVA_TEMPLATE, torch.bfloat16, 66, select="full", tweak=tweak)


def linear_join():
    """One matrix, as LLaVA v1 had: asked of the reference with a second matrix that changes nothing."""
    m = llava(CLIPVisionConfig(**CLIP_BASE),
              LlamaConfig(**{**text(), "rope_parameters": {
                  "rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 48, "rope_theta": 10000.0}}),
              projector_hidden_act="linear")
    fill_was = globals()["fill"]

    def fill_linear(model, seed, dtype, embed):
        fill_was(model, seed, dtype, embed)
        model.model.multi_modal_projector.linear_2.weight.data = torch.eye(48)
        model.model.multi_modal_projector.linear_2.bias.data.zero_()

    def tweak(c, w, folder):
        c.pop("projector_hidden_act")
        c["mm_projector_type"] = "linear"
        return c, {n: t for n, t in w.items() if "multi_modal_projector.linear_2" not in n}
    globals()["fill"] = fill_linear
    make("linear_join", m, 28, True, LLAVA_TEMPLATE, torch.bfloat16, 77, tweak=tweak)
    globals()["fill"] = fill_was


def dynamic_rope():
    m = llava(SiglipVisionConfig(**{**SIGLIP_BASE, "image_size": 28}),
              LlamaConfig(**{**text(max_position_embeddings=60, head_dim=16), "rope_parameters": {
                  "rope_type": "dynamic", "factor": 3.0, "rope_theta": 10000.0}}), vision_feature_layer=-1)
    make("dynamic_rope", m, 28, True, PARTS_TEMPLATE, torch.float32, 88, tower="siglip", extra_tokens=0)


def text_llama():
    m = LlamaForCausalLM(LlamaConfig(**{**text(attention_bias=True, mlp_bias=True, tie_word_embeddings=True),
                                        "rope_parameters": {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0,
                                                            "high_freq_factor": 4.0, "rope_theta": 500000.0,
                                                            "original_max_position_embeddings": 32}}))
    make("text_llama", m, 0, True, PLAIN_TEMPLATE, torch.bfloat16, 91)


def text_mistral():
    m = MistralForCausalLM(MistralConfig(**text(sliding_window=None, head_dim=18, num_hidden_layers=2)))

    def tweak(c, w, folder):
        c["rope_theta"] = c.pop("rope_parameters")["rope_theta"]
        c["torch_dtype"] = c.pop("dtype")
        return c, w
    make("text_mistral", m, 0, True, PLAIN_TEMPLATE, torch.float16, 92, tweak=tweak)


def text_qwen2():
    m = Qwen2ForCausalLM(Qwen2Config(**{
        **{k: v for k, v in text(hidden_size=60).items() if k != "head_dim"}, "use_sliding_window": True,
        "sliding_window": 7, "max_window_layers": 1, "rope_parameters": {
            "rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 24, "rope_theta": 1e6,
            "beta_fast": 16, "attention_factor": 1.1}}))

    def tweak(c, w, folder):
        c.pop("layer_types")
        r = c.pop("rope_parameters")
        c["rope_theta"] = r.pop("rope_theta")
        c["rope_scaling"] = {("type" if k == "rope_type" else k): v for k, v in r.items()}
        return c, w
    make("text_qwen2", m, 0, False, PARTS_TEMPLATE, torch.bfloat16, 93, tweak=tweak)


def text_qwen3():
    m = Qwen3ForCausalLM(Qwen3Config(**{
        **text(head_dim=20, attention_bias=True, tie_word_embeddings=True), "use_sliding_window": True,
        "sliding_window": 11, "layer_types": ["sliding_attention", "full_attention", "sliding_attention"]}))
    make("text_qwen3", m, 0, False, PARTS_TEMPLATE, torch.float32, 95)


def vlmd_tiny():
    """The bundled model: what it is asked here is for its numbers, not for its wisdom."""
    folder = ROOT / "models/vlmd-tiny"
    tok = transformers.PreTrainedTokenizerFast.from_pretrained(folder)
    p = json.loads((folder / "processor_config.json").read_text())
    ip = CLIPImageProcessorPil(**{k: v for k, v in p["image_processor"].items() if k != "image_processor_type"})
    proc = LlavaProcessor(ip, tok, patch_size=p["patch_size"],
                          vision_feature_select_strategy=p["vision_feature_select_strategy"],
                          num_additional_image_tokens=p["num_additional_image_tokens"],
                          chat_template=(folder / "chat_template.jinja").read_text())
    model = LlavaForConditionalGeneration.from_pretrained(folder, dtype=torch.float32)
    ask("vlmd_tiny", folder, 96, proc, model)


ALL = [vlmd_tiny, clip_llama, siglip_qwen2_full, clip_mistral_window, siglip_qwen3_layers, old_style, new_names, linear_join,
       dynamic_rope, text_llama, text_mistral, text_qwen2, text_qwen3]
if __name__ == "__main__":
    pictures()
    for f in ALL:
        if len(sys.argv) < 2 or f.__name__ in sys.argv[1:]:
            f()
