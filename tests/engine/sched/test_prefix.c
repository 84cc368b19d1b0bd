/* test_prefix.c - the prefix cache over the fake model: keys against hashlib's; random schedules of jobs that begin
 * alike (text, pictures of equal ids and other content, salts, further turns of a conversation) under pressure,
 * preemption, cancels and failures give what each gives alone on a fresh engine; how much is found; who waits. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "engine/share.h"
#include "tests/engine/sched/fake_model.h"
#include "tests/engine/sched/world.h"

#include "tests/engine/sched/schedule.h"

enum { MAX_LEN = SCHED_MAX_LEN, MAX_PICTURES = 4 };

/* ---- keys ---- */

static void hex_of(const page_key *k, char out[65]) {
    for (int i = 0; i < 32; i++) snprintf(out + 2 * i, 3, "%02x", k->h[i]);
}

/* hashlib.sha256 over root or parent, int32 ids, and for a run of picture rows (-1, from, n) and 32 bytes. */
static void keys_as_defined(void **state) {
    (void)state;
    static const char *const want[] = {"e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
                                       "d6e608f43f4b524111670fbc0e7b996f391f3f82bf737ebd40df8da4d0219db1",
                                       "134b64f96fe37f2abf91e02cfb4997e131abab8dfba67753ef98e243bf1d1706",
                                       "700b577b5df99249fd116e6da33935577e22fb41a02ae9720547ea1edf7a97d0"};
    int32_t ids[32];
    for (int i = 0; i < 32; i++) ids[i] = i + 1;
    prompt_image im = {0};
    memset(im.key, 7, sizeof im.key);
    prompt_rows rows[] = {{19, 9, 0, 0}, {28, 1, 0, 9}};
    prompt p = {.ids = {.v = ids, .n = 32}, .images = &im, .n_images = 1, .rows = rows, .n_rows = 2};
    page_key k[4];
    char hex[65];
    prefix_root(&k[0], NULL, 0);
    prefix_next(&k[1], &k[0], &p, 0);
    prefix_next(&k[2], &k[1], &p, 16);
    prefix_root(&k[3], "tenant", 6);
    prefix_next(&k[3], &k[3], &p, 0);
    for (int i = 0; i < 4; i++) {
        hex_of(&k[i], hex);
        assert_string_equal(hex, want[i]);
    }
    /* a run that reaches over pages enters each by its own part */
    prompt_rows over = {10, 30, 0, 5}, late = {10, 30, 0, 6};
    p.n_rows = 1;
    p.rows = &over;
    prefix_next(&k[1], &k[0], &p, 16);
    prefix_next(&k[2], &k[0], &p, 16);
    assert_memory_equal(&k[1], &k[2], sizeof k[0]);
    p.rows = &late;
    prefix_next(&k[2], &k[0], &p, 16);
    assert_memory_not_equal(&k[1], &k[2], sizeof k[0]);
    /* ids under a picture's rows say nothing, its content all */
    p.rows = &over;
    ids[20] = 999;
    prefix_next(&k[2], &k[0], &p, 16);
    assert_memory_equal(&k[1], &k[2], sizeof k[0]);
    im.key[31] ^= 1;
    prefix_next(&k[2], &k[0], &p, 16);
    assert_memory_not_equal(&k[1], &k[2], sizeof k[0]);
}

/* ---- jobs that begin alike ---- */

typedef struct job {
    int32_t ids[MAX_LEN];
    int n, n_rows, pictures[MAX_PICTURES], n_pictures; /* pictures: numbers of contents */
    prompt_rows rows[MAX_PICTURES];
    const char *salt;
    engine_params params;
    bool fails;
} job;

enum { POISONED = 99 };

static void add_text(job *j, rng *r, int n) {
    for (int i = 0; i < n && j->n < MAX_LEN - 2; i++) j->ids[j->n++] = 5 + (int32_t)rnd(r, 1900);
}

static void add_picture(job *j, int content) {
    if (j->n + FAKE_IMAGE_ROWS > MAX_LEN - 2 || j->n_pictures == MAX_PICTURES) return;
    j->rows[j->n_rows++] = (prompt_rows){j->n, FAKE_IMAGE_ROWS, j->n_pictures, 0};
    j->pictures[j->n_pictures++] = content;
    for (int i = 0; i < FAKE_IMAGE_ROWS; i++) j->ids[j->n++] = FAKE_IMAGE_TOKEN;
}

