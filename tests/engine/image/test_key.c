/* test_key.c - keys of pictures against Python's hashlib over the bytes that key.h names, and that nothing which
 * changes a picture leaves its key as it was. The expected values come from:
 *
 *   import hashlib, struct
 *   step = struct.pack("<17i", -1, -2, 1, 20, 30, 3, 2, 3, 0, 0, 3, 2, 3, 2, 10, 20, 30)
 *   for text in ([], [7, -1, 300]):
 *       rule = (struct.pack("<I", 1) + step + struct.pack("<7f", 0.5, .25, .5, .75, 1, 2, 4) +
 *               struct.pack(f"<{1 + len(text)}i", len(text), *text))
 *       content = b"vlmd pixels 3" + b"RGB8" + struct.pack("<2I", 70000, 5) + rule + bytes(range(18))
 *       print(hashlib.sha256(content).hexdigest())
 *       print(hashlib.sha256(b"vlmd base64 3" + rule + b"iVBORw0KGgo=").hexdigest()) */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>

#include "engine/image/key.h"

static const prep_spec PREP = {.rescale = 0.5f, .mean = {0.25f, 0.5f, 0.75f}, .std = {1, 2, 4}};
static const prep_step STEP = {.from = -1,
                               .x = -2,
                               .y = 1,
                               .w = 20,
                               .h = 30,
                               .rw = 3,
                               .rh = 2,
                               .filter = RESAMPLE_BICUBIC,
                               .cw = 3,
                               .ch = 2,
                               .tw = 3,
                               .th = 2,
                               .pad_rgb = {10, 20, 30}};

static void assert_hex(const uint8_t key[IMAGE_KEY_BYTES], const char *expected) {
    char hex[2 * IMAGE_KEY_BYTES + 1];
    for (int i = 0; i < IMAGE_KEY_BYTES; i++) snprintf(hex + 2 * i, 3, "%02x", key[i]);
    assert_string_equal(hex, expected);
}

static void as_hashlib(void **state) {
    (void)state;
    uint8_t rgb[18], key[IMAGE_KEY_BYTES];
    for (int i = 0; i < 18; i++) rgb[i] = (uint8_t)i;
    tiles t = {.plan = {.n_steps = 1, .n_tiles = 1, .bytes = 18, .steps = {STEP}}, .rgb = rgb};
    image_key(&t, 70000, 5, &PREP, key);
    assert_hex(key, "e649a2e45145adea1046c55d35496e898d0d3c1228a450ea24e4b6e32013c03f");
    image_source src = {"iVBORw0KGgo=", 12};
    image_source_key(&src, &t, &PREP, key);
    assert_hex(key, "b25646eac24202b1cac2f0e33be5974a8b5881aab3d4065aff9a6e1a1aecb43a");
    t.plan.n_text = 3;
    t.text = (int32_t[]){7, -1, 300};
    image_key(&t, 70000, 5, &PREP, key);
    assert_hex(key, "eee1f05de5a6233a7b751ec851875a2693d5e521ada2c41bcf8d1d6ab42e5069");
    image_source_key(&src, &t, &PREP, key);
    assert_hex(key, "70953a445ff07ec71332ba63631549ddd54b49af1c29308bb0735c1a3e0fd128");
}

enum { MAX_KEYS = 64 };
typedef struct keys {
    uint8_t v[MAX_KEYS][IMAGE_KEY_BYTES];
    int n;
} keys;

/* The key was never seen before. */
static void add_new(keys *k, const tiles *t, int w, int h, const prep_spec *p) {
    assert_true(k->n < MAX_KEYS);
    image_key(t, w, h, p, k->v[k->n]);
    for (int i = 0; i < k->n; i++) assert_memory_not_equal(k->v[i], k->v[k->n], IMAGE_KEY_BYTES);
    k->n++;
}

