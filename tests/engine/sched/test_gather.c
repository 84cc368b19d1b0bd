/* test_gather.c - pictures that are encoded together: who goes with whom, and what becomes of the others when one holder leaves,
 * one picture fails, memory is short or the device is lost. By rows that a picture encoded alone has, and by the cache's own
 * account of memory; answers under random schedules are test_sched.c's. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "engine/gather.h"
#include "tests/engine/sched/fake_model.h"
#include "tests/engine/sched/world.h"

#include "tests/engine/sched/schedule.h"

enum { ENCODE_BYTES = 1000, SIDE = 2 };

static tiles pixels_of(uint32_t n) {
    tiles im = one_tile(SIDE, SIDE, NULL);
    for (uint32_t i = 0; i < 12; i++) im.rgb[i] = (uint8_t)(fake_mix(n, i) % 250);
    if (n == 99) im.rgb[0] = FAKE_POISON_PIXEL;
    return im;
}

static picture *add(piccache *c, uint32_t n) {
    uint8_t key[IMAGE_KEY_BYTES];
    tiles im = pixels_of(n);
    status st = {0};
    for (uint32_t i = 0; i < IMAGE_KEY_BYTES; i++) key[i] = (uint8_t)fake_mix(n, i);
    picture *p = piccache_add(c, key, key, &im, ENCODE_BYTES, &st);
    assert_non_null(p);
    return p;
}

static picture *find(piccache *c, uint32_t n) {
    uint8_t key[IMAGE_KEY_BYTES];
    for (uint32_t i = 0; i < IMAGE_KEY_BYTES; i++) key[i] = (uint8_t)fake_mix(n, i);
    return piccache_find(c, key);
}

static void check_rows(const picture *p, uint32_t n) {
    tiles im = pixels_of(n);
    arena counting = {0};
    ctx dry = {.scratch = &counting, .dry = true};
    encode *alone = encode_new(NULL, NULL, &im, NULL);
    assert_true(encode_run(&dry, alone, FAKE_ENCODE_SLICES));
    assert_true(p->ready);
    assert_memory_equal(p->enc->rows, alone->rows, sizeof alone->rows);
    encode_free(alone);
    tiles_fini(&im);
}

/* n slices more; true when the rows are there. */
static bool run(picture *p, int n) {
    arena counting = {0};
    ctx c = {.scratch = &counting, .dry = true};
    return encode_run(&c, p->enc, n);
}

/* Pictures 0 .. n-1 with one reference each. */
static void begin(piccache *c, const model *m, picture **all, int n) {
    gather g;
    status st = {0};
    for (int i = 0; i < n; i++) all[i] = add(c, (uint32_t)i);
    fake_room = n - 1;
    gather_begin(&g, m, all[0]);
    for (int i = 0; i < n; i++) gather_offer(&g, all[i]);
    assert_int_equal(g.n, n);
    assert_true(gather_start(&g, NULL, &st));
    for (int i = 0; i < n; i++) assert_non_null(all[i]->enc);
}

static size_t used(piccache *c, size_t *bytes) {
    piccache_stats s;
    piccache_get_stats(c, &s);
    if (bytes) *bytes = s.bytes;
    return s.used;
}

static piccache *new_cache(size_t bytes) {
    status st = {0};
    piccache *c = piccache_new(bytes, &st);
    assert_non_null(c);
    return c;
}

static void who_goes_with_whom(void **state) {
    (void)state;
    model *m = model_load("", NULL, NULL);
    piccache *c = new_cache(1 << 20);
    status st = {0};
    gather g;
    picture *a = add(c, 0), *b = add(c, 1), *d = add(c, 2), *begun = add(c, 3), *bad = add(c, 4);
    tiles other = one_tile(4, 2, NULL);
    picture *larger = piccache_add(c, NULL, (const uint8_t[IMAGE_KEY_BYTES]){1}, &other, 1, &st);
    begun->enc = encode_new(m, NULL, &begun->pixels, &st);
    bad->alone = true;
    fake_room = 2;
    gather_begin(&g, m, a);
    picture *const offers[] = {a, begun, bad, larger, b, b, a, d};
    for (size_t i = 0; i < ARRAY_LEN(offers); i++) gather_offer(&g, offers[i]);
    assert_int_equal(g.n, 3);
    assert_ptr_equal(g.all[1], b);
    assert_ptr_equal(g.all[2], d);
    assert_int_equal(g.room, 0);
    picture *late = add(c, 5);
    gather_offer(&g, late);
    assert_int_equal(g.n, 3);
    gather_begin(&g, m, bad); /* who failed with others goes alone */
    gather_offer(&g, a);
    assert_int_equal(g.n, 1);
    picture *const held[] = {a, b, d, begun, bad, larger, late};
    for (size_t i = 0; i < ARRAY_LEN(held); i++) picture_release(held[i]);
    piccache_free(c);
    model_free(m);
}

