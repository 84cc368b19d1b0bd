/* base64.c - base64 decoding: the scalar path, the choice of the vector path, and data URLs.
 *
 * Thread: any. Owner of memory: the caller's buf. See base64.h for what is accepted. */
#include "engine/image/base64.h"

#include <string.h>
#include <strings.h>

#include "engine/image/codec.h"

enum { B64_BAD = 0x80, B64_SPACE, B64_PAD, B64_ESCAPE };

/* Digit values; 0x80 and over are the classes above. */
#define X B64_BAD
static const uint8_t digit_of[256] = {
    X,         X,  X,  X,  X,  X,  X,  X,  X,  B64_SPACE, B64_SPACE, B64_SPACE, B64_SPACE,  B64_SPACE, X,  X,
    X,         X,  X,  X,  X,  X,  X,  X,  X,  X,         X,         X,         X,          X,         X,  X,
    B64_SPACE, X,  X,  X,  X,  X,  X,  X,  X,  X,         X,         62,        X,          62,        X,  63,
    52,        53, 54, 55, 56, 57, 58, 59, 60, 61,        X,         X,         X,          B64_PAD,   X,  X,
    X,         0,  1,  2,  3,  4,  5,  6,  7,  8,         9,         10,        11,         12,        13, 14,
    15,        16, 17, 18, 19, 20, 21, 22, 23, 24,        25,        X,         B64_ESCAPE, X,         X,  63,
    X,         26, 27, 28, 29, 30, 31, 32, 33, 34,        35,        36,        37,         38,        39, 40,
    41,        42, 43, 44, 45, 46, 47, 48, 49, 50,        51,        X,         X,          X,         X,  X,
    X,         X,  X,  X,  X,  X,  X,  X,  X,  X,         X,         X,         X,          X,         X,  X,
    X,         X,  X,  X,  X,  X,  X,  X,  X,  X,         X,         X,         X,          X,         X,  X,
    X,         X,  X,  X,  X,  X,  X,  X,  X,  X,         X,         X,         X,          X,         X,  X,
    X,         X,  X,  X,  X,  X,  X,  X,  X,  X,         X,         X,         X,          X,         X,  X,
    X,         X,  X,  X,  X,  X,  X,  X,  X,  X,         X,         X,         X,          X,         X,  X,
    X,         X,  X,  X,  X,  X,  X,  X,  X,  X,         X,         X,         X,          X,         X,  X,
    X,         X,  X,  X,  X,  X,  X,  X,  X,  X,         X,         X,         X,          X,         X,  X,
    X,         X,  X,  X,  X,  X,  X,  X,  X,  X,         X,         X,         X,          X,         X,  X};
#undef X

void base64_begin(base64_state *b, const char *s, size_t n) {
    memset(b, 0, sizeof *b);
    b->start = b->p = (const uint8_t *)s;
    b->end = n ? b->p + n : b->p;
}

