#!/usr/bin/env python3
"""Configs with a few keys, in older spellings, by other names, with parts left out, and what the reference library's classes
make of each: config.json with every key. vlmd must read both alike (tests/engine/families/test_configs.c).

    python tests/golden/configs/make_configs.py        (needs transformers 5.23.0)

cases.json: [[name, config.json as somebody wrote it, the same filled in, an image processor's settings or null, the same]]."""
import copy
import json
import os
import pathlib

os.environ.setdefault("HF_HUB_OFFLINE", "1")
from transformers import AutoConfig  # noqa: E402
from transformers.models.auto import image_processing_auto as images  # noqa: E402

HERE = pathlib.Path(__file__).resolve().parent
NOISE = set("""_name_or_path architectures chunk_size_feed_forward dtype id2label label2id initializer_range initializer_factor
 output_attentions output_hidden_states problem_type return_dict transformers_version use_cache attention_dropout
 _sliding_window_pattern is_encoder_decoder num_image_tokens""".split())

TEXT = dict(hidden_size=16, num_attention_heads=2, num_key_value_heads=1, num_hidden_layers=2, intermediate_size=24, vocab_size=64)
VIT = dict(hidden_size=12, num_attention_heads=2, num_hidden_layers=3, intermediate_size=20, image_size=28, patch_size=7)
SIGLIP = dict(VIT, model_type="siglip_vision_model")
GRID = [[28, 56], [56, 28]]


def text(kind, **more):
    own = {"gemma": dict(head_dim=8), "gemma2": dict(head_dim=8), "gemma3_text": dict(head_dim=8), "qwen3": dict(head_dim=8)}
    return dict(TEXT, model_type=kind, **own.get(kind, {}), **more)


def square(kind, side=28, **more):
    return dict(image_processor_type=kind, size={"height": side, "width": side}, **more)


CLIP = dict(image_processor_type="CLIPImageProcessor", size={"shortest_edge": 28}, crop_size={"height": 28, "width": 28})
NEXT = dict(CLIP, image_processor_type="LlavaNextImageProcessor", image_grid_pinpoints=GRID)


def composed():
    yield "llava, little", dict(model_type="llava", text_config=dict(TEXT), vision_config=dict(VIT)), CLIP
    yield "llava, the other name of the placeholder", dict(
        model_type="llava", text_config=text("mistral"), vision_config=dict(VIT), image_token_index=5, image_token_id=7), CLIP
    yield "llava, no vision_config", dict(model_type="llava", text_config=text("llama")), {
        **CLIP, "size": {"shortest_edge": 336}, "crop_size": 336}
    yield "llava_next, little", dict(model_type="llava_next", text_config=dict(TEXT), vision_config=dict(VIT),
                                     image_grid_pinpoints=GRID), NEXT
    yield "llava_next, no lists", dict(model_type="llava_next", text_config=dict(TEXT), vision_config=dict(VIT, image_size=336,
                                       patch_size=14)), dict(image_processor_type="LlavaNextImageProcessor",
                                                             size={"shortest_edge": 336}, crop_size=336)
    yield "llava_onevision, little", dict(model_type="llava_onevision", text_config=dict(TEXT), vision_config=SIGLIP,
                                          image_grid_pinpoints=GRID), square("LlavaOnevisionImageProcessor",
                                                                             image_grid_pinpoints=GRID)
    yield "llava_onevision, no vision_config", dict(model_type="llava_onevision", text_config=text("qwen2")), square(
        "LlavaOnevisionImageProcessor", 384)
    yield "internvl, little", dict(model_type="internvl", text_config=dict(TEXT), vision_config=dict(VIT)), square(
        "GotOcr2ImageProcessor")
    edges = dict(image_processor_type="Idefics2ImageProcessor")
    yield "idefics2, little", dict(model_type="idefics2", text_config=dict(TEXT), vision_config=dict(VIT)), edges
    yield "idefics2, no text_config", dict(model_type="idefics2", vision_config=dict(VIT)), edges
    edge = dict(image_processor_type="Idefics3ImageProcessor", size={"longest_edge": 56}, max_image_size={"longest_edge": 28})
    yield "idefics3, little", dict(model_type="idefics3", text_config=dict(TEXT), vision_config=dict(VIT)), edge
    yield "smolvlm, no text_config", dict(model_type="smolvlm", vision_config=dict(VIT)), edge
    yield "gemma3, other names", dict(
        model_type="gemma3", text_config=text("gemma3_text"), vision_config=SIGLIP, mm_tokens_per_image=4, image_token_id=9,
        boi_token_id=10, eoi_token_id=11, boi_token_index=3), square("Gemma3ImageProcessor")
    yield "paligemma, little", dict(model_type="paligemma", text_config=dict(TEXT, head_dim=8), vision_config=SIGLIP,
                                    projection_dim=16), square("SiglipImageProcessor")
    yield "paligemma, nothing", dict(model_type="paligemma"), square("SiglipImageProcessor", 224)


