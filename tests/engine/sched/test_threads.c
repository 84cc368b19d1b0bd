/* test_threads.c - engine.h over the fake model with its real threads: clients that submit, cancel and count at the same
 * time, pictures through the workers, the engine freed under load. Mostly for ThreadSanitizer. */
#include <pthread.h>
#include <setjmp.h>
#include <stdatomic.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <png.h>
#include <unistd.h>

#include <cmocka.h>

#include "tests/engine/sched/fake_model.h"
#include "tests/engine/sched/harness.h"

static const char PNG_2X2[] = /* dark red, green, blue, grey */
    "iVBORw0KGgoAAAANSUhEUgAAAAIAAAACCAIAAAD91JpzAAAAE0lEQVR4nGM4wcDAAMIMJxoaGgAXXgPZ"
    "0RhfJwAAAABJRU5ErkJggg==";

enum { CHOICES = 3 };

typedef struct client { /* one job's events, and who waits for them */
    union {
        answer a;
        answer all[CHOICES]; /* by choice */
    };
    int n; /* choices */
    pthread_mutex_t mu;
    pthread_cond_t changed;
} client;

static void client_init(client *c) {
    memset(c, 0, sizeof *c);
    c->n = 1;
    pthread_mutex_init(&c->mu, NULL);
    pthread_cond_init(&c->changed, NULL);
}

static void client_fini(client *c) {
    for (int i = 0; i < CHOICES; i++) answer_fini(&c->all[i]);
    pthread_cond_destroy(&c->changed);
    pthread_mutex_destroy(&c->mu);
}

static void sink(void *user, const engine_event *ev) {
    client *c = user;
    pthread_mutex_lock(&c->mu);
    on_event(c->all, ev);
    pthread_cond_signal(&c->changed);
    pthread_mutex_unlock(&c->mu);
}

static bool is_over(const client *c) {
    int k = 0;
    while (k < c->n && c->all[k].n_final) k++;
    return k == c->n;
}

/* Until n tokens of the first choice or all final events are there. */
static void client_wait(client *c, int n) {
    pthread_mutex_lock(&c->mu);
    while (c->a.n < n && !is_over(c)) pthread_cond_wait(&c->changed, &c->mu);
    pthread_mutex_unlock(&c->mu);
}

static size_t g_picture_bytes;
static atomic_int g_losses;

static void count_loss(void *user, const status *why) {
    (void)user;
    if (why->code == ST_LOST && strstr(why->msg, "the device failed: ")) atomic_fetch_add(&g_losses, 1);
}

static engine *new_engine(int seqs, int rows, size_t kv_tokens) {
    status st = {0};
    size_t page = (size_t)FAKE_LAYERS * 2 * 8 * KV_PAGE_TOK * sizeof(float);
    engine_options o = {.model_dir = "models/vlmd-tiny",
                        .threads = 1,
                        .image_workers = 4,
                        .image_cache_bytes = g_picture_bytes,
                        .max_num_seqs = seqs,
                        .max_num_batched_tokens = rows,
                        .kv_cache_bytes = (kv_tokens / KV_PAGE_TOK + 1) * page,
                        .max_model_len = FAKE_MAX_POS,
                        .lost = count_loss};
    engine *e = engine_new(&o, &st);
    if (!e) print_error("%s\n", st.msg);
    assert_non_null(e);
    return e;
}

enum { KINDS = 12 };

static uint64_t submit_picture(engine *e, const char *b64, size_t n, client *c) {
    engine_image im[2] = {{b64, n, "messages[0].content[0].image_url"},
                          {b64, n, "messages[0].content[1].image_url"}};
    json_t *messages =
        json_pack("[{s:s,s:[{s:s},{s:s}]}]", "role", "user", "content", "type", "image", "type", "image");
    engine_chat chat = {.messages = messages, .images = im, .n_images = 2};
    status st = {0};
    prompt *p = engine_prompt_chat(e, &chat, &st);
    json_decref(messages);
    if (!p) print_error("%s\n", st.msg);
    CHECK(p);
    engine_params params;
    engine_default_params(e, &params);
    params.max_tokens = 3;
    params.temperature = 0;
    uint64_t job = engine_submit(e, p, &params, sink, c, &st);
    CHECK(job);
    return job;
}

