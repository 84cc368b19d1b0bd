#!/usr/bin/env python3
"""Writes the test pictures and what Pillow and transformers' Pillow image processors make of them.

Needs Pillow 13.0.0, numpy and transformers 5.23 (the tests themselves need none of these). Run from the repository's
root: python3 tests/golden/image/make_goldens.py. Files: pictures/ (small, made here, except those that README.md names),
decode.json, resize.json, prep.json. A checksum is FNV-1a (64 bits) over the RGB bytes; samples are there so that a
difference can be seen. Where we differ from Pillow on purpose (16-bit grey, tRNS of other depths than 8), the expected
pixels are computed here from the PNG specification, as the comments say.
"""
import copy, importlib, io, json, os, random, struct, sys, zlib
import numpy as np
import PIL
from PIL import Image, ImageOps
import transformers
from transformers.image_transforms import convert_to_rgb

HERE = os.path.dirname(os.path.abspath(__file__))
PICS = os.path.join(HERE, "pictures")
assert PIL.__version__ == "13.0.0" and transformers.__version__.startswith("5.23"), "pinned versions"
rng = np.random.default_rng(20)
random.seed(20)


def fnv(a):
    h = 0xCBF29CE484222325
    for b in np.ascontiguousarray(a, dtype=np.uint8).tobytes():
        h = ((h ^ b) * 0x100000001B3) & 0xFFFFFFFFFFFFFFFF
    return "%016x" % h


def source(w, h, seed):
    """The same pixels as test_resize.c and test_prep.c compute: noise for odd seeds, slopes for even ones."""
    x, y, c = np.meshgrid(np.arange(w, dtype=np.uint64), np.arange(h, dtype=np.uint64), np.arange(3, dtype=np.uint64))
    if seed % 2 == 0:
        return ((x * 5 + y * 3 + c * 50 + seed) & 255).astype(np.uint8)
    m = np.uint64(0xFFFFFFFF)
    v = ((x * 73856093) ^ (y * 19349663) ^ (c * 83492791) ^ np.uint64(seed * 2654435761)) & m
    v ^= v >> np.uint64(13)
    v = (v * 0x5BD1E995) & m
    v ^= v >> np.uint64(15)
    return (v & np.uint64(255)).astype(np.uint8)


def rgb_of(data):
    return convert_to_rgb(ImageOps.exif_transpose(Image.open(io.BytesIO(data))), return_numpy=True)


