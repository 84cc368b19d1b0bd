"""Dual encoders, as the sweep draws them: vectors of texts and pictures."""
import sys

import parts

sys.path.insert(0, str(parts.HERE.parent / "dual"))
import layouts  # noqa: E402
import make as dual  # noqa: E402
import test_embeddings  # noqa: E402
import torch  # noqa: E402
import transformers as T  # noqa: E402
from cases import LONG, ODD  # noqa: E402
from parts import Variant, norm  # noqa: E402

TEXTS = ["a photo of a cat", "", "  ", "Dog", "Two SMALL birds, seen from below!?", ODD, LONG, "a photo of the old town hall."]


def towers(r):
    def tower(**over):
        heads = r.choice([1, 2, 3])
        return dict(hidden_size=heads * r.choice([8, 11, 12]), intermediate_size=r.choice([40, 52]),
                    num_hidden_layers=r.choice([1, 2, 3]), num_attention_heads=heads,
                    layer_norm_eps=r.choice([1e-5, 1e-3]), **over)
    patch = r.choice([6, 7, 14])
    return tower(), tower(patch_size=patch, image_size=patch * r.choice([2, 3, 4]))


def variant(r, model, tok, image):
    scale, bias = r.choice([1.5, 2.9]), r.choice([-3., .4])
    return Variant(model, (tok, image), names="whole",
                   fill=lambda m, seed, dtype, embed: dual.fill(m, seed, dtype, scale, bias),
                   keep_config=("eos_token_id", "bos_token_id", "pad_token_id"))


def clip(r):
    text, vision = towers(r)
    n, act = r.choice([12, 19, 77]), r.choice(["quick_gelu", "gelu"])
    tok = dual.clip_tokenizer(n)
    text.update(max_position_embeddings=n, vocab_size=len(tok), eos_token_id=r.choice([tok.eos_token_id, 2]), hidden_act=act,
                bos_token_id=tok.bos_token_id, pad_token_id=1)
    m = T.CLIPModel(T.CLIPConfig(text_config=text, vision_config={**vision, "hidden_act": act},
                                 projection_dim=r.choice([21, 24])))
    s = vision["image_size"]
    return variant(r, m, tok, dual.CLIPImageProcessorPil(size={"shortest_edge": s}, crop_size={"height": s, "width": s},
                                                         **norm(r)))


def siglip(r):
    text, vision = towers(r)
    n, acts = r.choice([9, 13, 64]), ["gelu_pytorch_tanh", "gelu"]
    tok = dual.sentence_tokenizer(n, 180)
    text.update(max_position_embeddings=n, vocab_size=len(tok), projection_size=vision["hidden_size"], eos_token_id=1,
                bos_token_id=0, hidden_act=r.choice(acts))
    m = T.SiglipModel(T.SiglipConfig(text_config=text, vision_config={**vision, "hidden_act": r.choice(acts)}))
    s = vision["image_size"]
    return variant(r, m, tok, dual.SiglipImageProcessorPil(size={"height": s, "width": s}, **norm(r)))


def siglip2(r):
    text, vision = towers(r)
    tok, heads = dual.gemma_tokenizer(r.choice([400, 500])), text["num_attention_heads"]
    width, patch = heads * r.choice([8, 12]), vision["patch_size"]
    text.update(hidden_size=width, vocab_size=len(tok), eos_token_id=1, bos_token_id=2, pad_token_id=0,
                max_position_embeddings=64)
    vision = {**vision, "hidden_size": width, "num_attention_heads": heads, "num_patches": r.choice([16, 25, 64])}
    del vision["image_size"]
    m = T.Siglip2Model(T.Siglip2Config(text_config=text, vision_config=vision))
    return variant(r, m, tok, dual.Siglip2ImageProcessorPil(patch_size=patch, max_num_patches=r.choice([9, 37, 100, 200]),
                                                            **norm(r)))


def save(r, v, folder, dtype):
    for x in v.processor:
        x.save_pretrained(folder)
    layouts.weights(r, folder, v.model, v.names, dtype)
    layouts.config(r, folder, v.model, v.names, v.keep_config)
    layouts.image(r, folder, v.processor[1])


def answers(r, v, folder, pictures):
    """Texts and pictures to the library's vectors."""
    m, info = type(v.model).from_pretrained(folder, dtype=torch.float32, output_loading_info=True)
    if any(info[k] for k in ("missing_keys", "mismatched_keys", "unexpected_keys")):
        raise ValueError(str(info))
    m, proc = m.eval(), {"tok": v.processor[0], "image": T.AutoImageProcessor.from_pretrained(folder, backend="pil")}
    out = []
    with torch.no_grad():
        for text in TEXTS:
            ids = torch.tensor([dual.text_ids(proc, m, [text])[0]])
            out.append(("text", text, m.get_text_features(input_ids=ids).pooler_output[0].tolist()))
        for name in sorted({pictures.draw(r) for _ in range(8)}):
            inputs = proc["image"](images=[pictures.of(name)], return_tensors="pt")
            out.append(("picture", name, m.get_image_features(**inputs).pooler_output[0].tolist()))
    return out


def compare(server, asked, pictures):
    """The greatest difference of a vector of length 1."""
    worst = 0
    for kind, what, vector in asked:
        value = what if kind == "text" else test_embeddings.image_part(pictures.url(what))
        got = test_embeddings.embed(server, value, **({"truncate": True} if kind == "text" else {}))[0]
        want = test_embeddings.unit(vector)
        test_embeddings.near(got, want, what[:30])
        worst = max([worst, *(abs(a - b) for a, b in zip(got, want))])
    return worst


FAMILIES = {f.__name__: f for f in (clip, siglip, siglip2)}
