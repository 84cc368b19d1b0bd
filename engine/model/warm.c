/* warm.c - blank pictures, so that every kind of pass has run before the first request: see model.h, encode_warm.
 *
 * Products are planned by buckets of rows (the next power of two), so a pass is told from another by the buckets of what it has:
 * rows of the tower, of the features and of the join, of all pictures and of one, patches of a tile, tiles, texts. Pictures of one
 * tile do for all of them, in lots of 1, 2, 4, ... up to a full block: tiles as pictures of 32, 64, ... patches get them, of a tower
 * that takes one grid all the same; where the tiles of a picture are one sequence, pictures of each number of tiles. Where a size
 * of picture is none of these, a plan may be new all the same.
 * Thread: the loader's, before the engine's. Owner: nothing is left. Tested by tests/engine/model/test_lot.c. */
#include "engine/model/encode.h"

enum { KINDS = 7 };

typedef struct warming {
    ctx *c;
    model blank;          /* whose rows stay as the join leaves them */
    size_t room;          /* bytes */
    uint64_t seen[KINDS]; /* bit b: a pass whose count lies in bucket 2^b */
    int n;                /* encodes */
} warming;

static int64_t joined_rows(const model_spec *s, const prep_plan *p) {
    int64_t n = 0;
    for (int i = 0; i < (tower_together(&s->tower) ? 1 : p->n_tiles); i++) {
        tile at = prep_plan_tile(p, i);
        n += join_rows(s, tower_grid(&s->tower, &at), p->n_text);
    }
    return n;
}

static int image_rows(const model_spec *s, const prep_plan *p) {
    return (int)joined_rows(s, p);
}

/* Of n pictures that go together; true: there was none like it. */
static bool is_new(const warming *w, const prep_plan *p, int n, uint64_t bits[KINDS]) {
    const model_spec *s = &w->blank.spec;
    const tower_spec *t = &s->tower;
    const tile at = prep_plan_tile(p, 0);
    const grid g = tower_grid(t, &at);
    const int64_t counts[KINDS] = {(int64_t)n * (tower_together(t) ? p->n_tiles : 1) * tower_rows(t, g),
                                   (int64_t)n * tower_features_rows(t, g.w, g.h),
                                   joined_rows(s, p),
                                   n * joined_rows(s, p),
                                   (int64_t)g.w * g.h,
                                   n * p->n_tiles,
                                   (int64_t)n * p->n_text};
    bool found = false;
    for (int i = 0; i < KINDS; i++) {
        int b = 4; /* up to 16 rows have kernels of their own */
        while ((int64_t)1 << b < counts[i] && 1 << b < t->block_rows) b++;
        bits[i] = (uint64_t)1 << b;
        found = found || !(w->seen[i] & bits[i]);
    }
    return found;
}

static bool run(warming *w, const tiles *blank, int n) {
    ctx *c = w->c;
    const tiles **all = mem_alloc((size_t)n * sizeof(tiles *));
    encode **e = mem_calloc((size_t)n, sizeof *e);
    for (int i = 0; all && i < n; i++) all[i] = blank;
    if (!all || !e)
        status_set(&c->st, ST_NO_MEMORY, "no memory for a picture");
    else if (encode_new_many(&w->blank, c->be, all, n, e, &c->st)) {
        for (bool ready = false; !ready && ctx_ok(c); ready = encode_run(c, e[0], 1))
            arena_reset(c->scratch, 0);
        ctx_sync(c);
        for (int i = 0; i < n; i++) encode_free(e[i]);
        w->n++;
    }
    mem_free(all);
    mem_free(e);
    return ctx_ok(c);
}

/* Lots of a picture of n_tiles tiles of w x h pixels, read with n_text ids; once: a picture alone does. */
static bool lots_of(warming *w, int n_tiles, int width, int height, int n_text, bool once) {
    const model_spec *s = &w->blank.spec;
    const image_limits any = {.max_pixels = INT64_MAX};
    tiles blank = {0};
    prep_plan *p = &blank.plan;
    prep_plan_add(p, -1, 0, 0, n_tiles * width, height, n_tiles * width, height, RESAMPLE_NEAREST)->tw =
        width;
    if (!prep_plan_finish(p, n_tiles * width, height, &any, &w->c->st)) return false;
    p->n_text = n_text;
    const tile at = prep_plan_tile(p, 0);
    const size_t each = encode_bytes(s, p) + 256 * 3; /* each of its buffers begins at 256 bytes */
    int most = once ? 1 : blocks_tiles(&s->tower, tower_grid(&s->tower, &at));
    if (each > w->room) return true; /* no request brings it */
    if ((size_t)most > w->room / each) most = (int)(w->room / each);
    blank.rgb = mem_calloc(1, p->bytes);
    if (n_text) blank.text = mem_calloc((size_t)n_text, sizeof *blank.text);
    bool ok = blank.rgb && (blank.text || !n_text);
    if (!ok) status_set(&w->c->st, ST_NO_MEMORY, "no memory for a picture");
    for (int n = 1; ok && n <= most; n = n < most && 2 * n > most ? most : 2 * n) {
        uint64_t bits[KINDS];
        if (!is_new(w, p, n, bits)) continue;
        ok = run(w, &blank, n);
        for (int i = 0; i < KINDS; i++) w->seen[i] |= bits[i];
    }
    tiles_fini(&blank);
    return ok;
}

