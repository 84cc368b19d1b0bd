#!/usr/bin/env python3
"""Writes small dual encoders with random weights by the reference library's own classes, and what the library makes of
texts, pictures and labels: vectors as they leave the towers (not normalised), logits and probabilities.

    OMP_NUM_THREADS=1 python tests/golden/dual/make.py [name ...]      (all by default)

Needs transformers 5.23.0; the tests need only what this script wrote. Dimensions are odd on purpose. Weights are stored
in the checkpoint's dtype and computed in f32, as vlmd does. A text goes to the model as the family's processor gives it:
CLIP's without padding (it is causal, so padding changes nothing), SigLIP's padded to its full length without a mask."""
import json
import math
import pathlib
import random
import shutil
import sys

import tokenizers
import torch
import transformers
from PIL import Image
from safetensors.torch import load_file, save_file
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import (CLIPConfig, CLIPModel, CLIPTokenizer, PreTrainedTokenizerFast, Siglip2Config, Siglip2Model,
                          SiglipConfig, SiglipModel)
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil
from transformers.models.siglip2.image_processing_pil_siglip2 import Siglip2ImageProcessorPil
from transformers.models.siglip2.tokenization_siglip2 import Siglip2Tokenizer

assert transformers.__version__ == "5.23.0", transformers.__version__
PINNED = {"transformers": "5.23.0", "tokenizers": tokenizers.__version__, "torch": torch.__version__}
HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "models"))
from make_models import scene  # noqa: E402
torch.set_num_threads(1)
transformers.logging.set_verbosity_error()

# ---- pictures -------------------------------------------------------------------------------------------------------

PICTURES = {"exact28.png": (28, 28), "exact42.png": (42, 42), "strip.png": (211, 9), "wall.png": (7, 160),
            "tiny.png": (3, 2), "pixel.png": (1, 1), "wide.jpg": (157, 61), "tall.png": (45, 133), "grey.jpg": (90, 71)}


def make_pictures():
    out = HERE / "pictures"
    out.mkdir(exist_ok=True)
    for seed, (name, (w, h)) in enumerate(PICTURES.items()):
        im = scene(w, h, seed + 20)
        if name == "grey.jpg":
            im = im.convert("L")
        if not (out / name).exists():
            im.save(out / name, **({"quality": 88} if name.endswith("jpg") else {}))


def picture(name):
    return Image.open(HERE / "pictures" / name).convert("RGB")


# ---- tokenizers ------------------------------------------------------------------------------------------------------

CORPUS = ["a photo of a cat. a photo of a dog. a drawing of two small birds on a branch, seen from below.",
          "this is a photo of the old town hall. The quick brown fox jumps over the lazy dog 0123456789 times!",
          "a blurry picture of a red square on the left of the blue circle; an aerial view of the harbour"] * 3


def clip_tokenizer(max_len):
    fresh = CLIPTokenizer()
    t = Tokenizer(models.BPE(continuing_subword_prefix="", end_of_word_suffix="</w>", unk_token="<|endoftext|>"))
    t.normalizer, t.pre_tokenizer = fresh._tokenizer.normalizer, fresh._tokenizer.pre_tokenizer
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    t.train_from_iterator(CORPUS, trainers.BpeTrainer(vocab_size=400, end_of_word_suffix="</w>", initial_alphabet=alphabet,
                                                      show_progress=False))
    model = json.loads(t.to_str())["model"]
    # As OpenAI's: bytes, bytes that end a word, merges in the order they were learned, the two specials last.
    words = alphabet + [c + "</w>" for c in alphabet]
    merges = [tuple(m) for m in model["merges"]]
    words += [a + b for a, b in merges if a + b not in set(words)]
    words += ["<|startoftext|>", "<|endoftext|>"]
    return CLIPTokenizer(vocab={w: i for i, w in enumerate(words)}, merges=merges, model_max_length=max_len)


