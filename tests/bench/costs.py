#!/usr/bin/env python3
"""What a picture costs in the shapes that are published: docs/families.md's table.

Tower and join at their published size, the decoder at its width but cut to two layers (and those that the encode itself fills with
keys and values), narrow feed-forwards and few words, random bf16 weights; tests/bench/bench_encode plans pictures of three sizes and
encodes one of 640 x 480. Keys and values of a token are those of the whole decoder. One folder at a time, removed afterwards.

  python3 tests/bench/costs.py [--only NAME,NAME] [--threads N] [--no-encode] [--write]

--write puts the table into docs/families.md; not with --only or --no-encode."""
import argparse
import os
import re
import shutil
import subprocess
import sys
import time

import folder

CUT, WORDS = 2, 512
CLIP = {"image_mean": [0.48145466, 0.4578275, 0.40821073], "image_std": [0.26862954, 0.26130258, 0.27577711]}
HALF = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}


def square(side):
    return {"height": side, "width": side}


def vit(kind, layers, width, heads, ffn, side, patch, **more):
    return {"model_type": kind, "num_hidden_layers": layers, "hidden_size": width, "num_attention_heads": heads, "intermediate_size": ffn,
            "image_size": side, "patch_size": patch, **more}


def clip_l(side=336):
    return vit("clip_vision_model", 24, 1024, 16, 4096, side, 14)


def so400m(kind, side, **more):
    return vit(kind, 27, 1152, 16, 4304, side, 14, **more)


def text(kind, width, heads, kv_heads, head_dim, ffn=64, **more):
    return {"model_type": kind, "vocab_size": WORDS, "hidden_size": width, "intermediate_size": ffn, "num_hidden_layers": CUT,
            "num_attention_heads": heads, "num_key_value_heads": kv_heads, "head_dim": head_dim, "max_position_embeddings": 32768,
            "bos_token_id": 1, "eos_token_id": 2, **more}


def files(config, prep, processor=None):
    out = {"config.json": config, "preprocessor_config.json": prep}
    if processor:
        out["processor_config.json"] = {"processor_class": processor}
    return out


def tiled(kind, points, config, prep):
    return files({"model_type": kind, "image_token_index": 4, "image_grid_pinpoints": points, **config}, {"image_grid_pinpoints": points, **prep})


def native(kind, patch, least, most, config):
    return files({"model_type": kind, "image_token_id": 4, "video_token_id": 5, "vision_start_token_id": 6, "vision_end_token_id": 7, **config},
                 {"image_processor_type": "Qwen2VLImageProcessor", "patch_size": patch, "size": {"shortest_edge": least, "longest_edge": most}, **CLIP})


def flat(t):
    return {k: v for k, v in t.items() if k not in ("model_type", "head_dim")}


def clip_prep(side):
    return {"image_processor_type": "CLIPImageProcessor", "size": {"shortest_edge": side}, "crop_size": square(side), **CLIP}


def llava():
    return files({"model_type": "llava", "image_token_index": 4, "text_config": text("llama", 4096, 32, 32, 128), "vision_config": clip_l()}, clip_prep(336))


def llava_next():
    points = [[336, 672], [672, 336], [672, 672], [1008, 336], [336, 1008]]
    return tiled("llava_next", points, {"text_config": text("mistral", 4096, 32, 8, 128), "vision_config": clip_l()},
                 {**clip_prep(336), "image_processor_type": "LlavaNextImageProcessor"})


def llava_onevision():
    points = [[384 * a, 384 * b] for a in range(1, 7) for b in range(1, 7)]
    return tiled("llava_onevision", points, {"vision_aspect_ratio": "anyres_max_9", "text_config": text("qwen2", 3584, 28, 4, 128),
                                             "vision_feature_layer": -1, "vision_feature_select_strategy": "full",
                                             "vision_config": {**so400m("siglip_vision_model", 384, vision_use_head=False), "num_hidden_layers": 26}},
                 {"image_processor_type": "LlavaOnevisionImageProcessor", "size": square(384), **HALF})


def internvl():
    return files({"model_type": "internvl", "image_token_id": 4, "text_config": text("qwen2", 1536, 12, 2, 128),
                  "vision_config": vit("internvl_vision", 24, 1024, 16, 4096, 448, 14, attention_bias=True)},
                 {"image_processor_type": "GotOcr2ImageProcessorFast", "max_patches": 12, "size": square(448), **CLIP}, "InternVLProcessor")


