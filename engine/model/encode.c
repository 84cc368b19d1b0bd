/* encode.c - a picture's encode: its memory, its slices in order, and the packing of its rows. See encode.h.
 *
 * Each tile goes through tower and join by itself, so tiles of one picture share all buffers but the joined rows.
 * Thread: the engine's. Tested by tests/engine/model (goldens, test_tower.c). */
#include <string.h>

#include "engine/model/encode.h"

/* Byte offsets into work; rows of the largest tile, and of all that are joined. */
typedef struct layout {
    size_t pixels, text, x, q, k, v, features, ids, join, joined, from, by, total, result;
    int64_t rows, features_rows, n_ids, joined_rows, out_rows;
} layout;

static size_t take(size_t *at, size_t n) {
    size_t from = *at;
    *at += (n + 63) & ~(size_t)63;
    return from;
}

/* Rows of windows are put back in the order of lines. */
static bool packs(const model_spec *s) {
    CHECK(!(s->tower.window && s->pack));
    return s->pack || s->tower.window;
}

/* ---- passes: what goes through tower and join at a time: a tile, or all tiles together ---- */

static int n_passes(const model_spec *s, const prep_plan *p) {
    return tower_together(&s->tower) ? 1 : p->n_tiles;
}

static int pass_rows(const tower_spec *t, grid g) {
    return tower_together(t) ? tiled_rows(t, g) : tower_rows(t, g);
}

static int pass_ids(const tower_spec *t, grid g) {
    return tower_together(t) ? tiled_ids_count(t, g) : tower_ids_count(t, g);
}

static int pass_slices(const model_spec *s, const prep_plan *p, grid g) {
    const tower_spec *t = &s->tower;
    return tower_together(t) ? tiled_slices(t, g, p->n_tiles) : tower_slices(t, g);
}

static layout layout_of(const model_spec *s, const prep_plan *p) {
    const tower_spec *t = &s->tower;
    layout l = {.out_rows = s->image_rows(s, p)};
    for (int i = 0; i < n_passes(s, p); i++) {
        tile at = prep_plan_tile(p, i);
        grid g = tower_grid(t, &at);
        int64_t rows = pass_rows(t, g), features = tower_features_rows(t, g.w, g.h), ids = pass_ids(t, g);
        if (rows > l.rows) l.rows = rows;
        if (features > l.features_rows) l.features_rows = features;
        if (ids > l.n_ids) l.n_ids = ids;
        l.joined_rows += join_rows(s, g, p->n_text);
    }
    CHECK(s->pack || l.joined_rows == l.out_rows);
    CHECK(!s->deep.n || (!packs(s) && !tower_together(t)));
    if (s->newline) l.joined_rows++;
    size_t width = (size_t)t->stack.width * sizeof(float), out = (size_t)spec_image_width(s) * sizeof(float);
    size_t head = (size_t)t->stack.head_dim * sizeof(float), kv = (size_t)t->stack.kv_heads * head;
    size_t rows = (size_t)l.rows, taps = (size_t)l.out_rows * SPEC_PACK_TAPS * sizeof(float);
    l.pixels = take(&l.total, p->bytes);
    l.text = take(&l.total, (size_t)p->n_text * sizeof(int32_t));
    l.x = take(&l.total, rows * width);
    l.q = take(&l.total, rows * (size_t)t->stack.heads * head);
    l.k = take(&l.total, rows * kv);
    l.v = take(&l.total, rows * kv);
    if (!tower_hidden_is_feature(t))
        l.features = take(&l.total, (size_t)l.features_rows * width * (size_t)t->n_features);
    l.ids = take(&l.total, (size_t)l.n_ids * sizeof(int32_t));
    l.join = take(&l.total, join_room_bytes(s, p, l.features_rows));
    if (packs(s)) {
        l.joined = take(&l.total, (size_t)l.joined_rows * out);
        l.from = take(&l.total, taps);
        l.by = take(&l.total, taps);
    }
    take(&l.result, (size_t)(1 + s->deep.n) * (size_t)l.out_rows * out);
    return l;
}