def sentence_tokenizer(max_len, vocab):
    """Unigram pieces with a mark in front and one end token behind, lower case without punctuation, as SigLIP's."""
    t = Tokenizer(models.Unigram())
    t.normalizer = normalizers.Sequence([normalizers.Lowercase(),
                                         normalizers.Replace(tokenizers.Regex(r"[!-/:-@\[-`{-~]"), ""),
                                         normalizers.Replace(tokenizers.Regex(r"\s+"), " "), normalizers.Strip()])
    t.pre_tokenizer = pre_tokenizers.Metaspace()
    t.decoder = decoders.Metaspace()
    t.train_from_iterator(CORPUS, trainers.UnigramTrainer(vocab_size=vocab, special_tokens=["<unk>", "</s>"],
                                                          unk_token="<unk>", show_progress=False))
    t.post_processor = processors.TemplateProcessing(single="$A </s>", pair="$A </s> $B </s>", special_tokens=[("</s>", 1)])
    return PreTrainedTokenizerFast(tokenizer_object=t, eos_token="</s>", pad_token="</s>", unk_token="<unk>",
                                   model_max_length=max_len, model_input_names=["input_ids"])


def gemma_tokenizer(vocab):
    specials = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>"]
    t = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    t.normalizer = normalizers.Sequence([normalizers.Lowercase(), normalizers.Replace(" ", "▁")])
    t.train_from_iterator(CORPUS, trainers.BpeTrainer(vocab_size=vocab - 256, special_tokens=specials, show_progress=False))
    model = json.loads(t.to_str())["model"]
    words = dict(model["vocab"])
    for b in range(256):
        words[f"<0x{b:02X}>"] = len(words)
    out = Siglip2Tokenizer(vocab=words, merges=[tuple(m) for m in model["merges"]], padding_side="right",
                           model_input_names=["input_ids"])
    out.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="$A <eos>", pair="$A <eos> $B <eos>", special_tokens=[("<eos>", words["<eos>"])])
    return out


# ---- weights ---------------------------------------------------------------------------------------------------------


def fill(model, seed, dtype, scale, bias):
    g = torch.Generator().manual_seed(seed)
    for name, p in model.named_parameters():
        x = torch.randn(p.shape, generator=g)
        if name == "logit_scale":
            x = torch.full(p.shape, scale)
        elif name == "logit_bias":
            x = torch.full(p.shape, bias)
        elif p.ndim == 1 and name.endswith("weight"):
            x = 1 + 0.15 * x
        elif p.ndim == 1:
            x = 0.1 * x
        elif "position_embedding" in name:
            x = 0.5 * x
        elif "token_embedding" in name or "probe" in name:
            x = 1.0 * x
        else:
            x = x * (1.2 / math.sqrt(p[0].numel()))
        p.data = x.to(dtype).to(torch.float32)
    return model


# ---- cases -----------------------------------------------------------------------------------------------------------

TEXTS = {"plain": "a photo of a cat", "empty": "", "blank": "  ", "word": "Dog", "marks": "Two SMALL birds, seen from below!?",
         "unicode": "ein Häuschen — 漢字 🙂", "long": "the old town hall and the harbour, " * 30,
         "digits": "0123456789 times 42"}
LABELS = ["cat", "dog", "two small birds", "the old town hall", ""]
TEMPLATE = "a photo of a {}."


def text_ids(proc, model, texts):
    kind = model.config.model_type
    if kind == "clip":
        return [proc["tok"](t, truncation=True)["input_ids"] for t in texts]
    n = model.config.text_config.max_position_embeddings
    return [proc["tok"](t, padding="max_length", truncation=True, max_length=n)["input_ids"] for t in texts]


def rounded(x):
    return [float(f"{v:.7g}") for v in x.flatten().tolist()]


def picture_inputs(proc, name):
    im = proc["image"](images=[picture(name)], return_tensors="pt")
    return {k: v for k, v in im.items()}


def goldens(model, proc):
    out = {"texts": [], "pictures": [], "zero_shot": []}
    with torch.no_grad():
        for name, text in TEXTS.items():
            ids = text_ids(proc, model, [text])[0]
            v = model.get_text_features(input_ids=torch.tensor([ids])).pooler_output
            out["texts"].append({"name": name, "text": text, "ids": ids, "vector": rounded(v)})
        for name in PICTURES:
            inputs = picture_inputs(proc, name)
            v = model.get_image_features(**inputs).pooler_output
            shape = inputs["spatial_shapes"][0].tolist() if "spatial_shapes" in inputs else None
            out["pictures"].append({"path": name, "grid": shape, "vector": rounded(v)})
        ids = text_ids(proc, model, [TEMPLATE.replace("{}", label) for label in LABELS])
        longest = max(map(len, ids))
        pad = proc["tok"].pad_token_id
        batch = torch.tensor([i + [pad] * (longest - len(i)) for i in ids])
        for name in ("wide.jpg", "tiny.png"):
            logits = model(input_ids=batch, **picture_inputs(proc, name)).logits_per_image[0]
            probs = torch.sigmoid(logits) if hasattr(model, "logit_bias") else torch.softmax(logits, -1)
            out["zero_shot"].append({"path": name, "labels": LABELS, "template": TEMPLATE, "logits": rounded(logits),
                                     "probabilities": rounded(probs)})
    return out


