#!/usr/bin/env python3
"""CoCa in open_clip's format: small random-weight checkpoints and what open_clip says to them; see ../models/make_models.py,
whose rules hold.

    pip install open_clip_torch==3.3.0        (it needs torchvision)
    python tests/golden/families/make_coca.py [name ...]

The folders are what open_clip's push_to_hf_hub writes (open_clip_config.json, open_clip_model.safetensors, CLIP's tokenizer), and
generation_config.json, since the start and end token of these vocabularies are not generate()'s 49406 and 49407. What is asked is
generate()'s loop with top_k 1 and without its minimum length: the whole model on all ids so far."""
import json
import math
import pathlib
import shutil
import sys

import open_clip
import torch
import torchvision
from open_clip.push_to_hf_hub import save_for_hf
from open_clip.transform import PreprocessCfg, image_transform_v2, merge_preprocess_dict

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "models"))
import make_models as mm  # noqa: E402
from make_models import MIN_GAP, PINNED, STEPS, TOP, img, txt  # noqa: E402

assert open_clip.__version__ == "3.3.0", open_clip.__version__
VERSIONS = {**PINNED, "open_clip": open_clip.__version__, "torchvision": torchvision.__version__}
PREFIXES = ["a photo of", "a small red square", "the quick brown fox", "A picture of the dog,", "where the road", "two", "who is",
            "blue circle on the left", "a", "in a few words", "the", "lazy dogs jump", "look twice:", "a careful helper"]


def tokenizer(merges):
    """CLIP's own class over a few characters: those, those that end a word, merges, the two specials."""
    from tokenizers import Tokenizer, models, trainers
    from transformers import CLIPTokenizer
    fresh = CLIPTokenizer()._tokenizer
    t = Tokenizer(models.BPE(continuing_subword_prefix="", end_of_word_suffix="</w>", unk_token="<|endoftext|>"))
    t.normalizer, t.pre_tokenizer = fresh.normalizer, fresh.pre_tokenizer
    alphabet = list("!\"'(),-.0123456789:;?abcdefghijklmnopqrstuvwxyz")
    t.train_from_iterator([mm.TEXT], trainers.BpeTrainer(vocab_size=2 * len(alphabet) + merges, end_of_word_suffix="</w>",
                                                         initial_alphabet=alphabet, show_progress=False))
    learned = [tuple(m) for m in json.loads(t.to_str())["model"]["merges"]]
    words = alphabet + [c + "</w>" for c in alphabet]
    words += [a + b for a, b in learned if a + b not in set(words)] + ["<|startoftext|>", "<|endoftext|>"]
    return CLIPTokenizer(vocab={w: i for i, w in enumerate(words)}, merges=learned, model_max_length=77)


def fill(model, seed, dtype):
    g = torch.Generator().manual_seed(seed)
    for name, p in model.named_parameters():
        x = torch.randn(p.shape, generator=g)
        if name.endswith("gamma"):
            x = 0.6 + 0.2 * x
        elif p.ndim == 1 and name.endswith("weight"):
            x = 1 + 0.15 * x
        elif p.ndim == 1:
            x = 0.1 * x
        elif name == "text_decoder.text_projection":
            x = x * (3.5 / math.sqrt(p.shape[0]))
        elif name == "text.token_embedding.weight":
            x = x * (3.5 / math.sqrt(p.shape[1]))
        elif "positional_embedding" in name:
            x = 0.3 * x
        elif p.ndim > 0:
            x = x * (1.4 / math.sqrt(p[0].numel()))
        p.data = x.to(dtype).float()


def greedy(model, pixels, ids):
    ids, out, top, gap = list(ids), [], [], math.inf
    with torch.no_grad():
        latent, rows = model._encode_image(pixels)
        for _ in range(STEPS):
            logits = model(pixels, torch.tensor([ids]), image_latent=latent, image_embs=rows, output_labels=False)["logits"]
            v, i = torch.log_softmax(logits[0, -1].double(), -1).topk(TOP)
            gap = min(gap, float(v[0] - v[1]))
            if gap < MIN_GAP:
                break
            ids.append(int(i[0]))
            out.append(int(i[0]))
            top.append([[int(a), round(float(b), 6)] for a, b in zip(i, v)])
    return out, top, gap


