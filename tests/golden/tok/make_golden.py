#!/usr/bin/env python3
"""Writes small tokenizers with the pipelines that published models use, and what the tokenizers library makes of
texts and ids with them (needs: pip install tokenizers).
    python3 tests/golden/tok/make_golden.py [FOLDER]      default: the folder of this script
Each NAME.tok.json is a tokenizer.json; NAME.cases.json holds {"texts": [{text, ids, plain, user}], "decodes":
[{ids, text, skip}]}: ids with special tokens added, plain without, user with every special token left unmatched."""
import json
import os
import random
import sys

from tokenizers import AddedToken, Regex, Tokenizer, decoders as D, models as M, normalizers as N
from tokenizers import pre_tokenizers as P, processors as X, trainers as T

out = sys.argv[1] if len(sys.argv) > 1 else os.path.dirname(os.path.abspath(__file__))
rng = random.Random(7)

SENTENCES = """The quick brown fox jumps over the lazy dog, and the dog doesn't mind; it's only a Tuesday.
What's in the picture? There are three red apples, two cups and a 12.5 cm ruler on the table.
She said: "I'll come at 10:30, if you're ready!" They've gone, we'd stay, he'll see.
def area(width, height):\n    return width * height  # square metres\n\nfor i in range(100):\n\tprint(i, i ** 2)
Der schnelle braune Fuchs springt über den faulen Hund; größer, süßer, Straße.
Le garçon a mangé des crêpes à Noël, où l'œuf était cuit.
El niño pequeño comió una piña y mañana irá al cañón.
Быстрая коричневая лиса прыгает через ленивую собаку.
Η γρήγορη καφέ αλεπού πηδάει πάνω από το τεμπέλικο σκυλί.
敏捷的棕色狐狸跳过懒狗。今天天气很好，我们去公园吧！
いろはにほへと ちりぬるを。カタカナとひらがなと漢字。
다람쥐 헌 쳇바퀴에 타고파. 안녕하세요 세계.
نص عربي قصير للتجربة مع أرقام ١٢٣٤.
हिन्दी में एक छोटा सा वाक्य, क्या हाल है?
ภาษาไทยไม่มีการเว้นวรรคระหว่างคำ
emoji: 😀 😃 👨‍👩‍👧 🇩🇪 👍🏽 ❤️ and signs: ± × ÷ ≤ € £ ™ ½ ¾ ² ³
https://example.org/path?query=1&b=%20#top user@example.com 192.168.0.1 v1.2.3-rc4""".split("\n")
ALICE = [" ".join(rng.choice(SENTENCES).split()[: rng.randrange(3, 20)]) for _ in range(300)] + SENTENCES * 3

ODD = ["", " ", "  ", "   ", "\n", "\n\n", "\r\n", "\t", " \n ", "a", " a", "a ", "  a  ", "\u3000", "\u00a0x", "\u200b",
       "Hello world", " Hello  world   !", "HELLO World", "don't DON'T we'LL I'M 'S ' s", "12345 3.14 1,000,000 ١٢٣ ²½",
       "\ufeffBOM", "nul\x00inside", "\x01\x02\x1f\x7f\x85", "e\u0301 n\u0303 o\u0308\u0323 \u1e69 s\u0323\u0307",
       "\u0301first", "\u1112\u1161\u11ab\uac00\u11a8", "\ufb01\u01c4\u017f\u212a\u00df\u1e9e\u0130\u03a3",
       "\U0001f468\u200d\U0001f469\u200d\U0001f467 \U0001f1e9\U0001f1ea \u2764\ufe0f \U0001f44d\U0001f3fd",
       "\u2581\u2581a\u2581 b", "\u6f22\u5b57\u4eee\u540d\u4ea4\u3058\u308a", "x" * 70, " " * 40 + "x", "\n" * 9 + " y",
       "a\u2028b\u2029c\x0bd\x0ce", "\U0010fffd\ue000\U000f0000", "\u08d3\u0d3b\u1ac1 \U00016fe4", "\ufffd\ufffe\uffff",
       "<s>", "</s> x", "<unk>", "<|endoftext|>", "<0x41><0x0A>", "\U00011938 \U00011935\U00011930", "\u0344\u0958\u2adc",
       "\ua7cb\ua7da\U00010d50\U00010d70 \u1c89", "\u0660\u0967\u2460\u3220\u5341 \u2167", "__init__ snake_case-kebab"]


