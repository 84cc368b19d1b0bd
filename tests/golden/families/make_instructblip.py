#!/usr/bin/env python3
"""InstructBLIP: small random-weight checkpoints and what the reference library says to them; see common.py.

    python tests/golden/families/make_instructblip.py [name ...]

The reference has no chat template: what vlmd renders where a checkpoint brings none (engine/families/instructblip.c) is
rendered by the library too, and goes through its processor with the picture. The processor that is asked is the one that the
library reads from the folder."""
import json
import string

import torch
import transformers

import common
import make_models as mm
from common import img, txt
from make_blip2 import Asked, TEXT
from transformers import (BertTokenizer, InstructBlipConfig, InstructBlipForConditionalGeneration, InstructBlipProcessor,
                          LlamaConfig)
from transformers.models.blip.image_processing_pil_blip import BlipImageProcessorPil

TEMPLATE = ("{%- for m in messages %}{% set text %}{% if m.content is string %}{{ m.content }}{% else %}" + TEXT +
            "{% endif %}{% endset %}{% if text %}{% if not loop.first %}{{ '\n' }}{% endif %}{{ text }}{% endif %}{% endfor %}")
LONG = "Describe " + " and ".join(["the small red square on the left of the blue circle, please"] * 40)
WORDS = ("what is this the picture describe who walking there where does road lead how many times square red do you see on "
         "left look twice and answer name one thing which word fits in a few else please why dog lazy tell me more it blue "
         "jumps over quick or right then circle small of").split()


def words(vocab):
    """BERT's class of tokenizer; vocab: ids without [DEC], which stands behind them."""
    letters = string.ascii_lowercase + string.digits
    all = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters, *("##" + c for c in letters), *"?.,;:!'-", *WORDS, "##ing", "##s"]
    tok = BertTokenizer(vocab={w: i for i, w in enumerate(list(dict.fromkeys(all))[:vocab])}, truncation_side="left")
    tok.add_special_tokens({"bos_token": "[DEC]"})
    return tok


def cases(size, longest):
    user = lambda *parts: {"role": "user", "content": list(parts)}
    return [("exact", lambda a: [user(img(f"exact{size}.png"), txt(a))]),
            ("wide", lambda a: [user(img("wide.jpg"), txt(a))]),
            ("same_picture", lambda a: [user(img("wide.jpg"), txt("Once more: " + a))]),
            ("same_picture_longer", lambda a: [user(img("wide.jpg"), txt(LONG[:60] + ". " + a))]),
            ("very_tall", lambda a: [user(img("column.png"), txt(a))]),
            ("tiny", lambda a: [user(txt(a), img("tiny.png"))]),
            ("grey_in_between", lambda a: [user(txt("Look:"), img("grey.jpg"), txt(a))]),
            ("no_words", lambda a: [user(img(PICTURES[common.ASKS.index(a) % len(PICTURES)]))]),
            ("odd_text", lambda a: [user(img("other.jpg"), txt("  \u00c9t\u00e9 \u4e2d\u6587, <b>ok\n\n" + a))]),
            ("long", lambda a: [user(img("tall.png"), txt(a + " " + LONG[:longest]))]),
            ("system", lambda a: [{"role": "system", "content": "You see a dog."}, user(img("strip.png"), txt(a))]),
            ("two_turns", lambda a: [user(img("tall.png"), txt("What is it?")), {"role": "assistant", "content": "A blue circle"},
                                     {"role": "user", "content": a}])]


PICTURES = ["other.jpg", "wide.jpg", "tall.png", "grey.jpg", "exact42.png", "exact56.png", "exact28.png", "exact96.png",
            "strip.png", "tiny.png", "column.png"]


