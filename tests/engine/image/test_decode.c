/* test_decode.c - headers and pixels of every format against Pillow's (tests/golden/image/decode.json),
 * broken files by their message, every place a file can be cut, random damage, and limits. VLMD_LONG=1
 * damages ten times as often. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "tests/engine/image/golden.h"

static bool decode(const uint8_t *p, size_t n, image *out, status *st) {
    memset(st, 0, sizeof *st);
    return image_decode_bytes(p, n, &IMAGE_LIMITS_DEFAULT, out, st);
}

static void test_good(void **state) {
    (void)state;
    json_t *all = golden_json("decode.json"), *want;
    const char *name;
    json_object_foreach(json_object_get(all, "good"), name, want) {
        size_t n, m;
        uint8_t *file = golden_file(name, &n);
        char *b64 = golden_base64(file, n, &m);
        image_source src = {b64, m};
        image_info info;
        image im, again;
        status st = {0};
        int w = (int)json_integer_value(json_object_get(want, "w"));
        int h = (int)json_integer_value(json_object_get(want, "h"));
        if (!image_probe(&src, &IMAGE_LIMITS_DEFAULT, &info, &st)) fail_msg("%s: probe: %s", name, st.msg);
        if (info.w != w || info.h != h)
            fail_msg("%s: probe expected %dx%d, found %dx%d", name, w, h, info.w, info.h);
        assert_true(info.decode_bytes >= (size_t)w * (size_t)h * 3);
        if (!decode(file, n, &im, &st)) fail_msg("%s: %s", name, st.msg);
        if (im.w != w || im.h != h) fail_msg("%s: expected %dx%d, found %dx%d", name, w, h, im.w, im.h);
        golden_compare(name, &im, json_object_get(want, "samples"), json_object_get(want, "sum"));
        if (!image_decode(&src, &IMAGE_LIMITS_DEFAULT, &again, &st)) fail_msg("%s: %s", name, st.msg);
        assert_true(golden_sum(&im) == golden_sum(&again));
        image_fini(&im);
        image_fini(&again);
        free(b64);
        free(file);
    }
    json_decref(all);
}

static void test_bad(void **state) {
    (void)state;
    json_t *all = golden_json("decode.json"), *want;
    const char *name;
    json_object_foreach(json_object_get(all, "bad"), name, want) {
        size_t n, m;
        uint8_t *file = golden_file(name, &n);
        char *b64 = golden_base64(file, n, &m);
        image_source src = {b64, m};
        image im;
        status st;
        const char *part = json_string_value(json_object_get(want, "part"));
        if (decode(file, n, &im, &st)) fail_msg("%s: decoded, expected an error with \"%s\"", name, part);
        if ((int)st.code != json_integer_value(json_object_get(want, "code")) || !strstr(st.msg, part))
            fail_msg("%s: expected \"%s\", found code %d: %s", name, part, (int)st.code, st.msg);
        assert_null(im.rgb);
        status st64 = {0};
        assert_false(image_decode(&src, &IMAGE_LIMITS_DEFAULT, &im, &st64));
        assert_string_equal(st.msg, st64.msg);
        free(b64);
        free(file);
    }
    json_decref(all);
}

/* A cut file is refused, or whole as far as its pixels go; never something else. */
static void test_cut_everywhere(void **state) {
    (void)state;
    json_t *all = golden_json("decode.json"), *want;
    const char *name;
    json_object_foreach(json_object_get(all, "good"), name, want) {
        size_t n;
        uint8_t *file = golden_file(name, &n);
        size_t step = n > 1500 ? n / 200 : 1;
        for (size_t k = 0; k < n; k += n - k < 64 ? 1 : step) {
            uint8_t *cut = malloc(k ? k : 1);
            memcpy(cut, file, k);
            image im;
            status st;
            if (decode(cut, k, &im, &st)) {
                char what[128];
                snprintf(what, sizeof what, "%s cut to %zu of %zu bytes", name, k, n);
                golden_compare(what, &im, json_object_get(want, "samples"), json_object_get(want, "sum"));
                image_fini(&im);
            } else {
                assert_true(st.code == ST_INVALID && st.msg[0]);
            }
            free(cut);
        }
        free(file);
    }
    json_decref(all);
}

static void test_damage(void **state) {
    (void)state;
    json_t *all = golden_json("decode.json"), *want;
    const char *name;
    uint64_t r = 42;
    int rounds = getenv("VLMD_LONG") ? 2000 : 60;
    image_limits lim = IMAGE_LIMITS_DEFAULT;
    lim.max_pixels = 1000000; /* damage makes sizes up; keep the test quick */
    json_object_foreach(json_object_get(all, "good"), name, want) {
        size_t n;
        uint8_t *file = golden_file(name, &n), *copy = malloc(n);
        for (int i = 0; i < rounds; i++) {
            memcpy(copy, file, n);
            for (uint32_t k = golden_random(&r) % 4 + 1; k; k--) {
                size_t at = golden_random(&r) % (golden_random(&r) % 2 ? n : n < 200 ? n : 200);
                copy[at] = golden_random(&r) % 2 ? (uint8_t)golden_random(&r)
                                                 : (uint8_t)(copy[at] ^ 1u << golden_random(&r) % 8);
            }
            image im;
            status st = {0};
            if (image_decode_bytes(copy, n, &lim, &im, &st))
                image_fini(&im);
            else
                assert_true(st.code != ST_OK && st.msg[0]);
        }
        free(copy);
        free(file);
    }
    json_decref(all);
}

