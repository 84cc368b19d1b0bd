/* test_device.c - a small checkpoint through the scheduler on a device (VLMD_DEVICE, else the CPU), its bits promised: alone,
 * batched, from a warm cache, in few pages, with and without captured steps and a turn ahead, every answer is the same; and
 * a captured step leaves the bits of one launched op by op; and what runs at start in the place of requests leaves nothing behind,
 * and no product that has no plan yet. What is expected is a run of one job at a time, each step
 * waited for. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "engine/params.h"
#include "engine/sched.h"
#include "engine/warm.h"
#include "tests/engine/sched/harness.h"
#include "tests/tools/one_tile.h"

enum { JOBS = 6, MAX_LEN = 160 };
static const char *const DIR = "tests/golden/models/clip_llama", *const TOKENIZER = "models/vlmd-tiny";

typedef struct setting {
    int seqs, rows, pages;
    bool no_graphs, async;
    bool long_ones; /* the odd requests alone, all at once */
    int rounds;
} setting;

static tok *g_tok;
static backend *g_be;
static model *g_model;
static promptkit g_kit;

typedef struct world {
    runner runner;
    piccache *pictures;
    inbox inbox;
    sched *sched;
} world;

static void world_init(world *w, const setting *x) {
    status st = {0};
    *w = (world){0};
    runner_options ro = {.max_rows = x->rows,
                         .max_seqs = x->seqs,
                         .max_len = MAX_LEN,
                         .n_pages = x->pages,
                         .no_graphs = x->no_graphs};
    if (!runner_init(&w->runner, g_be, g_model, &ro, &st)) print_error("%s\n", st.msg);
    assert_int_equal(st.code, ST_OK);
    if (backend_is_async(g_be)) assert_int_equal(w->runner.n_graphs > 0, !x->no_graphs);
    assert_true(inbox_init(&w->inbox, &st));
    w->pictures = piccache_new(1 << 24, &st);
    assert_non_null(w->pictures);
    sched_options so = {
        .jobs = {.max_running = x->seqs, .pictures = w->pictures}, .max_rows = x->rows, .async = x->async};
    w->sched = sched_new(&so, &w->runner, &w->inbox, NULL, &st);
    assert_non_null(w->sched);
}

static void world_fini(world *w) {
    assert_int_equal(kv_available(&w->runner.kv), w->runner.kv.n_pages - 1);
    sched_free(w->sched);
    piccache_free(w->pictures);
    inbox_fini(&w->inbox);
    runner_fini(&w->runner);
}

/* Request k: a few ids of text, the first and the third with a picture of noise in front. */
static prompt *make_prompt(int k) {
    rng r = {(uint32_t)k * 7919 + 1};
    const model_spec *spec = g_kit.spec;
    prompt *p = mem_calloc(1, sizeof *p);
    if (k == 0 || k == 2) {
        int edge = spec->tower.image_size;
        tiles pixels = one_tile(edge, edge, NULL);
        int rows = spec->image_rows(spec, &pixels.plan);
        p->images = mem_calloc(1, sizeof *p->images);
        p->rows = mem_calloc(1, sizeof *p->rows);
        p->n_images = p->n_rows = 1;
        p->rows[0] = (prompt_rows){0, rows, 0, 0};
        p->images[0].n_rows = rows;
        p->images[0].pixels = pixels;
        for (int b = 0; b < edge * edge * 3; b++) p->images[0].pixels.rgb[b] = (uint8_t)rnd(&r, 256);
        image_key(&p->images[0].pixels, edge, edge, &spec->prep, p->images[0].key);
        for (int row = 0; row < rows; row++) tok_ids_push(&p->ids, spec->image_token);
    }
    int n = 2 + (int)rnd(&r, k % 2 ? 6 : 36);
    for (int i = 0; i < n; i++) tok_ids_push(&p->ids, 5 + (int32_t)rnd(&r, (uint32_t)spec->text.vocab - 5));
    return p;
}

static void make_params(int k, engine_params *p) {
    static const char *const stops[] = {"t", "e", "a"};
    params_default(g_kit.spec, p);
    p->max_tokens = k % 2 ? getenv("VLMD_SHORT") ? 32 : 44 : 8 + k * 2;
    p->ignore_eos = true;
    p->temperature = k % 2 ? 0.8f : 0;
    p->has_seed = true;
    p->seed = (uint64_t)k;
    p->top_logprobs = k % 3 == 0 ? 3 : -1;
    p->min_tokens = k == 3 || k == 4 ? 4 : 0;
    if (k == 1) p->repetition_penalty = 1.3f; /* its last token is needed on the host */
    if (k == 4) p->stop = stops, p->n_stop = 3;
}