size_t encode_bytes(const model_spec *s, const prep_plan *p) {
    if (s->tower.stack.n_layers == 0) return 0;
    layout l = layout_of(s, p);
    return l.total + l.result;
}

/* ---- life ---- */

static void point(encode *e, const layout *l) {
    const model_spec *s = &e->m->spec;
    const stack_spec *k = &s->tower.stack;
    uint8_t *at = e->work;
    int64_t hd = k->head_dim;
#define AT(field) (at ? at + l->field : NULL)
    e->pixels = tensor_1d(AT(pixels), DT_U8, (int64_t)e->plan.bytes);
    if (e->plan.n_text) e->text = tensor_1d(AT(text), DT_I32, e->plan.n_text);
    e->x = tensor_2d(AT(x), DT_F32, l->rows, k->width);
    e->q = tensor_2d(AT(q), DT_F32, l->rows, k->heads * hd);
    e->k = tensor_2d(AT(k), DT_F32, l->rows, k->kv_heads * hd);
    e->v = tensor_2d(AT(v), DT_F32, l->rows, k->kv_heads * hd);
    e->features = tensor_2d(AT(features), DT_F32, l->features_rows, (int64_t)k->width * s->tower.n_features);
    if (tower_hidden_is_feature(&s->tower)) e->features = e->x;
    e->ids = tensor_1d(AT(ids), DT_I32, l->n_ids);
    join_room_point(e, AT(join), l->features_rows);
    e->sets = tensor_2d(e->result, DT_F32, (1 + s->deep.n) * l->out_rows, spec_image_width(s));
    e->rows = tensor_rows(e->sets, 0, l->out_rows);
    e->joined = packs(s) ? tensor_2d(AT(joined), DT_F32, l->joined_rows, spec_image_width(s)) : e->rows;
    if (packs(s)) {
        e->from = tensor_2d(AT(from), DT_I32, l->out_rows, SPEC_PACK_TAPS);
        e->by = tensor_2d(AT(by), DT_F32, l->out_rows, SPEC_PACK_TAPS);
    }
#undef AT
}

/* The inverse of the order in which windows have the cells of one tile. */
static bool pack_windows(const encode *e, pack_row *rows) {
    const model_spec *s = &e->m->spec;
    int64_t n = e->rows.d[0];
    tile at = prep_plan_tile(&e->plan, 0);
    int32_t *order = mem_alloc((size_t)n * sizeof *order);
    if (!order) return false;
    CHECK(e->plan.n_tiles == 1);
    blocks_order(&s->tower, s->join.merge, tower_grid(&s->tower, &at), order);
    for (int64_t i = 0; i < n; i++) rows[order[i]] = (pack_row){{(int32_t)i, -1, -1, -1}, {1}};
    mem_free(order);
    return true;
}

static void upload_pack(ctx *c, encode *e) {
    const model_spec *s = &e->m->spec;
    if (!packs(s)) return;
    int64_t n = e->rows.d[0];
    pack_row *rows = mem_calloc((size_t)n, sizeof *rows);
    int32_t *from = mem_alloc((size_t)n * sizeof rows->from);
    float *by = mem_alloc((size_t)n * sizeof rows->weight);
    if (rows && s->pack) s->pack(s, &e->plan, rows);
    if (rows && from && by && (s->pack || pack_windows(e, rows))) {
        for (int64_t i = 0; i < n; i++) {
            memcpy(from + i * SPEC_PACK_TAPS, rows[i].from, sizeof rows[i].from);
            memcpy(by + i * SPEC_PACK_TAPS, rows[i].weight, sizeof rows[i].weight);
        }
        ctx_upload(c, e->from, from);
        ctx_upload(c, e->by, by);
    } else {
        status_set(&c->st, ST_NO_MEMORY, "no memory for a picture");
    }
    mem_free(rows);
    mem_free(from);
    mem_free(by);
}

