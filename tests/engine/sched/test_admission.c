/* test_admission.c - what may wait, and the memory for pictures: every bound refuses at its number and not before, and
 * every account is back at 0 when the jobs are over, however they ended. Also the order by priority, whose expected
 * values are those of a sorted list. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "tests/engine/sched/fake_model.h"
#include "tests/engine/sched/world.h"

#include "engine/claim.h"

enum { MAX_LEN = 160 };

/* ---- the queue ---- */

static void queue_bounds(void **state) {
    (void)state;
    admission a;
    status st = {0};
    assert_true(admission_init(&a, 3, 100, &st));
    assert_true(admission_has_room(&a, &st));
    assert_true(admission_enter(&a, 1000, &st)); /* alone, any job may wait */
    assert_false(admission_enter(&a, 1, &st));
    assert_int_equal(st.code, ST_BUSY);
    st = (status){0};
    assert_false(admission_has_room(&a, &st));
    assert_int_equal(st.code, ST_BUSY);
    admission_begun(&a, 1000);
    st = (status){0};
    assert_true(admission_enter(&a, 60, &st));
    assert_true(admission_enter(&a, 40, &st));
    assert_false(admission_enter(&a, 1, NULL));
    admission_left(&a, 40);
    assert_true(admission_enter(&a, 20, &st));
    assert_true(admission_enter(&a, 20, &st));
    assert_false(admission_has_room(&a, NULL)); /* three */
    int jobs;
    int64_t tokens;
    admission_get(&a, &jobs, &tokens);
    assert_int_equal(jobs, 3);
    assert_int_equal(tokens, 100);
    admission_begun(&a, 60);
    admission_begun(&a, 20);
    admission_left(&a, 20);
    admission_get(&a, &jobs, &tokens);
    assert_int_equal(jobs, 0);
    assert_int_equal(tokens, 0);
    admission_fini(&a);
}

static void retry_after(void **state) {
    (void)state;
    admission a;
    status st = {0};
    assert_true(admission_init(&a, 1000, 1 << 20, &st));
    assert_int_equal(admission_retry_after_s(&a), 1);
    for (int i = 0; i < 100; i++) assert_true(admission_enter(&a, 1, &st));
    a.since -= 10; /* ten seconds, in which 19 began: 81 wait, at two a second */
    for (int i = 0; i < 19; i++) admission_begun(&a, 1);
    int s = admission_retry_after_s(&a);
    assert_true(s == 41 || s == 42);
    a.since -= 100000; /* nothing since then */
    assert_int_equal(admission_retry_after_s(&a), 600);
    /* long ago counts less and less: at five a second it comes down again */
    for (int i = 0; i < 30; i++) {
        for (int k = 0; k < 50; k++) {
            assert_true(admission_enter(&a, 1, &st));
            admission_begun(&a, 1);
        }
        a.since -= 10;
        s = admission_retry_after_s(&a);
    }
    assert_true(s < 60);
    for (int i = 0; i < 81; i++) admission_begun(&a, 1);
    assert_int_equal(admission_retry_after_s(&a), 1);
    admission_fini(&a);
}

/* ---- the room for pictures ---- */

enum { ENCODE = 1000, PIXELS = 12 };

static picture *add(piccache *c, uint32_t n) {
    uint8_t key[IMAGE_KEY_BYTES] = {(uint8_t)n, (uint8_t)(n >> 8), 7};
    tiles im = one_tile(2, 2, NULL);
    status st = {0};
    picture *p = piccache_add(c, key, key, &im, ENCODE, &st);
    assert_non_null(p);
    return p;
}

static void encode_it(picture *p) {
    arena counting = {0};
    ctx c = {.scratch = &counting, .dry = true};
    p->enc = encode_new(NULL, NULL, &p->pixels, NULL);
    assert_true(encode_run(&c, p->enc, 99));
    picture_ready(p);
}

static size_t used(piccache *c) {
    piccache_stats s;
    piccache_get_stats(c, &s);
    return s.used;
}

