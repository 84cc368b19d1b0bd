/* test_device_memory.c - weights of any number, size, type and stride arrive whole, uploads likewise, memory that was
 * planned is used again and is enough, and a backend of any device does its work from any thread.
 * VLMD_DEVICE=cuda: on a GPU, or the emulated one; on the CPU, where nothing is copied, the same must hold. */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/kernels/ops_util.h"

/* Tables of 16-bit numbers that say where they stand, most in one block as in a file, some with room between rows. */
typedef struct table {
    tensor host;
    int64_t rows, cols, ld;
} table;

static uint64_t draw(uint64_t *seed) {
    *seed ^= *seed << 13;
    *seed ^= *seed >> 7;
    *seed ^= *seed << 17;
    return *seed >> 8;
}

static uint16_t number_at(int which, int64_t row, int64_t col) {
    /* f16: any pattern without the top exponents, which are infinities and NaN */
    return (uint16_t)(((uint64_t)which * 7919 + (uint64_t)row * 104729 + (uint64_t)col * 31) % 0x7000);
}

static float f16_value(uint16_t bits) {
    _Float16 h;
    memcpy(&h, &bits, 2);
    return (float)h;
}

static void check_rows(rig *r, const weight *w, const table *t, int which, int64_t first, int64_t n) {
    int32_t *ids = op_ints(n);
    float *y = floats(n * t->cols);
    for (int64_t i = 0; i < n; i++) ids[i] = (int32_t)(first + i);
    op_embed(&r->c, tensor_2d(y, DT_F32, n, t->cols), w, tensor_1d(ids, DT_I32, n), 1);
    rig_ok(r);
    for (int64_t i = 0; i < n; i++)
        for (int64_t k = 0; k < t->cols; k++)
            if (y[i * t->cols + k] != f16_value(number_at(which, first + i, k)))
                fail_msg("table %d, row %d, column %d: %g", which, (int)(first + i), (int)k,
                         (double)y[i * t->cols + k]);
    op_free(ids);
    op_free(y);
}

static void test_weights_together(void **state) {
    (void)state;
    enum { N = 24 };
    rig r;
    status st = {0};
    table t[N];
    weight *w[2 * N];
    assert_true(rig_init(&r, NULL, 2));
    uint64_t seed = 5;
    size_t all = 0, at = 0;
    for (int i = 0; i < N; i++) {
        t[i].rows = 1 + (int64_t)(draw(&seed) % 300);
        t[i].cols = 1 + (int64_t)(draw(&seed) % 200);
        if (i == 7) t[i].rows = 9001, t[i].cols = 1999; /* larger than two chunks of an upload */
        t[i].ld = t[i].cols + (i % 5 == 3 ? 3 : 0);
        all += (size_t)(t[i].rows * t[i].ld);
    }
    uint16_t *block = op_alloc(all * sizeof *block);
    memset(block, 0xff, all * sizeof *block); /* NaN between rows */
    for (int i = N - 1; i >= 0; i--) {        /* declared in another order than they lie in */
        for (int64_t row = 0; row < t[i].rows; row++)
            for (int64_t k = 0; k < t[i].cols; k++)
                block[at + (size_t)(row * t[i].ld + k)] = number_at(i, row, k);
        t[i].host = tensor_2d(block + at, DT_F16, t[i].rows, t[i].cols);
        t[i].host.ld = t[i].ld;
        at += (size_t)(t[i].rows * t[i].ld);
    }
    for (int i = 0; i < N;
         i++) { /* each once more as a bias, which is widened; the first also both at once */
        w[i] = weight_declare(r.be, &t[i].host, i == 0 ? WEIGHT_TABLE | WEIGHT_VECTOR : WEIGHT_TABLE, &st);
        w[N + i] = weight_declare(r.be, &t[i].host, WEIGHT_VECTOR, &st);
        assert_non_null(w[i]);
        assert_non_null(w[N + i]);
    }
    size_t least = 0;
    for (int i = 0; i < N; i++) least += (size_t)(t[i].rows * t[i].cols) * 6;
    if (on_gpu()) assert_in_range(weights_bytes(r.be, w, 2 * N), least, least + 4 * least / 10 + 256 * 3 * N);
    if (!weights_load(r.be, w, 2 * N, &st)) fail_msg("%s", st.msg);
    for (int i = 0; i < N; i++) {
        check_rows(&r, w[i], &t[i], i, 0, t[i].rows < 40 ? t[i].rows : 40);
        check_rows(&r, w[i], &t[i], i, t[i].rows / 2, 1);
        check_rows(&r, w[i], &t[i], i, t[i].rows - 1, 1);
    }
    /* A bias of all numbers of a table: y = 0 w^T + b. */
    float *zero = floats(2);
    zero[0] = zero[1] = 0;
    for (int i = 0; i < N; i += 5) {
        const int64_t n = t[i].rows * t[i].cols;
        float *ones = floats(2 * n), *y = floats(n);
        for (int64_t k = 0; k < 2 * n; k++) ones[k] = 1;
        weight *m = new_weight(&r, tensor_2d(ones, DT_F32, n, 2), WEIGHT_LINEAR);
        op_linear(&r.c, tensor_2d(y, DT_F32, 1, n), tensor_2d(zero, DT_F32, 1, 2), m, w[N + i], ACT_NONE, 0);
        rig_ok(&r);
        for (int64_t k = 0; k < n; k++)
            if (y[k] != f16_value(number_at(i, k / t[i].cols, k % t[i].cols)))
                fail_msg("bias %d, number %d: %g", i, (int)k, (double)y[k]);
        weight_free(m);
        op_free(ones);
        op_free(y);
    }
    for (int i = 0; i < 2 * N; i++) weight_free(w[(i * 7) % (2 * N)]);
    op_free(zero);
    op_free(block);
    rig_fini(&r);
}

