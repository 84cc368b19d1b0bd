"""Families of a tower, a projector and a decoder, as the sweep draws them: LLaVA and its successors, InternVL, Idefics,
SmolVLM, PaliGemma, Gemma 3."""
import types

import common
import make_both_ways as both_ways
import make_idefics2
import make_idefics3
import parts
import transformers as T
from parts import Variant, clip, decoder, embed_of, features, norm, siglip, tokenizer, vit
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.got_ocr2.image_processing_pil_got_ocr2 import GotOcr2ImageProcessorPil
from transformers.models.llava.image_processing_pil_llava import LlavaImageProcessorPil
from transformers.models.llava_next.image_processing_pil_llava_next import LlavaNextImageProcessorPil
from transformers.models.llava_onevision.image_processing_pil_llava_onevision import LlavaOnevisionImageProcessorPil
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

TEMPLATE = common.parts_template("<image>")


def eager(cls, config):
    return cls._from_config(config, attn_implementation="eager")


def llava(r):
    is_clip = r.random() < .6
    v = clip(r) if is_clip else siglip(r)
    t, s, select = decoder(r), v.image_size, r.choice(["default", "full"])
    m = eager(T.LlavaForConditionalGeneration, T.LlavaConfig(
        vision_config=v, text_config=t, image_token_index=4, vision_feature_layer=features(r, v.num_hidden_layers),
        vision_feature_select_strategy=select, projector_hidden_act=r.choice(["gelu", "silu", "gelu_pytorch_tanh", "relu"]),
        multimodal_projector_bias=r.random() < .7, tie_word_embeddings=t.tie_word_embeddings))
    if r.random() < .2:
        ip = LlavaImageProcessorPil(size={"shortest_edge": s}, crop_size={"height": s, "width": s}, do_pad=r.random() < .7,
                                    **norm(r, False))
    elif is_clip:
        crop = r.random() < .8
        size = {"shortest_edge": s + r.choice([0, 0, 0, 3, -5])} if crop else {"height": s, "width": s}
        ip = CLIPImageProcessorPil(size=size, do_center_crop=crop, do_resize=not crop or r.random() < .9,
                                   crop_size={"height": s, "width": s}, **norm(r))
    else:
        ip = SiglipImageProcessorPil(size={"height": s, "width": s}, **norm(r))
    p = T.LlavaProcessor(ip, tokenizer(r), patch_size=v.patch_size, vision_feature_select_strategy=select,
                         num_additional_image_tokens=1 if is_clip else 0, chat_template=TEMPLATE)
    return Variant(m, p, embed=embed_of(t))


def grids(r, s):
    return [[s * a, s * b] for a, b in r.sample([(1, 1), (1, 2), (2, 1), (2, 2), (1, 3), (3, 1), (2, 3), (4, 1)],
                                                r.choice([1, 3, 5]))]


def llava_next(r):
    is_clip = r.random() < .7
    v = clip(r) if is_clip else siglip(r)
    t, s, select = decoder(r), v.image_size, "default" if is_clip else "full"
    points = grids(r, s)
    m = eager(T.LlavaNextForConditionalGeneration, T.LlavaNextConfig(
        vision_config=v, text_config=t, image_token_index=4, image_grid_pinpoints=points,
        vision_feature_layer=features(r, v.num_hidden_layers), vision_feature_select_strategy=select,
        multimodal_projector_bias=r.random() < .7, projector_hidden_act=r.choice(["gelu", "silu"]),
        tie_word_embeddings=t.tie_word_embeddings))
    ip = LlavaNextImageProcessorPil(size={"shortest_edge": s}, crop_size={"height": s, "width": s}, image_grid_pinpoints=points,
                                    **norm(r))
    p = T.LlavaNextProcessor(ip, tokenizer(r), patch_size=v.patch_size, vision_feature_select_strategy=select,
                             num_additional_image_tokens=1 if is_clip else 0, chat_template=TEMPLATE)
    return Variant(m, p, embed=embed_of(t))


