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

static void sizes(void **state) {
    (void)state;
    assert_int_equal(kv_pages_of(0), 0);
    assert_int_equal(kv_pages_of(1), 1);
    assert_int_equal(kv_pages_of(16), 1);
    assert_int_equal(kv_pages_of(17), 2);
    stack_spec s = {.n_layers = 3, .kv_heads = 2, .head_dim = 5};
    assert_int_equal(kv_page_bytes(&s), 3 * 2 * 2 * 16 * 5 * 4);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(every_page_once), cmocka_unit_test(shared_pages_stay),
                                       cmocka_unit_test(random_use), cmocka_unit_test(sizes)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