/* Of free memory, what comes and goes in a device's driver without anybody asking. */
static const size_t DRIVER = 16 << 20;

static void check_as_planned(const backend *be, size_t planned) {
    const size_t now = backend_get_memory((backend *)be).free_bytes;
    assert_in_range(now + DRIVER, planned, planned + 2 * DRIVER);
}

/* After the plan pieces come from the pool: zeroed, apart from each other, and used again when they are given back. */
static void test_planned_memory(void **state) {
    (void)state;
    enum { N = 12, ROOM = 1 << 20 }; /* of the pool, for the small ones */
    const size_t pool = 64 << 20;
    rig r;
    status st = {0};
    assert_true(rig_init(&r, NULL, 1));
    const size_t before = backend_get_memory(r.be).free_bytes;
    assert_true(backend_seal(r.be, pool, &st));
    const size_t planned = backend_get_memory(r.be).free_bytes;
    if (on_gpu())
        assert_in_range(before - planned, pool, pool + DRIVER);
    else
        assert_int_equal(planned, 0);
    uint8_t *all = backend_alloc(r.be, pool, &st);
    assert_non_null(all);
    backend_release(r.be, all);
    void *most = backend_alloc(r.be, pool - ROOM, &st);
    assert_non_null(most);
    struct {
        uint8_t *p;
        int64_t n;
    } piece[N] = {0};
    uint8_t *host = malloc(ROOM);
    assert_non_null(host);
    uint64_t seed = 11;
    for (int round = 0; round < 300; round++) {
        const int i = (int)(draw(&seed) % N);
        if (piece[i].p) { /* still only its own bytes? */
            ctx_download(&r.c, host, tensor_1d(piece[i].p, DT_U8, piece[i].n));
            rig_ok(&r);
            for (int64_t k = 0; k < piece[i].n; k++)
                if (host[k] != i + 1) fail_msg("piece %d holds %d at %d", i, host[k], (int)k);
            backend_release(r.be, piece[i].p);
            piece[i].p = NULL;
            continue;
        }
        piece[i].n = 1 + (int64_t)(draw(&seed) % (ROOM / N / 2));
        piece[i].p = backend_alloc(r.be, (size_t)piece[i].n, &st);
        assert_non_null(piece[i].p);
        assert_int_equal((uintptr_t)piece[i].p % 64, 0);
        /* At most half of the room is in use: no more was taken. */
        if (on_gpu()) assert_in_range((uintptr_t)piece[i].p, (uintptr_t)all, (uintptr_t)all + pool - 1);
        ctx_download(&r.c, host, tensor_1d(piece[i].p, DT_U8, piece[i].n));
        rig_ok(&r);
        for (int64_t k = 0; k < piece[i].n; k++) assert_int_equal(host[k], 0);
        memset(host, i + 1, (size_t)piece[i].n);
        ctx_upload(&r.c, tensor_1d(piece[i].p, DT_U8, piece[i].n), host);
        rig_ok(&r);
    }
    for (int i = 0; i < N; i++)
        if (piece[i].p) backend_release(r.be, piece[i].p);
    backend_release(r.be, most);
    void *whole = backend_alloc(r.be, pool, &st); /* the gaps have joined */
    if (on_gpu()) assert_ptr_equal(whole, all);
    assert_non_null(whole);
    check_as_planned(r.be, planned);
    void *more = backend_alloc(r.be, pool, &st); /* beyond the plan */
    assert_non_null(more);
    if (on_gpu()) assert_true(backend_get_memory(r.be).free_bytes + pool - DRIVER <= planned);
    backend_release(r.be, more);
    check_as_planned(r.be, planned);
    backend_release(r.be, whole);
    free(host);
    rig_fini(&r);
}

