/* test_piccache.c - pictures by content: what is found, what is shared, who goes first when the budget is spent, and
 * that an encode goes on for whoever is left. Expected states are those of a plain list that the test keeps itself. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "engine/piccache.h"
#include "tests/engine/sched/fake_model.h"
#include "tests/tools/rng.h"

static const size_t ROWS_BYTES = FAKE_IMAGE_ROWS * FAKE_WIDTH * sizeof(float);
static size_t ready_bytes(int n) {
    return (size_t)n * (sizeof(picture) + ROWS_BYTES);
}

/* Content and spelling from numbers. */
static const uint8_t *name(uint32_t kind, uint32_t n) {
    static uint8_t keys[4][IMAGE_KEY_BYTES];
    static int at;
    uint8_t *k = keys[at++ % 4];
    for (uint32_t i = 0; i < IMAGE_KEY_BYTES; i++) k[i] = (uint8_t)fake_mix(fake_mix(kind, n), i);
    return k;
}

static tiles pixels_of(uint32_t n) {
    tiles im = one_tile(2, 2, NULL);
    for (uint32_t i = 0; i < 12; i++) im.rgb[i] = (uint8_t)(fake_mix(n, i) % 250);
    return im;
}

static picture *add(piccache *c, int64_t source, uint32_t n) {
    tiles im = pixels_of(n);
    status st = {0};
    picture *p = piccache_add(c, source < 0 ? NULL : name(1, (uint32_t)source), name(2, n), &im, 0, &st);
    assert_non_null(p);
    assert_null(im.rgb);
    return p;
}

static picture *find(piccache *c, uint32_t source) {
    return piccache_find(c, name(1, source));
}

/* n slices more; true when the rows are there. */
static bool encode_slices_of(picture *p, int n) {
    arena counting = {0};
    ctx c = {.scratch = &counting, .dry = true};
    if (!p->enc) p->enc = encode_new(NULL, NULL, &p->pixels, NULL);
    if (!encode_run(&c, p->enc, n)) return false;
    picture_ready(p);
    return true;
}

static piccache *new_cache(size_t bytes) {
    status st = {0};
    piccache *c = piccache_new(bytes, &st);
    assert_non_null(c);
    return c;
}

static size_t held(piccache *c) {
    piccache_stats s;
    piccache_get_stats(c, &s);
    return s.bytes;
}

static void by_source_and_content(void **state) {
    (void)state;
    piccache *c = new_cache(ready_bytes(4));
    assert_null(find(c, 1));
    picture *a = add(c, 1, 10), *b = add(c, 2, 20);
    assert_ptr_not_equal(a, b);
    assert_ptr_equal(find(c, 1), a);
    assert_ptr_equal(add(c, 3, 10), a); /* another spelling of it */
    assert_ptr_equal(find(c, 3), a);
    assert_ptr_equal(add(c, -1, 10), a);
    piccache_stats s;
    piccache_get_stats(c, &s);
    assert_int_equal(s.queries, 6);
    assert_int_equal(s.hits, 4);
    /* the oldest of many spellings is forgotten */
    for (uint32_t i = 0; i < PICTURE_SOURCES; i++) picture_release(add(c, 100 + i, 10));
    assert_null(find(c, 1));
    assert_null(find(c, 3));
    for (uint32_t i = 0; i < PICTURE_SOURCES; i++) {
        picture *p = find(c, 100 + i);
        assert_ptr_equal(p, a);
        picture_release(p);
    }
    /* what is not encoded goes with its last reference */
    picture_release(b);
    assert_null(find(c, 2));
    for (int i = 0; i < 4; i++) picture_release(a);
    picture_release(a);
    assert_null(find(c, 100));
    assert_int_equal(held(c), 0);
    piccache_free(c);
}

static void least_recently_used_goes(void **state) {
    (void)state;
    piccache *c = new_cache(ready_bytes(3));
    for (uint32_t i = 0; i < 3; i++) {
        picture *p = add(c, i, i);
        assert_true(encode_slices_of(p, 99));
        picture_release(p);
    }
    assert_int_equal(held(c), ready_bytes(3));
    picture *first = find(c, 0);
    assert_true(first->ready);
    picture_release(first); /* 1 is the oldest now */
    picture *p = add(c, 3, 3);
    assert_true(encode_slices_of(p, 99));
    assert_null(find(c, 1));
    picture *two = find(c, 2), *zero = find(c, 0);
    assert_non_null(two);
    assert_ptr_equal(zero, first);
    /* all are in use: the budget gives way, and holds again as soon as it can */
    picture *more = add(c, 4, 4);
    assert_true(encode_slices_of(more, 99));
    assert_int_equal(held(c), ready_bytes(4));
    picture_release(zero);
    assert_null(find(c, 0));
    assert_int_equal(held(c), ready_bytes(3));
    picture_release(p);
    picture_release(two);
    picture_release(more);
    piccache_free(c);
    /* room for none: shared while in use, never kept */
    c = new_cache(1);
    p = add(c, 1, 1);
    assert_true(encode_slices_of(p, 99));
    assert_ptr_equal(find(c, 1), p);
    picture_release(p);
    picture_release(p);
    assert_null(find(c, 1));
    assert_int_equal(held(c), 0);
    piccache_free(c);
}

