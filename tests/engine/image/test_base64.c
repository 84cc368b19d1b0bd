/* test_base64.c - base64 and data URLs: known values (RFC 4648), every length, every byte that does not
 * belong. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "engine/image/codec.h"
#include "tests/engine/image/golden.h"

static void expect(const char *s, const char *want) {
    buf b = {0};
    bool ok = base64_decode(s, strlen(s), &b);
    if (ok != (want != NULL)) fail_msg("\"%s\" should %sdecode", s, want ? "" : "not ");
    if (want && (b.len != strlen(want) || memcmp(b.data, want, b.len) != 0))
        fail_msg("\"%s\" gave \"%s\"", s, b.data);
    buf_fini(&b);
}

static void test_known(void **state) {
    (void)state;
    expect("", "");
    expect("Zg==", "f");
    expect("Zg", "f");
    expect("Zg=", "f");
    expect("Zm8=", "fo");
    expect("Zm8", "fo");
    expect("Zm9v", "foo");
    expect("Zm9vYmFy", "foobar");
    expect(" Z m\r\n9\tv ", "foo");
    expect("Zm9v\nYg==\n", "foob");
    expect("Pz8_Pz8-", "\?\?\?\?\?>");
    expect("Pz8/Pz8+", "\?\?\?\?\?>");
    /* as JSON writes them */
    expect("Pz8\\/Pz8\\u002b", "\?\?\?\?\?>");
    expect("Zm9v\\nYg\\u003D\\u003d", "foob");
    expect("\\u005am9v", "foo");
    const char *bad[] = {
        "Z",      "Zm9vZ",   "=",      "Z===",  "Zg===",   "Zm9v=",  "Zm9=v",     "Zg==Zg==",   "Zm9v!",
        "Zm 9v.", "Zm9\x80", "Zm9v\\", "\\x41", "\\u00e9", "\\u004", "Zm9v\\u20", "\\u005c/Zm", "Zm9\\"};
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) expect(bad[i], NULL);
}

static void test_lengths(void **state) {
    (void)state;
    uint64_t r = 1;
    uint8_t data[400];
    for (size_t i = 0; i < sizeof data; i++) data[i] = (uint8_t)golden_random(&r);
    for (size_t n = 0; n < sizeof data; n++) {
        size_t m;
        char *s = golden_base64(data, n, &m);
        for (int form = 0; form < 3; form++) {
            size_t len = m;
            if (form)
                while (len && s[len - 1] == '=') len--; /* without padding */
            if (form == 2)
                for (size_t i = 0; i < len; i++) s[i] = s[i] == '+' ? '-' : s[i] == '/' ? '_' : s[i];
            char *exact = malloc(len ? len : 1); /* a sanitizer then sees a read too far */
            memcpy(exact, s, len);
            buf b = {0};
            assert_true(base64_decode(exact, len, &b));
            assert_int_equal(b.len, n);
            if (n) assert_memory_equal(b.data, data, n);
            buf_fini(&b);
            free(exact);
        }
        free(s);
    }
}

static void test_every_byte_everywhere(void **state) {
    (void)state;
    static const char ok[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/-_ \t\r\n\f\v";
    char s[128];
    for (size_t at = 0; at < 100; at += 7)
        for (int c = 0; c < 256; c++) {
            memset(s, 'Q', sizeof s);
            s[at] = (char)c;
            bool space = c == ' ' || (c >= 9 && c <= 13);
            size_t n = 96 + (at >= 96 ? 8 : 0) + (space ? 1 : 0);
            buf b = {0};
            bool want = c && strchr(ok, c);
            if (base64_decode(s, n, &b) != want) fail_msg("byte %d at %zu", c, at);
            buf_fini(&b);
        }
}

/* Reading by pieces and skipping gives the bytes that decoding all at once gives. */
static void test_reader(void **state) {
    (void)state;
    enum { N = 20000 };
    uint64_t r = 7;
    uint8_t *data = malloc(N), *got = malloc(N);
    for (size_t i = 0; i < N; i++) data[i] = (uint8_t)golden_random(&r);
    size_t m;
    char *plain = golden_base64(data, N, &m);
    char *s = malloc(2 * m);
    for (int form = 0; form < 3; form++) {
        size_t n = 0;
        for (size_t i = 0; i < m; i++) {
            s[n++] = plain[i];
            if (form == 1 && i % 76 == 75) s[n++] = '\n';
            if (form == 2 && golden_random(&r) % 300 == 0) s[n++] = ' ';
        }
        for (int round = 0; round < 50; round++) {
            codec_reader rd;
            codec_reader_base64(&rd, s, n);
            size_t at = 0;
            while (at < N) {
                size_t k = golden_random(&r) % (golden_random(&r) % 4 ? 50 : 6000);
                if (k > N - at) k = N - at;
                if (golden_random(&r) % 2) {
                    assert_true(codec_read(&rd, got, k));
                    assert_memory_equal(got, data + at, k);
                } else {
                    assert_true(codec_skip(&rd, k));
                }
                at += k;
                assert_int_equal(rd.consumed, at);
            }
            assert_false(codec_read(&rd, got, 1));
            assert_true(rd.eof);
        }
    }
    free(s);
    free(plain);
    free(data);
    free(got);
}

static void test_url(void **state) {
    (void)state;
    const struct {
        const char *url, *b64, *part;
    } cases[] = {{"data:image/png;base64,Zm9v", "Zm9v", NULL},
                 {"DATA:image/png;charset=x;BASE64,Zm9v", "Zm9v", NULL},
                 {"data:;base64,", "", NULL},
                 {"data:image\\/png;base64,Zm\\/v", "Zm\\/v", NULL},
                 {"data:image/png,Zm9v", NULL, "no ;base64"},
                 {"data:image/png;base64", NULL, "no comma"},
                 {"https://example.org/a.png", NULL, "fetches nothing"},
                 {"file:///etc/passwd", NULL, "no data:"},
                 {"", NULL, "no data:"},
                 {"dat", NULL, "no data:"}};
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        image_source src;
        status st = {0};
        bool ok = image_source_from_url(cases[i].url, strlen(cases[i].url), &src, &st);
        assert_true(ok == (cases[i].b64 != NULL));
        if (ok)
            assert_true(src.n == strlen(cases[i].b64) && memcmp(src.b64, cases[i].b64, src.n) == 0);
        else
            assert_true(st.code == ST_INVALID && strstr(st.msg, cases[i].part));
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_known), cmocka_unit_test(test_lengths),
                                       cmocka_unit_test(test_every_byte_everywhere),
                                       cmocka_unit_test(test_reader), cmocka_unit_test(test_url)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
