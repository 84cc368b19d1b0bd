/* kv.c - see kv.h. The engine's thread. */
#include "engine/kv.h"

#include <string.h>

/* Layers that attend to their past. */
static size_t n_kept(const stack_spec *s) {
    size_t n = 0;
    for (int i = 0; i < s->n_layers; i++) n += !s->cross[i];
    return n;
}

size_t kv_page_bytes(const stack_spec *s, dtype t) {
    return n_kept(s) * 2 * (size_t)s->kv_heads * KV_PAGE_TOK * (size_t)s->head_dim * dtype_size(t);
}

bool kv_init(kv_cache *kv, int n_pages, status *st) {
    CHECK(n_pages >= 2);
    *kv = (kv_cache){.n_pages = n_pages, .mask = 15};
    while (kv->mask < (uint32_t)n_pages) kv->mask = kv->mask * 2 + 1;
    kv->free = mem_alloc((size_t)n_pages * sizeof *kv->free);
    kv->page = mem_calloc((size_t)n_pages, sizeof *kv->page);
    kv->buckets = mem_calloc((size_t)kv->mask + 1, sizeof *kv->buckets);
    if (!kv->free || !kv->page || !kv->buckets) {
        kv_fini(kv);
        return status_set(st, ST_NO_MEMORY, "no memory for a table of %d KV pages", n_pages);
    }
    for (int page = n_pages - 1; page > 0; page--) kv->free[kv->n_free++] = page;
    return true;
}

bool kv_describe_pool(kv_cache *kv, const stack_spec *s, dtype t, status *st) {
    kv->pool = (kv_pool){.n_layers = s->n_layers, .n_pages = kv->n_pages};
    kv->pool.k = mem_calloc((size_t)s->n_layers, sizeof(tensor));
    kv->pool.v = mem_calloc((size_t)s->n_layers, sizeof(tensor));
    if (!kv->pool.k || !kv->pool.v) return status_set(st, ST_NO_MEMORY, "no memory for the KV cache");
    int64_t d[4] = {kv->n_pages, s->kv_heads, KV_PAGE_TOK, s->head_dim};
    for (int layer = 0; layer < s->n_layers; layer++)
        kv->pool.k[layer] = kv->pool.v[layer] = tensor_of(NULL, t, 4, d);
    return true;
}

bool kv_alloc_pool(kv_cache *kv, backend *be, const stack_spec *s, dtype t, status *st) {
    kv->be = be;
    if (!kv_describe_pool(kv, s, t, st)) return false;
    size_t bytes = kv_page_bytes(s, t) / 2 / n_kept(s) * (size_t)kv->n_pages;
    for (int layer = 0; layer < s->n_layers; layer++) {
        for (int i = 0; i < 2 && !s->cross[layer]; i++) {
            void *p = backend_alloc(be, bytes, st);
            if (!p)
                return status_prefix(st, "the KV cache of %.1f MiB",
                                     (double)kv_page_bytes(s, t) * kv->n_pages / (1 << 20));
            (i ? kv->pool.v : kv->pool.k)[layer].data = p;
        }
    }
    return true;
}

void kv_fini(kv_cache *kv) {
    for (int layer = 0; layer < kv->pool.n_layers; layer++) {
        if (kv->pool.k) backend_release(kv->be, kv->pool.k[layer].data);
        if (kv->pool.v) backend_release(kv->be, kv->pool.v[layer].data);
    }
    mem_free(kv->pool.k);
    mem_free(kv->pool.v);
    mem_free(kv->free);
    mem_free(kv->page);
    mem_free(kv->buckets);
    *kv = (kv_cache){0};
}

/* ---- pages by key ---- */

static int32_t *bucket(const kv_cache *kv, const page_key *key) {
    uint32_t h;
    memcpy(&h, key->h, sizeof h);
    return &kv->buckets[h & kv->mask];
}

int32_t kv_find(const kv_cache *kv, const page_key *key) {
    int32_t page = *bucket(kv, key);
    while (page && memcmp(&kv->page[page].key, key, sizeof *key) != 0) page = kv->page[page].next_of_key;
    return page;
}

static void name(kv_cache *kv, int32_t page, const page_key *key, kv_state state) {
    int32_t *head = bucket(kv, key);
    kv->page[page].key = *key;
    kv->page[page].state = state;
    kv->page[page].next_of_key = *head;
    *head = page;
}

static void forget(kv_cache *kv, int32_t page) {
    int32_t *at = bucket(kv, &kv->page[page].key);
    while (*at != page) at = &kv->page[*at].next_of_key;
    *at = kv->page[page].next_of_key;
    kv->page[page].state = KV_NO_KEY;
}

static bool is_held(const kv_cache *kv, int32_t page) {
    return page > 0 && page < kv->n_pages && kv->page[page].refs > 0;
}

void kv_claim(kv_cache *kv, int32_t page, const page_key *key) {
    CHECK(is_held(kv, page) && kv->page[page].refs == 1 && kv->page[page].state == KV_NO_KEY);
    CHECK(!kv_find(kv, key));
    name(kv, page, key, KV_FILLING);
}

void kv_fill(kv_cache *kv, int32_t page, const page_key *key) {
    CHECK(is_held(kv, page));
    int32_t known = kv_find(kv, key);
    if (known == page)
        kv->page[page].state = KV_FILLED;
    else if (!known && kv->page[page].state == KV_NO_KEY)
        name(kv, page, key, KV_FILLED);
}

/* ---- counts ---- */

static void make_idle(kv_cache *kv, int32_t page) {
    kv_page *p = kv->page;
    p[page].older = p[0].older;
    p[page].newer = 0;
    p[p[0].older].newer = page;
    p[0].older = page;
    kv->n_idle++;
}

static void leave_idle(kv_cache *kv, int32_t page) {
    kv_page *p = kv->page;
    p[p[page].older].newer = p[page].newer;
    p[p[page].newer].older = p[page].older;
    kv->n_idle--;
}

int32_t kv_take(kv_cache *kv) {
    int32_t page = 0;
    if (kv->n_free > 0) {
        page = kv->free[--kv->n_free];
    } else if (kv->n_idle > 0) {
        page = kv->page[0].newer;
        leave_idle(kv, page);
        forget(kv, page);
    }
    if (!page) return 0;
    CHECK(kv->page[page].refs == 0 && kv->page[page].state == KV_NO_KEY);
    kv->page[page].refs = 1;
    return page;
}

void kv_share(kv_cache *kv, int32_t page) {
    CHECK(page > 0 && page < kv->n_pages);
    kv_page *p = &kv->page[page];
    CHECK(p->refs > 0 ? p->state != KV_FILLING : p->state == KV_FILLED);
    if (p->refs++ == 0) leave_idle(kv, page);
}

void kv_give_back(kv_cache *kv, int32_t page) {
    CHECK(is_held(kv, page));
    kv_page *p = &kv->page[page];
    if (--p->refs > 0) return;
    if (p->state == KV_FILLED) {
        make_idle(kv, page);
        return;
    }
    if (p->state == KV_FILLING) forget(kv, page);
    kv->free[kv->n_free++] = page;
}
