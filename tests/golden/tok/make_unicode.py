#!/usr/bin/env python3
"""Writes engine/tok/unicode_tables.c by asking the tokenizers library itself, code point by code point.

The library's parts do not agree on one Unicode version (its regex engine, Rust's char methods, its normal forms and
its punctuation test come from four tables), so every table here is measured on the part that uses it:
    python3 tests/golden/tok/make_unicode.py > engine/tok/unicode_tables.c        (needs: pip install tokenizers)
"""
import sys

import charsmap
import tokenizers
from tokenizers import Regex, normalizers as N, pre_tokenizers as P

CPS = [c for c in range(0x110000) if not 0xD800 <= c < 0xE000]
ALL = "".join(map(chr, CPS))

GC = "Lu Ll Lt Lm Lo Mn Mc Me Nd Nl No Pc Pd Ps Pe Pi Pf Po Sm Sc Sk So Zs Zl Zp Cc Cf Co Cn".split()
DERIVED = ("Alphabetic Lowercase Uppercase White_Space Ideographic Unified_Ideograph Emoji Emoji_Presentation Emoji_Modifier "
           "Emoji_Modifier_Base Emoji_Component Extended_Pictographic Regional_Indicator Variation_Selector "
           "Default_Ignorable_Code_Point Grapheme_Extend Grapheme_Base ID_Start ID_Continue XID_Start XID_Continue Cased "
           "Case_Ignorable Math Dash Diacritic Extender Hex_Digit ASCII_Hex_Digit Quotation_Mark Radical "
           "Noncharacter_Code_Point Join_Control Sentence_Terminal Terminal_Punctuation").split()
POSIX = "alnum alpha blank cntrl digit graph lower print punct space upper xdigit word ascii".split()
SCRIPTS = """Adlam=Adlm Ahom Anatolian_Hieroglyphs=Hluw Arabic=Arab Armenian=Armn Avestan=Avst Balinese=Bali Bamum=Bamu
Bassa_Vah=Bass Batak=Batk Bengali=Beng Bhaiksuki=Bhks Bopomofo=Bopo Brahmi=Brah Braille=Brai Buginese=Bugi Buhid=Buhd
Canadian_Aboriginal=Cans Carian=Cari Caucasian_Albanian=Aghb Chakma=Cakm Cham Cherokee=Cher Chorasmian=Chrs Common=Zyyy
Coptic=Copt Cuneiform=Xsux Cypriot=Cprt Cypro_Minoan=Cpmn Cyrillic=Cyrl Deseret=Dsrt Devanagari=Deva Dives_Akuru=Diak
Dogra=Dogr Duployan=Dupl Egyptian_Hieroglyphs=Egyp Elbasan=Elba Elymaic=Elym Ethiopic=Ethi Georgian=Geor Glagolitic=Glag
Gothic=Goth Grantha=Gran Greek=Grek Gujarati=Gujr Gunjala_Gondi=Gong Gurmukhi=Guru Han=Hani Hangul=Hang
Hanifi_Rohingya=Rohg Hanunoo=Hano Hatran=Hatr Hebrew=Hebr Hiragana=Hira Imperial_Aramaic=Armi Inherited=Zinh
Inscriptional_Pahlavi=Phli Inscriptional_Parthian=Prti Javanese=Java Kaithi=Kthi Kannada=Knda Katakana=Kana Kawi
Kayah_Li=Kali Kharoshthi=Khar Khitan_Small_Script=Kits Khmer=Khmr Khojki=Khoj Khudawadi=Sind Lao=Laoo Latin=Latn
Lepcha=Lepc Limbu=Limb Linear_A=Lina Linear_B=Linb Lisu Lycian=Lyci Lydian=Lydi Mahajani=Mahj Makasar=Maka
Malayalam=Mlym Mandaic=Mand Manichaean=Mani Marchen=Marc Masaram_Gondi=Gonm Medefaidrin=Medf Meetei_Mayek=Mtei
Mende_Kikakui=Mend Meroitic_Cursive=Merc Meroitic_Hieroglyphs=Mero Miao=Plrd Modi Mongolian=Mong Mro=Mroo Multani=Mult
Myanmar=Mymr Nabataean=Nbat Nag_Mundari=Nagm Nandinagari=Nand New_Tai_Lue=Talu Newa Nko=Nkoo Nushu=Nshu
Nyiakeng_Puachue_Hmong=Hmnp Ogham=Ogam Ol_Chiki=Olck Old_Hungarian=Hung Old_Italic=Ital Old_North_Arabian=Narb
Old_Permic=Perm Old_Persian=Xpeo Old_Sogdian=Sogo Old_South_Arabian=Sarb Old_Turkic=Orkh Old_Uyghur=Ougr Oriya=Orya
Osage=Osge Osmanya=Osma Pahawh_Hmong=Hmng Palmyrene=Palm Pau_Cin_Hau=Pauc Phags_Pa=Phag Phoenician=Phnx
Psalter_Pahlavi=Phlp Rejang=Rjng Runic=Runr Samaritan=Samr Saurashtra=Saur Sharada=Shrd Shavian=Shaw Siddham=Sidd
SignWriting=Sgnw Sinhala=Sinh Sogdian=Sogd Sora_Sompeng=Sora Soyombo=Soyo Sundanese=Sund Syloti_Nagri=Sylo Syriac=Syrc
Tagalog=Tglg Tagbanwa=Tagb Tai_Le=Tale Tai_Tham=Lana Tai_Viet=Tavt Takri=Takr Tamil=Taml Tangsa=Tnsa Tangut=Tang
Telugu=Telu Thaana=Thaa Thai Tibetan=Tibt Tifinagh=Tfng Tirhuta=Tirh Toto Ugaritic=Ugar Unknown=Zzzz Vai=Vaii
Vithkuqi=Vith Wancho=Wcho Warang_Citi=Wara Yezidi=Yezi Yi=Yiii Zanabazar_Square=Zanb Garay=Gara Gurung_Khema=Gukh
Kirat_Rai=Krai Ol_Onal=Onao Sunuwar=Sunu Todhri=Todr Tulu_Tigalari=Tutg""".split()