static prompt *prompt_of(const job *j) {
    prompt *p = mem_calloc(1, sizeof *p);
    for (int i = 0; i < j->n; i++) tok_ids_push(&p->ids, j->ids[i]);
    p->images = mem_calloc(MAX_PICTURES, sizeof *p->images);
    p->rows = mem_calloc(MAX_PICTURES, sizeof *p->rows);
    memcpy(p->rows, j->rows, (size_t)j->n_rows * sizeof *p->rows);
    p->n_rows = j->n_rows;
    for (int i = 0; i < j->n_pictures; i++) {
        prompt_image *im = &p->images[p->n_images++];
        im->param = mem_strdup("messages[0]");
        im->n_rows = FAKE_IMAGE_ROWS;
        im->pixels = one_tile(2, 2, NULL);
        im->pixels.rgb[0] = j->pictures[i] == POISONED ? FAKE_POISON_PIXEL : (uint8_t)j->pictures[i];
        image_key(&im->pixels, 2, 2, &(prep_spec){0}, im->key);
    }
    return p;
}

/* a: an answer for each choice of j->params.n. */
static uint64_t send(world *w, const job *j, answer *a) {
    engine_params params = j->params;
    params.cache_salt = j->salt;
    return world_submit(w, prompt_of(j), &params, a);
}

static const runner_options ROOMY = {512, 16, MAX_LEN, 400, DT_F32, false};

static void open_world(world *w, const runner_options *ro, int max_chunk) {
    world_picture_bytes = 3000;
    world_init(w, g_be, g_tok, MAX_LEN, ro, max_chunk);
}

/* One of three beginnings, which differ in text or only in a picture's content, cut anywhere; then a tail. */
static void random_job(job *j, rng *r, bool may_fail) {
    static const char *const salts[] = {NULL, NULL, NULL, "", "a", "b"};
    *j = (job){0};
    rng base = {1000 + rnd(r, 2)};
    int cut = (int)rnd(r, 130), other = rnd(r, 4) == 0, tail = 1 + (int)rnd(r, 6);
    while (j->n < cut) {
        add_text(j, &base, 1 + (int)rnd(&base, 30));
        if (j->n < cut) add_picture(j, 1 + (int)rnd(&base, 3) + (j->n_pictures == 1 ? other : 0));
        if (j->n >= MAX_LEN - 40) break;
    }
    if (j->n > cut && (j->n_rows == 0 || j->rows[j->n_rows - 1].row + FAKE_IMAGE_ROWS <= cut)) j->n = cut;
    if (may_fail && rnd(r, 6) == 0) {
        j->fails = true;
        if (rnd(r, 2))
            add_picture(j, POISONED);
        else
            j->ids[j->n++] = FAKE_POISON_ID;
        j->fails = j->n_pictures > 0 && j->pictures[j->n_pictures - 1] == POISONED;
        for (int i = 0; i < j->n; i++) j->fails |= j->ids[i] == FAKE_POISON_ID;
    }
    add_text(j, rnd(r, 2) ? r : &base, tail);
    j->salt = salts[rnd(r, ARRAY_LEN(salts))];
}

/* The prompt and answer of an earlier one, and a further question. */
static void next_turn(job *j, const job *before, const answer *a, rng *r) {
    *j = *before;
    for (int i = 0; i < a->n && j->n < MAX_LEN - 8; i++) j->ids[j->n++] = a->ids[i];
    if (rnd(r, 3) == 0) add_picture(j, 1 + (int)rnd(r, 3));
    add_text(j, r, 1 + (int)rnd(r, 4));
}

static job g_jobs[MAX_JOBS]; /* of the run under way */
static bool g_may_fail;

static void draw(int i, rng *r, const answers *got) {
    job *j = &g_jobs[i];
    int before = i ? (int)rnd(r, (uint32_t)i) : 0;
    const answer *a = &got[before][0];
    if (i && fake_both_ways == BOTH_PROMPT && rnd(r, 2))
        *j = g_jobs[before]; /* else nothing would be found */
    else if (i && rnd(r, 3) == 0 && a->n_final && g_jobs[before].n < MAX_LEN - 20)
        next_turn(j, &g_jobs[before], a, r);
    else
        random_job(j, r, g_may_fail);
    model *m = model_load("", NULL, NULL);
    make_params(model_get_spec(m), r, &j->params);
    model_free(m);
    if (j->params.max_tokens > MAX_LEN - j->n) j->params.max_tokens = MAX_LEN - j->n;
    j->params.min_tokens = 0;
    j->params.cache_salt = j->salt;
}
static prompt *drawn_prompt(int i) {
    return prompt_of(&g_jobs[i]);
}
static const engine_params *drawn_params(int i) {
    return &g_jobs[i].params;
}
static void check(int i, int choice, const answer *got) {
    assert_int_equal(got->error, g_jobs[i].fails);
    assert_true(got->cached_tokens < g_jobs[i].n && got->cached_tokens % KV_PAGE_TOK == 0);
    if (g_jobs[i].n > FAKE_ROPE_POS && choice == 0) assert_int_equal(got->cached_tokens, 0);
}
static const job_maker MAKER = {draw, drawn_prompt, drawn_params, check};

