/* fake_model.h - model.h without a model, for tests of what is above it: include in one file of a test
 * program, whose definitions then stand in for engine/model's.
 *
 * Its "keys" are a hash chain: what a row writes depends on its id (or picture row), position, rope_len and
 * on what its predecessor's slot holds, and in a span on all keys up to the span's end; a row's logits depend on all that
 * its page table leads to. So a wrong page, position, chunk border or splice, or a page given away too early, changes the
 * answer. */
#ifndef VLMD_TESTS_FAKE_MODEL_H
#define VLMD_TESTS_FAKE_MODEL_H

#include <stdio.h>
#include <string.h>

#include "engine/model/model.h"
#include "tests/tools/one_tile.h"

enum {
    FAKE_VOCAB = 2048,
    FAKE_WIDTH = 8,
    FAKE_IMAGE_ROWS = 9,
    FAKE_IMAGE_TOKEN = 4,
    FAKE_EOS = 2,
    FAKE_LAYERS = 2,
    FAKE_ENCODE_SLICES = 5,
    FAKE_MAX_POS = 256,
    FAKE_ROPE_POS = 96,     /* a dynamic rope: behind this a row depends on how long its prompt is */
    FAKE_POISON_ID = 1999,  /* a step with this id fails */
    FAKE_POISON_PIXEL = 255 /* a picture that begins with it fails in its third slice */
};

static both_ways fake_both_ways; /* of models loaded from now on */
/* Set: the device is lost, for steps (1) or for pictures (2). */
static atomic_int fake_lost __attribute__((unused));

/* Where the device works beside the host (delayed.h) a fault shows at the lane's next mark, not at the launch. */
static bool fake_delays, fake_fault[CTX_LANES];
static inline void fake_fail(ctx *c, const char *why) {
    if (fake_delays)
        fake_fault[c->lane] = true;
    else
        status_set(&c->st, ST_INTERNAL, "%s", why);
}

struct model {
    model_spec spec;
    backend *be;
};

static int fake_rows(const model_spec *s, const prep_plan *p) {
    (void)s, (void)p;
    return FAKE_IMAGE_ROWS;
}

model *model_open(const char *dir, backend *be, status *st) {
    (void)dir, (void)st;
    model *m = mem_calloc(1, sizeof *m);
    m->be = be;
    model_spec *s = &m->spec;
    s->family = "fake";
    s->text.vocab = FAKE_VOCAB;
    s->text.max_pos = FAKE_MAX_POS;
    s->text.stack =
        (stack_spec){.n_layers = FAKE_LAYERS, .width = FAKE_WIDTH, .heads = 1, .kv_heads = 1, .head_dim = 8};
    s->text.stack.rope = (rope_spec){.kind = ROPE_DYNAMIC, .factor = 2, .max_pos = FAKE_ROPE_POS};
    s->tower.stack = (stack_spec){.n_layers = 2, .width = FAKE_WIDTH, .heads = 1, .head_dim = 8};
    s->tower.image_size = 24;
    s->tower.patch = 8;
    s->fuse = FUSE_SPLICE;
    s->join.kind = JOIN_LINEAR;
    s->image_token = FAKE_IMAGE_TOKEN;
    s->bos = 1;
    s->eos[0] = FAKE_EOS;
    s->n_eos = 1;
    s->prep = (prep_spec){.size = PREP_SIZE_EXACT,
                          .size_w = 24,
                          .size_h = 24,
                          .filter = RESAMPLE_BILINEAR,
                          .rescale = 1,
                          .std = {1, 1, 1}};
    s->image_rows = fake_rows;
    s->both_ways = fake_both_ways;
    s->span_rows = fake_both_ways == BOTH_PICTURE ? FAKE_IMAGE_ROWS : 0;
    s->temperature = s->top_p = s->min_p = s->repetition_penalty = __builtin_nanf("");
    s->top_k = s->max_new_tokens = -1;
    return m;
}
model *model_load(const char *dir, backend *be, status *st) {
    return model_open(dir, be, st);
}
bool model_upload(model *m, status *st) {
    (void)m, (void)st;
    return true;
}
size_t model_device_bytes(const model *m) {
    (void)m;
    return 0;
}
void model_free(model *m) {
    mem_free(m);
}
const model_spec *model_get_spec(const model *m) {
    return &m->spec;
}
size_t model_weight_bytes(const model *m) {
    return sizeof *m;
}
dtype model_weight_dtype(const model *m) {
    (void)m;
    return DT_F32;
}
bool model_inspect(const char *dir, buf *out, status *st) {
    (void)dir, (void)out;
    return status_set(st, ST_UNSUPPORTED, "not a model");
}