static int hex_digit(uint8_t c) {
    if (c >= '0' && c <= '9') return c - '0';
    c |= 0x20;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* Reads the JSON escape at b->p; its length, and the character it stands for in *c. 0: no escape we know. */
static size_t json_escape(const base64_state *b, uint8_t *c) {
    size_t left = (size_t)(b->end - b->p);
    if (left < 2) return 0;
    switch (b->p[1]) {
    case '/': *c = '/'; return 2;
    case 'n':
    case 'r':
    case 't':
    case 'f': *c = ' '; return 2;
    case 'u': break;
    default: return 0;
    }
    if (left < 6) return 0;
    unsigned v = 0;
    for (int i = 2; i < 6; i++) {
        int h = hex_digit(b->p[i]);
        if (h < 0) return 0;
        v = v << 4 | (unsigned)h;
    }
    if (v > 0x7f) return 0;
    *c = (uint8_t)v;
    return 6;
}

/* Takes one character (or escape). False at a byte that does not belong. Sets *out_n when a group is
 * complete. */
static bool take(base64_state *b, uint8_t *out, size_t *out_n) {
    uint8_t c = *b->p;
    size_t len = 1;
    uint8_t d = digit_of[c];
    if (d == B64_ESCAPE) {
        len = json_escape(b, &c);
        if (!len || c == '\\') return !(b->bad = true);
        d = digit_of[c];
    }
    if (d < 64) {
        if (b->n_pad) return !(b->bad = true);
        b->acc = b->acc << 6 | d;
        if (++b->n_acc == 4) {
            out[0] = (uint8_t)(b->acc >> 16);
            out[1] = (uint8_t)(b->acc >> 8);
            out[2] = (uint8_t)b->acc;
            *out_n += 3;
            b->acc = 0;
            b->n_acc = 0;
        }
    } else if (d == B64_PAD) {
        /* only after two or three digits, and no more than complete the group */
        if (b->n_acc < 2 || b->n_acc + b->n_pad >= 4) return !(b->bad = true);
        b->n_pad++;
    } else if (d != B64_SPACE) {
        return !(b->bad = true);
    }
    b->p += len;
    return true;
}

size_t base64_some(base64_state *b, uint8_t *out, size_t cap) {
    size_t n = 0;
    bool avx2 = codec_has_avx2();
    while (!b->bad && b->p < b->end && cap - n >= 3) {
        if (b->n_acc == 0 && !b->n_pad) {
            uint8_t *o = out + n;
            if (avx2) base64_blocks_avx2(&b->p, b->end, &o, out + cap);
            const uint8_t *p = b->p, *o_end = out + cap;
            while (b->end - p >= 4 && o_end - o >= 3) {
                uint8_t d0 = digit_of[p[0]], d1 = digit_of[p[1]], d2 = digit_of[p[2]], d3 = digit_of[p[3]];
                if ((d0 | d1 | d2 | d3) & 0x80) break;
                uint32_t v = (uint32_t)d0 << 18 | (uint32_t)d1 << 12 | (uint32_t)d2 << 6 | d3;
                o[0] = (uint8_t)(v >> 16);
                o[1] = (uint8_t)(v >> 8);
                o[2] = (uint8_t)v;
                o += 3;
                p += 4;
            }
            b->p = p;
            n = (size_t)(o - out);
            if (p >= b->end || cap - n < 3) break;
        }
        /* the character that stopped the fast path, and on to the end of its group */
        do {
            if (!take(b, out + n, &n)) return n;
        } while (b->p < b->end && (b->n_acc || b->n_pad));
    }
    if (!b->bad && b->p == b->end && b->n_acc && cap - n >= 2) { /* the last, unpadded or padded group */
        if (b->n_acc == 1) {
            b->bad = true;
            return n;
        }
        uint32_t v = b->acc << (6 * (4 - b->n_acc));
        out[n++] = (uint8_t)(v >> 16);
        if (b->n_acc == 3) out[n++] = (uint8_t)(v >> 8);
        b->n_acc = 0;
    }
    return n;
}

size_t base64_skip(base64_state *b, size_t n) {
    if (b->n_acc || b->n_pad || b->bad) return 0;
    size_t groups = n / 3, done = 0;
    while (groups >= 16 && b->end - b->p >= 64) {
        unsigned odd =
            0; /* white space, escapes and padding need the slow path; rubbish is found when decoding */
        for (int i = 0; i < 64; i++) odd |= (unsigned)(b->p[i] <= ' ' || b->p[i] == '\\' || b->p[i] == '=');
        if (odd) break;
        b->p += 64;
        groups -= 16;
        done += 48;
    }
    return done;
}

bool base64_decode(const char *s, size_t n, buf *out) {
    base64_state b;
    base64_begin(&b, s, n);
    /* digits cannot make more than this; 32 spare bytes let the vector path run to the end */
    if (!buf_reserve(out, n / 4 * 3 + 3 + 32)) return false;
    size_t got = base64_some(&b, (uint8_t *)out->data + out->len, n / 4 * 3 + 3 + 32);
    out->len += got;
    out->data[out->len] = 0;
    return !b.bad;
}

bool image_source_from_url(const char *url, size_t n, image_source *out, status *st) {
    static const char want[] = "a picture's url must be a data URL, data:image/...;base64,<data>";
    size_t head = 0, limit = n < 1024 ? n : 1024;
    while (head < limit && url[head] != ',') head++;
    if (n < 5 || strncasecmp(url, "data:", 5) != 0) {
        if (n >= 4 && strncasecmp(url, "http", 4) == 0)
            return status_set(st, ST_INVALID,
                              "%s; this server fetches nothing from the network, found a web address", want);
        return status_set(st, ST_INVALID, "%s; found no data: at its beginning", want);
    }
    if (head == limit) return status_set(st, ST_INVALID, "%s; found no comma after data:", want);
    if (head < 12 || strncasecmp(url + head - 7, ";base64", 7) != 0)
        return status_set(st, ST_INVALID, "%s; found no ;base64 before the comma", want);
    out->b64 = url + head + 1;
    out->n = n - head - 1;
    return true;
}