static void warm_equals_alone(void **state) {
    (void)state;
    rng r = {11};
    tally t = {0};
    g_may_fail = false;
    for (uint32_t i = 0; i < 100; i++) {
        schedule sh = random_schedule(&r, 28);
        sh.no_prefix_caching = false;
        run_schedule(&sh, 100 + i, &MAKER, &t);
    }
    print_message("%d jobs of %d choices, %d of %d prompt tokens found, %d preemptions\n", (int)t.jobs,
                  (int)t.choices, (int)t.prefix_hits, (int)t.prefix_queries, (int)t.preemptions);
    assert_true(t.jobs > 1000 && t.preemptions > 20 && t.prefix_hits > t.prefix_queries / 5);
}

static void warm_with_cancels_and_failures(void **state) {
    (void)state;
    log_set_level(LOG_ERROR + 1);
    rng r = {12};
    tally t = {0};
    for (uint32_t i = 0; i < 100; i++) {
        schedule sh = random_schedule(&r, 28);
        g_may_fail = rnd(&r, 3) > 0;
        sh.cancel_one_in = rnd(&r, 2) ? 2 + (int)rnd(&r, 12) : 0;
        run_schedule(&sh, 900 + i, &MAKER, &t);
    }
    assert_true(t.jobs > 1000 && t.preemptions > 20 && t.prefix_hits > 1000);
}

/* The same jobs where rows see each other: what a page's rows saw is in its key. */
static void warm_with_spans(void **state) {
    (void)state;
    log_set_level(LOG_ERROR + 1);
    for (int kind = BOTH_PICTURE; kind <= BOTH_PROMPT; kind++) {
        rng r = {13};
        tally t = {0};
        fake_both_ways = (both_ways)kind;
        for (uint32_t i = 0; i < 80; i++) {
            schedule sh = random_schedule(&r, 28);
            g_may_fail = i % 4 == 3;
            sh.no_prefix_caching = false;
            sh.cancel_one_in = i % 5 == 4 ? 8 : 0;
            run_schedule(&sh, 2000 + i, &MAKER, &t);
        }
        print_message("%d of %d prompt tokens found, %d preemptions\n", (int)t.prefix_hits,
                      (int)t.prefix_queries, (int)t.preemptions);
        assert_true(t.preemptions > 10 &&
                    t.prefix_hits > (kind == BOTH_PICTURE ? t.prefix_queries / 5 : 100));
    }
    fake_both_ways = BOTH_NONE;
    log_set_level(LOG_ERROR);
}

/* ---- how much is found ---- */

/* n ids of one beginning. */
static job plain(int n, const char *salt) {
    job j = {.salt = salt};
    rng r = {5};
    add_text(&j, &r, n);
    j.params = (engine_params){
        .max_tokens = 20, .top_p = 1, .repetition_penalty = 1, .top_logprobs = -1, .ignore_eos = true};
    return j;
}

static int found(world *w, const job *j, answer *a) {
    *a = (answer){0};
    send(w, j, a);
    while (sched_turn(w->sched)) continue;
    assert_int_equal(a->n_final, 1);
    assert_false(a->error);
    return a->cached_tokens;
}

static int found_only(world *w, const job *j) {
    answer a;
    int n = found(w, j, &a);
    answer_fini(&a);
    return n;
}