def save(name, model, proc, dtype, tweak=None):
    folder = HERE / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    model.to(dtype).save_pretrained(folder)
    model.float()
    proc["tok"].save_pretrained(folder)
    proc["image"].save_pretrained(folder)
    config = json.loads((folder / "config.json").read_text())
    weights = load_file(folder / "model.safetensors")
    if tweak:
        config, weights = tweak(config, weights, folder)
    (folder / "config.json").write_text(json.dumps(config, indent=1) + "\n")
    save_file({n: w.contiguous() for n, w in weights.items()}, folder / "model.safetensors", metadata={"format": "pt"})
    model = type(model).from_pretrained(folder, dtype=torch.float32).eval()
    lines = ",\n".join(f'"{k}": [\n' + ",\n".join(json.dumps(c, separators=(",", ":")) for c in v) + "\n]"
                       for k, v in goldens(model, proc).items())
    (folder / "golden.json").write_text('{"versions": ' + json.dumps(PINNED) + ",\n" + lines + "\n}\n")
    print(name, sorted(weights)[:3], "...", flush=True)


# ---- the checkpoints -------------------------------------------------------------------------------------------------

TEXT = dict(hidden_size=36, intermediate_size=52, num_hidden_layers=3, num_attention_heads=3)
VISION = dict(hidden_size=30, intermediate_size=50, num_hidden_layers=3, num_attention_heads=5, image_size=28, patch_size=7)


def clip_base():
    tok = clip_tokenizer(19)
    ids = dict(vocab_size=len(tok), eos_token_id=tok.eos_token_id, bos_token_id=tok.bos_token_id, pad_token_id=1)
    m = CLIPModel(CLIPConfig(text_config={**TEXT, "max_position_embeddings": 19, **ids}, vision_config=VISION,
                             projection_dim=21))
    ip = CLIPImageProcessorPil(size={"shortest_edge": 28}, crop_size={"height": 28, "width": 28})
    save("clip_base", fill(m, 1, torch.float32, 2.9, 0), {"tok": tok, "image": ip}, torch.float32)


def clip_old():
    """As published in 2021: eos_token_id 2, *_config_dict beside the objects, sizes as numbers, position_ids stored."""
    tok = clip_tokenizer(16)
    text = dict(hidden_size=44, intermediate_size=40, num_hidden_layers=2, num_attention_heads=2, vocab_size=len(tok),
                max_position_embeddings=16, eos_token_id=2, bos_token_id=0, pad_token_id=1, hidden_act="gelu")
    vision = {**VISION, "hidden_size": 27, "num_attention_heads": 3, "image_size": 42, "patch_size": 14, "hidden_act": "gelu"}
    m = CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=24))
    ip = CLIPImageProcessorPil(size={"shortest_edge": 42}, crop_size={"height": 42, "width": 42})

    def tweak(c, w, folder):
        c["text_config_dict"] = {k: c["text_config"][k] for k in text}
        c["vision_config_dict"] = None
        c["text_config"]["hidden_size"] = 512  # the dict wins
        c["torch_dtype"] = c.pop("dtype")
        w["text_model.embeddings.position_ids"] = torch.arange(16).view(1, 16)
        w["vision_model.embeddings.position_ids"] = torch.arange(10).view(1, 10)
        p = json.loads((folder / "preprocessor_config.json").read_text())
        p.pop("image_processor_type")
        p.update({"feature_extractor_type": "CLIPFeatureExtractor", "size": 42, "crop_size": 42})
        (folder / "preprocessor_config.json").write_text(json.dumps(p, indent=1) + "\n")
        return c, w
    save("clip_old", fill(m, 2, torch.float16, 1.5, 0), {"tok": tok, "image": ip}, torch.float16, tweak)