def rand_text(specials):
    parts = []
    for _ in range(rng.choice([1, 2, 4, 8, 15])):
        k = rng.random()
        if k < 0.25:
            parts.append(rng.choice(rng.choice(SENTENCES).split() or ["x"]))
        elif k < 0.45:
            parts.append(rng.choice([" ", "  ", "\n", "\n\n", "\t", "\u00a0", "\u3000", "\r\n", "   "]))
        elif k < 0.60 and specials:
            parts.append(rng.choice(specials))
        elif k < 0.66 and specials:
            s = rng.choice(specials)
            parts.append(s[: rng.randrange(len(s) + 1)])
        elif k < 0.80:
            c = rng.randrange(0x110000)
            parts.append(chr(c) if not 0xD800 <= c < 0xE000 else "?")
        elif k < 0.90:
            parts.append(chr(rng.randrange(0x2500)))
        else:
            parts.append(rng.choice(["a", " ", "\u2581", "0", "\u0301", "!"]) * rng.randrange(1, 30))
        if rng.random() < 0.4:
            parts.append(" ")
    return "".join(parts)


BYTES = ["<0x%02X>" % b for b in range(256)]


def byte_level(size, **model):
    """A trained byte-level vocabulary of that many tokens."""
    t = Tokenizer(M.BPE(**model))
    t.pre_tokenizer = P.ByteLevel(add_prefix_space=False)
    t.train_from_iterator(ALICE, T.BpeTrainer(vocab_size=size, initial_alphabet=P.ByteLevel.alphabet(), show_progress=False))
    return t


def sentencepiece(size, specials, normalizer=True, **model):
    """A SentencePiece-like vocabulary: <unk> <s> </s>, bytes, then trained pieces over U+2581."""
    t = Tokenizer(M.BPE(unk_token="<unk>", byte_fallback=True, **model))
    t.normalizer = N.Sequence([N.Prepend("\u2581"), N.Replace(" ", "\u2581")])
    t.pre_tokenizer = P.Split("\u2581", "merged_with_next")
    t.train_from_iterator(ALICE, T.BpeTrainer(vocab_size=size, special_tokens=specials + BYTES, limit_alphabet=120,
                                              show_progress=False))
    j = json.loads(t.to_str())
    # pieces of several spaces, as SentencePiece has them
    v, m = j["model"]["vocab"], j["model"]["merges"]
    for n in (2, 3, 4):
        if "\u2581" * n not in v:
            v["\u2581" * n] = len(v)
    for a, b in ((1, 1), (2, 1), (1, 2), (2, 2)):
        m.append(["\u2581" * a, "\u2581" * b])
    j["added_tokens"] = []
    j["normalizer"] = j["pre_tokenizer"] = None
    return Tokenizer.from_str(json.dumps(j))


LLAMA3 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|"
          r"\s+(?!\S)|\s+")
QWEN = LLAMA3.replace("{1,3}", "")
O200K = "|".join([
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
    r"\p{N}{1,3}", r" ?[^\s\p{L}\p{N}]+[\r\n/]*", r"\s*[\r\n]+", r"\s+(?!\S)", r"\s+"])


def special(*names, **kw):
    return [AddedToken(n, special=True, normalized=False, **kw) for n in names]


def llama_decoder(strip=True):
    return D.Sequence([D.Replace("\u2581", " "), D.ByteFallback(), D.Fuse()] + ([D.Strip(" ", 1, 0)] if strip else []))


def bos(t, name="<s>", more=""):
    i = t.token_to_id(name)
    return X.TemplateProcessing(single=name + " $A" + more, pair=name + " $A $B", special_tokens=[(name, i)] +
                                ([(more.strip(), t.token_to_id(more.strip()))] if more else []))


