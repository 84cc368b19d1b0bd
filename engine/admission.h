/* admission.h - how much may wait for its first step: a bound on jobs and one on prompt tokens, and how soon there will
 * be room again.
 *
 * A job waits from engine_submit, decode of its pictures included, until the first turn that runs it; one that comes
 * back because it was preempted waits no more in this sense. Threads: any. Owner: the engine. Tested by
 * tests/engine/sched/test_admission.c. */
#ifndef VLMD_ENGINE_ADMISSION_H
#define VLMD_ENGINE_ADMISSION_H

#include <pthread.h>

#include "kernels/base.h"

typedef struct admission {
    pthread_mutex_t mu;
    int max_jobs, n_jobs;
    int64_t max_tokens, n_tokens;
    double since; /* time_now_s: from when on n_begun counts; the queue has not been empty since */
    double n_begun;
} admission;

bool admission_init(admission *a, int max_jobs, int64_t max_tokens, status *st);
void admission_fini(admission *a);

/* Whether one more job could wait, its tokens not yet known. ST_BUSY. */
bool admission_has_room(admission *a, status *st);
/* A job of so many prompt tokens begins to wait; ST_BUSY when it may not. The bound on tokens holds for what waits
 * together: where nothing waits, any job may. */
bool admission_enter(admission *a, int tokens, status *st);
void admission_begun(admission *a, int tokens); /* it waits no more: it runs */
void admission_left(admission *a, int tokens);  /* it waits no more: it is over */
/* Seconds until all that waits will have begun, by the rate since the queue was last empty; 1 to 600. */
int admission_retry_after_s(admission *a);
void admission_get(admission *a, int *jobs, int64_t *tokens);

#endif
