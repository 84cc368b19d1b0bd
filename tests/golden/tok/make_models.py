#!/usr/bin/env python3
"""Writes small WordPiece, WordLevel and Unigram tokenizers with the pipelines of published models, in the manner of
make_golden.py (needs: pip install tokenizers sentencepiece).
    python3 tests/golden/tok/make_models.py [FOLDER]      default: the folder of this script"""
import base64
import io
import json
import random

import charsmap
import make_golden as g
import sentencepiece
from make_golden import BYTES, D, N, P, T, X, M, AddedToken, Regex, Tokenizer, special


def fields(message):
    """The fields (number, value) of a protocol buffer's message."""
    i = 0

    def varint():
        nonlocal i
        value = shift = 0
        while True:
            c = message[i]
            i += 1
            value |= (c & 127) << shift
            shift += 7
            if c < 128:
                return value
    while i < len(message):
        key = varint()
        if key & 7 == 0:
            yield key >> 3, varint()
        else:
            n = {1: 8, 5: 4}.get(key & 7) or varint()
            yield key >> 3, message[i:i + n]
            i += n


def spm(rule, **options):
    """Trains a Unigram model: its pieces with scores, and its compiled normalizer."""
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(sentence_iterator=iter(g.ALICE), model_writer=model, model_type="unigram",
                                             normalization_rule_name=rule, hard_vocab_limit=False, num_threads=1,
                                             minloglevel=2, **options)
    p = sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())
    spec = dict(fields(dict(fields(model.getvalue()))[3]))
    return [[p.id_to_piece(i), round(p.get_score(i), 6)] for i in range(p.get_piece_size())], spec.get(2, b"")


def template(*items, **ids):
    return {"type": "TemplateProcessing", "pair": [],
            "single": [{"Sequence": {"id": "A", "type_id": 0}} if i == "$A" else {"SpecialToken": {"id": i, "type_id": 0}} for i in items],
            "special_tokens": {k: {"id": k, "ids": [v], "tokens": [k]} for k, v in ids.items()}}


def precompiled(blob):
    return {"type": "Precompiled", "precompiled_charsmap": base64.b64encode(blob).decode()}


def part(x):
    """A component of the tokenizers library as JSON."""
    return json.loads(x.__getstate__())


def dump(model, added, **parts):
    j = {"version": "1.0", "truncation": None, "padding": None,
         "added_tokens": [{"id": i, "content": s, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False,
                           "special": True, **more} for i, s, more in added],
         "normalizer": None, "pre_tokenizer": None, "post_processor": None, "decoder": None, "model": model, **parts}
    return json.dumps(j, ensure_ascii=False, separators=(",", ":"))


