/* roster.h - the jobs of a scheduler: those that wait and those that run; how they arrive and are cancelled, what their end means
 * to others, what becomes of them when an encode fails or the device is lost, and the counters of all that. Which of them run
 * next, and with what, is the scheduler's: sched.c, embed_sched.c.
 *
 * A job's st says why it cannot go on; whoever finds it set ends the job, each scheduler in its own way, then calls roster_left.
 * Threads: the engine's; roster_get_stats: any. Owner: the scheduler that it is a part of, and it of the jobs taken from the
 * inbox until they leave. Tested by tests/engine/sched/test_sched.c and tests/e2e/test_embeddings.py. */
#ifndef VLMD_ENGINE_ROSTER_H
#define VLMD_ENGINE_ROSTER_H

#include "engine/admission.h"
#include "engine/workers.h"

typedef struct roster_options {
    int max_running;
    piccache *pictures; /* of the same thread; outlives the jobs */
    admission *queue;   /* NULL: no job counts as waiting */
    /* NULL, or called once when the device has failed for good (ST_LOST), before the jobs hear of it. */
    void (*lost)(void *user, const status *why);
    void *user;
} roster_options;

typedef struct roster {
    roster_options o;
    inbox *in;
    workers *w;       /* NULL: jobs are posted by somebody else */
    seq_list arrived; /* in this turn, and not looked at yet */
    seq_list waiting; /* in the order of seq_before */
    seq **running;    /* [max_running], n_running; in the scheduler's order */
    int n_running;
    uint64_t n_arrived;
    status lost; /* the device failed for good */
    engine_stats stats;
    pthread_mutex_t mu; /* of published */
    engine_stats published;
} roster;

/* False: no memory, and nothing is owned. */
bool roster_init(roster *r, const roster_options *o, inbox *in, workers *w);
void roster_fini(roster *r); /* none may be left; what was never made is fine */

/* Takes what has arrived. What was cancelled meanwhile has its st set: those that ran still do, the others are returned. */
seq_list roster_take(roster *r);
/* The next of what has arrived, pictures decoded; st says whether it can run at all. NULL: that was all. */
seq *roster_next_arrival(roster *r);
void roster_wait(roster *r, seq *s);  /* it can: to its place in the queue */
void roster_begun(roster *r, seq *s); /* it runs for the first time */
/* It stands in no list any more, and its final event comes next. It is counted with all of its choices, and published: who
 * hears of the end finds it counted. */
void roster_left(roster *r, seq *s, engine_finish finish);

/* The device's failure is noted. True: why is one. */
bool roster_note_loss(roster *r, const status *why);
void roster_check_loss(roster *r, seq *s); /* if its st is one, it says so in the words that all hear */
/* After it, the next of all jobs, which is to end; NULL: that was all, or nothing is lost. */
seq *roster_next_lost(roster *r);
/* An encode is back to pixels. Of several pictures one is to blame, and nobody knows which: each is tried alone, and only who
 * fails alone fails. s: who waits for pic, or NULL. */
void roster_encode_failed(roster *r, seq *s, picture *pic, const status *why);

void roster_count_step(roster *r, int rows);
/* Of the turns that are over: roster_publish ends one. */
void roster_publish(roster *r);
void roster_get_stats(roster *r, engine_stats *out);

#endif
