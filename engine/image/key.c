/* key.c - see key.h. */
#include "engine/image/key.h"

#include <nettle/sha2.h>
#include <string.h>

static void put(struct sha256_ctx *c, uint32_t v) {
    const uint8_t b[4] = {(uint8_t)v, (uint8_t)(v >> 8), (uint8_t)(v >> 16), (uint8_t)(v >> 24)};
    sha256_update(c, sizeof b, b);
}

static void put_float(struct sha256_ctx *c, float v) {
    uint32_t bits;
    memcpy(&bits, &v, sizeof bits);
    put(c, bits);
}

/* Field by field: padding between them is not part of the picture. */
static void put_plan(struct sha256_ctx *c, const prep_plan *p) {
    put(c, (uint32_t)p->n_steps);
    for (const prep_step *s = p->steps; s < p->steps + p->n_steps; s++) {
        const int v[] = {s->from, s->x,           s->y,          s->w,          s->h,         s->rw,
                         s->rh,   (int)s->filter, s->cx,         s->cy,         s->cw,        s->ch,
                         s->tw,   s->th,          s->pad_rgb[0], s->pad_rgb[1], s->pad_rgb[2]};
        for (size_t i = 0; i < ARRAY_LEN(v); i++) put(c, (uint32_t)v[i]);
    }
}

static void put_prep(struct sha256_ctx *c, const prep_spec *p) {
    put_float(c, p->rescale);
    for (int i = 0; i < 3; i++) put_float(c, p->mean[i]);
    for (int i = 0; i < 3; i++) put_float(c, p->std[i]);
}

static void put_ids(struct sha256_ctx *c, const tiles *t) {
    put(c, (uint32_t)t->plan.n_text);
    CHECK(t->text || t->plan.n_text == 0);
    for (int i = 0; i < t->plan.n_text; i++) put(c, (uint32_t)t->text[i]);
}

static void put_text(struct sha256_ctx *c, const char *s) {
    sha256_update(c, strlen(s), (const uint8_t *)s);
}

void image_key(const tiles *t, int w, int h, const prep_spec *prep, uint8_t out[IMAGE_KEY_BYTES]) {
    struct sha256_ctx c;
    sha256_init(&c);
    put_text(&c, "vlmd pixels 3");
    put_text(&c, "RGB8");
    put(&c, (uint32_t)w);
    put(&c, (uint32_t)h);
    put_plan(&c, &t->plan);
    put_prep(&c, prep);
    put_ids(&c, t);
    sha256_update(&c, t->plan.bytes, t->rgb);
    sha256_digest(&c, IMAGE_KEY_BYTES, out);
}

void image_source_key(const image_source *src, const tiles *t, const prep_spec *prep,
                      uint8_t out[IMAGE_KEY_BYTES]) {
    struct sha256_ctx c;
    sha256_init(&c);
    put_text(&c, "vlmd base64 3");
    put_plan(&c, &t->plan);
    put_prep(&c, prep);
    put_ids(&c, t);
    sha256_update(&c, src->n, (const uint8_t *)src->b64);
    sha256_digest(&c, IMAGE_KEY_BYTES, out);
}
