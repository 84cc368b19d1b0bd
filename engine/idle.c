/* idle.c - see idle.h. */
#include "engine/idle.h"

#include <math.h>

bool idle_init(idle *d, ctx *c, status *st) {
    if (!backend_has_clock(c->be)) return true;
    for (int i = 0; i < IDLE_WORKS; i++)
        if (!(d->works[i].from = stamp_new(c->be, st)) || !(d->works[i].to = stamp_new(c->be, st)))
            return false;
    if (!(d->first = stamp_new(c->be, st))) return false;
    ctx_stamp(c, d->first);
    d->base = d->first;
    d->rested = true;
    return true;
}

void idle_fini(idle *d) {
    for (int i = 0; i < IDLE_WORKS; i++) {
        stamp_free(d->works[i].from);
        stamp_free(d->works[i].to);
    }
    stamp_free(d->first);
}

static idle_work *work_of(idle *d, uint64_t n) {
    return &d->works[n % IDLE_WORKS];
}

static bool is_open(const idle *d, uint64_t n) {
    return n >= d->head && n < d->tail;
}

uint64_t idle_begin(idle *d, ctx *c) {
    /* One place stays free: base may be the stamp of the last that was taken out. */
    if (!d->first || d->tail - d->head >= IDLE_WORKS - 1) {
        d->rested = true;
        return UINT64_MAX;
    }
    idle_work *w = work_of(d, d->tail);
    w->landed = w->counted = false;
    w->anew = d->rested;
    d->rested = false;
    ctx_stamp(c, w->from);
    return d->tail++;
}

void idle_end(idle *d, ctx *c, uint64_t work) {
    if (is_open(d, work)) ctx_stamp(c, work_of(d, work)->to);
}

static void forget(idle *d) {
    d->head = d->tail;
    d->rested = true;
}

/* What was launched after w landed began after it. So once all others are over, all that began before it is known. */
static bool is_settled(idle *d, const idle_work *w) {
    for (uint64_t n = d->head; w->landed && n < w->until; n++)
        if (!work_of(d, n)->landed) return false;
    return w->landed;
}

/* The first, by its beginning, of those that are not counted. NULL: none began before `before`, or with it. */
static idle_work *first_of(idle *d, double before) {
    idle_work *first = NULL;
    for (uint64_t n = d->head; n < d->tail; n++) {
        idle_work *w = work_of(d, n);
        if (w->landed && !w->counted && w->begin <= (first ? first->begin : before)) first = w;
    }
    return first;
}

static void count(idle *d, idle_work *w) {
    if (!w->anew && w->begin > d->busy_until) d->seconds += w->begin - d->busy_until;
    if (w->end > d->busy_until) d->busy_until = w->end;
    w->counted = true;
}

void idle_landed(idle *d, uint64_t work, bool ok) {
    if (!is_open(d, work)) return;
    idle_work *w = work_of(d, work), *next;
    w->begin = ok ? d->base_s + stamp_seconds(d->base, w->from) : NAN;
    w->end = ok ? w->begin + stamp_seconds(w->from, w->to) : NAN;
    w->landed = true;
    w->until = d->tail;
    if (isnan(w->end)) forget(d);
    for (; d->head < d->tail && is_settled(d, w = work_of(d, d->head)); d->head++) {
        while ((next = first_of(d, w->begin))) count(d, next);
        d->base = w->to;
        d->base_s = w->end;
    }
}

void idle_rest(idle *d) {
    d->rested = true;
}
