/* body.h - request bodies, and the bound on what all of them hold together.
 *
 * Counted is what has come, not what a header promises: who promises much and writes slowly takes nothing from others.
 * Threads: a body belongs to one at a time; the pool is shared by all. Memory: a body owns its bytes and gives them back
 * to its pool; the pool must outlive it. Tested by tests/server/test_body.c. */
#ifndef VLMD_SERVER_BODY_H
#define VLMD_SERVER_BODY_H

#include <stdatomic.h>

#include "kernels/base.h"

typedef struct body_pool {
    atomic_size_t used;
    size_t max;
} body_pool;

typedef struct request_body { /* zero it, but for the pool */
    buf bytes;
    body_pool *pool;
    size_t counted;
} request_body;

/* The next bytes. Errors: ST_BUSY, all bodies together hold as much as they may; ST_NO_MEMORY. */
bool body_append(request_body *b, const void *p, size_t n, status *st);
/* Moves all that b holds; b is empty then. */
request_body body_take(request_body *b);
void body_free(request_body *b);

#endif
