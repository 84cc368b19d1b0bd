/* test_batch.c - rows of a step as struct step wants them: positions, slots, tables, splices, wanted rows. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "engine/batch.h"
#include "tests/engine/sched/fake_model.h"

static int32_t g_ids[64], g_pages[4] = {5, 2, 9, 7};
static prompt_rows g_pic = {.row = 3, .n = 9, .image = 0, .from = 0};
static prompt g_prompt = {.ids = {.v = g_ids, .n = 40}, .n_images = 1, .rows = &g_pic, .n_rows = 1};

static void set_up(seq *s, seq_image *im) {
    for (int i = 0; i < 64; i++) g_ids[i] = 100 + i;
    *s = (seq){.prompt = &g_prompt,
               .n_prompt = 38,
               .max_len = 64,
               .pages = g_pages,
               .n_pages = 3,
               .images = im,
               .wait_row = INT_MAX};
}

static void rows_of_two(void **state) {
    (void)state;
    model *m = model_load("", NULL, NULL);
    tiles blank = one_tile(1, 1, (uint8_t[3]){0});
    picture pic = {.enc = encode_new(m, NULL, &blank, NULL), .ready = true};
    seq_image im = {.pic = &pic};
    seq a, b;
    set_up(&a, &im);
    set_up(&b, &im);
    a.n_done = 5; /* begins inside the picture */
    b.n_done = 39;
    batch t;
    bool fits = false;
    assert_true(batch_init(&t, NULL, 32, 0, 4, 4, 1, 64, NULL));
    t.rope_from = 1; /* positions that count from 1: each length is one more */
    batch_clear(&t);
    assert_false(batch_add(&t, &a, 20, &fits)); /* rows 5..24: not the last */
    assert_true(fits);
    assert_true(batch_add(&t, &b, 1, &fits)); /* row 39 of 40 */
    assert_int_equal(t.n_rows, 21);
    assert_int_equal(t.n_seqs, 2);
    assert_int_equal(t.n_out, 1);
    assert_int_equal(t.out_rows[0], 20);
    assert_int_equal(t.q_start[0], 0);
    assert_int_equal(t.q_start[1], 20);
    assert_int_equal(t.q_start[2], 21);
    assert_int_equal(t.kv_len[0], 25);
    assert_int_equal(t.kv_len[1], 40);
    for (int i = 0; i < 20; i++) {
        int p = 5 + i;
        assert_int_equal(t.pos[i], p);
        assert_int_equal(t.ids[i], p < 12 ? -1 : 100 + p);
        assert_int_equal(t.rope_len[i], 1 + 38); /* the prompt's, whatever the answer's length */
        assert_int_equal(t.slots[i], (p < 16 ? 5 : 2) * 16 + p % 16);
    }
    assert_int_equal(t.rope_len[20], 1 + 40); /* an answer's row: its own length */
    assert_int_equal(t.slots[20], 9 * 16 + 7);
    const int32_t table[4] = {5, 2, 9, 0};
    assert_memory_equal(t.pages, table, sizeof table);
    assert_memory_equal(t.pages + 4, table, sizeof table);
    assert_int_equal(t.n_splices, 1);
    assert_int_equal(t.splices[0].row, 0);
    assert_int_equal(t.splices[0].rows.d[0], 7); /* picture rows 2..8 */
    assert_ptr_equal(t.splices[0].rows.data, (float *)encode_rows(pic.enc).data + 2 * FAKE_WIDTH);
    batch_fini(&t);
    encode_free(pic.enc);
    model_free(m);
}

