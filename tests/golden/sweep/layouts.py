"""Rewrites a saved checkpoint folder as other versions of the reference library, and other people, have written theirs.

Nothing here decides what a folder means: the reference reads what came out, and what it does not read is passed over."""
import json

import torch
from safetensors.torch import load_file, save_file

# Prefixes as today's library has them in memory, to those of files.
OLD_TEXT = [("model.language_model.", "language_model.model."), ("lm_head.", "language_model.lm_head.")]
NAMES = {
    "composed": [[], [*OLD_TEXT, ("model.", "")],
                 [*OLD_TEXT, ("model.vision_tower.", "vision_tower.vision_model."), ("model.", "")],
                 [("model.vision_tower.", "model.vision_tower.vision_model.")]],
    "plain": [[], [*OLD_TEXT, ("model.", "")]],
    "mllama": [[], [*OLD_TEXT, ("model.", "")]],
    "native": [[], [("model.language_model.", "model."), ("model.visual.", "visual.")]],
    "native3": [[]],
    "text": [[], [("model.", "")]],
    "whole": [[]],
}
# Keys of a part that may be left out whatever they hold: what is then meant is the reference's to say.
FREE = """hidden_act hidden_activation rms_norm_eps layer_norm_eps rope_parameters rope_theta sliding_window bos_token_id
 eos_token_id pad_token_id projector_hidden_act vision_feature_layer vision_feature_select_strategy layer_types
 use_sliding_window max_window_layers query_pre_attn_scalar attn_logit_softcapping final_logit_softcapping dtype
 initializer_range attention_dropout use_cache architectures transformers_version image_seq_length
 vision_aspect_ratio activation_function""".split()
OLD_CLASSES = ["{}", "{}Fast", "{}Pil"]
TOKENIZERS = ["PreTrainedTokenizerFast", "LlamaTokenizer", "LlamaTokenizerFast", "Qwen2TokenizerFast", "GPT2Tokenizer",
              "GPT2TokenizerFast", "GemmaTokenizerFast", "CodeLlamaTokenizer"]


def read(path):
    return json.loads(path.read_text())


def write(path, obj):
    path.write_text(json.dumps(obj, indent=1) + "\n")


def old_rope(r, c, mrope):
    """rope_scaling beside rope_theta, as before version 5."""
    p = c.get("rope_parameters")
    if not isinstance(p, dict):
        return
    if "full_attention" in p:
        full, local = c.pop("rope_parameters")["full_attention"], p["sliding_attention"]
        c.update(rope_theta=full.pop("rope_theta"), rope_local_base_freq=local["rope_theta"])
        p = full
    else:
        c["rope_theta"] = c.pop("rope_parameters").pop("rope_theta")
    p.pop("rope_theta", None)
    if r.random() < .6 and "rope_type" in p:
        p["type"] = p["rope_type"] if r.random() < .3 else p.pop("rope_type")
    if p.get("rope_type", p.get("type")) == "default":
        if "mrope_section" not in p:
            c["rope_scaling"] = None
            return
        if mrope:
            p.pop("rope_type", None)
            p["type"] = "mrope"
    c["rope_scaling"] = p


def thin(r, c, defaults, keep):
    """Leaves out keys that the class would fill in, and some that it would fill in otherwise."""
    for k in list(c):
        same = k in defaults and defaults[k] == c[k]
        if k not in keep and not isinstance(c[k], dict) and r.random() < (.5 if same else .12 if k in FREE else 0):
            del c[k]
    heads = c.get("num_attention_heads")
    if c.get("model_type") == "llama" and heads and c.get("num_key_value_heads") == heads and r.random() < .5:
        del c["num_key_value_heads"]
    if heads and c.get("model_type") in ("llama", "mistral") and c.get("head_dim") == c.get("hidden_size", 0) / heads:
        r.choice([lambda: 0, lambda: c.pop("head_dim"), lambda: c.update(head_dim=None)])()


