"""What the families of the sweep draw in common: decoders, towers, settings of image processors, tokenizers.

Each function takes a random.Random and gives objects of the reference library. Dimensions are small and odd; every option
that the library's class has and vlmd promises is drawn."""
import dataclasses
import json
import pathlib
import sys
import typing

import transformers as T

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent / "families"), str(HERE.parent / "models"), str(HERE.parents[1] / "e2e")]
import common  # noqa: E402
import make_models as mm  # noqa: E402

VOCAB = 347
STEPS = 6  # tokens of an answer
SPECIALS = ["<image>", "<|start|>", "<|end|>"]


@dataclasses.dataclass
class Variant:
    """A drawn checkpoint: what is saved, and how it may be asked."""
    model: typing.Any
    processor: typing.Any  # of a text model its tokenizer
    names: str = "composed"  # the layouts of its tensors (layouts.NAMES)
    embed: float = 3.5  # scale of the embeddings, so that tokens have clear winners
    fill: typing.Callable = None  # fills the weights; None: make_models.fill
    parts: bool = False  # the template takes lists of parts only
    pictures: tuple = (0, 6)  # how many a prompt takes
    template: str = None  # what vlmd renders where a checkpoint brings none
    ask: typing.Callable = None  # (processor, messages, pictures) to inputs; None: the processor's template
    greedy: typing.Callable = None  # (model, inputs) to ids, log-probs, gap; None: the model's generate
    prompt: typing.Callable = None  # (model, inputs) to what vlmd counts as the prompt's ids; None: input_ids
    ready: typing.Callable = None  # sets up the model that was read from the folder
    stops: typing.Any = None  # what ends an answer, as the reference read it
    keep_config: tuple = ()  # keys that the layouts leave alone


def rope(r, plain=False):
    """plain: only what is not stretched."""
    kind = r.choice(["default"] * 3 + ([] if plain else ["linear", "dynamic", "llama3", "yarn"]))
    p = {"rope_type": kind, "rope_theta": r.choice([1e4, 5e5, 5e3, 1e6])}
    if kind == "default" and r.random() < .1:
        p["partial_rotary_factor"] = 0.5  # which these decoders do not look at
    if kind != "default":
        p["factor"] = r.choice([2.0, 4.0, 3.5])
    if kind == "llama3":
        p.update(low_freq_factor=1.0, high_freq_factor=r.choice([4.0, 3.0]), original_max_position_embeddings=64)
    if kind in ("llama3", "yarn") and r.random() < .15:
        p.pop("original_max_position_embeddings", 0)
    elif kind == "yarn":
        p["original_max_position_embeddings"] = r.choice([64, 128])
    if kind == "yarn":
        p.update({k: v for k, v in {"beta_fast": 16, "beta_slow": 2, "attention_factor": 1.1, "truncate": False,
                                    "mscale": 0.8, "mscale_all_dim": 0.6}.items() if r.random() < .3})
    return p


def layer_types(r, n):
    return [r.choice(["sliding_attention", "full_attention"]) for _ in range(n)]


DECODERS = ["llama", "llama", "mistral", "qwen2", "qwen3", "gemma", "gemma2", "gemma3_text"]