static void whole_pages_and_never_the_last_token(void **state) {
    (void)state;
    world w;
    open_world(&w, &ROOMY, 0);
    job j = plain(50, NULL), k = plain(48, NULL), other = plain(50, "tenant"), shorter = plain(15, NULL);
    assert_int_equal(found_only(&w, &j), 0);
    assert_int_equal(found_only(&w, &j), 48);
    assert_int_equal(found_only(&w, &k), 32); /* its 48th is to be computed */
    assert_int_equal(found_only(&w, &other), 0);
    assert_int_equal(found_only(&w, &other), 48);
    assert_int_equal(found_only(&w, &shorter), 0);
    k.ids[20]++;
    assert_int_equal(found_only(&w, &k), 16);
    engine_stats st;
    sched_get_stats(w.sched, &st);
    assert_int_equal(st.prefix_cache_queries, 50 + 50 + 48 + 50 + 50 + 15 + 48);
    assert_int_equal(st.prefix_cache_hits, 48 + 32 + 48 + 16);
    world_fini(&w);
}

/* A prompt that attends both ways is found whole or not at all: its equal, not one that begins alike. */
static void only_equal_prompts_share_where_prompts_attend_both_ways(void **state) {
    (void)state;
    world w;
    fake_both_ways = BOTH_PROMPT;
    open_world(&w, &ROOMY, 0);
    job j = plain(50, NULL), k = plain(48, NULL), p = plain(33, NULL);
    assert_int_equal(found_only(&w, &j), 0);
    assert_int_equal(found_only(&w, &j), 48);
    assert_int_equal(found_only(&w, &k), 0);
    assert_int_equal(found_only(&w, &k), 32);
    k = j;
    k.ids[49]++; /* the last token is seen by all */
    assert_int_equal(found_only(&w, &k), 0);
    add_picture(&p, 1);
    assert_int_equal(found_only(&w, &p), 0);
    assert_int_equal(found_only(&w, &p), 32);
    p.pictures[0] = 2; /* behind the pages, and yet in them */
    assert_int_equal(found_only(&w, &p), 0);
    world_fini(&w);
    fake_both_ways = BOTH_NONE;
}

/* A picture's rows are found also where a page ends within them; the rest of them is computed. */
static void pages_within_a_picture_are_found(void **state) {
    (void)state;
    world w;
    fake_both_ways = BOTH_PICTURE;
    open_world(&w, &ROOMY, 0);
    job j = plain(12, NULL);
    add_picture(&j, 1); /* rows 12 to 20 */
    rng r = {1};
    add_text(&j, &r, 4);
    assert_int_equal(found_only(&w, &j), 0);
    assert_int_equal(found_only(&w, &j), 16);
    job k = plain(12, NULL);
    add_picture(&k, 1);
    add_text(&k, &r, 9);
    assert_int_equal(found_only(&w, &k), 16);
    world_fini(&w);
    fake_both_ways = BOTH_NONE;
}

static void answers_are_found_in_the_next_turn(void **state) {
    (void)state;
    world w;
    open_world(&w, &ROOMY, 0);
    job j = plain(30, NULL), k;
    answer a;
    assert_int_equal(found(&w, &j, &a), 0);
    rng r = {3};
    next_turn(&k, &j, &a, &r); /* 30 and 20 tokens, 49 of them in the cache */
    k.n = 60;
    assert_int_equal(found_only(&w, &k), 48);
    answer_fini(&a);
    world_fini(&w);
}

static void a_length_dependent_rope_is_not_shared(void **state) {
    (void)state;
    world w;
    open_world(&w, &ROOMY, 0);
    job longer = plain(FAKE_ROPE_POS + 1, NULL), most = plain(FAKE_ROPE_POS, NULL);
    assert_int_equal(found_only(&w, &longer), 0);
    assert_int_equal(found_only(&w, &longer), 0);
    assert_int_equal(found_only(&w, &most), 0);
    assert_int_equal(found_only(&w, &most), FAKE_ROPE_POS - KV_PAGE_TOK);
    assert_int_equal(found_only(&w, &longer), 0);
    world_fini(&w);
}

static void without_caching(void **state) {
    (void)state;
    world w;
    world_no_prefix_caching = true;
    open_world(&w, &ROOMY, 0);
    world_no_prefix_caching = false;
    job j = plain(50, NULL);
    for (int i = 0; i < 3; i++) assert_int_equal(found_only(&w, &j), 0);
    engine_stats stats;
    sched_get_stats(w.sched, &stats);
    assert_int_equal(stats.prefix_cache_queries, 0);
    assert_int_equal(w.runner.kv.n_idle, 0);
    world_fini(&w);
}

