/* embed_run.c - see embed_run.h. */
#include "engine/embed_run.h"

#include <string.h>

enum { N_ARRAYS = 5 };

/* Errors of a context stick; the next step begins with a clean one. */
static bool take_error(ctx *c, status *st) {
    bool ok = ctx_ok(c);
    if (!ok && st->code == ST_OK) *st = c->st;
    c->st = (status){0};
    return ok;
}

static size_t array_len(int max_rows) { /* 64 bytes each, and one more than rows for q_start */
    return ((size_t)max_rows + 1 + 15) / 16 * 16;
}

static bool init_arrays(embed_run *r, status *st) {
    size_t each = array_len(r->max_rows);
    r->host = mem_calloc(N_ARRAYS * each, sizeof(int32_t));
    r->vectors = mem_calloc((size_t)r->max_rows * (size_t)r->width, sizeof(float));
    if (!r->host || !r->vectors)
        return status_set(st, ST_NO_MEMORY, "no memory for a step of %d rows", r->max_rows);
    int32_t **to[N_ARRAYS] = {&r->ids, &r->pos, &r->q_start, &r->kv_len, &r->out_rows};
    for (size_t i = 0; i < N_ARRAYS; i++) *to[i] = r->host + i * each;
    r->dev = backend_alloc(r->be, N_ARRAYS * each * sizeof(int32_t), st);
    return r->dev != NULL;
}

static tensor array(const embed_run *r, const int32_t *host, int64_t n) {
    return tensor_1d(r->dev + (host - r->host), DT_I32, n);
}

/* ---- how much scratch: the same forward code, run dry ---- */

static bool measure_texts(const model *m, ctx *dry, int rows, status *st) {
    tensor n = tensor_1d(NULL, DT_I32, rows), starts = tensor_1d(NULL, DT_I32, rows + 1);
    step s = {.n_rows = rows,
              .n_seqs = rows,
              .n_out = rows,
              .ids = n,
              .pos = n,
              .q_start = starts,
              .kv_len = n,
              .out_rows = n};
    dual_text(dry, m, &s);
    return take_error(dry, st) || status_prefix(st, "a step of %d rows", rows);
}

/* A picture that is a line of as many patches as there may be, or the tower's one size. */
static bool measure_picture(const model *m, ctx *dry, status *st) {
    const tower_spec *t = &model_get_spec(m)->tower;
    tiles none = {0};
    int w = t->pos_side ? t->max_patches * t->patch : t->image_size,
        h = t->pos_side ? t->patch : t->image_size;
    const image_limits any = {.max_pixels = INT64_MAX};
    prep_plan_add(&none.plan, -1, 0, 0, w, h, w, h, RESAMPLE_NEAREST);
    if (!prep_plan_finish(&none.plan, w, h, &any, st)) return false;
    encode *e = encode_new(m, dry->be, &none, st);
    if (!e) return false;
    arena_reset(dry->scratch, 0);
    encode_run(dry, e, encode_slices(e));
    encode_free(e);
    return take_error(dry, st) || status_prefix(st, "a picture's encode");
}

static bool measure(backend *be, const model *m, int max_rows, size_t *scratch, status *st) {
    arena counting = {0};
    ctx dry = {.be = be, .scratch = &counting, .dry = true};
    if (!measure_texts(m, &dry, max_rows, st) || !measure_picture(m, &dry, st)) return false;
    *scratch = counting.peak_bytes + 64;
    return true;
}

bool embed_run_measure(backend *be, const model *m, int max_rows, size_t *bytes, status *st) {
    if (!measure(be, m, max_rows, bytes, st)) return false;
    *bytes += N_ARRAYS * array_len(max_rows) * sizeof(int32_t);
    return true;
}

static bool plan_scratch(embed_run *r, status *st) {
    size_t bytes;
    if (!measure(r->be, r->model, r->max_rows, &bytes, st)) return false;
    r->scratch = (arena){.base = backend_alloc(r->be, bytes, st), .cap_bytes = bytes};
    return r->scratch.base || status_prefix(st, "activations of %.1f MiB", (double)bytes / (1 << 20));
}

bool embed_run_init(embed_run *r, backend *be, const model *m, int max_rows, status *st) {
    *r = (embed_run){.be = be, .model = m, .width = model_get_spec(m)->dual.width, .max_rows = max_rows};
    r->c = (ctx){.be = be, .scratch = &r->scratch};
    if (init_arrays(r, st) && plan_scratch(r, st)) return true;
    embed_run_fini(r);
    return false;
}

void embed_run_fini(embed_run *r) {
    if (r->scratch.base) backend_release(r->be, r->scratch.base);
    if (r->dev) backend_release(r->be, r->dev);
    mem_free(r->host);
    mem_free(r->vectors);
    *r = (embed_run){0};
}

void embed_run_clear(embed_run *r) {
    r->n_rows = r->n_texts = 0;
    r->q_start[0] = 0;
}

bool embed_run_add(embed_run *r, const embed_item *it, const int32_t *ids) {
    if (it->n > r->max_rows - r->n_rows) return false;
    memcpy(r->ids + r->n_rows, ids, (size_t)it->n * sizeof *ids);
    for (int i = 0; i < it->n; i++) r->pos[r->n_rows + i] = i;
    r->out_rows[r->n_texts] = r->n_rows + it->pick;
    r->kv_len[r->n_texts++] = it->n;
    r->q_start[r->n_texts] = r->n_rows += it->n;
    return true;
}

bool embed_run_step(embed_run *r, status *st) {
    int rows = r->n_rows, texts = r->n_texts;
    step s = {.n_rows = rows, .n_seqs = texts, .n_out = texts};
    s.ids = array(r, r->ids, rows);
    s.pos = array(r, r->pos, rows);
    s.q_start = array(r, r->q_start, texts + 1);
    s.kv_len = array(r, r->kv_len, texts);
    s.out_rows = array(r, r->out_rows, texts);
    arena_reset(&r->scratch, 0);
    ctx_upload(&r->c, s.ids, r->ids);
    ctx_upload(&r->c, s.pos, r->pos);
    ctx_upload(&r->c, s.q_start, r->q_start);
    ctx_upload(&r->c, s.kv_len, r->kv_len);
    ctx_upload(&r->c, s.out_rows, r->out_rows);
    tensor v = dual_text(&r->c, r->model, &s);
    ctx_download(&r->c, r->vectors, v);
    return take_error(&r->c, st);
}

bool embed_run_slice(embed_run *r, encode *e, status *st) {
    arena_reset(&r->scratch, 0);
    bool ready = encode_run(&r->c, e, 1);
    return take_error(&r->c, st) && ready;
}

bool embed_run_row(embed_run *r, const encode *e, float *vector, status *st) {
    ctx_download(&r->c, vector, encode_rows(e));
    return take_error(&r->c, st);
}
