/* test_base.c - whole files and JSON texts: bounds, messages, and what is refused. Faults: tests/fault. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "kernels/base.h"
#include "kernels/json.h"
#include "tests/ref/ref.h"

static char path[] = "/tmp/vlmd-test-base-XXXXXX";

static void write_file(size_t n) {
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    for (size_t i = 0; i < n; i++) fputc((int)(i % 251), f);
    assert_int_equal(fclose(f), 0);
}

static void test_read_file(void **state) {
    (void)state;
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    close(fd);
    static const size_t sizes[] = {0, 1, 65535, 65536, 65537, 200000};
    for (size_t i = 0; i < ARRAY_LEN(sizes); i++) {
        write_file(sizes[i]);
        buf b = {0};
        status st = {0};
        buf_puts(&b, "ab");
        assert_true(buf_read_file(&b, path, sizes[i], &st));
        assert_int_equal(b.len, sizes[i] + 2);
        for (size_t k = 0; k < sizes[i]; k++) assert_int_equal((uint8_t)b.data[k + 2], k % 251);
        assert_int_equal(b.data[b.len], 0);
        buf_clear(&b);
        assert_int_equal(buf_read_file(&b, path, sizes[i] - 1, &st), sizes[i] == 0); /* SIZE_MAX: no bound */
        assert_int_equal(st.code, sizes[i] ? ST_INVALID : ST_OK);
        buf_fini(&b);
    }
    unlink(path);
}

static void test_no_file(void **state) {
    (void)state;
    buf b = {0};
    status none = {0}, folder = {0};
    assert_false(buf_read_file(&b, "/none/here", 10, &none));
    assert_int_equal(none.code, ST_NOT_FOUND);
    assert_string_equal(none.msg, "No such file or directory");
    assert_false(buf_read_file(&b, "/tmp", 10, &folder));
    assert_int_equal(folder.code, ST_IO);
    assert_string_equal(folder.msg, "cannot read: Is a directory");
    buf_fini(&b);
}

/* json_parse feeds jansson piece by piece: values and errors are those of json_loadb. */
static void test_json(void **state) {
    (void)state;
    json_init();
    buf b = {0};
    buf_puts(&b, "{\"a\": [");
    for (int i = 0; i < 5000; i++)
        buf_printf(&b, "%s{\"k%d\": \"\\u00e4%d\", \"x\": 1.5}", i ? ",\n" : "", i, i);
    buf_puts(&b, "], \"long\": \"");
    for (int i = 0; i < 10000; i++) buf_putc(&b, (char)('a' + i % 26));
    buf_puts(&b, "\"}");
    for (size_t cut = 0; cut < b.len; cut += cut % 2 ? 4999 : 5000) {
        json_error_t e, f;
        size_t n = b.len - cut;
        json_t *j = json_parse(b.data, n, 0, &e), *k = json_loadb(b.data, n, 0, &f);
        assert_int_equal(j != NULL, cut == 0);
        assert_true(cut ? !k : json_equal(j, k));
        if (cut) {
            assert_string_equal(e.text, f.text);
            assert_int_equal(e.line, f.line);
            assert_int_equal(e.column, f.column);
            assert_false(json_no_memory(&e));
        }
        json_decref(j);
        json_decref(k);
    }
    buf_fini(&b);
}

/* Every number of 16 bits, as the references read it. */
static void test_host_number(void **state) {
    (void)state;
    static const dtype types[] = {DT_F16, DT_BF16};
    for (size_t t = 0; t < ARRAY_LEN(types); t++)
        for (uint32_t v = 0; v < 65536; v++) {
            uint16_t bits[2] = {7, (uint16_t)v};
            tensor x = tensor_1d(bits, types[t], 2);
            double want = ref_from(types[t], bits, 1);
            float got = tensor_host_number(&x, 1);
            assert_true(isnan(want) ? isnan(got) : got == (float)want);
        }
    float f = -0.1f;
    tensor x = tensor_1d(&f, DT_F32, 1);
    assert_true(tensor_host_number(&x, 0) == f);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_read_file),
        cmocka_unit_test(test_no_file),
        cmocka_unit_test(test_json),
        cmocka_unit_test(test_host_number),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
