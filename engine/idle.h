/* idle.h - how long a device stood still while there was work for it, by its own clock.
 *
 * Works (a step; the slices of an encode that are marked together) lie between two stamps that are part of their lane, so
 * nobody waits for anything. Of the stretches in which no work of any lane was under way those count that begin with the
 * end of one and end with the beginning of another, without a rest between the two. What lies between the kernels of one
 * work is not seen, nor what runs outside of works (a picture's pixels on their way up, prepared pictures that stand apart);
 * a step's inputs are copied before its work begins.
 * Threads: the engine's. Owner: the runner. Tested by tests/engine/sched/test_idle.c. */
#ifndef VLMD_ENGINE_IDLE_H
#define VLMD_ENGINE_IDLE_H

#include "kernels/ops.h"

enum { IDLE_WORKS = 32 }; /* a power of two */

typedef struct idle_work {
    backend_stamp *from, *to;
    double begin, end; /* once landed */
    bool anew;         /* what came before it was a rest */
    bool landed, counted;
    uint64_t until; /* those launched before it landed */
} idle_work;

typedef struct idle {
    double seconds;              /* so far */
    idle_work works[IDLE_WORKS]; /* those in [head, tail) by their number; in the order of their launches */
    uint64_t head, tail;
    backend_stamp *first;      /* NULL: the device has no clock, and nothing counts */
    const backend_stamp *base; /* at base_s of our time */
    double base_s, busy_until;
    bool rested;
} idle;

/* False: no stamps; what was made is owned. */
bool idle_init(idle *d, ctx *c, status *st);
void idle_fini(idle *d);

/* Around the launches of a work on c's lane. The number is begin's; more at once than there is room for are left out. */
uint64_t idle_begin(idle *d, ctx *c);
void idle_end(idle *d, ctx *c, uint64_t work);
/* The host knows that it is over. Not ok: something failed, and what was under way counts for nothing. */
void idle_landed(idle *d, uint64_t work, bool ok);
/* Nothing is under way, and nobody wants anything: until the next work the device may stand still. */
void idle_rest(idle *d);

#endif
