/* embed_sched.h - turns of an engine that makes vectors: which texts and slices of pictures run next, for whom.
 *
 * Jobs begin in the order they came, those of a lower priority number first, at most max_running at a time. A turn takes what
 * arrived, encodes pictures for a while, slice by slice and job by job in turn (those of one grid together, gather.h), then
 * runs one step of whole texts, one of each job in turn until the rows are full: so a request of a thousand texts delays one
 * of a single text by a turn. A job ends when its last vector is there. A step that fails is run again job by job, and only who fails alone fails.
 *
 * Threads: the engine's; embed_sched_get_stats: any. Owner: the engine; jobs taken from the inbox belong to it until their
 * final event. Tested by tests/e2e/test_embeddings.py. */
#ifndef VLMD_ENGINE_EMBED_SCHED_H
#define VLMD_ENGINE_EMBED_SCHED_H

#include "engine/embed_run.h"
#include "engine/roster.h"

typedef struct embed_sched embed_sched;

typedef struct embed_sched_options {
    roster_options jobs;
    int max_rows; /* of a step; a text that is longer runs alone */
} embed_sched_options;

/* Does not own runner, inbox and workers. */
embed_sched *embed_sched_new(const embed_sched_options *o, embed_run *r, inbox *in, workers *w, status *st);
void embed_sched_free(embed_sched *sc); /* no job may be left; NULL is fine */

/* One turn, without sleeping. False: nothing is left to do until something arrives. */
bool embed_sched_turn(embed_sched *sc);
void embed_sched_get_stats(embed_sched *sc, engine_stats *out); /* of the turns that are over */

/* A job for x, which it takes over (freed also on failure). */
seq *embed_job_new(embed *x, engine_sink sink, void *user, status *st);

#endif
