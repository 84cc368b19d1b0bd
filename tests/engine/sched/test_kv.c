/* test_kv.c - the page allocator: every page once, counts, exhaustion, random use against a plain table. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "engine/kv.h"

static void every_page_once(void **state) {
    (void)state;
    kv_cache kv;
    assert_true(kv_init(&kv, 10, NULL));
    assert_int_equal(kv.n_free, 9);
    bool seen[10] = {false};
    for (int i = 0; i < 9; i++) {
        int32_t page = kv_take(&kv);
        assert_in_range(page, 1, 9); /* never page 0 */
        assert_false(seen[page]);
        seen[page] = true;
    }
    assert_int_equal(kv_take(&kv), 0);
    kv_give_back(&kv, 4);
    assert_int_equal(kv_take(&kv), 4);
    kv_fini(&kv);
}

static void shared_pages_stay(void **state) {
    (void)state;
    kv_cache kv;
    assert_true(kv_init(&kv, 2, NULL));
    int32_t page = kv_take(&kv);
    kv_share(&kv, page);
    kv_give_back(&kv, page);
    assert_int_equal(kv.n_free, 0);
    kv_give_back(&kv, page);
    assert_int_equal(kv.n_free, 1);
    kv_fini(&kv);
}

static void random_use(void **state) {
    (void)state;
    enum { N = 64 };
    kv_cache kv;
    assert_true(kv_init(&kv, N, NULL));
    int refs[N] = {0}, held = 0;
    srand(7);
    for (int i = 0; i < 100000; i++) {
        int page = 1 + rand() % (N - 1), what = rand() % 3;
        if (what == 0) {
            page = kv_take(&kv);
            assert_int_equal(page == 0, held == N - 1);
            if (page) assert_int_equal(refs[page], 0);
            if (page) refs[page] = 1, held++;
        } else if (what == 1 && refs[page] > 0 && refs[page] < 5) {
            kv_share(&kv, page);
            refs[page]++;
        } else if (what == 2 && refs[page] > 0) {
            kv_give_back(&kv, page);
            held -= --refs[page] == 0;
        }
        assert_int_equal(kv.n_free, N - 1 - held);
    }
    kv_fini(&kv);
}

static page_key key_no(int i) {
    page_key k = {{0}};
    k.h[0] = (uint8_t)(i % 3); /* few buckets */
    k.h[31] = (uint8_t)i;
    return k;
}

static void pages_with_keys(void **state) {
    (void)state;
    kv_cache kv;
    assert_true(kv_init(&kv, 4, NULL));
    page_key k[5];
    for (int i = 0; i < 5; i++) k[i] = key_no(i);
    int32_t a = kv_take(&kv), b = kv_take(&kv), c = kv_take(&kv);
    kv_claim(&kv, a, &k[0]);
    kv_fill(&kv, b, &k[0]); /* a has that key */
    assert_int_equal(kv_find(&kv, &k[0]), a);
    assert_int_equal(kv.page[a].state, KV_FILLING);
    assert_int_equal(kv.page[b].state, KV_NO_KEY);
    kv_give_back(&kv, a); /* never filled: nobody may find it */
    assert_int_equal(kv_find(&kv, &k[0]), 0);
    assert_int_equal(kv.n_free, 1);
    assert_int_equal(kv_take(&kv), a);
    kv_fill(&kv, a, &k[1]);
    kv_claim(&kv, b, &k[2]);
    kv_fill(&kv, b, &k[2]);
    kv_fill(&kv, c, &k[3]);
    kv_give_back(&kv, b);
    kv_give_back(&kv, c);
    kv_give_back(&kv, a);
    assert_int_equal(kv.n_free, 0);
    assert_int_equal(kv_available(&kv), 3);
    assert_int_equal(kv_find(&kv, &k[2]), b);
    kv_share(&kv, b); /* used again: c is the oldest now */
    kv_share(&kv, b);
    kv_give_back(&kv, b);
    assert_int_equal(kv_available(&kv), 2);
    kv_give_back(&kv, b);
    assert_int_equal(kv_take(&kv), c);
    assert_int_equal(kv_find(&kv, &k[3]), 0);
    assert_int_equal(kv_take(&kv), a);
    assert_int_equal(kv_take(&kv), b);
    assert_int_equal(kv_take(&kv), 0);
    kv_fini(&kv);
}

/* Against a table that remembers when each page became idle. */
static void random_use_with_keys(void **state) {
    (void)state;
    enum { N = 24, KEYS = 60 };
    kv_cache kv;
    assert_true(kv_init(&kv, N, NULL));
    int refs[N] = {0}, key[N], since[N] = {0}, filled[N] = {0};
    for (int i = 0; i < N; i++) key[i] = -1;
    srand(9);
    for (int t = 1; t < 200000; t++) {
        int page = 1 + rand() % (N - 1), what = rand() % 5, k = rand() % KEYS, owner = 0;
        page_key name = key_no(k);
        for (int i = 1; i < N; i++)
            if (key[i] == k) owner = i;
        assert_int_equal(kv_find(&kv, &name), owner);
        if (what == 0) {
            int n_free = 0, oldest = 0;
            for (int i = 1; i < N; i++) {
                n_free += refs[i] == 0 && key[i] < 0;
                if (refs[i] == 0 && key[i] >= 0 && (!oldest || since[i] < since[oldest])) oldest = i;
            }
            assert_int_equal(kv.n_free, n_free);
            page = kv_take(&kv);
            if (n_free == 0) assert_int_equal(page, oldest);
            if (!page) continue;
            assert_int_equal(refs[page], 0);
            refs[page] = 1, key[page] = -1, filled[page] = 0;
        } else if (what == 1 && (filled[page] || (refs[page] > 0 && key[page] < 0)) && refs[page] < 5) {
            kv_share(&kv, page);
            refs[page]++;
        } else if (what == 2 && refs[page] > 0) {
            kv_give_back(&kv, page);
            if (--refs[page] == 0 && !filled[page]) key[page] = -1;
            since[page] = t;
        } else if (what == 3 && refs[page] == 1 && key[page] < 0 && !owner) {
            kv_claim(&kv, page, &name);
            key[page] = k;
        } else if (what == 4 && refs[page] > 0 && (key[page] < 0 || key[page] == k)) {
            kv_fill(&kv, page, &name);
            if (!owner || owner == page) key[page] = k, filled[page] = 1;
        }
    }
    kv_fini(&kv);
}

static void sizes(void **state) {
    (void)state;
    assert_int_equal(kv_pages_of(0), 0);
    assert_int_equal(kv_pages_of(1), 1);
    assert_int_equal(kv_pages_of(16), 1);
    assert_int_equal(kv_pages_of(17), 2);
    stack_spec s = {.n_layers = 3, .kv_heads = 2, .head_dim = 5};
    assert_int_equal(kv_page_bytes(&s, DT_F32), 3 * 2 * 2 * 16 * 5 * 4);
    assert_int_equal(kv_page_bytes(&s, DT_BF16), 3 * 2 * 2 * 16 * 5 * 2);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_page_once),      cmocka_unit_test(shared_pages_stay),
        cmocka_unit_test(random_use),           cmocka_unit_test(pages_with_keys),
        cmocka_unit_test(random_use_with_keys), cmocka_unit_test(sizes)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