class FromFolder:
    """The processor as the library reads it from the checkpoint's folder, once it is whole."""

    def __init__(self, proc):
        self.proc = self.whole = proc

    def __getattr__(self, name):
        return getattr(self.whole, name)

    def apply_chat_template(self, messages, **more):
        text = self.proc.apply_chat_template(messages, chat_template=TEMPLATE, tokenize=False, add_generation_prompt=True)
        pictures = [p["image"] for m in messages if not isinstance(m["content"], str) for p in m["content"] if p["type"] == "image"]
        return {k: v for k, v in self.whole(images=pictures, text=text, return_tensors="pt").items()
                if k != "qformer_attention_mask"}


def make(name, side, patch, queries, qformer, tok, qtok, seed, dtype, longest, tweak=None, ready=Asked, vision=None, embed=2.0,
         **over):
    config = InstructBlipConfig(
        vision_config=dict(hidden_size=33, intermediate_size=50, num_hidden_layers=2, num_attention_heads=3, image_size=side,
                           patch_size=patch, **(vision or {})),
        qformer_config=dict(hidden_size=30, intermediate_size=46, num_attention_heads=5, vocab_size=len(qtok), **qformer),
        text_config=LlamaConfig(**common.text(head_dim=None, num_key_value_heads=6, **over)), num_query_tokens=queries)
    ip = BlipImageProcessorPil(size={"height": side, "width": side})
    proc = InstructBlipProcessor(ip, tok, qtok, num_query_tokens=queries)
    config.image_token_index = tok.convert_tokens_to_ids("<image>")
    asked = FromFolder(proc)

    def finish(c, w, folder):
        c, w = tweak(c, w, folder) if tweak else (c, w)
        (folder / "config.json").write_text(json.dumps(c))
        asked.whole = InstructBlipProcessor.from_pretrained(folder, use_fast=False)
        asked.whole.num_query_tokens = queries
        return c, w
    save, common.save_processor = common.save_processor, lambda _, folder: save(proc, folder)
    common.make(name, InstructBlipForConditionalGeneration(config), asked, side, dtype, seed, tweak=finish, embed=embed,
                ready=ready, cases=cases(side, longest))
    common.save_processor = save


def instructblip():
    """More patches than a block of the tower's rows; cross-attention in every other layer; more of the text than a block."""
    make("instructblip", 96, 8, 7, dict(num_hidden_layers=3, hidden_act="gelu_new", layer_norm_eps=1e-5,
                                        max_position_embeddings=230),
         common.tokenizer(347, True, ["<image>"], {}), words(150), 181, torch.bfloat16, 800, vocab_size=350,
         vision=dict(qkv_bias=False))


