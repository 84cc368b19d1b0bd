"""Families of another shape, as the sweep draws them: pictures at their own size, cross-attention, Q-Formers, questions,
decoders alone."""
import common
import make_blip2
import make_blip_vqa
import make_instructblip
import make_mllama
import make_qwen_vl
import parts
import transformers as T
from composed import eager
from parts import Variant, decoder, embed_of, norm, tokenizer, vit
from transformers.models.blip.image_processing_pil_blip import BlipImageProcessorPil

make_blip_vqa.STEPS = parts.STEPS


# ---- pictures at their own size ---------------------------------------------------------------------------------------


def native(r, kind):
    merge, patch, frames = r.choice([1, 2, 2, 3]), r.choice([4, 7, 8, 14]), r.choice([1, 2, 2])
    if kind == "3":
        merge = min(merge, 2)
    heads, text_heads, dim = r.choice([1, 2, 3]), r.choice([2, 4, 6]), r.choice([10, 12, 14, 16])
    tower, width, half = heads * r.choice([8, 12, 16]), text_heads * dim, dim // 2
    a = r.randint(1, half - 2)
    b = r.randint(1, half - a - 1)
    rope = parts.rope(r, plain=r.random() < .6)
    if rope["rope_type"] == "dynamic":
        rope = {"rope_type": "default", "rope_theta": 1e4}
    tie = r.random() < .5
    text = dict(vocab_size=make_qwen_vl.VOCAB, hidden_size=width, intermediate_size=44, num_hidden_layers=r.choice([2, 3]),
                num_attention_heads=text_heads, num_key_value_heads=r.choice([k for k in (1, 2, 3) if text_heads % k == 0]),
                max_position_embeddings=4096, bos_token_id=1, eos_token_id=2, pad_token_id=3, tie_word_embeddings=tie,
                rms_norm_eps=r.choice([1e-5, 1e-6]), rope_parameters={**rope, "mrope_section": [a, b, half - a - b]})
    vision = dict(depth=r.choice([2, 3]), num_heads=heads, patch_size=patch, spatial_merge_size=merge,
                  temporal_patch_size=frames)
    image = dict(patch_size=patch, merge_size=merge, temporal_patch_size=frames, **norm(r, False), size={
        "shortest_edge": (patch * merge) ** 2 * r.choice([1, 4]), "longest_edge": (patch * merge) ** 2 * r.choice([20, 60])})
    if kind != "3" and r.random() < .4:
        text.update(use_sliding_window=True, sliding_window=11, max_window_layers=1)
    over = dict(text_config=text, vision_config=vision, tie_word_embeddings=tie, **make_qwen_vl.IDS)
    if kind == "2":
        vision.update(embed_dim=tower, hidden_size=width, mlp_ratio=r.choice([2, 3]),
                      hidden_act=r.choice(["quick_gelu", "gelu"]))
        m, p = eager(T.Qwen2VLForConditionalGeneration, T.Qwen2VLConfig(**over)), T.Qwen2VLProcessor
    elif kind == "2.5":
        vision.update(hidden_size=tower, hidden_act=r.choice(["silu", "gelu"]), intermediate_size=r.choice([39, 50]),
                      out_hidden_size=width, window_size=patch * merge * r.choice([1, 2, 3]) + r.choice([0, 3]),
                      fullatt_block_indexes=r.choice([[], [0], [1]]))
        m, p = eager(T.Qwen2_5_VLForConditionalGeneration, T.Qwen2_5_VLConfig(**over)), T.Qwen2_5_VLProcessor
    else:
        text.update(head_dim=dim + r.choice([0, 2]), attention_bias=r.random() < .4)
        if r.random() < .5:
            text["rope_parameters"]["mrope_interleaved"] = True
        deep = r.sample(range(vision["depth"]), r.choice([0, 1, 2]))
        vision.update(hidden_size=tower, intermediate_size=50, out_hidden_size=width, deepstack_visual_indexes=deep,
                      num_position_embeddings=r.choice([16, 25, 64]), hidden_act=r.choice(["gelu_pytorch_tanh", "gelu"]))
        image["size"]["shortest_edge"] = (patch * merge) ** 2 * 4
        m, p = eager(T.Qwen3VLForConditionalGeneration, T.Qwen3VLConfig(**over)), T.Qwen3VLProcessor

    def ready(model):
        model.model.visual.rotary_pos_emb.original_max_seq_len = 0
        return model
    return Variant(m, make_qwen_vl.processor(p, **image), names="native" if kind != "3" else "native3", ready=ready)


