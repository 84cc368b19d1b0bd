/* test_pace.c - the budget of a turn over a machine made of two numbers: what it predicts, that a turn stays within
 * about twice a step of its decode rows, that neither pictures nor prefill starve, cold or after the machine changed. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "engine/pace.h"

typedef struct machine {
    double fixed_s, row_s, slice_s,
        cold; /* cold: a step takes so many times longer after anything but decode rows */
} machine;
static const machine LARGE = {0.055, 0.011, 0.010, 1}, SMALL = {0.0003, 0.00001, 0.0004, 1};
static const machine SLOW = {0.165, 0.033, 0.030, 1}, COLD = {0.0003, 0.00001, 0.00005, 1.6};
static bool g_warm; /* the last turn had decode rows alone */

typedef struct turn {
    int rows, slices;
    double seconds;
} turn;

/* One turn as the scheduler makes it. */
static turn take_turn(pace *p, const machine *m, int n_decode, int pictures, int prefill) {
    turn t = {0};
    pace_begin(p, n_decode, prefill > 0);
    for (; t.slices < pictures && pace_may_encode(p); t.slices++) {
        pace_slice_took(p, m->slice_s);
        t.seconds += m->slice_s;
    }
    t.rows = pace_prefill_rows(p, prefill, t.slices < pictures);
    assert_true(t.rows >= 0 && t.rows <= prefill);
    if (n_decode + t.rows == 0) return t;
    double step = m->fixed_s + m->row_s * (n_decode + t.rows);
    bool plain = t.rows == 0 && t.slices == 0;
    if (!plain || !g_warm) step *= m->cold;
    g_warm = plain;
    pace_step_took(p, n_decode + t.rows, pace_is_plain(p, n_decode + t.rows), step);
    t.seconds += step;
    return t;
}

static void warm(pace *p, const machine *m, int n_decode) {
    take_turn(p, m, 0, 0, 300);
    for (int i = 0; i < 300; i++) take_turn(p, m, n_decode, 0, i % 2 ? 512 : 0);
}

static void near(double got, double want, double part) {
    if (!(got >= want * (1 - part) && got <= want * (1 + part))) fail_msg("%g instead of %g", got, want);
}

static void learns_the_machine(void **state) {
    (void)state;
    static const machine *const all[] = {&LARGE, &SMALL, &SLOW};
    for (int k = 0; k < 3; k++)
        for (int n = 1; n <= 8; n *= 2) {
            pace p = {0};
            warm(&p, all[k], n);
            near(pace_predict(&p, n), all[k]->fixed_s + n * all[k]->row_s, 0.1);
        }
}

/* From the first turn on, whatever was known before: a picture's slices and prefill without end beside streams. */
static void turns_are_bounded(void **state) {
    (void)state;
    static const machine *const all[] = {&LARGE, &SMALL, &SLOW};
    for (int k = 0; k < 3; k++)
        for (int n = 1; n <= 8; n *= 2)
            for (int wants = 1; wants < 4; wants++) {
                const machine *m = all[k];
                pace p = {0};
                take_turn(&p, m, 0, 0, 40); /* a prompt; then it streams */
                double alone = m->fixed_s + n * m->row_s, sum = 0;
                for (int i = 0; i < 400; i++) {
                    turn t = take_turn(&p, m, n, wants & 1 ? 1000 : 0, wants & 2 ? 1000 : 0);
                    double most = 2 * alone + (m->slice_s > alone / 2 ? m->slice_s : 0);
                    assert_true(i < 40 || t.seconds <= 1.15 * most);
                    if (i >= 40) sum += t.seconds;
                }
                /* and what may be used is used */
                if (!(sum / 360 >= 1.6 * alone))
                    fail_msg("%d %d %d: %g of %g", k, n, wants, sum / 360, alone);
            }
}

static void both_progress(void **state) {
    (void)state;
    static const machine *const all[] = {&LARGE, &SMALL, &SLOW};
    for (int k = 0; k < 3; k++) {
        const machine *m = all[k];
        pace p = {0};
        warm(&p, m, 2);
        double encode = 0, prefill = 0;
        for (int i = 0; i < 400; i++) {
            turn t = take_turn(&p, m, 2, 1000, 1000);
            encode += t.slices * m->slice_s;
            prefill += t.rows * m->row_s;
        }
        assert_true(encode <= 2 * prefill && prefill <= 2 * encode); /* about half each */
    }
    /* a slice and a row that are each longer than all a turn may spend come every few turns */
    machine tiny = {0.001, 0.0001, 0.01, 1};
    pace p = {0};
    take_turn(&p, &tiny, 0, 0, 40);
    int slices = 0, rows = 0;
    for (int i = 0; i < 400; i++) {
        turn t = take_turn(&p, &tiny, 1, 1000, 1000);
        assert_true(t.slices <= 1);
        slices += t.slices, rows += t.rows;
    }
    assert_true(slices >= 15 && slices <= 60 && rows >= 400);
}

