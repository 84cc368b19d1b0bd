/* test_idle.c - how long a device stood still (engine/idle.h), on a device whose clock the test turns: a work takes as long as
 * its lane's cost says, a step's inputs COPY_S, the host as long as the test says. Expected: the gaps in the union of all works, found by sorting. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "tests/engine/sched/fake_model.h"

#include "tests/engine/sched/delayed.h"
#include "tests/engine/sched/world.h"

enum { LEN = 160, MOST_WORKS = 4096 };

typedef struct stretch {
    double begin, end;
} stretch;

static const double COPY_S = 0.25;
static double g_host_s, g_lane_s[CTX_LANES], g_cost_s[CTX_LANES];
static stretch g_works[MOST_WORKS];
static int g_n_works, g_n_pictures, g_stamps[CTX_LANES];
static struct {
    const backend_mark *m;
    double at;
} g_marks[8];

/* ---- the device ---- */

static bool clock_stamp_init(backend_stamp *s, status *st) {
    (void)st;
    return (s->event = mem_calloc(1, sizeof(double))) != NULL;
}

static void clock_stamp_fini(backend_stamp *s) {
    mem_free(s->event);
}

/* The first of all is where the clock begins; then two enclose a work of their lane. */
static void clock_stamp(ctx *c, backend_stamp *s) {
    double *at = s->event, *lane = &g_lane_s[c->lane];
    int n = g_stamps[c->lane]++;
    if (c->lane == LANE_STEP && n == 0) {
        *at = g_host_s;
    } else if (n % 2 == (c->lane == LANE_STEP)) {
        *at = *lane = (*lane > g_host_s ? *lane : g_host_s) + (c->lane == LANE_STEP ? COPY_S : 0);
    } else {
        CHECK(g_n_works < MOST_WORKS);
        g_works[g_n_works].begin = *lane;
        *at = g_works[g_n_works++].end = *lane += g_cost_s[c->lane];
        g_n_pictures += c->lane == LANE_PICTURES;
    }
}

static double clock_seconds(const backend_stamp *from, const backend_stamp *to) {
    return *(double *)to->event - *(double *)from->event;
}

static double *mark_at(const backend_mark *m) {
    int i = 0;
    while (g_marks[i].m && g_marks[i].m != m) CHECK(++i < (int)ARRAY_LEN(g_marks));
    g_marks[i].m = m;
    return &g_marks[i].at;
}

static void clock_mark(ctx *c, backend_mark *m) {
    delayed_mark(c, m);
    *mark_at(m) = g_lane_s[c->lane];
}

static bool clock_reached(const backend_mark *m) {
    return g_host_s >= *mark_at(m);
}

static void clock_wait(ctx *c, backend_mark *m) {
    delayed_wait(c, m);
    if (*mark_at(m) > g_host_s) g_host_s = *mark_at(m);
}

static int set_up(void **state) {
    if (world_set_up(state) != 0) return -1;
    world_async = true;
    world_picture_bytes = 1 << 20;
    delay_backend(g_be);
    delayed_ops.stamp_init = clock_stamp_init;
    delayed_ops.stamp_fini = clock_stamp_fini;
    delayed_ops.stamp = clock_stamp;
    delayed_ops.stamp_seconds = clock_seconds;
    delayed_ops.mark = clock_mark;
    delayed_ops.reached = clock_reached;
    delayed_ops.wait = clock_wait;
    return 0;
}

/* ---- a world on it ---- */

static void begin(world *w, double step_s, double pictures_s) {
    runner_options ro = {64, 4, LEN, 64, DT_F32, false};
    memset(g_marks, 0, sizeof g_marks);
    memset(g_lane_s, 0, sizeof g_lane_s);
    memset(g_stamps, 0, sizeof g_stamps);
    g_host_s = 0;
    g_n_works = g_n_pictures = 0;
    g_cost_s[LANE_STEP] = step_s;
    g_cost_s[LANE_PICTURES] = pictures_s;
    world_init(w, g_be, g_tok, LEN, &ro, 0);
}

static void submit(world *w, uint32_t seed, bool pictures, bool poison, answer *a) {
    engine_params p;
    params_default(w->kit.spec, &p);
    p.temperature = 0;
    p.ignore_eos = true;
    for (rng r = {seed};;) {
        prompt *made = make_prompt(&(job_spec){.seed = seed, .poison_step = poison}, &r);
        p.max_tokens = 4 + (int)rnd(&r, 30);
        if (pictures == (made->n_images > 0)) {
            world_submit(w, made, &p, a);
            return;
        }
        prompt_free(made);
    }
}

/* Until nothing is left; each turn the host takes its time first. */
static void run(world *w, double turn_s, rng *r) {
    do g_host_s += r ? turn_s * rnd(r, 100) / 50 : turn_s;
    while (sched_turn(w->sched));
}

static double idle_of(world *w) {
    engine_stats s;
    sched_get_stats(w->sched, &s);
    return s.device_idle_seconds;
}

static int by_begin(const void *a, const void *b) {
    double x = ((const stretch *)a)->begin, y = ((const stretch *)b)->begin;
    return (x > y) - (x < y);
}

