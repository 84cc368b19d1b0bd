#!/usr/bin/env python3
"""What the ways of leading a picture to a language model cost, beside each other: docs/fusion.md's tables.

One ViT (336 pixels, patches of 14, 12 layers, 768 wide) and one decoder size (12 layers that attend to the text, 768 wide, 12 heads,
32000 tokens) in every design, random bf16 weights, one picture of 336 x 336; asked of the running server, one request at a time,
and read from its replies and its /metrics. Each request's picture is new unless the column says otherwise.

  python3 tests/bench/fusion.py [--repeats N] [--layers N] [--only NAME,NAME] [--write]

--write puts the tables into docs/fusion.md; --layers (4 at least) and --only, for a first look, do not write. VLMD_BIN and BUILD as the tests."""
import argparse
import json
import os
import pathlib
import re
import shutil
import statistics
import sys
import time
import urllib.error
import urllib.request

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "load"))
import folder  # noqa: E402
from wire import CHAT, Server, image_part, png, seeded, text_part  # noqa: E402

SIDE, PATCH, WIDTH, HEADS, FFN, GATED_FFN, VOCAB, TOKENS = 336, 14, 768, 12, 3072, 2048, 32000, 33
CLIP_MEAN = {"image_mean": [0.48145466, 0.4578275, 0.40821073], "image_std": [0.26862954, 0.26130258, 0.27577711]}
HALF = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}
SQUARE = {"height": SIDE, "width": SIDE}


def vit(kind, layers, **more):
    return {"model_type": kind, "hidden_size": WIDTH, "intermediate_size": FFN, "num_hidden_layers": layers, "num_attention_heads": HEADS,
            "image_size": SIDE, "patch_size": PATCH, **more}


def decoder(kind, layers, **more):
    """About as many parameters a layer with two matrices of FFN or three of GATED_FFN."""
    return {"model_type": kind, "vocab_size": VOCAB, "hidden_size": WIDTH, "intermediate_size": GATED_FFN, "num_hidden_layers": layers,
            "num_attention_heads": HEADS, "num_key_value_heads": HEADS, "head_dim": WIDTH // HEADS, "max_position_embeddings": 2048,
            "tie_word_embeddings": True, "bos_token_id": 1, "eos_token_id": 2, **more}


def llava(layers, projector):
    config = {"model_type": "llava", "image_token_index": 4, "vision_feature_layer": -1, "tie_word_embeddings": True,
              "text_config": decoder("llama", layers), "vision_config": vit("clip_vision_model", layers)}
    if projector == "linear":
        config["mm_projector_type"] = "linear"
    return {"config.json": config,
            "preprocessor_config.json": {"image_processor_type": "CLIPImageProcessor", "size": {"shortest_edge": SIDE}, "crop_size": SQUARE, **CLIP_MEAN}}


def internvl(layers):
    return {"config.json": {"model_type": "internvl", "image_token_id": 4, "downsample_ratio": 0.5, "text_config": decoder("llama", layers),
                            "vision_config": vit("internvl_vision", layers, attention_bias=True)},
            "preprocessor_config.json": {"image_processor_type": "GotOcr2ImageProcessorFast", "max_patches": 1, "size": SQUARE, **CLIP_MEAN},
            "processor_config.json": {"processor_class": "InternVLProcessor"}}


def qwen2_vl(layers):
    text = {k: v for k, v in decoder("", layers).items() if k not in ("model_type", "head_dim")}
    return {"config.json": {"model_type": "qwen2_vl", "image_token_id": 8, "video_token_id": 9, "vision_start_token_id": 6, "vision_end_token_id": 7,
                            "vision_token_id": 5, **text, "rope_scaling": {"type": "mrope", "mrope_section": [8, 12, 12]},
                            "vision_config": {"depth": layers, "embed_dim": WIDTH, "hidden_size": WIDTH, "mlp_ratio": 4, "num_heads": HEADS,
                                              "patch_size": PATCH, "spatial_merge_size": 2}},
            "preprocessor_config.json": {"image_processor_type": "Qwen2VLImageProcessor", "patch_size": PATCH, "min_pixels": 3136,
                                         "max_pixels": SIDE * SIDE, **CLIP_MEAN}}


