/* test_bits.c - the bundled model through the scheduler: tokens, log-probs and text of every request are bit for bit
 * those it has alone, in batches of 1 to 16 of mixed lengths, with any chunk size, with preemption, on 1 or 2 threads,
 * for each instruction set that this machine has; and the same where pictures or prompts attend both ways. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "engine/params.h"
#include "engine/sched.h"
#include "tests/engine/sched/harness.h"
#include "tests/tools/one_tile.h"

enum { JOBS = 16, MAX_LEN = 256 };
static const char *const DIR = "models/vlmd-tiny";

typedef struct setting {
    const char *isa;
    int threads, seqs, rows, chunk, pages;
    size_t cache_bytes; /* of pictures */
} setting;

typedef struct world {
    backend *be;
    model *model;
    promptkit kit;
    runner runner;
    piccache *pictures;
    inbox inbox;
    sched *sched;
} world;

static tok *g_tok;
static both_ways g_both_ways; /* of the models loaded from now on */

/* The bundled model knows no spans: it is made to have some, and a window in one layer. */
static void give_spans(model *m) {
    model_spec *s = (model_spec *)(uintptr_t)model_get_spec(m);
    s->both_ways = g_both_ways;
    if (g_both_ways) s->text.stack.window[1] = 21;
}

static bool world_init(world *w, const setting *x) {
    status st = {0};
    *w = (world){0};
    backend_options bo = {.device = "cpu", .threads = x->threads, .isa = x->isa};
    if (!(w->be = backend_new(&bo, &st))) return false;
    w->model = model_load(DIR, w->be, &st);
    if (!w->model) print_error("%s\n", st.msg);
    assert_non_null(w->model);
    give_spans(w->model);
    w->kit = (promptkit){.spec = model_get_spec(w->model), .tok = g_tok};
    runner_options ro = {.max_rows = x->rows, .max_seqs = x->seqs, .max_len = MAX_LEN, .n_pages = x->pages};
    if (!runner_init(&w->runner, w->be, w->model, &ro, &st)) print_error("%s\n", st.msg);
    assert_int_equal(st.code, ST_OK);
    assert_true(inbox_init(&w->inbox, &st));
    w->pictures = piccache_new(x->cache_bytes, &st);
    assert_non_null(w->pictures);
    sched_options so = {.jobs = {.max_running = x->seqs, .pictures = w->pictures},
                        .max_rows = x->rows,
                        .max_chunk = x->chunk};
    w->sched = sched_new(&so, &w->runner, &w->inbox, NULL, &st);
    assert_non_null(w->sched);
    return true;
}

static void world_fini(world *w) {
    assert_int_equal(kv_available(&w->runner.kv), w->runner.kv.n_pages - 1);
    sched_free(w->sched);
    piccache_free(w->pictures);
    inbox_fini(&w->inbox);
    runner_fini(&w->runner);
    model_free(w->model);
    backend_free(w->be);
}

/* Request k: 1 to 130 ids of text, every third with one of two pictures of noise in it. */
static prompt *make_prompt(const model_spec *spec, int k) {
    rng r = {(uint32_t)k * 7919 + 1};
    prompt *p = mem_calloc(1, sizeof *p);
    int n = 1 + (int)rnd(&r, k % 2 ? 20 : 130), at = k % 3 == 0 ? (int)rnd(&r, (uint32_t)n) : -1;
    for (int i = 0; i < n; i++) {
        if (i == at) {
            int edge = spec->tower.image_size;
            tiles pixels = one_tile(edge, edge, NULL);
            int rows = spec->image_rows(spec, &pixels.plan);
            rng look = {(uint32_t)k % 2};
            p->images = mem_calloc(1, sizeof *p->images);
            p->rows = mem_calloc(1, sizeof *p->rows);
            p->n_images = p->n_rows = 1;
            p->rows[0] = (prompt_rows){(int)p->ids.n, rows, 0, 0};
            p->images[0].n_rows = rows;
            p->images[0].pixels = pixels;
            for (int b = 0; b < edge * edge * 3; b++) p->images[0].pixels.rgb[b] = (uint8_t)rnd(&look, 256);
            image_key(&p->images[0].pixels, edge, edge, &spec->prep, p->images[0].key);
            for (int row = 0; row < rows; row++) tok_ids_push(&p->ids, spec->image_token);
        }
        tok_ids_push(&p->ids, 5 + (int32_t)rnd(&r, (uint32_t)spec->text.vocab - 5));
    }
    return p;
}

