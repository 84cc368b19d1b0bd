/* golden.h - for the picture tests: files, checksums, and a comparison that says where two pictures differ.
 * Included once by each test program, after its cmocka includes. */
#ifndef VLMD_TESTS_ENGINE_IMAGE_GOLDEN_H
#define VLMD_TESTS_ENGINE_IMAGE_GOLDEN_H

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <jansson.h>

#include "engine/image/image.h"

#define GOLDEN_DIR "tests/golden/image/"

static inline uint64_t golden_sum(const image *im) {
    uint64_t h = 0xcbf29ce484222325u;
    for (size_t i = 0, n = (size_t)im->w * (size_t)im->h * 3; i < n; i++)
        h = (h ^ im->rgb[i]) * 0x100000001b3u;
    return h;
}

static inline json_t *golden_json(const char *name) {
    char path[256];
    json_error_t e;
    snprintf(path, sizeof path, GOLDEN_DIR "%s", name);
    json_t *j = json_load_file(path, 0, &e);
    if (!j) fail_msg("%s: %s", path, e.text);
    return j;
}

static inline uint8_t *golden_file(const char *name, size_t *n) {
    char path[256];
    snprintf(path, sizeof path, GOLDEN_DIR "pictures/%s", name);
    FILE *f = fopen(path, "rb");
    if (!f) fail_msg("cannot open %s", path);
    fseek(f, 0, SEEK_END);
    *n = (size_t)ftell(f);
    rewind(f);
    /* exactly as long as the file, so that a sanitizer sees a read past its end */
    uint8_t *p = malloc(*n ? *n : 1);
    if (fread(p, 1, *n, f) != *n) fail_msg("cannot read %s", path);
    fclose(f);
    return p;
}

static inline int golden_int(const json_t *list, size_t i) {
    return (int)json_integer_value(json_array_get(list, i));
}

/* The samples first: they name a pixel; then the checksum over all of them. */
static inline void golden_compare(const char *what, const image *im, const json_t *samples,
                                  const json_t *sum) {
    size_t i;
    json_t *s;
    char hex[17];
    json_array_foreach(samples, i, s) {
        int x = golden_int(s, 0), y = golden_int(s, 1);
        const uint8_t *p = im->rgb + ((size_t)y * (size_t)im->w + (size_t)x) * 3;
        if (p[0] != golden_int(s, 2) || p[1] != golden_int(s, 3) || p[2] != golden_int(s, 4))
            fail_msg("%s: pixel (%d, %d) expected %d %d %d, found %d %d %d", what, x, y, golden_int(s, 2),
                     golden_int(s, 3), golden_int(s, 4), p[0], p[1], p[2]);
    }
    snprintf(hex, sizeof hex, "%016" PRIx64, golden_sum(im));
    if (sum && strcmp(hex, json_string_value(sum)) != 0)
        fail_msg("%s: all samples agree, but the sum over %dx%d pixels is %s, expected %s", what, im->w,
                 im->h, hex, json_string_value(sum));
}

/* The same pixels as source() in make_goldens.py. */
static inline image golden_source(int w, int h, uint32_t seed) {
    image im = {w, h, mem_alloc((size_t)w * (size_t)h * 3)};
    assert_non_null(im.rgb);
    uint8_t *p = im.rgb;
    for (uint32_t y = 0; y < (uint32_t)h; y++)
        for (uint32_t x = 0; x < (uint32_t)w; x++)
            for (uint32_t c = 0; c < 3; c++) {
                uint32_t v = x * 73856093u ^ y * 19349663u ^ c * 83492791u ^ seed * 2654435761u;
                v ^= v >> 13;
                v *= 0x5bd1e995u;
                v ^= v >> 15;
                *p++ = (uint8_t)(seed % 2 ? v : x * 5 + y * 3 + c * 50 + seed);
            }
    return im;
}

/* Plain base64 for the tests; the caller frees. */
static inline char *golden_base64(const uint8_t *p, size_t n, size_t *out_n) {
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    char *s = malloc((n + 2) / 3 * 4 + 1), *d = s;
    for (size_t i = 0; i < n; i += 3) {
        uint32_t v =
            (uint32_t)p[i] << 16 | (i + 1 < n ? (uint32_t)p[i + 1] << 8 : 0) | (i + 2 < n ? p[i + 2] : 0);
        *d++ = digits[v >> 18];
        *d++ = digits[v >> 12 & 63];
        *d++ = i + 1 < n ? digits[v >> 6 & 63] : '=';
        *d++ = i + 2 < n ? digits[v & 63] : '=';
    }
    *d = 0;
    *out_n = (size_t)(d - s);
    return s;
}

static inline uint32_t golden_random(uint64_t *state) {
    *state = *state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(*state >> 33);
}

#endif
