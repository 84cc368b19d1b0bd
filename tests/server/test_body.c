/* test_body.c - bodies and the pool that bounds them: what is counted, and that all of it comes back. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <pthread.h>
#include <string.h>

#include "server/body.h"

static void counts(void **state) {
    (void)state;
    body_pool pool = {.max = 10};
    request_body a = {.pool = &pool}, b = {.pool = &pool};
    status st = {0};
    assert_true(buf_reserve(&a.bytes, 1 << 20)); /* a promise is nothing */
    assert_true(body_append(&a, "12345", 5, &st));
    assert_true(body_append(&b, "123", 3, &st));
    assert_int_equal(atomic_load(&pool.used), 8);
    assert_false(body_append(&b, "456", 3, &st));
    assert_int_equal(st.code, ST_BUSY);
    assert_int_equal(atomic_load(&pool.used), 8);
    st = (status){0};
    assert_true(body_append(&b, "45", 2, &st));
    assert_memory_equal(b.bytes.data, "12345", 5);
    request_body moved = body_take(&a);
    body_free(&a);
    assert_int_equal(atomic_load(&pool.used), 10);
    assert_true(body_append(&a, "", 0, &st));
    body_free(&moved);
    body_free(&moved);
    body_free(&a);
    assert_int_equal(atomic_load(&pool.used), 5);
    assert_false(body_append(&a, "123456", SIZE_MAX, &st));
    body_free(&b);
    assert_int_equal(atomic_load(&pool.used), 0);
}

static void *fill(void *arg) {
    body_pool *pool = arg;
    for (int i = 0; i < 2000; i++) {
        request_body b = {.pool = pool};
        status st = {0};
        while (body_append(&b, "0123456789", 10, &st)) CHECK(atomic_load(&pool->used) <= pool->max + 4 * 10);
        body_free(&b);
    }
    return NULL;
}

static void several_at_once(void **state) {
    (void)state;
    body_pool pool = {.max = 1000};
    pthread_t t[4];
    for (int i = 0; i < 4; i++) assert_int_equal(pthread_create(&t[i], NULL, fill, &pool), 0);
    for (int i = 0; i < 4; i++) pthread_join(t[i], NULL);
    assert_int_equal(atomic_load(&pool.used), 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(counts), cmocka_unit_test(several_at_once)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