/* Is nothing done before somebody waits? Then what was not to wait is seen not to have. */
static bool lazy(void) {
#ifdef VLMD_CUDA_EMU
    const char *streams = getenv("EMU_STREAMS");
    return on_gpu() && !(streams && strcmp(streams, "eager") == 0);
#else
    return false;
#endif
}

static tensor row_of(void *p, int64_t n) {
    return tensor_2d(p, DT_F32, 1, n);
}

/* What is given back while work that reads it is under way: nobody waits, its bytes stay until that work is over, and who
 * finds no other room gets it then. */
static void test_given_back_under_way(void **state) {
    (void)state;
    enum { N = 1000, TIMES = 60, SMALL = 100 };
    const size_t pool = 64 << 20, large = 40 << 20;
    rig r;
    status st = {0};
    static float ones[N], zeros[N], got[N];
    assert_true(rig_init(&r, NULL, 1));
    assert_true(backend_seal(r.be, pool, &st));
    const size_t left = backend_get_memory(r.be).free_bytes;
    float *sum = op_copy_of(zeros, sizeof zeros);
    for (int i = 0; i < N; i++) ones[i] = 1;
    uint8_t *a = backend_alloc(r.be, large, &st);
    assert_non_null(a);
    ctx_upload(&r.c, tensor_1d(a, DT_F32, N), ones);
    for (int i = 0; i < TIMES; i++) op_add(&r.c, row_of(sum, N), row_of(a, N));
    backend_release(r.be, a);
    uint8_t *b = backend_alloc(r.be, pool - large - (1 << 20), &st);
    assert_non_null(b);
    if (lazy()) {
        assert_true(sum[0] < TIMES);
        assert_true(b >= a + large || b + pool - large <= a);
    }
    uint8_t *c = backend_alloc(r.be, large, &st);
    assert_non_null(c);
    if (lazy()) assert_true(sum[0] == TIMES); /* it has waited, but not for the device's memory */
    check_as_planned(r.be, left);
    ctx_download(&r.c, got, tensor_1d(c, DT_F32, N));
    rig_ok(&r);
    for (int i = 0; i < N; i++) assert_true(sum[i] == TIMES && got[i] == 0);
    backend_release(r.be, b);
    backend_release(r.be, c);
    /* More of them than moments are kept, on both lanes that compute. */
    memset(sum, 0, sizeof zeros);
    for (int i = 0; i < SMALL; i++) {
        void *p = backend_alloc(r.be, sizeof ones, &st);
        assert_non_null(p);
        r.c.lane = i / 8 % 2 ? LANE_PICTURES : LANE_STEP;
        for (int k = 0; k < N; k++) ones[k] = (float)(i + k);
        ctx_upload(&r.c, tensor_1d(p, DT_F32, N), ones);
        op_add(&r.c, row_of(sum, N), row_of(p, N));
        backend_release(r.be, p);
        if (i % 8 == 7) rig_ok(&r); /* the lanes take turns with the sum */
    }
    rig_ok(&r);
    for (int k = 0; k < N; k++) assert_true(sum[k] == SMALL * (SMALL - 1) / 2 + k * SMALL);
    r.c.lane = LANE_STEP;
    a = backend_alloc(r.be, pool, &st);
    assert_non_null(a);
    check_as_planned(r.be, left);
    backend_release(r.be, a);
    op_free(sum);
    rig_fini(&r);
}

