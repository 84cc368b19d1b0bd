/* lot.c - pictures that go through the tower together: their passes, the memory that they share, their slices in order.
 *
 * Thread: the engine's. Owner: the encodes of the lot, see encode.c. Tested by tests/engine/model/test_lot.c. */
#include "engine/model/encode.h"

/* ---- passes ---- */

static grid grid_of(const encode_lot *l, int picture, int number) {
    tile at = prep_plan_tile(&l->all[picture]->plan, number);
    return tower_grid(&l->s->tower, &at);
}

/* The tile behind; false: there is none. */
static bool step_on(const encode_lot *l, int *picture, int *number, int n) {
    *number += n;
    while (*picture < l->n && *number >= l->all[*picture]->plan.n_tiles)
        *number -= l->all[(*picture)++]->plan.n_tiles;
    return *picture < l->n;
}

bool pass_next(const encode_lot *l, pass *p) {
    bool together = tower_together(&l->s->tower);
    if (!step_on(l, &p->picture, &p->tile, together && p->n ? l->all[p->picture]->plan.n_tiles : p->n))
        return false;
    p->g = grid_of(l, p->picture, p->tile);
    p->n = 1;
    int most = blocks_tiles(&l->s->tower, p->g), picture = p->picture, number = p->tile;
    while (p->n < most && step_on(l, &picture, &number, 1)) {
        grid g = grid_of(l, picture, number);
        if (g.w != p->g.w || g.h != p->g.h) break;
        p->n++;
    }
    return true;
}

lot_tile lot_tile_at(const encode_lot *l, const pass *p, int i) {
    int picture = p->picture, number = p->tile;
    CHECK(step_on(l, &picture, &number, i));
    lot_tile of = {.e = l->all[picture]};
    of.at = prep_plan_tile(&of.e->plan, number);
    for (int k = 0; k < number; k++) of.joined += join_rows(l->s, grid_of(l, picture, k), of.e->plan.n_text);
    return of;
}

static int tower_slices_of(const encode_lot *l, const pass *p) {
    const tower_spec *t = &l->s->tower;
    if (tower_together(t)) return tiled_slices(t, p->g, l->all[p->picture]->plan.n_tiles);
    return tower_slices(t, p->g, p->n);
}

static int slices_of(const encode_lot *l, const pass *p) {
    return tower_slices_of(l, p) + l->s->deep.n * join_deep_slices(l, p) + join_slices(l, p);
}

/* ---- memory ---- */

typedef struct layout { /* byte offsets into work, and its size; of the largest pass */
    size_t x, q, k, v, features, ids, join, total;
    int64_t rows, features_rows, n_ids;
    join_room room;
} layout;

static size_t take(size_t *at, int64_t rows, int64_t width) {
    size_t from = *at;
    *at += ((size_t)(rows * width) * sizeof(float) + 63) & ~(size_t)63;
    return from;
}

static void widen(int64_t *most, int64_t n) {
    if (n > *most) *most = n;
}

static layout layout_of(const encode_lot *l) {
    const tower_spec *t = &l->s->tower;
    int64_t width = t->stack.width, q = (int64_t)t->stack.heads * t->stack.head_dim,
            kv = (int64_t)t->stack.kv_heads * t->stack.head_dim;
    layout o = {0};
    for (pass p = {0}; pass_next(l, &p);) {
        bool together = tower_together(t);
        int64_t rows = together ? tiled_rows(t, p.g) : (int64_t)p.n * tower_rows(t, p.g),
                features = (int64_t)p.n * tower_features_rows(t, p.g.w, p.g.h),
                ids = together ? tiled_ids_count(t, p.g) : tower_ids_count(t, p.g, p.n);
        join_room room = join_room_of(l, &p);
        widen(&o.rows, rows);
        widen(&o.features_rows, features);
        widen(&o.n_ids, ids);
        widen(&o.room.own, room.own);
        widen(&o.room.context, room.context);
        widen(&o.room.ids, room.ids);
        for (int i = 0; i < JOIN_KEYS; i++) widen(&o.room.pages[i], room.pages[i]);
    }
    o.x = take(&o.total, o.rows, width);
    o.q = take(&o.total, o.rows, q);
    o.k = take(&o.total, o.rows, kv);
    o.v = take(&o.total, o.rows, kv);
    if (!tower_hidden_is_feature(t)) o.features = take(&o.total, o.features_rows, width * t->n_features);
    o.ids = take(&o.total, o.n_ids, 1);
    o.join = o.total;
    o.total += join_room_point(&(encode_lot){.s = l->s}, &o.room, NULL);
    return o;
}

size_t lot_bytes(const encode_lot *l) {
    return layout_of(l).total;
}

void lot_lay_out(encode_lot *l) {
    const tower_spec *t = &l->s->tower;
    const stack_spec *k = &t->stack;
    layout o = layout_of(l);
    uint8_t *at = l->work;
#define AT(field) (at ? at + o.field : NULL)
    l->x = tensor_2d(AT(x), DT_F32, o.rows, k->width);
    l->q = tensor_2d(AT(q), DT_F32, o.rows, (int64_t)k->heads * k->head_dim);
    l->k = tensor_2d(AT(k), DT_F32, o.rows, (int64_t)k->kv_heads * k->head_dim);
    l->v = tensor_2d(AT(v), DT_F32, o.rows, (int64_t)k->kv_heads * k->head_dim);
    l->features = l->x;
    if (!tower_hidden_is_feature(t))
        l->features = tensor_2d(AT(features), DT_F32, o.features_rows, (int64_t)k->width * t->n_features);
    l->ids = tensor_1d(AT(ids), DT_I32, o.n_ids);
    join_room_point(l, &o.room, AT(join));
#undef AT
    l->n_slices = 0;
    for (pass p = {0}; pass_next(l, &p);) l->n_slices += slices_of(l, &p);
    l->at = (pass){0};
    pass_next(l, &l->at);
}

/* ---- slices ---- */

/* Its layers, and behind some of them a join of what they are then, behind all the join of the features. */
static void pass_slice(ctx *c, encode_lot *l, const pass *p, int i) {
    const model_spec *s = l->s;
    int done = 0;
    for (int k = 0; k <= s->deep.n; k++) {
        bool deep = k < s->deep.n;
        int until =
            deep ? tower_slices_until(&s->tower, p->g, p->n, s->deep.state[k]) : tower_slices_of(l, p);
        if (i < until - done) {
            if (tower_together(&s->tower))
                tiled_slice(c, l, p, i);
            else
                tower_slice(c, l, p, done + i);
            return;
        }
        i -= until - done;
        done = until;
        if (!deep) break;
        if (i < join_deep_slices(l, p)) {
            join_deep_slice(c, l, p, k, i);
            return;
        }
        i -= join_deep_slices(l, p);
    }
    join_slice(c, l, p, i);
}

void lot_slice(ctx *c, encode_lot *l) {
    for (int n; l->next - l->begins >= (n = slices_of(l, &l->at)); l->begins += n)
        if (!pass_next(l, &l->at)) return;
    pass_slice(c, l, &l->at, l->next - l->begins);
}