static void submit(world *w, int k, answer *a) {
    status st = {0};
    engine_params p;
    make_params(k, &p);
    seq *s = seq_new(make_prompt(k), &p, &g_kit, MAX_LEN, on_event, a, &st);
    if (!s) print_error("%s\n", st.msg);
    assert_non_null(s);
    inbox_enter(&w->inbox, s);
    inbox_post(&w->inbox, s);
}

static answer g_solo[JOBS];

static void run_alone(void) {
    const setting one = {.seqs = 1, .rows = 64, .pages = 12, .no_graphs = true};
    world w;
    world_init(&w, &one);
    for (int k = 0; k < JOBS; k++) {
        submit(&w, k, &g_solo[k]);
        while (sched_turn(w.sched)) continue;
        assert_int_equal(g_solo[k].n_final, 1);
        assert_false(g_solo[k].error);
        assert_true(g_solo[k].n > 1);
    }
    world_fini(&w);
}

/* The later ones come while the first ones run; both pictures come at once, so that they are encoded together. */
static void run_together(const setting *x) {
    static answer got[JOBS];
    engine_stats stats;
    int found = 0, first = x->long_ones ? 1 : 0, step_by = x->long_ones ? 2 : 1;
    world w;
    world_init(&w, x);
    for (int round = 0; round < x->rounds; round++) {
        memset(got, 0, sizeof got);
        for (int k = first; k < JOBS; k += step_by) {
            submit(&w, k, &got[k]);
            if (k % 2 && k > 1 && !x->long_ones) sched_turn(w.sched);
        }
        while (sched_turn(w.sched)) continue;
        for (int k = first; k < JOBS; k += step_by) {
            if (!answer_same(&got[k], &g_solo[k])) print_error("request %d of round %d differs\n", k, round);
            assert_true(answer_same(&got[k], &g_solo[k]));
            found += got[k].cached_tokens;
            answer_fini(&got[k]);
        }
    }
    sched_get_stats(w.sched, &stats);
    world_fini(&w);
    if (x->rounds > 1) assert_true(found > 0);
    if (x->long_ones) assert_true(stats.preemptions > 0);
}

static void every_way_the_same(void **state) {
    (void)state;
    const setting ways[] = {
        {.seqs = 6, .rows = 64, .pages = 80, .async = true, .rounds = 2},
        {.seqs = 6, .rows = 64, .pages = 80, .no_graphs = true, .rounds = 1},
        {.seqs = 6, .rows = 9, .pages = 6, .async = true, .long_ones = true, .rounds = 1}};
    run_alone();
    for (size_t i = 0; i < ARRAY_LEN(ways); i++) run_together(&ways[i]);
    for (int k = 0; k < JOBS; k++) answer_fini(&g_solo[k]);
}

/* ---- one step, captured and not ---- */

enum { SEQS = 5, STEPS = 3 };

static void ignore_event(void *user, const engine_event *e) {
    (void)user, (void)e;
}

/* Prompts one by one, then decode steps of all; their results in order. */
static void step_by_step(bool no_graphs, sample_result (*out)[SEQS]) {
    const setting x = {.seqs = SEQS, .rows = 64, .pages = 60, .no_graphs = no_graphs};
    seq *s[SEQS];
    status st = {0};
    world w;
    world_init(&w, &x);
    runner *r = &w.runner;
    for (int k = 0; k < SEQS; k++) {
        engine_params p;
        make_params(k, &p);
        p.ignore_eos = true;
        p.n_stop = 0;
        s[k] = seq_new(make_prompt(k + 3), &p, &g_kit, MAX_LEN, ignore_event, NULL, &st);
        assert_non_null(s[k]);
    }
    for (int t = 0; t <= STEPS; t++)
        for (int k = 0; k < SEQS; k++) {
            bool fits, last = t > 0 ? k == SEQS - 1 : true;
            if (k == 0 || t == 0) batch_clear(&r->batch);
            assert_true(seq_grow(s[k], &r->kv, seq_len(s[k])));
            assert_true(batch_add(&r->batch, s[k], seq_len(s[k]) - s[k]->n_done, &fits));
            s[k]->n_done = seq_len(s[k]);
            if (!last) continue;
            int n = r->batch.n_out, slot = runner_launch(r, &st);
            const sample_result *got = slot >= 0 ? runner_results(r, slot, &st) : NULL;
            if (!got) print_error("%s\n", st.msg);
            assert_non_null(got);
            for (int i = 0; i < n; i++) {
                int at = t > 0 ? i : k;
                engine_finish finish;
                memset(&out[t][at], 0, sizeof out[t][at]);
                out[t][at].id = got[i].id;
                out[t][at].logprob = got[i].logprob;
                out[t][at].n_top = got[i].n_top;
                memcpy(out[t][at].top_id, got[i].top_id, (size_t)got[i].n_top * sizeof(int32_t));
                memcpy(out[t][at].top_logprob, got[i].top_logprob, (size_t)got[i].n_top * sizeof(float));
                assert_false(seq_accept(s[at], &got[i], &finish));
            }
        }
    for (int k = 0; k < SEQS; k++) {
        seq_drop_pages(s[k], &r->kv);
        seq_free(s[k]);
    }
    world_fini(&w);
}

