/* share.c - see share.h. */
#include "engine/share.h"

#include <string.h>

void share_within_job(seq *s) {
    uint8_t name[1 + sizeof s->job] = {0}; /* no salt begins with a zero byte */
    memcpy(name + 1, &s->job, sizeof s->job);
    prefix_root(&s->root, name, sizeof name);
    s->share_max = INT_MAX;
    s->job_only = true;
}

void share_root(seq *s) {
    if (s->both_ways == BOTH_PROMPT) prefix_rows(&s->root, &s->root, s->prompt, 0, s->n_prompt);
    if (!s->apart) return;
    buf all = {0};
    bool ok = buf_append(&all, s->root.h, sizeof s->root.h);
    for (int i = 0; i < s->prompt->n_images; i++)
        ok = ok && buf_append(&all, s->prompt->images[i].key, IMAGE_KEY_BYTES);
    if (ok)
        prefix_root(&s->root, all.data, all.len);
    else
        s->share_max = 0;
    buf_fini(&all);
}

/* Key of page i, or NULL: it is not to be shared (or no memory is left to know it by). */
static const page_key *key_of(seq *s, int i) {
    if (i >= s->share_max / KV_PAGE_TOK) return NULL;
    if (i >= s->cap_keys) {
        int cap = s->cap_keys ? s->cap_keys * 2 : kv_pages_of(s->n_prompt) + 1;
        if (cap < i + 1) cap = i + 1;
        page_key *keys = mem_realloc(s->keys, (size_t)cap * sizeof *keys);
        if (!keys) return NULL;
        s->keys = keys;
        s->cap_keys = cap;
    }
    for (; s->n_keys <= i; s->n_keys++)
        prefix_next(&s->keys[s->n_keys], s->n_keys ? &s->keys[s->n_keys - 1] : &s->root, s->prompt,
                    s->n_keys * KV_PAGE_TOK);
    return &s->keys[i];
}

/* Pages that need not be computed if somebody else has them. */
static int n_shareable(const seq *s) {
    return (seq_len(s) - 1) / KV_PAGE_TOK;
}

/* The filled page that s may take as its i-th, or 0. */
static int32_t find_filled(seq *s, const kv_cache *kv, int i) {
    const page_key *key = i < n_shareable(s) ? key_of(s, i) : NULL;
    int32_t page = key ? kv_find(kv, key) : 0;
    return kv->page[page].state == KV_FILLED ? page : 0; /* page 0 never is */
}

static void skip_page(seq *s) {
    s->n_done += KV_PAGE_TOK;
    if (!s->preempted) s->n_cached += KV_PAGE_TOK;
}

bool share_admit(seq *s, kv_cache *kv, int spare) {
    CHECK(s->n_pages == 0 && s->n_done == 0);
    int all = kv_pages_of(seq_len(s)), n = 0, idle = 0;
    /* found pages that others hold cost nothing; those that nobody holds are among the available */
    if (spare > kv_available(kv)) return false;
    for (int32_t page; (page = find_filled(s, kv, n)); n++) idle += kv->page[page].refs == 0;
    if (all - n + idle + spare > kv_available(kv)) return false;
    for (int i = 0; i < n; i++) {
        int32_t page = find_filled(s, kv, i);
        kv_share(kv, page);
        s->pages[s->n_pages++] = page;
        skip_page(s);
    }
    CHECK(seq_grow(s, kv, seq_len(s)));
    return true;
}

void share_follow(seq *s, kv_cache *kv, bool alone) {
    s->wait_row = INT_MAX;
    if (alone) return;
    while (s->n_done % KV_PAGE_TOK == 0) {
        int i = s->n_done / KV_PAGE_TOK;
        int32_t page = find_filled(s, kv, i);
        if (!page) break;
        if (page != s->pages[i]) { /* else it has been here before, and a step failed */
            kv_give_back(kv, s->pages[i]);
            kv_share(kv, page);
            s->pages[i] = page;
        }
        skip_page(s);
    }
    int first = s->n_done / KV_PAGE_TOK;
    if (s->n_claimed < first) s->n_claimed = first;
    for (; s->n_claimed < n_shareable(s); s->n_claimed++) {
        int i = s->n_claimed;
        const page_key *key = key_of(s, i);
        if (!key) return;
        int32_t page = kv_find(kv, key);
        if (page == s->pages[i]) continue;
        if (page == 0) {
            kv_claim(kv, s->pages[i], key);
        } else if (i * KV_PAGE_TOK >= s->n_done) {
            s->wait_row = i * KV_PAGE_TOK;
            return;
        } /* else it is half computed here: s goes on */
    }
}

void share_filled(seq *s, kv_cache *kv, int before, int to) {
    for (int i = before / KV_PAGE_TOK; (i + 1) * KV_PAGE_TOK <= to; i++) {
        const page_key *key = key_of(s, i);
        if (!key) return;
        kv_fill(kv, s->pages[i], key);
    }
}