/* Uploads are there for what is launched after them, whatever becomes of their source: from any memory, of any size, many at
 * once; and on their own lane for every other lane. They do not wait for the work before them. */
static void test_uploads(void **state) {
    (void)state;
    enum {
        MANY = 40,
        SIZE = 123457,
        ROUNDS = 3,
        LARGE = 3500000 /* more than the device keeps of all that is under way */
    };
    rig r;
    status st = {0};
    assert_true(rig_init(&r, NULL, 1));
    float *sum = floats(1), one = 1;
    *sum = 0;
    float *ones = backend_alloc(r.be, sizeof one, &st),
          *large = backend_alloc(r.be, LARGE * sizeof *large, &st);
    uint8_t *pinned = backend_alloc_host(r.be, SIZE, &st), *paged = malloc(LARGE * sizeof *large), *dev[MANY];
    assert_true(ones && large && pinned && paged);
    for (int i = 0; i < MANY; i++) assert_non_null(dev[i] = backend_alloc(r.be, SIZE, &st));
    ctx_upload(&r.c, row_of(ones, 1), &one);
    for (int round = 0; round < ROUNDS; round++) {
        const int lanes[] = {LANE_STEP, LANE_LOAD, LANE_PICTURES};
        for (int i = 0; i < 50; i++) op_add(&r.c, row_of(sum, 1), row_of(ones, 1));
        r.c.lane = lanes[round];
        for (int i = 0; i < MANY; i++) {
            const size_t n = i % 4 ? (size_t)(i * 11 % 1000 + 1) : SIZE;
            uint8_t *from = i == 20 ? pinned : paged;
            memset(from, round + i, n);
            ctx_upload(&r.c, tensor_1d(dev[i], DT_U8, (int64_t)n), from);
            memset(paged, 0xee, n);
            if (lazy()) assert_true(*sum < (float)(50 * (round + 1)));
        }
        if (lanes[round] == LANE_PICTURES) ctx_sync(&r.c); /* no other lane waits for that one by itself */
        r.c.lane = LANE_STEP;
        for (int i = 0; i < MANY; i++) {
            const size_t n = i % 4 ? (size_t)(i * 11 % 1000 + 1) : SIZE;
            ctx_download(&r.c, paged, tensor_1d(dev[i], DT_U8, (int64_t)n));
            rig_ok(&r);
            for (size_t k = 0; k < n; k++)
                if (paged[k] != round + i)
                    fail_msg("round %d, upload %d holds %d at %d", round, i, paged[k], (int)k);
        }
        assert_true(*sum == (float)(50 * (round + 1)));
        float *numbers = (float *)(void *)paged;
        for (int k = 0; k < LARGE; k++) numbers[k] = (float)(k % 9973 + round);
        r.c.lane = lanes[round];
        ctx_upload(&r.c, tensor_1d(large, DT_F32, LARGE), numbers);
        memset(paged, 0, LARGE * sizeof *large);
        ctx_download(&r.c, paged, tensor_1d(large, DT_F32, LARGE));
        rig_ok(&r);
        for (int k = 0; k < LARGE; k++)
            if (numbers[k] != (float)(k % 9973 + round))
                fail_msg("round %d, number %d: %g", round, k, (double)numbers[k]);
        r.c.lane = LANE_STEP;
    }
    for (int i = 0; i < MANY; i++) backend_release(r.be, dev[i]);
    backend_release(r.be, ones);
    backend_release(r.be, large);
    backend_release_host(r.be, pinned);
    op_free(sum);
    free(paged);
    rig_fini(&r);
}

