/* kv.c - see kv.h. The engine's thread. */
#include "engine/kv.h"

size_t kv_page_bytes(const stack_spec *s) {
    return (size_t)s->n_layers * 2 * (size_t)s->kv_heads * KV_PAGE_TOK * (size_t)s->head_dim * sizeof(float);
}

bool kv_init(kv_cache *kv, int n_pages, status *st) {
    CHECK(n_pages >= 2);
    *kv = (kv_cache){.n_pages = n_pages};
    kv->free = mem_alloc((size_t)n_pages * sizeof *kv->free);
    kv->refs = mem_calloc((size_t)n_pages, sizeof *kv->refs);
    if (!kv->free || !kv->refs) {
        kv_fini(kv);
        return status_set(st, ST_NO_MEMORY, "no memory for a table of %d KV pages", n_pages);
    }
    for (int page = n_pages - 1; page > 0; page--) kv->free[kv->n_free++] = page;
    return true;
}

bool kv_alloc_pool(kv_cache *kv, backend *be, const stack_spec *s, status *st) {
    kv->be = be;
    kv->pool = (kv_pool){.n_layers = s->n_layers, .n_pages = kv->n_pages};
    kv->pool.k = mem_calloc((size_t)s->n_layers, sizeof(tensor));
    kv->pool.v = mem_calloc((size_t)s->n_layers, sizeof(tensor));
    if (!kv->pool.k || !kv->pool.v) return status_set(st, ST_NO_MEMORY, "no memory for the KV cache");
    int64_t d[4] = {kv->n_pages, s->kv_heads, KV_PAGE_TOK, s->head_dim};
    size_t bytes = kv_page_bytes(s) / 2 / (size_t)s->n_layers * (size_t)kv->n_pages;
    for (int layer = 0; layer < s->n_layers; layer++) {
        for (int i = 0; i < 2; i++) {
            void *p = backend_alloc(be, bytes, st);
            if (!p)
                return status_prefix(st, "the KV cache of %.1f MiB",
                                     (double)kv_page_bytes(s) * kv->n_pages / (1 << 20));
            (i ? kv->pool.v : kv->pool.k)[layer] = tensor_of(p, DT_F32, 4, d);
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
    mem_free(kv->refs);
    *kv = (kv_cache){0};
}

int32_t kv_take(kv_cache *kv) {
    if (kv->n_free == 0) return 0;
    int32_t page = kv->free[--kv->n_free];
    CHECK(kv->refs[page] == 0);
    kv->refs[page] = 1;
    return page;
}

void kv_share(kv_cache *kv, int32_t page) {
    CHECK(page > 0 && page < kv->n_pages && kv->refs[page] > 0);
    kv->refs[page]++;
}

void kv_give_back(kv_cache *kv, int32_t page) {
    CHECK(page > 0 && page < kv->n_pages && kv->refs[page] > 0);
    if (--kv->refs[page] == 0) kv->free[kv->n_free++] = page;
}