static void every_change_counts(void **state) {
    (void)state;
    static uint8_t rgb[36];
    static keys k;
    tiles t = {.plan = {.n_steps = 1, .n_tiles = 1, .bytes = 18, .steps = {STEP}}, .rgb = rgb};
    add_new(&k, &t, 30, 150, &PREP);
    add_new(&k, &t, 150, 30, &PREP); /* the same pixels out of another size */
    for (int i = 0; i < 18; i++) {
        rgb[i] = 1;
        add_new(&k, &t, 30, 150, &PREP);
        rgb[i] = 0;
    }
    prep_step *s = &t.plan.steps[0];
    int *const fields[] = {&s->from, &s->x,  &s->y,  &s->w,  &s->h,  &s->rw, &s->rh,
                           &s->cx,   &s->cy, &s->cw, &s->ch, &s->tw, &s->th};
    for (size_t i = 0; i < ARRAY_LEN(fields); i++) {
        ++*fields[i];
        add_new(&k, &t, 30, 150, &PREP);
        --*fields[i];
    }
    for (int i = 0; i < 3; i++) {
        s->pad_rgb[i]++;
        add_new(&k, &t, 30, 150, &PREP);
        s->pad_rgb[i]--;
    }
    s->filter = RESAMPLE_BOX;
    add_new(&k, &t, 30, 150, &PREP);
    s->filter = RESAMPLE_BICUBIC;
    t.plan.n_steps = 2;
    t.plan.steps[1] = STEP;
    t.plan.bytes = 36;
    add_new(&k, &t, 30, 150, &PREP);
    t.plan.n_steps = 1;
    t.plan.bytes = 18;
    for (int i = 0; i < 7; i++) {
        prep_spec p = PREP;
        *(i == 0 ? &p.rescale : i < 4 ? &p.mean[i - 1] : &p.std[i - 4]) += 8;
        add_new(&k, &t, 30, 150, &p);
    }
    int32_t text[3] = {0};
    t.text = text;
    for (t.plan.n_text = 1; t.plan.n_text <= 3; t.plan.n_text++) {
        add_new(&k, &t, 30, 150, &PREP);
        text[t.plan.n_text - 1] = 1;
        add_new(&k, &t, 30, 150, &PREP);
    }
    t.plan.n_text = 0;
    uint8_t a[IMAGE_KEY_BYTES];
    image_key(&t, 30, 150, &PREP, a);
    assert_memory_equal(a, k.v[0], IMAGE_KEY_BYTES);
}

static void sources(void **state) {
    (void)state;
    uint8_t a[IMAGE_KEY_BYTES], b[IMAGE_KEY_BYTES];
    tiles plan = {.plan = {.n_steps = 1, .n_tiles = 1, .bytes = 18, .steps = {STEP}}}, longer = plan,
          read = plan;
    longer.plan.steps[0].w++;
    read.plan.n_text = 1;
    read.text = (int32_t[]){0};
    prep_spec other = PREP;
    other.std[2] = 5;
    image_source_key(&(image_source){"AAAA", 4}, &plan, &PREP, a);
    image_source_key(&(image_source){"AAAAAAAA", 4}, &plan, &PREP, b);
    assert_memory_equal(a, b, IMAGE_KEY_BYTES); /* the span alone */
    image_source_key(&(image_source){"AAAA", 4}, &plan, &other, b);
    assert_memory_not_equal(a, b, IMAGE_KEY_BYTES);
    image_source_key(&(image_source){"AAAA", 4}, &longer, &PREP, b);
    assert_memory_not_equal(a, b, IMAGE_KEY_BYTES);
    image_source_key(&(image_source){"AAAA", 4}, &read, &PREP, b);
    assert_memory_not_equal(a, b, IMAGE_KEY_BYTES);
    image_source_key(&(image_source){"AAAA=", 5}, &plan, &PREP, b);
    assert_memory_not_equal(a, b, IMAGE_KEY_BYTES);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(as_hashlib), cmocka_unit_test(every_change_counts),
                                       cmocka_unit_test(sources)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
