/* kv.h - the paged KV cache: which pages are taken, how often, and the memory they lie in.
 *
 * A page holds KV_PAGE_TOK tokens of every layer. Pages are counted: a page that several sequences hold is
 * given back by the last one. Page 0 is reserved for dummies and never handed out. Threads: the engine's.
 * Owner: the engine; a sequence owns one count of each page in its table. Tested by
 * tests/engine/sched/test_kv.c. */
#ifndef VLMD_ENGINE_KV_H
#define VLMD_ENGINE_KV_H

#include "engine/model/model.h"

typedef struct kv_cache {
    int n_pages, n_free; /* n_pages includes page 0 */
    int32_t *free;       /* [n_free] a stack */
    int32_t *refs;       /* [n_pages] */
    backend *be;
    kv_pool pool;
} kv_cache;

static inline int kv_pages_of(int n_tok) {
    return (n_tok + KV_PAGE_TOK - 1) / KV_PAGE_TOK;
}
/* Bytes of one page over all layers, keys and values. */
size_t kv_page_bytes(const stack_spec *s);

/* n_pages >= 2, page 0 included. Errors: ST_NO_MEMORY. After a failure nothing is owned. */
bool kv_init(kv_cache *kv, int n_pages, status *st);
/* The memory of the pages, on the device; f32 [P, K, KV_PAGE_TOK, hd] twice a layer. After a failure call
 * kv_fini. */
bool kv_alloc_pool(kv_cache *kv, backend *be, const stack_spec *s, status *st);
void kv_fini(kv_cache *kv);

int32_t kv_take(kv_cache *kv);                 /* a free page with one count, 0: none is left */
void kv_share(kv_cache *kv, int32_t page);     /* one count more */
void kv_give_back(kv_cache *kv, int32_t page); /* one count less; the last one frees it */

#endif
