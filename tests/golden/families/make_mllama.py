#!/usr/bin/env python3
"""Llama 3.2 Vision: small random-weight checkpoints and what the reference library says to them; see ../models/make_models.py.

    python tests/golden/families/make_mllama.py [name ...]

The original code, for which the published weights were made, takes the *input* of the layers that
intermediate_layers_indices names; the reference library's class takes their output. So it is run with each index less one,
and a checkpoint's own index is never 0."""
import copy
import json
import math
import pathlib
import shutil
import sys

import torch

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "models"))
import make_models as mm  # noqa: E402
from make_models import PINNED, STEPS, TOP, ASKS, MIN_GAP, img, txt  # noqa: E402
from transformers import MllamaConfig, MllamaForConditionalGeneration, MllamaProcessor  # noqa: E402
from transformers.models.mllama.image_processing_pil_mllama import MllamaImageProcessorPil  # noqa: E402

TEMPLATE = ("{{ bos_token }}{% for m in messages %}<|start|>{{ m.role }}\n"
            "{% if m.content is string %}{{ m.content }}{% else %}{% for p in m.content %}"
            "{% if p.type == 'image' %}<|image|>{% else %}{{ p.text }}{% endif %}{% endfor %}{% endif %}<|end|>\n{% endfor %}"
            "{% if add_generation_prompt %}<|start|>assistant\n{% endif %}")


def tokenizer(vocab):
    """The picture's token lies just beyond the head, as published."""
    from tokenizers import AddedToken
    import transformers
    t = mm.tokenizer(vocab, False)
    n = len(t)
    t.backend_tokenizer.add_special_tokens([AddedToken(f"<|reserved_{i}|>", special=True, normalized=False)
                                            for i in range(vocab - n)])
    t.backend_tokenizer.add_special_tokens([AddedToken("<|image|>", special=True, normalized=False)])
    return transformers.PreTrainedTokenizerFast(tokenizer_object=t.backend_tokenizer, bos_token="<s>", eos_token="</s>",
                                                pad_token="<pad>", unk_token="<unk>",
                                                extra_special_tokens={"image_token": "<|image|>"})


def cases(size):
    user = lambda *parts: {"role": "user", "content": list(parts)}
    plain = lambda role, s: {"role": role, "content": s}
    return [("text_only", lambda a: [plain("user", a)]),
            ("system", lambda a: [plain("system", "You are a careful helper."), user(img("wide.jpg"), txt(a))]),
            ("exact", lambda a: [user(img(f"exact{size}.png"), txt(a))]),
            ("wide", lambda a: [user(img("wide.jpg"), txt(a))]),
            ("tall", lambda a: [user(img("tall.png"), txt(a))]),
            ("very_wide", lambda a: [user(txt("Look:"), img("strip.png"), txt(a))]),
            ("tiny", lambda a: [user(img("tiny.png"), txt(a))]),
            ("text_before", lambda a: [user(txt(a), img("other.jpg"))]),
            ("two_together", lambda a: [user(img("wide.jpg"), img("tall.png"), txt(a))]),
            ("two_apart", lambda a: [user(img("wide.jpg"), txt("and"), img("other.jpg"), txt(a))]),
            ("three", lambda a: [user(img("tall.png"), img("tiny.png"), txt("and"), img("grey.jpg"), txt(a))]),
            ("two_turns", lambda a: [user(img("tall.png"), txt("What is it?")),
                                     {"role": "assistant", "content": [txt("A blue circle.")]},
                                     user(txt(a), img("grey.jpg"))])]


def greedy(model, inputs):
    """As generate does: the last row's mask goes on for the answer."""
    ids, top, gap, cache, now = [], [], math.inf, None, dict(inputs)
    mask = inputs.get("cross_attention_mask")
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
            if mask is not None:
                now["cross_attention_mask"] = mask[:, -1:]
            if gap < MIN_GAP:
                break
    return ids, top, gap


def picture(path):
    for folder in (HERE, HERE.parent / "models"):
        if (folder / "pictures" / path).exists():
            return mm.Image.open(folder / "pictures" / path)
    raise SystemExit(path)


def goldens(folder, model, proc, size):
    out = []
    for name, make in cases(size):
        for ask in ASKS:
            messages = make(ask)
            pictures = [picture(p["path"]) for m in messages if not isinstance(m["content"], str)
                        for p in m["content"] if p["type"] == "image"]
            text = proc.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
            inputs = proc(images=pictures or None, text=text, add_special_tokens=False, return_tensors="pt")
            inputs = {k: v for k, v in inputs.items() if k != "attention_mask"}
            ids, top, gap = greedy(model, inputs)
            if gap >= MIN_GAP:
                break
        else:
            raise SystemExit(f"{folder}: {name}: no clear winners")
        out.append({"name": name, "messages": messages, "prompt_ids": inputs["input_ids"][0].tolist(), "tokens": ids,
                    "top": top, "min_gap": round(gap, 4)})
    return out