def onig(pattern):
    """The set of code points that the regex engine matches."""
    pre = P.Split(Regex("(?:" + pattern + ")+"), "removed", invert=True)
    out = set()
    for _, (a, b) in pre.pre_tokenize_str(ALL):
        out.update(CPS[a:b])
    return out


def runs(s):
    out = []
    for c in sorted(s):
        # surrogates never occur in text: a range may cross them
        if out and (c == out[-1][1] + 1 or (out[-1][1] == 0xD7FF and c == 0xE000)):
            out[-1][1] = c
        else:
            out.append([c, c])
    return out


def leb(v):
    out = []
    while v >= 128:
        out.append(v & 127 | 128)
        v >>= 7
    return out + [v]


def isolated(pre, sep):
    """Code points that pre cuts out of a text in which each stands between two seps."""
    out = set()
    for lo in range(0, len(CPS), 1 << 16):
        part = CPS[lo:lo + (1 << 16)]
        text = sep + "".join(chr(c) + sep for c in part)
        spans = {a for _, (a, b) in pre.pre_tokenize_str(text) if b == a + 1 and a % 2 == 1}
        out.update(c for i, c in enumerate(part) if 2 * i + 1 in spans)
    return out - {ord(sep)}


sets = []
for g in GC:
    sets.append((g, onig(r"\p{%s}" % g)))
for g in DERIVED:
    try:
        sets.append((g, onig(r"\p{%s}" % g)))
    except Exception as e:
        print("left out", g, e, file=sys.stderr)
for g in POSIX:
    sets.append(("posix" + g, onig("[[:%s:]]" % g)))
    prop = onig(r"\p{%s}" % g)
    if prop != sets[-1][1]:
        print("[[:%s:]] is not \\p{%s}: %d, %d" % (g, g, len(sets[-1][1]), len(prop)), file=sys.stderr)
        sets.append((g, prop))
by = dict(sets)
for esc, name in (("w", "posixword"), ("s", "posixspace"), ("d", "posixdigit"), ("h", "posixxdigit")):
    s = onig("\\" + esc)
    if s != by[name] or onig("[\\%s]" % esc) != s:
        print("\\%s is not %s: %d, %d" % (esc, name, len(s), len(by[name])), file=sys.stderr)
    sets.append(("esc" + esc, s))