def qwen2_vl(r):
    return native(r, "2")


def qwen2_5_vl(r):
    return native(r, "2.5")


def qwen3_vl(r):
    return native(r, "3")


# ---- cross-attention -------------------------------------------------------------------------------------------------


def mllama(r):
    patch, heads, layers = r.choice([7, 14]), r.choice([1, 2, 3]), r.choice([2, 3, 4])
    s, width = patch * r.choice([2, 3, 4]), heads * r.choice([8, 12])
    inner = sorted(r.sample(range(1, layers), min(r.choice([1, 2]), layers - 1)))
    tiles = r.choice([1, 2, 3, 4])
    ratios = [[a, b] for a in range(1, tiles + 1) for b in range(1, tiles + 1) if a * b <= tiles]
    if r.random() < .5:
        r.shuffle(ratios)
    vision = dict(hidden_size=width, num_hidden_layers=layers, num_global_layers=r.choice([1, 2]), attention_heads=heads,
                  intermediate_size=r.choice([40, 52]), vision_output_dim=width * (1 + len(inner)), image_size=s,
                  patch_size=patch,
                  max_num_tiles=tiles, intermediate_layers_indices=inner, supported_aspect_ratios=ratios,
                  hidden_act=r.choice(["gelu", "quick_gelu"]), norm_eps=r.choice([1e-5, 1e-3]))
    n, kv = r.choice([3, 4, 5]), r.choice([1, 2])
    text_heads = kv * r.choice([1, 2, 3])
    rope = parts.rope(r, plain=r.random() < .5)
    text = dict(vocab_size=330, hidden_size=text_heads * r.choice([8, 10]), num_hidden_layers=n, num_attention_heads=text_heads,
                num_key_value_heads=kv, intermediate_size=44,
                cross_attention_layers=sorted(r.sample(range(1, n), r.choice([1, 2]))),
                max_position_embeddings=2048, bos_token_id=1, eos_token_id=2, pad_token_id=3, rope_parameters=rope,
                tie_word_embeddings=r.random() < .3, rms_norm_eps=r.choice([1e-5, 1e-3]), hidden_act=r.choice(["silu", "gelu"]))
    m = eager(T.MllamaForConditionalGeneration, T.MllamaConfig(vision_config=vision, text_config=text, image_token_index=330))
    ip = make_mllama.MllamaImageProcessorPil(size={"height": s, "width": s}, max_image_tiles=tiles, **norm(r))
    p = make_mllama.MllamaProcessor(ip, make_mllama.tokenizer(330), chat_template=make_mllama.TEMPLATE)

    def ready(model):  # what make_mllama.py says of the indices
        tower = model.model.vision_model
        tower.intermediate_layers_indices = [i - 1 for i in model.config.vision_config.intermediate_layers_indices]
        return model
    return Variant(m, p, names="mllama", ready=ready, fill=lambda m, seed, dtype, embed: make_mllama.fill(m, seed, dtype))


# ---- Q-Formers ---------------------------------------------------------------------------------------------------------


def queries(r, cls, text, **over):
    v, heads = vit(r, qkv_bias=r.random() < .6, hidden_act=r.choice(["gelu", "quick_gelu"]),
                   layer_norm_eps=r.choice([1e-6, 1e-3])), r.choice([1, 2, 4])
    q = dict(hidden_size=heads * r.choice([8, 9]), intermediate_size=46, num_attention_heads=heads,
             num_hidden_layers=r.choice([1, 2, 3, 4]), cross_attention_frequency=r.choice([1, 2, 3]),
             hidden_act=r.choice(["gelu", "relu", "gelu_new"]), layer_norm_eps=r.choice([1e-12, 1e-5]), **over)
    c = cls(vision_config=v, qformer_config=q, text_config=text, num_query_tokens=r.choice([1, 5, 32, 140]))
    s = v["image_size"]
    return c, BlipImageProcessorPil(size={"height": s, "width": s}, **norm(r))


