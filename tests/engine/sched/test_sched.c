/* test_sched.c - random schedules over the fake model: every job's tokens, log-probs and text are those of
 * its solo run, whatever the batch, chunks, pages, preemptions, cancels and failures around it; pages come
 * back; one final event a job. The expected values are a run of one job at a time, rows one by one, whose
 * logic is too simple to err in the same way: its own correctness is checked by the fake model (place of
 * every row) and by rules_* below. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "tests/engine/sched/fake_model.h"
#include "tests/engine/sched/world.h"

#include "tests/engine/sched/schedule.h"

enum { MAX_LEN = SCHED_MAX_LEN };

static struct { /* of the run under way */
    uint32_t seed;
    int poison_one_in; /* 0: none */
    job_spec specs[MAX_JOBS];
    engine_params params[MAX_JOBS];
} g_run;

static void draw(int i, rng *r, const answers *got) {
    (void)got;
    job_spec *s = &g_run.specs[i];
    *s = (job_spec){.seed = g_run.seed * 1000 + (uint32_t)i};
    if (g_run.poison_one_in && rnd(r, (uint32_t)g_run.poison_one_in) == 0)
        *(rnd(r, 2) ? &s->poison_step : &s->poison_image) = true;
    rng own = {s->seed + 7};
    model *m = model_load("", NULL, NULL);
    make_params(model_get_spec(m), &own, &g_run.params[i]);
    model_free(m);
}
static prompt *prompt_of(int i) {
    rng own = {g_run.specs[i].seed};
    return make_prompt(&g_run.specs[i], &own);
}
static const engine_params *params_of(int i) {
    return &g_run.params[i];
}
static void check(int i, int choice, const answer *got) {
    (void)choice;
    if (g_run.specs[i].poison_step || g_run.specs[i].poison_image)
        assert_int_equal(got->code, ST_INTERNAL);
    else
        assert_false(got->error);
}
static const job_maker MAKER = {draw, prompt_of, params_of, check};

static void run(const schedule *sh, uint32_t seed, tally *t) {
    g_run.seed = seed;
    run_schedule(sh, seed, &MAKER, t);
}

static void alone_equals_batched(void **state) {
    (void)state;
    rng r = {1};
    tally t = {0};
    g_run.poison_one_in = 0;
    for (uint32_t i = 0; i < 150; i++) {
        schedule sh = random_schedule(&r, 15);
        run(&sh, i, &t);
    }
    print_message("%d jobs of %d choices, %d preemptions, %d pictures found\n", (int)t.jobs, (int)t.choices,
                  (int)t.preemptions, (int)t.picture_hits);
    assert_true(t.preemptions > 20 && t.choices > t.jobs + 200 && t.picture_hits > 100);
    assert_true(fake_lots > 100 && fake_together > 3);
}

/* Rows that see each other: never in two steps, with a span longer than a step's rows, with preemption, cancels and
 * failures. */
static void spans_are_never_cut(void **state) {
    (void)state;
    log_set_level(LOG_ERROR + 1);
    for (int kind = BOTH_PICTURE; kind <= BOTH_PROMPT; kind++) {
        rng r = {4};
        tally t = {0};
        fake_both_ways = (both_ways)kind;
        for (uint32_t i = 0; i < 120; i++) {
            schedule sh = random_schedule(&r, 15);
            g_run.poison_one_in = i % 3 == 2 ? 4 : 0;
            sh.cancel_one_in = i % 4 == 3 ? 8 : 0;
            run(&sh, 5000 + i, &t);
        }
        print_message("%d jobs, %d preemptions\n", (int)t.jobs, (int)t.preemptions);
        assert_true(t.preemptions > 10);
    }
    g_run.poison_one_in = 0;
    fake_both_ways = BOTH_NONE;
    log_set_level(LOG_ERROR);
}

static void cancels_at_any_turn(void **state) {
    (void)state;
    rng r = {2};
    tally t = {0};
    fake_lots = 0;
    for (uint32_t i = 0; i < 100; i++) {
        schedule sh = random_schedule(&r, 15);
        sh.cancel_one_in = 2 + (int)rnd(&r, 10);
        run(&sh, 1000 + i, &t);
    }
    assert_true(fake_lots > 50);
}