/* With texts of 32 ids, 64, ... and the most there can be. */
static bool lots_with_texts(warming *w, int n_tiles, int width, int height, bool once) {
    const int most = w->blank.spec.reads.what == READS_NOTHING ? 0 : w->blank.spec.reads.max_tok;
    bool ok = true;
    for (int n = 32; ok && !once && n < most; n *= 2) ok = lots_of(w, n_tiles, width, height, n, once);
    return ok && lots_of(w, n_tiles, width, height, most, once);
}

/* Tiles such as pictures of so many patches become. */
static bool tiles_like(warming *w, const model *m, int across, int down, bool once) {
    const model_spec *s = &m->spec;
    prep_plan p = {0};
    status small = {0}; /* a size that this model refuses is none to run */
    const image_ask ask = {across * s->tower.patch, down * s->tower.patch, 1};
    if (!spec_plan_image(s, &ask, &IMAGE_LIMITS_DEFAULT, &p, &small) || s->image_rows(s, &p) < 1) return true;
    const tile first = prep_plan_tile(&p, 0), last = prep_plan_tile(&p, p.n_tiles - 1);
    return lots_with_texts(w, 1, first.w, first.h, once) &&
           (once || lots_with_texts(w, 1, last.w, last.h, false));
}

static int whole(int n, int k) {
    return n > k ? n / k * k : k;
}

/* A tile of so many patches, of those that are merged only whole squares, for a tower that takes several grids: what is left of
 * larger tiles behind full blocks are as many rows. None is larger than the dry run's. */
static bool tile_of(warming *w, int across, int down) {
    const model_spec *s = &w->blank.spec;
    const tower_spec *t = &s->tower;
    const int k = s->join.merge > 1 ? s->join.merge : 1, side = t->image_size / t->patch;
    const tile at = {.w = whole(across, k) * t->patch, .h = whole(down, k) * t->patch};
    const int patches = at.w / t->patch * (at.h / t->patch);
    if (t->pos_side ? !tower_takes(t, at.w, at.h)
                    : t->image_size && (!t->pos_buckets || patches > side * side))
        return true;
    return (!t->pos_side && spec_rows_of_tile(s, &at) < 1) || lots_with_texts(w, 1, at.w, at.h, false);
}

/* 8 x 4 patches, 8 x 8, 16 x 8, ...; as wide to as high as 4 to 3, and 4 to 1. */
static bool grids(warming *w, const model *m, bool once) {
    const int block = m->spec.tower.block_rows, k = m->spec.join.merge > 1 ? m->spec.join.merge : 1;
    bool ok = true;
    for (int a = 5; ok && 1 << a <= block && !(once && w->n); a++) {
        const int across = 1 << (a + 1) / 2, down = 1 << a / 2;
        ok = tiles_like(w, m, across, down, once) &&
             (once || (tiles_like(w, m, 4 * down / 3, down, false) &&
                       tiles_like(w, m, 2 * across, down / 2, false) && tile_of(w, across, down)));
        /* so many rows that the join's, which are fewer, fill a block as well */
        if (!once && k > 1) ok = ok && tiles_like(w, m, k * across, k * down, false);
    }
    return ok;
}

int encode_warm(ctx *c, const model *m, size_t room, bool once) {
    const tower_spec *t = &m->spec.tower;
    if (t->stack.n_layers == 0) return 0;
    warming *w = mem_calloc(1, sizeof *w);
    if (!w) {
        status_set(&c->st, ST_NO_MEMORY, "no memory for a picture");
        return 0;
    }
    *w = (warming){.c = c, .blank = *m, .room = room};
    w->blank.spec.pack = NULL;
    w->blank.spec.newline = false;
    w->blank.spec.image_rows = image_rows;
    bool ok = tower_together(t) || grids(w, m, once);
    for (int n = tower_together(t) ? once ? 1 : t->max_tiles : 0; ok && n > 0; n--)
        ok = lots_with_texts(w, n, t->image_size, t->image_size, once);
    const int n = w->n;
    mem_free(w);
    return n;
}