def config(r, folder, model, names, keep):
    path = folder / "config.json"
    c = read(path)
    parts = [(k, v) for k, v in c.items() if k.endswith("_config") and isinstance(v, dict)]
    everything = [(None, c)] + parts
    if r.random() < .5:
        for k, p in everything:
            if "dtype" in p:
                p["torch_dtype"] = p.pop("dtype")
    if r.random() < .5:
        for k, p in everything:
            if k != "vision_config":
                old_rope(r, p, names == "native")
    maps = type(model.config).attribute_map
    for a, b in list(maps.items()):
        for a, b in ((a, b), (b, a)):
            if a in c and b not in c and r.random() < .3:
                c[b] = c.pop(a)
                break
    whole = type(model.config)().to_dict()
    if r.random() < .6:
        for k, p in everything:
            own = getattr(model.config, k) if k else model.config
            defaults = type(own)().to_dict()
            if k:
                defaults["model_type"] = whole.get(k, {}).get("model_type")
            thin(r, p, defaults, keep if k else ("model_type", *keep))
    if r.random() < .1:
        p = r.choice([p for k, p in everything if k != "vision_config"])
        p["tie_word_embeddings"] = r.choice([True, False])
    if r.random() < .1:
        r.choice(everything)[1].update(eos_token_id=r.choice([7, [2, 9], None]))
    if r.random() < .3:
        c.update({"_name_or_path": "somebody/model", "ignore_index": -100, "transformers_version": "4.40.0"})
    if r.random() < .3:
        for k, p in parts:
            p.update({"_name_or_path": "", "output_attentions": False, "return_dict": True, "num_beams": 1, "pruned_heads": {}})
    if r.random() < .3:
        for k, p in parts:
            p.update(architectures=None)
    write(path, c)


def weights(r, folder, model, names, dtype):
    """Names, shards, dtypes."""
    style, asis = r.choice(NAMES[names]), r.random() < .3
    if asis:
        w = load_file(folder / "model.safetensors")
    else:
        w = {n: t.to(dtype) for n, t in model.state_dict().items()}
        tied = getattr(model, "_tied_weights_keys", None) or {}
        if getattr(model.config.get_text_config(), "tie_word_embeddings", False) and r.random() < .6:
            for n in tied if isinstance(tied, dict) else list(tied):
                w.pop(n, None)
        out = {}
        for n, t in w.items():
            a, b = next(((a, b) for a, b in style if n.startswith(a)), ("", ""))
            out[b + n[len(a):]] = t
        w = out
        at = next((n for n in w if "layers.0.self_attn.q_proj" in n and not any(x in n for x in ("vision", "coder"))), None)
        if at and r.random() < .2:
            w[at[:at.index("q_proj")] + "rotary_emb.inv_freq"] = torch.ones(4)
    if r.random() < .2:
        w = {n: t if r.random() < .5 else t.float() for n, t in w.items()}
    w = {n: t.clone().contiguous() for n, t in w.items()}
    shards = r.choice([1, 1, 2, 3])
    (folder / "model.safetensors").unlink()
    if shards == 1:
        save_file(w, folder / "model.safetensors", metadata={"format": "pt"})
        return
    keys, index = list(w), {}
    for k in range(shards):
        file = f"model-{k + 1:05d}-of-{shards:05d}.safetensors"
        save_file({n: w[n] for n in keys[k::shards]}, folder / file, metadata={"format": "pt"})
        index.update({n: file for n in keys[k::shards]})
    size = sum(t.numel() * t.element_size() for t in w.values())
    write(folder / "model.safetensors.index.json", {"metadata": {"total_size": size}, "weight_map": index})


def sizes(r, image):
    """Plain numbers where the library takes them for these."""
    for k in ("size", "crop_size"):
        v = image.get(k)
        if not isinstance(v, dict) or r.random() < .6:
            continue
        if list(v) == ["shortest_edge"]:
            image[k] = v["shortest_edge"]
        elif set(v) == {"height", "width"} and v["height"] == v["width"] and k == "crop_size":
            image[k] = v["height"]


def settings(r, image, own):
    """Thinner, under other names of the class."""
    base = image["image_processor_type"].removesuffix("Pil").removesuffix("Fast")
    if r.random() < .5:
        defaults = type(own)().to_dict()
        for k in list(image):
            if k != "image_processor_type" and image[k] == defaults.get(k) and r.random() < .5:
                del image[k]
    sizes(r, image)
    if "patch_size" in image and "shortest_edge" in image.get("size", {}) and r.random() < .3:
        size = image.pop("size")
        image.update(min_pixels=size["shortest_edge"], max_pixels=size["longest_edge"])
    if r.random() < .6:
        image["image_processor_type"] = r.choice(OLD_CLASSES).format(base)
    elif r.random() < .15:
        del image["image_processor_type"]


def image(r, folder, own):
    """Where an image processor stands alone."""
    path = folder / "preprocessor_config.json"
    p = read(path)
    settings(r, p, own)
    write(path, p)


