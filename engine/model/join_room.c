/* join_room.c - what a join keeps of a pass between its slices, and the index arrays by which all tiles of the pass go through it
 * together: whose rows they are, which keys each tile's rows see, which rows a slice works on.
 *
 * Rows of one part stand tile by tile and go in even blocks, which may begin and end within a tile's. A tile's keys and values
 * stand in pages of its own, part by part in the order of join_part, so that rows which were computed together end up where
 * their tile's rows look for them.
 * Whatever is kept is a sum over the tiles, so that a lot takes no more than each of its pictures alone, added up.
 * Thread: the engine's. The lot owns the memory. Tested by tests/engine/model/test_lot.c. */
#include "engine/model/encode.h"

static bool has_layers(const model_spec *s) {
    join_kind k = s->join.kind;
    return !s->dual.on && (k == JOIN_PERCEIVER || k == JOIN_ATTEND || k == JOIN_QFORMER || k == JOIN_READER);
}

int join_latents(const join_spec *j) {
    return j->latents - (j->drop_first ? 1 : 0);
}

static int64_t rows_of_tile(const encode_lot *l, const pass *p, join_part part, int i) {
    if (part == PART_TILE) return tower_features_rows(&l->s->tower, p->g.w, p->g.h);
    if (part == PART_LATENTS) return join_latents(&l->s->join);
    return l->s->join.read_vocab ? lot_tile_at(l, p, i).e->plan.n_text : 0;
}

int64_t join_part_rows(const encode_lot *l, const pass *p, join_part part) {
    int64_t n = 0;
    for (int i = 0; i < p->n; i++) n += rows_of_tile(l, p, part, i);
    return n;
}

/* ---- keys ---- */

/* Rows of this part are keys of that kind. */
static bool is_key(const join_spec *j, join_part part, join_keys keys) {
    bool context = j->kind == JOIN_PERCEIVER || j->kind == JOIN_ATTEND;
    if (part == PART_TILE) return keys == (context ? KEYS_OWN : KEYS_BESIDE);
    return keys == KEYS_OWN && j->kind != JOIN_ATTEND;
}

/* Of tile i, those of parts before `until`. */
static int64_t keys_before(const encode_lot *l, const pass *p, join_keys keys, join_part until, int i) {
    int64_t n = 0;
    for (join_part part = 0; part < until; part++)
        if (is_key(&l->s->join, part, keys)) n += rows_of_tile(l, p, part, i);
    return n;
}

static int64_t pages_of(int64_t keys) {
    return (keys + KV_PAGE_TOK - 1) / KV_PAGE_TOK;
}

static int64_t pages_of_tile(const encode_lot *l, const pass *p, join_keys keys, int i) {
    return pages_of(keys_before(l, p, keys, JOIN_PARTS, i));
}

/* A tile's row in the table of pages has room for the longest text: others in the lot do not widen it. */
static int64_t table_width(const encode_lot *l, const pass *p, join_keys keys) {
    const join_spec *j = &l->s->join;
    int64_t n = is_key(j, PART_TEXT, keys) ? l->s->reads.max_tok : 0;
    return pages_of(keys_before(l, p, keys, PART_TEXT, 0) + n);
}

/* ---- index arrays ---- */

/* Words before each: which row of its table a latent or a text's position is; the slot of a row's key; the q_start of blocks; a
 * tile's number of keys and its pages; of a join that pools, patches and f32 weights. */
typedef struct ids_layout {
    int64_t which[JOIN_PARTS], slots[JOIN_PARTS], starts[JOIN_PARTS], len[JOIN_KEYS], pages[JOIN_KEYS];
    int64_t taps, weights, end;
} ids_layout;

static int64_t take(int64_t *at, int64_t n) {
    int64_t from = *at;
    *at += n;
    return from;
}

/* Of the q_start of a part's blocks: block i's begin behind first + 2 i words, for a block has one more than tiles, and at most
 * one of these is in the next one, too. */
static int64_t starts_words(const encode_lot *l, const pass *p, join_part part) {
    int64_t n = p->n;
    for (int i = 0; i < p->n; i++) n += 2 * blocks_even(&l->s->tower, rows_of_tile(l, p, part, i));
    return n;
}

static ids_layout lay_out(const encode_lot *l, const pass *p) {
    const join_spec *j = &l->s->join;
    ids_layout a = {0};
    if (j->kind == JOIN_POOL) {
        int64_t taps = (int64_t)p->n * join_rows(l->s, p->g, 0) * j->pool * j->pool;
        a.taps = take(&a.end, taps);
        a.weights = take(&a.end, taps);
    }
    if (!has_layers(l->s)) return a;
    for (join_part part = 0; part < JOIN_PARTS; part++) {
        int64_t rows = join_part_rows(l, p, part);
        a.slots[part] = take(&a.end, rows);
        if (part == PART_TILE) continue;
        a.which[part] = take(&a.end, rows);
        a.starts[part] = take(&a.end, starts_words(l, p, part));
    }
    for (join_keys keys = 0; keys < JOIN_KEYS; keys++) {
        a.len[keys] = take(&a.end, p->n);
        a.pages[keys] = take(&a.end, p->n * table_width(l, p, keys));
    }
    return a;
}