def fill(model, seed, dtype):
    mm.fill(model, seed, dtype)
    g = torch.Generator().manual_seed(seed + 1)
    for name, p in model.named_parameters():
        x = None
        if name.endswith("gate") or name.endswith("gate_attn") or name.endswith("gate_ffn"):
            x = 0.3 + 0.4 * torch.rand(p.shape, generator=g)
        elif "tile" in name and "embedding" in name:
            x = 0.5 * torch.randn(p.shape, generator=g)
        elif name.endswith("gated_positional_embedding.embedding") or name.endswith("class_embedding"):
            x = 0.3 * torch.randn(p.shape, generator=g)
        if x is not None:
            p.data = x.to(dtype).to(torch.float32)


def make(name, vision, text, size, dtype, seed, old_names=False, prep=None):
    folder = HERE / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    vocab = text["vocab_size"]
    config = MllamaConfig(vision_config=vision, text_config=text, image_token_index=vocab)
    shifted = copy.deepcopy(vision)
    shifted["intermediate_layers_indices"] = [i - 1 for i in vision["intermediate_layers_indices"]]
    model = MllamaForConditionalGeneration(MllamaConfig(vision_config=shifted, text_config=text, image_token_index=vocab))
    fill(model, seed, dtype)
    model.generation_config.eos_token_id = 2
    buffers = {n: b.clone() for n, b in model.named_buffers()}
    model.to(dtype).save_pretrained(folder)
    model.float().eval()
    for n, b in model.named_buffers():
        b.data = buffers[n].data
    saved = json.loads((folder / "config.json").read_text())
    saved["vision_config"]["intermediate_layers_indices"] = vision["intermediate_layers_indices"]
    if old_names:
        weights = mm.load_file(folder / "model.safetensors")
        weights = mm.rename(weights, [("model.language_model.", "language_model.model."), ("lm_head.", "language_model.lm_head."),
                                      ("model.vision_model.", "vision_model."),
                                      ("model.multi_modal_projector.", "multi_modal_projector.")])
        mm.save_file({n: w.contiguous() for n, w in weights.items()}, folder / "model.safetensors", metadata={"format": "pt"})
        rope = saved["text_config"].pop("rope_parameters")
        saved["text_config"]["rope_theta"] = rope.pop("rope_theta")
        if rope.get("rope_type") != "default":
            saved["text_config"]["rope_scaling"] = rope
    (folder / "config.json").write_text(json.dumps(saved, indent=1) + "\n")
    ip = MllamaImageProcessorPil(size={"height": size, "width": size}, max_image_tiles=vision["max_num_tiles"], **(prep or {}))
    proc = MllamaProcessor(ip, tokenizer(vocab), chat_template=TEMPLATE)
    proc.save_pretrained(folder)
    out = goldens(name, model, proc, size)
    mm.dump(folder / "golden.json", {"model": name, "versions": PINNED, "image_size": size, "cases": out})
    print(name, "smallest gap", min(c["min_gap"] for c in out), flush=True)


VISION = dict(hidden_size=36, num_hidden_layers=4, num_global_layers=2, attention_heads=3, intermediate_size=52,
              vision_output_dim=36 * 3, image_size=28, patch_size=7, max_num_tiles=4, intermediate_layers_indices=[1, 3])
TEXT = dict(vocab_size=330, hidden_size=48, num_hidden_layers=5, num_attention_heads=6, num_key_value_heads=2,
            intermediate_size=44, cross_attention_layers=[1, 3], max_position_embeddings=512, bos_token_id=1, eos_token_id=2,
            pad_token_id=3, rope_parameters={"rope_type": "default", "rope_theta": 5000.0})


def mllama():
    make("mllama", VISION, TEXT, 28, torch.float32, 51)


def mllama_old():
    """As published: old names and config, llama3 rope; three tiles at most, 5 + 1 patches a side so that tiles are padded by
    another number."""
    ratios = [[a, b] for a in range(1, 4) for b in range(1, 4) if a * b <= 3]
    make("mllama_old",
         {**VISION, "image_size": 42, "max_num_tiles": 3, "supported_aspect_ratios": ratios, "num_hidden_layers": 3,
          "num_global_layers": 1, "intermediate_layers_indices": [2], "vision_output_dim": 72, "hidden_act": "quick_gelu"},
         {**TEXT, "cross_attention_layers": [1, 2, 4],
          "rope_parameters": {"rope_type": "llama3", "rope_theta": 500000.0, "factor": 4.0, "low_freq_factor": 1.0,
                              "high_freq_factor": 4.0, "original_max_position_embeddings": 64}},
         42, torch.bfloat16, 52, old_names=True, prep={"resample": 3})


def pictures():
    out = HERE / "pictures"
    out.mkdir(exist_ok=True)
    for name, (w, h, seed) in {"strip.png": (211, 17, 5), "tiny.png": (3, 5, 6)}.items():
        if not (out / name).exists():
            mm.scene(w, h, seed).save(out / name)


if __name__ == "__main__":
    mm.pictures()
    pictures()
    for n in sys.argv[1:] or ["mllama", "mllama_old"]:
        globals()[n]()