def make(name, config, prep, tok, seed, dtype, prefixes=PREFIXES):
    folder = HERE / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    config = {**config, "custom_text": True}
    for part in ("text_cfg", "multimodal_cfg"):
        config[part]["vocab_size"] = len(tok)
    kept = json.loads(json.dumps(config))
    model = open_clip.CoCa(**{k: v for k, v in config.items() if k != "custom_text"})
    fill(model, seed, dtype)
    model.visual.image_mean, model.visual.image_std = prep.get("mean"), prep.get("std")
    model.visual.preprocess_cfg = prep
    model.to(dtype)

    class Saver:  # what is left of open_clip's tokenizers here
        save_pretrained = staticmethod(tok.save_pretrained)

    save_for_hf(model, Saver, kept, folder, safe_serialization=True)
    start, end, pad = tok.bos_token_id, tok.eos_token_id, config.get("pad_id", 0)
    (folder / "generation_config.json").write_text(json.dumps({"bos_token_id": start, "eos_token_id": end}) + "\n")
    model = open_clip.create_model(f"local-dir:{folder}", precision="fp32").eval()
    cfg = merge_preprocess_dict(PreprocessCfg(), {**prep, "size": model.visual.image_size})
    transform = image_transform_v2(PreprocessCfg(**cfg), is_train=False)
    size, cases = model.visual.image_size[0], []
    for case, picture, with_text in [("exact", f"exact{size}.png", False), ("wide", "wide.jpg", False), ("tall", "tall.png", False),
                                     ("exact_text", f"exact{size}.png", True), ("wide_text", "wide.jpg", True),
                                     ("grey_text", "grey.jpg", True), ("other_text", "other.jpg", True)]:
        pixels = transform(mm.Image.open(HERE.parent / "models" / "pictures" / picture)).unsqueeze(0)
        for prefix in prefixes if with_text else [None]:
            ids = [start] + (tok(prefix, add_special_tokens=False).input_ids if prefix else [])
            out, top, gap = greedy(model, pixels, ids)
            if gap >= MIN_GAP and pad not in out[:-1] and kept["text_cfg"].get("pad_id", 0) not in ids + out[:-1]:
                break
        else:
            print(f"{name}: {case}: left out, no clear winners", flush=True)
            continue
        parts = [img(picture)] + ([txt(prefix)] if prefix else [])
        cases.append({"name": case, "messages": [{"role": "user", "content": parts}], "prompt_ids": ids, "tokens": out, "top": top,
                      "min_gap": round(gap, 4)})
    assert len(cases) >= 5, name
    mm.dump(folder / "golden.json", {"model": name, "versions": VERSIONS, "image_size": size, "cases": cases})
    print(name, "smallest gap", min(c["min_gap"] for c in cases), sorted({t for c in cases for t in c["tokens"]})[:6], flush=True)


def coca():
    """As published: a pool by attention of another width than the tower's, which is why torch keeps its matrices apart."""
    make("coca", {"embed_dim": 22,
                  "vision_cfg": {"image_size": 28, "layers": 2, "width": 30, "head_width": 10, "mlp_ratio": 1.7, "patch_size": 7,
                                 "attentional_pool": True, "attn_pooler_heads": 2, "attn_pooler_queries": 11,
                                 "output_tokens": True},
                  "text_cfg": {"context_length": 45, "width": 22, "heads": 2, "layers": 1, "embed_cls": True,
                               "output_tokens": True},
                  "multimodal_cfg": {"context_length": 43, "width": 22, "heads": 2, "layers": 2, "mlp_ratio": 2,
                                     "attn_pooler_heads": 8}},
         {}, tokenizer(61), 74, torch.float32)


def coca_quick():
    """One width, so that the pool's matrices are one; more latents and rows than a block of the tower has; all latents stay."""
    make("coca_quick", {"embed_dim": 32, "quick_gelu": True, "pad_id": 5,
                        "vision_cfg": {"image_size": [56, 56], "layers": 2, "width": 32, "head_width": 16, "patch_size": 4,
                                       "ls_init_value": 0.1, "attentional_pool": True, "attn_pooler_queries": 135,
                                       "no_ln_pre": True, "pool_type": "none", "output_tokens": True},
                        "text_cfg": {"context_length": 40, "width": 32, "heads": 4, "layers": 2, "ls_init_value": 0.2,
                                     "embed_cls": True, "output_tokens": True, "pad_id": 7},
                        "multimodal_cfg": {"context_length": 60, "width": 32, "heads": 4, "layers": 2, "ls_init_value": 0.3}},
         {"mean": [0.5, 0.45, 0.4], "std": [0.25, 0.3, 0.35], "interpolation": "bilinear", "resize_mode": "squash"},
         tokenizer(40), 72, torch.bfloat16)


def coca_whole():
    """As coca_base: no pool, the tower's own rows behind its norm."""
    make("coca_whole", {"embed_dim": 20,
                        "vision_cfg": {"image_size": 42, "layers": 2, "width": 33, "head_width": 11, "patch_size": 14,
                                       "output_tokens": True},
                        "text_cfg": {"context_length": 76, "width": 33, "heads": 3, "layers": 2, "embed_cls": True,
                                     "output_tokens": True},
                        "multimodal_cfg": {"context_length": 76, "width": 33, "heads": 3, "layers": 2, "n_queries": 256,
                                           "dim_head": 64}},
         {"interpolation": "random"}, tokenizer(50), 73, torch.float16)


if __name__ == "__main__":
    mm.pictures()
    for n in sys.argv[1:] or ["coca", "coca_quick", "coca_whole"]:
        globals()[n]()