def idefics3(layers):
    return {"config.json": {"model_type": "idefics3", "image_token_id": 4, "scale_factor": 3, "tie_word_embeddings": True,
                            "text_config": decoder("llama", layers), "vision_config": vit("idefics3_vision", layers)},
            "preprocessor_config.json": {"image_processor_type": "Idefics3ImageProcessor", "do_image_splitting": False,
                                         "max_image_size": {"longest_edge": SIDE}, "size": {"longest_edge": SIDE}, "resample": 1, **HALF},
            "processor_config.json": {"processor_class": "Idefics3Processor"}}


def gemma3(layers):
    text = decoder("gemma3_text", layers, query_pre_attn_scalar=64, sliding_window=1024)
    return {"config.json": {"model_type": "gemma3", "image_token_index": 4, "boi_token_index": 5, "eoi_token_index": 6, "mm_tokens_per_image": 36,
                            "text_config": text, "vision_config": vit("siglip_vision_model", layers, vision_use_head=False)},
            "preprocessor_config.json": {"image_processor_type": "Gemma3ImageProcessor", "size": SQUARE, "resample": 2, **HALF},
            "processor_config.json": {"processor_class": "Gemma3Processor"}}


def paligemma(layers):
    return {"config.json": {"model_type": "paligemma", "image_token_index": 4, "projection_dim": WIDTH, "text_config": decoder("gemma", layers),
                            "vision_config": vit("siglip_vision_model", layers, vision_use_head=False)},
            "preprocessor_config.json": {"image_processor_type": "SiglipImageProcessor", "image_seq_length": 576, "size": SQUARE, **HALF},
            "processor_config.json": {"processor_class": "PaliGemmaProcessor"}}


def idefics2(layers):
    return {"config.json": {"model_type": "idefics2", "image_token_id": 4, "tie_word_embeddings": True,
                            "text_config": decoder("mistral", layers, sliding_window=None), "vision_config": vit("idefics2_vision", layers),
                            "perceiver_config": {"model_type": "idefics2_perceiver", "hidden_size": WIDTH, "resampler_n_latents": 64,
                                                 "resampler_depth": 3, "resampler_n_heads": HEADS, "resampler_head_dim": 64,
                                                 "num_key_value_heads": 4}},
            "preprocessor_config.json": {"image_processor_type": "Idefics2ImageProcessor", "do_image_splitting": False,
                                         "size": {"longest_edge": SIDE, "shortest_edge": SIDE}, **HALF},
            "processor_config.json": {"processor_class": "Idefics2Processor", "image_seq_len": 64}}


def blip2(layers, reads=False):
    """The Q-Former as published, as deep as the tower; reads: the prompt beside its queries, as InstructBLIP's."""
    kind = "instructblip" if reads else "blip-2"
    tower, former, processor = ("instructblip_vision_model", "instructblip_qformer", "InstructBlip") if reads else \
        ("blip_2_vision_model", "blip_2_qformer", "Blip2")
    words = {"vocab_size": 30523, "max_position_embeddings": 512} if reads else {}
    return {"config.json": {"model_type": kind, "image_token_index": 4, "num_query_tokens": 32, "text_config": decoder("llama", layers),
                            "qformer_config": {"model_type": former, "hidden_size": WIDTH, "intermediate_size": FFN, "num_hidden_layers": layers,
                                               "num_attention_heads": HEADS, "cross_attention_frequency": 2, **words},
                            "vision_config": vit(tower, layers)},
            "preprocessor_config.json": {"image_processor_type": "BlipImageProcessor", "size": SQUARE, **CLIP_MEAN},
            "processor_config.json": {"processor_class": processor + "Processor", "num_query_tokens": 32}}


def blip_vqa(layers):
    text = {"model_type": "blip_text_model", "vocab_size": VOCAB, "hidden_size": WIDTH, "intermediate_size": FFN, "num_hidden_layers": layers,
            "num_attention_heads": HEADS, "max_position_embeddings": 512, "bos_token_id": VOCAB - 1, "sep_token_id": 3, "eos_token_id": 2}
    return {"config.json": {"model_type": "blip", "text_config": text, "vision_config": vit("blip_vision_model", layers)},
            "preprocessor_config.json": {"image_processor_type": "BlipImageProcessor", "size": SQUARE, **CLIP_MEAN},
            "processor_config.json": {"processor_class": "BlipProcessor"}}


