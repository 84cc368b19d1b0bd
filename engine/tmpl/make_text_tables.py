#!/usr/bin/env python3
"""Writes text_tables.h: what Python's str knows about Unicode beyond utf8proc's simple mappings.

Run: python3 engine/tmpl/make_text_tables.py > engine/tmpl/text_tables.h
Source: the Unicode Character Database as Python's unicodedata and str methods expose it."""
import sys
import unicodedata


def ranges(pred):
    out, start = [], None
    for c in range(0x110000):
        hit = pred(chr(c)) if not 0xD800 <= c <= 0xDFFF else False
        if hit and start is None:
            start = c
        if not hit and start is not None:
            out.append((start, c - 1))
            start = None
    if start is not None:
        out.append((start, 0x10FFFF))
    return out


def put_ranges(name, what, pred):
    print(f"/* {what} */\nstatic const uint32_t {name}[][2] = {{")
    for a, b in ranges(pred):
        print(f"    {{0x{a:X}, 0x{b:X}}},")
    print("};\n")


def put_map(name, what, fn):
    print(f"/* {what} */\nstatic const uint32_t {name}[][4] = {{")
    for c in range(0x110000):
        if 0xD800 <= c <= 0xDFFF:
            continue
        m = fn(chr(c))
        if len(m) > 1:
            print("    {" + ", ".join(f"0x{x:X}" for x in [c] + [ord(y) for y in m] + [0] * (3 - len(m))) + "},")
    print("};\n")


print(f"/* text_tables.h - written by make_text_tables.py from Unicode {unicodedata.unidata_version}; not edited by hand. */\n"
      "/* clang-format off */")
put_map("full_upper", "str.upper() where it gives more than one character", str.upper)
put_map("full_title", "str.title() of one character where it gives more than one", str.title)
put_map("full_fold", "str.casefold() where it gives more than one character", str.casefold)
cat = unicodedata.category
put_ranges("other_digit", "str.isdigit() outside category Nd", lambda c: c.isdigit() and cat(c) != "Nd")
put_ranges("other_numeric", "str.isnumeric() that is not isdigit()", lambda c: c.isnumeric() and not c.isdigit())
put_ranges("other_lower", "str.islower() outside category Ll", lambda c: c.islower() and cat(c) != "Ll")
put_ranges("other_upper", "str.isupper() outside category Lu", lambda c: c.isupper() and cat(c) != "Lu")
print("/* clang-format on */", end="\n")