def llava_onevision(r):
    v = siglip(r, vision_use_head=False)
    t, s, rule = decoder(r), v.image_size, f"anyres_max_{r.choice([1, 2, 3, 9])}"
    points = [[s * h, s * w] for h in range(1, 4) for w in range(1, 4)] if r.random() < .5 else grids(r, s)
    m = eager(T.LlavaOnevisionForConditionalGeneration, T.LlavaOnevisionConfig(
        vision_config=v, text_config=t, image_token_index=4, video_token_index=7, image_grid_pinpoints=points,
        vision_aspect_ratio=rule, vision_feature_layer=features(r, v.num_hidden_layers),
        tie_word_embeddings=t.tie_word_embeddings, multimodal_projector_bias=r.random() < .7))
    ip = LlavaOnevisionImageProcessorPil(size={"height": s, "width": s}, image_grid_pinpoints=points, **norm(r))
    tok = tokenizer(r, parts.SPECIALS + ["<video>"], {"image_token": "<image>", "video_token": "<video>"})
    p = T.LlavaOnevisionProcessor(ip, tok, None, num_image_tokens=(s // v.patch_size) ** 2,
                                  vision_feature_select_strategy="full",
                                  vision_aspect_ratio=rule, chat_template=TEMPLATE)
    return Variant(m, p, embed=embed_of(t))


def internvl(r):
    patch, grid, heads = r.choice([7, 14]), r.choice([2, 4]), r.choice([1, 2, 3])
    s, ratio = patch * grid, r.choice([.5, 1.0] + ([.25] if grid == 4 else []))
    v = T.InternVLVisionConfig(
        hidden_size=heads * 10, num_hidden_layers=r.choice([1, 2, 3]), num_attention_heads=heads, intermediate_size=44,
        image_size=[s, s], patch_size=[patch, patch], attention_bias=r.random() < .5, use_qk_norm=r.random() < .4,
        norm_type=r.choice(["layer_norm", "rms_norm"]), use_mean_pooling=r.random() < .5,
        hidden_act=r.choice(["gelu", "gelu_pytorch_tanh"]), layer_norm_eps=r.choice([1e-6, 1e-3]))
    t, rows = decoder(r), int((grid * ratio) ** 2)
    m = eager(T.InternVLForConditionalGeneration, T.InternVLConfig(
        vision_config=v, text_config=t, image_token_id=4, image_seq_length=rows, downsample_ratio=ratio,
        projector_hidden_act=r.choice(["gelu", "silu"]), tie_word_embeddings=t.tie_word_embeddings,
        vision_feature_layer=r.choice([-1, -1, -2])))
    tok = tokenizer(r, ["<IMG_CONTEXT>", "<|start|>", "<|end|>", "<video>", "<img>", "</img>"], {
        "context_image_token": "<IMG_CONTEXT>", "start_image_token": "<img>", "end_image_token": "</img>",
        "video_token": "<video>"})
    ip = GotOcr2ImageProcessorPil(size={"height": s, "width": s}, min_patches=r.choice([1, 1, 2]),
                                  max_patches=r.choice([2, 4, 6]), crop_to_patches=r.random() < .5, **norm(r))
    p = T.InternVLProcessor(ip, tok, None, image_seq_length=rows, chat_template=common.parts_template("<IMG_CONTEXT>\n"))
    return Variant(m, p, names="plain", embed=embed_of(t))


def idefics2(r):
    v = vit(r, hidden_act=r.choice(["gelu_pytorch_tanh", "gelu"]))
    t, kv, latents = decoder(r, ["mistral", "llama", "qwen2", "qwen3", "gemma"]), r.choice([1, 2]), r.choice([3, 5, 8])
    perceiver = dict(hidden_size=r.choice([t.hidden_size, 64]), rms_norm_eps=1e-4, resampler_n_latents=latents,
                     resampler_depth=r.choice([1, 2, 3]), resampler_n_heads=kv * r.choice([1, 2]),
                     resampler_head_dim=r.choice([8, 9, 12]), num_key_value_heads=kv, hidden_act=r.choice(["silu", "gelu"]))
    m = eager(T.Idefics2ForConditionalGeneration, T.Idefics2Config(
        vision_config=v, text_config=t, perceiver_config=perceiver, image_token_id=4, pad_token_id=3,
        tie_word_embeddings=t.tie_word_embeddings))
    s = v["image_size"]
    size = {"longest_edge": r.choice([s, s * 2, s + 5]), "shortest_edge": r.choice([s, s - 5])}
    ip = make_idefics2.Idefics2ImageProcessorPil(size=size, do_image_splitting=r.random() < .5, **norm(r))
    p = T.Idefics2Processor(ip, make_idefics2.tokenizer(), image_seq_len=latents, chat_template=make_idefics2.TEMPLATE)
    return Variant(m, p, names="whole", embed=embed_of(t), parts=True)


def idefics3(r, smol=False):
    patch, grid = r.choice([7, 14]), r.choice([2, 4, 6])
    s, merge = grid * patch, r.choice([2, 3] if grid == 6 else [1, 2])
    v = dict(vit(r, hidden_act=r.choice(["gelu_pytorch_tanh", "gelu"])), image_size=s, patch_size=patch)
    t = decoder(r)
    over = dict(vision_config=v, text_config=t, image_token_id=4, scale_factor=merge, pad_token_id=3,
                tie_word_embeddings=t.tie_word_embeddings)
    ip = (make_idefics3.SmolVLMImageProcessorPil if smol else make_idefics3.Idefics3ImageProcessorPil)(
        size={"longest_edge": s * r.choice([1, 2, 3]) + r.choice([0, 0, 5])}, max_image_size={"longest_edge": s},
        do_image_splitting=r.random() < .75, **norm(r))
    rows = (grid // merge) ** 2
    if smol:
        m = eager(T.SmolVLMForConditionalGeneration, T.SmolVLMConfig(**over))
        named = {"image_token": "<image>", "fake_image_token": "<fake_token_around_image>",
                 "global_image_token": "<global-img>",
                 "end_of_utterance_token": "<end_of_utterance>"}
        p = make_idefics3.processing_smolvlm.SmolVLMProcessor(ip, make_idefics3.tok(False, named), None, image_seq_len=rows,
                                                              chat_template=make_idefics3.TEMPLATE)
        p.video_processor = types.SimpleNamespace(num_frames=1, fps=1)
    else:
        m = eager(T.Idefics3ForConditionalGeneration, T.Idefics3Config(**over))
        p = T.Idefics3Processor(ip, make_idefics3.tok(r.random() < .5, {"image_token": "<image>"}), image_seq_len=rows,
                                chat_template=make_idefics3.TEMPLATE)
    return Variant(m, p, names="whole", embed=embed_of(t), parts=True)


def smolvlm(r):
    return idefics3(r, True)


def paligemma(r):
    v, t = siglip(r), decoder(r, ["gemma", "gemma2"] * 3 + ["gemma3_text"])
    v.projection_dim = t.hidden_size
    m = eager(T.PaliGemmaForConditionalGeneration, T.PaliGemmaConfig(
        vision_config=v, text_config=t, projection_dim=t.hidden_size, hidden_size=t.hidden_size, image_token_index=4,
        vocab_size=parts.VOCAB))
    ip = both_ways.SiglipImageProcessorPil(size={"height": v.image_size, "width": v.image_size}, **norm(r))
    ip.image_seq_length = (v.image_size // v.patch_size) ** 2
    tok = tokenizer(r)
    tok.add_tokens = lambda *a, **k: 0  # a thousand places and a hundred segments
    p = T.PaliGemmaProcessor(ip, tok, chat_template=both_ways.PALIGEMMA)
    return Variant(m, p, embed=embed_of(t), pictures=(1, 4), template=both_ways.PALIGEMMA)


def gemma3(r):
    patch, grid = r.choice([7, 14]), r.choice([2, 4, 6])
    v = siglip(r, image_size=patch * grid, patch_size=patch, vision_use_head=False)
    t, n = decoder(r, ["gemma3_text"]), (grid // r.choice([1, 2])) ** 2
    m = eager(T.Gemma3ForConditionalGeneration, T.Gemma3Config(
        vision_config=v, text_config=t, mm_tokens_per_image=n, boi_token_index=5, eoi_token_index=6, image_token_index=4,
        tie_word_embeddings=t.tie_word_embeddings))
    ip = both_ways.Gemma3ImageProcessorPil(size={"height": v.image_size, "width": v.image_size}, **norm(r))
    tok = tokenizer(r, parts.SPECIALS + ["<|turn|>"], {"image_token": "<image>", "boi_token": "<|start|>",
                                                       "eoi_token": "<|end|>"}, bos=True)
    p = T.Gemma3Processor(ip, tok, chat_template=both_ways.GEMMA3, image_seq_length=n)
    return Variant(m, p, embed=embed_of(t))


FAMILIES = {f.__name__: f for f in (llava, llava_next, llava_onevision, internvl, idefics2, idefics3, smolvlm,
                                    paligemma, gemma3)}
