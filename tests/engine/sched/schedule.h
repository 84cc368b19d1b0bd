/* schedule.h - runs random schedules of jobs and compares each choice of each job with the run of one job of one choice,
 * alone on a fresh scheduler. Include after cmocka.h, fake_model.h and world.h. */
#ifndef VLMD_TESTS_SCHED_SCHEDULE_H
#define VLMD_TESTS_SCHED_SCHEDULE_H

#include "tests/engine/sched/delayed.h"

enum { SCHED_MAX_LEN = 160, MAX_JOBS = 40, MAX_CHOICES = 5 };

typedef struct schedule {
    runner_options ro;
    int max_chunk, n_jobs, cancel_one_in; /* 0: none */
    bool all_at_once, no_prefix_caching, async;
    size_t picture_bytes;
    int many_one_in; /* jobs of several choices; 0: none */
    int beside;      /* pictures that may be encoded with another */
} schedule;

typedef answer answers[MAX_CHOICES]; /* of a job, by choice */

/* How a test makes its jobs; it keeps them by number. */
typedef struct job_maker {
    /* Makes job i; got: of the jobs before it. */
    void (*draw)(int i, rng *r, const answers *got);
    prompt *(*prompt)(int i);
    const engine_params *(*params)(int i);
    /* What is true of an answer besides being that of the solo run. */
    void (*check)(int i, int choice, const answer *got);
} job_maker;

typedef struct tally { /* of all schedules that it was given to */
    uint64_t jobs, choices, preemptions, prefix_hits, prefix_queries, picture_hits;
} tally;

/* n_pages: enough for one job, and rarely for many. */
static inline schedule random_schedule(rng *r, int max_jobs) {
    static const int chunks[] = {0, 1, 7, 40};
    static const size_t budgets[] = {1 << 20, 3000, 1, 0};
    schedule sh = {.n_jobs = 2 + (int)rnd(r, (uint32_t)max_jobs - 1), .max_chunk = chunks[rnd(r, 4)]};
    sh.all_at_once = rnd(r, 2);
    sh.no_prefix_caching = rnd(r, 4) == 0;
    sh.picture_bytes = budgets[rnd(r, 4)];
    sh.many_one_in = rnd(r, 3) ? 3 : 0;
    sh.ro = (runner_options){.max_rows = 1 + (int)rnd(r, rnd(r, 2) ? 8 : 200),
                             .max_seqs = 1 + (int)rnd(r, 16),
                             .max_len = SCHED_MAX_LEN};
    int least = kv_pages_of(SCHED_MAX_LEN) + 1;
    sh.ro.n_pages = rnd(r, 2) ? least + (int)rnd(r, 10) : least + 150;
    sh.beside = (int)rnd(r, 5);
    return sh;
}

static inline engine_params choice_params(const job_maker *m, int i, int n, int choice) {
    engine_params p = *m->params(i);
    p.n = n;
    p.seed += (uint64_t)choice;
    return p;
}

/* The answer of one choice as a job of its own, row by row. */
static inline void run_alone(const job_maker *m, int i, int choice, answer *a) {
    world w;
    runner_options one = {1, 1, SCHED_MAX_LEN, kv_pages_of(SCHED_MAX_LEN) + 1, DT_F32, false};
    world_picture_bytes = 0;
    world_no_prefix_caching = true;
    world_async = false;
    fake_room = 0;
    world_init(&w, g_be, g_tok, SCHED_MAX_LEN, &one, 0);
    engine_params p = choice_params(m, i, 1, choice);
    world_submit(&w, m->prompt(i), &p, a);
    while (sched_turn(w.sched)) continue;
    world_no_prefix_caching = false;
    assert_int_equal(a->n_final, 1);
    assert_int_equal(a->cached_tokens, 0);
    world_fini(&w);
}

static inline void compare(const job_maker *m, int i, int choice, const answer *got, bool cancelled) {
    answer alone = {0};
    run_alone(m, i, choice, &alone);
    assert_int_equal(got->n_final, 1);
    assert_false(got->out_of_order);
    if (cancelled) {
        assert_int_equal(got->code, ST_CANCELLED);
        assert_true(answer_begins(got, &alone));
    } else {
        assert_true(answer_same(got, &alone));
        m->check(i, choice, got);
    }
    answer_fini(&alone);
}