def build():
    # BERT, BLIP, the Q-Former of InstructBLIP
    t = Tokenizer(M.WordPiece(unk_token="[UNK]"))
    t.normalizer, t.pre_tokenizer = N.BertNormalizer(), P.BertPreTokenizer()
    t.train_from_iterator(g.ALICE, T.WordPieceTrainer(vocab_size=900, special_tokens=["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"],
                                                      show_progress=False))
    t.add_special_tokens(special("[DEC]", "[ENC]"))
    t.post_processor = X.TemplateProcessing(single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1",
                                            special_tokens=[("[CLS]", 2), ("[SEP]", 3)])
    t.decoder = D.WordPiece("##", True)
    yield "bert", t.to_str(), (2, 3, 8)

    j = json.loads(t.to_str())
    v = j["model"]["vocab"]
    for s in list(v):
        if s.startswith("##"):
            v["@@" + s[2:]] = v.pop(s)
    v["##"] = len(v)  # not the prefix here
    v["@@"] = len(v)  # the prefix alone goes on with nothing
    v.pop("[PAD]")    # a hole in the ids
    del j["model"]["type"]
    j["model"].update(continuing_subword_prefix="@@", max_input_chars_per_word=9, vocab=v)
    j["normalizer"] = part(N.BertNormalizer(clean_text=False, handle_chinese_chars=False, strip_accents=True, lowercase=False))
    j["post_processor"] = part(X.BertProcessing(("[SEP]", 3), ("[CLS]", 2)))
    j["decoder"] = part(D.WordPiece("@@", False))
    j["added_tokens"] = [a for a in j["added_tokens"] if a["content"] != "[PAD]"]
    yield "bertcased", json.dumps(j, ensure_ascii=False, separators=(",", ":")), (5,)

    words = sorted({w for s in g.ALICE for w, _ in P.WhitespaceSplit().pre_tokenize_str(s)})
    v = {w: i for i, w in enumerate(["[UNK]", "<s>", "</s>"] + words[::2])}
    yield "wordlevel", dump({"type": "WordLevel", "vocab": v, "unk_token": "[UNK]"}, [(1, "<s>", {}), (2, "</s>", {})],
                            pre_tokenizer=part(P.WhitespaceSplit()), post_processor=template("<s>", "$A", "</s>", **{"<s>": 1, "</s>": 2})), ()

    # T5, with SentencePiece's own normalizer as it lies in published files
    pieces, blob = spm("nmt_nfkc", vocab_size=600, pad_id=0, eos_id=1, unk_id=2, bos_id=-1, character_coverage=0.98)
    n = len(pieces)
    extra = ["<extra_id_%d>" % i for i in range(3, -1, -1)]
    pieces += [[x, 0.0] for x in extra]
    yield "t5", dump(
        {"type": "Unigram", "unk_id": 2, "vocab": pieces, "byte_fallback": False},
        [(0, "<pad>", {}), (1, "</s>", {}), (2, "<unk>", {})] + [(n + i, x, {"lstrip": True, "rstrip": True}) for i, x in enumerate(extra)],
        normalizer=precompiled(blob), pre_tokenizer=part(P.Sequence([P.WhitespaceSplit(), P.Metaspace("\u2581", "always", split=True)])),
        post_processor=template("$A", "</s>", **{"</s>": 1}), decoder=part(D.Metaspace("\u2581", "always"))), (1, 2, 7)

    # SigLIP: punctuation goes, padding and truncation lie in the file
    rules = {"\u00bd": "1\u20442", "\ufb01": "fi", "\u017f": "s", "e\u0301": "\u00e9", "\u3000": " ", "\u200b": "", "\x01": "", "\x02": "",
             "\ufeff": "", "\u212a": "K", "\u00a0": " ", "\u2122": "TM", "\U0001f600": ":)", "\u1112\u1161": "\ud558", "\u0660": "0"}
    pieces, _ = spm("identity", vocab_size=500, pad_id=-1, eos_id=1, unk_id=2, bos_id=0, character_coverage=0.98)
    norm = [N.Lowercase(), N.Replace(Regex(r"[!\"\#\$%\&'\(\)\*\+,\-\./:;<=>\?@\[\\\]\^_`\{\|\}\~]"), ""), N.Replace(Regex(r"\s+"), " "),
            N.Strip(True, True)]
    yield "siglip", dump(
        {"type": "Unigram", "unk_id": 2, "vocab": pieces},
        [(1, "</s>", {"lstrip": True, "rstrip": True}), (2, "<unk>", {"lstrip": True, "rstrip": True})],
        normalizer={"type": "Sequence", "normalizers": [part(x) for x in norm] + [precompiled(charsmap.build(rules))]},
        truncation={"direction": "Right", "max_length": 64, "strategy": "LongestFirst", "stride": 0},
        padding={"strategy": {"Fixed": 64}, "direction": "Right", "pad_to_multiple_of": None, "pad_id": 1, "pad_type_id": 0, "pad_token": "</s>"},
        pre_tokenizer=part(P.Metaspace("\u2581", "always", split=True)), post_processor=template("$A", "</s>", **{"</s>": 1}),
        decoder=part(D.Metaspace("\u2581", "always"))), (1, 4)

    # Unigram's corners: equal sums, a piece twice, bytes of which some are missing, unknown pieces side by side, special
    # tokens that are found in the normal form
    order = random.Random(3)
    words = [[s, -order.randrange(1, 6)] for s in ["a", "b", "ab", "ba", "aba", "abab", "\u2581", "\u2581a", "\u2581\u2581", "the", "t", "h", "e",
                                                 "th", "he", "\u2581the", "qx", "<0x41>", "", "1", "12", "\u00e9", "\u0301"]]
    pieces = [["<unk>", 0], ["<s>", 0], ["</s>", 0]] + words + [["ab", -3], ["zz", -90]] + [[b, -7] for b in BYTES[:200]]
    norm = [N.Replace("``", '"'), N.Replace("\'\'", '"'), N.NFKD(), N.StripAccents(), N.Lowercase()]
    yield "unicorners", dump(
        {"type": "Unigram", "unk_id": 0, "vocab": pieces, "byte_fallback": True},
        [(1, "<s>", {"normalized": True}), (2, "</s>", {})],
        normalizer={"type": "Sequence", "normalizers": [part(x) for x in norm] + [precompiled(charsmap.build(rules)), part(N.Replace(Regex(" {2,}"), " "))]},
        pre_tokenizer=part(P.Metaspace("\u2581", "first", split=False)),
        decoder=part(D.Sequence([D.ByteFallback(), D.Metaspace("\u2581", "first")]))), ()


if __name__ == "__main__":
    for name, text, cuts in build():
        g.write_file(name, text, cuts)