def mllama(layers):
    """A cross-attention layer in front of every fourth layer of the text, as published; two of the tower's layers are the gated ones."""
    cross = [i for i in range(layers + layers // 4) if i % 5 == 3]
    inner = layers - 2
    features = [inner * k // 5 for k in range(5)] if inner >= 5 else [0]
    vision = vit("mllama_vision_model", inner, num_global_layers=2, attention_heads=HEADS, max_num_tiles=1, supported_aspect_ratios=[[1, 1]],
                 intermediate_layers_indices=features, vision_output_dim=WIDTH * (1 + len(features)))
    del vision["num_attention_heads"]
    text = decoder("mllama_text_model", layers + len(cross), cross_attention_layers=cross, tie_word_embeddings=False)
    del text["head_dim"]
    return {"config.json": {"model_type": "mllama", "image_token_index": 330, "text_config": text, "vision_config": vision},
            "preprocessor_config.json": {"image_processor_type": "MllamaImageProcessor", "max_image_tiles": 1, "size": SQUARE, **HALF},
            "processor_config.json": {"processor_class": "MllamaProcessor"}}


def coca(layers):
    """Half of the layers before the picture, half in turns with as many that attend to it, as published."""
    text = {"context_length": 76, "vocab_size": VOCAB, "width": WIDTH, "heads": HEADS, "layers": layers // 2, "embed_cls": True, "output_tokens": True}
    more = {"context_length": 76, "width": WIDTH, "heads": HEADS, "layers": layers // 2}
    vision = {"image_size": SIDE, "layers": layers, "width": WIDTH, "head_width": WIDTH // HEADS, "patch_size": PATCH, "attentional_pool": True,
              "attn_pooler_queries": 256, "attn_pooler_heads": 8, "output_tokens": True}
    return {"open_clip_config.json": {"model_cfg": {"embed_dim": WIDTH, "vision_cfg": vision, "text_cfg": text, "multimodal_cfg": more,
                                                    "custom_text": True}, "preprocess_cfg": {"mean": CLIP_MEAN["image_mean"], "std": CLIP_MEAN["image_std"]}}}


def text_only(layers):
    return {"config.json": decoder("llama", layers)}


class Design:
    """files(layers): the folder; like: a golden folder whose tokenizer and template fit; at: where it is implemented. places: tokens
    of the decoder's context that a picture takes where its keys and values lie apart; None: its rows. asked: (a question, another).
    question_apart: the decoder's context has none of the question."""

    def __init__(self, name, title, files, like, at, tower=("vision_tower.", "vision_model."), join=("multi_modal_projector.",), places=None,
                 asked=("What is in the image?", "Is it red or blue?"), question_apart=False):
        self.name, self.title, self.files, self.like, self.at, self.tower, self.join = name, title, files, like, at, tower, join
        self.places, self.asked, self.question_apart = places, asked, question_apart


# A design more is a row more: a function that writes its folder, and a folder of tests/golden whose tokenizer it takes.
DESIGNS = [
    Design("text", "no picture", text_only, "models/clip_llama", "`decoder.c`: `decoder_forward`"),
    Design("linear", "early: linear (LLaVA v1)", lambda n: llava(n, "linear"), "models/clip_llama", "`llava.c`; `join.c`: `project`"),
    Design("mlp", "early: MLP (LLaVA 1.5)", lambda n: llava(n, "mlp"), "models/clip_llama", "`llava.c`; `join.c`: `project`"),
    Design("both", "early: linear, the prompt sees itself both ways (PaliGemma)", paligemma, "models/both_ways_paligemma",
           "`paligemma.c`; `seq.c`, `share.c`: `BOTH_PROMPT`"),
    Design("merge", "early: 2 × 2 side by side, MLP (Qwen2-VL)", qwen2_vl, "families/qwen2_vl", "`qwen2_vl.c`; `join.c`: `side_by_side`", ("visual.",),
           ("visual.merger.",)),
    Design("shuffle", "early: pixel shuffle 2 × 2, MLP (InternVL)", internvl, "families/internvl_llama", "`internvl.c`; `join.c`: `side_by_side`"),
    Design("shuffle3", "early: pixel shuffle 3 × 3, linear (Idefics3)", idefics3, "families/smolvlm_whole", "`idefics3.c`; `join.c`: `side_by_side`",
           join=("connector.",)),
    Design("pool", "early: mean of 4 × 4, linear (Gemma 3)", gemma3, "models/both_ways_gemma3", "`gemma3.c`; `join.c`: `join_block_of`"),
    Design("perceiver", "early: perceiver, 64 latents (Idefics2)", idefics2, "families/idefics2_whole", "`idefics2.c`; `join_layers.c`",
           join=("connector.",)),
    Design("qformer", "early: Q-Former, 32 queries (BLIP-2)", blip2, "families/blip2", "`blip2.c`; `join_layers.c`",
           join=("qformer.", "query_tokens", "language_projection.")),
    Design("reads", "early: Q-Former that reads the prompt, 32 queries (InstructBLIP)", lambda n: blip2(n, True), "families/instructblip",
           "`instructblip.c`; `join_layers.c`", join=("qformer.", "query_tokens", "language_projection.")),
    Design("cross", "cross-attention in 3 layers more (Llama 3.2 Vision)", mllama, "families/mllama", "`mllama.c`; `cross.c`: `cross_keep`, `cross_layer`",
           places=1),
    Design("coca", "cross-attention in 6 layers more, to 255 pooled rows (CoCa)", coca, "families/coca_quick",
           "`coca.c`; `attend.c`: `attend_slice`; `cross.c`", ("visual.",), ("visual.attn_pool.", "visual.ln_post."), places=0,
           asked=("a", "one")),  # its context is 76 tokens; a caption goes on from a text
    Design("late", "late: a text encoder reads question and picture (BLIP VQA)", blip_vqa, "families/blip_vqa",
           "`blip_vqa.c`; `join_layers.c`; `cross.c`: `cross_beside`", join=("text_encoder.",), places=0, question_apart=True),
]


class Answer:
    """What one request did, from the reply and from the counters before and after."""

    def __init__(self, server, messages):
        def parts():
            m = server.metrics()
            return m, m.get("request_success_total", 0)
        before, done = parts()
        body = {"messages": messages, "temperature": 0, "max_tokens": TOKENS, "ignore_eos": True}
        r = urllib.request.Request(server.url(CHAT), json.dumps(body).encode(), {"Content-Type": "application/json"})
        self.refused = None
        try:
            reply = json.load(urllib.request.urlopen(r, timeout=3600))
        except urllib.error.HTTPError as e:
            self.refused = json.load(e)["error"]["message"]
            return
        after, now = parts()
        while now == done:
            time.sleep(0.01)
            after, now = parts()

        def more(name):
            return after[name] - before[name]
        self.rows = reply["usage"]["prompt_tokens"]
        self.cached = reply["usage"]["prompt_tokens_details"]["cached_tokens"]
        self.pictures, self.picture_rows = int(more("images_total")), int(more("image_tokens_total"))
        self.encode_ms = 1e3 * more("image_encode_seconds_total")
        self.first_ms = 1e3 * more("request_prefill_time_seconds_sum")
        self.prefill_ms = self.first_ms - self.encode_ms
        self.decode_ms = 1e3 * more("inter_token_latency_seconds_sum") / more("inter_token_latency_seconds_count")
        self.kept = more("image_memory_used_bytes")


def measure(d, layers, repeats):
    """{what: value}, medians of the rounds."""
    at = folder.filled(d.files(layers), d.like)
    try:
        said, counts = folder.inspected(at), folder.parameters(at, d.tower, d.join)
        server = Server(at, "--log-level", "warn", "--max-num-seqs", 2, "--device", "cpu", "--kv-cache-memory", "512M",
                        binary=os.environ.get("VLMD_BIN", folder.BUILD / "vlmd"))
        try:
            runs = [scene(server, d, seeded(d.name, i)) for i in range(repeats + 1)][1:]  # the first warms up
        finally:
            server.stop()
    finally:
        shutil.rmtree(at)

    def median(field):
        return statistics.median(getattr(run["first"], field) for run in runs)
    first = runs[0]["first"]
    return {"design": d, "counts": counts, "per_token": size(re.search(r"KV cache ([\d.]+ \w+) a token", said).group(1)), "pictures": first.pictures,
            "places": first.picture_rows if d.places is None else d.places, "rows": 1 if d.question_apart else first.rows,
            "encode": median("encode_ms"), "prefill": median("prefill_ms"), "decode": median("decode_ms"), "kept": median("kept"),
            "again": again(d, runs, "again"), "other": again(d, runs, "other"), "turn": again(d, runs, "turn")}


def again(d, runs, name):
    """What a request did that shows a picture once more, in words."""
    a = runs[-1].get(name)
    if a is None:
        return "—"
    if a.refused:
        return "refused: one turn"
    rows = "1 row" if d.question_apart else f"{a.rows - a.cached} of {a.rows} rows"
    ms = times(statistics.median(run[name].first_ms for run in runs))
    return f"{'encode' if a.pictures else 'no encode'}, {rows}; {ms}"


def scene(server, d, rng):
    picture = [] if d.name == "text" else [image_part(png(SIDE, SIDE, rng))]
    question, other = d.asked

    def ask(question, *rest):
        return Answer(server, [{"role": "user", "content": [*picture, text_part(question)]}, *rest])
    out = {"first": ask(question)}
    if out["first"].refused:
        raise SystemExit(f"{d.name}: {out['first'].refused}")
    if picture:
        out["again"], out["other"] = ask(question), ask(other)
        out["turn"] = ask(question, {"role": "assistant", "content": "A red box."}, {"role": "user", "content": [text_part(other)]})
    return out


def size(text):
    n, unit = text.split()
    return float(n) * 1024 ** ("B", "KiB", "MiB", "GiB").index(unit)


def shown(n):
    return f"{n / 2**20:.1f} MiB" if n >= 2**20 else f"{n / 1024:.0f} KiB"


def millions(n):
    return f"{n / 1e6:.0f} M" if n >= 1e7 else f"{n / 1e6:.1f} M" if n else "—"


def times(ms):
    return f"{ms / 1e3:.2f} s" if ms >= 1000 else f"{ms:.0f} ms" if ms >= 20 else f"{ms:.1f} ms"


def table(head, rows):
    return "\n".join(["| " + " | ".join(head) + " |", "|" + "---|" * len(head), *("| " + " | ".join(r) + " |" for r in rows)]) + "\n"


def tables(results):
    space, time_of, reuse = [], [], []
    for r in results:
        d = r["design"]
        kept = "—" if not r["pictures"] else shown(r["kept"]) + (" of rows" if d.places is None else " of keys and values")
        kv = shown(r["places"] * r["per_token"]) if r["places"] else "—"
        space.append([d.title, str(r["places"]) if r["pictures"] else "—", *map(millions, r["counts"]), shown(r["per_token"]), kv, kept, d.at])
        time_of.append([d.title, times(r["encode"]) if r["pictures"] else "—", str(r["rows"]), times(r["prefill"]), times(r["decode"])])
        if r["pictures"]:
            reuse.append([d.title, r["again"], r["other"], r["turn"]])
    return "\n".join(["What it takes:\n", table(["design", "picture's tokens in the context", "tower", "join", "decoder", "KV of one token",
                                                "KV of the picture's tokens", "kept of the picture", "where"], space),
                      "How long it takes:\n", table(["design", "encode", "rows of the prompt", "prefill", "one token of the answer"], time_of),
                      "What is computed when the picture comes again, and the time until the first token:\n",
                      table(["design", "the same request", "another question", "a second turn"], reuse)])


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--repeats", type=int, default=5)
    p.add_argument("--layers", type=int, default=12)
    p.add_argument("--only", default="")
    p.add_argument("--write", action="store_true")
    a = p.parse_args()
    load = os.getloadavg()[0]
    only = [x for x in a.only.split(",") if x]
    results = []
    for d in DESIGNS:
        if only and d.name not in only:
            continue
        begin = time.time()
        results.append(measure(d, a.layers, a.repeats))
        print(f"{d.name}: {time.time() - begin:.0f} s", file=sys.stderr)
    text = f"{folder.machine(load)}; {a.repeats} rounds, medians.\n\n" + tables(results)
    print(text)
    if a.write and not only and a.layers == 12:
        folder.rewrite(folder.ROOT / "docs" / "fusion.md", "bench-fusion", text)


if __name__ == "__main__":
    main()