def pieces(vocab):
    """Vicuna's as this model has it: </s> begins, ends and is unknown, [PAD] stands behind the vocabulary."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, processors, trainers
    t = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    specials = ["<unk>", "<s>", "</s>"]
    t.train_from_iterator([w for w in mm.TEXT.lower().replace(" ", " \u2581").split(" ")], trainers.BpeTrainer(
        vocab_size=vocab, show_progress=False, special_tokens=[*specials, *(f"<0x{i:02X}>" for i in range(256))]))
    j = json.loads(t.to_str())
    j["added_tokens"] = [a for a in j["added_tokens"] if a["content"] in specials]
    t = Tokenizer.from_str(json.dumps(j))
    t.post_processor = processors.TemplateProcessing(single="</s> $A", pair="</s> $A </s> $B", special_tokens=[("</s>", 2)])
    t.decoder = decoders.Sequence([decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse(),
                                   decoders.Strip(" ", 1, 0)])
    t.add_special_tokens([AddedToken("[PAD]", special=True, normalized=False)])
    return transformers.PreTrainedTokenizerFast(tokenizer_object=t, bos_token="</s>", eos_token="</s>", unk_token="</s>",
                                                pad_token="[PAD]", truncation_side="left")


def instructblip_old():
    """As first published: no word of <image> in the files, and no room for it in the table of embeddings; more queries than a
    block of rows."""
    tok, n = pieces(330), 331
    assert len(tok) == n

    def tweak(c, w, folder):
        write = lambda name, j: (folder / name).write_text(json.dumps(j, indent=1) + "\n")
        read = lambda name: json.loads((folder / name).read_text())
        del c["image_token_index"]
        c["torch_dtype"] = c["text_config"]["torch_dtype"] = c.pop("dtype")
        c.update({"tie_word_embeddings": False, "is_composition": True, "use_decoder_only_language_model": True})
        keep = {"vocab_size", "hidden_size", "intermediate_size", "model_type", "num_attention_heads", "num_hidden_layers",
                "max_position_embeddings", "rms_norm_eps", "torch_dtype"}
        c["text_config"] = {**{k: v for k, v in c["text_config"].items() if k in keep}, "architectures": ["LLaMAForCausalLM"],
                            "bos_token_id": 0, "eos_token_id": 1, "max_sequence_length": 2048, "pad_token_id": -1}
        keep = {"hidden_size", "intermediate_size", "model_type", "num_attention_heads", "num_hidden_layers", "vocab_size",
                "max_position_embeddings"}
        c["qformer_config"] = {**{k: v for k, v in c["qformer_config"].items() if k in keep}, "classifier_dropout": None,
                               "position_embedding_type": "absolute"}
        c["vision_config"].update({"dropout": 0.0, "num_channels": 3, "projection_dim": 512, "initializer_factor": 1.0})
        w["qformer.embeddings.position_ids"] = torch.arange(c["qformer_config"]["max_position_embeddings"]).view(1, -1)
        common.old_preprocessor(folder, "BlipImageProcessor")
        (folder / "processor_config.json").unlink()
        (folder / "generation_config.json").unlink()
        t = read("tokenizer.json")
        t["added_tokens"] = [a for a in t["added_tokens"] if a["content"] != "<image>"]
        write("tokenizer.json", t)
        names = {"bos_token": "</s>", "eos_token": "</s>", "pad_token": "[PAD]", "unk_token": "</s>"}
        write("special_tokens_map.json", names)
        write("tokenizer_config.json", {**names, "add_bos_token": True, "add_eos_token": False, "clean_up_tokenization_spaces": False,
                                        "model_max_length": 1000000000000000019884624838656, "padding_side": "right",
                                        "processor_class": "InstructBlipProcessor", "tokenizer_class": "LlamaTokenizer",
                                        "truncation_side": "left"})
        names = {"bos_token": "[DEC]", "cls_token": "[CLS]", "mask_token": "[MASK]", "pad_token": "[PAD]", "sep_token": "[SEP]",
                 "unk_token": "[UNK]"}
        write("qformer_tokenizer/special_tokens_map.json", names)
        del names["bos_token"]
        write("qformer_tokenizer/tokenizer_config.json", {
            **names, "clean_up_tokenization_spaces": True, "do_lower_case": True, "model_max_length": 512, "strip_accents": None,
            "processor_class": "InstructBlipProcessor", "tokenize_chinese_chars": True, "tokenizer_class": "BertTokenizer",
            "truncation_side": "left"})
        return c, w

    def ready(model):
        """The library's model looks an id up for each of the picture's rows, whose embeddings it then replaces; the published
        one has neither the id, which is its processor's next, nor a row for it."""
        model.config.image_token_index = n
        was = model.language_model.get_input_embeddings()
        more = torch.nn.Embedding(n + 1, was.embedding_dim)
        more.weight.data = torch.cat([was.weight.data, torch.zeros(1, was.embedding_dim)])
        model.language_model.set_input_embeddings(more)
        return Asked(model)
    make("instructblip_old", 42, 14, 131, dict(num_hidden_layers=2, max_position_embeddings=140), tok, words(150), 182,
         torch.float16, 578, tweak=tweak, ready=ready, vocab_size=n)


if __name__ == "__main__":
    import sys
    common.pictures()
    for n in sys.argv[1:] or ["instructblip", "instructblip_old"]:
        globals()[n]()
