#!/usr/bin/env python3
"""BLIP-VQA: small random-weight checkpoints and what the reference library says to them; see ../models/make_models.py.

    python tests/golden/families/make_blip_vqa.py [name ...]

The model has no chat: a case is a picture and a question. prompt_ids is what is read in order: the question's ids, then the
id with which the decoder starts. Tokens are those of BlipForQuestionAnswering.generate, greedy, which goes on behind its end
token here."""
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
from transformers import BertTokenizer, BlipConfig, BlipForQuestionAnswering, BlipProcessor  # noqa: E402
from transformers.models.blip.image_processing_pil_blip import BlipImageProcessorPil  # noqa: E402

LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789"
WORDS = ("what is this the picture describe who walking there where does road lead how many times square red do you see on "
         "left look twice and answer name one thing which word fits in a few else please why dog lazy tell me more it blue "
         "jumps over quick or right then circle").split()


def tokenizer(**over):
    vocab = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *LETTERS, *("##" + c for c in LETTERS), *"?.,;:!'-", *WORDS,
             "##ing", "##s"]
    return BertTokenizer(vocab={w: i for i, w in enumerate(dict.fromkeys(vocab))}, **over)


def cases(size, longest):
    user = lambda *parts: [{"role": "user", "content": list(parts)}]
    long = "Describe " + " and ".join(["the small red square on the left of the blue circle, please"] * 40)
    return [("exact", lambda a: user(img(f"exact{size}.png"), txt(a))),
            ("wide", lambda a: user(img("wide.jpg"), txt(a))),
            ("tall", lambda a: user(img("tall.png"), txt(a))),
            ("grey", lambda a: user(img("grey.jpg"), txt(a))),
            ("very_wide", lambda a: user(img("strip.png"), txt(a))),
            ("very_tall", lambda a: user(img("column.png"), txt(a))),
            ("tiny", lambda a: user(img("tiny.png"), txt(a))),
            ("text_before", lambda a: user(txt(a), img("other.jpg"))),
            ("same_picture", lambda a: user(img("other.jpg"), txt("Again: " + a))),
            ("odd_text", lambda a: user(img("wide.jpg"), txt("  [SEP] [cls] \u00c9t\u00e9 \u4e2d\u6587 " + a))),
            ("word", lambda a: user(img("tall.png"), txt(a.split()[0]))),
            ("long", lambda a: user(img("wide.jpg"), txt(a + " " + long[:longest])))]


def picture(path):
    for folder in (HERE, HERE.parent / "models"):
        if (folder / "pictures" / path).exists():
            return mm.Image.open(folder / "pictures" / path)
    raise SystemExit(path)


def greedy(model, inputs):
    """What generate does, with log-probs: the question's states once, then the decoder."""
    start = model.decoder_start_token_id
    ids, top, gap, cache, now = [], [], math.inf, None, torch.tensor([[start]])
    with torch.no_grad():
        image = model.vision_model(pixel_values=inputs["pixel_values"])[0]
        states = model.text_encoder(input_ids=inputs["input_ids"], encoder_hidden_states=image)[0]
        for _ in range(STEPS):
            o = model.text_decoder(input_ids=now, encoder_hidden_states=states, past_key_values=cache, use_cache=True)
            cache = o.past_key_values
            lp = torch.log_softmax(o.logits[0, -1].double(), -1)
            v, i = lp.topk(TOP)
            gap = min(gap, float(v[0] - v[1]))
            ids.append(int(i[0]))
            top.append([[int(a), round(float(b), 6)] for a, b in zip(i, v)])
            now = i[:1].view(1, 1)
            if gap < MIN_GAP:
                return ids, top, gap
        said = model.generate(**inputs, max_new_tokens=STEPS, do_sample=False)[0].tolist()
    end = model.config.text_config.sep_token_id
    until = ids.index(end) + 1 if end in ids else STEPS
    assert said == [start, *ids[:until]], (said, ids)
    return ids, top, gap


def goldens(folder, model, proc, size, longest):
    out = []
    # User text that spells a special token would become one in the reference; in the server it never does.
    proc.tokenizer.split_special_tokens = True
    for name, make in cases(size, longest):
        for ask in ASKS:
            messages = make(ask)
            parts = messages[0]["content"]
            text = next(p["text"] for p in parts if p["type"] == "text")
            inputs = proc(images=picture(next(p["path"] for p in parts if p["type"] == "image")), text=text,
                          return_tensors="pt")
            inputs = {k: inputs[k] for k in ("input_ids", "pixel_values")}
            ids, top, gap = greedy(model, inputs)
            if gap >= MIN_GAP:
                break
        else:
            raise SystemExit(f"{folder.name}: {name}: no clear winners")
        out.append({"name": name, "messages": messages,
                    "prompt_ids": [*inputs["input_ids"][0].tolist(), model.decoder_start_token_id], "tokens": ids, "top": top,
                    "min_gap": round(gap, 4)})
    return out


def fill(model, seed, dtype):
    mm.fill(model, seed, dtype)
    g = torch.Generator().manual_seed(seed + 1)
    for name, p in model.named_parameters():
        x = None
        if "word_embeddings" in name or "decoder.weight" in name:
            x = 3 / math.sqrt(p.shape[-1]) * torch.randn(p.shape, generator=g)
        elif name.startswith("text") and "position_embedding" in name:
            x = (1.2 if "decoder" in name else 0.8) * torch.randn(p.shape, generator=g)
        elif "position_embedding" in name or "class_embedding" in name:
            x = 0.4 * torch.randn(p.shape, generator=g)
        elif name.startswith("text_decoder") and name.endswith("output.dense.weight"):
            x = (0.5 if "crossattention" in name else 1.1) / math.sqrt(p.shape[-1]) * torch.randn(p.shape, generator=g)
        elif name.startswith("text") and "position_embedding" not in name and name.endswith("weight") and p.ndim == 2:
            x = 2.4 / math.sqrt(p.shape[-1]) * torch.randn(p.shape, generator=g)
        elif name.endswith("predictions.bias"):
            x = torch.randn(p.shape, generator=g)
        if x is not None:
            p.data = x.to(dtype).to(torch.float32)


