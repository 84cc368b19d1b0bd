/* encode.c - a picture's encode: its memory, the lot that it is in, and the packing of its rows. See encode.h.
 *
 * Thread: the engine's. Tested by tests/engine/model (goldens, test_tower.c). */
#include <string.h>

#include "engine/model/encode.h"

/* Byte offsets into work; all rows that are joined. */
typedef struct layout {
    size_t pixels, text, joined, from, by, total, result;
    int64_t joined_rows, out_rows;
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

static layout layout_of(const model_spec *s, const prep_plan *p) {
    const tower_spec *t = &s->tower;
    layout l = {.out_rows = s->image_rows(s, p)};
    for (int i = 0; i < (tower_together(t) ? 1 : p->n_tiles); i++) {
        tile at = prep_plan_tile(p, i);
        l.joined_rows += join_rows(s, tower_grid(t, &at), p->n_text);
    }
    CHECK(s->pack || l.joined_rows == l.out_rows);
    CHECK(!s->deep.n || (!packs(s) && !tower_together(t)));
    if (s->newline) l.joined_rows++;
    size_t out = (size_t)spec_image_width(s) * sizeof(float),
           taps = (size_t)l.out_rows * SPEC_PACK_TAPS * sizeof(float);
    l.pixels = take(&l.total, p->bytes);
    l.text = take(&l.total, (size_t)p->n_text * sizeof(int32_t));
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
    encode alone = {.plan = *p}, *all = &alone;
    return l.total + l.result + lot_bytes(&(encode_lot){.s = s, .all = &all, .n = 1});
}

/* ---- life ---- */

static void point(encode *e, const layout *l) {
    const model_spec *s = &e->m->spec;
    uint8_t *at = e->work;
#define AT(field) (at ? at + l->field : NULL)
    e->pixels = tensor_1d(AT(pixels), DT_U8, (int64_t)e->plan.bytes);
    if (e->plan.n_text) e->text = tensor_1d(AT(text), DT_I32, e->plan.n_text);
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

/* ---- a lot, and who is in it ---- */

static void lot_leave(encode_lot *l) {
    if (--l->n_left > 0) return;
    if (l->work) backend_release(l->be, l->work);
    mem_free(l->measured);
    mem_free(l->all);
    mem_free(l);
}

static bool no_memory(status *st) {
    return status_set(st, ST_NO_MEMORY, "no memory for a picture");
}

/* For n pictures; whoever makes it is in it, too. */
static encode_lot *lot_new(const model *m, backend *be, int n, status *st) {
    encode_lot *l = mem_calloc(1, sizeof *l);
    encode **all = mem_calloc((size_t)n, sizeof *all);
    if (l && all) {
        *l = (encode_lot){.m = m, .s = &m->spec, .be = be, .all = all, .n_left = 1};
        return l;
    }
    mem_free(l);
    mem_free(all);
    no_memory(st);
    return NULL;
}

static encode *lot_add(encode_lot *l, const tiles *pixels, status *st) {
    encode *e = mem_calloc(1, sizeof *e);
    if (!e) {
        no_memory(st);
        return NULL;
    }
    *e = (encode){.m = l->m, .be = l->be, .plan = pixels->plan, .lot = l};
    l->all[l->n++] = e;
    l->n_left++;
    return e;
}

static bool takes(const model_spec *s, const prep_plan *p, status *st) {
    if (s->tower.stack.n_layers == 0) return status_set(st, ST_UNSUPPORTED, "this model takes no pictures");
    tile first = prep_plan_tile(p, 0);
    return s->image_rows(s, p) >= 1 ||
           status_set(st, ST_INVALID,
                      "a picture of %d tiles, the first of %d x %d pixels, does not fit this tower",
                      p->n_tiles, first.w, first.h);
}

static bool bring(encode *e, const tiles *pixels, status *st) {
    layout l = layout_of(&e->m->spec, &e->plan);
    e->work = backend_alloc(e->be, l.total, st);
    e->result = e->work ? backend_alloc(e->be, l.result, st) : NULL;
    if (!e->result) return false;
    point(e, &l);
    ctx c = {.be = e->be, .lane = LANE_LOAD}; /* any lane may run the slices */
    CHECK(pixels->text || pixels->plan.n_text == 0);
    ctx_upload(&c, e->pixels, pixels->rgb);
    if (e->text.nd) ctx_upload(&c, e->text, pixels->text);
    upload_pack(&c, e);
    return ctx_ok(&c) || status_set(st, c.st.code, "%s", c.st.msg);
}

static bool share_out(encode_lot *l, status *st) {
    size_t bytes = lot_bytes(l);
    l->work = backend_alloc(l->be, bytes, st);
    if (l->work) lot_lay_out(l);
    return l->work != NULL;
}

bool encode_new_many(const model *m, backend *be, const tiles *const *pixels, int n, encode **out,
                     status *st) {
    bool ok = true;
    for (int i = 0; i < n; i++) out[i] = NULL;
    for (int i = 0; ok && i < n; i++) ok = takes(&m->spec, &pixels[i]->plan, st);
    encode_lot *l = ok ? lot_new(m, be, n, st) : NULL;
    if (!l) return false;
    for (int i = 0; ok && i < n; i++)
        ok = (out[i] = lot_add(l, pixels[i], st)) != NULL && bring(out[i], pixels[i], st);
    ok = ok && share_out(l, st);
    for (int i = 0; !ok && i < n; i++) {
        encode_free(out[i]);
        out[i] = NULL;
    }
    lot_leave(l);
    return ok;
}

/* ---- measuring: a lot without buffers, of full blocks ---- */

/* How many rows a block has depends on the grid, but no block has more than this one's: of a tower that takes any grid, the
 * same without windows on a grid that full blocks fill; of one that takes several, blocks of so many whole tiles as make no
 * less, and as many latents as smaller tiles have together. */
static bool measure_full_blocks(encode_lot *l, prep_plan *p, status *st) {
    l->measured = mem_alloc(sizeof *l->measured);
    if (!l->measured) return no_memory(st);
    *l->measured = *l->m;
    l->m = l->measured;
    l->s = &l->measured->spec;
    tower_spec *t = &l->measured->spec.tower;
    if (t->image_size == 0) {
        int side = t->patch * (l->s->join.merge > 1 ? l->s->join.merge : 1);
        t->window = 0;
        *p = (prep_plan){.n_text = p->n_text};
        prep_plan_add(p, -1, 0, 0, 1, 1, t->block_rows * side, side, RESAMPLE_NEAREST);
        p->n_tiles = 1;
    } else if (t->pos_side || t->pos_buckets) {
        tile at = prep_plan_tile(p, 0);
        int rows = tower_rows(t, tower_grid(t, &at));
        int *latents = &l->measured->spec.join.latents;
        if (*latents && *latents < t->block_rows) *latents = t->block_rows;
        t->block_rows = (t->block_rows + rows - 1) / rows * rows;
    }
    return true;
}

static encode *encode_measured(const model *m, backend *be, const prep_plan *p, status *st) {
    tile at = prep_plan_tile(p, 0);
    int n = (2 * blocks_tiles(&m->spec.tower, tower_grid(&m->spec.tower, &at)) + p->n_tiles) / p->n_tiles;
    encode_lot *l = lot_new(m, be, n, st);
    tiles none = {.plan = *p};
    encode *e = l && measure_full_blocks(l, &none.plan, st) ? lot_add(l, &none, st) : NULL;
    if (e) {
        layout o = layout_of(l->s, &e->plan);
        point(e, &o);
        at = prep_plan_tile(&e->plan, 0);
        for (int most = blocks_tiles(&l->s->tower, tower_grid(&l->s->tower, &at));
             l->n < n && l->n * e->plan.n_tiles < most;)
            l->all[l->n++] = e; /* shapes alone: they are all the same */
        lot_lay_out(l);
    }
    if (l) lot_leave(l);
    return e;
}

encode *encode_new(const model *m, backend *be, const tiles *pixels, status *st) {
    encode *e = NULL;
    if (!pixels->rgb)
        return takes(&m->spec, &pixels->plan, st) ? encode_measured(m, be, &pixels->plan, st) : NULL;
    encode_new_many(m, be, &pixels, 1, &e, st);
    return e;
}

/* ---- who may go together ---- */

static bool of_grid(const tower_spec *t, const prep_plan *p, grid g) {
    for (int i = 0; i < p->n_tiles; i++) {
        tile at = prep_plan_tile(p, i);
        grid own = tower_grid(t, &at);
        if (own.w != g.w || own.h != g.h) return false;
    }
    return true;
}

static grid first_grid(const tower_spec *t, const prep_plan *p) {
    tile at = prep_plan_tile(p, 0);
    return tower_grid(t, &at);
}

int encode_room_beside(const model_spec *s, const prep_plan *p) {
    const tower_spec *t = &s->tower;
    if (t->stack.n_layers == 0 || s->image_rows(s, p) < 1) return 0;
    grid g = first_grid(t, p);
    return of_grid(t, p, g) && !tower_together(t) && blocks_tiles(t, g) > p->n_tiles
               ? blocks_tiles(t, g) - p->n_tiles
               : 0;
}

bool encode_goes_beside(const model_spec *s, const prep_plan *p, const prep_plan *other) {
    return s->image_rows(s, other) >= 1 && of_grid(&s->tower, other, first_grid(&s->tower, p));
}

/* ---- slices ---- */

static int pack_slices(const encode *e) {
    return e->from.nd ? blocks_even(&e->m->spec.tower, e->rows.d[0]) : 0;
}

static void pack_slice(ctx *c, encode *e, int i) {
    row_span s = blocks_span(&e->m->spec.tower, e->rows.d[0], i);
    if (i == 0 && e->m->spec.newline)
        op_embed(c, tensor_rows(e->joined, e->joined.d[0] - 1, 1), e->m->w[S_NEWLINE],
                 tensor_1d(e->lot->ids.data, DT_I32, 1), 1); /* ids begins with 0 */
    op_mix(c, tensor_rows(e->rows, s.from, s.n), e->joined, tensor_rows(e->from, s.from, s.n),
           tensor_rows(e->by, s.from, s.n));
}

int encode_slices(const encode *e) {
    int n = e->lot ? e->lot->n_slices : 0;
    for (int i = 0; e->lot && i < e->lot->n; i++) n += pack_slices(e->lot->all[i]);
    return n;
}

static void run_slice(ctx *c, encode_lot *l) {
    if (l->next < l->n_slices) {
        lot_slice(c, l);
        return;
    }
    for (int i = l->next - l->n_slices, k = 0; k < l->n; i -= pack_slices(l->all[k++]))
        if (i < pack_slices(l->all[k])) {
            pack_slice(c, l->all[k], i);
            return;
        }
}

bool encode_run(ctx *c, encode *e, int max_slices) {
    encode_lot *l = e->lot;
    if (!l) return true;
    int all = encode_slices(e);
    for (; max_slices > 0 && l->next < all && ctx_ok(c); max_slices--) {
        run_slice(c, l);
        if (ctx_ok(c)) l->next++;
    }
    return ctx_ok(c) && l->next == all;
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
    if (e->lot) lot_leave(e->lot);
    e->lot = NULL;
}

void encode_free(encode *e) {
    if (!e) return;
    encode_shrink(e);
    if (e->result) backend_release(e->be, e->result);
    mem_free(e);
}