static void captured_is_eager(void **state) {
    (void)state;
    static sample_result eager[STEPS + 1][SEQS], captured[STEPS + 1][SEQS];
    step_by_step(true, eager);
    step_by_step(false, captured);
    assert_memory_equal(eager, captured, sizeof eager);
}

/* ---- what runs at start ---- */

/* Keys of the first layer, all pages. */
static void expect_no_keys(runner *r) {
    const tensor k = r->kv.pool.k[0];
    const size_t n = (size_t)tensor_count(&k) * dtype_size(k.dt);
    uint8_t *got = malloc(n);
    assert_non_null(got);
    ctx_download(&r->c, got, k);
    assert_true(ctx_ok(&r->c));
    for (size_t i = 0; i < n; i++) assert_true(got[i] == 0);
    free(got);
}

static void serve_all(world *w) {
    static answer got[JOBS];
    memset(got, 0, sizeof got);
    for (int k = 0; k < JOBS; k++) {
        submit(w, k, &got[k]);
        if (k % 2) sched_turn(w->sched);
    }
    while (sched_turn(w->sched)) continue;
    for (int k = 0; k < JOBS; k++) {
        assert_false(got[k].error);
        answer_fini(&got[k]);
    }
}

static void ready_for_requests(void **state) {
    (void)state;
    const bool plans_products = backend_plans(g_be) >= 0, captures = backend_is_async(g_be);
    for (int eager = 0; eager < 2; eager++) {
        const setting x = {.seqs = 24, .rows = 90, .pages = 80, .no_graphs = eager, .async = captures};
        status st = {0};
        engine_stats stats;
        piccache_stats pictures;
        world w;
        world_init(&w, &x);
        const int before = backend_plans(g_be);
        if (!warm_runner(&w.runner, 1 << 24, &st)) fail_msg("%s", st.msg);
        const int ready = backend_plans(g_be);
        if (plans_products && !eager) assert_true(ready > before);
        expect_no_keys(&w.runner);
        assert_int_equal(kv_available(&w.runner.kv), w.runner.kv.n_pages - 1);
        assert_int_equal(w.runner.batch.n_rows, 0);
        sched_get_stats(w.sched, &stats);
        piccache_get_stats(w.pictures, &pictures);
        assert_true(stats.prompt_tokens == 0 && stats.generation_tokens == 0 && stats.running == 0);
        assert_true(pictures.queries == 0 && pictures.bytes == 0);
        if (!captures) assert_int_equal(w.runner.next_slot, 0); /* nothing ran */
        serve_all(&w);
        assert_int_equal(backend_plans(g_be), ready);
        world_fini(&w);
    }
}

static void set_up(bool deterministic) {
    status st = {0};
    const char *device = getenv("VLMD_DEVICE");
    backend_options bo = {.device = device ? device : "cpu", .threads = 1, .deterministic = deterministic};
    g_be = backend_new(&bo, &st);
    g_model = g_be ? model_load(DIR, g_be, &st) : NULL;
    if (!g_model) print_error("%s\n", st.msg);
    assert_non_null(g_model);
    g_kit = (promptkit){.spec = model_get_spec(g_model), .tok = g_tok};
}

static int promised(void **state) {
    (void)state;
    set_up(true);
    return 0;
}
static int by_default(void **state) {
    (void)state;
    set_up(false);
    return 0;
}
static int tear_down(void **state) {
    (void)state;
    model_free(g_model);
    backend_free(g_be);
    return 0;
}

int main(void) {
    log_set_level(LOG_ERROR);
    status st = {0};
    g_tok = tok_load(TOKENIZER, &st);
    if (!g_tok) print_error("%s\n", st.msg);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(every_way_the_same, promised, tear_down),
        cmocka_unit_test_setup_teardown(captured_is_eager, by_default, tear_down),
        cmocka_unit_test_setup_teardown(ready_for_requests, by_default, tear_down)};
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    tok_free(g_tok);
    return failed;
}
