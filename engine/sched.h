/* sched.h - continuous batching: who runs in the next turn, with how many rows, on which pages.
 *
 * Jobs run in the order they came, those of a lower priority number first. A turn takes what arrived, admits who has
 * room, encodes pictures for a while, gives one row to every sequence that decodes and shares prefill rows among the
 * others, as many as the turn's time allows (engine/pace.h), runs the step, and sends what it chose. When pages run out
 * the last in that order gives its pages back and is computed again later, bit for bit the same; the first always
 * progresses. Pages of equal beginnings are computed once (engine/share.h). A job of several choices is scheduled as one
 * until it has its first token (seq.h); the others then join in its place. After ST_LOST nothing runs any more: every job, those
 * to come included, ends with it.
 *
 * One turn ahead (async): while the device works on a step the host collects the one before it. A sequence whose last token
 * is still on its way has its next row in that step all the same: the device puts the token there by itself. Who turns out
 * to have ended has one row too many, which nobody reads; its pages are given back when that row is done. Who needs its last
 * token on the host (penalties) sits out one step, and nobody waits for it. Pages are taken from others, and a failed step
 * is sorted out, only when nothing is under way.
 *
 * Threads: the engine's; sched_get_stats: any. Owner: the engine; jobs taken from the inbox belong to it
 * until their final event. Tested by tests/engine/sched/test_sched.c and test_fair.c. */
#ifndef VLMD_ENGINE_SCHED_H
#define VLMD_ENGINE_SCHED_H

#include "engine/roster.h"
#include "engine/runner.h"

typedef struct sched sched;

typedef struct sched_options {
    roster_options jobs;    /* max_running: the sequences of a step, as the runner has it */
    int max_rows;           /* of a step, likewise */
    int max_chunk;          /* prefill rows of one sequence in a step; 0: max_rows */
    bool no_prefix_caching; /* every job computes its whole prompt */
    /* The device works beside the host: a turn launches its step before it collects the one before, and pictures are
     * encoded beside the steps. */
    bool async;
} sched_options;

/* Does not own runner, inbox and workers (NULL: jobs are posted by somebody else). */
sched *sched_new(const sched_options *o, runner *r, inbox *in, workers *w, status *st);
void sched_free(sched *s); /* no job may be left */

/* One turn, without sleeping. False: nothing is left to do until something arrives. */
bool sched_turn(sched *s);

/* Of the turns that are over; running and the counters of events, kv_usage, pictures, steps. */
void sched_get_stats(sched *s, engine_stats *out);

#endif