/* Where pictures empty the caches, twice the time of before counts, not of now. */
static void caches_go_cold(void **state) {
    (void)state;
    pace p = {0};
    take_turn(&p, &COLD, 0, 0, 40);
    for (int i = 0; i < 100; i++) take_turn(&p, &COLD, 2, 0, 0);
    double alone = COLD.fixed_s + 2 * COLD.row_s;
    near(p.alone_s, alone, 0.05);
    int slices = 0, over = 0;
    for (int i = 0; i < 400; i++) {
        turn t = take_turn(&p, &COLD, 2, 1000, 1000);
        over += i > 60 && t.seconds > 2.2 * alone;
        slices += t.slices;
    }
    assert_true(over <= 4 && slices >= 300);
}

static void follows_the_machine(void **state) {
    (void)state;
    pace p = {0};
    warm(&p, &LARGE, 2);
    for (int i = 0; i < 60; i++) take_turn(&p, &SLOW, 2, 1000, 1000); /* others came */
    near(pace_predict(&p, 2), SLOW.fixed_s + 2 * SLOW.row_s, 0.25);
    for (int i = 0; i < 60; i++) take_turn(&p, &LARGE, 2, 1000, 1000); /* and left */
    near(pace_predict(&p, 2), LARGE.fixed_s + 2 * LARGE.row_s, 0.25);
    double before = pace_predict(&p, 2);
    pace_step_took(&p, 5, pace_is_plain(&p, 5), 10); /* a hiccup */
    assert_true(pace_predict(&p, 2) <= 1.5 * before);
}

/* Rows that look free, because small steps differ by noise alone, are tried a doubling at a time. */
static void free_rows_are_tried_slowly(void **state) {
    (void)state;
    pace p = {.fixed_s = 0.1, .row_s = 0, .tried_rows = 2};
    pace_begin(&p, 2, true);
    assert_int_equal(pace_prefill_rows(&p, 512, false), 2);
    p.tried_rows = 4;
    pace_begin(&p, 2, true);
    assert_int_equal(pace_prefill_rows(&p, 512, false), 6);
}

static void nobody_streams(void **state) {
    (void)state;
    pace p = {0};
    assert_int_equal(take_turn(&p, &LARGE, 0, 0, 512).rows, 512); /* nothing is known yet */
    assert_int_equal(take_turn(&p, &LARGE, 0, 0, 512).rows, 128);
    assert_int_equal(take_turn(&p, &LARGE, 0, 0, 40).rows, 40);
    assert_int_equal(take_turn(&p, &LARGE, 0, 1000, 0).slices, 5);
    pace q = {0};
    take_turn(&q, &SMALL, 0, 0, 512);
    assert_int_equal(take_turn(&q, &SMALL, 0, 0, 512).rows, 512);
}

/* What could not be divided is paid for: streams lose no more over time than by rows that can. */
static void debts_are_paid(void **state) {
    (void)state;
    pace p = {0};
    warm(&p, &LARGE, 4);
    double begin[2] = {0};
    int rows[2] = {0};
    for (int spans = 0; spans < 2; spans++)
        for (int i = 0; i < 400; i++) {
            pace_begin(&p, 4, true);
            int n = pace_prefill_rows(&p, 512, false);
            if (spans && n > 0) {
                pace_overdrawn(&p, 100 - n);
                n = 100;
            }
            double took = LARGE.fixed_s + LARGE.row_s * (4 + n);
            pace_step_took(&p, 4 + n, pace_is_plain(&p, 4 + n), took);
            begin[spans] += took;
            rows[spans] += n;
        }
    assert_true(rows[0] > 1000);
    near(rows[1] / begin[1], rows[0] / begin[0], 0.1);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(debts_are_paid),      cmocka_unit_test(learns_the_machine),
        cmocka_unit_test(turns_are_bounded),   cmocka_unit_test(both_progress),
        cmocka_unit_test(follows_the_machine), cmocka_unit_test(caches_go_cold),
        cmocka_unit_test(nobody_streams),      cmocka_unit_test(free_rows_are_tried_slowly),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