static void least_recently_used_goes_first(void **state) {
    (void)state;
    world w;
    runner_options ro = {512, 1, MAX_LEN, 10 + 1, DT_F32, false};
    open_world(&w, &ro, 0);
    job a = plain(33, "a"), b = plain(33, "b"), c = plain(96, "c"); /* a, b: 4 pages, 3 of them whole */
    assert_int_equal(found_only(&w, &a), 0);
    assert_int_equal(found_only(&w, &b), 0);
    assert_int_equal(found_only(&w, &a), 32); /* now b is the older one */
    assert_int_equal(found_only(&w, &c), 0);  /* takes eight: four free ones, a third of a and all of b */
    assert_int_equal(found_only(&w, &a), 32);
    assert_int_equal(found_only(&w, &b), 0);
    world_fini(&w);
}

/* ---- one computes, the others wait ---- */

static void same_prompt_at_once_is_computed_once(void **state) {
    (void)state;
    enum { N = 8 };
    for (int chunk = 0; chunk < 20; chunk += 9) {
        world w;
        open_world(&w, &ROOMY, chunk);
        job j = plain(20, NULL);
        add_picture(&j, 3);
        rng r = {8};
        add_text(&j, &r, 45);
        answer a[N];
        memset(a, 0, sizeof a);
        for (int i = 0; i < N; i++) send(&w, &j, &a[i]);
        while (sched_turn(w.sched)) continue;
        engine_stats st;
        sched_get_stats(w.sched, &st);
        assert_int_equal(st.images, 1);
        assert_int_equal(st.prefix_cache_hits, (N - 1) * 64);
        for (int i = 0; i < N; i++) {
            assert_int_equal(a[i].cached_tokens, i ? 64 : 0);
            assert_true(answer_begins(&a[0], &a[i]) && a[i].n == 20);
            answer_fini(&a[i]);
        }
        world_fini(&w);
    }
}

static void a_holder_that_leaves_frees_the_waiting(void **state) {
    (void)state;
    world w;
    open_world(&w, &ROOMY, 4);
    job j = plain(90, NULL);
    answer a[3];
    memset(a, 0, sizeof a);
    uint64_t first = send(&w, &j, &a[0]);
    send(&w, &j, &a[1]);
    send(&w, &j, &a[2]);
    for (int i = 0; i < 9; i++) sched_turn(w.sched); /* 36 rows: two pages are whole, the third is begun */
    inbox_cancel(&w.inbox, first);
    int turns = 0;
    while (sched_turn(w.sched)) turns++;
    assert_int_equal(a[0].code, ST_CANCELLED);
    assert_int_equal(a[1].cached_tokens, 32);
    assert_int_equal(a[2].cached_tokens, 80);
    assert_true(answer_begins(&a[1], &a[2]) && a[1].n == 20 && a[2].n == 20);
    assert_true(turns < 15 + 20 + 5);
    for (int i = 0; i < 3; i++) answer_fini(&a[i]);
    world_fini(&w);
}

/* ---- choices of one job ---- */

enum { CHOICES = 5 };

/* How many turns until each choice has a token. */
static int until_all_answer(world *w, const answer *a) {
    for (int turns = 1;; turns++) {
        assert_true(turns < 1000 && sched_turn(w->sched));
        int n = 0;
        while (n < CHOICES && a[n].n) n++;
        if (n == CHOICES) return turns;
    }
}

/* The prompt lies in the cache once, its picture is encoded once, and its tokens are counted once, whatever else may be
 * shared. */