static void claims(void **state) {
    (void)state;
    status st = {0};
    piccache *c = piccache_new(1 << 20, &st);
    const size_t need = sizeof(picture) + PIXELS + ENCODE,
                 rows = FAKE_IMAGE_ROWS * FAKE_WIDTH * sizeof(float);
    const size_t room = 3 * need + 5000;
    piccache_set_room(c, room, 2);
    assert_int_equal(piccache_need(PIXELS, ENCODE), need);
    picture_claim a = {0}, b = {0}, d = {0}, e = {0};
    bool wait;
    /* never */
    assert_false(piccache_claim(c, &a, need, room, &wait, &st));
    assert_int_equal(st.code, ST_TOO_LARGE);
    assert_null(a.cache);
    st = (status){0};
    /* of the decodes only as many count as can run at a time, the largest */
    assert_true(piccache_claim(c, &a, need, 2000, &wait, &st));
    assert_int_equal(used(c), need + 2000);
    assert_true(piccache_claim(c, &b, need, 3000, &wait, &st));
    assert_int_equal(used(c), 2 * need + 5000);
    assert_true(piccache_claim(c, &d, need, 1000, &wait, &st));
    assert_int_equal(used(c), 3 * need + 5000);
    assert_false(wait);
    assert_false(piccache_claim(c, &e, 1, 0, &wait, &st));
    assert_int_equal(st.code, ST_BUSY);
    assert_int_equal(used(c), room);
    st = (status){0};
    piccache_unclaim(&b);
    assert_int_equal(used(c), 2 * need + 3000);
    /* a claim passes to its picture */
    picture *p = add(c, 1);
    piccache_shrink_claim(&a, 0, 0);
    assert_int_equal(used(c), 2 * need + 1000);
    encode_it(p);
    assert_int_equal(used(c), need + 1000 + sizeof(picture) + rows);
    /* what nobody uses gives way, but is not freed here */
    picture_release(p);
    assert_int_equal(used(c), need + 1000 + sizeof(picture) + rows);
    assert_true(piccache_claim(c, &b, room - need - 1000, 0, &wait, &st));
    assert_true(wait);
    assert_int_equal(used(c), room);
    assert_null(piccache_find(c, (const uint8_t[IMAGE_KEY_BYTES]){1, 0, 7}));
    piccache_collect(c);
    piccache_unclaim(&b);
    assert_true(piccache_claim(c, &b, 1, 0, &wait, &st));
    assert_false(wait);
    /* one that is given up before its encode */
    p = add(c, 2);
    assert_int_equal(used(c), need + 1000 + 1 + need);
    picture_release(p);
    piccache_unclaim(&a);
    piccache_unclaim(&b);
    piccache_unclaim(&d);
    piccache_unclaim(&d);
    assert_int_equal(used(c), 0);
    piccache_free(c);
}

static void random_claims(void **state) {
    (void)state;
    rng r = {9};
    for (int round = 0; round < 50; round++) {
        enum { N = 12 };
        picture_claim claim[N] = {0};
        picture *held[N] = {NULL};
        status st = {0};
        piccache *c = piccache_new(round % 2 ? 3000 : 0, &st);
        const size_t room = 20000;
        int decoders = 1 + (int)rnd(&r, 3);
        piccache_set_room(c, room, decoders);
        for (int turn = 0; turn < 1000; turn++) {
            uint32_t i = rnd(&r, N);
            bool wait = false;
            if (held[i]) {
                if (!held[i]->ready && rnd(&r, 2)) {
                    encode_it(held[i]);
                } else {
                    picture_release(held[i]);
                    held[i] = NULL;
                }
            } else if (!claim[i].cache) {
                status no = {0};
                if (!piccache_claim(c, &claim[i], piccache_need(PIXELS, ENCODE), 1 + rnd(&r, 6000), &wait,
                                    &no))
                    assert_int_equal(no.code, ST_BUSY);
            } else if (rnd(&r, 3)) {
                held[i] = add(c, rnd(&r, 8));
                piccache_unclaim(&claim[i]);
            } else {
                piccache_unclaim(&claim[i]);
            }
            if (wait) piccache_collect(c);
            assert_true(used(c) <= room);
        }
        for (int i = 0; i < N; i++) {
            piccache_unclaim(&claim[i]);
            picture_release(held[i]);
        }
        piccache_stats s;
        piccache_get_stats(c, &s);
        assert_int_equal(s.used, s.bytes);
        piccache_free(c);
    }
}

/* ---- the order ---- */

enum { JOBS = 24 };

typedef struct log_entry {
    answer a;
    int id;
} log_entry;
static int g_first[JOBS], g_n_first, g_done[JOBS], g_n_done;

static void note(void *user, const engine_event *ev) {
    log_entry *l = user;
    if (ev->kind == ENGINE_TOKENS && l->a.n == 0) g_first[g_n_first++] = l->id;
    if (ev->kind == ENGINE_DONE) g_done[g_n_done++] = l->id;
    on_event(&l->a, ev);
}

static seq *enter(world *w, int priority, int n_prompt, int max_tokens, log_entry *l) {
    prompt *pr = mem_calloc(1, sizeof *pr);
    for (int i = 0; i < n_prompt; i++) tok_ids_push(&pr->ids, 10 + l->id * 7 + i);
    status st = {0};
    engine_params p;
    params_default(w->kit.spec, &p);
    p.temperature = 0;
    p.ignore_eos = true;
    p.max_tokens = max_tokens;
    p.priority = priority;
    seq *s = seq_new(pr, &p, &w->kit, w->max_len, note, l, &st);
    assert_non_null(s);
    inbox_enter(&w->inbox, s);
    return s;
}

