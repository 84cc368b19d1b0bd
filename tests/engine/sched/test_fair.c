/* test_fair.c - prefill in equal shares over the fake model: a long prompt and short ones delay each other no more than
 * their share. Answers are of one token, so nobody decodes and rows do not depend on the clock. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "tests/engine/sched/fake_model.h"
#include "tests/engine/sched/world.h"

enum { MAX_LEN = 240, HUGE = 230, ROWS = 16 };

/* Prompts of different seeds share nothing. */
static seq *submit(world *w, int n_prompt, uint32_t seed, answer *a) {
    prompt *pr = mem_calloc(1, sizeof *pr);
    rng r = {seed * 7919};
    for (int i = 0; i < n_prompt; i++) tok_ids_push(&pr->ids, 10 + (int32_t)rnd(&r, 1900));
    engine_params p;
    params_default(w->kit.spec, &p);
    p.temperature = 0;
    p.max_tokens = 1;
    status st = {0};
    seq *s = seq_new(pr, &p, &w->kit, w->max_len, on_event, a, &st);
    assert_non_null(s);
    inbox_enter(&w->inbox, s);
    inbox_post(&w->inbox, s);
    return s;
}

static void open_world(world *w, int max_seqs, int max_chunk) {
    runner_options ro = {ROWS, max_seqs, MAX_LEN, 200, DT_F32, false};
    world_picture_bytes = 0;
    world_init(w, g_be, g_tok, MAX_LEN, &ro, max_chunk);
}

/* A short prompt behind a long one takes as many turns as its share makes, not as the long one has. */
static void short_ones_pass(void **state) {
    (void)state;
    static answer a[4];
    memset(a, 0, sizeof a);
    world w;
    open_world(&w, 8, 0);
    const seq *first = submit(&w, HUGE, 1, &a[0]);
    sched_turn(w.sched);
    assert_int_equal(first->n_done, ROWS); /* alone it has them all */
    for (int i = 1; i < 4; i++) submit(&w, 12, 100 + (uint32_t)i, &a[i]);
    for (int turn = 0; turn < 3; turn++) sched_turn(w.sched); /* 16 rows for four: 4 each */
    for (int i = 1; i < 4; i++) assert_int_equal(a[i].n_final, 1);
    assert_int_equal(first->n_done, ROWS + 12);
    sched_turn(w.sched);
    assert_int_equal(first->n_done, 2 * ROWS + 12); /* nobody else is left */
    while (sched_turn(w.sched)) continue;
    for (int i = 0; i < 4; i++) answer_fini(&a[i]);
    world_fini(&w);
}

/* What a short one cannot use is the others'; what does not divide is the oldest's; max_chunk bounds each. */
static void shares(void **state) {
    (void)state;
    static answer a[3];
    memset(a, 0, sizeof a);
    world w;
    open_world(&w, 8, 0);
    const seq *x = submit(&w, 100, 1, &a[0]), *y = submit(&w, 100, 500, &a[1]);
    submit(&w, 3, 900, &a[2]);
    sched_turn(w.sched);
    assert_int_equal(a[2].n_final, 1);
    assert_int_equal(x->n_done, 7);
    assert_int_equal(y->n_done, 6);
    while (sched_turn(w.sched)) continue;
    for (int i = 0; i < 3; i++) answer_fini(&a[i]);
    world_fini(&w);
    memset(a, 0, sizeof a);
    open_world(&w, 8, 5);
    x = submit(&w, 100, 1, &a[0]);
    y = submit(&w, 100, 500, &a[1]);
    sched_turn(w.sched);
    assert_int_equal(x->n_done, 5);
    assert_int_equal(y->n_done, 5);
    while (sched_turn(w.sched)) continue;
    for (int i = 0; i < 2; i++) answer_fini(&a[i]);
    world_fini(&w);
}

/* Short ones without end: the long one moves every turn; also where there are more of them than rows, in turn. */
static void long_one_progresses(void **state) {
    (void)state;
    enum { JOBS = 400 };
    static answer a[JOBS + 1];
    static const int max_seqs[] = {5, 24};
    for (size_t k = 0; k < ARRAY_LEN(max_seqs); k++) {
        memset(a, 0, sizeof a);
        world w;
        open_world(&w, max_seqs[k], 0);
        const seq *first = submit(&w, HUGE, 1, &a[0]);
        int sent = 0, before = 0, still = 0;
        while (!a[0].n_final) {
            while (inbox_live(&w.inbox) < max_seqs[k] && sent < JOBS) {
                sent++;
                submit(&w, 40, 50 + (uint32_t)sent, &a[sent]);
            }
            sched_turn(w.sched);
            if (sent >= JOBS) fail_msg("k %d: %d of the long one after %d", (int)k, first->n_done, sent);
            if (a[0].n_final) break;
            still = first->n_done > before ? 0 : still + 1;
            assert_true(still <= (max_seqs[k] > ROWS ? 2 : 0));
            before = first->n_done;
        }
        int done = 0;
        for (int i = 1; i <= sent; i++) done += a[i].n_final;
        assert_true(done > sent / 2);
        while (sched_turn(w.sched)) continue;
        for (int i = 0; i <= sent; i++) answer_fini(&a[i]);
        world_fini(&w);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(short_ones_pass), cmocka_unit_test(shares),
                                       cmocka_unit_test(long_one_progresses)};
    return cmocka_run_group_tests(tests, world_set_up, world_tear_down);
}