/* How many rows a block has depends on the grid, but no block has more than this one's: of a tower that takes any grid, the
 * same without windows on a grid that full blocks fill. */
static bool measure_full_blocks(encode *e) {
    const tower_spec *t = &e->m->spec.tower;
    int side = t->patch * (e->m->spec.join.merge > 1 ? e->m->spec.join.merge : 1);
    e->measured = mem_alloc(sizeof *e->measured);
    if (!e->measured) return false;
    *e->measured = *e->m;
    e->measured->spec.tower.window = 0;
    e->m = e->measured;
    e->plan = (prep_plan){.n_text = e->plan.n_text};
    prep_plan_add(&e->plan, -1, 0, 0, 1, 1, TOWER_BLOCK_ROWS * side, side, RESAMPLE_NEAREST);
    e->plan.n_tiles = 1;
    return true;
}

encode *encode_new(const model *m, backend *be, const tiles *pixels, status *st) {
    const model_spec *s = &m->spec;
    if (s->tower.stack.n_layers == 0) {
        status_set(st, ST_UNSUPPORTED, "this model takes no pictures");
        return NULL;
    }
    tile first = prep_plan_tile(&pixels->plan, 0);
    if (s->image_rows(s, &pixels->plan) < 1) {
        status_set(st, ST_INVALID,
                   "a picture of %d tiles, the first of %d x %d pixels, does not fit this tower",
                   pixels->plan.n_tiles, first.w, first.h);
        return NULL;
    }
    encode *e = mem_calloc(1, sizeof *e);
    if (!e) {
        status_set(st, ST_NO_MEMORY, "no memory for a picture");
        return NULL;
    }
    e->m = m;
    e->be = be;
    e->plan = pixels->plan;
    if (!pixels->rgb && s->tower.image_size == 0 && !measure_full_blocks(e)) {
        status_set(st, ST_NO_MEMORY, "no memory for a picture");
        encode_free(e);
        return NULL;
    }
    layout l = layout_of(&e->m->spec, &e->plan);
    if (pixels->rgb) {
        e->work = backend_alloc(be, l.total, st);
        e->result = e->work ? backend_alloc(be, l.result, st) : NULL;
        if (!e->result) {
            encode_free(e);
            return NULL;
        }
    }
    point(e, &l);
    if (pixels->rgb) {
        ctx c = {.be = be, .lane = LANE_LOAD}; /* waited for: any lane may run the slices */
        CHECK(pixels->text || pixels->plan.n_text == 0);
        ctx_upload(&c, e->pixels, pixels->rgb);
        if (e->text.nd) ctx_upload(&c, e->text, pixels->text);
        upload_pack(&c, e);
        join_room_upload(&c, e);
        ctx_sync(&c);
        if (!ctx_ok(&c)) {
            status_set(st, c.st.code, "%s", c.st.msg);
            encode_free(e);
            return NULL;
        }
    }
    return e;
}

/* ---- slices ---- */

static int pack_slices(const encode *e) {
    return e->from.nd ? (int)((e->rows.d[0] + TOWER_BLOCK_ROWS - 1) / TOWER_BLOCK_ROWS) : 0;
}

int encode_slices(const encode *e) {
    int n = pack_slices(e);
    const model_spec *s = &e->m->spec;
    for (int i = 0; i < n_passes(s, &e->plan); i++) {
        tile at = prep_plan_tile(&e->plan, i);
        grid g = tower_grid(&s->tower, &at);
        n += pass_slices(s, &e->plan, g) + (1 + s->deep.n) * join_slices(s, g, e->plan.n_text);
    }
    return n;
}

static void pack_slice(ctx *c, encode *e, int i) {
    int64_t from = (int64_t)i * TOWER_BLOCK_ROWS, n = e->rows.d[0] - from;
    if (n > TOWER_BLOCK_ROWS) n = TOWER_BLOCK_ROWS;
    if (i == 0 && e->m->spec.newline)
        op_embed(c, tensor_rows(e->joined, e->joined.d[0] - 1, 1), e->m->w[S_NEWLINE],
                 tensor_1d(e->ids.data, DT_I32, 1), 1); /* ids begins with 0 */
    op_mix(c, tensor_rows(e->rows, from, n), e->joined, tensor_rows(e->from, from, n),
           tensor_rows(e->by, from, n));
}

