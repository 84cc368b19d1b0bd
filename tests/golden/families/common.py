"""What the scripts of this folder share: a family's small random-weight checkpoint, and what the reference library says to
it. See ../models/make_models.py, whose rules hold: odd dimensions, weights that make a clear winner of every token."""
import json
import pathlib
import shutil
import sys

import torch
import transformers

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "models"))
import make_models as mm  # noqa: E402
from make_models import ASKS, MIN_GAP, PINNED, Image, img, rename, txt  # noqa: E402,F401

# Video processors need torchvision, pictures do not: a processor may do without one.
_check = transformers.ProcessorMixin.check_argument_for_proper_class
transformers.ProcessorMixin.check_argument_for_proper_class = lambda self, name, arg: arg if arg is None else _check(self, name, arg)

TEXT = dict(vocab_size=347, hidden_size=36, intermediate_size=44, num_hidden_layers=2, num_attention_heads=6,
            num_key_value_heads=2, head_dim=10, max_position_embeddings=1024, bos_token_id=1, eos_token_id=2, pad_token_id=3)


def text(**over):
    return {k: v for k, v in {**TEXT, **over}.items() if v is not None}


def pictures():
    mm.pictures()
    out = HERE / "pictures"
    out.mkdir(exist_ok=True)
    for name, (w, h, seed) in {"strip.png": (211, 17, 5), "tiny.png": (3, 5, 6), "column.png": (13, 190, 7)}.items():
        if not (out / name).exists():
            mm.scene(w, h, seed).save(out / name)