/* c->n choices, from this one of the kind on. */
static uint64_t submit_kind(engine *e, int kind, int first, client *c) {
    static const char *const texts[] = {"hello", "what is this?",
                                        "a b c d e f g h i j k l m n o p q r s t u v w x y z"};
    engine_image im = {PNG_2X2, sizeof PNG_2X2 - 1, "messages[0].content[0].image_url"};
    bool picture = kind % 2;
    json_t *messages = picture ? json_pack("[{s:s,s:[{s:s},{s:s,s:s}]}]", "role", "user", "content", "type",
                                           "image", "type", "text", "text", texts[kind % 3])
                               : json_pack("[{s:s,s:s}]", "role", "user", "content", texts[kind % 3]);
    engine_chat chat = {.messages = messages, .images = &im, .n_images = picture};
    status st = {0};
    prompt *p = engine_prompt_chat(e, &chat, &st);
    json_decref(messages);
    if (!p) print_error("%s\n", st.msg);
    CHECK(p);
    engine_params params;
    engine_default_params(e, &params);
    params.max_tokens = 5 + kind * 5;
    params.temperature = (float)(kind % 2);
    params.has_seed = true;
    params.seed = (uint64_t)(kind + first);
    params.n = c->n;
    uint64_t job = engine_submit(e, p, &params, sink, c, &st);
    CHECK(job);
    return job;
}

typedef struct load {
    engine *e;
    uint32_t seed;
    int n_jobs;
    const answer (*solo)[CHOICES]; /* [KINDS] */
    int wrong, choices;
} load;

static bool is_right(const client *c, int choice, const answer *solo, bool cancelled) {
    const answer *a = &c->all[choice];
    if (a->n_final != 1 || a->out_of_order || a->n > solo->n ||
        memcmp(a->ids, solo->ids, (size_t)a->n * sizeof a->ids[0]) != 0)
        return false;
    if (a->error) return cancelled && a->code == ST_CANCELLED;
    return a->n == solo->n && c->a.n_input_done == 1;
}

static void *run_load(void *arg) {
    load *l = arg;
    rng r = {l->seed};
    enum { AT_ONCE = 4 };
    for (int done = 0; done < l->n_jobs; done += AT_ONCE) {
        client c[AT_ONCE];
        uint64_t jobs[AT_ONCE];
        int kinds[AT_ONCE];
        bool cancel[AT_ONCE];
        for (int i = 0; i < AT_ONCE; i++) {
            client_init(&c[i]);
            kinds[i] = (int)rnd(&r, KINDS);
            cancel[i] = rnd(&r, 3) == 0;
            c[i].n = 1 + (int)rnd(&r, CHOICES);
            jobs[i] = submit_kind(l->e, kinds[i], 0, &c[i]);
        }
        for (int i = 0; i < AT_ONCE; i++) l->choices += c[i].n;
        for (int i = 0; i < AT_ONCE; i++) {
            if (cancel[i]) {
                client_wait(&c[i], (int)rnd(&r, 6));
                engine_cancel(l->e, jobs[i]);
            }
            engine_stats stats;
            engine_get_stats(l->e, &stats);
        }
        for (int i = 0; i < AT_ONCE; i++) {
            client_wait(&c[i], FAKE_MAX_POS);
            engine_cancel(l->e, jobs[i]); /* over: ignored */
            for (int k = 0; k < c[i].n; k++)
                l->wrong += !is_right(&c[i], k, &l->solo[kinds[i]][k], cancel[i]);
            client_fini(&c[i]);
        }
    }
    return NULL;
}