static void dual_slice(ctx *c, encode *e, grid g, int i) {
    int64_t rows = tower_rows(&e->m->spec.tower, g);
    dual_picture p = {.x = tensor_rows(e->features, 0, rows),
                      .k = tensor_rows(e->k, 0, rows),
                      .v = tensor_rows(e->v, 0, rows),
                      .out = e->rows,
                      .one = tower_one(e, g),
                      .len = tower_len(e, g)};
    dual_picture_slice(c, e->m, &p, i);
}

/* Slice i of what begins with tile `at` and whose joined rows begin at `joined`: its layers, and behind some of them a join of
 * what they are then, behind all the join of the features. */
static void pass_slice(ctx *c, encode *e, const tile *at, int64_t joined, int i) {
    const model_spec *s = &e->m->spec;
    grid g = tower_grid(&s->tower, at);
    int joins = join_slices(s, g, e->plan.n_text), rows = join_rows(s, g, e->plan.n_text), done = 0;
    for (int k = 0; k <= s->deep.n; k++) {
        bool deep = k < s->deep.n;
        int until = deep ? tower_slices_until(&s->tower, g, s->deep.state[k]) : pass_slices(s, &e->plan, g);
        if (i < until - done) {
            if (tower_together(&s->tower))
                tiled_slice(c, e, g, i);
            else
                tower_slice(c, e, at, done + i);
            return;
        }
        i -= until - done;
        done = until;
        if (i < joins && deep) {
            join_deep_slice(c, e->m, k, tensor_rows(e->x, 0, tower_rows(&s->tower, g)),
                            tensor_rows(encode_deep(e, k), joined, rows), i);
            return;
        }
        if (deep) i -= joins;
    }
    if (s->dual.on)
        dual_slice(c, e, g, i);
    else
        join_slice(c, e, g, tensor_rows(e->features, 0, tower_features_rows(&s->tower, g.w, g.h)),
                   tensor_rows(e->joined, joined, rows), i);
}

static void run_slice(ctx *c, encode *e, int i) {
    const model_spec *s = &e->m->spec;
    int64_t joined = 0;
    for (int t = 0; t < n_passes(s, &e->plan); t++) {
        tile at = prep_plan_tile(&e->plan, t);
        grid g = tower_grid(&s->tower, &at);
        int all = pass_slices(s, &e->plan, g) + (1 + s->deep.n) * join_slices(s, g, e->plan.n_text);
        if (i < all) {
            pass_slice(c, e, &at, joined, i);
            return;
        }
        i -= all;
        joined += join_rows(s, g, e->plan.n_text);
    }
    pack_slice(c, e, i);
}

bool encode_run(ctx *c, encode *e, int max_slices) {
    int all = encode_slices(e);
    for (; max_slices > 0 && e->next < all && ctx_ok(c); max_slices--) {
        run_slice(c, e, e->next);
        if (ctx_ok(c)) e->next++;
    }
    return ctx_ok(c) && e->next == all;
}

const prep_plan *encode_plan(const encode *e) {
    return &e->plan;
}

tensor encode_rows(const encode *e) {
    return e->rows;
}

tensor encode_deep(const encode *e, int set) {
    int64_t n = e->rows.d[0];
    return tensor_rows(e->sets, (1 + set) * n, n);
}

size_t encode_kept_bytes(const encode *e) {
    return (size_t)tensor_count(&e->sets) * sizeof(float);
}

void encode_shrink(encode *e) {
    if (e->work) backend_release(e->be, e->work);
    e->work = NULL;
}

void encode_free(encode *e) {
    if (!e) return;
    encode_shrink(e);
    if (e->result) backend_release(e->be, e->result);
    mem_free(e->measured);
    mem_free(e);
}