static int answer_limit(int k) {
    return 10 + k * 2;
}

static void submit(world *w, int k, answer *a) {
    status st = {0};
    engine_params p;
    params_default(w->kit.spec, &p);
    p.max_tokens = answer_limit(k);
    p.ignore_eos = k % 4 != 0;
    p.temperature = k % 2 ? 0.8f : 0;
    p.has_seed = true;
    p.seed = (uint64_t)k;
    p.top_logprobs = 5;
    seq *s = seq_new(make_prompt(w->kit.spec, k), &p, &w->kit, MAX_LEN, on_event, a, &st);
    if (!s) print_error("%s\n", st.msg);
    assert_non_null(s);
    inbox_enter(&w->inbox, s);
    inbox_post(&w->inbox, s);
}

/* Which requests run together: first, first + stride, ... */
typedef struct requests {
    int n, first, stride;
} requests;

static bool run_alone(const char *isa, requests q, answer *out, int *longest) {
    world w;
    const setting x = {.isa = isa, .threads = 1, .seqs = 1, .rows = 512, .pages = 64};
    if (!world_init(&w, &x)) return false;
    *longest = 0;
    for (int i = 0; i < q.n; i++) {
        int k = q.first + i * q.stride;
        submit(&w, k, &out[i]);
        while (sched_turn(w.sched)) continue;
        assert_int_equal(out[i].n_final, 1);
        assert_false(out[i].error);
        int len = out[i].prompt_tokens + answer_limit(k);
        if (len > *longest) *longest = len;
    }
    world_fini(&w);
    return true;
}

/* The later ones come a few turns after the first; returns preemptions. */
static uint64_t run_together(const setting *x, requests q, const answer *solo) {
    static answer got[JOBS];
    memset(got, 0, sizeof got);
    world w;
    assert_true(world_init(&w, x));
    for (int i = 0; i < q.n; i++) {
        submit(&w, q.first + i * q.stride, &got[i]);
        if (i % 3 == 2) sched_turn(w.sched);
    }
    while (sched_turn(w.sched)) continue;
    engine_stats stats;
    sched_get_stats(w.sched, &stats);
    world_fini(&w);
    for (int i = 0; i < q.n; i++) {
        if (!answer_same(&got[i], &solo[i]))
            print_error("request %d differs: isa %s, %d threads, %d sequences, %d rows, chunk %d, %d pages\n",
                        i, x->isa, x->threads, x->seqs, x->rows, x->chunk, x->pages);
        assert_true(answer_same(&got[i], &solo[i]));
        answer_fini(&got[i]);
    }
    return stats.preemptions;
}

static void bits_of(const char *isa, requests q) {
    static answer solo[JOBS];
    memset(solo, 0, sizeof solo);
    int longest = 0;
    if (!run_alone(isa, q, solo, &longest)) {
        print_message("this machine has no %s\n", isa);
        skip();
    }
    const setting settings[] = {
        {isa, 2, 16, 512, 0, 400, 1 << 24},  {isa, 1, 5, 512, 7, 400, 1},      {isa, 2, 16, 23, 0, 400, 0},
        {isa, 1, 16, 512, 64, 400, 1 << 16}, {isa, 2, 3, 64, 1, 400, 1 << 24}, {isa, 1, 1, 1, 0, 17, 1 << 24},
    };
    size_t n_settings = q.n == JOBS ? ARRAY_LEN(settings) : 2;
    for (size_t i = 0; i < n_settings; i++) run_together(&settings[i], q, solo);
    for (int n = 1; n < q.n; n += q.n / 3) run_together(&settings[0], (requests){n, q.first, q.stride}, solo);
    int pages = kv_pages_of(longest) + 1; /* hardly more than one of them needs */
    const setting tight[] = {{isa, 2, 16, 512, 0, pages, 1 << 24}, {isa, 1, 16, 40, 7, pages + 1, 1}};
    uint64_t preemptions = 0;
    for (size_t i = 0; i < ARRAY_LEN(tight); i++) preemptions += run_together(&tight[i], q, solo);
    assert_true(preemptions > 0);
    for (int i = 0; i < q.n; i++) answer_fini(&solo[i]);
}

