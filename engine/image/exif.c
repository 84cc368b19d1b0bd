/* exif.c - the orientation that a camera wrote into the file, and turning a picture by it.
 *
 * Thread: any. Owner of memory: exif_apply replaces im->rgb. Source: Exif 2.32 (tag 0x0112), TIFF 6.0. */
#include <string.h>

#include "engine/image/codec.h"

int exif_orientation(const uint8_t *tiff, size_t n) {
    if (n < 8) return 1;
    bool little = memcmp(tiff, "II", 2) == 0;
    if (!little && memcmp(tiff, "MM", 2) != 0) return 1;
    size_t ifd = little ? le32(tiff + 4) : be32(tiff + 4);
    if (ifd > n || n - ifd < 2) return 1;
    size_t count = little ? le16(tiff + ifd) : be16(tiff + ifd);
    for (size_t i = 0; i < count; i++) {
        size_t at = ifd + 2 + 12 * i;
        if (at > n || n - at < 12) return 1;
        const uint8_t *e = tiff + at;
        uint32_t tag = little ? le16(e) : be16(e), type = little ? le16(e + 2) : be16(e + 2);
        if (tag != 0x0112) continue;
        uint32_t v = 0;
        if (type == 3) v = little ? le16(e + 8) : be16(e + 8);
        if (type == 4) v = little ? le32(e + 8) : be32(e + 8);
        if (type == 1) v = e[8];
        return v >= 1 && v <= 8 ? (int)v : 1;
    }
    return 1;
}

bool exif_apply(image *im, int orientation, status *st) {
    if (orientation <= 1 || orientation > 8) return true;
    bool swap = orientation >= 5;
    ptrdiff_t row = 3 * (ptrdiff_t)im->w, w = im->w, h = im->h;
    /* Where in the stored picture the first shown pixel lies, and the steps of one to the right and one down.
     */
    ptrdiff_t x0 = 0, y0 = 0, right = 3, down = row;
    switch (orientation) {
    case 2: x0 = w - 1, right = -3; break;
    case 3: x0 = w - 1, y0 = h - 1, right = -3, down = -row; break;
    case 4: y0 = h - 1, down = -row; break;
    case 5: right = row, down = 3; break;
    case 6: y0 = h - 1, right = -row, down = 3; break;
    case 7: x0 = w - 1, y0 = h - 1, right = -row, down = -3; break;
    case 8: x0 = w - 1, right = row, down = -3; break;
    }
    image out = {0};
    if (!codec_alloc(&out, swap ? im->h : im->w, swap ? im->w : im->h, st)) return false;
    const uint8_t *src = im->rgb + y0 * row + x0 * 3;
    enum { TILE = 32 }; /* so that a turn reads and writes within the cache */
    for (int ty = 0; ty < out.h; ty += TILE)
        for (int tx = 0; tx < out.w; tx += TILE)
            for (int y = ty; y < out.h && y < ty + TILE; y++) {
                uint8_t *d = out.rgb + ((size_t)y * (size_t)out.w + (size_t)tx) * 3;
                const uint8_t *s = src + y * down + tx * right;
                for (int x = tx; x < out.w && x < tx + TILE; x++, d += 3, s += right)
                    d[0] = s[0], d[1] = s[1], d[2] = s[2];
            }
    image_fini(im);
    *im = out;
    return true;
}