def idefics2():
    """The join's first feed-forward is as wide as the decoder's."""
    perceiver = {"hidden_size": 4096, "resampler_n_latents": 64, "resampler_depth": 3, "resampler_n_heads": 16, "resampler_head_dim": 96,
                 "num_key_value_heads": 4}
    return files({"model_type": "idefics2", "image_token_id": 4, "text_config": text("mistral", 4096, 32, 8, 128, 14336),
                  "vision_config": so400m("idefics2_vision", 980), "perceiver_config": perceiver},
                 {"image_processor_type": "Idefics2ImageProcessor", "do_image_splitting": True, "size": {"longest_edge": 980, "shortest_edge": 378}, **HALF},
                 "Idefics2Processor")


def idefics3(kind, name, side, edge, factor, decoder):
    return files({"model_type": kind, "image_token_id": 4, "scale_factor": factor, "text_config": decoder, "vision_config": so400m(f"{kind}_vision", side)},
                 {"image_processor_type": f"{name}ImageProcessor", "max_image_size": {"longest_edge": side}, "size": {"longest_edge": edge}, "resample": 1,
                  **HALF}, f"{name}Processor")


def qwen2_vl():
    return native("qwen2_vl", 14, 3136, 12845056, {**flat(text("", 1536, 12, 2, 128)), "rope_scaling": {"type": "mrope", "mrope_section": [16, 24, 24]},
                                                   "vision_config": {"depth": 32, "embed_dim": 1280, "hidden_size": 1536, "mlp_ratio": 4, "num_heads": 16}})


def qwen2_5_vl():
    return native("qwen2_5_vl", 14, 3136, 12845056, {**flat(text("", 2048, 16, 2, 128)), "rope_scaling": {"type": "mrope", "mrope_section": [16, 24, 24]},
                                                     "vision_config": {"depth": 32, "hidden_size": 1280, "intermediate_size": 3420, "num_heads": 16,
                                                                       "out_hidden_size": 2048}})


def qwen3_vl():
    t = text("qwen3_vl_text", 2560, 32, 8, 128, rope_scaling={"rope_type": "default", "mrope_section": [24, 20, 20], "mrope_interleaved": True})
    t["num_hidden_layers"] = 3  # that many join deep features
    return native("qwen3_vl", 16, 65536, 16777216, {"text_config": t, "vision_config": {"depth": 24, "hidden_size": 1024, "intermediate_size": 4096,
                                                                                        "num_heads": 16, "out_hidden_size": 2560,
                                                                                        "deepstack_visual_indexes": [5, 11, 17]}})


def paligemma(side):
    return files({"model_type": "paligemma", "image_token_index": 4, "projection_dim": 2048, "text_config": text("gemma", 2048, 8, 1, 256),
                  "vision_config": so400m("siglip_vision_model", side, vision_use_head=False)},
                 {"image_processor_type": "SiglipImageProcessor", "size": square(side), **HALF}, "PaliGemmaProcessor")


def gemma3():
    return files({"model_type": "gemma3", "image_token_index": 4, "boi_token_index": 5, "eoi_token_index": 6, "mm_tokens_per_image": 256,
                  "text_config": text("gemma3_text", 2560, 8, 4, 256, query_pre_attn_scalar=256, sliding_window=1024),
                  "vision_config": so400m("siglip_vision_model", 896, vision_use_head=False)},
                 {"image_processor_type": "Gemma3ImageProcessor", "size": square(896), **HALF}, "Gemma3Processor")


def mllama():
    """All eight layers that attend to pictures: the encode ends with their keys and values."""
    t = text("mllama_text_model", 4096, 32, 8, 128, cross_attention_layers=list(range(1, 9)))
    del t["head_dim"]
    t["num_hidden_layers"] = 8 + CUT
    vision = vit("mllama_vision_model", 32, 1280, 16, 5120, 560, 14, num_global_layers=8, attention_heads=16, max_num_tiles=4)
    del vision["num_attention_heads"]
    return files({"model_type": "mllama", "image_token_index": WORDS, "text_config": t, "vision_config": vision},
                 {"image_processor_type": "MllamaImageProcessor", "max_image_tiles": 4, "size": square(560), **CLIP}, "MllamaProcessor")