def blip2(r):
    text = decoder(r, ["opt"] * 4 + ["llama"])
    c, ip = queries(r, T.Blip2Config, text, vocab_size=90, use_qformer_text_input=r.random() < .5)
    tok = common.tokenizer(330, r.random() < .7, ["<image>"], {})
    p = T.Blip2Processor(ip, tok, num_query_tokens=c.num_query_tokens)
    c.image_token_index = tok.convert_tokens_to_ids("<image>")
    p.chat_template = make_blip2.TEMPLATE
    m = eager(T.Blip2ForConditionalGeneration, c)
    return Variant(m, p, names="whole", embed=.7, pictures=(1, 1), template=make_blip2.TEMPLATE)


def instructblip(r):
    words, text = make_instructblip.words(150), decoder(r, ["llama"] * 4 + ["opt", "qwen2"])
    c, ip = queries(r, T.InstructBlipConfig, text, vocab_size=len(words), max_position_embeddings=r.choice([150, 300]))
    tok = common.tokenizer(330, r.random() < .7, ["<image>"], {})
    c.image_token_index = tok.convert_tokens_to_ids("<image>")
    p = T.InstructBlipProcessor(ip, tok, words, num_query_tokens=c.num_query_tokens)

    def ask(p, messages):
        p.num_query_tokens = c.num_query_tokens
        text = p.apply_chat_template(messages, chat_template=make_instructblip.TEMPLATE, tokenize=False)
        content = [x for m in messages if not isinstance(m["content"], str) for x in m["content"]]
        pictures = [x["image"] for x in content if x["type"] == "image"]
        return p(images=pictures, text=text, return_tensors="pt")
    m = eager(T.InstructBlipForConditionalGeneration, c)
    return Variant(m, p, names="whole", embed=2.0, pictures=(1, 1), template=make_instructblip.TEMPLATE, ask=ask)


def blip_vqa(r):
    v = vit(r, hidden_act=r.choice(["gelu", "quick_gelu"]), layer_norm_eps=r.choice([1e-5, 1e-3]))
    v["hidden_size"] = v["num_attention_heads"] * 24  # a narrow one is at the mercy of rounding
    tok = make_blip_vqa.tokenizer(do_lower_case=r.random() < .7)
    heads, n = r.choice([1, 2, 3, 4]), len(tok)
    text = dict(vocab_size=n + 2, bos_token_id=n, sep_token_id=tok.sep_token_id, pad_token_id=0, hidden_size=v["hidden_size"],
                num_hidden_layers=r.choice([1, 2, 3]), num_attention_heads=heads, intermediate_size=44,
                max_position_embeddings=r.choice([300, 400]), hidden_act=r.choice(["gelu", "relu"]),
                layer_norm_eps=r.choice([1e-12, 1e-3]))
    m = eager(T.BlipForQuestionAnswering, T.BlipConfig(vision_config=v, text_config=text, tie_word_embeddings=r.random() < .7))
    p = T.BlipProcessor(BlipImageProcessorPil(size={"height": v["image_size"], "width": v["image_size"]}, **norm(r)), tok)

    def ask(p, messages):
        p.tokenizer.split_special_tokens = True
        content = messages[0]["content"]
        i = p(images=next(x["image"] for x in content if x["type"] == "image"), return_tensors="pt",
              text="".join(x["text"] for x in content if x["type"] == "text"))
        return {k: i[k] for k in ("input_ids", "pixel_values")}
    return Variant(m, p, names="whole", pictures=(1, 1), ask=ask, greedy=make_blip_vqa.greedy,
                   fill=lambda m, seed, dtype, embed: make_blip_vqa.fill(m, seed, dtype),
                   keep_config=("bos_token_id", "sep_token_id", "pad_token_id"),
                   prompt=lambda m, i: [*i["input_ids"][0].tolist(), m.decoder_start_token_id])


# ---- decoders alone ----------------------------------------------------------------------------------------------------


def text(r, kind=None):
    t = decoder(r, [kind] if kind else None)
    if kind == "opt" and r.random() < .4:
        t.word_embed_proj_dim = 31
    tok = tokenizer(r)
    tok.chat_template = common.parts_template("<image>")
    m = T.AutoModelForCausalLM.from_config(t, attn_implementation="eager")
    return Variant(m, tok, names="text", embed=embed_of(t), pictures=(0, 0))


def opt(r):
    return text(r, "opt")


FAMILIES = {f.__name__: f for f in (qwen2_vl, qwen2_5_vl, qwen3_vl, mllama, blip2, instructblip, blip_vqa, text, opt)}