static tensor ids_at(const encode_lot *l, int64_t from, int64_t n) {
    return tensor_1d(l->join_ids.data ? (int32_t *)l->join_ids.data + from : NULL, DT_I32, n);
}

/* One tile's keys of one kind, whose pages begin with `page`. */
static void fill_keys(const encode_lot *l, const pass *p, const ids_layout *a, join_keys keys, int i,
                      int64_t page, const int64_t row[JOIN_PARTS], int32_t *ids) {
    int64_t n = pages_of_tile(l, p, keys, i), width = table_width(l, p, keys);
    CHECK(n <= width);
    ids[a->len[keys] + i] = (int32_t)keys_before(l, p, keys, JOIN_PARTS, i);
    for (int64_t k = 0; k < n; k++) ids[a->pages[keys] + i * width + k] = (int32_t)(page + k);
    for (join_part part = 0; part < JOIN_PARTS; part++) {
        if (!is_key(&l->s->join, part, keys)) continue;
        int64_t first = page * KV_PAGE_TOK + keys_before(l, p, keys, part, i);
        for (int64_t k = 0, rows = rows_of_tile(l, p, part, i); k < rows; k++)
            ids[a->slots[part] + row[part] + k] = (int32_t)(first + k);
    }
}

static void fill_starts(const encode_lot *l, const pass *p, const ids_layout *a, join_part part,
                        int32_t *ids) {
    for (int i = 0; i < join_part_blocks(l, p, part); i++) {
        join_block b = join_block_at(l, p, part, i);
        int64_t at = -b.skip;
        for (int k = 0; k <= b.n; k++) {
            ids[a->starts[part] + b.start + k] = (int32_t)(at < 0 ? 0 : at < b.rows.n ? at : b.rows.n);
            if (k < b.n) at += rows_of_tile(l, p, part, b.first + k);
        }
    }
}

static void fill_layers(const encode_lot *l, const pass *p, const ids_layout *a, int32_t *ids) {
    int64_t row[JOIN_PARTS] = {0}, page[JOIN_KEYS] = {0};
    int drop = l->s->join.drop_first ? 1 : 0;
    for (int i = 0; i < p->n; i++) {
        for (join_keys keys = 0; keys < JOIN_KEYS; keys++) {
            fill_keys(l, p, a, keys, i, page[keys], row, ids);
            page[keys] += pages_of_tile(l, p, keys, i);
        }
        for (join_part part = 0; part < JOIN_PARTS; part++) {
            int64_t n = rows_of_tile(l, p, part, i);
            for (int64_t k = 0; k < n && part != PART_TILE; k++)
                ids[a->which[part] + row[part] + k] = (int32_t)k + (part == PART_LATENTS ? drop : 0);
            row[part] += n;
        }
    }
    fill_starts(l, p, a, PART_LATENTS, ids);
    fill_starts(l, p, a, PART_TEXT, ids);
}

/* The same of every tile, whose rows stand one tile behind the other. */
static void fill_taps(const encode_lot *l, const pass *p, const ids_layout *a, int32_t *ids) {
    int64_t n = (a->weights - a->taps) / p->n, rows = rows_of_tile(l, p, PART_TILE, 0);
    void *weights = ids + a->weights;
    float *by = weights;
    for (int64_t i = 0; i < p->n; i++) {
        int32_t *from = ids + a->taps + i * n;
        join_pool_taps(&l->s->join, p->g, from, by + i * n);
        for (int64_t k = 0; k < n; k++) from[k] += (int32_t)(i * rows);
    }
}

void join_ids_upload(ctx *c, const encode_lot *l, const pass *p) {
    ids_layout a = lay_out(l, p);
    int32_t *ids = mem_calloc((size_t)a.end, sizeof *ids);
    if (!ids) {
        status_set(&c->st, ST_NO_MEMORY, "no memory for positions");
        return;
    }
    if (has_layers(l->s)) fill_layers(l, p, &a, ids);
    if (l->s->join.kind == JOIN_POOL) fill_taps(l, p, &a, ids);
    ctx_upload(c, ids_at(l, 0, a.end), ids);
    mem_free(ids);
}

/* ---- memory ---- */