static void choices_share_the_prompt(void **state) {
    (void)state;
    for (int what = 0; what < 4; what++) {
        world w;
        world_no_prefix_caching = what & 1;
        open_world(&w, &ROOMY, what ? 0 : 7);
        world_no_prefix_caching = false;
        job j = plain(what & 2 ? FAKE_ROPE_POS + 3 : 55, NULL);
        add_picture(&j, 3);
        rng r = {8};
        add_text(&j, &r, 5);
        j.params.n = CHOICES;
        j.params.has_seed = true;
        j.params.temperature = 1;
        for (int again = 0; again < 2; again++) {
            answer a[CHOICES] = {0};
            send(&w, &j, a);
            until_all_answer(&w, a);
            int held = w.runner.kv.n_pages - 1 - kv_available(&w.runner.kv), whole = (j.n - 1) / KV_PAGE_TOK;
            assert_in_range(held, whole + CHOICES, whole + 2 * CHOICES);
            while (sched_turn(w.sched)) continue;
            bool found = again && what == 0;
            assert_int_equal(a[0].cached_tokens, found ? whole * KV_PAGE_TOK : 0);
            for (int k = 0; k < CHOICES; k++) {
                assert_int_equal(a[k].n, 20);
                if (k) assert_int_equal(a[k].cached_tokens, whole * KV_PAGE_TOK);
                if (k) assert_false(answer_begins(&a[0], &a[k]));
                answer_fini(&a[k]);
            }
        }
        engine_stats st;
        sched_get_stats(w.sched, &st);
        assert_int_equal(st.images, 1);
        assert_int_equal(st.prompt_tokens, 2 * j.n);
        assert_int_equal(st.generation_tokens, 2 * CHOICES * 20);
        assert_int_equal(st.finished_length, 2 * CHOICES);
        assert_int_equal(st.prefix_cache_queries, what == 0 ? 2 * j.n : 0);
        assert_int_equal(st.prefix_cache_hits, what == 0 ? (j.n - 1) / KV_PAGE_TOK * KV_PAGE_TOK : 0);
        piccache_stats pictures;
        piccache_get_stats(w.pictures, &pictures);
        assert_int_equal(pictures.queries, 2);
        world_fini(&w);
    }
}

/* Sixteen at most of a pool that holds one and a half: it moves, and all is right. */
static void choices_in_a_small_pool(void **state) {
    (void)state;
    world w;
    runner_options ro = {64, 8, MAX_LEN, kv_pages_of(MAX_LEN) + 4, DT_F32, false};
    open_world(&w, &ro, 0);
    job j = plain(90, NULL), one;
    j.params.n = 16;
    j.params.has_seed = true;
    j.params.temperature = 1;
    j.params.max_tokens = 60;
    one = j;
    one.params.n = 1;
    answer a[16] = {0};
    send(&w, &j, a);
    for (int turns = 0; sched_turn(w.sched); turns++) assert_true(turns < 2000);
    engine_stats st;
    sched_get_stats(w.sched, &st);
    assert_in_range(st.preemptions, 1, 200);
    for (int k = 0; k < 16; k++, one.params.seed++) {
        answer alone;
        found(&w, &one, &alone);
        assert_true(answer_same(&a[k], &alone));
        answer_fini(&alone);
        answer_fini(&a[k]);
    }
    world_fini(&w);
}

/* Before they part one final event is for all; then each has its own. */
static void cancelled_at_each_stage(void **state) {
    (void)state;
    for (int turns = 0; turns < 24; turns++) {
        world w;
        runner_options ro = {16, 3, MAX_LEN, 60, DT_F32, false};
        open_world(&w, &ro, 0);
        job j = plain(60, NULL);
        add_picture(&j, 2);
        j.params.n = CHOICES;
        answer a[CHOICES] = {0};
        uint64_t number = send(&w, &j, a);
        for (int i = 0; i < turns; i++) sched_turn(w.sched);
        assert_int_equal(inbox_live(&w.inbox), CHOICES);
        inbox_cancel(&w.inbox, number);
        assert_false(sched_turn(w.sched));
        for (int k = 0; k < CHOICES; k++) {
            assert_int_equal(a[k].n_final, 1);
            assert_int_equal(a[k].code, ST_CANCELLED);
            answer_fini(&a[k]);
        }
        engine_stats st;
        sched_get_stats(w.sched, &st);
        assert_int_equal(st.finished_abort, CHOICES);
        world_fini(&w);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(keys_as_defined),
        cmocka_unit_test(whole_pages_and_never_the_last_token),
        cmocka_unit_test(answers_are_found_in_the_next_turn),
        cmocka_unit_test(a_length_dependent_rope_is_not_shared),
        cmocka_unit_test(without_caching),
        cmocka_unit_test(least_recently_used_goes_first),
        cmocka_unit_test(same_prompt_at_once_is_computed_once),
        cmocka_unit_test(a_holder_that_leaves_frees_the_waiting),
        cmocka_unit_test(choices_share_the_prompt),
        cmocka_unit_test(choices_in_a_small_pool),
        cmocka_unit_test(cancelled_at_each_stage),
        cmocka_unit_test(warm_equals_alone),
        cmocka_unit_test(warm_with_spans),
        cmocka_unit_test(only_equal_prompts_share_where_prompts_attend_both_ways),
        cmocka_unit_test(pages_within_a_picture_are_found),
        cmocka_unit_test(warm_with_cancels_and_failures),
    };
    return cmocka_run_group_tests(tests, sched_set_up, world_tear_down);
}