assert onig(r"\p{L}") == set.union(*(by[g] for g in GC[:5])) and onig(r"\p{C}") == set.union(*(by[g] for g in GC[25:]))
aliases = []
for s in SCRIPTS:
    name, _, short = s.partition("=")
    try:
        sets.append((name, onig(r"\p{%s}" % name)))
    except Exception as e:
        print("left out", name, e, file=sys.stderr)
        continue
    if short:
        aliases.append((short, name))

# Rust's side
word = set()
for lo in range(0, len(CPS), 1 << 16):
    part = CPS[lo:lo + (1 << 16)]
    spans = {a for _, (a, b) in P.Whitespace().pre_tokenize_str("".join("a" + chr(c) + " " for c in part)) if b == a + 2}
    word.update(c for i, c in enumerate(part) if 3 * i in spans)
sets.append(("rustword", word))
sets.append(("rustnumeric", isolated(P.Digits(individual_digits=True), "x") ))
sets.append(("rustpunct", isolated(P.Punctuation("isolated"), "x")))
space = {c for c in CPS if P.WhitespaceSplit().pre_tokenize_str("a" + chr(c) + "a")[0][0] == "a"}
assert space == by["White_Space"], space ^ by["White_Space"]
bert = N.BertNormalizer(clean_text=True, handle_chinese_chars=False, strip_accents=False, lowercase=False)
sets.append(("bertcontrol", {c for c in CPS if bert.normalize_str(chr(c)) == ""}))
bert = N.BertNormalizer(clean_text=False, handle_chinese_chars=False, strip_accents=True, lowercase=False)
sets.append(("bertmn", {c for c in CPS if bert.normalize_str(chr(c)) == ""}))
strip = N.StripAccents()
sets.append(("accents", {c for c in CPS if strip.normalize_str(chr(c)) == ""}))
# What the library's normal forms know; anything else they leave alone.
nfd, nfkd = N.NFD(), N.NFKD()
active = set()
for c in CPS:
    k, d = nfkd.normalize_str(chr(c)), nfd.normalize_str(chr(c))
    if k != chr(c):
        active.add(c)
    if d != chr(c):
        active.update(map(ord, d))
    for s in ("a\u0345" + chr(c), "a" + chr(c) + "\u0334"):
        if k == chr(c) and nfd.normalize_str(s) != s:
            active.add(c)
sets.append(("normal", active))

# Grapheme clusters, as the library's Precompiled normalizer has them: a grapheme under six bytes whose beginning is in
# the map is replaced as a whole, so that what follows a mapped character tells whether it stands alone.
def probe(form, lookup, joined, cps):
    """Code points c for which form(c), with lookup in the map, becomes joined(c)."""
    pre = N.Precompiled(charsmap.build({lookup: "*"}))
    return {c for c in cps if pre.normalize_str(form(chr(c))) == joined(chr(c))}


plain = [c for c in CPS if c not in (0, ord("A"), ord("*"))]
joins = probe(lambda c: "A" + c, "A", lambda c: "*", plain)
sets.append(("gbjoins", joins))
others = [c for c in plain if c not in joins]
prepend, control = set(), set()
for i in range(0, len(others), 128):
    part = others[i:i + 128]
    pre = N.Precompiled(charsmap.build({chr(c): "*" for c in part}))
    prepend.update(c for c in part if pre.normalize_str(chr(c) + "A") == "*" and c not in (0xD, 0xA))
    # over four bytes it makes no difference
    control.update(c for c in part if c < 0x10000 and pre.normalize_str(chr(c) + "\u0301") != "*")
