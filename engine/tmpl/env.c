/* env.c - memory, bounds and failure of one parse or render. See value.h. One thread; the pool owns
 * everything. */
#include <stdio.h>
#include <string.h>

#include "engine/tmpl/value.h"

#define CHUNK_BYTES ((size_t)64 * 1024)

typedef struct tmpl_chunk {
    struct tmpl_chunk *next;
    size_t used, cap;
} tmpl_chunk;

void tmpl_pool_free(tmpl_pool *p) {
    for (tmpl_chunk *c = p->head; c;) {
        tmpl_chunk *next = c->next;
        mem_free(c);
        c = next;
    }
    *p = (tmpl_pool){.max_bytes = p->max_bytes};
}

_Noreturn void env_raise(env *e, status_code code, const char *fmt, ...) {
    char msg[sizeof e->st->msg];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(msg, sizeof msg, fmt, ap);
    va_end(ap);
    if (code == ST_INVALID && e->line > 0)
        status_set(e->st, code, "chat template, line %d: %s", e->line, msg);
    else
        status_set(e->st, code, "%s", msg);
    longjmp(e->on_error, 1);
}

#define HEAD_BYTES ((sizeof(tmpl_chunk) + 15) & ~(size_t)15)

void *env_alloc(env *e, size_t n) {
    tmpl_pool *p = e->mem;
    size_t need = (n + 15) & ~(size_t)15;
    if (need < n || need > p->max_bytes - HEAD_BYTES)
        fail(e, "the template needs more than %zu MiB of memory", p->max_bytes >> 20);
    if (need == 0) need = 16;
    tmpl_chunk *c = p->head;
    if (!c || c->cap - c->used < need) {
        size_t cap = CHUNK_BYTES - HEAD_BYTES;
        if (need > cap / 4) cap = need;
        if (p->total_bytes + cap + HEAD_BYTES > p->max_bytes)
            fail(e, "the template needs more than %zu MiB of memory", p->max_bytes >> 20);
        tmpl_chunk *fresh = mem_alloc(HEAD_BYTES + cap);
        if (!fresh) env_raise(e, ST_NO_MEMORY, "no memory to render the chat template");
        p->total_bytes += cap + HEAD_BYTES;
        *fresh = (tmpl_chunk){.used = 0, .cap = cap};
        if (c && cap == need) { /* a big block of its own: keep filling the current chunk */
            fresh->next = c->next;
            c->next = fresh;
        } else {
            fresh->next = c;
            p->head = fresh;
        }
        c = fresh;
    }
    void *out = (char *)c + HEAD_BYTES + c->used;
    c->used += need;
    if (n <= 1024) memset(out, 0, n);
    return out;
}

void *env_array(env *e, size_t count, size_t size) {
    if (size && count > SIZE_MAX / size) fail(e, "a list of %zu items is too large", count);
    return env_alloc(e, count * size);
}

void env_step(env *e, size_t n) {
    if (n > e->max_steps - e->steps) fail(e, "rendering takes too many steps (more than %zu)", e->max_steps);
    e->steps += n;
}