def samples(a, n=6):
    h, w, _ = a.shape
    spots = [(0, 0), (w - 1, 0), (0, h - 1), (w - 1, h - 1), (w // 2, h // 2), (w // 3, h * 2 // 3)][:n]
    return [[x, y] + [int(v) for v in a[y, x]] for x, y in spots]


# ---- pictures ----------------------------------------------------------------------------------------------------


def smooth(w, h, c):
    a = rng.random((h // 9 + 2, w // 9 + 2, c))
    planes = [np.array(Image.fromarray((a[..., i] * 255).astype(np.uint8)).resize((w, h), 3)) for i in range(c)]
    return np.stack(planes, -1)


def saved(a, fmt, mode=None, **kw):
    o = io.BytesIO()
    (a if isinstance(a, Image.Image) else Image.fromarray(a if a.shape[2] > 1 else a[..., 0], mode)).save(o, fmt, **kw)
    return o.getvalue()


def chunk(t, d):
    return struct.pack(">I", len(d)) + t + d + struct.pack(">I", zlib.crc32(t + d))


def png(w, h, depth, color, rows, extra=b"", interlace=0, tail=b""):
    raw = b"".join(b"\0" + r for r in rows)
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", w, h, depth, color, 0, 0, interlace))
    return b"\x89PNG\r\n\x1a\n" + head + extra + chunk(b"IDAT", zlib.compress(raw)) + tail + chunk(b"IEND", b"")


def packed(values, depth):
    """Rows of samples (h, n) to PNG rows of that depth."""
    if depth == 16:
        return [r.astype(">u2").tobytes() for r in values]
    out = []
    for r in values:
        bits = "".join(format(int(v), "0%db" % depth) for v in r)
        bits += "0" * (-len(bits) % 8)
        out.append(int(bits, 2).to_bytes(len(bits) // 8, "big"))
    return out


ADAM7 = [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)]


def interlaced(values, depth):
    """Samples (h, w, channels) to the seven passes' rows."""
    rows = []
    for x, y, dx, dy in ADAM7:
        part = values[y::dy, x::dx]
        if part.size:
            rows += packed(part.reshape(part.shape[0], -1), depth)
    return rows


def over_white(c, a):
    t = c.astype(int) * a + 255 * (255 - a.astype(int)) + 128
    return ((t + (t >> 8)) >> 8).astype(np.uint8)


good = {}  # name -> (bytes, expected RGB or None for Pillow's)


def add(name, data, expect=None):
    good[name] = (data, expect)


def make_jpegs():
    for name, c, mode, kw in [
        ("rgb420.jpg", 3, "RGB", dict(subsampling=2)), ("rgb422.jpg", 3, "RGB", dict(subsampling=1)),
        ("rgb444.jpg", 3, "RGB", dict(subsampling=0)), ("progressive.jpg", 3, "RGB", dict(progressive=True)),
        ("grey.jpg", 1, "L", {}), ("grey_progressive.jpg", 1, "L", dict(progressive=True)),
        ("restart.jpg", 3, "RGB", dict(restart_marker_blocks=3)), ("plain_rgb.jpg", 3, "RGB", dict(keep_rgb=True)),
        ("cmyk.jpg", 4, "CMYK", {}), ("cmyk_progressive.jpg", 4, "CMYK", dict(progressive=True, subsampling=2)),
    ]:
        add(name, saved(smooth(37, 29, c), "JPEG", mode, quality=85, **kw))
    cmyk = bytearray(saved(smooth(33, 21, 4), "JPEG", "CMYK", quality=90))
    at = cmyk.index(b"Adobe") + 11
    cmyk[at] = 2  # the color transform: YCCK
    add("ycck.jpg", bytes(cmyk))
    for o in range(1, 9):
        e = Image.Exif()
        e[0x0112] = o
        add("exif%d.jpg" % o, saved(smooth(21, 13, 3), "JPEG", exif=e, quality=80))
    plain = saved(smooth(17, 11, 3), "JPEG")
    for o, order in ((6, ">"), (3, "<")):  # hand-made Exif, both byte orders, the IFD far from the start
        tiff = (b"MM\0*" if order == ">" else b"II*\0") + struct.pack(order + "I", 40) + b"\0" * 32
        tiff += struct.pack(order + "H", 2) + struct.pack(order + "HHIHH", 0x010F, 2, 2, 0x4100, 0)
        tiff += struct.pack(order + "HHIHH", 0x0112, 3, 1, o, 0) + b"\0\0\0\0"
        seg = b"Exif\0\0" + tiff
        add("exif_%s.jpg" % ("big" if order == ">" else "little"),
            plain[:2] + b"\xff\xe1" + struct.pack(">H", len(seg) + 2) + seg + plain[2:])
    seg = b"\xff\xed" + struct.pack(">H", 30002) + b"\0" * 30000  # large segments before the frame
    add("big_segments.jpg", plain[:2] + seg + plain[2:])
    add("one.jpg", saved(smooth(1, 1, 3), "JPEG"))
    add("wide.jpg", saved(smooth(3000, 1, 3), "JPEG"))
    add("trailing_zip.jpg", plain + b"PK\x03\x04 not part of the picture")
    add("no_end_mark.jpg", plain[:-2], rgb_of(plain))  # every row is there
    add("fill_bytes.jpg", plain[:2] + b"\xff\xff\xff" + plain[2:])
    return plain


def make_pngs():
    for depth in (1, 2, 4, 8, 16):
        v = rng.integers(0, 1 << depth, (11, 19))
        grey = (v >> 8 if depth == 16 else v * 255 // ((1 << depth) - 1)).astype(np.uint8)
        rgb = np.repeat(grey[..., None], 3, -1)  # 16 bits: the high byte; Pillow clips to 255 instead
        key = int(v[3, 4])
        keyed = np.where((v == key)[..., None], 255, rgb).astype(np.uint8)  # Pillow compares at depth 8 only
        add("grey%d.png" % depth, png(19, 11, depth, 0, packed(v, depth)), rgb)
        add("grey%d_trns.png" % depth, png(19, 11, depth, 0, packed(v, depth), chunk(b"tRNS", struct.pack(">H", key))),
            keyed)
        add("grey%d_interlaced.png" % depth, png(19, 11, depth, 0, interlaced(v[..., None], depth), interlace=1), rgb)
    for depth in (1, 2, 4, 8):
        n = 1 << depth
        pal = rng.integers(0, 256, (n, 3)).astype(np.uint8)
        v = rng.integers(0, n, (13, 21))
        plte = chunk(b"PLTE", pal.tobytes())
        alpha = rng.integers(0, 256, max(1, n * 2 // 3)).astype(np.uint8)
        full = np.concatenate([alpha, np.full(n - len(alpha), 255, np.uint8)])
        add("palette%d.png" % depth, png(21, 13, depth, 3, packed(v, depth), plte), pal[v])
        add("palette%d_trns.png" % depth, png(21, 13, depth, 3, packed(v, depth), plte + chunk(b"tRNS", alpha.tobytes())),
            over_white(pal[v], full[v][..., None]))
    for depth in (8, 16):
        top = 1 << depth
        shift = depth - 8
        for color, ch, name in ((2, 3, "rgb"), (4, 2, "la"), (6, 4, "rgba")):
            v = rng.integers(0, top, (9, 14, ch))
            b = (v >> shift).astype(np.uint8)
            e = b if ch == 3 else over_white(np.repeat(b[..., :1], 3, -1) if ch == 2 else b[..., :3], b[..., -1:])
            add("%s%d.png" % (name, depth), png(14, 9, depth, color, packed(v.reshape(9, -1), depth)), e)
            add("%s%d_interlaced.png" % (name, depth), png(14, 9, depth, color, interlaced(v, depth), interlace=1), e)
            if ch == 3:
                key = v[2, 3]
                trns = chunk(b"tRNS", struct.pack(">3H", *[int(k) for k in key]))
                add("rgb%d_trns.png" % depth, png(14, 9, depth, 2, packed(v.reshape(9, -1), depth), trns),
                    np.where((v == key).all(-1)[..., None], 255, e).astype(np.uint8))
    tiny = rng.integers(0, 256, (1, 1, 3))
    add("one.png", png(1, 1, 8, 2, packed(tiny.reshape(1, -1), 8)))
    add("one_interlaced.png", png(1, 1, 8, 2, packed(tiny.reshape(1, -1), 8), interlace=1))
    gamma = chunk(b"gAMA", struct.pack(">I", 100000)) + chunk(b"tEXt", b"Comment\0x" * 10)
    v = smooth(16, 16, 3)
    add("gamma.png", png(16, 16, 8, 2, packed(v.reshape(16, -1), 8), gamma))
    add("wide.png", saved(smooth(20000, 1, 3), "PNG"))
    add("tall.png", saved(smooth(1, 20000, 3), "PNG"))
    e = Image.Exif()
    e[0x0112] = 6
    add("exif6.png", saved(v, "PNG", exif=e))
    add("trailing.png", good["one.png"][0] + b"<script>not part of the picture</script>")


def riff(chunks):
    body = b"WEBP" + b"".join(t + struct.pack("<I", len(d)) + d + b"\0" * (len(d) & 1) for t, d in chunks)
    return b"RIFF" + struct.pack("<I", len(body)) + body


def make_webps():
    add("lossy.webp", saved(smooth(41, 27, 3), "WEBP", quality=80))
    add("lossless.webp", saved(smooth(23, 17, 3), "WEBP", lossless=True))
    add("lossy_alpha.webp", saved(smooth(31, 19, 4), "WEBP", quality=70))
    add("lossless_alpha.webp", saved(smooth(19, 31, 4), "WEBP", lossless=True, exact=True))
    e = Image.Exif()
    e[0x0112] = 8
    add("exif8.webp", saved(smooth(20, 12, 3), "WEBP", exif=e, lossless=True))
    frames = [Image.fromarray(smooth(30, 20, 3)) for _ in range(3)]
    add("animated.webp", saved(frames[0], "WEBP", save_all=True, append_images=frames[1:], lossless=True, duration=50))
    frames = [Image.fromarray(smooth(26, 22, 4)) for _ in range(2)]
    add("animated_alpha.webp", saved(frames[0], "WEBP", save_all=True, append_images=frames[1:], quality=80))
    # a first frame smaller than its canvas, with and without the alpha flag
    still = saved(smooth(10, 8, 3), "WEBP", quality=90)
    body = still[12:]
    anmf = struct.pack("<I", 3)[:3] + struct.pack("<I", 2)[:3] + struct.pack("<I", 9)[:3] + struct.pack("<I", 7)[:3]
    anmf += struct.pack("<I", 100)[:3] + b"\0" + body
    for flags, name in ((0x02, "opaque"), (0x12, "clear")):
        vp8x = bytes([flags, 0, 0, 0]) + struct.pack("<I", 24)[:3] + struct.pack("<I", 17)[:3]
        add("frame_%s.webp" % name, riff([(b"VP8X", vp8x), (b"ANIM", b"\xff\0\0\xff\0\0"), (b"ANMF", anmf)]))
    add("one.webp", saved(smooth(1, 1, 3), "WEBP"))


def make_gifs():
    v = rng.integers(0, 40, (18, 25)).astype(np.uint8)
    im = Image.fromarray(v, "P")
    im.putpalette(rng.integers(0, 256, 40 * 3).astype(np.uint8).tobytes())
    add("plain.gif", saved(im, "GIF", interlace=0))
    add("interlaced.gif", saved(im, "GIF", interlace=1))
    add("transparent.gif", saved(im, "GIF", transparency=7))
    more = [Image.fromarray(np.roll(v, i, 1), "P") for i in (1, 2)]
    for m in more:
        m.putpalette(im.getpalette())
    add("animated.gif", saved(im, "GIF", save_all=True, append_images=more, duration=40, loop=0))
    data = good["transparent.gif"][0]
    desc = data.index(b"\x2c", data.index(b"\x21\xf9"))
    # the same frame at (4, 3) of a larger canvas; transparent, and opaque without the control block
    big = bytearray(data)
    big[6:10] = struct.pack("<HH", 40, 30)
    big[desc + 1:desc + 5] = struct.pack("<HH", 4, 3)
    add("offset_transparent.gif", bytes(big))
    data = good["plain.gif"][0]
    desc = data.rindex(b"\x2c\0\0\0\0\x19\0\x12\0")
    big = bytearray(data)
    big[6:10] = struct.pack("<HH", 40, 30)
    big[desc + 1:desc + 5] = struct.pack("<HH", 4, 3)
    add("offset.gif", bytes(big))
    big = bytearray(data)
    big[desc + 1:desc + 5] = struct.pack("<HH", 9, 2)  # over the canvas' edge
    add("over_edge.gif", bytes(big))


def make_bad(plain_jpg):
    """name -> (bytes, status code, part of the message)"""
    g = {k: v[0] for k, v in good.items()}
    bomb = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", 50000, 50000, 8, 2, 0, 0, 0))
    bomb += chunk(b"IDAT", zlib.compress(b"\0" * 1000)) + chunk(b"IEND", b"")
    lying = bytearray(png(16, 16, 8, 2, [b"\0" * 48] * 16))
    lying[8:33] = chunk(b"IHDR", struct.pack(">IIBBBBB", 160, 160, 8, 2, 0, 0, 0))
    lying_far = bytearray(lying)
    lying_far[8:33] = chunk(b"IHDR", struct.pack(">IIBBBBB", 7000, 7000, 8, 2, 0, 0, 0))
    crc = bytearray(g["rgb8.png"])
    crc[-20] ^= 1
    head_crc = bytearray(g["rgb8.png"])
    head_crc[30] ^= 1
    zero = bytearray(g["one.png"])
    zero[8:33] = chunk(b"IHDR", struct.pack(">IIBBBBB", 0, 1, 8, 2, 0, 0, 0))
    huge = bytearray(g["one.png"])
    huge[8:33] = chunk(b"IHDR", struct.pack(">IIBBBBB", 0x7FFFFFFF, 0x7FFFFFFF, 8, 2, 0, 0, 0))
    negative = bytearray(g["one.png"])
    negative[8:33] = chunk(b"IHDR", struct.pack(">IIBBBBB", 0xFFFFFFFF, 1, 8, 2, 0, 0, 0))
    depth = bytearray(g["one.png"])
    depth[8:33] = chunk(b"IHDR", struct.pack(">IIBBBBB", 1, 1, 3, 2, 0, 0, 0))
    sof = plain_jpg.index(b"\xff\xc0")
    jzero = bytearray(plain_jpg)
    jzero[sof + 5:sof + 7] = b"\0\0"
    jlie = bytearray(plain_jpg)
    jlie[sof + 5:sof + 9] = struct.pack(">HH", 7000, 7000)
    jhuge = bytearray(plain_jpg)
    jhuge[sof + 5:sof + 9] = struct.pack(">HH", 65500, 65500)
    jtall = bytearray(plain_jpg)
    jtall[sof + 5:sof + 7] = struct.pack(">H", 40)
    two = plain_jpg[:sof] + plain_jpg[sof:sof + 19] + plain_jpg[sof:]
    deep = bytearray(plain_jpg)
    deep[sof + 4] = 12
    lossless = bytearray(plain_jpg)
    lossless[sof + 1] = 0xC3
    comps = bytearray(g["grey.jpg"])
    gs = bytes(comps).index(b"\xff\xc0")
    comps = comps[:gs] + b"\xff\xc0\x00\x0e\x08\x00\x10\x00\x10\x02\x01\x11\x00\x02\x11\x00" + comps[gs + 13:]
    prog = g["progressive.jpg"]
    wlie = bytearray(g["lossless.webp"])
    wlie[4:8] = struct.pack("<I", 1 << 20)
    wcut = g["lossy.webp"]
    gsize = bytearray(g["plain.gif"])
    gsize[6:10] = struct.pack("<HH", 65535, 65535)
    gframe = bytearray(g["plain.gif"])
    at = bytes(gframe).rindex(b"\x2c\0\0\0\0")
    gframe[at + 5:at + 9] = struct.pack("<HH", 3000, 3000)
    gempty = bytearray(g["plain.gif"])
    gempty[at + 5:at + 7] = b"\0\0"
    scans = prog[:2] + prog[2:prog.index(b"\xff\xda")]
    first = prog.index(b"\xff\xda")
    second = prog.index(b"\xff", first + 2)
    while prog[second + 1] == 0:
        second = prog.index(b"\xff", second + 2)
    many = scans + prog[first:second] * 150 + prog[second:]
    INVALID, UNSUPPORTED, LARGE = 1, 2, 4
    return {
        "empty.bin": (b"", INVALID, "empty"),
        "text.bin": (b"hello, this is no picture", INVALID, "first bytes are 68 65 6c"),
        "svg.bin": (b"<svg xmlns='http://www.w3.org/2000/svg'/>", INVALID, "JPEG, PNG, WebP, GIF"),
        "bmp.bin": (b"BM" + b"\0" * 60, INVALID, "first bytes are 42 4d"),
        "html_then_jpeg.bin": (b"<html>" + plain_jpg, INVALID, "accepted formats"),
        "short.bin": (b"\xff\xd8", INVALID, "first bytes are ff d8"),
        "bomb.png": (bomb, LARGE, "50000x50000"),
        "huge.png": (bytes(huge), LARGE, "limit"),
        "negative.png": (bytes(negative), INVALID, "size"),
        "zero.png": (bytes(zero), INVALID, "0x1"),
        "depth.png": (bytes(depth), INVALID, "bit depth"),
        "lying.png": (bytes(lying), INVALID, "PNG"),
        "lying_far.png": (bytes(lying_far), INVALID, "7000x7000"),
        "crc.png": (bytes(crc), INVALID, "checksum"),
        "head_crc.png": (bytes(head_crc), INVALID, "checksum"),
        "cut.png": (g["rgb8.png"][:-30], INVALID, "PNG"),
        "only_head.png": (g["rgb8.png"][:33], INVALID, "truncated"),
        "zero.jpg": (bytes(jzero), INVALID, "17x0"),
        "lying.jpg": (bytes(jlie), INVALID, "7000x7000"),
        "huge.jpg": (bytes(jhuge), LARGE, "65500x65500"),
        "tall_lie.jpg": (bytes(jtall), INVALID, "before the last row"),
        "two_frames.jpg": (two, INVALID, "two frame headers"),
        "12bit.jpg": (bytes(deep), UNSUPPORTED, "12 bits"),
        "lossless.jpg": (bytes(lossless), UNSUPPORTED, "lossless"),
        "two_components.jpg": (bytes(comps), UNSUPPORTED, "2 components"),
        "cut.jpg": (plain_jpg[:len(plain_jpg) - 60], INVALID, "before the last row"),
        "cut_progressive.jpg": (prog[:len(prog) * 2 // 3], INVALID, "JPEG"),
        "progressive_no_end.jpg": (prog[:-2], INVALID, "last scan"),
        "many_scans.jpg": (many, INVALID, "JPEG"),
        "header_only.jpg": (plain_jpg[:sof], INVALID, "truncated"),
        "ends_early.jpg": (plain_jpg[:2] + b"\xff\xd9", INVALID, "ends before"),
        "lying.webp": (bytes(wlie), INVALID, "at least"),
        "cut.webp": (wcut[:len(wcut) - 40], INVALID, "at least"),
        "cut_inside.webp": (riff([(b"VP8 ", wcut[20:len(wcut) // 2])]), INVALID, "WebP"),
        "no_picture.webp": (riff([(b"VP8X", b"\0" * 10)]), INVALID, "no picture"),
        "huge.gif": (bytes(gsize), LARGE, "65535x65535"),
        "lying.gif": (bytes(gframe), INVALID, "GIF"),
        "zero.gif": (bytes(gempty), INVALID, "no pixels"),
        "cut.gif": (g["plain.gif"][:-60], INVALID, "GIF"),
        "no_frame.gif": (g["plain.gif"][:13 + 192] + b";", INVALID, "before any picture"),
    }


def write_decode():
    plain = make_jpegs()
    make_pngs()
    make_webps()
    make_gifs()
    for name in sorted(os.listdir(PICS)):
        if name.startswith("emoji_") or name.startswith("shape_"):  # copied; see README.md
            add(name, open(os.path.join(PICS, name), "rb").read())
    out = {"good": {}, "bad": {}}
    total = 0
    for name, (data, expect) in good.items():
        a = rgb_of(data) if expect is None else expect
        total += len(data)
        open(os.path.join(PICS, name), "wb").write(data)
        out["good"][name] = {"w": a.shape[1], "h": a.shape[0], "sum": fnv(a), "samples": samples(a)}
    for name, (data, code, part) in make_bad(plain).items():
        total += len(data)
        open(os.path.join(PICS, "bad_" + name), "wb").write(data)
        out["bad"]["bad_" + name] = {"code": code, "part": part}
    print("pictures:", len(good), "good", len(out["bad"]), "bad", total, "bytes")
    write("decode.json", out)


def write(name, obj):
    def lines(o):
        return "[\n" + ",\n".join(json.dumps(x) for x in o) + "\n]\n"
    with open(os.path.join(HERE, name), "w") as f:
        if isinstance(obj, list):
            f.write(lines(obj))
        else:
            parts = ["%s: {\n%s\n}" % (json.dumps(k), ",\n".join("%s: %s" % (json.dumps(a), json.dumps(b))
                                                                   for a, b in v.items())) for k, v in obj.items()]
            f.write("{\n" + ",\n".join(parts) + "\n}\n")


# ---- resize ------------------------------------------------------------------------------------------------------


def write_resize():
    cases = []
    fixed = [(1, 1, 48, 48), (1, 1, 1, 1), (20000, 1, 7, 5), (1, 20000, 5, 7), (20000, 1, 400, 3), (1, 20000, 3, 300),
             (64, 48, 64, 24), (64, 48, 32, 48), (64, 48, 64, 48), (100, 200, 50, 100), (100, 201, 50, 100),
             (100, 199, 50, 100), (640, 480, 448, 336), (333, 517, 96, 149), (96, 96, 336, 336), (2, 3, 50, 70)]
    side = lambda: random.choice([random.randint(1, 9), random.randint(1, 60), random.randint(1, 260)])
    fixed += [(side(), side(), side(), side()) for _ in range(34)]
    for i, (w, h, ow, oh) in enumerate(fixed):
        a = source(w, h, i)
        for f in range(6):
            r = np.array(Image.fromarray(a).resize((ow, oh), f))
            x, y = random.randint(-9, ow - 1), random.randint(-9, oh - 1)
            cw, ch = random.randint(1, min(ow, 60) + 12), random.randint(1, min(oh, 60) + 12)
            c = np.zeros((ch, cw, 3), np.uint8)
            x0, x1, y0, y1 = max(x, 0), min(x + cw, ow), max(y, 0), min(y + ch, oh)
            if x0 < x1 and y0 < y1:
                c[y0 - y:y1 - y, x0 - x:x1 - x] = r[y0:y1, x0:x1]
            cases.append({"in": [w, h, i], "out": [ow, oh, f], "sum": fnv(r), "samples": samples(r, 5),
                          "crop": [x, y, cw, ch], "crop_sum": fnv(c)})
    # large ratios: only what a crop keeps, of the whole resized picture
    for i, (w, h, ow, oh) in enumerate([(20000, 1, 40000, 2), (1, 20000, 2, 40000), (3000, 2, 9000, 6)]):
        a = source(w, h, i + 1)
        r = np.array(Image.fromarray(a).resize((ow, oh), 3))
        x, y, cw, ch = ow // 2 - 20, oh // 2 - 20, 41, 40
        c = np.zeros((ch, cw, 3), np.uint8)
        x0, x1, y0, y1 = max(x, 0), min(x + cw, ow), max(y, 0), min(y + ch, oh)
        c[y0 - y:y1 - y, x0 - x:x1 - x] = r[y0:y1, x0:x1]
        cases.append({"in": [w, h, i + 1], "out": [ow, oh, 3], "sum": fnv(r), "samples": samples(r, 5),
                      "crop": [x, y, cw, ch], "crop_sum": fnv(c)})
    write("resize.json", cases)
    print("resize:", len(cases))


# ---- preprocess --------------------------------------------------------------------------------------------------

CLASSES = {"CLIP": "clip", "Siglip": "siglip", "Llava": "llava", "ViT": "vit", "Blip": "blip", "DeiT": "deit",
           "Bit": "bit", "ChineseCLIP": "chinese_clip", "OwlViT": "owlvit", "Pvt": "pvt",
           "MobileNetV1": "mobilenet_v1", "Chameleon": "chameleon"}
LATER = {"Gemma3": "gemma3"}  # with keys left out only: the random cases stay as they were


def processor(name):
    of = {**CLASSES, **LATER}[name]
    module = importlib.import_module("transformers.models.%s.image_processing_pil_%s" % (of, of))
    return getattr(module, name + "ImageProcessorPil")


def prep_case(name, cfg, w, h, seed):
    im = Image.fromarray(source(w, h, seed))
    full = dict(cfg, image_processor_type=name + "ImageProcessor")
    case = {"config": full, "in": [w, h, seed]}
    try:
        kw = {k: v for k, v in cfg.items()}
        f = processor(name).from_dict(copy.deepcopy(kw))(im, return_tensors="np")["pixel_values"][0]
        u = processor(name).from_dict(copy.deepcopy(kw))(im, return_tensors="np", do_rescale=False,
                                                         do_normalize=False)["pixel_values"][0]
    except ValueError:
        case["error"] = True
        return case
    u = u.transpose(1, 2, 0).astype(np.uint8)
    f = f.transpose(1, 2, 0)
    case.update(w=u.shape[1], h=u.shape[0], sum=fnv(u), samples=samples(u, 4))
    case["floats"] = [[float(v) for v in f[y, x]] for x, y, *_ in case["samples"]]
    return case


def write_prep():
    cases = []
    for name in CLASSES:
        cases.append(prep_case(name, {}, 90, 61, 1) if name not in ("Chameleon", "OwlViT") else
                     prep_case(name, {"size": 40, "crop_size": 32}, 90, 61, 1))
    S = lambda *a: cases.append(prep_case(*a))
    clip96 = {"size": {"shortest_edge": 96}, "crop_size": {"height": 96, "width": 96}, "do_center_crop": True}
    for w, h in ((96, 96), (192, 96), (96, 300), (97, 131), (1, 1), (3, 400), (400, 3), (500, 333), (1000, 7)):
        S("CLIP", clip96, w, h, w + h)
        S("Llava", dict(clip96, do_pad=True), w, h, w + h + 1)
        S("Siglip", {"size": {"height": 42, "width": 56}}, w, h, w + h)
    S("CLIP", {"size": 30, "crop_size": 20}, 50, 40, 3)
    S("CLIP", {"size": 30, "crop_size": 45}, 50, 41, 3)
    S("CLIP", {"size": 30, "crop_size": [45, 20]}, 51, 40, 5)
    S("Siglip", {"size": 30}, 50, 40, 5)
    S("ViT", {"size": 30}, 50, 40, 5)
    S("CLIP", {"size": [30, 20], "do_center_crop": False}, 50, 40, 5)
    S("CLIP", {"size": {"max_height": 30, "max_width": 20}, "do_center_crop": False}, 50, 40, 5)
    S("CLIP", {"size": {"shortest_edge": 30, "longest_edge": 37}, "do_center_crop": False}, 50, 40, 5)
    S("CLIP", {"size": None}, 50, 40, 5)
    S("CLIP", {"crop_size": None}, 50, 40, 5)
    S("CLIP", {"do_resize": None, "crop_size": 30}, 50, 40, 5)
    S("CLIP", {"use_square_size": True, "do_center_crop": False}, 50, 40, 5)
    S("Llava", {"do_pad": True, "do_resize": False, "do_center_crop": False}, 31, 20, 7)
    S("Llava", {"do_pad": True, "image_mean": [0.1, 0.2, 0.3], "size": {"height": 60, "width": 20}, "crop_size": 20}, 31, 90, 7)
    S("Llava", {"do_pad": True, "size": {"height": 12, "width": 90}, "do_center_crop": False}, 91, 50, 7)
    S("Blip", {"do_pad": True, "size": {"height": 12, "width": 9}}, 31, 50, 7)
    e = lambda: random.choice([random.randint(1, 60), random.randint(1, 150), 32])
    while len(cases) < 190:
        cfg = {}
        if random.random() < 0.9:
            cfg["size"] = random.choice([e(), {"shortest_edge": e()}, {"height": e(), "width": e()}, [e(), e()],
                                         {"shortest_edge": e(), "longest_edge": random.randint(10, 200)},
                                         {"max_height": e(), "max_width": e()}])
        if random.random() < 0.8:
            cfg["crop_size"] = random.choice([e(), {"height": e(), "width": e()}])
        for k in ("do_resize", "do_center_crop", "do_rescale", "do_normalize", "default_to_square"):
            if random.random() < 0.25:
                cfg[k] = random.random() < 0.5
        if random.random() < 0.5:
            cfg["do_pad"] = random.random() < 0.7
        if random.random() < 0.5:
            cfg["resample"] = random.randint(0, 5)
        if random.random() < 0.3:
            cfg["image_mean"] = random.choice([[0.5, 0.5, 0.5], [0.1, 0.2, 0.3], [0.0, 0.0, 0.0]])
        if random.random() < 0.3:
            cfg["image_std"] = random.choice([[0.5, 0.4, 0.3], [1.0, 1.0, 1.0]])
        if random.random() < 0.2:
            cfg["rescale_factor"] = random.choice([1 / 255, 1 / 127.5, 0.5])
        w, h = random.choice([(random.randint(1, 80), random.randint(1, 80)), (random.randint(1, 300), random.randint(1, 200)),
                              (random.randint(1, 300), random.randint(1, 6)), (random.randint(1, 6), random.randint(1, 300))])
        name = random.choice(["CLIP", "Siglip", "Llava", "Llava"] + list(CLASSES))
        c = prep_case(name, cfg, w, h, random.randint(0, 99))
        if c.get("w", 1) * c.get("h", 1) <= 200000:
            cases.append(c)
    cases += [prep_case(name, cfg, 90, 61, 1) for name in LATER for cfg in ({}, {"size": 30}, {"size": {"height": 20, "width": 31}})]
    write("prep.json", cases)
    print("prep:", len(cases), "of them errors:", sum("error" in c for c in cases))


if __name__ == "__main__":
    os.makedirs(PICS, exist_ok=True)
    write_decode()
    write_resize()
    write_prep()