def processor(r, folder, own, alone_will_do):
    """own: the image processor. Its settings in a file of their own, or thinner."""
    path = folder / "processor_config.json"
    if not path.exists():
        return
    p = read(path)
    image = p.get("image_processor")
    alone = folder / "preprocessor_config.json"
    if image is None and alone.exists():
        image = read(alone)
    if image is None:
        return
    settings(r, image, own)
    if r.random() < .3:
        image.update(processor_class=p.get("processor_class"), data_format="channels_first", device=None,
                     input_data_format=None)
    p.pop("image_processor", None)
    if r.random() < .6:
        write(alone, image)
        if alone_will_do and r.random() < .4:
            path.unlink()
            return
    else:
        p["image_processor"] = image
        alone.unlink(missing_ok=True)
    write(path, p)


def template(r, folder, v):
    """chat_template.jinja, chat_template.json or a key of tokenizer_config.json, which the reference's processors do not
    read."""
    path = folder / "chat_template.jinja"
    if not path.exists():
        return
    how, text = r.choice(["jinja", "json" if v.names != "text" else "key", "key", "list"]), path.read_text()
    if how == "json":
        write(folder / "chat_template.json", {"chat_template": text})
    elif how in ("key", "list"):
        t = read(folder / "tokenizer_config.json")
        t["chat_template"] = text if how == "key" else [{"name": "default", "template": text},
                                                        {"name": "tool_use", "template": "no"}]
        write(folder / "tokenizer_config.json", t)
        v.template = text if v.names != "text" else None
    if how != "jinja":
        path.unlink()


def scatter(r, folder):
    """The last of a tokenizer's tokens stand elsewhere than in tokenizer.json."""
    path = folder / "tokenizer.json"
    j, t = read(path), read(folder / "tokenizer_config.json")
    tokens = sorted(j["added_tokens"], key=lambda a: a["id"])
    keep = len(tokens) - r.choice([0, 1, 1, 2])
    j["added_tokens"] = tokens[:keep]
    if r.random() < .5:
        t["added_tokens_decoder"] = {str(a["id"]): {k: v for k, v in a.items() if k != "id"} for a in tokens}
        for a in t["added_tokens_decoder"].values():
            if r.random() < .1:
                a[r.choice(["lstrip", "rstrip", "normalized"])] ^= True
    else:
        t.pop("added_tokens_decoder", None)
        write(folder / "added_tokens.json", {a["content"]: a["id"] for a in tokens})
    write(path, j)
    write(folder / "tokenizer_config.json", t)


def tokenizer(r, folder):
    """Settings that mean nothing here, and classes that bring their own steps."""
    if r.random() < .15:
        scatter(r, folder)
    path = folder / "tokenizer_config.json"
    t = read(path)
    if r.random() < .3:
        t.update(model_max_length=r.choice([20, 1000000000000000019884624838656]), padding_side="left", truncation_side="left",
                 legacy=False, clean_up_tokenization_spaces=r.random() < .5)
    if r.random() < .25:
        t["tokenizer_class"] = r.choice(TOKENIZERS)
        if r.random() < .5:
            t.update(add_bos_token=r.random() < .5, add_eos_token=r.random() < .3)
        if r.random() < .3:
            t["add_prefix_space"] = r.random() < .5
    write(path, t)


def generation(r, folder):
    path = folder / "generation_config.json"
    if path.exists():
        if r.random() < .2:
            path.unlink()
        else:
            g = read(path)
            g.update(r.choice([{}, {"eos_token_id": [2, 5]}, {"do_sample": True, "temperature": 0.7, "top_p": 0.9},
                               {"max_new_tokens": 50}, {"cache_implementation": "hybrid"},
                               {"bad_words_ids": [[k] for k in r.sample(range(8, 300), 50)]},
                               {"suppress_tokens": r.sample(range(8, 300), 50)}]))
            write(path, g)


def rewrite(r, folder, v, dtype):
    weights(r, folder, v.model, v.names, dtype)
    config(r, folder, v.model, v.names, v.keep_config)
    processor(r, folder, getattr(v.processor, "image_processor", None), v.names.startswith("native"))
    generation(r, folder)
    if v.names != "whole" or v.parts:
        tokenizer(r, folder)
    if v.template:
        (folder / "chat_template.jinja").unlink(missing_ok=True)
    else:
        template(r, folder, v)