static void failures_are_one_jobs_own(void **state) {
    (void)state;
    log_set_level(LOG_ERROR + 1);
    rng r = {3};
    tally t = {0};
    fake_lots = 0;
    g_run.poison_one_in = 4;
    for (uint32_t i = 0; i < 100; i++) {
        schedule sh = random_schedule(&r, 15);
        sh.cancel_one_in = rnd(&r, 2) ? 20 : 0;
        run(&sh, 2000 + i, &t);
    }
    assert_true(fake_lots > 50);
    g_run.poison_one_in = 0;
}

static void preemption_never_touches_the_oldest(void **state) {
    (void)state;
    /* Long answers in a pool for one: each must finish. */
    tally t = {0};
    for (uint32_t i = 0; i < 40; i++) {
        schedule sh = {.n_jobs = 16, .all_at_once = true, .many_one_in = i < 20 ? 0 : 2};
        sh.ro = (runner_options){64, 16, MAX_LEN, kv_pages_of(MAX_LEN) + 1, DT_F32, false};
        sh.no_prefix_caching = i % 2;
        run(&sh, 3000 + i, &t);
    }
    assert_true(t.preemptions > 40);
}

/* ---- rules that a solo run cannot vouch for ---- */

static void submit_plain(world *w, int n_prompt, const engine_params *p, answer *a) {
    prompt *pr = mem_calloc(1, sizeof *pr);
    for (int i = 0; i < n_prompt; i++) tok_ids_push(&pr->ids, 10 + i);
    world_submit(w, pr, p, a);
}

static void rules_of_length(void **state) {
    (void)state;
    world w;
    runner_options ro = {32, 4, MAX_LEN, 64, DT_F32, false};
    world_init(&w, g_be, g_tok, MAX_LEN, &ro, 0);
    engine_params p;
    params_default(w.kit.spec, &p);
    p.temperature = 0;
    p.ignore_eos = true;
    answer a[4] = {0};
    p.max_tokens = 1;
    submit_plain(&w, 20, &p, &a[0]);
    p.max_tokens = 17;
    submit_plain(&w, 20, &p, &a[1]);
    p.max_tokens = -1;
    submit_plain(&w, 20, &p, &a[2]);
    submit_plain(&w, MAX_LEN - 1, &p, &a[3]);
    while (sched_turn(w.sched)) continue;
    const int want[4] = {1, 17, MAX_LEN - 20, 1};
    for (int i = 0; i < 4; i++) {
        assert_int_equal(a[i].n_final, 1);
        assert_false(a[i].error);
        assert_int_equal(a[i].finish, FINISH_LENGTH);
        assert_int_equal(a[i].n, want[i]);
        assert_int_equal(a[i].completion_tokens, want[i]);
        answer_fini(&a[i]);
    }
    world_fini(&w);
}

static void rules_of_stopping(void **state) {
    (void)state;
    world w;
    runner_options ro = {32, 4, MAX_LEN, 64, DT_F32, false};
    world_init(&w, g_be, g_tok, MAX_LEN, &ro, 0);
    engine_params p;
    params_default(w.kit.spec, &p);
    p.temperature = 0;
    p.ignore_eos = true;
    answer free_run = {0}, at_id = {0}, later = {0};
    submit_plain(&w, 20, &p, &free_run);
    while (sched_turn(w.sched)) continue;
    /* the fifth token as a stop id: the answer is its first five, and its text that of four */
    int32_t id = free_run.ids[4];
    for (int i = 0; i < 4; i++) assert_int_not_equal(free_run.ids[i], id);
    p.stop_ids = &id;
    p.n_stop_ids = 1;
    submit_plain(&w, 20, &p, &at_id);
    while (sched_turn(w.sched)) continue;
    assert_int_equal(at_id.finish, FINISH_STOP);
    assert_int_equal(at_id.n, 5);
    assert_int_equal(at_id.completion_tokens, 5);
    assert_memory_equal(at_id.ids, free_run.ids, 5 * sizeof id);
    assert_true(at_id.text.len < free_run.text.len);
    assert_memory_equal(at_id.text.data, free_run.text.data, at_id.text.len);
    /* with min_tokens it is banned that long */
    p.min_tokens = 9;
    submit_plain(&w, 20, &p, &later);
    while (sched_turn(w.sched)) continue;
    assert_true(later.n >= 9);
    for (int i = 0; i < 9; i++) assert_int_not_equal(later.ids[i], id);
    answer_fini(&free_run);
    answer_fini(&at_id);
    answer_fini(&later);
    world_fini(&w);
}