sets.append(("gbcontrol", control | by["Cc"]))
sets.append(("gbprepend", prepend))
# Where two characters join, the second one's accent does not stand in a short grapheme and is kept.
kept = lambda head: lambda c: head(c) + "*\u0301"
chain = lambda head, ch, cps: probe(lambda c: head(c) + ch + "\u0301", ch, kept(head), cps)
apart = [c for c in others if c not in prepend]
sets.append(("gbpict", chain(lambda c: c + "\u200d", "\u2122", apart) | {0x2122}))
sets.append(("gbpictmark", chain(lambda c: "\U0001f600" + c + "\u200d", "\u2122", joins)))
sets.append(("gbconsonant", chain(lambda c: c + "\u094d", "\u0958", apart) | {0x958}))
sets.append(("gblinker", chain(lambda c: "\u0915" + c, "\u0958", joins)))
sets.append(("gbconsonantmark", chain(lambda c: "\u0915\u094d" + c, "\u0958", joins)))

low = N.Lowercase()
lower = [(c, [ord(x) for x in low.normalize_str(chr(c))]) for c in CPS if low.normalize_str(chr(c)) != chr(c)]
odd = [(c, m) for c, m in lower if len(m) != 1]
assert odd == [(0x130, [0x69, 0x307])], odd

# Simple case folding of the regex engine: which single code points (?i) takes for each other.
cand = set()
for c in CPS:
    s = chr(c)
    for t in (s.lower(), s.upper(), s.casefold(), s.title(), low.normalize_str(s)):
        if t != s:
            cand.add(c)
            if len(t) == 1:
                cand.add(ord(t))
cand = sorted(cand)
text = "".join(chr(c) + " " for c in cand)
orbit = {}
for c in cand:
    pre = P.Split(Regex("(?i)\\x{%x}" % c), "removed", invert=True)
    hit = sorted(cand[a // 2] for _, (a, b) in pre.pre_tokenize_str(text) if b == a + 1)
    if len(hit) > 1:
        orbit[c] = hit
fold = [(c, o[0]) for c, o in sorted(orbit.items())]
for c, o in orbit.items():
    assert all(orbit.get(x) == o for x in o), (hex(c), o)


def table(name, pairs):
    """Pairs (from, to) as runs {from, count, stride, to}: to advances with from."""
    out, i = [], 0
    while i < len(pairs):
        c, t = pairs[i]
        best = (1, 1)
        for stride in (1, 2):
            n = 1
            while i + n < len(pairs) and pairs[i + n] == (c + n * stride, t + n * stride):
                n += 1
            if n > best[0]:
                best = (n, stride)
        out.append((c, best[0], best[1], t))
        i += best[0]
    print("const unicode_map unicode_%s[] = {" % name)
    line = "   "
    for r in out:
        item = " {0x%X, %d, %d, 0x%X}," % r
        if len(line) + len(item) > 110:
            print(line)
            line = "   "
        line += item
    print(line + "\n};\nconst size_t unicode_%s_len = %d;\n" % (name, len(out)))


blob, rows = [], []
for name, s in sets:
    at, last = len(blob), 0
    rs = runs(s)
    for a, b in rs:
        blob += leb(a - last) + leb(b - a)
        last = b + 1
    rows.append((name.lower().replace("_", ""), at, len(rs)))
print("""/* unicode_tables.c - Unicode as the tokenizers library knows it: written by tests/golden/tok/make_unicode.py
 * (tokenizers %s), not by hand. Constant data, any thread. See engine/tok/uset.h. */
/* clang-format off */
#include "engine/tok/uset.h"

/* Each set: for every range, LEB128 of (first - end of the range before - 1) and of (last - first). */
const unsigned char unicode_ranges[] = {""" % tokenizers.__version__)
line = "   "
for b in blob:
    item = " %d," % b
    if len(line) + len(item) > 110:
        print(line)
        line = "   "
    line += item
print(line + "\n};\n")
print("const unicode_set unicode_sets[] = {")
for r in rows:
    print('    {"%s", %d, %d},' % r)
print("};\nconst size_t unicode_sets_len = %d;\n" % len(rows))
print("const unicode_alias unicode_aliases[] = {")
for a, b in aliases:
    print('    {"%s", "%s"},' % (a.lower(), b.lower().replace("_", "")))
print("};\nconst size_t unicode_aliases_len = %d;\n" % len(aliases))
print("/* char::to_lowercase but for U+0130, which becomes U+0069 U+0307 */")
table("lower", [(c, m[0]) for c, m in lower if len(m) == 1])
print("/* (?i): every member of an orbit to its smallest */")
table("fold", [(c, t) for c, t in fold])
