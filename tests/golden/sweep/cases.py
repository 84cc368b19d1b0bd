"""Pictures and prompts of the sweep."""
import base64
import io
import math

import common
from common import img, txt
from PIL import Image, ImageOps

import make_models as mm

LONG = " ".join(["The road leads over the hill, past three red houses, to the harbour; who walks there?"] * 14)
ODD = "  \u00c9t\u00e9\u200d \u4e2d\u6587\u3002\U0001f468\u200d\U0001f469\u200d\U0001f467 a\u0301 \u2028<b>&amp;\t\n\nok "


def _png(im, **more):
    b = io.BytesIO()
    im.save(b, "PNG", **more)
    return b.getvalue()


def _jpeg(im, **more):
    b = io.BytesIO()
    im.save(b, "JPEG", **more)
    return b.getvalue()


def _frames(ims, kind, **more):
    b = io.BytesIO()
    ims[0].save(b, kind, save_all=len(ims) > 1, append_images=ims[1:], **more)
    return b.getvalue()


def _turned(im, how):
    e = Image.Exif()
    e[0x0112] = how
    return _jpeg(im, exif=e)


def _alpha(im):
    a = im.copy()
    a.putalpha(Image.linear_gradient("L").resize(im.size))
    return a


def _made():
    s = mm.scene
    out = {"one.png": _png(s(1, 1, 1)), "big.jpg": _jpeg(s(1500, 900, 2)), "bigtall.jpg": _jpeg(s(900, 1500, 3), quality=60),
           "alpha.png": _png(_alpha(s(70, 50, 4))), "greyalpha.png": _png(_alpha(s(33, 65, 5).convert("L"))),
           "palette.png": _png(s(64, 41, 6).quantize(17)), "bits.png": _png(s(40, 40, 7).convert("1")),
           "cmyk.jpg": _jpeg(s(60, 44, 8).convert("CMYK")), "progressive.jpg": _jpeg(s(120, 77, 9), progressive=True),
           "row.png": _png(s(90, 1, 10)), "column1.png": _png(s(1, 60, 11)), "square.png": _png(s(224, 224, 12)),
           "half.png": _png(s(112, 56, 13)), "odd.png": _png(s(97, 89, 14)), "interlaced.png": _png(s(50, 61, 15))}
    deep = s(50, 34, 16).convert("L").convert("I;16").point(lambda x: x * 257)
    out["deep.png"] = _png(deep)
    three, clear = [s(50, 38, k) for k in (31, 32, 33)], s(44, 52, 34).quantize(9)
    out.update({"moving.gif": _frames([x.quantize(32) for x in three], "GIF", duration=40, loop=0),
                "still.gif": _frames([s(30, 47, 35).quantize(200)], "GIF"),
                "clear.gif": _frames([clear], "GIF", transparency=3), "clear.png": _png(clear, transparency=3),
                "grey.gif": _frames([s(31, 29, 36).convert("L")], "GIF"),
                "moving.webp": _frames(three, "WEBP", duration=40, lossless=True),
                "lossless.webp": _frames([_alpha(s(61, 35, 37))], "WEBP", lossless=True),
                "lossy.webp": _frames([s(83, 64, 38)], "WEBP", quality=60), "dot.png": _png(s(1, 1, 39)),
                "line.png": _png(s(2000, 3, 40)), "pole.jpg": _jpeg(s(2, 1500, 41)), "greyclear.png": _png(
                    s(40, 33, 42).convert("L"), transparency=128), "two.png": _png(s(37, 36, 43).quantize(4), bits=2)})
    for how in (2, 3, 4, 5, 6, 7, 8):
        out[f"turned{how}.jpg"] = _turned(s(100, 60, 20 + how), how)
    for name in ("wide.jpg", "tall.png", "grey.jpg", "other.jpg", "strip.png", "tiny.png", "column.png", "exact28.png",
                 "exact56.png", "exact96.png"):
        out[name] = next(p for f in (common.HERE, mm.HERE) if (p := f / "pictures" / name).exists()).read_bytes()
    return out


class Pictures:
    def __init__(self):
        common.pictures()
        self.bytes = _made()
        self.names = sorted(self.bytes)

    def draw(self, r):
        """One of them, or one of any size."""
        if r.random() < .5:
            return r.choice(self.names)
        w, h = (max(1, int(math.exp(r.uniform(r.choice([0, 3]), 6.5)))) for _ in range(2))
        name = f"{w}x{h}-{r.randrange(100)}.png"
        self.bytes[name] = _png(mm.scene(w, h, w * h))
        return name

    def url(self, name):
        kind = name.rsplit(".", 1)[1].replace("jpg", "jpeg")
        return f"data:image/{kind};base64," + base64.b64encode(self.bytes[name]).decode()

    def of(self, name):
        """As docs/parity.md says that a picture is read: turned, alpha over white, the high byte of 16 bits."""
        im = ImageOps.exif_transpose(Image.open(io.BytesIO(self.bytes[name])))
        if im.mode.startswith("I"):
            im = im.point(lambda x: x / 256).convert("L")
        if "transparency" in im.info:
            im = im.convert("RGBA")
        if im.mode in ("LA", "RGBA"):
            im = Image.alpha_composite(Image.new("RGBA", im.size, "white"), im.convert("RGBA"))
        return im.convert("RGB")


def cases(r, pictures, least, most):
    """(name, messages made from a question). least, most: how many pictures a prompt takes."""
    def user(*parts):
        return {"role": "user", "content": list(parts)}

    def one():
        return img(pictures.draw(r))
    said = {"role": "assistant", "content": [txt("A blue circle.")]}
    system = {"role": "system", "content": "You are a careful helper."}
    out = []
    if least == 0:
        out = [("text", lambda a: [{"role": "user", "content": a}]),
               ("turns", lambda a: [system, user(txt("What?")), said, user(txt(a))]),
               ("long", lambda a: [user(txt(LONG + " " + a))]),
               ("odd", lambda a: [user(txt(ODD + a))])]
        out = r.sample(out, 4 if most == 0 else 1)
    if most:
        for _ in range(3):
            p = one()
            out.append(("one " + p["path"], lambda a, p=p: [user(p, txt(a))]))
        p, s = one(), r.choice([LONG[:200] + " ", ODD, ""])
        out.append(("behind " + p["path"], lambda a: [user(txt(s + a), p)]))
    if most > 1:
        p, q, n = one(), one(), r.choice([2, 3, 6])
        many = [one() for _ in range(min(n, most))]
        if r.random() < .3:
            many[-1] = many[0]
        out.append(("apart", lambda a: [user(p, txt("and"), q, txt(a))]))
        out.append((f"{len(many)} pictures", lambda a: [user(*many, txt(a))]))
        if least == 0:
            out.append(("two turns", lambda a: [system, user(p, txt("What is it?")), said, user(txt(a), q)]))
    return out
