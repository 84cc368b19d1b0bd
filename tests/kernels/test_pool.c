/* test_pool.c - every tile exactly once, on whatever thread; jobs back to back and after pauses. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

#include "kernels/cpu/pool.h"

enum { MAX_TILES = 2000 };
typedef struct job {
    int count[MAX_TILES]; /* plain memory: the pool must order it */
    int threads;
    _Atomic int bad_thread;
} job;

static void tile(void *arg, int64_t t, int thread) {
    job *j = arg;
    j->count[t]++;
    if (thread < 0 || thread >= j->threads) atomic_store(&j->bad_thread, 1);
}

static void test_each_once(void **state) {
    (void)state;
    for (int threads = 1; threads <= 5; threads++) {
        status st = {0};
        pool *p = pool_new(threads, &st);
        assert_non_null(p);
        assert_int_equal(pool_threads(p), threads);
        job *j = calloc(1, sizeof *j);
        assert_non_null(j);
        j->threads = threads;
        static const int sizes[] = {0, 1, 2, 3, 17, MAX_TILES};
        int want = 0;
        for (int round = 0; round < 300; round++) {
            int n = sizes[round % (int)ARRAY_LEN(sizes)];
            want = n == MAX_TILES ? want + 1 : want;
            memset(j->count, 0, sizeof j->count);
            pool_run(p, n, tile, j);
            for (int t = 0; t < MAX_TILES; t++) assert_int_equal(j->count[t], t < n);
            if (round % 100 == 99) usleep(2000); /* workers are asleep by now */
        }
        assert_int_equal(atomic_load(&j->bad_thread), 0);
        free(j);
        pool_free(p);
    }
    pool_free(NULL);
}

static void slow_tile(void *arg, int64_t t, int thread) {
    (void)thread;
    if (t == 1) usleep(20000); /* the caller, or a worker, waits long enough to sleep */
    atomic_fetch_add((_Atomic int *)arg, 1);
}

static void test_uneven(void **state) {
    (void)state;
    pool *p = pool_new(3, NULL);
    assert_non_null(p);
    for (int i = 0; i < 10; i++) {
        _Atomic int done = 0;
        pool_run(p, 4, slow_tile, &done);
        assert_int_equal(done, 4);
    }
    pool_free(p);
}

static void test_start_stop(void **state) {
    (void)state;
    for (int i = 0; i < 50; i++) pool_free(pool_new(1 + i % 4, NULL));
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_each_once), cmocka_unit_test(test_uneven),
                                       cmocka_unit_test(test_start_stop)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