def tokenizer(vocab, bos, specials, named):
    """specials stand behind <unk>, <s>, </s>, <pad>; named: extra_special_tokens."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    t = Tokenizer(models.BPE())
    t.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    t.decoder = decoders.ByteLevel()
    t.train_from_iterator([mm.TEXT + "\n\n, \n\n, \n\n, \n\n"], trainers.BpeTrainer(
        vocab_size=vocab, special_tokens=[AddedToken(s, special=True, normalized=False)
                                          for s in ["<unk>", "<s>", "</s>", "<pad>", *specials]],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False))
    if bos:
        t.post_processor = processors.TemplateProcessing(single="<s> $A", pair="<s> $A <s> $B",
                                                         special_tokens=[("<s>", t.token_to_id("<s>"))])
    return transformers.PreTrainedTokenizerFast(tokenizer_object=t, bos_token="<s>", eos_token="</s>", pad_token="<pad>",
                                                unk_token="<unk>", extra_special_tokens=named)


def parts_template(image, end="<|end|>"):
    return ("{% for m in messages %}<|start|>{{ m.role }}\n{% if m.content is string %}{{ m.content }}{% else %}"
            "{% for p in m.content %}{% if p.type == 'image' %}" + image + "{% else %}{{ p.text }}{% endif %}"
            "{% endfor %}{% endif %}" + end + "\n{% endfor %}"
            "{% if add_generation_prompt %}<|start|>assistant\n{% endif %}")


def cases(size):
    user = lambda *parts: {"role": "user", "content": list(parts)}
    plain = lambda role, s: {"role": role, "content": s}
    return [("text_only", lambda a: [plain("user", a)]),
            ("exact", lambda a: [user(img(f"exact{size}.png"), txt(a))]),
            ("wide", lambda a: [user(img("wide.jpg"), txt(a))]),
            ("tall", lambda a: [plain("system", "You are a careful helper."), user(img("tall.png"), txt(a))]),
            ("very_wide", lambda a: [user(txt("Look:"), img("strip.png"), txt(a))]),
            ("very_tall", lambda a: [user(img("column.png"), txt(a))]),
            ("tiny", lambda a: [user(img("tiny.png"), txt(a))]),
            ("text_before", lambda a: [user(txt(a), img("other.jpg"))]),
            ("two_pictures", lambda a: [user(img("wide.jpg"), img("tall.png"), txt(a))]),
            ("three_apart", lambda a: [user(img("tiny.png"), txt("and"), img("grey.jpg"), txt("or"), img("strip.png"), txt(a))]),
            ("two_turns", lambda a: [user(img("tall.png"), txt("What is it?")),
                                     {"role": "assistant", "content": [txt("A blue circle.")]},
                                     user(txt(a), img("grey.jpg"))])]


def picture(path):
    for folder in (HERE, HERE.parent / "models"):
        if (folder / "pictures" / path).exists():
            return Image.open(folder / "pictures" / path)
    raise SystemExit(path)


def for_library(messages):
    return [{**m, "content": m["content"] if isinstance(m["content"], str) else
             [{"type": "image", "image": picture(p["path"])} if p["type"] == "image" else p for p in m["content"]]}
            for m in messages]


def ask(folder, model, proc, size, parts=False, own_cases=None):
    """parts: the template takes no plain strings."""
    out, model = [], model.eval()
    for name, make in own_cases or cases(size):
        for question in ASKS:
            messages = make(question)
            shaped = for_library(messages)
            if parts:
                shaped = [{**m, "content": [txt(m["content"])] if isinstance(m["content"], str) else m["content"]} for m in shaped]
            inputs = proc.apply_chat_template(shaped, tokenize=True, return_dict=True, add_generation_prompt=True,
                                              return_tensors="pt")
            inputs = {k: v for k, v in inputs.items() if k not in ("attention_mask", "token_type_ids", "mm_token_type_ids")}
            ids, top, gap = mm.greedy(model, inputs)
            if gap >= MIN_GAP:
                break
        else:
            raise SystemExit(f"{folder.name}: {name}: no clear winners")
        out.append({"name": name, "messages": messages, "prompt_ids": inputs["input_ids"][0].tolist(), "tokens": ids,
                    "top": top, "min_gap": round(gap, 4)})
    mm.dump(folder / "golden.json", {"model": folder.name, "versions": PINNED, "image_size": size, "cases": out})
    print(folder.name, "smallest gap", min(c["min_gap"] for c in out), "prompts of",
          sorted(len(c["prompt_ids"]) for c in out), flush=True)


def save_processor(proc, folder):
    video = proc.__dict__.pop("video_processor", None)
    names = [a for a in type(proc).get_attributes() if hasattr(proc, a)]
    type(proc).get_attributes = staticmethod(lambda: names)
    proc.save_pretrained(folder)
    proc.video_processor = video


def make(name, model, proc, size, dtype, seed, tweak=None, parts=False, embed=3.5, ready=None, cases=None):
    """Writes the checkpoint, reads it back in f32 and asks it. tweak(config, weights, folder) rewrites what was saved;
    ready(model) gives the one that is asked."""
    folder = HERE / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    mm.fill(model, seed, dtype, embed)
    for n, p in model.named_parameters():
        if "lambda_" in n:  # layer scales
            p.data = (0.6 + 2 * p.data).to(dtype).float()
    model.generation_config.eos_token_id = 2
    buffers = {n: b.clone() for n, b in model.named_buffers()}
    model.to(dtype).save_pretrained(folder)
    model.float()
    for n, b in model.named_buffers():
        b.data = buffers[n].data
    save_processor(proc, folder)
    if tweak:
        config = json.loads((folder / "config.json").read_text())
        config, weights = tweak(config, mm.load_file(folder / "model.safetensors"), folder)
        (folder / "config.json").write_text(json.dumps(config, indent=1) + "\n")
        mm.save_file({n: w.contiguous() for n, w in weights.items()}, folder / "model.safetensors", metadata={"format": "pt"})
    model = type(model).from_pretrained(folder, dtype=torch.float32)
    ask(folder, ready(model) if ready else model, proc, size, parts, cases)


def old_names(weights):
    """As composed models were saved before version 4.52 of the library, a CLIP-like tower under one more name."""
    weights = rename(weights, [("model.language_model.", "language_model.model."), ("lm_head.", "language_model.lm_head."),
                               ("model.", "")])
    return rename(weights, [("vision_tower.vision_model.", "vision_tower.vision_model."),
                            ("vision_tower.", "vision_tower.vision_model.")])


def new_names(weights):
    """As they stand in the model since then; today's library still writes the old ones."""
    return rename(weights, [("language_model.lm_head.", "lm_head."), ("language_model.model.", "model.language_model."),
                            ("lm_head.", "lm_head."), ("model.", "model."), ("", "model.")])


def old_preprocessor(folder, old_class):
    """The image processor's settings in a file of their own."""
    p = json.loads((folder / "processor_config.json").read_text())
    own = {**p.pop("image_processor"), "image_processor_type": old_class}
    (folder / "preprocessor_config.json").write_text(json.dumps(own, indent=1) + "\n")
    (folder / "processor_config.json").write_text(json.dumps(p, indent=1) + "\n")


def main(names):
    pictures()
    for n in sys.argv[1:] or [f.__name__ for f in names]:
        {f.__name__: f for f in names}[n]()
