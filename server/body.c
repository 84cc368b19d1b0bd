/* body.c - see body.h. */
#include "server/body.h"

static bool count(request_body *b, size_t n) {
    size_t before = atomic_fetch_add(&b->pool->used, n);
    if (before <= b->pool->max && n <= b->pool->max - before) {
        b->counted += n;
        return true;
    }
    atomic_fetch_sub(&b->pool->used, n);
    return false;
}

bool body_append(request_body *b, const void *p, size_t n, status *st) {
    if (!count(b, n))
        return status_set(st, ST_BUSY,
                          "the server has no memory left for more request bodies now; try again later");
    return buf_append(&b->bytes, p, n) || status_set(st, ST_NO_MEMORY, "no memory for the request");
}

request_body body_take(request_body *b) {
    request_body all = *b;
    *b = (request_body){.pool = all.pool};
    return all;
}

void body_free(request_body *b) {
    buf_fini(&b->bytes);
    if (b->pool) atomic_fetch_sub(&b->pool->used, b->counted);
    b->counted = 0;
}