/* The gaps between works from..n_works, whatever the lane. */
static double gaps(int from) {
    static stretch all[MOST_WORKS];
    int n = g_n_works - from;
    double until, sum = 0;
    if (n <= 0) return 0;
    memcpy(all, g_works + from, (size_t)n * sizeof *all);
    qsort(all, (size_t)n, sizeof *all, by_begin);
    until = all[0].end;
    for (int i = 1; i < n; i++) {
        if (all[i].begin > until) sum += all[i].begin - until;
        if (all[i].end > until) until = all[i].end;
    }
    return sum;
}

static void is_near(double got, double want) {
    if (!(got - want < 1e-6 && want - got < 1e-6)) fail_msg("%.9g instead of %.9g", got, want);
}

/* ---- tests ---- */

/* The device waits for a step's inputs alone. */
static void a_quick_host(void **state) {
    (void)state;
    world w;
    answer a = {0};
    begin(&w, 1, 1);
    submit(&w, 1, false, false, &a);
    run(&w, 0.25, NULL);
    assert_true(g_n_works > 4);
    is_near(idle_of(&w), COPY_S * (g_n_works - 1));
    world_fini(&w);
    answer_fini(&a);
}

/* A step takes 1 s with its copy and the host is there every 3 s. Between two requests nothing counts. */
static void a_late_host(void **state) {
    (void)state;
    world w;
    answer a[2] = {0};
    begin(&w, 1 - COPY_S, 1);
    for (int i = 0; i < 2; i++) {
        submit(&w, 1 + (uint32_t)i, false, false, &a[i]);
        run(&w, 3, NULL);
        g_host_s += 1000;
    }
    assert_true(g_n_works > 8);
    is_near(idle_of(&w), (2 + COPY_S) * (g_n_works - 2));
    world_fini(&w);
    for (int i = 0; i < 2; i++) answer_fini(&a[i]);
}

/* Steps and pictures side by side, quick and late, short and long. */
static void pictures_beside(void **state) {
    (void)state;
    double all = 0, steps_alone = 0;
    for (uint32_t seed = 1; seed <= 40; seed++) {
        world w;
        answer a[8] = {0};
        rng r = {seed};
        double want = 0;
        begin(&w, 1, 0.2 + rnd(&r, 60) / 10.0);
        for (int round = 0; round < 2; round++) {
            int from = g_n_works;
            for (uint32_t i = 0; i < 4; i++) submit(&w, seed * 97 + i, i % 2, false, &a[4 * round + (int)i]);
            run(&w, 0.1 + rnd(&r, 30) / 10.0, &r);
            want += gaps(from);
            g_host_s += 500;
        }
        assert_true(g_n_pictures > 0);
        is_near(idle_of(&w), want);
        all += want;
        steps_alone += want > 0;
        world_fini(&w);
        for (int i = 0; i < 8; i++) answer_fini(&a[i]);
    }
    assert_true(all > 100 && steps_alone > 20);
}

/* What was under way when a step failed counts for nothing, later works do. */
static void after_a_failure(void **state) {
    (void)state;
    world w;
    answer a[3] = {0};
    begin(&w, 1 - COPY_S, 1);
    log_set_level(LOG_ERROR + 1);
    submit(&w, 1, false, true, &a[0]);
    submit(&w, 2, false, false, &a[1]);
    run(&w, 3, NULL);
    log_set_level(LOG_ERROR);
    assert_true(a[0].error && !a[1].error);
    double before = idle_of(&w);
    assert_true(before > 0 && before < gaps(0));
    int from = g_n_works;
    submit(&w, 3, false, false, &a[2]);
    run(&w, 3, NULL);
    is_near(idle_of(&w), before + (2 + COPY_S) * (g_n_works - from - 1));
    world_fini(&w);
    for (int i = 0; i < 3; i++) answer_fini(&a[i]);
}

/* A work that stays under way while others come and go: beyond what there is room for they are left out, and it goes on. */
static void more_than_there_is_room_for(void **state) {
    (void)state;
    world w;
    answer a[2] = {0};
    begin(&w, 1 - COPY_S, 1);
    ctx *steps = &w.runner.c, *pictures = &w.runner.pictures;
    idle *d = &w.runner.idle;
    uint64_t slow = idle_begin(d, pictures);
    for (int i = 0; i < 3 * IDLE_WORKS; i++) {
        uint64_t n = idle_begin(d, steps);
        idle_end(d, steps, n);
        g_host_s += 2;
        idle_landed(d, n, true);
        is_near(d->seconds, 0);
    }
    g_cost_s[LANE_PICTURES] = g_host_s;
    idle_end(d, pictures, slow);
    idle_landed(d, slow, true);
    is_near(d->seconds, 0);
    assert_int_equal(d->head, d->tail);
    idle_rest(d);
    submit(&w, 1, false, false, &a[0]);
    int from = g_n_works;
    run(&w, 3, NULL);
    is_near(idle_of(&w), (2 + COPY_S) * (g_n_works - from - 1));
    world_fini(&w);
    answer_fini(&a[0]);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_quick_host),
        cmocka_unit_test(a_late_host),
        cmocka_unit_test(pictures_beside),
        cmocka_unit_test(after_a_failure),
        cmocka_unit_test(more_than_there_is_room_for),
    };
    return cmocka_run_group_tests(tests, set_up, world_tear_down);
}