static void submit(world *w, int priority, int n_prompt, int max_tokens, log_entry *l) {
    inbox_post(&w->inbox, enter(w, priority, n_prompt, max_tokens, l));
}

static void start(world *w, int seqs, int pages, log_entry *jobs) {
    runner_options ro = {.max_rows = 64, .max_seqs = seqs, .max_len = MAX_LEN, .n_pages = pages};
    world_init(w, g_be, g_tok, MAX_LEN, &ro, 0);
    memset(jobs, 0, JOBS * sizeof *jobs);
    for (int i = 0; i < JOBS; i++) jobs[i].id = i;
    g_n_first = g_n_done = 0;
}

static void urgent_ones_first(void **state) {
    (void)state;
    static log_entry jobs[JOBS];
    for (uint32_t round = 0; round < 20; round++) {
        world w;
        rng r = {round};
        int priority[JOBS], want[JOBS];
        start(&w, 1, 64, jobs);
        for (int i = 0; i < JOBS; i++) {
            priority[i] = round ? (int)rnd(&r, 4) - 2 : 0;
            want[i] = i;
            for (int k = i; k > 0 && priority[want[k - 1]] > priority[want[k]]; k--) {
                int t = want[k];
                want[k] = want[k - 1];
                want[k - 1] = t;
            }
            submit(&w, priority[i], 5, 3, &jobs[i]);
        }
        while (sched_turn(w.sched)) continue;
        assert_int_equal(g_n_first, JOBS);
        assert_memory_equal(g_first, want, sizeof want);
        world_fini(&w);
        for (int i = 0; i < JOBS; i++) answer_fini(&jobs[i].a);
    }
}

/* Workers without a thread: what they hold when they stop comes in the order in which it would have been decoded. */
static void urgent_pictures_first(void **state) {
    (void)state;
    static log_entry jobs[JOBS];
    static const int priority[] = {0, 2, 0, -1, 2, -1}, want[] = {3, 5, 0, 2, 1, 4};
    world w;
    status st = {0};
    bool cancels;
    start(&w, 1, 64, jobs);
    workers *none = workers_new(0, &w.kit, w.pictures, &w.inbox, &st);
    assert_non_null(none);
    for (int i = 0; i < (int)ARRAY_LEN(priority); i++)
        workers_add(none, enter(&w, priority[i], 5, 3, &jobs[i]));
    workers_stop(none);
    seq_list posted = inbox_take(&w.inbox, &cancels);
    for (size_t i = 0; i < ARRAY_LEN(want); i++) {
        seq *s = seq_list_pop(&posted);
        assert_non_null(s);
        assert_int_equal(((log_entry *)s->user)->id, want[i]);
        inbox_leave(&w.inbox, s);
        seq_free(s);
    }
    assert_null(posted.head);
    workers_free(none);
    world_fini(&w);
}

/* Pages for little more than one long answer: an urgent job that comes late runs through; those that give way are the
 * youngest of the least urgent; everybody finishes, with the same tokens as alone. */
static void the_least_urgent_give_way(void **state) {
    (void)state;
    static log_entry jobs[JOBS], alone[JOBS];
    static const int priority[] = {1, 1, 0, 1, -1, 0};
    enum { N = ARRAY_LEN(priority) };
    world w;
    start(&w, 1, 64, alone);
    for (int i = 0; i < N; i++) submit(&w, 0, 20, 100, &alone[i]);
    while (sched_turn(w.sched)) continue;
    world_fini(&w);
    start(&w, N, kv_pages_of(120) + 3, jobs);
    for (int i = 0; i < N; i++) {
        submit(&w, priority[i], 20, 100, &jobs[i]);
        for (int turn = 0; turn < 4; turn++) sched_turn(w.sched);
    }
    while (sched_turn(w.sched)) continue;
    engine_stats stats;
    sched_get_stats(w.sched, &stats);
    assert_true(stats.preemptions > 0);
    assert_int_equal(g_n_done, N);
    static const int want[] = {4, 2, 5, 0, 1, 3};
    assert_memory_equal(g_done, want, sizeof want);
    for (int i = 0; i < N; i++) {
        assert_int_equal(jobs[i].a.n, 100);
        assert_memory_equal(jobs[i].a.ids, alone[i].a.ids, 100 * sizeof jobs[i].a.ids[0]);
        answer_fini(&jobs[i].a);
        answer_fini(&alone[i].a);
    }
    world_fini(&w);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(queue_bounds),
        cmocka_unit_test(retry_after),
        cmocka_unit_test(claims),
        cmocka_unit_test(random_claims),
        cmocka_unit_test(urgent_ones_first),
        cmocka_unit_test(urgent_pictures_first),
        cmocka_unit_test(the_least_urgent_give_way),
    };
    return cmocka_run_group_tests(tests, world_set_up, world_tear_down);
}
