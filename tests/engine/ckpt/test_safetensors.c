/* test_safetensors.c - headers good and bad, byte by byte. The format's own rules are the reference. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "engine/ckpt/safetensors.h"

static st_file *open_json(const char *json, size_t data_bytes, buf *file, status *st) {
    size_t n = strlen(json);
    for (int i = 0; i < 8; i++) buf_putc(file, (char)((uint64_t)n >> (8 * i)));
    buf_append(file, json, n);
    for (size_t i = 0; i < data_bytes; i++) buf_putc(file, (char)i);
    return st_open_bytes(file->data, file->len, st);
}

static void good(const char *json, size_t data_bytes, size_t tensors) {
    buf file = {0};
    status st = {0};
    st_file *f = open_json(json, data_bytes, &file, &st);
    if (!f) fail_msg("%s: %s", json, st.msg);
    assert_int_equal(st_count(f), tensors);
    st_close(f);
    buf_fini(&file);
}

static void bad(const char *json, size_t data_bytes, const char *word) {
    buf file = {0};
    status st = {0};
    st_file *f = open_json(json, data_bytes, &file, &st);
    if (f) fail_msg("%s: accepted", json);
    if (st.code != ST_INVALID || !strstr(st.msg, word))
        fail_msg("%s: %s (expected \"%s\")", json, st.msg, word);
    buf_fini(&file);
}

#define T(name, dtype, shape, offsets)                                                                       \
    "\"" name "\":{\"dtype\":\"" dtype "\",\"shape\":" shape ",\"data_offsets\":" offsets "}"

static void test_good(void **state) {
    (void)state;
    good("{}", 0, 0);
    good("{}   \n", 0, 0);
    good("{\"__metadata__\":{\"format\":\"pt\"}}", 0, 0);
    good("{" T("a", "F32", "[2,3]", "[0,24]") "}", 24, 1);
    good("{" T("b", "BF16", "[3]", "[24,30]") "," T("a", "F32", "[2,3]", "[0,24]") "}", 30, 2);
    good("{" T("scalar", "F32", "[]", "[0,4]") "}", 4, 1);
    good("{" T("none", "F16", "[0,7]", "[0,0]") "," T("some", "I64", "[1]", "[0,8]") "}", 8, 2);
    good("{\"a\\u00e9\\\"\":{\"data_offsets\":[0,1],\"more\":{\"x\":[1,-2.5e3,null,{}]},\"shape\":[1],"
         "\"dtype\":\"U8\"}}",
         1, 1);
    good("{" T("f4", "F4", "[2,3]", "[0,3]") "}", 3, 1);
}

static void test_view(void **state) {
    (void)state;
    buf file = {0};
    status st = {0};
    char text[64];
    st_file *f = open_json("{" T("b", "BF16", "[1,3]", "[24,30]") "," T("a", "F32", "[2,3]", "[0,24]") "}",
                           30, &file, &st);
    assert_non_null(f);
    assert_string_equal(st_at(f, 0)->name, "a");
    const st_tensor *b = st_find(f, "b");
    assert_non_null(b);
    assert_int_equal(b->data[0], 24);
    assert_int_equal(b->bytes, 6);
    assert_true(b->dt->computes && b->dt->as == DT_BF16);
    assert_string_equal(st_describe(b, text, sizeof text), "BF16 [1, 3]");
    assert_null(st_find(f, "c"));
    st_close(f);
    buf_fini(&file);
}

static void test_bad_headers(void **state) {
    (void)state;
    bad("[]", 0, "begin with '{'");
    bad("{", 0, "expected");
    bad("{} x", 0, "behind");
    bad("{\"a\":1}", 0, "expected '{'");
    bad("{" T("a", "F32", "[2,3]", "[0,24]") "," T("a", "F32", "[2,3]", "[24,48]") "}", 48, "twice");
    bad("{" T("a", "F32", "[2,3]", "[0,24]") "}", 23, "outside");
    bad("{" T("a", "F32", "[2,3]", "[0,24]") "}", 25, "behind the last tensor");
    bad("{" T("a", "F32", "[2,3]", "[0,20]") "}", 20, "need 24 bytes");
    bad("{" T("a", "F32", "[2,3]", "[24,0]") "}", 24, "outside");
    bad("{" T("a", "U8", "[4]", "[0,4]") "," T("b", "U8", "[4]", "[2,6]") "}", 6, "overlaps");
    bad("{" T("a", "U8", "[4]", "[0,4]") "," T("b", "U8", "[4]", "[5,9]") "}", 9, "hole");
    bad("{" T("a", "U8", "[4]", "[1,5]") "}", 5, "hole");
    bad("{" T("a", "Q4", "[4]", "[0,4]") "}", 4, "unknown dtype");
    bad("{" T("a", "F32", "[4294967296,4294967296]", "[0,0]") "}", 0, "overflows");
    bad("{" T("a", "F32", "[9223372036854775808]", "[0,0]") "}", 0, "63 bits");
    bad("{" T("a", "F32", "[99999999999999999999]", "[0,0]") "}", 0, "64 bits");
    bad("{" T("a", "F32", "[0]", "[0,18446744073709551616]") "}", 0, "64 bits");
    bad("{" T("a", "F32", "[-1]", "[0,4]") "}", 4, "whole number");
    bad("{" T("a", "F32", "[1.0]", "[0,4]") "}", 4, "whole number");
    bad("{" T("a", "F32", "[1,1,1,1,1,1,1,1,1]", "[0,4]") "}", 4, "8 dimensions");
    bad("{" T("a", "F4", "[3]", "[0,1]") "}", 1, "whole number of bytes");
    bad("{\"a\":{\"dtype\":\"F32\",\"shape\":[1]}}", 4, "without");
    bad("{\"a\":{\"dtype\":\"F32\",\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}", 4, "twice");
    bad("{\"a\xff\":1}", 0, "UTF-8");
    bad("{\"a\\ud800\":1}", 0, "surrogate");
    bad("{\"a\\u0000\":1}", 0, "NUL");
    bad("{\"a\n\":1}", 0, "control");
    bad("{\"a", 0, "expected");
    bad("{\"__metadata__\":[[[[[[[[[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]]]]]]]]]}", 0, "deeply");
}

static void test_bad_lengths(void **state) {
    (void)state;
    status st = {0};
    char small[8] = {0};
    assert_null(st_open_bytes(small, 7, &st));
    assert_non_null(strstr(st.msg, "too few"));
    st = (status){0};
    assert_null(st_open_bytes(small, 8, &st));
    char big[16] = {1, 0, 0, 0, 1, 0, 0, 0, '{', '}'};
    st = (status){0};
    assert_null(st_open_bytes(big, sizeof big, &st));
    assert_non_null(strstr(st.msg, "at most"));
    char cut[16] = {100, 0, 0, 0, 0, 0, 0, 0, '{', '}'};
    st = (status){0};
    assert_null(st_open_bytes(cut, sizeof cut, &st));
    assert_non_null(strstr(st.msg, "cut off"));
}

/* Every prefix of a good file is refused, and no single changed byte of the header makes anything but an answer. */
static void test_cut_and_flipped(void **state) {
    (void)state;
    buf file = {0};
    status st = {0};
    st_close(open_json("{" T("b", "BF16", "[1,3]", "[24,30]") "," T("a", "F32", "[2,3]", "[0,24]") "}", 30,
                       &file, &st));
    for (size_t n = 0; n < file.len; n++) {
        st = (status){0};
        void *copy = test_malloc(n ? n : 1);
        memcpy(copy, file.data, n);
        assert_null(st_open_bytes(copy, n, &st));
        assert_int_not_equal(st.code, ST_OK);
        test_free(copy);
    }
    for (size_t i = 0; i < file.len - 30; i++)
        for (int bit = 0; bit < 8; bit++) {
            file.data[i] = (char)(file.data[i] ^ (1 << bit));
            st_close(st_open_bytes(file.data, file.len, NULL));
            file.data[i] = (char)(file.data[i] ^ (1 << bit));
        }
    buf_fini(&file);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_good),
        cmocka_unit_test(test_view),
        cmocka_unit_test(test_bad_headers),
        cmocka_unit_test(test_bad_lengths),
        cmocka_unit_test(test_cut_and_flipped),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
