/* piccache.h - pictures by content: each is decoded, encoded and kept once, however many sequences show it.
 *
 * A picture enters with its pixels, when they are decoded; the engine's thread encodes it for whoever comes first and
 * the rows serve all. Who holds a reference keeps it; without references encoded rows stay for as long as the budget
 * has room, the least recently used go first, and what is not encoded yet goes at once. A failed encode leaves the
 * pixels, so that the next holder tries for itself, and the encode of a holder that leaves goes on with the next.
 *
 * Pictures that are encoded together (gather.h) stay together until all are ready or the encode has failed. One that nobody
 * holds any more waits for the others, found by whoever asks for it, for its memory is in use until then; when nobody holds any
 * of them they go at once. So the account never says less than what is taken. After a failure each is to be encoded alone,
 * and only one that fails alone fails.
 *
 * The cache also keeps the account of all memory for pictures: a claim promises room to a job before its pictures are
 * decoded, and passes to the picture when it enters.
 *
 * Threads: find, add, share and claims: any; everything else, and the fields that say so: the engine's, since it alone gives
 * back the device's memory. Owner: the cache, of all pictures; it must outlive every reference.
 * Tested by tests/engine/sched/test_piccache.c. */
#ifndef VLMD_ENGINE_PICCACHE_H
#define VLMD_ENGINE_PICCACHE_H

#include "engine/image/key.h"
#include "engine/model/model.h"

typedef struct piccache piccache;

enum { PICTURE_SOURCES = 4 }; /* spellings of one content that are remembered; the oldest gives way */

/* Room that somebody has been promised for pictures that are not here yet. Zero: none. */
typedef struct picture_claim {
    piccache *cache;
    size_t kept;                       /* of all of them: pixels, and what encoding takes */
    size_t decode;                     /* of one at a time, while it is decoded */
    struct picture_claim *prev, *next; /* the largest decode first */
} picture_claim;

typedef struct picture {
    uint8_t key[IMAGE_KEY_BYTES];
    tiles pixels; /* until its rows are there; the engine's thread reads and frees them. The plan stays */
    encode *enc;  /* the engine's thread; NULL: not begun */
    bool ready;   /* the engine's thread; enc holds rows */
    bool alone;   /* the engine's thread; failed with others */
    struct picture
        *beside; /* the engine's thread; the next of those encoded together, in a ring; NULL: there is none */
    /* the cache's, under its lock */
    piccache *cache;
    bool shared; /* findable */
    bool unused; /* stands in the list of those */
    int refs;
    size_t bytes,
        encode_bytes;     /* what it holds; what its encode will take besides, until its rows are there */
    struct picture *next; /* of its bucket */
    struct picture *unused_prev, *unused_next;
    struct picture_source {
        uint8_t key[IMAGE_KEY_BYTES];
        struct picture *picture; /* NULL: a free place */
        struct picture_source *next;
    } sources[PICTURE_SOURCES];
    int next_source;
} picture;

/* max_bytes 0: nothing is found, shared or kept. */
piccache *piccache_new(size_t max_bytes, status *st);
void piccache_free(piccache *c); /* no reference may be left; NULL is fine */
bool piccache_on(const piccache *c);

/* By the bytes it came from: a new reference, or NULL. */
picture *piccache_find(piccache *c, const uint8_t source[IMAGE_KEY_BYTES]);
/* By content: a new reference to the picture of that key, whose pixels are taken over (or freed, where it is known
 * already). source may be NULL. NULL without memory; the pixels are then freed. */
picture *piccache_add(piccache *c, const uint8_t *source, const uint8_t key[IMAGE_KEY_BYTES], tiles *pixels,
                      size_t encode_bytes, status *st);
picture *piccache_share(picture *p); /* one reference more, for one more place that shows it */
picture *piccache_fork(picture *p);  /* likewise, for the same place of another choice: no query, no hit */

/* From now on these n are encoded together; their encodes have begun. */
void picture_join(picture *const *all, int n);
/* The encode of p, and of all that are encoded with it, is done: pixels go, rows count. Returns how many they are. */
int picture_ready(picture *p);
/* It failed: back to the pixels. True: they are several, each to be encoded alone now. */
bool picture_reset(picture *p);
void picture_release(picture *p); /* NULL is fine */

/* The room for all pictures: those that are claimed, decoded, being encoded, and encoded. Of claimed decodes count the
 * largest `decoders`, for no more run at a time. Before threads use the cache; without it there is no bound. */
void piccache_set_room(piccache *c, size_t room_bytes, int decoders);
/* What a picture of so many bytes of prepared pixels (and text), whose encode takes encode_bytes, takes until its rows are there. */
size_t piccache_need(size_t pixel_bytes, size_t encode_bytes);
/* Any thread. Pictures that nobody uses give way. *wait: some of that memory is still to be given back: the claim may
 * be used after the next piccache_collect. Errors: ST_TOO_LARGE, it is more than the room; ST_BUSY, others have it. */
bool piccache_claim(piccache *c, picture_claim *claim, size_t kept, size_t decode, bool *wait, status *st);
void piccache_shrink_claim(picture_claim *claim, size_t kept, size_t decode);
void piccache_unclaim(picture_claim *claim); /* no claim is fine */
void piccache_collect(piccache *c);          /* the engine's thread: frees what gave way to claims */

typedef struct piccache_stats {
    uint64_t queries, hits; /* places that show a picture; those whose picture was there or on its way */
    size_t bytes;           /* of pictures: pixels or rows */
    size_t used;            /* of the room */
} piccache_stats;
void piccache_get_stats(piccache *c, piccache_stats *out);

#endif
