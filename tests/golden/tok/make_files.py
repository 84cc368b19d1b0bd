#!/usr/bin/env python3
"""What the reference makes of tokenizers whose tokens stand in several files, or that come without tokenizer.json (needs
transformers 5.23.0):
    python3 tests/golden/tok/make_files.py
files.json: [{tok, from, config, files, texts: [[text, ids, text without special tokens]]}]: AutoTokenizer on a folder with NAME.tok.json as its tokenizer.json
(from "json"), or its vocabulary as vocab.json and merges.txt ("merges") or vocab.txt ("words"), and files beside it."""
import json
import os
import pathlib
import tempfile

os.environ.setdefault("HF_HUB_OFFLINE", "1")
from transformers import AutoTokenizer  # noqa: E402

HERE = pathlib.Path(__file__).resolve().parent
CONFIG, MAP, ADDED = "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"


def token(text, **more):
    return {"content": text, "lstrip": False, "rstrip": False, "normalized": False, "single_word": False, "special": True, **more}


# name, where its vocabulary is, model_type, files beside it, texts
CASES = [
    ("gpt2", "merges", "opt", {CONFIG: {"tokenizer_class": "GPT2Tokenizer", "add_bos_token": True, "bos_token": {"__type": "AddedToken", **token("</s>")},
                                        "eos_token": {"__type": "AddedToken", **token("</s>")}, "pad_token": "<pad>", "unk_token": "</s>"},
                               MAP: {"bos_token": token("</s>", normalized=True), "pad_token": "<pad>"}}, ["</s>", "<pad>"]),
    ("gpt2", "merges", "opt", {CONFIG: {"add_bos_token": True, "add_eos_token": True, "add_prefix_space": True}}, []),
    ("roberta", "merges", "blip-2", {ADDED: {"<s>": 700, "</s>": 701, "<pad>": 702, "<mask>": 703}}, ["<s>", "<mask>"]),
    ("qwen", "merges", "qwen2_vl", {CONFIG: {"tokenizer_class": "Qwen2Tokenizer", "add_bos_token": False, "eos_token": "<|im_end|>",
                                             "bos_token": None, "errors": "replace",
                                             "additional_special_tokens": ["<|im_start|>", "<|im_end|>", "<|box|>"]},
                                    ADDED: {"<|endoftext|>": 700, "<|im_start|>": 701, "<|im_end|>": 702}},
     ["<|im_start|>", "<|im_end|>", "<|box|>"]),
    ("clip", "merges", "clip", {CONFIG: {"tokenizer_class": "CLIPTokenizer", "model_max_length": 77},
                                MAP: {"bos_token": token("<|startoftext|>", normalized=True), "unk_token": "<|endoftext|>",
                                      "eos_token": token("<|endoftext|>", normalized=True)}}, ["<|endoftext|>"]),
    ("bert", "words", "blip", {CONFIG: {"do_lower_case": True}}, ["[SEP]", "[UNK]"]),
    ("bertcased", "words", "blip", {CONFIG: {"do_lower_case": False, "tokenizer_class": "BertTokenizer"},
                                    ADDED: {"[DEC]": 1000}}, ["[SEP]", "[DEC]"]),
    ("llama2", "json", "llava", {CONFIG: {"tokenizer_class": "LlamaTokenizer", "image_token": "<image>", "pad_token": "<pad>"},
                                 ADDED: {"<pad>": 900, "<image>": 901}}, ["<image>", "<pad>", "</s>"]),
    ("llama2", "json", "llama", {CONFIG: {"tokenizer_class": "LlamaTokenizerFast", "added_tokens_decoder": {
        "0": token("<unk>"), "1": token("<s>"), "2": token("</s>", rstrip=True), "2000": token("<b>", special=False),
        "999": token("<a>", lstrip=True)}}}, ["<a>", "<b>", "</s>", "<s>"]),
    ("mistral", "json", "mistral", {CONFIG: {"added_tokens_decoder": {"2": token("</s>", lstrip=True, rstrip=True)},
                                             "extra_special_tokens": {"image_token": "[IMG]"}}}, ["</s>", "[IMG]", "<s>"]),
    ("mistral", "json", "llava_onevision", {CONFIG: {"extra_special_tokens": {"video_token": "<video>"}, "eos_token": "</s>"},
                                            ADDED: {"<video>": 875, "<plain>": 876}}, ["<video>", "<plain>"]),
    ("gemma", "json", "gemma3", {CONFIG: {"tokenizer_class": "GemmaTokenizer", "extra_special_tokens": ["<start_of_image>"],
                                          "boi_token": "<boi>"}}, ["<start_of_image>", "<boi>", "<mask>"]),
    ("qwen", "json", "qwen3", {CONFIG: {"eos_token": "<|im_end|>", "added_tokens_decoder": {
        "700": token("<|endoftext|>"), "701": token("<|im_start|>", lstrip=True, special=False),
        "702": token("<|im_end|>", rstrip=True)}}}, ["<|im_start|>", "<|im_end|>", "<|vision_start|>"]),
    ("smollm", "json", "smolvlm", {MAP: {"bos_token": token("<|im_start|>", rstrip=True), "pad_token": "<|pad|>"}},
     ["<|im_start|>", "<|pad|>"]),
]


def write(folder, tok, source, kind, files):
    model = json.loads((HERE / (tok + ".tok.json")).read_text())
    vocab = model["model"]["vocab"]
    if source == "json":
        (folder / "tokenizer.json").write_text(json.dumps(model))
    elif source == "words":
        (folder / "vocab.txt").write_text("".join(w + "\n" for w in sorted(vocab, key=vocab.get)))
    else:
        pairs = [m if isinstance(m, str) else " ".join(m) for m in model["model"]["merges"]]
        (folder / "vocab.json").write_text(json.dumps(vocab))
        (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(pairs) + "\n")
    for name, j in {"config.json": {"model_type": kind}, **files}.items():
        (folder / name).write_text(json.dumps(j))


def main():
    out = []
    for tok, source, kind, files, tokens in CASES:
        with tempfile.TemporaryDirectory() as name:
            folder = pathlib.Path(name)
            write(folder, tok, source, kind, files)
            t = AutoTokenizer.from_pretrained(folder)
            texts = ["Hello world", "  two  spaces ", "", "don't 12345\n\n x", "\u00e9\u00c9 \u6f22\u5b57"]
            texts += [x for s in tokens for x in (f"a{s}b", f"a {s} b", f"{s}{s} x")]
            out.append({"tok": tok, "from": source, "config": {"model_type": kind}, "files": files,
                        "texts": [[x, t(x).input_ids, t.decode(t(x).input_ids, skip_special_tokens=True)] for x in texts]})
    (HERE / "files.json").write_text("[\n" + ",\n".join(json.dumps(x) for x in out) + "\n]\n")


if __name__ == "__main__":
    main()