/* Decoding rows over pages of many keys: what the op wants for that, a dry run with nothing in memory has said. */
static void test_work_is_measured(void **state) {
    (void)state;
    enum {
        SEQS = 3,
        HEADS = 4,
        HD = 12,
        PAGES = 4,
        KEYS = 3000,
        LD = (KEYS + KV_PAGE_TOK - 1) / KV_PAGE_TOK
    };
    rig r;
    status st = {0};
    assert_true(rig_init(&r, NULL, 1));
    const int64_t rows[] = {SEQS, HEADS, HD}, pool[] = {PAGES, 1, KV_PAGE_TOK, HD};
    tensor x = tensor_of(NULL, DT_F32, 3, rows), kv = tensor_of(NULL, DT_F32, 4, pool);
    attn_args a = {.scale = 1,
                   .causal = true,
                   .n_seqs = SEQS,
                   .q_start = tensor_1d(NULL, DT_I32, SEQS + 1),
                   .kv_len = tensor_1d(NULL, DT_I32, SEQS),
                   .pages = tensor_2d(NULL, DT_I32, SEQS, LD)};
    ctx dry = r.c;
    arena counting = {0};
    dry.dry = true;
    dry.scratch = &counting;
    op_attn(&dry, x, x, kv, kv, &a);
    assert_true(ctx_ok(&dry));
    const size_t work = backend_get_memory(r.be).work_bytes;
    if (on_gpu()) assert_true(work >= SEQS * HEADS * HD * sizeof(float));
    assert_true(backend_seal(r.be, 0, &st)); /* from here on no op gets more than that */
    int32_t *ints = op_ints(SEQS + 1 + SEQS + SEQS * LD);
    for (int i = 0; i <= SEQS; i++) ints[i] = i;
    for (int i = 0; i < SEQS; i++) ints[SEQS + 1 + i] = KEYS - i;
    for (int i = 0; i < SEQS * LD; i++) ints[2 * SEQS + 1 + i] = 1 + i % (PAGES - 1);
    a.q_start.data = ints;
    a.kv_len.data = ints + SEQS + 1;
    a.pages.data = ints + 2 * SEQS + 1;
    uint64_t seed = 3;
    x.data = random_floats(&seed, SEQS * HEADS * HD, 1);
    kv.data = random_floats(&seed, PAGES * KV_PAGE_TOK * HD, 1);
    op_attn(&r.c, x, x, kv, kv, &a);
    rig_ok(&r);
    op_free(ints);
    op_free(x.data);
    op_free(kv.data);
    rig_fini(&r);
}

/* ---- another device, another thread ---- */

/* Everything that a backend is asked for, by whoever calls. False: c's status says why, or a number is wrong. */
typedef struct errand {
    backend *be;
    weight *w; /* [4, 3] */
    backend_mark *mark;
    backend_graph *graph;
    float *dev, *host; /* [2, 4] and before that [2, 3]; host pinned */
    ctx c;
    bool ok;
} errand;

enum { IN = 3, OUT = 4, X_ROOM = 16 /* floats */ };

static void forward(errand *e) {
    op_linear(&e->c, tensor_2d(e->dev + X_ROOM, DT_F32, 2, OUT), tensor_2d(e->dev, DT_F32, 2, IN), e->w, NULL,
              ACT_NONE, 0);
}

/* x = k, so y = k times a row's sum. */
static bool run_errand(errand *e, float k) {
    float x[2 * IN], y[2 * OUT];
    for (int i = 0; i < 2 * IN; i++) x[i] = k;
    ctx_upload(&e->c, tensor_2d(e->dev, DT_F32, 2, IN), x);
    if (e->graph)
        ctx_replay(&e->c, e->graph);
    else
        forward(e);
    ctx_fetch(&e->c, e->host, tensor_2d(e->dev + X_ROOM, DT_F32, 2, OUT));
    ctx_mark(&e->c, e->mark);
    while (!mark_reached(e->mark)) continue;
    ctx_wait(&e->c, e->mark);
    ctx_download(&e->c, y, tensor_2d(e->dev + X_ROOM, DT_F32, 2, OUT));
    bool ok = ctx_ok(&e->c);
    for (int i = 0; ok && i < 2 * OUT; i++) ok = y[i] == k * (float)(3 + 9 * (i % OUT)) && y[i] == e->host[i];
    return ok;
}