/* A row whose id is on its way; dummies behind it; a rule whose lists find no room. */
static void rows_ahead(void **state) {
    (void)state;
    seq s;
    seq_image im = {0};
    set_up(&s, &im);
    batch t;
    bool fits = false;
    assert_true(batch_init(&t, NULL, 32, 0, 4, 4, 1, 6, NULL));
    batch_clear(&t);
    s.n_done = 40; /* all it has, and one more is chosen on the device */
    s.n_ahead = 1;
    s.last_result = 7;
    static int32_t bias_ids[4] = {1, 2, 3, 4};
    static float bias[4] = {1, 1, -1, -1};
    s.sampler =
        (sampler){.bias_ids = bias_ids, .bias = bias, .n_user_bias = 2, .n_all_bias = 4, .min_tokens = 3};
    s.sampler.n_out = 2; /* with the one on its way the third: the bans end */
    assert_true(seq_decodes(&s));
    assert_true(batch_add(&t, &s, 1, &fits));
    assert_true(batch_only_decodes(&t));
    assert_int_equal(t.from[0], 7);
    assert_int_equal(t.pos[0], 40);
    assert_int_equal(t.kv_len[0], 41);
    assert_int_equal(t.rules[0].n_bias, 2);
    assert_int_equal(t.rules[0].position, 3);
    s.sampler.n_out = 1;
    assert_false(batch_add(&t, &s, 1, &fits)); /* 8 words more, of 6 */
    assert_false(fits);
    assert_int_equal(t.n_rows, 1);
    batch_pad(&t, 4, 1);
    assert_true(batch_only_decodes(&t));
    for (int i = 1; i < 4; i++) {
        assert_int_equal(t.from[i], -1);
        assert_int_equal(t.slots[i], -1);
        assert_int_equal(t.kv_len[i], 1);
        assert_int_equal(t.pages[i * 4], 0);
        assert_int_equal(t.out_rows[i], i);
    }
    int32_t *packed = mem_calloc(1, batch_bytes(&t));
    assert_true(batch_pack(&t, packed) <= batch_bytes(&t));
    assert_memory_equal(packed + 16, t.pos, 4 * sizeof(int32_t)); /* each array at 64 bytes */
    mem_free(packed);
    /* what ends with the token on its way, or needs it, has no row */
    s.max_len = 41;
    assert_int_equal(seq_rows_ready(&s), 0);
    s.max_len = 64;
    assert_int_equal(seq_rows_ready(&s), 1);
    s.sampler.tracks = true;
    assert_int_equal(seq_rows_ready(&s), 0);
    batch_fini(&t);
}

static void rows_ready(void **state) {
    (void)state;
    picture pic = {.ready = false};
    seq_image im = {.pic = &pic};
    seq s;
    set_up(&s, &im);
    assert_int_equal(seq_rows_ready(&s), 3); /* stops before the picture */
    assert_int_equal(seq_next_image(&s), 0);
    s.n_done = 3;
    assert_int_equal(seq_rows_ready(&s), 0);
    pic.ready = true;
    assert_int_equal(seq_rows_ready(&s), 37);
    assert_int_equal(seq_next_image(&s), -1);
    assert_false(seq_decodes(&s));
    s.n_done = 39;
    assert_true(seq_decodes(&s));
}