static void off(void **state) {
    (void)state;
    piccache *c = new_cache(0);
    assert_false(piccache_on(c));
    picture *a = add(c, 1, 1), *b = add(c, 1, 1);
    assert_ptr_not_equal(a, b);
    assert_null(find(c, 1));
    assert_true(encode_slices_of(a, 99));
    picture_release(a);
    picture_release(b);
    piccache_stats s;
    piccache_get_stats(c, &s);
    assert_int_equal(s.queries, 0);
    assert_int_equal(s.bytes, 0);
    piccache_free(c);
}

static void an_encode_outlives_who_began_it(void **state) {
    (void)state;
    piccache *c = new_cache(1 << 20);
    picture *alone = add(c, 1, 5);
    assert_true(encode_slices_of(alone, 99));
    float want[FAKE_IMAGE_ROWS * FAKE_WIDTH];
    memcpy(want, encode_rows(alone->enc).data, sizeof want);
    picture_release(alone);
    piccache_free(c);

    c = new_cache(1 << 20);
    picture *p = add(c, 1, 5), *same = piccache_share(p);
    assert_false(encode_slices_of(p, 2));
    picture_release(p); /* its first holder leaves in the middle */
    assert_non_null(same->enc);
    assert_true(encode_slices_of(same, FAKE_ENCODE_SLICES - 2)); /* no slice runs twice */
    assert_memory_equal(want, encode_rows(same->enc).data, sizeof want);
    picture_release(same);
    /* a failed one begins again from its pixels */
    p = add(c, 2, 6);
    same = find(c, 2);
    assert_false(encode_slices_of(p, 2));
    picture_reset(p);
    picture_release(p);
    assert_null(same->enc);
    assert_non_null(same->pixels.rgb);
    assert_true(encode_slices_of(same, FAKE_ENCODE_SLICES));
    assert_null(same->pixels.rgb);
    picture_release(same);
    /* given up in the middle by all */
    p = add(c, 3, 7);
    assert_false(encode_slices_of(p, 2));
    picture_release(p);
    assert_null(find(c, 3));
    piccache_free(c);
}

/* Random references over few contents and more spellings, against a list in order of last use. */
static void random_use(void **state) {
    (void)state;
    enum { CONTENTS = 12, HOLDERS = 10, BUDGET = 5 };
    for (uint32_t seed = 0; seed < 40; seed++) {
        rng r = {seed};
        piccache *c = new_cache(ready_bytes(BUDGET));
        picture *held_by[HOLDERS] = {NULL};
        uint32_t content[HOLDERS] = {0};
        int kept[CONTENTS], n_kept = 0; /* ready and unused, the oldest first */
        for (int turn = 0; turn < 2000; turn++) {
            uint32_t h = rnd(&r, HOLDERS), n = rnd(&r, CONTENTS);
            if (!held_by[h]) {
                bool was_kept = false;
                for (int i = 0; i < n_kept; i++) was_kept |= kept[i] == (int)n;
                picture *others = NULL;
                for (int i = 0; i < HOLDERS; i++)
                    if (held_by[i] && content[i] == n) others = held_by[i];
                picture *p = find(c, n * 3);
                if (others) assert_ptr_equal(p, others);
                assert_int_equal(p != NULL, others || was_kept);
                if (!p) p = add(c, n * 3, n);
                assert_memory_equal(p->key, name(2, n), IMAGE_KEY_BYTES);
                assert_int_equal(p->ready, was_kept || (others && others->ready));
                for (int i = 0, k = 0, all = n_kept; i < all; i++) {
                    if (kept[i] == (int)n)
                        n_kept--;
                    else
                        kept[k++] = kept[i];
                }
                held_by[h] = p;
                content[h] = n;
            } else if (!held_by[h]->ready && rnd(&r, 3)) {
                encode_slices_of(held_by[h], 1 + (int)rnd(&r, 3));
            } else {
                picture *p = held_by[h];
                bool ready = p->ready, last = true;
                held_by[h] = NULL;
                for (int i = 0; i < HOLDERS; i++) last &= held_by[i] != p;
                picture_release(p);
                if (last && ready) kept[n_kept++] = (int)content[h];
            }
            size_t used = (size_t)n_kept * ready_bytes(1);
            for (int i = 0; i < HOLDERS; i++) {
                bool first = held_by[i] != NULL;
                for (int k = 0; k < i; k++) first &= held_by[k] != held_by[i];
                if (first) used += held_by[i]->ready ? ready_bytes(1) : sizeof(picture) + 12;
            }
            /* Room is made when something is encoded or given back, not when pixels arrive. */
            if (held(c) < used)
                while (used > held(c)) {
                    assert_true(n_kept > 0 && used > ready_bytes(BUDGET));
                    memmove(kept, kept + 1, (size_t)--n_kept * sizeof *kept);
                    used -= ready_bytes(1);
                }
            assert_int_equal(held(c), used);
        }
        for (int i = 0; i < HOLDERS; i++) picture_release(held_by[i]);
        assert_true(held(c) <= ready_bytes(BUDGET));
        piccache_free(c);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(by_source_and_content),
                                       cmocka_unit_test(least_recently_used_goes), cmocka_unit_test(off),
                                       cmocka_unit_test(an_encode_outlives_who_began_it),
                                       cmocka_unit_test(random_use)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