static uint32_t fake_mix(uint32_t a, uint32_t b) {
    uint32_t h = (a ^ b * 0x9E3779B1u) * 0x85EBCA6Bu;
    h ^= h >> 15;
    h = (h + b) * 0xC2B2AE35u;
    return h ^ h >> 13;
}

/* A cell of the cache holds a hash as two halves, each exact in a float. */
static float *fake_cell(tensor pool, int32_t slot) {
    return (float *)pool.data + (size_t)slot * 8;
}
static void fake_put(tensor pool, int32_t slot, uint32_t h) {
    fake_cell(pool, slot)[0] = (float)(h & 0xFFFF);
    fake_cell(pool, slot)[1] = (float)(h >> 16);
}
static uint32_t fake_get(tensor pool, int32_t slot) {
    return (uint32_t)fake_cell(pool, slot)[0] | (uint32_t)fake_cell(pool, slot)[1] << 16;
}

static uint32_t fake_row_content(const step *s, int row) {
    int32_t id = ((const int32_t *)s->ids.data)[row];
    if (id >= 0) return fake_mix(1, (uint32_t)id);
    for (int i = 0; i < s->n_splices; i++) {
        int64_t k = row - s->splices[i].row;
        if (k < 0 || k >= s->splices[i].rows.d[0]) continue;
        const float *x = (const float *)s->splices[i].rows.data + k * s->splices[i].rows.ld;
        return fake_mix(2, (uint32_t)x[0] | (uint32_t)x[1] << 16);
    }
    check_failed(__FILE__, __LINE__, "a row without id and splice");
}

/* Runs row `row` of sequence q: checks its place, writes its cells. */
static void fake_run_row(const kv_pool *kv, const step *s, int q, int row) {
    const int32_t *pages = (const int32_t *)s->pages.data + (size_t)q * (size_t)s->pages.d[1];
    int32_t end = ((const int32_t *)s->q_start.data)[q + 1];
    int32_t pos = ((const int32_t *)s->pos.data)[row], slot = ((const int32_t *)s->slots.data)[row];
    CHECK(pos == ((const int32_t *)s->kv_len.data)[q] - (end - row));
    CHECK(slot >= KV_PAGE_TOK && slot < kv->n_pages * KV_PAGE_TOK);
    CHECK(slot == pages[pos / KV_PAGE_TOK] * KV_PAGE_TOK + pos % KV_PAGE_TOK);
    int32_t rope = ((const int32_t *)s->rope_len.data)[row], before = pos - 1;
    CHECK(rope > pos);
    for (int l = 0; l < kv->n_layers; l++) {
        uint32_t h = fake_mix((uint32_t)l + 7, fake_row_content(s, row));
        if (pos)
            h = fake_mix(
                h, fake_get(kv->k[l], pages[before / KV_PAGE_TOK] * KV_PAGE_TOK + before % KV_PAGE_TOK));
        h = fake_mix(fake_mix(h, (uint32_t)pos), rope > FAKE_ROPE_POS ? (uint32_t)rope : 0);
        fake_put(kv->k[l], slot, h);
        fake_put(kv->v[l], slot, ~h);
    }
}

/* What row `row` of a span becomes once the keys of all are there; and whether its limit is right. */
static void fake_run_span(const model *m, const kv_pool *kv, const step *s, int q, int row) {
    const int32_t *pages = (const int32_t *)s->pages.data + (size_t)q * (size_t)s->pages.d[1];
    int32_t limit = ((const int32_t *)s->limit.data)[row], pos = ((const int32_t *)s->pos.data)[row];
    int32_t rope = ((const int32_t *)s->rope_len.data)[row];
    if (m->spec.both_ways == BOTH_PICTURE) CHECK((((const int32_t *)s->ids.data)[row] < 0) == (limit > 0));
    if (m->spec.both_ways == BOTH_PROMPT) CHECK(limit == rope || (limit == 0 && rope == pos + 1));
    if (!limit) return;
    CHECK(limit > pos && limit <= ((const int32_t *)s->kv_len.data)[q]);
    uint32_t h = fake_mix(5, (uint32_t)pos);
    for (int p = 0; p < limit; p++)
        h = fake_mix(h, fake_get(kv->k[0], pages[p / KV_PAGE_TOK] * KV_PAGE_TOK + p % KV_PAGE_TOK));
    fake_put(kv->v[FAKE_LAYERS - 1], ((const int32_t *)s->slots.data)[row], h);
}

