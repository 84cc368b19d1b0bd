#!/usr/bin/env python3
"""Writes rx.json: what the tokenizers library's regex engine (Oniguruma) makes of patterns and texts, as the pieces an
"isolated" split gives, or null where it refuses the pattern (needs: pip install tokenizers).
    python3 tests/golden/tok/make_rx.py > tests/golden/tok/rx.json"""
import json
import random
import sys
from tokenizers import Regex, pre_tokenizers as P

rng = random.Random(3)
T = ["aAb\u02b01 ab ab12 _-x", "a\nb\n\nc\r\nd\x0be\x85f\u2028g", "'S 's 'ſ K k \u212a ß ẞ ss é É Σσς İıi", "aaaa abab aabb a{x a{",
     "漢字カナ한글 \u0660\u0967\u00b2\u2460\u2167 😀👍🏽 \u0301x", "$+<=>^`|~!?.,;:_-()[]{}\u00a1\u2014\u3001\u20ac",
     "Hello  World don't 123 4567\n\n  x\t\ty \u00a0\u3000 z", "\ua7cb\u1c89\U00010d50\U0001e900\U00016e40\U000323b0\u0378\ufffe\ue000"]
PATTERNS = r"""\h+
\H
\w+
\W+
\s+
\S+
\d+
\D+
\p{L}+
\p{^L}+
\P{L}+
\pN
\p{Letter}|\p{Nd}
\p{Lu}\p{Ll}*
\p{M}
\p{P}+
\p{S}
\p{Sc}|\p{Sm}
\p{Z}+
\p{C}
\p{LC}+
\p{Han}+
\p{ han }
\p{Hiragana}|\p{Katakana}+
\p{Hangul}
\p{Greek}+
\p{Emoji}
\p{Extended_Pictographic}
\p{Alphabetic}+
\p{White_Space}
\p{Any}
\p{Assigned}
\p{Alnum}+
\p{Punct}+
\p{Word}+
\p{Foo}
\p{L
[[:alpha:]]+
[[:^alpha:]]
[[:punct:]]+
[[:word:]]+
[[:upper:]][[:lower:]]
[[:space:]]
[[:print:]]+
[[:graph:]]+
[[:cntrl:]]
[[:xdigit:]]+
[[:blank:]]
[[:ascii:]]+
[[:alnum:]]+
[:alpha:]
[a[bc]]+
[]a]
[a-]
[-a]
[\d-a]
[a-\d]
[z-a]
[a
[\w&&[^a]]
[^a&&b]
[[a-z]&&[aeiou]]
[a&&]
[\w&&\d]
[^\s\p{L}\p{N}]+
[^\p{^L}]
[\x{e9}\u03c3]
[\h]+
[\b]
[ -~]+
[\n\r]+
(?i)\p{Lu}
(?i)[\p{Lu}]
(?i)[^\P{Lu}]
(?i)[[:upper:]]
(?i)[A-Z]+
(?i)[^A-Z]
(?i)[^\x{17f}]
(?i)[\p{Lu}&&[a]]
(?i)[^[^s]]
(?i)\u212a
(?i)é|σ
(?i:'s|k)
(?i:'s|'t|'re|'ve|'m|'ll|'d)
(?i)a(?-i)b
(?-i:a)
a(?i)b|c
(a(?i)b)c
(?x) a b # comment
(?mi-x:a.)
(?m).
.
(?s).
(?#comment)a
a{2}
a{,2}
a{2,}
a{1,2}?
a{2}?
a{2}+
a{2,1}
a{x
a{
a++b
a*+
a?+
a*?b
a+?
a**
(?:ab)+
(?>a+)b
(?=b)
(?!b)a
(?<=a)b
(?<!a)b
(?<=a|bc)d
(?<n>a)b
(?<n>a|b\g<n>c)
(?'n'a)
a|b|
|a
()
x*
a*
^
$
^a
b$
^*
\A.
.\z
.\Z
\Ga
a\Kb
\b
\B
\ba
\b\w
\N+
\O+
\R
\t|\n|\x41|\x{42}|\103|\e
\xc3\xa9
\xe9
\x{110000}
\cA
\12|\0
\Qa.\E
a b
(
)
*
\
(?<n
(?z)
(?
漢|é
\.
\$|\^|\{|\}
\_|\-
\s*[\r\n]+
\s+(?!\S)|\s+
 ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+
[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+
[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}
[\p{Han}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]+
(?:^|\s)[A-Za-z]+(?=\s|$)
\p{N}{1,3}(?=(?:\p{N}{3})*(?!\p{N}))
(?<=\p{L})(?=\p{N})|(?<=\p{N})(?=\p{L})""".split("\n")
PATTERNS += ["", " ", "  +"]


def randoms(n):
    out = []
    for _ in range(n):
        s = []
        for _ in range(rng.randrange(1, 25)):
            c = rng.choice([rng.randrange(0x80), rng.randrange(0x80), rng.randrange(0x3000), rng.randrange(0x30000), 0x20, 0x61, 0x31])
            s.append(chr(c) if not 0xD800 <= c < 0xE000 else "a")
        out.append("".join(s))
    return out


rows = []
for p in PATTERNS:
    texts = T + randoms(6)
    try:
        pre = P.Split(Regex(p), "isolated")
    except Exception:
        rows.append({"pattern": p, "refused": True})
        continue
    rows.append({"pattern": p, "texts": texts, "pieces": [[x for x, _ in pre.pre_tokenize_str(t)] for t in texts]})
print("[" + ",\n".join(json.dumps(r, separators=(",", ":")) for r in rows) + "]")
