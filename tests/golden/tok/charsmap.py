"""Builds a precompiled_charsmap as SentencePiece lays it out: a double array (darts-clone) and strings with NULs."""
import struct


def build(rules):
    """rules: {text: what takes its place}. Returns the bytes of the map."""
    strings, at = b"", {}
    for to in rules.values():
        if to not in at:
            at[to] = len(strings)
            strings += to.encode() + b"\0"
    root = {}
    for text, to in rules.items():
        node = root
        for b in text.encode():
            node = node.setdefault(b, {})
        node[None] = at[to]
    units, bases = {0: 0}, set()

    def place(pos, node):
        labels = [0 if k is None else k for k in node]
        base = 1
        while base in bases or base == pos or any(base ^ x in units for x in labels) or (pos ^ base) >= 1 << 21:
            base += 1
        bases.add(base)
        units[pos] |= (pos ^ base) << 10 | (256 if None in node else 0)
        for k in node:
            units[base ^ (k or 0)] = node[k] | 1 << 31 if k is None else k
        for k in node:
            if k is not None:
                place(base ^ k, node[k])

    place(0, root)
    size = (max(units) | 255) + 1
    return struct.pack("<I", 4 * size) + b"".join(struct.pack("<I", units.get(i, 0)) for i in range(size)) + strings
