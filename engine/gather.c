/* gather.c - see gather.h. */
#include "engine/gather.h"

void gather_begin(gather *g, const model *m, picture *first) {
    CHECK(!first->ready && !first->enc);
    *g = (gather){.m = m, .n = 1};
    g->all[0] = first;
    if (!first->alone) g->room = encode_room_beside(model_get_spec(m), &first->pixels.plan);
}

void gather_offer(gather *g, picture *p) {
    const prep_plan *plan = &p->pixels.plan;
    if (p->ready || p->enc || p->alone || plan->n_tiles > g->room || g->n == GATHER_MOST) return;
    for (int i = 0; i < g->n; i++)
        if (g->all[i] == p) return;
    if (!encode_goes_beside(model_get_spec(g->m), &g->all[0]->pixels.plan, plan)) return;
    g->all[g->n++] = p;
    g->room -= plan->n_tiles;
}

static bool start(gather *g, backend *be, status *st) {
    const tiles *pixels[GATHER_MOST];
    encode *begun[GATHER_MOST];
    for (int i = 0; i < g->n; i++) pixels[i] = &g->all[i]->pixels;
    if (!encode_new_many(g->m, be, pixels, g->n, begun, st)) return false;
    for (int i = 0; i < g->n; i++) g->all[i]->enc = begun[i];
    picture_join(g->all, g->n);
    return true;
}

bool gather_start(gather *g, backend *be, status *st) {
    status why = {0};
    if (start(g, be, &why)) return true;
    if (g->n > 1 && why.code != ST_LOST) {
        g->n = 1;
        return start(g, be, st);
    }
    *st = why;
    return false;
}