static void many_clients(void **state) {
    (void)state;
    static answer solo[KINDS][CHOICES];
    engine *e = new_engine(1, 512, FAKE_MAX_POS);
    for (int k = 0; k < KINDS * CHOICES; k++) {
        client c;
        client_init(&c);
        submit_kind(e, k / CHOICES, k % CHOICES, &c);
        client_wait(&c, FAKE_MAX_POS);
        if (c.a.error) print_error("%s\n", c.a.why);
        assert_false(c.a.error);
        solo[k / CHOICES][k % CHOICES] = c.a;
        solo[k / CHOICES][k % CHOICES].text = (buf){0};
        client_fini(&c);
    }
    engine_free(e);
    g_picture_bytes = 1 << 20;
    e = new_engine(5, 24, FAKE_MAX_POS + 64);
    enum { CLIENTS = 3 };
    load loads[CLIENTS];
    pthread_t threads[CLIENTS];
    for (int i = 0; i < CLIENTS; i++) {
        loads[i] = (load){e, (uint32_t)i + 1, 60, solo, 0, 0};
        assert_int_equal(pthread_create(&threads[i], NULL, run_load, &loads[i]), 0);
    }
    uint64_t choices = 0;
    for (int i = 0; i < CLIENTS; i++) {
        pthread_join(threads[i], NULL);
        assert_int_equal(loads[i].wrong, 0);
        choices += loads[i].choices;
    }
    engine_stats stats;
    engine_get_stats(e, &stats);
    /* The last turn's figures come after its events. */
    for (int i = 0; i < 1000 && (stats.running + stats.waiting > 0 || stats.kv_usage > 0); i++) {
        usleep(1000);
        engine_get_stats(e, &stats);
    }
    assert_int_equal(stats.running + stats.waiting, 0);
    assert_int_equal(
        stats.finished_stop + stats.finished_length + stats.finished_abort + stats.finished_error, choices);
    assert_true(stats.kv_usage == 0);
    engine_free(e);
}

static void freed_under_load(void **state) {
    (void)state;
    enum { JOBS = 40 };
    for (int round = 0; round < 5; round++) {
        static client c[JOBS];
        engine *e = new_engine(4, 32, FAKE_MAX_POS);
        for (int i = 0; i < JOBS; i++) client_init(&c[i]);
        for (int i = 0; i < JOBS; i++) {
            c[i].n = 1 + i % CHOICES;
            submit_kind(e, i % KINDS, 0, &c[i]);
        }
        client_wait(&c[round], round);
        engine_free(e);
        for (int i = 0; i < JOBS; i++) {
            for (int k = 0; k < c[i].n; k++) {
                assert_int_equal(c[i].all[k].n_final, 1);
                assert_false(c[i].all[k].out_of_order);
                if (c[i].all[k].error) assert_int_equal(c[i].all[k].code, ST_CANCELLED);
            }
            client_fini(&c[i]);
        }
    }
}

/* Who runs, waits, has pictures decoded or comes later: all end with the loss, which is told once. */
static void lost_device(void **state) {
    (void)state;
    enum { JOBS = 30 };
    for (int how = 1; how <= 2; how++) {
        static client c[JOBS], late;
        engine *e = new_engine(4, 32, FAKE_MAX_POS);
        int lost = 0;
        atomic_store(&g_losses, 0);
        for (int i = 0; i < JOBS; i++) {
            client_init(&c[i]);
            c[i].n = 1 + i % CHOICES;
            submit_kind(e, i % KINDS, i, &c[i]);
            if (i == 0) client_wait(&c[0], 2);
            /* before any picture is encoded: its rows would be found in the cache later */
            if (i == (how == 2 ? 0 : 4)) atomic_store(&fake_lost, how);
        }
        for (int i = 0; i < JOBS; i++) {
            client_wait(&c[i], FAKE_MAX_POS);
            for (int k = 0; k < c[i].n; k++) {
                assert_int_equal(c[i].all[k].n_final, 1);
                assert_false(c[i].all[k].out_of_order);
                if (!c[i].all[k].error) continue;
                assert_int_equal(c[i].all[k].code, ST_LOST);
                lost++;
            }
        }
        assert_true(lost > JOBS / 2);
        atomic_store(&fake_lost, 0); /* the device seems to be well again: nobody asks it */
        client_init(&late);
        submit_kind(e, 0, 0, &late);
        client_wait(&late, FAKE_MAX_POS);
        assert_true(late.a.error);
        assert_int_equal(late.a.code, ST_LOST);
        assert_int_equal(atomic_load(&g_losses), 1);
        engine_stats stats;
        engine_get_stats(e, &stats);
        assert_int_equal(stats.running + stats.waiting, 0);
        assert_true(stats.kv_usage == 0);
        for (int i = 0; i < JOBS; i++) client_fini(&c[i]);
        client_fini(&late);
        engine_free(e);
    }
}