/* Limits of a picture's rows and of a whole prompt, where chunks may end, and a step in blocks. */
static void rows_with_spans(void **state) {
    (void)state;
    model *m = model_load("", NULL, NULL);
    tiles blank = one_tile(1, 1, (uint8_t[3]){0});
    picture pic = {.enc = encode_new(m, NULL, &blank, NULL), .ready = true};
    seq_image im = {.pic = &pic};
    seq a, b;
    set_up(&a, &im);
    set_up(&b, &im);
    a.both_ways = BOTH_PICTURE; /* rows 3..11 */
    assert_int_equal(seq_unit(&a), 1);
    assert_int_equal(seq_cut(&a, 2), 2);
    assert_int_equal(seq_cut(&a, 3), 3);
    assert_int_equal(seq_cut(&a, 4), 3);
    assert_int_equal(seq_cut(&a, 11), 3);
    assert_int_equal(seq_cut(&a, 12), 12);
    assert_int_equal(seq_cut(&a, 40), 40);
    a.wait_row = 5;
    assert_int_equal(seq_rows_ready(&a), 3);
    a.wait_row = INT_MAX;
    a.n_done = 3;
    assert_int_equal(seq_unit(&a), 9);
    assert_int_equal(seq_cut(&a, 8), 0);
    a.n_done = 5; /* the first two are in a page of somebody else */
    assert_int_equal(seq_unit(&a), 7);
    assert_int_equal(seq_cut(&a, 6), 0);
    b.both_ways = BOTH_PROMPT; /* rows 0..37, then two of the answer */
    assert_int_equal(seq_unit(&b), 38);
    assert_int_equal(seq_cut(&b, 37), 0);
    assert_int_equal(seq_cut(&b, 39), 39);
    pic.ready = false;
    assert_int_equal(seq_rows_ready(&b), 0);
    pic.ready = true;
    assert_int_equal(seq_rows_ready(&b), 40);
    batch t;
    assert_true(batch_init(&t, NULL, 16, 40, 4, 4, 0, 64, NULL));
    batch_clear(&t);
    bool fits;
    assert_false(batch_add(&t, &a, 9, &fits)); /* rows 5..13 */
    assert_true(batch_add(&t, &b, 40, &fits));
    for (int i = 0; i < 9; i++) assert_int_equal(t.limit[i], i < 7 ? 12 : 0);
    for (int i = 0; i < 40; i++) assert_int_equal(t.limit[9 + i], i < 38 ? 38 : 0);
    batch_step described;
    batch_describe(&t, &described);
    assert_int_equal(described.s.n_blocks, 4);
    assert_int_equal(described.s.block_rows, 16);
    int32_t *packed = mem_calloc(1, batch_bytes(&t));
    batch_pack(&t, packed);
    /* behind five arrays of 49 numbers, four short ones and the limits, each from 64 bytes on */
    const int32_t *blocks = packed + 5 * 64 + 4 * 16 + 64;
    static const int start[4][3] = {{0, 9, 16}, {0, 0, 16}, {0, 0, 16}, {0, 0, 1}},
                     len[4][2] = {{14, 7}, {0, 23}, {0, 39}, {0, 40}};
    for (int k = 0; k < 4; k++)
        for (int i = 0; i < 3; i++) {
            assert_int_equal(blocks[k * 32 + i], start[k][i]);
            if (i < 2) assert_int_equal(blocks[k * 32 + 16 + i], len[k][i]);
        }
    mem_free(packed);
    batch_fini(&t);
    encode_free(pic.enc);
    model_free(m);
}

static void grow_and_drop(void **state) {
    (void)state;
    kv_cache kv;
    assert_true(kv_init(&kv, 4, NULL));
    int32_t pages[4];
    picture pic = {.ready = true};
    seq_image im = {.pic = &pic};
    seq s;
    set_up(&s, &im);
    s.pages = pages;
    s.n_pages = 0;
    assert_true(seq_grow(&s, &kv, 16));
    assert_int_equal(s.n_pages, 1);
    assert_false(seq_grow(&s, &kv, 64)); /* four pages, three are there: nothing is taken */
    assert_int_equal(s.n_pages, 1);
    assert_int_equal(kv.n_free, 2);
    assert_true(seq_grow(&s, &kv, 48));
    assert_true(seq_grow(&s, &kv, 3)); /* never shrinks */
    assert_int_equal(s.n_pages, 3);
    s.n_done = 12;
    seq_drop_pages(&s, &kv);
    assert_int_equal(s.n_done, 0);
    assert_int_equal(kv.n_free, 3);
    kv_fini(&kv);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(rows_of_two), cmocka_unit_test(rows_ahead),
                                       cmocka_unit_test(rows_ready), cmocka_unit_test(rows_with_spans),
                                       cmocka_unit_test(grow_and_drop)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