static void *make_errand(void *arg) {
    static const float numbers[] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11};
    errand *e = arg;
    const tensor host = tensor_2d((void *)numbers, DT_F32, OUT, IN);
    e->c = (ctx){.be = e->be};
    e->w = weight_new(e->be, &host, WEIGHT_LINEAR, &e->c.st);
    e->dev = backend_alloc(e->be, 2 * X_ROOM * sizeof(float), &e->c.st);
    e->host = backend_alloc_host(e->be, 2 * OUT * sizeof(float), &e->c.st);
    e->mark = mark_new(e->be, &e->c.st);
    e->ok = e->w && e->dev && e->host && e->mark && run_errand(e, 1);
    return NULL;
}

static void *capture_errand(void *arg) {
    errand *e = arg;
    ctx_capture_begin(&e->c);
    forward(e);
    e->graph = ctx_capture_end(&e->c);
    e->ok = e->graph && run_errand(e, 2);
    return NULL;
}

static void *seal_errand(void *arg) {
    errand *e = arg;
    const size_t before = backend_get_memory(e->be).free_bytes;
    e->ok = backend_seal(e->be, 64 << 20, &e->c.st) &&
            backend_get_memory(e->be).free_bytes + (64 << 20) <= before && run_errand(e, 3);
    void *p = e->ok ? backend_alloc(e->be, 100, &e->c.st) : NULL;
    backend_release(e->be, p);
    e->ok = p && run_errand(e, 4);
    return NULL;
}

static void *end_errand(void *arg) {
    errand *e = arg;
    backend_graph_free(e->graph);
    mark_free(e->mark);
    weight_free(e->w);
    backend_release(e->be, e->dev);
    backend_release_host(e->be, e->host);
    backend_free(e->be);
    return NULL;
}

static void on_thread(void *(*run)(void *), errand *e) {
    pthread_t t;
    assert_int_equal(pthread_create(&t, NULL, run, e), 0);
    pthread_join(t, NULL);
    if (!e->ok) fail_msg("%s: %s", backend_describe(e->be), ctx_ok(&e->c) ? "wrong numbers" : e->c.st.msg);
}

/* Two devices side by side, each asked now by this thread and now by others, the last one of which ends it. */
static void test_devices_and_threads(void **state) {
    (void)state;
    static const char *const names[] = {"cuda:0", "cuda:1"};
    errand e[2] = {0};
    status st = {0};
    bool two = true;
    if (!on_gpu()) skip();
    for (int i = 0; i < 2; i++)
        if (!(e[i].be = backend_new(&(backend_options){.device = names[i], .threads = 1}, &st))) {
            assert_int_equal(st.code, ST_INVALID); /* a machine with one */
            assert_int_equal(i, 1);
            print_message("%s\n", st.msg);
            two = false;
            e[1].be = backend_new(&(backend_options){.device = names[0], .threads = 1}, &st);
            assert_non_null(e[1].be);
        }
    for (int i = 0; i < 2; i++) make_errand(&e[i]);
    for (int i = 0; i < 2; i++)
        if (!e[i].ok) fail_msg("%s: %s", names[i], e[i].c.st.msg);
    for (int i = 0; i < 2; i++) on_thread(capture_errand, &e[i]);
    for (int k = 5; k < 20; k++) assert_true(run_errand(&e[k * k % 3 != 0], (float)k));
    const size_t left = backend_get_memory(e[0].be).free_bytes;
    on_thread(seal_errand, &e[1]);
    if (two)
        assert_true(backend_get_memory(e[0].be).free_bytes + (32 << 20) > left); /* each its own memory */
    on_thread(seal_errand, &e[0]);
    for (int k = 5; k < 8; k++) assert_true(run_errand(&e[k % 2], (float)k));
    for (int i = 0; i < 2; i++) {
        pthread_t t;
        assert_int_equal(pthread_create(&t, NULL, end_errand, &e[i]), 0);
        pthread_join(t, NULL);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_weights_together),     cmocka_unit_test(test_planned_memory),
        cmocka_unit_test(test_given_back_under_way), cmocka_unit_test(test_uploads),
        cmocka_unit_test(test_work_is_measured),     cmocka_unit_test(test_devices_and_threads),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
