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

enum { MAX_LEN = 160 };

static backend *g_be;
static tok *g_tok;

static void run_solo(const job_spec *spec, answer *a, int rows) {
    world w;
    runner_options ro = {rows, 1, MAX_LEN, kv_pages_of(MAX_LEN) + 1};
    world_picture_bytes = 0;
    world_init(&w, g_be, g_tok, MAX_LEN, &ro, 0);
    world_submit(&w, spec, a);
    while (sched_turn(w.sched)) continue;
    assert_int_equal(a->n_final, 1);
    world_fini(&w);
}

typedef struct schedule {
    runner_options ro;
    int max_chunk, n_jobs, cancel_one_in, poison_one_in; /* 0: none */
    bool all_at_once;
} schedule;

enum { MAX_JOBS = 40 };
static uint64_t g_hits; /* of all schedules, in their picture caches */

/* Runs the jobs seed .. seed + n_jobs - 1 and compares each; returns preemptions. */
static uint64_t run_schedule(const schedule *sh, uint32_t seed) {
    static answer got[MAX_JOBS];
    job_spec specs[MAX_JOBS];
    uint64_t jobs[MAX_JOBS];
    bool cancelled[MAX_JOBS] = {false};
    rng r = {seed * 77 + 5};
    static const size_t budgets[] = {1 << 20, 3000, 1, 0};
    world_picture_bytes = budgets[seed % 4];
    world w;
    world_init(&w, g_be, g_tok, MAX_LEN, &sh->ro, sh->max_chunk);
    memset(got, 0, sizeof got);
    int sent = 0;
    bool busy = true;
    for (int turn = 0; sent < sh->n_jobs || busy; turn++) {
        assert_true(turn < 100000); /* it moves */
        while (sent < sh->n_jobs && (sh->all_at_once || !busy || rnd(&r, 3) == 0)) {
            specs[sent] = (job_spec){.seed = seed * 1000 + (uint32_t)sent};
            if (sh->poison_one_in && rnd(&r, (uint32_t)sh->poison_one_in) == 0)
                *(rnd(&r, 2) ? &specs[sent].poison_step : &specs[sent].poison_image) = true;
            jobs[sent] = world_submit(&w, &specs[sent], &got[sent]);
            sent++;
            busy = true;
        }
        if (sh->cancel_one_in && sent && rnd(&r, (uint32_t)sh->cancel_one_in) == 0) {
            uint32_t victim = rnd(&r, (uint32_t)sent);
            bool over = got[victim].n_final;
            inbox_cancel(&w.inbox, jobs[victim]);
            cancelled[victim] |= !over;
            busy = sched_turn(w.sched);
            assert_int_equal(got[victim].n_final, 1); /* within one turn */
            continue;
        }
        busy = sched_turn(w.sched);
    }
    engine_stats stats;
    sched_get_stats(w.sched, &stats);
    assert_int_equal(stats.running, 0);
    assert_true(stats.kv_usage == 0);
    assert_int_equal(stats.finished_stop + stats.finished_length + stats.finished_abort +
                         stats.finished_error,
                     sh->n_jobs);
    piccache_stats pictures;
    piccache_get_stats(w.pictures, &pictures);
    assert_true(pictures.bytes <= world_picture_bytes);
    g_hits += pictures.hits;
    world_fini(&w);
    for (int i = 0; i < sh->n_jobs; i++) {
        answer solo = {0};
        run_solo(&specs[i], &solo, 1);
        assert_int_equal(got[i].n_final, 1);
        assert_false(got[i].out_of_order);
        if (cancelled[i]) {
            assert_true(got[i].error);
            assert_int_equal(got[i].code, ST_CANCELLED);
            assert_true(answer_begins(&got[i], &solo));
        } else {
            assert_true(answer_same(&got[i], &solo));
            if (specs[i].poison_step || specs[i].poison_image)
                assert_int_equal(got[i].code, ST_INTERNAL);
            else
                assert_false(got[i].error);
        }
        answer_fini(&solo);
        answer_fini(&got[i]);
    }
    return stats.preemptions;
}