/* Blocks describe each row once, at its own place. */
static void fake_check_blocks(const step *s) {
    const int32_t *all = s->q_start.data, *pos = s->pos.data;
    CHECK(s->n_blocks == 0 || (s->n_rows > s->block_rows && s->n_rows <= s->n_blocks * s->block_rows));
    for (int b = 0, row = 0; b < s->n_blocks; b++) {
        const int32_t *start = s->blocks[b].q_start.data, *len = s->blocks[b].kv_len.data;
        int rows = s->n_rows - row < s->block_rows ? s->n_rows - row : s->block_rows;
        CHECK(start[0] == 0 && start[s->n_seqs] == rows);
        for (int q = 0; q < s->n_seqs; q++) {
            CHECK(len[q] >= start[q + 1] - start[q]);
            for (int i = start[q]; i < start[q + 1]; i++) {
                CHECK(row + i >= all[q] && row + i < all[q + 1]);
                CHECK(pos[row + i] == len[q] - (start[q + 1] - i));
            }
        }
        row += rows;
    }
}

static uint32_t fake_read_row(const kv_pool *kv, const step *s, int q, int row) {
    const int32_t *pages = (const int32_t *)s->pages.data + (size_t)q * (size_t)s->pages.d[1];
    int32_t pos = ((const int32_t *)s->pos.data)[row];
    uint32_t h = 99;
    for (int p = 0; p <= pos; p++) {
        int32_t slot = pages[p / KV_PAGE_TOK] * KV_PAGE_TOK + p % KV_PAGE_TOK;
        for (int l = 0; l < kv->n_layers; l++)
            h = fake_mix(h, fake_get(kv->k[l], slot) ^ fake_get(kv->v[l], slot) << 1);
    }
    return h;
}

static void fake_logits(float *x, uint32_t h) {
    for (int i = 0; i < FAKE_VOCAB; i++) x[i] = -6;
    for (uint32_t k = 0; k < 8; k++) {
        uint32_t g = fake_mix(h, k + 1000);
        x[5 + g % 1900] = 2 + (float)(g >> 20) / 2048;
    }
    if (h % 40 == 0) x[FAKE_EOS] = 9;
    x[FAKE_POISON_ID] = -1000; /* no answer brings it */
}

tensor decoder_forward(ctx *c, const model *m, const kv_pool *kv, const step *s) {
    tensor logits = ctx_2d(c, DT_F32, s->n_out, FAKE_VOCAB);
    if (c->dry || !ctx_ok(c)) return logits;
    const int32_t *q_start = s->q_start.data, *out_rows = s->out_rows.data, *ids = s->ids.data;
    for (int row = 0; row < s->n_rows; row++)
        if (ids[row] == FAKE_POISON_ID) fake_fail(c, "poisoned");
    if (atomic_load(&fake_lost) == 1) status_set(&c->st, ST_LOST, "a step that broke it");
    for (int q = 0; q < s->n_seqs; q++)
        for (int row = q_start[q]; row < q_start[q + 1]; row++) fake_run_row(kv, s, q, row);
    CHECK((s->limit.nd > 0) == (m->spec.both_ways != BOTH_NONE));
    for (int q = 0; q < s->n_seqs && s->limit.nd; q++)
        for (int row = q_start[q]; row < q_start[q + 1]; row++) fake_run_span(m, kv, s, q, row);
    fake_check_blocks(s);
    for (int i = 0, q = 0; i < s->n_out; i++) {
        while (q_start[q + 1] <= out_rows[i]) q++;
        fake_logits((float *)logits.data + (size_t)i * FAKE_VOCAB, fake_read_row(kv, s, q, out_rows[i]));
    }
    return logits;
}

/* ---- pictures ---- */

enum { FAKE_MOST_TOGETHER = 8 };
static int fake_room __attribute__((unused)); /* pictures that go together, beyond the first */
static int fake_encode_most __attribute__((unused)) = FAKE_MOST_TOGETHER; /* for more memory is short */
static int fake_encodes __attribute__((unused));                          /* that there are */
/* The most pictures that an encode was begun with; how many with several. */
static int fake_together __attribute__((unused)), fake_lots __attribute__((unused));