static void too_long_for_the_pool(void **state) {
    (void)state;
    world w;
    runner_options ro = {32, 4, MAX_LEN, 5, DT_F32, false}; /* four pages: 64 tokens and the last one */
    world_init(&w, g_be, g_tok, MAX_LEN, &ro, 0);
    engine_params p;
    params_default(w.kit.spec, &p);
    p.ignore_eos = true;
    answer fits = {0}, not = {0};
    p.max_tokens = 45;
    submit_plain(&w, 20, &p, &fits);
    p.max_tokens = 46;
    submit_plain(&w, 20, &p, &not );
    while (sched_turn(w.sched)) continue;
    assert_false(fits.error);
    assert_int_equal(fits.n, 45);
    assert_true(not .error);
    assert_int_equal(not .code, ST_TOO_LARGE);
    answer_fini(&fits);
    world_fini(&w);
}

static void refused_at_submit(void **state) {
    (void)state;
    world w;
    runner_options ro = {32, 4, MAX_LEN, 64, DT_F32, false};
    world_init(&w, g_be, g_tok, MAX_LEN, &ro, 0);
    engine_params p;
    params_default(w.kit.spec, &p);
    for (int what = 0; what < 3; what++) {
        prompt *pr = mem_calloc(1, sizeof *pr);
        int n = what == 0 ? 0 : what == 1 ? MAX_LEN : 10;
        for (int i = 0; i < n; i++) tok_ids_push(&pr->ids, i == 7 && what == 2 ? FAKE_VOCAB : 10);
        status st = {0};
        assert_null(seq_new(pr, &p, &w.kit, MAX_LEN, on_event, NULL, &st));
        assert_int_equal(st.code, ST_INVALID);
    }
    world_fini(&w);
}

/* A prompt that must run whole, beside a stream and others of its kind: each in one step of many blocks, one after the other. */
static void a_span_is_one_step(void **state) {
    (void)state;
    world w;
    runner_options ro = {16, 4, MAX_LEN, 64, DT_F32, false};
    fake_both_ways = BOTH_PROMPT;
    world_init(&w, g_be, g_tok, MAX_LEN, &ro, 0);
    engine_params p;
    params_default(w.kit.spec, &p);
    p.ignore_eos = true;
    p.max_tokens = 30;
    answer stream = {0}, whole[3];
    memset(whole, 0, sizeof whole);
    submit_plain(&w, 5, &p, &stream);
    sched_turn(w.sched);
    for (int i = 0; i < 3; i++) submit_plain(&w, 90 + i, &p, &whole[i]);
    int turns = 0;
    for (; whole[2].n == 0; turns++) {
        assert_true(turns < 1000);
        assert_int_equal(stream.n_final, 0); /* nobody starves */
        sched_turn(w.sched);
    }
    engine_stats stats;
    sched_get_stats(w.sched, &stats);
    assert_int_equal(stats.prompt_tokens, 5 + 90 + 91 + 92);
    while (sched_turn(w.sched)) continue;
    for (int i = 0; i < 3; i++) {
        assert_int_equal(whole[i].n, 30);
        answer_fini(&whole[i]);
    }
    answer_fini(&stream);
    world_fini(&w);
    fake_both_ways = BOTH_NONE;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(alone_equals_batched),      cmocka_unit_test(cancels_at_any_turn),
        cmocka_unit_test(failures_are_one_jobs_own), cmocka_unit_test(preemption_never_touches_the_oldest),
        cmocka_unit_test(spans_are_never_cut),       cmocka_unit_test(a_span_is_one_step),
        cmocka_unit_test(rules_of_length),           cmocka_unit_test(rules_of_stopping),
        cmocka_unit_test(too_long_for_the_pool),     cmocka_unit_test(refused_at_submit),
    };
    return cmocka_run_group_tests(tests, sched_set_up, world_tear_down);
}
