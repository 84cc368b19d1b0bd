/* world.h - jobs made from a seed, and a scheduler to run them on without threads. Include after fake_model.h. */
#ifndef VLMD_TESTS_SCHED_WORLD_H
#define VLMD_TESTS_SCHED_WORLD_H

#include "engine/params.h"
#include "engine/sched.h"

static size_t world_picture_bytes; /* of the picture cache of the next world; 0: off */
static bool world_no_prefix_caching;
static bool world_async; /* one turn ahead, pictures beside the steps */

#include "tests/engine/sched/harness.h"

/* ---- jobs from a seed ---- */

enum { JOB_MAX_PROMPT = 90 };

typedef struct job_spec {
    uint32_t seed;
    bool poison_step, poison_image;
} job_spec;

/* Pixels are there already, as a picture worker would have left them. */
static inline prompt *make_prompt(const job_spec *spec, rng *r) {
    prompt *p = mem_calloc(1, sizeof *p);
    int n_images = spec->poison_image ? 2 : rnd(r, 3) ? 0 : 1 + (int)rnd(r, 2);
    p->images = mem_calloc((size_t)n_images, sizeof *p->images);
    p->rows = mem_calloc((size_t)n_images * 2, sizeof *p->rows);
    int text = 1 + (int)rnd(r, rnd(r, 2) ? 8 : JOB_MAX_PROMPT - 2 * FAKE_IMAGE_ROWS - 2);
    for (int i = 0; i <= n_images; i++) {
        for (int k = 0; k < text / (n_images + 1) + (i == 0); k++)
            tok_ids_push(&p->ids, 5 + (int32_t)rnd(r, 1900));
        if (i == n_images) break;
        /* A picture may stand in two runs with a marker between them. */
        int first = rnd(r, 2) ? FAKE_IMAGE_ROWS : 1 + (int)rnd(r, FAKE_IMAGE_ROWS - 1);
        for (int from = 0; from < FAKE_IMAGE_ROWS;) {
            int n = from ? FAKE_IMAGE_ROWS - from : first;
            p->rows[p->n_rows++] = (prompt_rows){(int)p->ids.n, n, i, from};
            for (int k = 0; k < n; k++) tok_ids_push(&p->ids, FAKE_IMAGE_TOKEN);
            from += n;
            if (from < FAKE_IMAGE_ROWS) tok_ids_push(&p->ids, 6);
        }
        prompt_image *im = &p->images[p->n_images++];
        im->param = mem_strdup("messages[0]");
        im->n_rows = FAKE_IMAGE_ROWS;
        im->pixels = one_tile(2, 2, NULL);
        rng look = {rnd(r, 3) ? rnd(r, 5) * 7919 : rnd(r, 1u << 20)}; /* most are few */
        for (int k = 0; k < 12; k++) im->pixels.rgb[k] = (uint8_t)rnd(&look, 250);
        if (spec->poison_image && i == 1) im->pixels.rgb[0] = FAKE_POISON_PIXEL;
        image_key(&im->pixels, 2, 2, &(prep_spec){0}, im->key);
    }
    if (spec->poison_step) tok_ids_push(&p->ids, FAKE_POISON_ID);
    return p;
}

static inline void make_params(const model_spec *spec, rng *r, engine_params *p) {
    static const char *const stops[] = {"a1", "e", " the"};
    static const int32_t stop_ids[] = {100, 101, 102, 103, 104};
    params_default(spec, p);
    p->max_tokens = rnd(r, 8) ? 1 + (int)rnd(r, 60) : -1;
    p->has_seed = true;
    p->seed = rnd(r, 1000);
    p->temperature = rnd(r, 2) ? 0 : 1;
    p->top_logprobs = (int)rnd(r, 3) - 1;
    p->ignore_eos = rnd(r, 3) == 0;
    p->priority = rnd(r, 2) ? (int)rnd(r, 3) - 1 : 0; /* when it runs is not what it says */
    if (rnd(r, 4) == 0) p->repetition_penalty = 1.25f;
    if (rnd(r, 4) == 0) p->frequency_penalty = 0.5f;
    if (rnd(r, 4) == 0) p->min_tokens = p->max_tokens > 0 ? (int)rnd(r, (uint32_t)p->max_tokens) : 5;
    if (rnd(r, 5) == 0) p->stop = stops, p->n_stop = 1 + (int)rnd(r, 3);
    if (rnd(r, 5) == 0) p->stop_ids = stop_ids, p->n_stop_ids = 5;
}

/* ---- a scheduler and what it stands on ---- */

typedef struct world {
    backend *be;
    model *model;
    promptkit kit;
    runner runner;
    piccache *pictures;
    inbox inbox;
    sched *sched;
    int max_len;
} world;

static void world_init(world *w, backend *be, tok *t, int max_len, const runner_options *ro, int max_chunk) {
    status st = {0};
    *w = (world){.be = be, .max_len = max_len};
    fake_delays = world_async;
    w->model = model_load("", be, &st);
    w->kit = (promptkit){.spec = model_get_spec(w->model), .tok = t};
    CHECK(runner_init(&w->runner, be, w->model, ro, &st));
    CHECK(inbox_init(&w->inbox, &st));
    w->pictures = piccache_new(world_picture_bytes, &st);
    CHECK(w->pictures);
    sched_options so = {.jobs = {.max_running = ro->max_seqs, .pictures = w->pictures},
                        .max_rows = ro->max_rows,
                        .max_chunk = max_chunk,
                        .no_prefix_caching = world_no_prefix_caching,
                        .async = world_async};
    w->sched = sched_new(&so, &w->runner, &w->inbox, NULL, &st);
    CHECK(w->sched);
}

/* Every job must be over: no page may be held. */
static void world_fini(world *w) {
    CHECK(inbox_live(&w->inbox) == 0);
    CHECK(kv_available(&w->runner.kv) == w->runner.kv.n_pages - 1);
    sched_free(w->sched);
    piccache_free(w->pictures);
    inbox_fini(&w->inbox);
    runner_fini(&w->runner);
    model_free(w->model);
}

/* a: an answer for each of the job's choices. */
static inline uint64_t world_submit(world *w, prompt *p, const engine_params *params, answer *a) {
    status st = {0};
    seq *s = seq_new(p, params, &w->kit, w->max_len, on_event, a, &st);
    CHECK(s);
    uint64_t job = inbox_enter(&w->inbox, s);
    inbox_post(&w->inbox, s);
    return job;
}

#endif