join_room join_room_of(const encode_lot *l, const pass *p) {
    join_kind kind = l->s->join.kind;
    join_room r = {.ids = lay_out(l, p).end};
    if (!has_layers(l->s)) return r;
    for (int i = 0; i < p->n; i++)
        for (join_keys keys = 0; keys < JOIN_KEYS; keys++) r.pages[keys] += pages_of_tile(l, p, keys, i);
    if (kind != JOIN_ATTEND) r.own = join_part_rows(l, p, PART_LATENTS) + join_part_rows(l, p, PART_TEXT);
    if (kind == JOIN_PERCEIVER) r.context = join_part_rows(l, p, PART_TILE);
    return r;
}

/* The next tensor in turn, and what it takes. */
typedef struct cursor {
    uint8_t *at; /* NULL: shapes alone */
    size_t used;
} cursor;

static tensor next(cursor *c, dtype dt, int nd, const int64_t *d) {
    tensor t = tensor_of(c->at ? c->at + c->used : NULL, dt, nd, d);
    if (!tensor_count(&t)) return (tensor){0};
    c->used += ((size_t)tensor_count(&t) * dtype_size(dt) + 63) & ~(size_t)63;
    return t;
}

size_t join_room_point(encode_lot *l, const join_room *r, void *at) {
    const stack_spec *k = &l->s->join.stack;
    cursor c = {.at = at};
    l->join_x = next(&c, DT_F32, 2, (int64_t[]){r->own, k->width});
    l->join_q = next(&c, DT_F32, 2, (int64_t[]){r->own, (int64_t)k->heads * k->head_dim});
    l->context = next(&c, DT_F32, 2, (int64_t[]){r->context, k->width});
    for (join_keys keys = 0; keys < JOIN_KEYS; keys++) {
        int64_t d[] = {r->pages[keys], k->kv_heads, KV_PAGE_TOK, k->head_dim};
        l->join_k[keys] = next(&c, DT_F32, 4, d);
        l->join_v[keys] = next(&c, DT_F32, 4, d);
    }
    l->join_ids = next(&c, DT_I32, 1, &r->ids);
    return c.used;
}

/* ---- what a slice works on ---- */

int join_part_blocks(const encode_lot *l, const pass *p, join_part part) {
    return blocks_even(&l->s->tower, join_part_rows(l, p, part));
}

join_block join_block_at(const encode_lot *l, const pass *p, join_part part, int i) {
    join_block b = {.part = part, .rows = blocks_span(&l->s->tower, join_part_rows(l, p, part), i)};
    int64_t at = 0;
    for (int k = 0; k < p->n && at < b.rows.from + b.rows.n; k++) {
        int64_t n = rows_of_tile(l, p, part, k);
        if (at + n > b.rows.from && b.n++ == 0) b.first = k, b.skip = b.rows.from - at;
        at += n;
    }
    b.start = b.first + 2 * i;
    return b;
}

tensor join_own(const encode_lot *l, const pass *p, const join_block *b, tensor all) {
    int64_t before = b->part == PART_TEXT ? join_part_rows(l, p, PART_LATENTS) : 0;
    return tensor_rows(all, before + b->rows.from, b->rows.n);
}

tensor join_which(const encode_lot *l, const pass *p, const join_block *b) {
    return ids_at(l, lay_out(l, p).which[b->part] + b->rows.from, b->rows.n);
}

layer_run join_sees(const encode_lot *l, const pass *p, const join_block *b, join_keys keys) {
    ids_layout a = lay_out(l, p);
    int64_t width = table_width(l, p, keys);
    layer_run run = {.kc = l->join_k[keys], .vc = l->join_v[keys]};
    run.attn.n_seqs = b->n;
    run.attn.uniform = true;
    run.attn.q_start = ids_at(l, a.starts[b->part] + b->start, b->n + 1);
    run.attn.kv_len = ids_at(l, a.len[keys] + b->first, b->n);
    run.attn.pages = ids_at(l, a.pages[keys] + b->first * width, b->n * width);
    run.attn.pages = tensor_2d(run.attn.pages.data, DT_I32, b->n, width);
    return run;
}

layer_run join_writes(const encode_lot *l, const pass *p, join_part part, row_span s) {
    join_keys keys = is_key(&l->s->join, part, KEYS_OWN) ? KEYS_OWN : KEYS_BESIDE;
    layer_run run = {.kc = l->join_k[keys], .vc = l->join_v[keys]};
    run.slots = ids_at(l, lay_out(l, p).slots[part] + s.from, s.n);
    return run;
}

void join_taps(const encode_lot *l, const pass *p, row_span s, tensor *from, tensor *by) {
    ids_layout a = lay_out(l, p);
    int64_t k = (int64_t)l->s->join.pool * l->s->join.pool;
    *from = tensor_2d(ids_at(l, a.taps + s.from * k, s.n * k).data, DT_I32, s.n, k);
    *by = tensor_2d(ids_at(l, a.weights + s.from * k, s.n * k).data, DT_F32, s.n, k);
}
