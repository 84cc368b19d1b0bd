/* workers.h - threads that decode and resize the pictures of jobs, then hand them to the inbox.
 *
 * Bytes that are known are not decoded: a job takes the cache's picture, or waits, without keeping a thread, for the
 * one worker that decodes them.
 *
 * Threads: any may add; the engine's sweeps. Owner: a job belongs to the workers from workers_add until it is
 * posted. A job's input may be read until then: a cancelled job that is being decoded is posted when its
 * decode ends. Tested by tests/engine/sched/test_threads.c. */
#ifndef VLMD_ENGINE_WORKERS_H
#define VLMD_ENGINE_WORKERS_H

#include "engine/inbox.h"

typedef struct workers workers;

workers *workers_new(int n, const promptkit *kit, piccache *pictures, inbox *in, status *st);
/* Waits for the decodes under way; jobs that are still queued are posted with ST_CANCELLED. */
void workers_stop(workers *w);
void workers_free(workers *w); /* stops first; NULL is fine */
void workers_add(workers *w, seq *s);
void workers_take_cancelled(workers *w,
                            seq_list *to); /* those that are queued or wait; the caller owns them now */
/* So far: pictures decoded, and the time that this and their resizing took. */
void workers_get_stats(workers *w, uint64_t *decodes, double *decode_s, double *resize_s);

#endif