/* Every request of one world again and again: what is found in the cache and what is computed give the same, also
 * where the beginnings of two requests agree only up to some place, and where pages are evicted in between. */
static void warm_of(const char *isa) {
    static answer cold[JOBS], warm[JOBS];
    memset(cold, 0, sizeof cold);
    const requests q = {JOBS, 0, 1};
    int longest = 0;
    if (!run_alone(isa, q, cold, &longest)) skip();
    const setting settings[] = {
        {isa, 2, 1, 512, 0, 400, 0}, {isa, 2, 16, 64, 0, 400, 1 << 24}, {isa, 1, 4, 512, 0, 40, 1}};
    for (size_t i = 0; i < ARRAY_LEN(settings); i++) {
        world w;
        assert_true(world_init(&w, &settings[i]));
        int found = 0;
        for (int round = 0; round < 3; round++) {
            memset(warm, 0, sizeof warm);
            for (int k = 0; k < JOBS; k++) submit(&w, (k * 5 + round) % JOBS, &warm[(k * 5 + round) % JOBS]);
            while (sched_turn(w.sched)) continue;
            for (int k = 0; k < JOBS; k++) {
                if (!answer_same(&warm[k], &cold[k]))
                    print_error("request %d of round %d differs\n", k, round);
                assert_true(answer_same(&warm[k], &cold[k]));
                if (round && settings[i].pages == 400)
                    assert_int_equal(warm[k].cached_tokens,
                                     (warm[k].prompt_tokens - 1) / KV_PAGE_TOK * KV_PAGE_TOK);
                found += warm[k].cached_tokens;
                answer_fini(&warm[k]);
            }
        }
        assert_true(found > 0);
        world_fini(&w);
    }
    for (int k = 0; k < JOBS; k++) answer_fini(&cold[k]);
}

/* Under a sanitizer the slowest are left out: minutes, for what others show as well. Threads share nothing but what a few
 * requests on one instruction set touch. */
enum {
#ifdef __SANITIZE_THREAD__
    THREADS_ALONE = 1,
#else
    THREADS_ALONE = 0,
#endif
#ifdef __SANITIZE_ADDRESS__
    SLOW = 1
#else
    SLOW = THREADS_ALONE
#endif
};

static void cold_equals_warm(void **state) {
    (void)state;
    if (THREADS_ALONE) skip();
    warm_of("avx2");
}

static void bits_portable(void **state) { /* a hundred times slower: a few short ones */
    (void)state;
    if (SLOW) skip();
    bits_of("portable", (requests){6, 1, 2});
}
static void bits_avx2(void **state) {
    (void)state;
    bits_of("avx2", THREADS_ALONE ? (requests){6, 1, 2} : (requests){JOBS, 0, 1});
}
static void bits_avx512(void **state) {
    (void)state;
    if (THREADS_ALONE) skip();
    bits_of("avx512", (requests){JOBS, 0, 1});
}

static void spans_of(both_ways kind) {
    if (THREADS_ALONE) skip();
    g_both_ways = kind;
    bits_of("avx2", (requests){JOBS, 0, 1});
    warm_of("avx2");
    g_both_ways = BOTH_NONE;
}
static void bits_where_pictures_attend_both_ways(void **state) {
    (void)state;
    spans_of(BOTH_PICTURE);
}
static void bits_where_prompts_attend_both_ways(void **state) {
    (void)state;
    spans_of(BOTH_PROMPT);
}

int main(void) {
    log_set_level(LOG_ERROR);
    status st = {0};
    g_tok = tok_load(DIR, &st);
    if (!g_tok) print_error("%s\n", st.msg);
    const struct CMUnitTest tests[] = {cmocka_unit_test(bits_portable),
                                       cmocka_unit_test(bits_avx2),
                                       cmocka_unit_test(bits_avx512),
                                       cmocka_unit_test(cold_equals_warm),
                                       cmocka_unit_test(bits_where_pictures_attend_both_ways),
                                       cmocka_unit_test(bits_where_prompts_attend_both_ways)};
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    tok_free(g_tok);
    return failed;
}
