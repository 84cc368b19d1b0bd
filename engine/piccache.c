/* piccache.c - see piccache.h. Two hash tables, by content and by source, and a list of what nobody uses. */
#include "engine/piccache.h"

#include <pthread.h>
#include <string.h>

enum { MIN_BUCKETS = 256, MAX_BUCKETS = 1 << 16, BYTES_A_BUCKET = 1 << 14 };

struct piccache {
    pthread_mutex_t mu;
    size_t max_bytes, bytes;
    size_t n_buckets; /* a power of two */
    picture **by_key;
    struct picture_source **by_source;
    picture *oldest, *newest; /* of the unused */
    size_t unused_bytes;
    picture *gone; /* gave way to a claim, to be freed by the engine's thread */
    /* the room */
    size_t room, kept; /* kept: of all claims */
    size_t to_encode;  /* of pictures whose encode may run or is to come: encode_bytes of all of them */
    int decoders;
    picture_claim *claims; /* that have something to decode, the largest first */
    uint64_t queries, hits;
    int n_refs;
};

piccache *piccache_new(size_t max_bytes, status *st) {
    piccache *c = mem_calloc(1, sizeof *c);
    if (c && pthread_mutex_init(&c->mu, NULL) != 0) {
        mem_free(c);
        c = NULL;
    }
    if (c) {
        c->max_bytes = max_bytes;
        c->room = SIZE_MAX;
        c->n_buckets = MIN_BUCKETS;
        while (c->n_buckets < MAX_BUCKETS && c->n_buckets < max_bytes / BYTES_A_BUCKET) c->n_buckets *= 2;
        c->by_key = mem_calloc(c->n_buckets, sizeof *c->by_key);
        c->by_source = mem_calloc(c->n_buckets, sizeof *c->by_source);
        if (c->by_key && c->by_source) return c;
        piccache_free(c);
    }
    status_set(st, ST_NO_MEMORY, "no memory for the picture cache");
    return NULL;
}

bool piccache_on(const piccache *c) {
    return c->max_bytes > 0;
}

/* ---- tables ---- */

static size_t bucket(const piccache *c, const uint8_t *key) {
    size_t h;
    memcpy(&h, key, sizeof h); /* a hash already */
    return h & (c->n_buckets - 1);
}

static void forget_source(piccache *c, struct picture_source *s) {
    struct picture_source **at = &c->by_source[bucket(c, s->key)];
    while (*at != s) at = &(*at)->next;
    *at = s->next;
    s->picture = NULL;
}

static picture *find_source(const piccache *c, const uint8_t *source) {
    struct picture_source *s = c->by_source[bucket(c, source)];
    while (s && memcmp(s->key, source, IMAGE_KEY_BYTES) != 0) s = s->next;
    return s ? s->picture : NULL;
}

static void learn_source(piccache *c, picture *p, const uint8_t *source) {
    if (find_source(c, source)) return;
    struct picture_source *s = &p->sources[p->next_source++ % PICTURE_SOURCES];
    if (s->picture) forget_source(c, s);
    memcpy(s->key, source, IMAGE_KEY_BYTES);
    s->picture = p;
    struct picture_source **at = &c->by_source[bucket(c, source)];
    s->next = *at;
    *at = s;
}

static void unlink_picture(piccache *c, picture *p) {
    picture **at = &c->by_key[bucket(c, p->key)];
    while (*at != p) at = &(*at)->next;
    *at = p->next;
    for (int i = 0; i < PICTURE_SOURCES; i++)
        if (p->sources[i].picture) forget_source(c, &p->sources[i]);
    p->shared = false;
}

/* ---- those that nobody uses, by the time of their last use ---- */

static void unused_push(piccache *c, picture *p) {
    p->unused_prev = c->newest;
    p->unused_next = NULL;
    *(c->newest ? &c->newest->unused_next : &c->oldest) = p;
    c->newest = p;
    p->unused = true;
    c->unused_bytes += p->bytes;
}

static void unused_remove(piccache *c, picture *p) {
    p->unused = false;
    *(p->unused_prev ? &p->unused_prev->unused_next : &c->oldest) = p->unused_next;
    *(p->unused_next ? &p->unused_next->unused_prev : &c->newest) = p->unused_prev;
    c->unused_bytes -= p->bytes;
}

/* ---- references; the lock is held ---- */

static picture *take(piccache *c, picture *p, bool hit) {
    p->refs++;
    if (p->unused) unused_remove(c, p);
    c->n_refs++;
    if (p->shared) c->queries++;
    if (p->shared && hit) c->hits++;
    return p;
}

static void destroy(picture *p) {
    if (!p) return;
    if (p->enc) encode_free(p->enc);
    tiles_fini(&p->pixels);
    mem_free(p);
}

static void set_bytes(piccache *c, picture *p, size_t bytes) {
    c->bytes += bytes - p->bytes;
    p->bytes = bytes;
}