static schedule random_schedule(rng *r) {
    static const int chunks[] = {0, 1, 7};
    schedule sh = {.n_jobs = 2 + (int)rnd(r, 14), .max_chunk = chunks[rnd(r, 3)], .all_at_once = rnd(r, 2)};
    sh.ro = (runner_options){.max_rows = 1 + (int)rnd(r, rnd(r, 2) ? 8 : 128),
                             .max_seqs = 1 + (int)rnd(r, 16),
                             .max_len = MAX_LEN};
    int least = kv_pages_of(MAX_LEN) + 1;
    sh.ro.n_pages = rnd(r, 2) ? least + (int)rnd(r, 6) : least + 100;
    return sh;
}

static void alone_equals_batched(void **state) {
    (void)state;
    rng r = {1};
    uint64_t preemptions = 0;
    for (uint32_t i = 0; i < 150; i++) {
        schedule sh = random_schedule(&r);
        preemptions += run_schedule(&sh, i);
    }
    assert_true(preemptions > 20);
    assert_true(g_hits > 100);
}

static void cancels_at_any_turn(void **state) {
    (void)state;
    rng r = {2};
    for (uint32_t i = 0; i < 100; i++) {
        schedule sh = random_schedule(&r);
        sh.cancel_one_in = 2 + (int)rnd(&r, 10);
        run_schedule(&sh, 1000 + i);
    }
}

static void failures_are_one_jobs_own(void **state) {
    (void)state;
    log_set_level(LOG_ERROR + 1);
    rng r = {3};
    for (uint32_t i = 0; i < 100; i++) {
        schedule sh = random_schedule(&r);
        sh.poison_one_in = 4;
        sh.cancel_one_in = rnd(&r, 2) ? 20 : 0;
        run_schedule(&sh, 2000 + i);
    }
}

static void preemption_never_touches_the_oldest(void **state) {
    (void)state;
    /* Sixteen long answers in a pool for one: each must finish, in order of arrival where lengths are equal.
     */
    uint64_t preemptions = 0;
    for (uint32_t i = 0; i < 20; i++) {
        schedule sh = {.n_jobs = 16, .all_at_once = true};
        sh.ro = (runner_options){64, 16, MAX_LEN, kv_pages_of(MAX_LEN) + 1};
        preemptions += run_schedule(&sh, 3000 + i);
    }
    assert_true(preemptions > 20);
}

/* ---- rules that a solo run cannot vouch for ---- */

static void submit_plain(world *w, int n_prompt, const engine_params *p, answer *a) {
    prompt *pr = mem_calloc(1, sizeof *pr);
    for (int i = 0; i < n_prompt; i++) tok_ids_push(&pr->ids, 10 + i);
    status st = {0};
    seq *s = seq_new(pr, p, &w->kit, w->max_len, on_event, a, &st);
    assert_non_null(s);
    inbox_enter(&w->inbox, s);
    inbox_post(&w->inbox, s);
}

static void rules_of_length(void **state) {
    (void)state;
    world w;
    runner_options ro = {32, 4, MAX_LEN, 64};
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
    runner_options ro = {32, 4, MAX_LEN, 64};
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
    runner_options ro = {32, 4, MAX_LEN, 5}; /* four pages: 64 tokens and the last one */
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
    runner_options ro = {32, 4, MAX_LEN, 64};
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

static int set_up(void **state) {
    (void)state;
    status st = {0};
    backend_options bo = {.device = "cpu", .threads = 1};
    g_be = backend_new(&bo, &st);
    g_tok = tok_load("models/vlmd-tiny", &st);
    if (!g_be || !g_tok) print_error("%s\n", st.msg);
    return g_be && g_tok ? 0 : -1;
}

static int tear_down(void **state) {
    (void)state;
    tok_free(g_tok);
    backend_free(g_be);
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(alone_equals_batched),      cmocka_unit_test(cancels_at_any_turn),
        cmocka_unit_test(failures_are_one_jobs_own), cmocka_unit_test(preemption_never_touches_the_oldest),
        cmocka_unit_test(rules_of_length),           cmocka_unit_test(rules_of_stopping),
        cmocka_unit_test(too_long_for_the_pool),     cmocka_unit_test(refused_at_submit),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