def make(name, vision, text, size, dtype, seed, tok, tweak=None, longest=300):
    folder = HERE / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    n = len(tok)
    text = {"vocab_size": n + 2, "bos_token_id": n, "sep_token_id": tok.sep_token_id, "pad_token_id": 0, **text}
    model = BlipForQuestionAnswering(BlipConfig(vision_config=vision, text_config=text))
    fill(model, seed, dtype)
    model.to(dtype).save_pretrained(folder)
    proc = BlipProcessor(BlipImageProcessorPil(size={"height": size, "width": size}), tok)
    proc.save_pretrained(folder)
    config = json.loads((folder / "config.json").read_text())
    weights = mm.load_file(folder / "model.safetensors")
    if tweak:
        config, weights = tweak(config, weights, folder)
        mm.save_file({k: w.contiguous() for k, w in weights.items()}, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(config, indent=1) + "\n")
    model = BlipForQuestionAnswering.from_pretrained(folder, dtype=torch.float32).eval()
    out = goldens(folder, model, proc, size, longest)
    mm.dump(folder / "golden.json", {"model": name, "versions": PINNED, "image_size": size, "cases": out})
    print(name, "smallest gap", min(c["min_gap"] for c in out), "questions of", sorted(len(c["prompt_ids"]) - 1 for c in out),
          flush=True)


VISION = dict(hidden_size=24, num_hidden_layers=2, num_attention_heads=3, intermediate_size=38, image_size=28, patch_size=7)
TEXT = dict(hidden_size=24, num_hidden_layers=2, num_attention_heads=4, intermediate_size=44, max_position_embeddings=150)


def as_published(config, weights, folder):
    """The parts' settings as version 4.26 wrote them, all tensors that it kept, the picture's settings in a file of their own;
    a head of its own with two biases, of which the decoder's counts."""
    text, vision = config["text_config"], config["vision_config"]
    for part in (text, vision):
        part.update(_name_or_path="", add_cross_attention=False, architectures=None, bad_words_ids=None, do_sample=False,
                    cross_attention_hidden_size=None, decoder_start_token_id=None, diversity_penalty=0.0, early_stopping=False,
                    finetuning_task=None, initializer_factor=1.0, is_encoder_decoder=False, length_penalty=1.0, max_length=20,
                    min_length=0, num_beams=1, return_dict=True, tie_encoder_decoder=False, top_k=50, top_p=1.0,
                    torch_dtype=None, torchscript=False, transformers_version="4.26.0.dev0", use_bfloat16=False)
        part.pop("dtype", None)
    del text["label_smoothing"], text["tie_word_embeddings"]
    text["encoder_hidden_size"] = 768  # the reference replaces it
    vision.update(dropout=0.0, num_channels=3)
    config = {k: v for k, v in config.items() if k not in ("label_smoothing", "tie_word_embeddings", "dtype", "transformers_version",
                                                            "initializer_range")}
    config.update(_commit_hash=None, torch_dtype="float32", transformers_version=None)
    g = torch.Generator().manual_seed(3)
    at = "text_decoder.cls.predictions."
    embed = weights["text_decoder.bert.embeddings.word_embeddings.weight"]
    weights[at + "decoder.weight"] = (embed.float() + 0.3 * torch.randn(embed.shape, generator=g)).to(embed.dtype)
    weights[at + "decoder.bias"] = torch.randn(embed.shape[:1], generator=g).to(embed.dtype)
    for part in ("text_encoder.embeddings.", "text_decoder.bert.embeddings."):
        weights[part + "position_ids"] = torch.arange(text["max_position_embeddings"]).view(1, -1)
    p = json.loads((folder / "processor_config.json").read_text())["image_processor"]
    p = {k: p[k] for k in ("do_normalize", "do_rescale", "do_resize", "image_mean", "image_std", "resample", "rescale_factor",
                           "size")}
    p.update(do_pad=True, image_processor_type="BlipImageProcessor", processor_class="BlipProcessor", size_divisor=32)
    (folder / "preprocessor_config.json").write_text(json.dumps(p, indent=1) + "\n")
    (folder / "processor_config.json").unlink()
    (folder / "generation_config.json").unlink(missing_ok=True)
    return config, weights


def blip_vqa():
    make("blip_vqa", VISION, TEXT, 28, torch.float32, 61, tokenizer())


def blip_vqa_old():
    """More than one block of rows in the tower (197) and of a question (150)."""
    make("blip_vqa_old", {**VISION, "hidden_size": 30, "image_size": 56, "patch_size": 4, "num_attention_heads": 6, "hidden_act": "quick_gelu"},
         {**TEXT, "hidden_size": 30, "num_attention_heads": 2, "num_hidden_layers": 3, "hidden_act": "relu", "layer_norm_eps": 1e-3,
          "max_position_embeddings": 170}, 56, torch.bfloat16, 62, tokenizer(do_lower_case=False), as_published, 420)


if __name__ == "__main__":
    mm.pictures()
    import common
    common.pictures()
    for n in sys.argv[1:] or ["blip_vqa", "blip_vqa_old"]:
        globals()[n]()