static void evict_oldest(piccache *c, picture **gone) {
    picture *p = c->oldest;
    unused_remove(c, p);
    unlink_picture(c, p);
    set_bytes(c, p, 0);
    p->next = *gone;
    *gone = p;
}

/* What has to go until the budget holds, as a list by next: freed without the lock. */
static picture *evict(piccache *c) {
    picture *gone = NULL;
    while (c->bytes > c->max_bytes && c->oldest) evict_oldest(c, &gone);
    return gone;
}

static void destroy_all(picture *p) {
    for (picture *next; p; p = next) {
        next = p->next;
        destroy(p);
    }
}

/* ---- what is in piccache.h ---- */

void piccache_free(piccache *c) {
    if (!c) return;
    CHECK(c->n_refs == 0 && !c->claims && c->kept == 0);
    c->max_bytes = 0;
    piccache_collect(c);
    destroy_all(evict(c));
    CHECK(c->bytes == 0);
    pthread_mutex_destroy(&c->mu);
    mem_free(c->by_key);
    mem_free(c->by_source);
    mem_free(c);
}

picture *piccache_find(piccache *c, const uint8_t source[IMAGE_KEY_BYTES]) {
    if (!piccache_on(c)) return NULL;
    pthread_mutex_lock(&c->mu);
    picture *p = find_source(c, source);
    if (p) take(c, p, true);
    pthread_mutex_unlock(&c->mu);
    return p;
}

picture *piccache_add(piccache *c, const uint8_t *source, const uint8_t key[IMAGE_KEY_BYTES], tiles *pixels,
                      size_t encode_bytes, status *st) {
    picture *fresh =
        mem_calloc(1, sizeof *fresh); /* also for one that is known: no allocation under the lock */
    if (!fresh) {
        tiles_fini(pixels);
        status_set(st, ST_NO_MEMORY, "no memory for a picture");
        return NULL;
    }
    memcpy(fresh->key, key, IMAGE_KEY_BYTES);
    fresh->pixels = *pixels;
    fresh->encode_bytes = encode_bytes;
    *pixels = (tiles){0};
    fresh->cache = c;
    fresh->shared = piccache_on(c);
    pthread_mutex_lock(&c->mu);
    picture *p = fresh->shared ? c->by_key[bucket(c, key)] : NULL;
    while (p && memcmp(p->key, key, IMAGE_KEY_BYTES) != 0) p = p->next;
    bool hit = p != NULL;
    if (!hit) {
        p = fresh;
        fresh = NULL;
        set_bytes(c, p, sizeof *p + prep_plan_bytes(&p->pixels.plan));
        c->to_encode += p->encode_bytes;
        if (p->shared) {
            p->next = c->by_key[bucket(c, key)];
            c->by_key[bucket(c, key)] = p;
        }
    }
    take(c, p, hit);
    if (source && p->shared) learn_source(c, p, source);
    pthread_mutex_unlock(&c->mu);
    destroy(fresh);
    return p;
}

picture *piccache_share(picture *p) {
    pthread_mutex_lock(&p->cache->mu);
    take(p->cache, p, true);
    pthread_mutex_unlock(&p->cache->mu);
    return p;
}

picture *piccache_fork(picture *p) {
    pthread_mutex_lock(&p->cache->mu);
    CHECK(p->refs > 0);
    p->refs++;
    p->cache->n_refs++;
    pthread_mutex_unlock(&p->cache->mu);
    return p;
}

/* No encode of p is to come any more. The lock is held. */
static void encoded(piccache *c, picture *p) {
    c->to_encode -= p->encode_bytes;
    p->encode_bytes = 0;
}

/* ---- those that are encoded together: a ring, p for itself included ---- */

static picture *ring_after(const picture *p, picture *q) {
    picture *next = q->beside;
    return next == p ? NULL : next;
}

void picture_join(picture *const *all, int n) {
    for (int i = 0; i < n && n > 1; i++) {
        CHECK(!all[i]->beside && all[i]->enc && !all[i]->ready);
        all[i]->beside = all[(i + 1) % n];
    }
}

/* What is to be freed without the lock, onto *gone. */
static void remove_last(piccache *c, picture *p, picture **gone) {
    if (p->shared) unlink_picture(c, p);
    set_bytes(c, p, 0);
    encoded(c, p);
    p->next = *gone;
    *gone = p;
}

int picture_ready(picture *p) {
    piccache *c = p->cache;
    picture *gone = NULL;
    int n = 0;
    for (picture *q = p; q; q = ring_after(p, q), n++) {
        encode_shrink(q->enc);
        tiles_fini(&q->pixels);
        q->ready = true;
    }
    pthread_mutex_lock(&c->mu);
    for (picture *q = p, *next; q; q = next) {
        next = ring_after(p, q);
        q->beside = NULL;
        set_bytes(c, q, sizeof *q + encode_kept_bytes(q->enc));
        encoded(c, q);
        if (q->refs > 0) continue;
        if (q->shared)
            unused_push(c, q);
        else
            remove_last(c, q, &gone);
    }
    picture *more = evict(c);
    pthread_mutex_unlock(&c->mu);
    destroy_all(gone);
    destroy_all(more);
    return n;
}

