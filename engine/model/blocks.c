/* blocks.c - see encode.h: which rows a slice of a tower works on.
 *
 * Without windows, blocks of TOWER_BLOCK_ROWS, the last one of what is left. With windows, rows stand window by window; a block holds as many whole ones as
 * fit, or a part of one that is larger than a block, so that scratch stays bounded whatever the picture and the window.
 * Windows at the right and lower edges are what the grid leaves of them.
 *
 * Pure. Source: get_vision_window_index of the reference's vision_utils. Tested by tests/engine/model/test_blocks.c. */
#include "engine/model/encode.h"

int blocks_even(int rows) {
    return (rows + TOWER_BLOCK_ROWS - 1) / TOWER_BLOCK_ROWS;
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

static int window_rows(const tower_spec *t, grid g, int i) {
    box b = window_at(t, g, i);
    return b.w * b.h;
}

/* The block behind b; cut: rows of b's window that stand in b and before, where it is only a part. */
static bool next_block(const tower_spec *t, grid g, tower_block *b, int *cut) {
    int all = windows_of(t, g).w * windows_of(t, g).h, first = b->windows + b->n_windows;
    if (*cut) first = b->windows;
    if (first == all) return false;
    tower_block next = {.from = b->from + b->n, .windows = first, .ids = b->ids};
    next.ids += b->n_windows ? 3 + 2 * b->n_windows : 0;
    int rows = window_rows(t, g, first);
    if (rows > TOWER_BLOCK_ROWS) {
        next.n = rows - *cut < TOWER_BLOCK_ROWS ? rows - *cut : TOWER_BLOCK_ROWS;
        next.n_windows = 1;
        next.see_from = next.from - *cut;
        next.see = rows;
        *cut = *cut + next.n < rows ? *cut + next.n : 0;
    } else {
        for (int i = first; i < all && next.n + window_rows(t, g, i) <= TOWER_BLOCK_ROWS;
             i++, next.n_windows++)
            next.n += window_rows(t, g, i);
        next.see_from = next.from;
        next.see = next.n;
    }
    *b = next;
    return true;
}

/* ---- both ---- */

int blocks_count(const tower_spec *t, grid g) {
    if (!t->window) return blocks_even(tower_rows(t, g));
    tower_block b = {0};
    int n = 0, cut = 0;
    while (next_block(t, g, &b, &cut)) n++;
    return n;
}

tower_block blocks_at(const tower_spec *t, grid g, int i) {
    tower_block b = {0};
    int cut = 0;
    if (t->window) {
        for (int k = 0; k <= i; k++) CHECK(next_block(t, g, &b, &cut));
        return b;
    }
    int rows = tower_rows(t, g);
    b = (tower_block){.from = i * TOWER_BLOCK_ROWS, .n = TOWER_BLOCK_ROWS, .ids = 2 * i};
    if (b.n > rows - b.from) b.n = rows - b.from;
    CHECK(b.n > 0);
    return b;
}

int blocks_ids(const tower_spec *t, grid g) {
    if (!t->window) return 2 * blocks_count(t, g);
    tower_block b = {0};
    int cut = 0;
    while (next_block(t, g, &b, &cut)) continue;
    return b.ids + 3 + 2 * b.n_windows;
}

static void fill_block(const tower_spec *t, grid g, const tower_block *b, int32_t *ids) {
    ids[0] = 0;
    ids[1] = b->n;
    if (!t->window) return;
    int32_t *start = ids + 2, *len = start + b->n_windows + 1;
    start[0] = 0;
    for (int i = 0; i < b->n_windows; i++) {
        len[i] = window_rows(t, g, b->windows + i);
        start[i + 1] = b->n < b->see ? b->n : start[i] + len[i];
    }
}

void blocks_fill(const tower_spec *t, grid g, int32_t *ids) {
    tower_block b = {0};
    int cut = 0;
    if (t->window)
        while (next_block(t, g, &b, &cut)) fill_block(t, g, &b, ids + b.ids);
    else
        for (int i = 0; i < blocks_count(t, g); i++) {
            b = blocks_at(t, g, i);
            fill_block(t, g, &b, ids + b.ids);
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