def others():
    queries = dict(hidden_size=24, intermediate_size=20)
    for kind in ("blip-2", "instructblip"):
        yield kind + ", little", dict(model_type=kind, text_config=dict(hidden_size=24, vocab_size=64), vision_config=dict(
            hidden_size=32), qformer_config=queries, image_token_id=5), square("BlipImageProcessor", 224)
    yield "blip", dict(model_type="blip", text_config=dict(hidden_size=16), vision_config=dict(VIT, hidden_size=16)), square(
        "BlipImageProcessor")
    tower = dict(hidden_size=16, intermediate_size=20, num_hidden_layers=2, num_global_layers=1, image_size=28, patch_size=14,
                 intermediate_layers_indices=[1], vision_output_dim=32, num_attention_heads=2)
    decoder = dict(TEXT, cross_attention_layers=[1])
    yield "mllama, other names", dict(model_type="mllama", text_config=decoder, vision_config=tower, image_token_id=64), dict(
        image_processor_type="MllamaImageProcessor", size={"height": 28, "width": 28})
    yield "mllama_text_model", dict(decoder, model_type="mllama_text_model"), None
    yield "clip, little", dict(model_type="clip", text_config={}, vision_config={}), {**CLIP, "size": 224, "crop_size": 224}
    yield "clip, of before", dict(model_type="clip", text_config=dict(hidden_size=16, eos_token_id=2), vision_config=dict(VIT),
                                  text_config_dict=dict(hidden_size=32), vision_config_dict=dict(VIT, hidden_size=24)), CLIP
    yield "clip, nothing", dict(model_type="clip"), {**CLIP, "size": 224, "crop_size": 224}
    yield "siglip, nothing", dict(model_type="siglip"), square("SiglipImageProcessor", 224)
    yield "siglip2, nothing", dict(model_type="siglip2"), dict(image_processor_type="Siglip2ImageProcessor")


def native():
    rope = {"type": "mrope", "mrope_section": [2, 1, 1]}
    image = dict(image_processor_type="Qwen2VLImageProcessor")
    flat = dict(TEXT, hidden_size=16, rope_scaling=rope, rope_theta=1e6)
    tower = {"qwen2_vl": dict(embed_dim=16, hidden_size=16), "qwen2_5_vl": dict(hidden_size=16, out_hidden_size=16),
             "qwen3_vl": dict(hidden_size=16, out_hidden_size=16, deepstack_visual_indexes=[0])}
    for kind, v in tower.items():
        patch = {**image, "patch_size": 16} if kind == "qwen3_vl" else image
        inner = dict(flat, head_dim=8) if kind == "qwen3_vl" else flat
        yield kind + ", other names", dict(model_type=kind, text_config=inner, vision_config=dict(
            v, num_hidden_layers=2, num_attention_heads=2)), patch
        yield kind + ", both names", dict(model_type=kind, text_config=inner, vision_config=dict(
            v, num_hidden_layers=2, depth=3, num_heads=1, num_attention_heads=2)), patch
    for kind in ("qwen2_vl", "qwen2_5_vl"):
        yield kind + ", flat", dict(flat, model_type=kind, vision_config=dict(tower[kind], depth=2, num_heads=2,
                                                                              model_type=kind)), image
        stretched = dict(rope_type="yarn", factor=4.0, original_max_position_embeddings=64, mrope_section=[2, 1, 1])
        yield kind + ", flat, stretched", dict(
            flat, model_type=kind, rope_scaling=stretched, original_max_position_embeddings=777, partial_rotary_factor=0.5,
            vision_config=dict(tower[kind], depth=2, num_heads=2)), image


def decoders():
    for kind in ("llama", "mistral", "qwen2", "qwen3", "gemma", "gemma2", "gemma3_text"):
        yield kind + ", sizes alone", text(kind), None
        yield kind + ", nothing", dict(model_type=kind), None
    yield "opt, nothing", dict(model_type="opt"), None
    yield "llama, type beside rope_type", text("llama", rope_theta=5e5, rope_scaling=dict(
        type="llama3", rope_type="llama3", factor=8, low_freq_factor=1, high_freq_factor=4,
        original_max_position_embeddings=64)), None
    yield "gemma, of the first release", text("gemma", hidden_act="gelu", hidden_activation=None), None
    yield "gemma3_text, of before", text("gemma3_text", rope_theta=1e6, rope_local_base_freq=5e3, sliding_window_pattern=2,
                                         rope_scaling=dict(factor=8.0, rope_type="linear"), sliding_window=8), None
    yield "qwen2, windows", text("qwen2", use_sliding_window=True, sliding_window=8, max_window_layers=1), None
    yield "mistral, no window", text("mistral", sliding_window=None, num_key_value_heads=2), None


def unnamed():
    """Settings that name no class: it is the model_type's."""
    for name, config, image in [*composed(), *others(), *native()]:
        if image and (name.endswith(("little", "other names")) or name == "blip"):
            kind = images.IMAGE_PROCESSOR_MAPPING_NAMES[config["model_type"]]["torchvision"]
            own = {"size": {"longest_edge": 56}} if "idefics3" in name else {}
            yield name + ", unnamed", config, {k: v for k, v in {**image, **own}.items() if k != "image_processor_type"}, kind


def filled_image(image, kind):
    if image is None:
        return None
    kind = image.get("image_processor_type", kind)
    cls = images.get_image_processor_class_from_name(kind + "Pil")
    return json.loads(cls(**{k: v for k, v in image.items() if k != "image_processor_type"}).to_json_string())


def thin(c):
    return {k: thin(v) if isinstance(v, dict) else v for k, v in c.items() if k not in NOISE}


def main():
    out = []
    for make in (composed, others, native, decoders, unnamed):
        for name, config, image, *of in make():
            kind = config["model_type"]
            filled = AutoConfig.for_model(**copy.deepcopy(config))
            full = thin(json.loads(filled.to_json_string(use_diff=False)))
            assert full["model_type"] == kind
            out.append([name, config, full, image, filled_image(image, *(of or [None]))])
    (HERE / "cases.json").write_text("[\n" + ",\n".join(json.dumps(x) for x in out) + "\n]\n")


if __name__ == "__main__":
    main()
