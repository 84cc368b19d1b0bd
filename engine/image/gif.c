/* gif.c - GIF: the header by our own walk over the blocks, the first frame by giflib.
 *
 * Thread: any. Owner of memory: giflib frees what it allocates when the file is closed in each call.
 * Only the first frame is read. What it leaves uncovered has the transparent color (white) when there is one,
 * else color 0; a frame over the canvas' edge makes the canvas larger: both as Pillow does. Source: GIF89a.
 * Tested by tests/engine/image/test_decode.c. */
#include <string.h>

#include <gif_lib.h>

#include "engine/image/codec.h"

static bool skip_blocks(codec_reader *r) {
    for (;;) {
        uint8_t n;
        if (!codec_read(r, &n, 1)) return false;
        if (!n) return true;
        if (!codec_skip(r, n)) return false;
    }
}

bool gif_header(codec_reader *r, codec_header *out, status *st) {
    uint8_t b[9];
    if (!codec_read(r, b, 7)) return false;
    out->w = (int)le16(b);
    out->h = (int)le16(b + 2);
    if (b[4] & 0x80 && !codec_skip(r, 3u << ((b[4] & 7) + 1))) return false;
    for (;;) {
        if (!codec_read(r, b, 1)) return false;
        if (b[0] == 0x2c) break;
        if (b[0] == 0x3b) return codec_broken(st, "GIF", "it ends before any picture");
        if (b[0] != 0x21) return codec_broken(st, "GIF", "a block of unknown kind");
        if (!codec_read(r, b, 1) || !skip_blocks(r)) return false;
    }
    if (!codec_read(r, b, 9)) return false;
    out->fx = (int)le16(b);
    out->fy = (int)le16(b + 2);
    out->fw = (int)le16(b + 4);
    out->fh = (int)le16(b + 6);
    out->interlaced = b[8] & 0x40;
    if (out->fw < 1 || out->fh < 1) return codec_broken(st, "GIF", "its first frame has no pixels");
    if (out->fx + out->fw > out->w) out->w = out->fx + out->fw;
    if (out->fy + out->fh > out->h) out->h = out->fy + out->fh;
    out->work_bytes = (size_t)out->fw + ((size_t)1 << 17);
    /* a code has 3 bits or more and stands for 4,096 pixels at most */
    out->min_bytes = (uint64_t)out->fw * (uint64_t)out->fh * 3 / (8 * 4096);
    return true;
}

typedef struct source {
    const uint8_t *p;
    size_t left;
} source;

static int on_read(GifFileType *g, GifByteType *dst, int n) {
    source *s = g->UserData;
    size_t k = n < 0 ? 0 : (size_t)n < s->left ? (size_t)n : s->left;
    memcpy(dst, s->p, k);
    s->p += k;
    s->left -= k;
    return (int)k;
}

static bool run(GifFileType *g, const codec_header *h, uint8_t *line, image *out, status *st) {
    int transparent = -1;
    for (;;) {
        GifRecordType type;
        if (DGifGetRecordType(g, &type) != GIF_OK) return codec_broken(st, "GIF", "a block of unknown kind");
        if (type == IMAGE_DESC_RECORD_TYPE) break;
        if (type != EXTENSION_RECORD_TYPE) return codec_broken(st, "GIF", "it ends before any picture");
        int code;
        GifByteType *ext;
        GraphicsControlBlock gcb;
        if (DGifGetExtension(g, &code, &ext) != GIF_OK)
            return codec_broken(st, "GIF", "an extension is cut off");
        while (ext) {
            if (code == GRAPHICS_EXT_FUNC_CODE && DGifExtensionToGCB(ext[0], ext + 1, &gcb) == GIF_OK)
                transparent = gcb.TransparentColor;
            if (DGifGetExtensionNext(g, &ext) != GIF_OK)
                return codec_broken(st, "GIF", "an extension is cut off");
        }
    }
    if (DGifGetImageDesc(g) != GIF_OK) {
        if (g->Error == D_GIF_ERR_NOT_ENOUGH_MEM) return codec_no_memory(st, h->work_bytes);
        return codec_broken(st, "GIF", "its first frame is cut off");
    }
    if (g->Image.Width != h->fw || g->Image.Height != h->fh || g->Image.Left != h->fx ||
        g->Image.Top != h->fy)
        return codec_broken(st, "GIF", "it contains two headers of different sizes");
    /* without a palette the values are grey */
    uint8_t rgb[256][3];
    for (int i = 0; i < 256; i++) memset(rgb[i], i, 3);
    const ColorMapObject *map = g->Image.ColorMap ? g->Image.ColorMap : g->SColorMap;
    for (int i = 0; map && i < map->ColorCount && i < 256; i++) {
        rgb[i][0] = map->Colors[i].Red;
        rgb[i][1] = map->Colors[i].Green;
        rgb[i][2] = map->Colors[i].Blue;
    }
    if (transparent >= 0 && transparent < 256) memset(rgb[transparent], 255, 3);
    if (h->fw != h->w || h->fh != h->h) {
        const uint8_t *fill = rgb[transparent >= 0 && transparent < 256 ? transparent : 0];
        for (size_t i = 0, n = (size_t)h->w * (size_t)h->h; i < n; i++) memcpy(out->rgb + 3 * i, fill, 3);
    }
    static const int start[4] = {0, 4, 2, 1}, step[4] = {8, 8, 4, 2};
    for (int pass = h->interlaced ? 0 : 4; pass < 5; pass++) {
        if (pass == 4 && h->interlaced) break;
        int from = pass < 4 ? start[pass] : 0, by = pass < 4 ? step[pass] : 1;
        for (int y = from; y < h->fh; y += by) {
            if (DGifGetLine(g, line, h->fw) != GIF_OK)
                return codec_broken(st, "GIF", "its data ends before the last row, or makes no sense");
            uint8_t *d = out->rgb + ((size_t)(h->fy + y) * (size_t)h->w + (size_t)h->fx) * 3;
            for (int x = 0; x < h->fw; x++) memcpy(d + 3 * x, rgb[line[x]], 3);
        }
    }
    return true;
}

bool gif_decode(const uint8_t *file, size_t n, const codec_header *h, image *out, status *st) {
    source s = {file, n};
    int code = 0;
    if (!codec_alloc(out, h->w, h->h, st)) return false;
    uint8_t *line = mem_alloc((size_t)h->fw);
    if (!line) return codec_no_memory(st, (size_t)h->fw);
    GifFileType *g = DGifOpen(&s, on_read, &code);
    bool ok = false;
    if (!g) {
        /* gif_header has seen a whole screen descriptor: giflib had no memory for its palette */
        if (code == D_GIF_ERR_NOT_ENOUGH_MEM || code == D_GIF_ERR_NO_SCRN_DSCR)
            codec_no_memory(st, h->work_bytes);
        else
            codec_broken(st, "GIF", "its header is cut off");
    } else {
        ok = run(g, h, line, out, st);
        DGifCloseFile(g, &code);
    }
    mem_free(line);
    return ok;
}
