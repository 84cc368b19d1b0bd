/* inbox.h - what reaches the engine's thread from others: jobs that are ready to run, wishes to cancel, the
 * end.
 *
 * It also knows every job that is under way, wherever it stands (with a picture worker, queued, running), so
 * that a cancel needs nothing but the job's number, and no memory. Threads: any, but take, wait and leave:
 * the engine's. Owner: jobs are owned by whoever holds them, see seq.h. Tested by tests/engine/sched. */
#ifndef VLMD_ENGINE_INBOX_H
#define VLMD_ENGINE_INBOX_H

#include <pthread.h>

#include "engine/seq.h"

typedef struct inbox {
    pthread_mutex_t mu;
    pthread_cond_t changed;
    seq *live;  /* all jobs whose final event is still to come */
    int n_live; /* choices */
    uint64_t last_job;
    int64_t pixels; /* of pictures that are not encoded yet */
    seq_list arrived;
    bool cancels, stop; /* cancels: some live job was cancelled since the last take */
} inbox;

bool inbox_init(inbox *in, status *st);
void inbox_fini(inbox *in);

/* A new job gets its number and counts as live from now on; who called still owns it. */
uint64_t inbox_enter(inbox *in, seq *s);
void inbox_post(inbox *in, seq *s); /* it is ready (or failed, s->st): the engine's thread takes it over */
void inbox_cancel(inbox *in, uint64_t job); /* any number */
void inbox_stop(inbox *in);                 /* every live job is cancelled */

/* Sleeps until there is something to take; false: stopped, and all was taken. */
bool inbox_wait(inbox *in);
/* Without sleeping: all that arrived, and whether some job was cancelled since. */
seq_list inbox_take(inbox *in, bool *cancels);
/* The forks of s are live by themselves from now on, under its number, and cancelled if it is. */
void inbox_part(inbox *in, seq *s);
void inbox_leave(inbox *in, seq *s);   /* no cancel finds it any more: call before its final event */
int inbox_live(inbox *in);             /* choices of all jobs */
void inbox_encoded(inbox *in, seq *s); /* its pictures count no longer */
int64_t inbox_pixels(inbox *in);

#endif