static void broken_picture(void **state) {
    (void)state;
    engine *e = new_engine(4, 32, FAKE_MAX_POS);
    /* The header is whole, the pixels are cut off. */
    engine_image im = {PNG_2X2, 68, "messages[0].content[0].image_url"};
    json_t *messages = json_pack("[{s:s,s:[{s:s}]}]", "role", "user", "content", "type", "image");
    engine_chat chat = {.messages = messages, .images = &im, .n_images = 1};
    status st = {0};
    prompt *p = engine_prompt_chat(e, &chat, &st);
    json_decref(messages);
    assert_non_null(p);
    engine_params params;
    engine_default_params(e, &params);
    client c;
    client_init(&c);
    params.n = c.n = CHOICES;
    assert_int_not_equal(engine_submit(e, p, &params, sink, &c, &st), 0);
    client_wait(&c, FAKE_MAX_POS);
    for (int i = 0; i < CHOICES; i++) {
        assert_int_equal(c.all[i].n_final, 1);
        assert_int_equal(c.all[i].n_input_done, 0);
        assert_true(c.all[i].error);
        assert_int_equal(c.all[i].code, ST_INVALID);
    }
    client_fini(&c);
    engine_free(e);
}

/* A PNG of noise that takes a while to decode, as base64. */
static buf noise_png(uint32_t seed, int edge) {
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    size_t n = (size_t)edge * (size_t)edge * 3;
    uint8_t *rgb = mem_alloc(n), *file;
    rng r = {seed};
    for (size_t i = 0; i < n; i++) rgb[i] = (uint8_t)rnd(&r, 256);
    png_image im = {.version = PNG_IMAGE_VERSION,
                    .width = (uint32_t)edge,
                    .height = (uint32_t)edge,
                    .format = PNG_FORMAT_RGB};
    png_alloc_size_t size = 0;
    CHECK(png_image_write_to_memory(&im, NULL, &size, 0, rgb, 0, NULL));
    file = mem_calloc(size + 3, 1);
    CHECK(png_image_write_to_memory(&im, file, &size, 0, rgb, 0, NULL));
    buf out = {0};
    for (size_t i = 0; i < size; i += 3) {
        uint32_t v = (uint32_t)file[i] << 16 | (uint32_t)file[i + 1] << 8 | file[i + 2];
        for (int k = 18; k >= 0; k -= 6) buf_putc(&out, digits[v >> k & 63]);
    }
    out.len -= (3 - size % 3) % 3;
    mem_free(rgb);
    mem_free(file);
    return out;
}

enum { AT_ONCE = 8 };

/* Eight requests, each showing one new picture twice, from eight bodies. */
static void one_picture_eight_times(void **state) {
    (void)state;
    for (uint32_t round = 0; round < 6; round++) {
        g_picture_bytes = 1 << 20;
        engine *e = new_engine(AT_ONCE, 64, AT_ONCE * FAKE_MAX_POS);
        buf file = noise_png(round, round % 2 ? 300 : 40), copies[AT_ONCE] = {{0}};
        client c[AT_ONCE];
        for (int i = 0; i < AT_ONCE; i++) {
            client_init(&c[i]);
            buf_append(&copies[i], file.data, file.len);
            submit_picture(e, copies[i].data, copies[i].len, &c[i]);
        }
        for (int i = 0; i < AT_ONCE; i++) {
            client_wait(&c[i], FAKE_MAX_POS);
            assert_false(c[i].a.error);
            assert_int_equal(c[i].a.n_input_done, 1);
            assert_memory_equal(c[i].a.ids, c[0].a.ids, sizeof c[0].a.ids);
        }
        client off, again;
        client_init(&again);
        submit_picture(e, file.data, file.len, &again);
        client_wait(&again, FAKE_MAX_POS);
        assert_memory_equal(again.a.ids, c[0].a.ids, sizeof c[0].a.ids);
        engine_stats stats;
        for (int i = 0; i < 1000; i++) { /* published at a turn's end */
            engine_get_stats(e, &stats);
            if (stats.running + stats.waiting == 0) break;
            usleep(1000);
        }
        assert_int_equal(stats.images, 1);
        assert_int_equal(stats.image_decodes, 1);
        assert_int_equal(stats.mm_cache_queries, 2 * AT_ONCE + 2);
        assert_int_equal(stats.mm_cache_hits, 2 * AT_ONCE + 1);
        assert_true(stats.image_cache_bytes > 0);
        engine_free(e);
        /* without the cache: each for itself, and the same answers */
        g_picture_bytes = 0;
        e = new_engine(2, 64, 2 * FAKE_MAX_POS);
        client_init(&off);
        submit_picture(e, file.data, file.len, &off);
        client_wait(&off, FAKE_MAX_POS);
        assert_memory_equal(off.a.ids, c[0].a.ids, sizeof c[0].a.ids);
        engine_get_stats(e, &stats);
        assert_int_equal(stats.image_decodes, 2);
        assert_int_equal(stats.mm_cache_queries, 0);
        engine_free(e);
        client_fini(&off);
        client_fini(&again);
        for (int i = 0; i < AT_ONCE; i++) {
            client_fini(&c[i]);
            buf_fini(&copies[i]);
        }
        buf_fini(&file);
    }
    g_picture_bytes = 1 << 20;
}