def blip2():
    t = {"model_type": "opt", "vocab_size": WORDS, "hidden_size": 2560, "ffn_dim": 64, "num_hidden_layers": CUT, "num_attention_heads": 32,
         "word_embed_proj_dim": 2560}
    return files({"model_type": "blip-2", "image_token_index": 4, "num_query_tokens": 32, "text_config": t, "qformer_config": {"encoder_hidden_size": 1408},
                  "vision_config": vit("blip_2_vision_model", 39, 1408, 16, 6144, 224, 14)},
                 {"image_processor_type": "BlipImageProcessor", "size": square(224), **CLIP}, "Blip2Processor")


def instructblip():
    return files({"model_type": "instructblip", "image_token_index": 4, "num_query_tokens": 32, "text_config": text("llama", 4096, 32, 32, 128),
                  "qformer_config": {"encoder_hidden_size": 1408}, "vision_config": vit("instructblip_vision_model", 39, 1408, 16, 6144, 224, 14)},
                 {"image_processor_type": "BlipImageProcessor", "size": square(224), **CLIP}, "InstructBlipProcessor")


def blip_vqa():
    """Not cut: all layers of the answer have keys and values from the encode."""
    t = {"model_type": "blip_text_model", "vocab_size": 30524, "hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12,
         "num_attention_heads": 12, "max_position_embeddings": 512}
    return files({"model_type": "blip", "text_config": t, "vision_config": vit("blip_vision_model", 12, 768, 12, 3072, 384, 16)},
                 {"image_processor_type": "BlipImageProcessor", "size": square(384), **CLIP}, "BlipProcessor")


def coca():
    vision = {"image_size": 224, "layers": 24, "width": 1024, "patch_size": 14, "attentional_pool": True, "attn_pooler_heads": 8, "output_tokens": True}
    half = {"context_length": 76, "width": 768, "heads": 12, "layers": 12}
    return {"open_clip_config.json": {"model_cfg": {"embed_dim": 768, "vision_cfg": vision, "custom_text": True, "multimodal_cfg": half,
                                                    "text_cfg": {**half, "vocab_size": 49408, "embed_cls": True, "output_tokens": True}}}}


def clip():
    return files({"model_type": "clip", "projection_dim": 768, "text_config": {"hidden_size": 768, "intermediate_size": 3072, "num_attention_heads": 12},
                  "vision_config": clip_l()}, clip_prep(336))


def siglip():
    return files({"model_type": "siglip", "text_config": {"hidden_size": 1152, "intermediate_size": 4304, "num_hidden_layers": CUT,
                                                          "num_attention_heads": 16, "vocab_size": 32000},
                  "vision_config": so400m("siglip_vision_model", 384)}, {"image_processor_type": "SiglipImageProcessor", "size": square(384), **HALF})


def siglip2():
    return files({"model_type": "siglip2", "text_config": {"vocab_size": 32000}, "vision_config": {}}, {"image_processor_type": "Siglip2ImageProcessor"})


