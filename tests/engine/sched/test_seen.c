/* test_seen.c - which pictures a row sees: against the reference's rule (transformers' get_cross_attention_token_mask and
 * _prepare_cross_attention_mask), written out slowly over random prompts; and the runs that a step makes of it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#include "tests/engine/sched/fake_model.h"
#include "engine/seen.h"

enum { LEN = 24, PICTURES = 4 };

/* mask[row][picture]: end of each picture token's range, from the last one back. */
static void reference_mask(const prompt *p, bool mask[LEN][PICTURES]) {
    int end[PICTURES], last = LEN;
    memset(mask, 0, sizeof(bool[LEN][PICTURES]));
    for (int i = 0; i < p->n_rows; i++) end[i] = i + 1 < p->n_rows ? p->rows[i + 1].row : LEN;
    for (int i = p->n_rows - 1; i >= 0; i--) {
        if (p->rows[i].row == end[i] - 1) end[i] = last;
        last = end[i];
    }
    for (int i = 0; i < p->n_rows; i++)
        for (int row = p->rows[i].row; row < end[i]; row++) mask[row][i] = true;
}

/* What lies at each row of the joined copy: which picture, and whether it holds something. */
static int lay_out(const seq_image *im, int n, int *shows, bool *holds) {
    int at = 0;
    for (int pad = 0; pad < 2; pad++)
        for (int i = 0; i < n; i++)
            for (int k = 0; k < (pad ? im[i].all - im[i].hold : im[i].hold); k++) {
                shows[at] = i;
                holds[at++] = !pad;
            }
    return at;
}

static void as_the_reference(void **state) {
    (void)state;
    uint32_t r = 5;
    for (int round = 0; round < 400; round++) {
        prompt_rows rows[PICTURES];
        prompt p = {.rows = rows};
        seq_image im[PICTURES] = {{0}};
        for (int row = 0; row < LEN && p.n_rows < PICTURES; row++) {
            r = fake_mix(r, 17);
            if (r % 4 == 0) rows[p.n_rows] = (prompt_rows){row, 1, p.n_rows, 0}, p.n_rows++;
        }
        if (!p.n_rows) continue;
        p.n_images = p.n_rows;
        for (int i = 0; i < p.n_rows; i++) {
            im[i].all = 12;
            im[i].hold = 3 * (1 + (int)(fake_mix(r, (uint32_t)i) % 4));
        }
        int shows[12 * PICTURES];
        bool holds[12 * PICTURES], mask[LEN][PICTURES];
        int total = lay_out(im, p.n_rows, shows, holds);
        assert_int_equal(total, 12 * p.n_rows);
        reference_mask(&p, mask);
        for (int row = 0; row < LEN; row++) {
            bool any = false;
            for (int i = 0; i < p.n_rows; i++) any = any || mask[row][i];
            seen v = seen_by(&p, im, row);
            assert_int_equal(v.past, any);
            for (int k = 0; k < total; k++) {
                bool sees = k >= v.from && k < v.from + v.n;
                assert_int_equal(sees, any ? mask[row][shows[k]] && holds[k] : true);
            }
        }
    }
}

/* Pictures without a place in the prompt: every row sees all that hold something. */
static void without_a_place(void **state) {
    (void)state;
    prompt p = {.n_images = 2};
    seq_image im[] = {{NULL, 9, 6}, {NULL, 9, 9}};
    for (int row = 0; row < 3; row++) {
        seen v = seen_by(&p, im, row);
        assert_true(v.past && v.from == 0 && v.n == 15);
    }
}

/* A chunk becomes runs of rows that see the same, none of them empty, all of them covered. */
static void runs_of_a_chunk(void **state) {
    (void)state;
    model *m = model_load("", NULL, NULL);
    tiles blank = one_tile(1, 1, (uint8_t[3]){0});
    picture pic = {.enc = encode_new(m, NULL, &blank, NULL), .ready = true};
    prompt_rows rows[] = {{3, 1, 0, 0}, {4, 1, 1, 0}, {9, 1, 2, 0}};
    prompt p = {.rows = rows, .n_rows = 3, .n_images = 3};
    seq_image im[] = {{&pic, 9, 6}, {&pic, 9, 3}, {&pic, 9, 9}};
    float copy[27 * FAKE_WIDTH];
    seq s = {.prompt = &p, .images = im, .apart = true, .seen_ready = true, .seen_rows = copy};
    seen_runs r;
    assert_true(seen_runs_init(&r, NULL, 16, FAKE_WIDTH, NULL));
    seen_runs_add(&r, &s, 1, 12, 2);
    static const struct {
        int row, n, from, rows;
        bool past;
    } want[] = {{2, 2, 0, 27, false}, {4, 1, 0, 6, true}, {5, 5, 0, 9, true}, {10, 3, 9, 9, true}};
    assert_int_equal(r.n, ARRAY_LEN(want));
    for (int i = 0; i < r.n; i++) {
        assert_int_equal(r.v[i].row, want[i].row);
        assert_int_equal(r.v[i].n, want[i].n);
        assert_int_equal(r.v[i].rows.d[0], want[i].rows);
        assert_ptr_equal(r.v[i].rows.data, copy + want[i].from * FAKE_WIDTH);
        assert_int_equal(r.v[i].past, want[i].past);
        assert_int_equal(r.host[16 * i + 1], want[i].n);
        assert_int_equal(r.host[16 * i + 2], want[i].rows);
    }
    seen_runs_fini(&r);
    encode_free(pic.enc);
    model_free(m);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(as_the_reference), cmocka_unit_test(without_a_place),
                                       cmocka_unit_test(runs_of_a_chunk)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