static void all_are_ready_at_once(void **state) {
    (void)state;
    model *m = model_load("", NULL, NULL);
    for (int shared = 0; shared < 2; shared++) {
        piccache *c = new_cache(shared ? 1 << 20 : 0);
        picture *all[3];
        begin(c, m, all, 3);
        assert_false(run(all[2], 2));
        assert_true(run(all[0], FAKE_ENCODE_SLICES - 2));
        assert_int_equal(picture_ready(all[1]), 3);
        for (uint32_t i = 0; i < 3; i++) {
            check_rows(all[i], i);
            picture_release(all[i]);
        }
        piccache_free(c);
        assert_int_equal(fake_encodes, 0);
    }
    model_free(m);
}

/* Its memory is in use for the others, so it stays, and counts, and may be asked for again. */
static void a_holder_leaves(void **state) {
    (void)state;
    model *m = model_load("", NULL, NULL);
    for (int shared = 0; shared < 2; shared++)
        for (int back = 0; back < 2; back++) {
            piccache *c = new_cache(shared ? 1 << 20 : 0);
            picture *all[3];
            size_t bytes, now, full;
            begin(c, m, all, 3);
            full = used(c, NULL);
            assert_true(full >= 3 * ENCODE_BYTES);
            assert_false(run(all[0], 2));
            picture_release(all[0]);
            picture_release(all[2]);
            assert_int_equal(used(c, NULL), full);
            picture *again = back && shared ? find(c, 2) : NULL;
            if (back && shared) assert_ptr_equal(again, all[2]);
            assert_true(run(all[1], 9));
            assert_int_equal(picture_ready(all[1]), 3);
            check_rows(all[1], 1);
            now = used(c, &bytes);
            assert_int_equal(now, bytes);
            if (again) check_rows(again, 2);
            picture *late = find(c, 0); /* what nobody waited for is kept like any other */
            assert_int_equal(late != NULL, shared);
            if (late) check_rows(late, 0);
            picture_release(late);
            picture_release(again);
            picture_release(all[1]);
            piccache_free(c);
            assert_int_equal(fake_encodes, 0);
        }
    model_free(m);
}

static void all_leave(void **state) {
    (void)state;
    model *m = model_load("", NULL, NULL);
    piccache *c = new_cache(1 << 20);
    picture *all[3];
    begin(c, m, all, 3);
    assert_false(run(all[1], 3));
    for (int i = 0; i < 3; i++) picture_release(all[i]);
    assert_int_equal(used(c, NULL), 0);
    assert_int_equal(fake_encodes, 0);
    for (uint32_t i = 0; i < 3; i++) assert_null(find(c, i));
    piccache_free(c);
    model_free(m);
}

static void a_failed_one(void **state) {
    (void)state;
    model *m = model_load("", NULL, NULL);
    piccache *c = new_cache(1 << 20);
    picture *all[3];
    gather g;
    status st = {0};
    begin(c, m, all, 3);
    picture_release(all[2]);
    assert_false(run(all[0], 2));
    assert_true(picture_reset(all[0])); /* several */
    assert_int_equal(fake_encodes, 0);
    assert_null(find(c, 2)); /* nobody held it */
    for (uint32_t i = 0; i < 2; i++) {
        assert_true(all[i]->alone && !all[i]->enc && all[i]->pixels.rgb);
        gather_begin(&g, m, all[i]);
        gather_offer(&g, all[1 - i]);
        assert_int_equal(g.n, 1);
        assert_true(gather_start(&g, NULL, &st));
        assert_true(run(all[i], 9));
        assert_int_equal(picture_ready(all[i]), 1);
        check_rows(all[i], i);
    }
    picture *one = add(c, 7);
    gather_begin(&g, m, one);
    assert_true(gather_start(&g, NULL, &st));
    assert_false(picture_reset(one)); /* it was alone */
    picture_release(one);
    for (int i = 0; i < 2; i++) picture_release(all[i]);
    piccache_free(c);
    model_free(m);
}

static void memory_is_short(void **state) {
    (void)state;
    model *m = model_load("", NULL, NULL);
    piccache *c = new_cache(1 << 20);
    picture *all[3];
    gather g;
    for (int most = 0; most < 2; most++) {
        status st = {0};
        for (int i = 0; i < 3; i++) all[i] = add(c, (uint32_t)i);
        fake_room = 2;
        gather_begin(&g, m, all[0]);
        for (int i = 1; i < 3; i++) gather_offer(&g, all[i]);
        fake_encode_most = most;
        assert_int_equal(gather_start(&g, NULL, &st), most == 1);
        if (!most) assert_int_equal(st.code, ST_NO_MEMORY);
        assert_int_equal(all[0]->enc != NULL, most == 1);
        assert_true(!all[1]->enc && !all[2]->enc && !all[0]->beside);
        for (int i = 0; i < 3; i++) picture_release(all[i]);
    }
    fake_encode_most = FAKE_MOST_TOGETHER;
    piccache_free(c);
    model_free(m);
}

/* ---- with the scheduler ---- */