# name (model_type), published shape, layers of the whole decoder that keep a token's keys and values (0: no decoder), those of the folder, its files.
SHAPES = [
    ("llava", "LLaVA-1.5-7B", 32, CUT, llava),
    ("llava_next", "LLaVA-NeXT-Mistral-7B", 32, CUT, llava_next),
    ("llava_onevision", "LLaVA-OneVision-7B", 28, CUT, llava_onevision),
    ("internvl", "InternVL3-2B", 28, CUT, internvl),
    ("idefics2", "Idefics2-8B", 32, CUT, idefics2),
    ("idefics3", "Idefics3-8B", 32, CUT, lambda: idefics3("idefics3", "Idefics3", 364, 1456, 2, text("llama", 4096, 32, 8, 128))),
    ("smolvlm", "SmolVLM2-2.2B", 24, CUT, lambda: idefics3("smolvlm", "SmolVLM", 384, 1536, 3, text("llama", 2048, 32, 32, 64))),
    ("blip-2", "BLIP-2 OPT-2.7B", 32, CUT, blip2),
    ("instructblip", "InstructBLIP-Vicuna-7B", 32, CUT, instructblip),
    ("qwen2_vl", "Qwen2-VL-2B", 28, CUT, qwen2_vl),
    ("qwen2_5_vl", "Qwen2.5-VL-3B", 36, CUT, qwen2_5_vl),
    ("qwen3_vl", "Qwen3-VL-4B", 36, 3, qwen3_vl),
    ("gemma3", "Gemma3-4B", 34, CUT, gemma3),
    ("paligemma", "PaliGemma-3B, 224 pixels", 18, CUT, lambda: paligemma(224)),
    ("paligemma", "PaliGemma-3B, 448 pixels", 18, CUT, lambda: paligemma(448)),
    ("blip", "BLIP-VQA-base", 12, 12, blip_vqa),
    ("mllama", "Llama-3.2-11B-Vision", 32, CUT, mllama),
    ("coca", "CoCa ViT-L/14", 24, 24, coca),
    ("clip", "CLIP ViT-L/14-336", 0, 0, clip),
    ("siglip", "SigLIP so400m/14-384", 0, 0, siglip),
    ("siglip2", "SigLIP 2 B/16 NaFlex", 0, 0, siglip2),
]
SIZES = ("336x336", "640x480", "1920x1080")


def bench(at, *args):
    run = subprocess.run([str(folder.BUILD / "tests" / "bench" / "bench_encode"), str(at), *args], capture_output=True, text=True)
    if run.returncode:
        raise SystemExit(f"bench_encode: {run.stderr}")
    return run.stdout


def measure(model_type, title, layers, cut, make, threads, encode):
    at = folder.filled(make())
    try:
        said = folder.inspected(at)
        plans = re.findall(r"(\d+) tiles? +(\d+) tokens", bench(at, "--plan", *SIZES))
        m = re.search(r"([\d.]+) s encode \(([\d.]+) s of processors", bench(at, "--threads", str(threads), "640x480")) if encode else None
    finally:
        shutil.rmtree(at)
    kv = re.search(r"KV cache ([\d.]+) (\w+) a token", said)
    apart = re.search(r"(\d+) bytes (?:each|of keys and values each)", said)
    unit = " rows apart" if apart else ""
    tokens = [(n + unit if layers else "a vector") + (f" ({t} tiles)" if int(t) > 1 else "") for t, n in plans]
    per_token = "no decoder"
    if layers:
        per_token = f"{float(kv.group(1)) * 1024 ** ('B', 'KiB', 'MiB').index(kv.group(2)) / cut * layers / 1024:.0f} KiB"
        if apart:
            per_token += f"; {int(apart.group(1)) / 1024:.0f} KiB a row apart"
    return [f"`{model_type}`", title, *tokens, per_token, *([f"{float(m.group(2)):.1f} s", f"{float(m.group(1)):.1f} s"] if m else ["", ""])]


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--only", default="")
    p.add_argument("--threads", type=int, default=os.cpu_count())
    p.add_argument("--no-encode", action="store_true")
    p.add_argument("--write", action="store_true")
    a = p.parse_args()
    only = [x for x in a.only.split(",") if x]
    load = os.getloadavg()[0]
    head = ["`model_type`", "published shape", *(f"{s.replace('x', ' × ')}" for s in SIZES), "KV of one token", "encode of 640 × 480, processor time",
            f"with {a.threads} threads"]
    rows = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for shape in SHAPES:
        if only and shape[0] not in only:
            continue
        begin = time.time()
        rows.append("| " + " | ".join(measure(*shape, a.threads, not a.no_encode)) + " |")
        print(f"{rows[-1]} {time.time() - begin:.0f} s", file=sys.stderr)
    known = re.findall(r"^\| `(\S+)` \| `\S+` \| (?!text\b)", subprocess.run([str(folder.BUILD / "vlmd"), "families"], capture_output=True, text=True).stdout, re.M)
    for name in sorted(set(known) - {s[0] for s in SHAPES}):
        print(f"no published shape here for {name}", file=sys.stderr)
    out = f"{folder.machine(load)}.\n\n" + "\n".join(rows) + "\n"
    print(out)
    if a.write and not only and not a.no_encode:
        folder.rewrite(folder.ROOT / "docs" / "families.md", "bench-costs", out)


if __name__ == "__main__":
    main()