def build():
    base = byte_level(700)
    copy = lambda: Tokenizer.from_str(base.to_str())

    t = copy()
    t.add_special_tokens(special("<|endoftext|>"))
    t.post_processor, t.decoder = X.ByteLevel(trim_offsets=True), D.ByteLevel()
    yield "gpt2", t

    t = copy()
    t.add_special_tokens(special("<s>", "</s>", "<pad>"))
    t.add_special_tokens([AddedToken("<mask>", lstrip=True, normalized=False)])
    t.pre_tokenizer = P.ByteLevel(add_prefix_space=True)
    t.post_processor = X.RobertaProcessing(("</s>", t.token_to_id("</s>")), ("<s>", t.token_to_id("<s>")))
    t.decoder = D.ByteLevel()
    yield "roberta", t

    j = json.loads(base.to_str())
    j["model"]["ignore_merges"] = True
    # words that no merge makes, which ignore_merges takes whole
    for w in ("\u0120Hello", "world", "\u0120\u0120\u0120\u0120\u0120", "12"):
        j["model"]["vocab"].setdefault(w, len(j["model"]["vocab"]))
    t = Tokenizer.from_str(json.dumps(j))
    t.add_special_tokens(special("<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"))
    t.pre_tokenizer = P.Sequence([P.Split(Regex(LLAMA3), "isolated"), P.ByteLevel(False, use_regex=False)])
    t.post_processor = X.Sequence([X.ByteLevel(trim_offsets=False), bos(t, "<|begin_of_text|>")])
    t.decoder = D.ByteLevel()
    yield "llama3", t

    t = copy()
    t.add_special_tokens(special("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|image_pad|>"))
    t.add_tokens([AddedToken(x, special=False, normalized=False) for x in ("<think>", "</think>", "<tool_call>", "</tool_call>")])
    t.normalizer = N.NFC()
    t.pre_tokenizer = P.Sequence([P.Split(Regex(QWEN), "isolated"), P.ByteLevel(False, use_regex=False)])
    t.post_processor, t.decoder = X.ByteLevel(trim_offsets=False), D.ByteLevel()
    yield "qwen", t

    t = copy()
    t.add_special_tokens(special("<|endoftext|>", "<|start|>"))
    t.pre_tokenizer = P.Sequence([P.Split(Regex(O200K), "removed", invert=True), P.ByteLevel(False, use_regex=False)])
    t.decoder = D.ByteLevel()
    yield "o200k", t

    t = copy()
    t.add_special_tokens(special("<bos>", "<eos>"))
    t.add_tokens([AddedToken("  ", normalized=False), AddedToken("    ", normalized=False), AddedToken("<x>", rstrip=True)])
    t.pre_tokenizer = P.Sequence([
        P.Split(Regex(r"\p{N}{1,3}"), "isolated"), P.Split(Regex("[\u4e00-\u9fa5\u3040-\u309f\u30a0-\u30ff]+"), "isolated"),
        P.Split(Regex(r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+"
                      r"[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"), "isolated"), P.ByteLevel(False, use_regex=False)])
    t.post_processor, t.decoder = bos(t, "<bos>", " <eos>"), D.ByteLevel()
    yield "deepseek", t

    t = copy()
    t.add_special_tokens(special("<|im_start|>", "<fake_token_around_image>", "<image>"))
    t.pre_tokenizer = P.Sequence([P.Digits(individual_digits=True), P.ByteLevel(False, use_regex=True)])
    t.decoder = D.ByteLevel()
    yield "smollm", t

    # CLIP: lower case, words end in </w>
    t = Tokenizer(M.BPE(unk_token="<|endoftext|>", continuing_subword_prefix="", end_of_word_suffix="</w>"))
    t.normalizer = N.Sequence([N.NFC(), N.Replace(Regex(r"\s+"), " "), N.Lowercase()])
    t.pre_tokenizer = P.Sequence([P.Split(Regex(r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"), "removed", invert=True),
                                  P.ByteLevel(False)])
    t.train_from_iterator(ALICE, T.BpeTrainer(vocab_size=900, special_tokens=["<|startoftext|>", "<|endoftext|>"],
                                              initial_alphabet=P.ByteLevel.alphabet(), end_of_word_suffix="</w>", show_progress=False))
    j = json.loads(t.to_str())
    for c in P.ByteLevel.alphabet():
        j["model"]["vocab"].setdefault(c + "</w>", len(j["model"]["vocab"]))
    j["model"]["merges"] = [" ".join(m) for m in j["model"]["merges"]]  # the old form
    for k in ("<|startoftext|>", "<|endoftext|>"):
        [a for a in j["added_tokens"] if a["content"] == k][0]["normalized"] = k == "<|startoftext|>"
    t = Tokenizer.from_str(json.dumps(j))
    t.post_processor = X.RobertaProcessing(("<|endoftext|>", 1), ("<|startoftext|>", 0), False, False)
    t.decoder = D.ByteLevel()
    yield "clip", (t, j["model"]["merges"])

    sp = sentencepiece(900, ["<unk>", "<s>", "</s>"], fuse_unk=True)
    copy_sp = lambda: Tokenizer.from_str(sp.to_str())
    t = copy_sp()
    t.normalizer = N.Sequence([N.Prepend("\u2581"), N.Replace(" ", "\u2581")])
    t.add_special_tokens(special("<unk>", "<s>", "</s>"))
    t.add_tokens([AddedToken("<image>", normalized=False), AddedToken("added word", normalized=True)])
    t.post_processor, t.decoder = bos(t), llama_decoder()
    yield "llama2", t

    t = copy_sp()
    t.pre_tokenizer = P.Metaspace("\u2581", "first", split=False)
    t.add_special_tokens(special("<unk>", "<s>", "</s>", "[INST]", "[/INST]", "[IMG]"))
    t.post_processor, t.decoder = bos(t), llama_decoder()
    yield "mistral", t

    t = copy_sp()
    t.pre_tokenizer = P.Metaspace("\u2581", "always", split=True)
    t.add_special_tokens([AddedToken(x, normalized=True, special=True) for x in ("<unk>", "<s>", "</s>")])
    t.post_processor, t.decoder = bos(t, more=" </s>"), D.Metaspace("\u2581", "always")
    yield "metaspace", t

    t = copy_sp()
    t.normalizer = N.Replace(" ", "\u2581")
    t.pre_tokenizer = P.Split(" ", "merged_with_previous")
    t.add_special_tokens(special("<unk>", "<s>", "</s>", "<start_of_turn>", "<end_of_turn>", "<start_of_image>"))
    t.add_tokens([AddedToken(x, normalized=False) for x in ("\n", "\n\n", "\n\n\n", "\u2581\u2581", "<unused0>", "<table>")])
    t.post_processor, t.decoder = bos(t), llama_decoder(strip=False)
    yield "gemma", t

    t = copy_sp()
    t.normalizer = N.Sequence([N.Prepend("\u2581"), N.Replace(" ", "\u2581")])
    t.add_special_tokens(special("<unk>", "<s>") + [AddedToken("</s>", rstrip=True, normalized=False)] + special("<|endoftext|>") +
                         [AddedToken(x, rstrip=True, normalized=False) for x in ("<|user|>", "<|assistant|>", "<|end|>")])
    t.decoder = llama_decoder()
    yield "phi3", t

    # No model has all of these at once: the corners of the parts.
    j = json.loads(sp.to_str())
    j["model"]["fuse_unk"] = False
    for b in BYTES[128:192]:
        i = j["model"]["vocab"].pop(b)
        j["model"]["vocab"]["gone%d" % i] = i
    t = Tokenizer.from_str(json.dumps(j))
    t.normalizer = N.Sequence([N.NFKD(), N.StripAccents(), N.Strip(True, False), N.Nmt(), N.Replace(Regex(r"(?i)[aeiou]{3,}"), "~"),
                               N.Replace("...", "\u2026")])
    t.pre_tokenizer = P.Sequence([P.Punctuation("merged_with_next"), P.Metaspace("\u2581", "first", split=True)])
    t.add_special_tokens([AddedToken("<s>", normalized=True), AddedToken("[A]", lstrip=True, rstrip=True, normalized=False)])
    t.add_tokens([AddedToken("word", single_word=True), AddedToken("\u00c9t\u00e9", normalized=True),
                  AddedToken("fox", single_word=True, lstrip=True, rstrip=True, normalized=False), AddedToken("ab"), AddedToken("abc")])
    t.decoder = D.Sequence([D.ByteFallback(), D.Metaspace("\u2581", "never"), D.Strip("!", 2, 0), D.Replace(Regex("x+"), "X"), D.Fuse(),
                            D.Replace("  ", " "), D.Strip(" ", 1, 0)])
    yield "corners", t

    t = Tokenizer(M.BPE(unk_token="[UNK]", continuing_subword_prefix="##", fuse_unk=True))
    t.normalizer = N.BertNormalizer()
    t.pre_tokenizer = P.BertPreTokenizer()
    t.train_from_iterator(ALICE, T.BpeTrainer(vocab_size=600, special_tokens=["[UNK]", "[CLS]", "[SEP]"], limit_alphabet=80,
                                              continuing_subword_prefix="##", show_progress=False))
    t.add_special_tokens(special("[UNK]", "[CLS]", "[SEP]"))
    t.post_processor = X.BertProcessing(("[SEP]", 2), ("[CLS]", 1))
    t.decoder = D.WordPiece("##", True)
    yield "bertbpe", t

    t = Tokenizer(M.BPE(unk_token="?", end_of_word_suffix="</w>"))
    t.normalizer = N.Sequence([N.NFKC(), N.Lowercase()])
    t.pre_tokenizer = P.Sequence([P.WhitespaceSplit(), P.Whitespace(), P.Punctuation("contiguous"), P.Digits(False)])
    t.train_from_iterator(ALICE, T.BpeTrainer(vocab_size=500, special_tokens=["?"], end_of_word_suffix="</w>", show_progress=False))
    t.add_tokens([AddedToken("Stra\u00dfe", single_word=True)])
    t.decoder = D.BPEDecoder("</w>")
    yield "oldbpe", t

    t = copy()
    t.normalizer = N.Sequence([N.NFD(), N.ByteLevel()])
    t.pre_tokenizer = P.Split(Regex("\u0120+|\u010a"), "merged_with_previous")
    t.add_tokens([AddedToken("caf\u00e9", normalized=True), AddedToken("raw\u00e9", normalized=False)])
    yield "bytenorm", t


def unmatched(text):
    """The tokenizer for a user's text: no special token of the model's vocabulary is the text that it looks like."""
    j = json.loads(text)
    model, gone = j["model"], {a["content"]: "\uffff" + a["content"] for a in j["added_tokens"] if a["special"]}
    if isinstance(model["vocab"], list):
        model["vocab"] = [[gone.get(s, s), p] for s, p in model["vocab"]]
    elif "merges" not in model:
        model["vocab"] = {gone.get(s, s): i for s, i in model["vocab"].items()}
        model["unk_token"] = gone.get(model["unk_token"], model["unk_token"])
    else:
        return Tokenizer.from_str(text)
    j["added_tokens"] = [a for a in j["added_tokens"] if not a["special"]]
    j["post_processor"] = None
    return Tokenizer.from_str(json.dumps(j))


def write(name, t, merges=None):
    """NAME.tok.json and NAME.cases.json of a tokenizer."""
    j = json.loads(t.to_str())
    if merges:
        j["model"]["merges"] = merges
    write_file(name, json.dumps(j, ensure_ascii=False, separators=(",", ":")))


def write_file(name, text, cuts=()):
    """The same of a tokenizer.json. cuts: numbers of ids to truncate to; the cases then have {"cuts": [{text, n, ids}]}."""
    with open(os.path.join(out, name + ".tok.json"), "w") as f:
        f.write(text + "\n")
    t = Tokenizer.from_str(text)
    u = unmatched(text)
    for x in (t, u):
        x.no_truncation()
        x.no_padding()
    u.encode_special_tokens = True
    names = [x.content for x in t.get_added_tokens_decoder().values()]
    texts = ODD + SENTENCES + [rand_text(names) for _ in range(60)]
    size = t.get_vocab_size()
    cases, decodes = [], []
    for s in texts:
        ids = t.encode(s).ids
        cases.append({"text": s, "ids": ids, "plain": t.encode(s, add_special_tokens=False).ids,
                      "user": u.encode(s, add_special_tokens=False).ids})
    lists = [c["ids"] for c in cases[:: 2]] + [[rng.randrange(size + 2) for _ in range(rng.randrange(12))] for _ in range(30)]
    byte_ids = [t.token_to_id(b) for b in BYTES if t.token_to_id(b) is not None]
    for _ in range(20 if byte_ids else 0):
        raw = rng.choice(SENTENCES)[:5].encode()
        lists.append([t.token_to_id("<0x%02X>" % b) or 0 for b in raw] + [rng.choice(byte_ids) for _ in range(rng.randrange(3))] +
                     [rng.randrange(size)])
    for ids in lists:
        decodes.append({"ids": ids, "text": t.decode(ids, skip_special_tokens=False), "skip": t.decode(ids)})
    cases = {"texts": cases, "decodes": decodes}
    for n in cuts:
        t.enable_truncation(n)
        cases.setdefault("cuts", []).extend({"text": s, "n": n, "ids": t.encode(s).ids} for s in ["", "a"] + SENTENCES[:5])
    with open(os.path.join(out, name + ".cases.json"), "w") as f:
        json.dump(cases, f, separators=(",", ":"))
        f.write("\n")
    print(name, size)


if __name__ == "__main__":
    for name, t in build():
        write(name, *(t if isinstance(t, tuple) else (t,)))