/* A prompt of a picture and a few tokens. */
static prompt *ask(uint32_t n) {
    prompt *p = mem_calloc(1, sizeof *p);
    p->images = mem_calloc(1, sizeof *p->images);
    p->rows = mem_calloc(1, sizeof *p->rows);
    p->n_images = p->n_rows = 1;
    p->rows[0] = (prompt_rows){0, FAKE_IMAGE_ROWS, 0, 0};
    for (int k = 0; k < FAKE_IMAGE_ROWS; k++) tok_ids_push(&p->ids, FAKE_IMAGE_TOKEN);
    for (int k = 0; k < 5; k++) tok_ids_push(&p->ids, 10 + k);
    prompt_image *im = &p->images[0];
    im->param = mem_strdup("messages[0]");
    im->n_rows = FAKE_IMAGE_ROWS;
    im->encode_bytes = ENCODE_BYTES;
    im->pixels = pixels_of(n);
    image_key(&im->pixels, SIDE, SIDE, &(prep_spec){0}, im->key);
    return p;
}

enum { JOBS = 4 };

/* cancel, bad: which of the four; -1: none. */
static void serve(bool async, int together, int cancel, int bad, answer *a) {
    world w;
    runner_options ro = {64, JOBS, SCHED_MAX_LEN, 64, DT_F32, false};
    uint64_t numbers[JOBS];
    engine_params p;
    engine_stats stats;
    world_async = async;
    world_picture_bytes = 1 << 20;
    fake_room = together;
    fake_lots = 0;
    world_init(&w, g_be, g_tok, SCHED_MAX_LEN, &ro, 0);
    params_default(w.kit.spec, &p);
    p.temperature = 0;
    p.max_tokens = 8;
    p.ignore_eos = true;
    for (int i = 0; i < JOBS; i++) numbers[i] = world_submit(&w, ask(i == bad ? 99 : (uint32_t)i), &p, &a[i]);
    if (cancel >= 0) {
        if (async) sched_turn(w.sched); /* in the middle of the encode, as far as the device has come */
        inbox_cancel(&w.inbox, numbers[cancel]);
        sched_turn(w.sched);
        assert_int_equal(a[cancel].n_final, 1); /* within one turn */
        assert_int_equal(a[cancel].code, ST_CANCELLED);
    }
    while (sched_turn(w.sched)) continue;
    sched_get_stats(w.sched, &stats);
    if (together >= JOBS - 1) assert_int_equal(fake_lots, 1);
    assert_int_equal(stats.images, bad >= 0 ? JOBS - 1 : cancel >= 0 && !async ? JOBS - 1 : JOBS);
    world_fini(&w);
    assert_int_equal(fake_encodes, 0);
}

static void others_go_on(void **state) {
    (void)state;
    answer alone[JOBS] = {0};
    log_set_level(LOG_ERROR + 1);
    serve(false, 0, -1, -1, alone);
    for (int async = 0; async < 2; async++)
        for (int who = -1; who < JOBS; who++)
            for (int fails = 0; fails < 2; fails++) {
                answer got[JOBS] = {0};
                serve(async, JOBS - 1, fails ? -1 : who, fails ? who : -1, got);
                for (int i = 0; i < JOBS; i++) {
                    assert_int_equal(got[i].n_final, 1);
                    if (i == who)
                        assert_int_equal(got[i].code, fails ? ST_INTERNAL : ST_CANCELLED);
                    else
                        assert_true(answer_same(&got[i], &alone[i]));
                    answer_fini(&got[i]);
                }
            }
    for (int i = 0; i < JOBS; i++) answer_fini(&alone[i]);
    log_set_level(LOG_ERROR);
}

static void a_lost_device_ends_all(void **state) {
    (void)state;
    log_set_level(LOG_ERROR + 1);
    for (int async = 0; async < 2; async++) {
        answer got[JOBS] = {0};
        world w;
        runner_options ro = {64, JOBS, SCHED_MAX_LEN, 64, DT_F32, false};
        engine_params p;
        world_async = async;
        fake_room = JOBS - 1;
        world_init(&w, g_be, g_tok, SCHED_MAX_LEN, &ro, 0);
        params_default(w.kit.spec, &p);
        for (int i = 0; i < JOBS; i++) world_submit(&w, ask((uint32_t)i), &p, &got[i]);
        atomic_store(&fake_lost, 2);
        while (sched_turn(w.sched)) continue;
        atomic_store(&fake_lost, 0);
        for (int i = 0; i < JOBS; i++) {
            assert_int_equal(got[i].n_final, 1);
            assert_int_equal(got[i].code, ST_LOST);
            answer_fini(&got[i]);
        }
        world_fini(&w);
        assert_int_equal(fake_encodes, 0);
    }
    log_set_level(LOG_ERROR);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(who_goes_with_whom), cmocka_unit_test(all_are_ready_at_once),
        cmocka_unit_test(a_holder_leaves),    cmocka_unit_test(all_leave),
        cmocka_unit_test(a_failed_one),       cmocka_unit_test(memory_is_short),
        cmocka_unit_test(others_go_on),       cmocka_unit_test(a_lost_device_ends_all),
    };
    return cmocka_run_group_tests(tests, sched_set_up, world_tear_down);
}