typedef struct fake_lot {
    encode *all[FAKE_MOST_TOGETHER];
    int n, n_left, slice;
} fake_lot;

struct encode {
    fake_lot *lot;
    uint32_t hash;
    bool poisoned;
    float rows[FAKE_IMAGE_ROWS * FAKE_WIDTH];
};

size_t encode_bytes(const model_spec *s, const prep_plan *plan) {
    (void)s, (void)plan;
    return sizeof(encode);
}
bool encode_new_many(const model *m, backend *be, const tiles *const *pixels, int n, encode **out,
                     status *st) {
    (void)m, (void)be;
    if (n > fake_encode_most) return status_set(st, ST_NO_MEMORY, "no memory for %d pictures", n);
    fake_lot *l = mem_calloc(1, sizeof *l);
    CHECK(l && n <= FAKE_MOST_TOGETHER && n <= 1 + fake_room);
    l->n = l->n_left = n;
    if (n > 1) fake_lots++;
    if (n > fake_together) fake_together = n;
    for (int i = 0; i < n; i++) {
        encode *e = out[i] = l->all[i] = mem_calloc(1, sizeof *e);
        fake_encodes++;
        e->lot = l;
        if (!pixels[i]->rgb) continue;
        e->poisoned = pixels[i]->rgb[0] == FAKE_POISON_PIXEL;
        for (size_t k = 0; k < pixels[i]->plan.bytes; k++) e->hash = fake_mix(e->hash, pixels[i]->rgb[k]);
    }
    return true;
}
encode *encode_new(const model *m, backend *be, const tiles *pixels, status *st) {
    encode *e;
    return encode_new_many(m, be, &pixels, 1, &e, st) ? e : NULL;
}
int encode_room_beside(const model_spec *s, const prep_plan *p) {
    (void)s, (void)p;
    return fake_room;
}
bool encode_goes_beside(const model_spec *s, const prep_plan *p, const prep_plan *other) {
    (void)s;
    return p->bytes == other->bytes;
}
bool encode_run(ctx *c, encode *e, int max_slices) {
    fake_lot *l = e->lot;
    CHECK(l->n_left == l->n); /* nobody has left */
    if (!c->dry && atomic_load(&fake_lost) == 2)
        return status_set(&c->st, ST_LOST, "a picture that broke it");
    for (int i = 0; i < max_slices && l->slice < FAKE_ENCODE_SLICES; i++) {
        ctx_2d(c, DT_F32, FAKE_IMAGE_ROWS, FAKE_WIDTH);
        l->slice++;
        for (int k = 0; k < l->n; k++) {
            if (l->slice == 3 && l->all[k]->poisoned) fake_fail(c, "poisoned picture");
            l->all[k]->hash = fake_mix(l->all[k]->hash, (uint32_t)l->slice);
        }
        if (!ctx_ok(c)) return false;
    }
    for (int k = 0; k < l->n; k++)
        for (uint32_t r = 0; r < FAKE_IMAGE_ROWS; r++) {
            uint32_t h = fake_mix(l->all[k]->hash, r);
            l->all[k]->rows[r * FAKE_WIDTH] = (float)(h & 0xFFFF);
            l->all[k]->rows[r * FAKE_WIDTH + 1] = (float)(h >> 16);
        }
    return l->slice == FAKE_ENCODE_SLICES;
}
int encode_slices(const encode *e) {
    (void)e;
    return FAKE_ENCODE_SLICES;
}
const prep_plan *encode_plan(const encode *e) {
    (void)e;
    return NULL;
}
tensor encode_rows(const encode *e) {
    return tensor_2d((void *)(uintptr_t)e->rows, DT_F32, FAKE_IMAGE_ROWS, FAKE_WIDTH);
}
size_t encode_kept_bytes(const encode *e) {
    (void)e;
    return FAKE_IMAGE_ROWS * FAKE_WIDTH * sizeof(float);
}
void encode_shrink(encode *e) {
    if (e->lot && --e->lot->n_left == 0) mem_free(e->lot);
    e->lot = NULL;
}
void encode_free(encode *e) {
    if (!e) return;
    encode_shrink(e);
    fake_encodes--;
    mem_free(e);
}

#endif
