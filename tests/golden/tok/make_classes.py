#!/usr/bin/env python3
"""What the reference's tokenizer classes make of the tokenizer.json files beside this script, which they take apart and
build anew (needs: pip install transformers):
    python3 tests/golden/tok/make_classes.py
classes.json: [{tok, config, tokenizer_config, texts: [[text, ids]], decodes: [[ids, text]]}]: AutoTokenizer on a folder
with NAME.tok.json as its tokenizer.json."""
import json
import os
import shutil
import tempfile

import make_golden as g
from transformers import AutoTokenizer

CASES = [
    ("clip", {"model_type": "clip"}, {"tokenizer_class": "CLIPTokenizer"}),
    ("clip", {"model_type": "clip"}, {}),
    ("bert", {"model_type": "blip"}, {"tokenizer_class": "BertTokenizer"}),
    ("bert", {"model_type": "blip"}, {"tokenizer_class": "PreTrainedTokenizerFast"}),
    ("bertcased", {"model_type": "blip"}, {"tokenizer_class": "PreTrainedTokenizerFast"}),
    ("bert", {"model_type": "bert"}, {"tokenizer_class": "BertTokenizer", "do_lower_case": False, "tokenize_chinese_chars": False,
                                      "cls_token": "[ENC]", "unk_token": {"content": "[MASK]", "lstrip": False, "rstrip": False,
                                                                          "normalized": False, "single_word": False, "__type": "AddedToken"}}),
    ("bert", {"model_type": "instructblip"}, {"tokenizer_class": "BertTokenizer", "strip_accents": False}),
    ("roberta", {"model_type": "blip-2"}, {"tokenizer_class": "GPT2Tokenizer"}),
    ("qwen", {"model_type": "opt"}, {"tokenizer_class": "GPT2Tokenizer", "add_prefix_space": True}),
    ("smollm", {"model_type": "idefics3"}, {"tokenizer_class": "GPT2Tokenizer"}),
    ("smollm", {"model_type": "smolvlm"}, {"tokenizer_class": "GPT2Tokenizer"}),
    ("llama3", {"model_type": "internvl"}, {"tokenizer_class": "Qwen2Tokenizer"}),
    ("llama3", {"model_type": "qwen2"}, {"tokenizer_class": "PreTrainedTokenizerFast"}),
    ("llama3", {"model_type": "qwen3_vl"}, {"tokenizer_class": "PreTrainedTokenizerFast"}),
    ("llama3", {"model_type": "llama"}, {"tokenizer_class": "LlamaTokenizer"}),
    ("llama2", {"model_type": "idefics2"}, {"tokenizer_class": "LlamaTokenizer"}),
    ("llama2", {"model_type": "instructblip"}, {"tokenizer_class": "LlamaTokenizer", "legacy": True}),
    ("llama2", {"model_type": "llava"}, {"tokenizer_class": "LlamaTokenizer"}),
    ("llama2", {"model_type": "llama"}, {"tokenizer_class": "LlamaTokenizerFast", "add_prefix_space": False}),
    ("llama2", {"model_type": "llama"}, {"tokenizer_class": "CodeLlamaTokenizer", "legacy": True}),
    ("llama2", {"model_type": "idefics2"}, {"tokenizer_class": "CodeLlamaTokenizerFast", "add_prefix_space": False}),
    ("phi3", {"model_type": "llama"}, {"tokenizer_class": "CodeLlamaTokenizer", "add_bos_token": False}),
    ("metaspace", {"model_type": "paligemma"}, {"tokenizer_class": "GemmaTokenizer"}),
    ("gemma", {"model_type": "gemma3"}, {"tokenizer_class": "GemmaTokenizerFast"}),
    ("gemma", {"model_type": "siglip2"}, {"tokenizer_class": "GemmaTokenizer"}),
    ("metaspace", {"model_type": "siglip2"}, {"tokenizer_class": "GemmaTokenizer"}),
    ("siglip", {"model_type": "siglip"}, {"tokenizer_class": "PreTrainedTokenizerFast"}),
    ("siglip", {"model_type": "siglip"}, {"tokenizer_class": "T5Tokenizer", "extra_ids": 0, "pad_token": "</s>"}),
    ("t5", {"model_type": "t5"}, {"tokenizer_class": "T5Tokenizer", "extra_ids": 0}),
]


def main():
    here = os.path.dirname(os.path.abspath(__file__))
    texts = [s for s in g.ODD if "<" not in s and s.isprintable()][:30] + g.SENTENCES[:12] + ["HELLO Straße", "éÉ e\u0301"]
    special = "a<|endoftext|>b"  # where the file has that token: a class adds what is missing behind the embedding's rows
    out = []
    for tok, config, tc in CASES:
        with tempfile.TemporaryDirectory() as folder:
            shutil.copy(os.path.join(here, tok + ".tok.json"), os.path.join(folder, "tokenizer.json"))
            for name, j in (("config.json", config), ("tokenizer_config.json", tc)):
                with open(os.path.join(folder, name), "w") as f:
                    json.dump(j, f)
            t = AutoTokenizer.from_pretrained(folder)
        with open(os.path.join(here, tok + ".tok.json")) as f:
            mine = texts + [special] * ("<|endoftext|>" in f.read())
        ids = [t(s).input_ids for s in mine]
        out.append({"tok": tok, "config": config, "tokenizer_config": tc, "texts": [[s, i] for s, i in zip(mine, ids)],
                    "decodes": [[i, t.decode(i, skip_special_tokens=True)] for i in ids[::3]]})
        print(tok, config, type(t).__name__)
    with open(os.path.join(here, "classes.json"), "w") as f:
        json.dump(out, f, separators=(",", ":"))
        f.write("\n")


main()
