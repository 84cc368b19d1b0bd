/* kv.h - the paged KV cache: which pages are taken, how often, what they are known by, and the memory they lie in.
 *
 * A page holds KV_PAGE_TOK tokens of every layer. Pages are counted: a page that several sequences hold is
 * given back by the last one. A page with a key can be found again: it is either being filled by its only holder
 * or filled. A filled page that nobody holds is idle: it stays until a page is wanted and none is free, the one
 * least recently held first. Page 0 is reserved for dummies and never handed out. Every function but init and
 * fini takes constant time.
 * Threads: the engine's. Owner: the engine; a sequence owns one count of each page in its table. Tested by
 * tests/engine/sched/test_kv.c. */
#ifndef VLMD_ENGINE_KV_H
#define VLMD_ENGINE_KV_H

#include "engine/model/model.h"
#include "engine/prefix.h"

typedef enum kv_state { KV_NO_KEY, KV_FILLING, KV_FILLED } kv_state;

typedef struct kv_page {
    page_key key;
    int32_t refs;
    int32_t next_of_key;  /* pages whose keys fall into one bucket; 0: the last */
    int32_t older, newer; /* of the idle ones: a ring through page 0, whose newer is the oldest */
    kv_state state;
} kv_page;

typedef struct kv_cache {
    int n_pages, n_free, n_idle; /* n_pages includes page 0; free ones have no key */
    int32_t *free;               /* [n_free] a stack */
    kv_page *page;               /* [n_pages] */
    int32_t *buckets;            /* [mask + 1] the first page, 0: none */
    uint32_t mask;
    backend *be;
    kv_pool pool;
} kv_cache;

static inline int kv_pages_of(int n_tok) {
    return (n_tok + KV_PAGE_TOK - 1) / KV_PAGE_TOK;
}
/* How many pages kv_take can give. */
static inline int kv_available(const kv_cache *kv) {
    return kv->n_free + kv->n_idle;
}
/* Bytes of one page over all layers, keys and values, of type t. */
size_t kv_page_bytes(const stack_spec *s, dtype t);

/* n_pages >= 2, page 0 included. Errors: ST_NO_MEMORY. After a failure nothing is owned. */
bool kv_init(kv_cache *kv, int n_pages, status *st);
/* The memory of the pages, on the device; of a float type t [P, K, KV_PAGE_TOK, hd] twice a layer that attends to its past.
 * After a failure call kv_fini. */
bool kv_describe_pool(kv_cache *kv, const stack_spec *s, dtype t,
                      status *st); /* without memory: for dry runs */
bool kv_alloc_pool(kv_cache *kv, backend *be, const stack_spec *s, dtype t, status *st);
void kv_fini(kv_cache *kv);

int32_t kv_take(kv_cache *kv); /* a free or the oldest idle page with one count, 0: none is left */
void kv_share(kv_cache *kv, int32_t page);     /* one count more; the first one of an idle page */
void kv_give_back(kv_cache *kv, int32_t page); /* one count less; the last one frees it or makes it idle */

int32_t kv_find(const kv_cache *kv, const page_key *key); /* filling or filled; 0: none */
/* The holder of a page without a key says that it will fill it as this one; nobody else may have the key. */
void kv_claim(kv_cache *kv, int32_t page, const page_key *key);
/* A held page is filled as what key says: from now on others may share it. Nothing happens when another page has
 * the key already. */
void kv_fill(kv_cache *kv, int32_t page, const page_key *key);

#endif