/* Sends them one by one, or all at once, and cancels some, until all are over. */
static inline void drive(world *w, const schedule *sh, const job_maker *m, rng *r, answers *got,
                         int *n_choices, bool (*cancelled)[MAX_CHOICES]) {
    uint64_t numbers[MAX_JOBS];
    int sent = 0;
    bool busy = true;
    for (int turn = 0; sent < sh->n_jobs || busy; turn++) {
        assert_true(turn < 100000); /* it moves */
        while (sent < sh->n_jobs && (sh->all_at_once || !busy || rnd(r, 3) == 0)) {
            bool many = sh->many_one_in && rnd(r, (uint32_t)sh->many_one_in) == 0;
            n_choices[sent] = many ? 2 + (int)rnd(r, MAX_CHOICES - 1) : 1;
            m->draw(sent, r, (const answers *)got);
            engine_params p = choice_params(m, sent, n_choices[sent], 0);
            numbers[sent] = world_submit(w, m->prompt(sent), &p, got[sent]);
            sent++;
            busy = true;
        }
        bool cancel = sh->cancel_one_in && sent && rnd(r, (uint32_t)sh->cancel_one_in) == 0;
        int victim = cancel ? (int)rnd(r, (uint32_t)sent) : 0;
        for (int k = 0; cancel && k < n_choices[victim]; k++) cancelled[victim][k] |= !got[victim][k].n_final;
        if (cancel) inbox_cancel(&w->inbox, numbers[victim]);
        busy = sched_turn(w->sched);
        for (int k = 0; cancel && k < n_choices[victim]; k++)
            assert_int_equal(got[victim][k].n_final, 1); /* within one turn */
    }
}

static inline void run_once(const schedule *sh, uint32_t seed, const job_maker *m, tally *t) {
    static answers got[MAX_JOBS];
    int n_choices[MAX_JOBS], all = 0;
    bool cancelled[MAX_JOBS][MAX_CHOICES] = {{false}};
    rng r = {seed * 77 + 5};
    world_picture_bytes = sh->picture_bytes;
    world_no_prefix_caching = sh->no_prefix_caching;
    world_async = sh->async;
    fake_room = sh->beside;
    world w;
    world_init(&w, g_be, g_tok, SCHED_MAX_LEN, &sh->ro, sh->max_chunk);
    memset(got, 0, sizeof got);
    drive(&w, sh, m, &r, got, n_choices, cancelled);
    engine_stats stats;
    sched_get_stats(w.sched, &stats);
    assert_int_equal(stats.running, 0);
    assert_true(stats.kv_usage == 0);
    for (int i = 0; i < sh->n_jobs; i++) all += n_choices[i];
    assert_int_equal(
        stats.finished_stop + stats.finished_length + stats.finished_abort + stats.finished_error, all);
    if (sh->no_prefix_caching) assert_int_equal(stats.prefix_cache_queries + stats.prefix_cache_hits, 0);
    piccache_stats pictures;
    piccache_get_stats(w.pictures, &pictures);
    assert_true(pictures.bytes <= world_picture_bytes);
    assert_int_equal(pictures.used, pictures.bytes); /* nothing is promised any more */
    world_fini(&w);
    assert_int_equal(fake_encodes, 0);
    for (int i = 0; i < sh->n_jobs; i++)
        for (int k = 0; k < n_choices[i]; k++) {
            compare(m, i, k, &got[i][k], cancelled[i][k]);
            if (sh->no_prefix_caching && k == 0) assert_int_equal(got[i][k].cached_tokens, 0);
            answer_fini(&got[i][k]);
        }
    t->jobs += (uint64_t)sh->n_jobs;
    t->choices += (uint64_t)all;
    t->preemptions += stats.preemptions;
    t->prefix_hits += stats.prefix_cache_hits;
    t->prefix_queries += stats.prefix_cache_queries;
    t->picture_hits += pictures.hits;
}

/* Without and with a turn ahead. */
static inline void run_schedule(const schedule *sh, uint32_t seed, const job_maker *m, tally *t) {
    schedule both = *sh;
    for (int i = 0; i < 2; i++) {
        both.async = i;
        run_once(&both, seed, m, t);
    }
}

/* ---- what stands under all of them ---- */

static int sched_set_up(void **state) {
    int failed = world_set_up(state);
    if (!failed) delay_backend(g_be);
    return failed;
}

#endif
