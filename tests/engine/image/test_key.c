/* test_key.c - keys of pictures against Python's hashlib over the bytes that key.h names, and that nothing which
 * changes a picture leaves its key as it was. The expected values come from:
 *
 *   import hashlib, struct
 *   prep = struct.pack("<11I", 1, 10, 20, 30, 3, 336, 337, 3, 1, 224, 225) + struct.pack("<7f", 0.5, .25, .5, .75, 1, 2, 4)
 *   content = b"vlmd pixels 1" + b"RGB8" + struct.pack("<2I", 70000, 5) + prep + struct.pack("<2I", 3, 2)
 *   print(hashlib.sha256(content + bytes(range(18))).hexdigest())
 *   print(hashlib.sha256(b"vlmd base64 1" + prep + b"iVBORw0KGgo=").hexdigest()) */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>

#include "engine/image/key.h"

static const prep_spec PREP = {.pad_square = true,
                               .pad_rgb = {10, 20, 30},
                               .size = PREP_SIZE_EXACT,
                               .size_w = 336,
                               .size_h = 337,
                               .filter = RESAMPLE_BICUBIC,
                               .crop = true,
                               .crop_w = 224,
                               .crop_h = 225,
                               .rescale = 0.5f,
                               .mean = {0.25f, 0.5f, 0.75f},
                               .std = {1, 2, 4}};

static void assert_hex(const uint8_t key[IMAGE_KEY_BYTES], const char *expected) {
    char hex[2 * IMAGE_KEY_BYTES + 1];
    for (int i = 0; i < IMAGE_KEY_BYTES; i++) snprintf(hex + 2 * i, 3, "%02x", key[i]);
    assert_string_equal(hex, expected);
}

static void as_hashlib(void **state) {
    (void)state;
    uint8_t rgb[18], key[IMAGE_KEY_BYTES];
    for (int i = 0; i < 18; i++) rgb[i] = (uint8_t)i;
    image im = {3, 2, rgb};
    image_key(&im, 70000, 5, &PREP, key);
    assert_hex(key, "5bab3928d1435d8d6867892c5308e4235ccbbcf154d7d2d1363c16cb7a92b6a8");
    image_source src = {"iVBORw0KGgo=", 12};
    image_source_key(&src, &PREP, key);
    assert_hex(key, "6ff36ef7bbbec816ef11a0260ad5ca4711f25eeed9bd8f93f10680c560137c52");
}

enum { MAX_KEYS = 64 };
typedef struct keys {
    uint8_t v[MAX_KEYS][IMAGE_KEY_BYTES];
    int n;
} keys;

/* The key of im was never seen before. */
static void add_new(keys *k, const image *im, int w, int h, const prep_spec *p) {
    image_key(im, w, h, p, k->v[k->n]);
    for (int i = 0; i < k->n; i++) assert_memory_not_equal(k->v[i], k->v[k->n], IMAGE_KEY_BYTES);
    k->n++;
}

static void every_change_counts(void **state) {
    (void)state;
    static uint8_t rgb[30 * 150 * 3];
    keys k = {.n = 0};
    image flat = {30, 150, rgb};
    add_new(&k, &flat, 30, 150, &PREP);
    add_new(&k, &flat, 150, 30, &PREP); /* the same pixels out of another size */
    flat = (image){150, 30, rgb};
    add_new(&k, &flat, 150, 30, &PREP); /* the same bytes in another shape */
    flat = (image){75, 60, rgb};
    add_new(&k, &flat, 150, 30, &PREP);
    image im = {3, 2, rgb};
    for (int i = 0; i < 18; i++) {
        rgb[i] = 1;
        add_new(&k, &im, 3, 2, &PREP);
        rgb[i] = 0;
    }
    const prep_spec changed[] = {
#define WITH(...) ((prep_spec){__VA_ARGS__})
        WITH(.rescale = 1),         WITH(.pad_square = true),   WITH(.pad_rgb = {1, 0, 0}),
        WITH(.pad_rgb = {0, 1, 0}), WITH(.pad_rgb = {0, 0, 1}), WITH(.size = PREP_SIZE_LONGEST),
        WITH(.size_w = 1),          WITH(.size_h = 1),          WITH(.filter = RESAMPLE_BOX),
        WITH(.crop = true),         WITH(.crop_w = 1),          WITH(.crop_h = 1),
        WITH(.mean = {1, 0, 0}),    WITH(.mean = {0, 1, 0}),    WITH(.mean = {0, 0, 1}),
        WITH(.std = {1, 0, 0}),     WITH(.std = {0, 1, 0}),     WITH(.std = {0, 0, 1}),
#undef WITH
    };
    for (size_t i = 0; i < ARRAY_LEN(changed); i++) add_new(&k, &im, 3, 2, &changed[i]);
    uint8_t a[IMAGE_KEY_BYTES], b[IMAGE_KEY_BYTES];
    image_key(&im, 3, 2, &PREP, a);
    image_key(&im, 3, 2, &PREP, b);
    assert_memory_equal(a, b, IMAGE_KEY_BYTES);
}

static void sources(void **state) {
    (void)state;
    uint8_t a[IMAGE_KEY_BYTES], b[IMAGE_KEY_BYTES];
    prep_spec other = PREP;
    other.std[2] = 5;
    image_source_key(&(image_source){"AAAA", 4}, &PREP, a);
    image_source_key(&(image_source){"AAAAAAAA", 4}, &PREP, b);
    assert_memory_equal(a, b, IMAGE_KEY_BYTES); /* the span alone */
    image_source_key(&(image_source){"AAAA", 4}, &other, b);
    assert_memory_not_equal(a, b, IMAGE_KEY_BYTES);
    image_source_key(&(image_source){"AAAA=", 5}, &PREP, b);
    assert_memory_not_equal(a, b, IMAGE_KEY_BYTES);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(as_hashlib), cmocka_unit_test(every_change_counts),
                                       cmocka_unit_test(sources)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