bool picture_reset(picture *p) {
    piccache *c = p->cache;
    picture *gone = NULL;
    bool several = p->beside != NULL;
    for (picture *q = p; q; q = ring_after(p, q)) {
        encode_free(q->enc);
        q->enc = NULL;
        q->alone |= several;
    }
    pthread_mutex_lock(&c->mu);
    for (picture *q = p, *next; q; q = next) {
        next = ring_after(p, q);
        q->beside = NULL;
        if (q->refs == 0) remove_last(c, q, &gone);
    }
    pthread_mutex_unlock(&c->mu);
    destroy_all(gone);
    return several;
}

void picture_release(picture *p) {
    if (!p) return;
    piccache *c = p->cache;
    picture *gone = NULL;
    bool held = false;
    pthread_mutex_lock(&c->mu);
    c->n_refs--;
    p->refs--;
    for (picture *q = p; q; q = ring_after(p, q)) held |= q->refs > 0;
    if (p->refs == 0 && p->ready && p->shared) {
        unused_push(c, p);
    } else if (!held) {
        for (picture *q = p, *next; q; q = next) {
            next = ring_after(p, q);
            remove_last(c, q, &gone);
        }
    }
    picture *more = evict(c);
    pthread_mutex_unlock(&c->mu);
    destroy_all(gone);
    destroy_all(more);
}

/* ---- the room ---- */

/* The lock is held. */
static void insert_claim(picture_claim *claim) {
    picture_claim *prev = NULL, *next = claim->cache->claims;
    for (; next && next->decode > claim->decode; next = next->next) prev = next;
    claim->prev = prev;
    claim->next = next;
    *(prev ? &prev->next : &claim->cache->claims) = claim;
    if (next) next->prev = claim;
}

static void remove_claim(picture_claim *claim) {
    *(claim->prev ? &claim->prev->next : &claim->cache->claims) = claim->next;
    if (claim->next) claim->next->prev = claim->prev;
}

static size_t used_room(const piccache *c) {
    size_t used = c->bytes + c->to_encode + c->kept;
    const picture_claim *d = c->claims;
    for (int i = 0; d && i < c->decoders; i++, d = d->next) used += d->decode;
    return used;
}

static void set_claim(picture_claim *claim, size_t kept, size_t decode) {
    piccache *c = claim->cache;
    if (claim->decode > 0) remove_claim(claim);
    c->kept += kept - claim->kept;
    claim->kept = kept;
    claim->decode = decode;
    if (decode > 0) insert_claim(claim);
}

void piccache_set_room(piccache *c, size_t room_bytes, int decoders) {
    c->room = room_bytes;
    c->decoders = decoders;
}

size_t piccache_need(size_t pixel_bytes, size_t encode_bytes) {
    return sizeof(picture) + pixel_bytes + encode_bytes;
}

bool piccache_claim(piccache *c, picture_claim *claim, size_t kept, size_t decode, bool *wait, status *st) {
    CHECK(!claim->cache);
    if (kept > c->room || decode > c->room - kept)
        return status_set(
            st, ST_TOO_LARGE,
            "the pictures need %zu bytes of memory, %zu of them to decode the largest; this server "
            "has %zu for all pictures (--image-memory)",
            kept + decode, decode, c->room);
    pthread_mutex_lock(&c->mu);
    *claim = (picture_claim){.cache = c};
    set_claim(claim, kept, decode);
    bool ok = used_room(c) - c->unused_bytes <= c->room;
    while (ok && used_room(c) > c->room) evict_oldest(c, &c->gone);
    *wait = ok && c->gone;
    if (!ok) {
        set_claim(claim, 0, 0);
        *claim = (picture_claim){0};
    }
    pthread_mutex_unlock(&c->mu);
    return ok ||
           status_set(st, ST_BUSY, "the server has no memory left for more pictures now; try again later");
}

void piccache_shrink_claim(picture_claim *claim, size_t kept, size_t decode) {
    CHECK(kept <= claim->kept && decode <= claim->decode);
    pthread_mutex_lock(&claim->cache->mu);
    set_claim(claim, kept, decode);
    pthread_mutex_unlock(&claim->cache->mu);
}

void piccache_unclaim(picture_claim *claim) {
    if (!claim->cache) return;
    piccache_shrink_claim(claim, 0, 0);
    *claim = (picture_claim){0};
}

void piccache_collect(piccache *c) {
    pthread_mutex_lock(&c->mu);
    picture *gone = c->gone;
    c->gone = NULL;
    pthread_mutex_unlock(&c->mu);
    destroy_all(gone);
}

void piccache_get_stats(piccache *c, piccache_stats *out) {
    pthread_mutex_lock(&c->mu);
    *out = (piccache_stats){c->queries, c->hits, c->bytes, used_room(c)};
    pthread_mutex_unlock(&c->mu);
}
