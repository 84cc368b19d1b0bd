/* pool.h - a fork-join thread pool: parallel loops over fixed tiles.
 *
 * The tiles are the caller's and do not depend on the number of threads, so results do not either. One thread
 * at a time calls pool_run (the backend's owner) and takes part in the work; a tile may not call pool_run.
 * Workers spin briefly after a job, because a layer's next one comes soon, then sleep. Tested by
 * tests/kernels/test_pool.c, also under ThreadSanitizer. */
#ifndef VLMD_KERNELS_CPU_POOL_H
#define VLMD_KERNELS_CPU_POOL_H

#include "kernels/base.h"

typedef struct pool pool;
/* tile in [0, n_tiles); thread in [0, pool_threads): which scratch to use. */
typedef void (*pool_fn)(void *arg, int64_t tile, int thread);

/* threads >= 1, the caller included. NULL with ST_NO_MEMORY, or ST_IO when a thread does not start. */
pool *pool_new(int threads, status *st);
void pool_free(pool *p); /* NULL is fine */
int pool_threads(const pool *p);
/* Calls fn for every tile, each once, on any thread, and returns when all are done; what they wrote is
 * visible. */
void pool_run(pool *p, int64_t n_tiles, pool_fn fn, void *arg);

#endif