/* Those who decode or wait leave at any time; the others still get their answers. */
static void owners_leave(void **state) {
    (void)state;
    for (uint32_t round = 0; round < 12; round++) {
        engine *e = new_engine(AT_ONCE, 64, AT_ONCE * FAKE_MAX_POS);
        buf file = noise_png(round, 200);
        client c[AT_ONCE];
        uint64_t jobs[AT_ONCE];
        for (int i = 0; i < AT_ONCE; i++) {
            client_init(&c[i]);
            jobs[i] = submit_picture(e, file.data, file.len, &c[i]);
        }
        usleep(round * 500);
        for (int i = 0; i < AT_ONCE; i++)
            if (i % 4 != 3) engine_cancel(e, jobs[i]);
        for (int i = 0; i < AT_ONCE; i++) {
            client_wait(&c[i], FAKE_MAX_POS);
            assert_int_equal(c[i].a.n_final, 1);
            if (i % 4 == 3) assert_false(c[i].a.error);
            if (c[i].a.error) assert_int_equal(c[i].a.code, ST_CANCELLED);
        }
        engine_free(e);
        for (int i = 0; i < AT_ONCE; i++) client_fini(&c[i]);
        buf_fini(&file);
    }
}

/* All who wait for broken bytes learn why, each with its own field. */
static void broken_picture_eight_times(void **state) {
    (void)state;
    engine *e = new_engine(AT_ONCE, 64, AT_ONCE * FAKE_MAX_POS);
    buf file = noise_png(1, 300);
    client c[AT_ONCE];
    for (int i = 0; i < AT_ONCE; i++) {
        client_init(&c[i]);
        submit_picture(e, file.data, file.len / 2, &c[i]);
    }
    for (int i = 0; i < AT_ONCE; i++) {
        client_wait(&c[i], FAKE_MAX_POS);
        assert_int_equal(c[i].a.code, ST_INVALID);
        assert_int_equal(c[i].a.n_input_done, 0);
        assert_string_equal(c[i].a.why, c[0].a.why);
        assert_non_null(strstr(c[i].a.why, "messages[0].content[0].image_url: the picture"));
        client_fini(&c[i]);
    }
    engine_free(e);
    buf_fini(&file);
}

static void plans(void **state) {
    (void)state;
    status st = {0};
    size_t page = (size_t)FAKE_LAYERS * 2 * 8 * KV_PAGE_TOK * sizeof(float);
    engine_options o = {.model_dir = "models/vlmd-tiny", .threads = 1};
    engine *e = engine_new(&o, &st);
    assert_non_null(e);
    assert_int_equal(engine_get_info(e)->max_model_len, FAKE_MAX_POS);
    assert_int_equal(engine_get_info(e)->kv_bytes, (FAKE_MAX_POS / KV_PAGE_TOK * 8 + 1) * page);
    engine_free(e);
    /* a small cache shortens a length that nobody asked for */
    o.kv_cache_bytes = 5 * page;
    e = engine_new(&o, &st);
    assert_non_null(e);
    assert_int_equal(engine_get_info(e)->max_model_len, 4 * KV_PAGE_TOK);
    engine_free(e);
    /* and refuses one that was */
    o.max_model_len = FAKE_MAX_POS;
    assert_null(engine_new(&o, &st));
    assert_int_equal(st.code, ST_INVALID);
    st = (status){0};
    o.kv_cache_bytes = 0;
    o.max_model_len = FAKE_MAX_POS + 1;
    assert_null(engine_new(&o, &st));
    assert_int_equal(st.code, ST_INVALID);
}

int main(void) {
    log_set_level(LOG_ERROR);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(many_clients), cmocka_unit_test(freed_under_load),
        cmocka_unit_test(lost_device),  cmocka_unit_test(broken_picture),
        cmocka_unit_test(plans),        cmocka_unit_test(one_picture_eight_times),
        cmocka_unit_test(owners_leave), cmocka_unit_test(broken_picture_eight_times)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
