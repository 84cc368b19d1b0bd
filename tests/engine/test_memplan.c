/* test_memplan.c - how memory is divided: pages by hand-made sums, and messages that name every part. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "engine/memplan.h"

#define MIB ((size_t)1 << 20)

/* 128 tokens are 8 pages of 1 MiB. */
static memplan_kv kv_of(int max_len, bool asked) {
    return (memplan_kv){.page_bytes = MIB, .max_seqs = 4, .max_len = max_len, .len_is_asked = asked};
}

static memplan_device device_of(void) {
    return (memplan_device){.free_bytes = 990 * MIB,
                            .total_bytes = 1000 * MIB,
                            .weights = 500 * MIB,
                            .activations = 100 * MIB,
                            .workspace = 50 * MIB,
                            .pictures = 150 * MIB,
                            .taken = 10 * MIB};
}

static void test_device_takes_what_is_left(void **state) {
    (void)state;
    memplan_kv kv = kv_of(128, false);
    memplan_device d = device_of();
    memplan p;
    status st = {0};
    assert_true(memplan_on_device(&kv, &d, &p, &st));
    assert_int_equal(p.n_pages, 900 - 800);
    assert_int_equal(p.max_len, 128);
    d.utilization = 0.95;
    assert_true(memplan_on_device(&kv, &d, &p, &st));
    assert_int_equal(p.n_pages, 150);
    kv.asked_bytes = 20 * MIB;
    assert_true(memplan_on_device(&kv, &d, &p, &st));
    assert_int_equal(p.n_pages, 20);
}

static void test_device_shortens_what_nobody_asked_for(void **state) {
    (void)state;
    memplan_kv kv = kv_of(16 * 200, false);
    memplan_device d = device_of();
    memplan p;
    status st = {0};
    assert_true(memplan_on_device(&kv, &d, &p, &st));
    assert_int_equal(p.n_pages, 100);
    assert_int_equal(p.max_len, 99 * 16);
    kv.len_is_asked = true;
    assert_false(memplan_on_device(&kv, &d, &p, &st));
    assert_int_equal(st.code, ST_NO_MEMORY);
}

static void test_device_says_what_each_part_wants(void **state) {
    (void)state;
    memplan_kv kv = kv_of(128, true);
    memplan_device d = device_of();
    memplan p;
    status st = {0};
    d.weights = 600 * MIB - 1; /* one byte too many for 9 pages */
    d.pictures = 142 * MIB;
    assert_false(memplan_on_device(&kv, &d, &p, &st));
    assert_int_equal(st.code, ST_NO_MEMORY);
    const char *const says[] = {
        "weights 600.0",  "activations 100.0", "workspace 50.0", "pictures 142.0", "KV cache of at least 9.0",
        "901.0 together", "of 900.0",          "0.9 of 1000.0",  "990.0 are free"};
    for (size_t i = 0; i < ARRAY_LEN(says); i++)
        if (!strstr(st.msg, says[i])) fail_msg("\"%s\" is not in: %s", says[i], st.msg);
    d.pictures = 141 * MIB;
    memset(&st, 0, sizeof st);
    assert_true(memplan_on_device(&kv, &d, &p, &st));
    assert_int_equal(p.n_pages, 9);
    kv.asked_bytes = 11 * MIB; /* more than there is */
    assert_false(memplan_on_device(&kv, &d, &p, &st));
    assert_non_null(strstr(st.msg, "KV cache of 11.0"));
}

static void test_device_that_others_use(void **state) {
    (void)state;
    memplan_kv kv = kv_of(128, false);
    memplan_device d = device_of();
    memplan p;
    status st = {0};
    d.free_bytes = 890 * MIB; /* and 10 of it have been taken for the workspace */
    assert_true(memplan_on_device(&kv, &d, &p, &st));
    d.free_bytes -= 1;
    assert_false(memplan_on_device(&kv, &d, &p, &st));
    assert_int_equal(st.code, ST_NO_MEMORY);
    assert_non_null(strstr(st.msg, "gpu-memory-utilization 0.9 is 900.0 MiB"));
    assert_non_null(strstr(st.msg, "only 890.0 are free"));
}

static void test_host(void **state) {
    (void)state;
    memplan_kv kv = kv_of(128, false);
    memplan p;
    status st = {0};
    kv.page_bytes = 1024; /* all fit: half of 4 sequences */
    assert_true(memplan_on_host(&kv, &p, &st));
    assert_int_equal(p.n_pages, 2 * 8 + 1);
    kv.asked_bytes = 40 * 1024;
    assert_true(memplan_on_host(&kv, &p, &st));
    assert_int_equal(p.n_pages, 40);
    kv.asked_bytes = 5 * 1024;
    assert_true(memplan_on_host(&kv, &p, &st));
    assert_int_equal(p.n_pages, 5);
    assert_int_equal(p.max_len, 64);
    kv.len_is_asked = true;
    assert_false(memplan_on_host(&kv, &p, &st));
    assert_int_equal(st.code, ST_INVALID);
    kv.asked_bytes = 0;
    kv.page_bytes = (size_t)1 << 50; /* a length that was asked for gets its pages */
    memset(&st, 0, sizeof st);
    assert_true(memplan_on_host(&kv, &p, &st));
    assert_int_equal(p.n_pages, 9);
    kv.len_is_asked = false;
    assert_false(memplan_on_host(&kv, &p, &st));
    assert_non_null(strstr(st.msg, "two pages"));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_device_takes_what_is_left),
        cmocka_unit_test(test_device_shortens_what_nobody_asked_for),
        cmocka_unit_test(test_device_says_what_each_part_wants),
        cmocka_unit_test(test_device_that_others_use),
        cmocka_unit_test(test_host),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
