/* join_room.c - the memory of a join within an encode's: what each kind keeps, where it lies, and what stands in it first.
 *
 * Thread: the engine's. The encode owns the memory. Tested by tests/e2e/test_parity.py. */
#include <string.h>

#include "engine/model/encode.h"

/* Tiles are of one size. */
static join_room pool_room(const model_spec *s, const prep_plan *p) {
    join_room r = {.tap_of = (int64_t)s->join.pool * s->join.pool};
    for (int i = 0; i < p->n_tiles; i++) {
        tile at = prep_plan_tile(p, i);
        int rows = join_rows(s, tower_grid(&s->tower, &at), p->n_text);
        CHECK(i == 0 || r.taps == rows);
        r.taps = rows;
    }
    return r;
}

static join_room room_of(const model_spec *s, const prep_plan *p, int64_t rows) {
    const join_spec *j = &s->join;
    switch (s->dual.on ? JOIN_NONE : j->kind) {
    case JOIN_POOL: return pool_room(s, p);
    case JOIN_PERCEIVER: return perceiver_room(j, rows);
    case JOIN_ATTEND: return attend_room(j, rows);
    case JOIN_QFORMER: return qformer_room(j, rows, p->n_text);
    case JOIN_READER: CHECK(p->n_tiles == 1 && p->n_text > 0); return reader_room(j, rows, p->n_text);
    case JOIN_NONE:
    case JOIN_LINEAR:
    case JOIN_MLP: break;
    }
    return (join_room){0};
}

/* The next tensor in turn, and what it takes. */
typedef struct cursor {
    uint8_t *at; /* NULL: shapes alone */
    size_t used;
} cursor;

static tensor next(cursor *c, dtype dt, int64_t rows, int64_t cols) {
    if (rows == 0) return (tensor){0};
    void *data = c->at ? c->at + c->used : NULL;
    c->used += ((size_t)(rows * cols) * dtype_size(dt) + 63) & ~(size_t)63;
    return tensor_2d(data, dt, rows, cols);
}

static size_t lay(encode *e, const model_spec *s, const prep_plan *p, int64_t features_rows, void *at) {
    join_room r = room_of(s, p, features_rows);
    const stack_spec *k = &s->join.stack;
    int64_t heads = (int64_t)k->heads * k->head_dim, keys = (int64_t)k->kv_heads * k->head_dim;
    cursor c = {.at = at};
    e->join_x = next(&c, DT_F32, r.own, k->width);
    e->join_q = next(&c, DT_F32, r.queries ? r.own : 0, heads);
    e->join_k = next(&c, DT_F32, r.keys, keys);
    e->join_v = next(&c, DT_F32, r.keys, keys);
    e->beside_k = next(&c, DT_F32, r.beside, keys);
    e->beside_v = next(&c, DT_F32, r.beside, keys);
    e->context = next(&c, DT_F32, r.context, k->width);
    e->pool_from = next(&c, DT_I32, r.taps, r.tap_of);
    e->pool_by = next(&c, DT_F32, r.taps, r.tap_of);
    e->join_ids = next(&c, DT_I32, r.ids ? 1 : 0, r.ids);
    return c.used;
}

size_t join_room_bytes(const model_spec *s, const prep_plan *p, int64_t features_rows) {
    encode shapes = {0};
    return lay(&shapes, s, p, features_rows, NULL);
}

void join_room_point(encode *e, void *at, int64_t features_rows) {
    lay(e, &e->m->spec, &e->plan, features_rows, at);
}

tensor join_ids_at(const encode *e, int64_t from, int64_t n) {
    return tensor_1d(e->join_ids.data ? (int32_t *)e->join_ids.data + from : NULL, DT_I32, n);
}

void join_ids_upload(ctx *c, const encode *e, int n, const int32_t *behind, int n_behind) {
    int32_t *v = mem_alloc(((size_t)n + (size_t)n_behind) * sizeof *v);
    if (!v) {
        status_set(&c->st, ST_NO_MEMORY, "no memory for positions");
        return;
    }
    for (int i = 0; i < n; i++) v[i] = i;
    memcpy(v + n, behind, (size_t)n_behind * sizeof *v);
    ctx_upload(c, e->join_ids, v);
    mem_free(v);
}

void join_read(ctx *c, const encode *e, row_span s, tensor x) {
    weight *const *w = e->m->w;
    void *from = e->text.data ? (int32_t *)e->text.data + s.from : NULL;
    op_embed(c, x, w[S_READ_EMBED], tensor_1d(from, DT_I32, s.n), 1);
    op_embed_add(c, x, w[S_READ_POS], join_ids_at(e, s.from, s.n));
}

void join_room_upload(ctx *c, const encode *e) {
    if (!e->pool_from.nd) return;
    size_t n = (size_t)tensor_count(&e->pool_from);
    int32_t *from = mem_alloc(n * sizeof *from);
    float *by = mem_alloc(n * sizeof *by);
    if (from && by) {
        tile first = prep_plan_tile(&e->plan, 0);
        join_pool_taps(&e->m->spec.join, tower_grid(&e->m->spec.tower, &first), from, by);
        ctx_upload(c, e->pool_from, from);
        ctx_upload(c, e->pool_by, by);
    } else {
        status_set(&c->st, ST_NO_MEMORY, "no memory for a picture");
    }
    mem_free(from);
    mem_free(by);
}