static void test_limits(void **state) {
    (void)state;
    size_t n, m;
    uint8_t *file = golden_file("rgb420.jpg", &n); /* 37 x 29 */
    char *b64 = golden_base64(file, n, &m);
    image_source src = {b64, m};
    image_info info;
    image im;
    image_limits lim = IMAGE_LIMITS_DEFAULT;
    status st = {0};
    lim.max_pixels = 37 * 29;
    assert_true(image_probe(&src, &lim, &info, &st));
    lim.max_pixels--;
    assert_false(image_probe(&src, &lim, &info, &st));
    assert_true(st.code == ST_TOO_LARGE && strstr(st.msg, "37x29"));
    lim = IMAGE_LIMITS_DEFAULT;
    lim.max_encoded_bytes = n - 4; /* the probe cannot know the padding */
    memset(&st, 0, sizeof st);
    assert_false(image_decode_bytes(file, n, &lim, &im, &st));
    assert_int_equal(st.code, ST_TOO_LARGE);
    memset(&st, 0, sizeof st);
    assert_false(image_probe(&src, &lim, &info, &st));
    assert_int_equal(st.code, ST_TOO_LARGE);
    free(file);
    free(b64);
    file = golden_file("progressive.jpg", &n);
    lim = IMAGE_LIMITS_DEFAULT;
    lim.max_scans = 3;
    memset(&st, 0, sizeof st);
    assert_false(image_decode_bytes(file, n, &lim, &im, &st));
    assert_true(strstr(st.msg, "too many scans"));
    /* A client that left ends the decode between rows of blocks. */
    atomic_bool cancelled = true;
    lim = IMAGE_LIMITS_DEFAULT;
    lim.cancelled = &cancelled;
    memset(&st, 0, sizeof st);
    assert_false(image_decode_bytes(file, n, &lim, &im, &st));
    assert_int_equal(st.code, ST_CANCELLED);
    cancelled = false;
    assert_true(image_decode_bytes(file, n, &lim, &im, &st));
    image_fini(&im);
    free(file);
}

/* A header is read without what follows it, and rubbish in the base64 is told by place and byte. */
static void test_probe_reads_only_the_header(void **state) {
    (void)state;
    size_t n, m;
    uint8_t *file = golden_file("big_segments.jpg", &n);
    char *b64 = golden_base64(file, n, &m);
    image_info info;
    image im;
    status st = {0};
    b64[m - 8] = '!';
    image_source src = {b64, m};
    assert_true(image_probe(&src, &IMAGE_LIMITS_DEFAULT, &info, &st));
    assert_true(info.format == IMAGE_JPEG && info.w == 17 && info.h == 11);
    assert_false(image_decode(&src, &IMAGE_LIMITS_DEFAULT, &im, &st));
    assert_true(st.code == ST_INVALID && strstr(st.msg, "not base64") && strstr(st.msg, "0x21"));
    b64[2] = '*';
    memset(&st, 0, sizeof st);
    assert_false(image_probe(&src, &IMAGE_LIMITS_DEFAULT, &info, &st));
    assert_true(strstr(st.msg, "character 2") && strstr(st.msg, "0x2a"));
    src.n = 0;
    memset(&st, 0, sizeof st);
    assert_false(image_probe(&src, &IMAGE_LIMITS_DEFAULT, &info, &st));
    assert_true(strstr(st.msg, "empty"));
    free(file);
    free(b64);
}

/* A progressive JPEG's coefficients are part of what decoding takes. */
static void test_decode_bytes(void **state) {
    (void)state;
    size_t size[2];
    const char *names[] = {"rgb420.jpg", "progressive.jpg"};
    for (int i = 0; i < 2; i++) {
        size_t n, m;
        uint8_t *file = golden_file(names[i], &n);
        char *b64 = golden_base64(file, n, &m);
        image_source src = {b64, m};
        image_info info;
        status st = {0};
        assert_true(image_probe(&src, &IMAGE_LIMITS_DEFAULT, &info, &st));
        size[i] = info.decode_bytes;
        free(file);
        free(b64);
    }
    assert_true(size[1] >= size[0] - 2000 + 40 * 32 * 3 / 2 * 2);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_good),           cmocka_unit_test(test_bad),
        cmocka_unit_test(test_cut_everywhere), cmocka_unit_test(test_damage),
        cmocka_unit_test(test_limits),         cmocka_unit_test(test_probe_reads_only_the_header),
        cmocka_unit_test(test_decode_bytes)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