def decoder(r, kinds=None, **over):
    kind = r.choice(kinds or DECODERS)
    kv = r.choice([1, 2, 3])
    heads = kv * r.choice([1, 2, 3])
    width = heads * r.choice([4, 6, 10])
    n = r.choice([1, 2, 3])
    wide = r.random() < .12  # than the kernels' blocks
    if wide:
        width, n = heads * r.choice([40, 42]), 2
    kw = dict(vocab_size=VOCAB, hidden_size=width, num_hidden_layers=n, num_attention_heads=heads, num_key_value_heads=kv,
              intermediate_size=r.choice([300, 513] if wide else [40, 44, 51, 72]),
              head_dim=r.choice([64, 80, 128] if wide else [8, 10, 12, 16, 18, width // heads]),
              max_position_embeddings=r.choice([1500, 4096]), bos_token_id=1, eos_token_id=2, pad_token_id=3,
              tie_word_embeddings=r.random() < .4, rms_norm_eps=r.choice([1e-5, 1e-6, 1e-3]), rope_parameters=rope(r))
    if kind == "opt":
        act = r.choice(["relu", "gelu", "gelu_new"])
        return T.OPTConfig(vocab_size=VOCAB, hidden_size=width, ffn_dim=50, num_attention_heads=heads, num_hidden_layers=n,
                           max_position_embeddings=1500, bos_token_id=1, eos_token_id=2, pad_token_id=r.choice([1, 3]),
                           enable_bias=r.random() < .7, layer_norm_elementwise_affine=r.random() < .8, activation_function=act,
                           do_layer_norm_before=r.random() < .7, word_embed_proj_dim=over.get("embed_width", width),
                           tie_word_embeddings=kw["tie_word_embeddings"])
    if kw["rope_parameters"]["rope_type"] == "dynamic":
        kw["max_position_embeddings"] = r.choice([400, 600])
    if kind == "llama":
        kw.update(attention_bias=r.random() < .3, mlp_bias=r.random() < .3,
                  hidden_act=r.choice(["silu", "gelu", "gelu_pytorch_tanh", "relu"]))
    elif kind == "mistral":
        kw.update(sliding_window=r.choice([None, 9, 40]), hidden_act=r.choice(["silu", "gelu"]))
    elif kind in ("qwen2", "qwen3"):
        if kind == "qwen2":
            kw.pop("head_dim")
        else:
            kw["attention_bias"] = r.random() < .3
        if r.random() < .4:
            kw.update(use_sliding_window=True, sliding_window=9, max_window_layers=r.choice([0, 1, 2]))
            if r.random() < .3:
                kw["layer_types"] = layer_types(r, n)
    elif kind == "gemma":
        kw.update(attention_bias=r.random() < .2, hidden_act=r.choice(["gelu_pytorch_tanh", "gelu"]))
    else:
        kw.update(sliding_window=r.choice([9, 30]), query_pre_attn_scalar=r.choice([15, 20]), attention_bias=r.random() < .2,
                  attn_logit_softcapping=r.choice([None, 4.0]), final_logit_softcapping=r.choice([None, 11.0]),
                  layer_types=layer_types(r, n), hidden_activation=r.choice(["gelu_pytorch_tanh", "gelu"]))
        if kind == "gemma3_text":
            local = {"rope_type": "default", "rope_theta": r.choice([1e4, 900.0])}
            kw["rope_parameters"] = {"full_attention": rope(r, plain=r.random() < .5), "sliding_attention": local}
    classes = {"llama": T.LlamaConfig, "mistral": T.MistralConfig, "qwen2": T.Qwen2Config, "qwen3": T.Qwen3Config,
               "gemma": T.GemmaConfig, "gemma2": T.Gemma2Config, "gemma3_text": T.Gemma3TextConfig}
    return classes[kind](**{**kw, **over})


def embed_of(text):
    return 0.5 if "gemma" in text.model_type else 0.7 if text.model_type == "opt" else 3.5


def vit(r, ragged=0, **over):
    """ragged: pixels beyond the last whole patch."""
    if r.random() < .12:  # wider than the kernels' blocks
        return dict(hidden_size=3 * r.choice([64, 72, 88]), intermediate_size=r.choice([257, 530]), num_hidden_layers=2,
                    num_attention_heads=3, image_size=14 * r.choice([8, 16]) + ragged, patch_size=14, **over)
    patch, heads = r.choice([7, 14]), r.choice([1, 2, 3, 4])
    return dict(hidden_size=heads * r.choice([8, 10, 11]), intermediate_size=r.choice([40, 52]),
                num_hidden_layers=r.choice([2, 3, 4]), num_attention_heads=heads, patch_size=patch,
                image_size=patch * r.choice([2, 3, 4]) + ragged, **over)


def clip(r):
    return T.CLIPVisionConfig(**vit(r, r.choice([0, 0, 0, 3])), projection_dim=16,
                              hidden_act=r.choice(["quick_gelu", "gelu", "gelu_new"]),
                              layer_norm_eps=r.choice([1e-5, 1e-3]))


def siglip(r, **over):
    return T.SiglipVisionConfig(**{**vit(r, r.choice([0, 0, 3, 6])), "hidden_act": r.choice(["gelu_pytorch_tanh", "gelu"]),
                                   "layer_norm_eps": r.choice([1e-6, 1e-3]), **over})


def features(r, n):
    """Hidden states of a tower of n layers."""
    return r.choice([-2, -1, -2, 1, n, [-2, -1], [1, -1], [0, n, -1]])


def norm(r, normalize=True):
    """Settings that any image processor has."""
    d = {}
    if r.random() < .5:
        d.update(image_mean=[.4, .5, .6], image_std=[.3, .2, .4])
    if r.random() < .4:
        d["resample"] = r.choice([0, 1, 2, 3, 4, 5])
    if normalize and r.random() < .12:
        d["do_normalize"] = False
    if r.random() < .12:
        d["rescale_factor"] = r.choice([1 / 127.5, 1 / 256])
    elif r.random() < .06:
        d.update(do_rescale=False, image_mean=[100., 120., 130.], image_std=[60., 70., 80.])
    if r.random() < .3:
        d["do_convert_rgb"] = True
    return d


def tokenizer(r, specials=SPECIALS, named=None, bos=None):
    bos = r.random() < .5 if bos is None else bos
    named = named or {"image_token": "<image>"}
    return pieces(r, specials, named, bos) if r.random() < .3 else common.tokenizer(330, bos, list(specials), named)


def pieces(r, specials, named, bos):
    """SentencePiece's kind of BPE: a mark for a space, bytes for what has no piece."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
    t = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    first = ["<unk>", "<s>", "</s>", "<pad>", *specials]
    texts = [w for w in mm.TEXT.replace(" ", " \u2581").split(" ")]
    t.train_from_iterator(texts, trainers.BpeTrainer(vocab_size=VOCAB - 2, show_progress=False, special_tokens=[
        AddedToken(s, special=True, normalized=False) for s in first] + [f"<0x{i:02X}>" for i in range(256)]))
    j = json.loads(t.to_str())
    j["added_tokens"] = [a for a in j["added_tokens"] if a["content"] in first]
    t = Tokenizer.from_str(json.dumps(j))
    if r.random() < .5:
        t.normalizer = normalizers.Sequence([normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")])
    else:
        t.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=r.choice(["first", "always", "never"]), split=r.random() < .5)
    if bos:
        t.post_processor = processors.TemplateProcessing(single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", 1)])
    t.decoder = decoders.Sequence([decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse(),
                                   *([decoders.Strip(" ", 1, 0)] if r.random() < .7 else [])])
    return T.PreTrainedTokenizerFast(tokenizer_object=t, bos_token="<s>", eos_token="</s>", pad_token="<pad>",
                                     unk_token="<unk>", extra_special_tokens=named)
