/* blocks.c - see encode.h: which rows a slice of a tower works on.
 *
 * Tiles that fit into one block together are one. A tile that does not is several: without windows, blocks of block_rows, the
 * last one of what is left. With windows, rows stand window by window; a block holds as many whole ones as fit, or a part of one
 * that is larger than a block, so that scratch stays bounded whatever the picture and the window. Windows at the right and
 * lower edges are what the grid leaves of them.
 *
 * Pure. Source: get_vision_window_index of the reference's vision_utils. Tested by tests/engine/model/test_native.c. */
#include "engine/model/encode.h"

int blocks_tiles(const tower_spec *t, grid g) {
    int n = tower_together(t) ? 1 : t->block_rows / tower_rows(t, g);
    return n > 1 ? n : 1;
}

/* ---- windows ---- */

static grid windows_of(const tower_spec *t, grid g) {
    return (grid){(g.w + t->window - 1) / t->window, (g.h + t->window - 1) / t->window};
}

/* Window i's place and size in patches. */
typedef struct box {
    int x, y, w, h;
} box;
static box window_at(const tower_spec *t, grid g, int i) {
    int across = windows_of(t, g).w;
    box b = {i % across * t->window, i / across * t->window, t->window, t->window};
    if (b.w > g.w - b.x) b.w = g.w - b.x;
    if (b.h > g.h - b.y) b.h = g.h - b.y;
    return b;
}

/* Without windows a tile counts as one. */
static int n_windows(const tower_spec *t, grid g) {
    grid all = t->window ? windows_of(t, g) : (grid){1, 1};
    return all.w * all.h;
}

/* Of window i of some tiles, counted tile by tile. */
static int window_rows(const tower_spec *t, grid g, int i) {
    if (!t->window) return tower_rows(t, g);
    box b = window_at(t, g, i % n_windows(t, g));
    return b.w * b.h;
}

static int words_of(const tower_block *b) {
    return 2 * b->tiles + 1 + 2 * b->n_windows + 1;
}

/* The block behind b of n tiles; cut: rows of b's window that stand in b and before, where it is only a part. */
static bool next_block(const tower_spec *t, grid g, int n, tower_block *b, int *cut) {
    int all = n * n_windows(t, g), most = t->block_rows, first = b->windows + b->n_windows;
    if (*cut) first = b->windows;
    if (first == all) return false;
    tower_block next = {.from = b->from + b->n, .windows = first, .tiles = n, .ids = b->ids};
    next.ids += b->n_windows ? words_of(b) : 0;
    int rows = window_rows(t, g, first);
    if (rows > most) {
        next.n = rows - *cut < most ? rows - *cut : most;
        next.n_windows = 1;
        next.see_from = next.from - *cut;
        next.see = rows;
        *cut = *cut + next.n < rows ? *cut + next.n : 0;
    } else {
        for (int i = first; i < all && next.n + window_rows(t, g, i) <= most; i++, next.n_windows++)
            next.n += window_rows(t, g, i);
        next.see_from = next.from;
        next.see = next.n;
    }
    *b = next;
    return true;
}

/* ---- both ---- */

int blocks_count(const tower_spec *t, grid g, int n_tiles) {
    tower_block b = {0};
    int n = 0, cut = 0;
    while (next_block(t, g, n_tiles, &b, &cut)) n++;
    CHECK(n_tiles == 1 || n == 1);
    return n;
}

tower_block blocks_at(const tower_spec *t, grid g, int n_tiles, int i) {
    tower_block b = {0};
    int cut = 0;
    for (int k = 0; k <= i; k++) CHECK(next_block(t, g, n_tiles, &b, &cut));
    return b;
}

int blocks_ids(const tower_spec *t, grid g, int n_tiles) {
    tower_block b = {0};
    int cut = 0;
    while (next_block(t, g, n_tiles, &b, &cut)) continue;
    return b.ids + words_of(&b);
}

tower_seqs blocks_seqs(const tower_block *b, bool windows) {
    tower_seqs s = {.n = windows ? b->n_windows : b->tiles, .start = b->ids};
    if (windows) s.start += 2 * b->tiles + 1;
    s.len = s.start + s.n + 1;
    return s;
}

void blocks_fill(const tower_spec *t, grid g, int n_tiles, int32_t *ids) {
    tower_block b = {0};
    int cut = 0, rows = tower_rows(t, g);
    while (next_block(t, g, n_tiles, &b, &cut)) {
        tower_seqs all = blocks_seqs(&b, false), some = blocks_seqs(&b, true);
        ids[all.start] = ids[some.start] = 0;
        for (int i = 0; i < all.n; i++) {
            ids[all.len + i] = rows;
            ids[all.start + i + 1] = n_tiles > 1 ? (i + 1) * rows : b.n;
        }
        for (int i = 0; i < some.n; i++) {
            int len = ids[some.len + i] = window_rows(t, g, b.windows + i);
            ids[some.start + i + 1] = b.n < b.see ? b.n : ids[some.start + i] + len;
        }
    }
}

void blocks_order(const tower_spec *t, int k, grid g, int32_t *order) {
    int across = g.w / k, n = across * (g.h / k), at = 0;
    if (!t->window) {
        for (int i = 0; i < n; i++) order[i] = i;
        return;
    }
    grid all = windows_of(t, g);
    for (int i = 0; i < all.w * all.h; i++) {
        box b = window_at(t, g, i);
        for (int y = b.y / k; y < (b.y + b.h) / k; y++)
            for (int x = b.x / k; x < (b.x + b.w) / k; x++) order[at++] = y * across + x;
    }
    CHECK(at == n);
}