def siglip_base():
    tok = sentence_tokenizer(13, 180)
    text = {**TEXT, "hidden_size": 33, "max_position_embeddings": 13, "vocab_size": len(tok) + 3, "projection_size": 39,
            "eos_token_id": 1, "bos_token_id": 0}
    vision = {**VISION, "hidden_size": 39, "num_attention_heads": 3, "image_size": 42, "patch_size": 14}
    m = SiglipModel(SiglipConfig(text_config=text, vision_config=vision))
    ip = SiglipImageProcessorPil(size={"height": 42, "width": 42})
    save("siglip_base", fill(m, 3, torch.bfloat16, 1.7, -3.3), {"tok": tok, "image": ip}, torch.bfloat16)


def siglip2_naflex():
    tok = gemma_tokenizer(500)
    text = {**TEXT, "hidden_size": 32, "num_attention_heads": 2, "vocab_size": len(tok), "eos_token_id": 1, "bos_token_id": 2,
            "pad_token_id": 0}
    vision = {k: v for k, v in {**VISION, "hidden_size": 32, "num_attention_heads": 4, "num_patches": 25,
                                "patch_size": 6}.items() if k != "image_size"}
    m = Siglip2Model(Siglip2Config(text_config=text, vision_config=vision))
    ip = Siglip2ImageProcessorPil(patch_size=6, max_num_patches=37)
    save("siglip2_naflex", fill(m, 4, torch.float32, 2.1, -2.2), {"tok": tok, "image": ip}, torch.float32)


def siglip2_large_grid():
    """More patches than one block of rows, more than the table, and an erf GELU."""
    tok = gemma_tokenizer(400)
    text = {**TEXT, "hidden_size": 24, "num_attention_heads": 2, "vocab_size": len(tok), "hidden_act": "gelu",
            "num_hidden_layers": 1, "pad_token_id": 0}
    vision = {k: v for k, v in {**VISION, "hidden_size": 24, "num_attention_heads": 2, "num_patches": 64, "patch_size": 4,
                                "hidden_act": "gelu", "num_hidden_layers": 2}.items() if k != "image_size"}
    m = Siglip2Model(Siglip2Config(text_config=text, vision_config=vision))
    ip = Siglip2ImageProcessorPil(patch_size=4, max_num_patches=300)
    save("siglip2_large_grid", fill(m, 5, torch.float16, 1.2, 0.4), {"tok": tok, "image": ip}, torch.float16)


def loss():
    """CLIPModel's and SiglipModel's losses of random similarities (logits_per_text)."""
    from transformers.models.clip.modeling_clip import image_text_contrastive_loss
    g, cases = torch.Generator().manual_seed(9), []
    for n, scale in ((1, 1.0), (2, 3.0), (5, 10.0), (12, 2.0), (7, 60.0)):
        x = (torch.randn(n, n, generator=g) * scale).float()
        z = 2 * torch.eye(n) - 1
        cases.append({"n": n, "logits": rounded(x), "info_nce": None, "sigmoid": None})
        x = torch.tensor(cases[-1]["logits"], dtype=torch.float64).view(n, n)
        cases[-1]["info_nce"] = image_text_contrastive_loss(x).item()
        cases[-1]["sigmoid"] = (-torch.nn.functional.logsigmoid(z.double() * x).sum(-1)).mean().item()
    (HERE / "loss.json").write_text(json.dumps({"versions": PINNED, "cases": cases}) + "\n")


def grids():
    """Sizes that the NaFlex processor gives a picture."""
    from transformers.models.siglip2.image_processing_pil_siglip2 import get_image_size_for_max_num_patches
    r, cases = random.Random(5), []
    sizes = [(1, 1), (1, 5000), (5000, 1), (224, 224), (1024, 768), (768, 1024), (3000, 17), (16, 16), (257, 256)]
    while len(cases) < 400:
        w, h = sizes[len(cases)] if len(cases) < len(sizes) else (r.randint(1, 1500), r.choice([r.randint(1, 1500), r.randint(1, 20)]))
        patch, most = r.choice([4, 6, 7, 14, 16]), r.choice([1, 2, 9, 37, 256, 729, 1024])
        th, tw = get_image_size_for_max_num_patches(h, w, patch, most)
        cases.append([w, h, patch, most, tw, th])
    (HERE / "grids.json").write_text(json.dumps(cases, separators=(",", ":")) + "\n")


ALL = [grids, loss, clip_base, clip_old, siglip_base, siglip2_naflex, siglip2_large_grid]
if __name__ == "__main__":
    make_pictures()
    for f in ALL:
        if len(sys.argv) < 2 or f.__name__ in sys.argv[1:]:
            f()
