/* test_device_memory.c - weights of any number, size, type and stride arrive whole, and memory that was planned is used
 * again and is enough.
 * VLMD_DEVICE=cuda: on a GPU, or the emulated one; on the CPU, where nothing is copied, the same must hold. */
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

/* After the plan pieces come from the pool: zeroed, apart from each other, and used again when they are given back. */
static void test_planned_memory(void **state) {
    (void)state;
    enum { N = 12, POOL = 1 << 20 };
    rig r;
    status st = {0};
    assert_true(rig_init(&r, NULL, 1));
    const size_t before = backend_get_memory(r.be).free_bytes;
    assert_true(backend_seal(r.be, POOL, &st));
    const size_t planned = backend_get_memory(r.be).free_bytes;
    if (on_gpu())
        assert_in_range(before - planned, POOL, POOL + (8 << 20));
    else
        assert_int_equal(planned, 0);
    struct {
        uint8_t *p;
        int64_t n;
    } piece[N] = {0};
    uint8_t *host = malloc(POOL);
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
        piece[i].n = 1 + (int64_t)(draw(&seed) % (POOL / N / 2));
        piece[i].p = backend_alloc(r.be, (size_t)piece[i].n, &st);
        assert_non_null(piece[i].p);
        assert_int_equal((uintptr_t)piece[i].p % 64, 0);
        ctx_download(&r.c, host, tensor_1d(piece[i].p, DT_U8, piece[i].n));
        rig_ok(&r);
        for (int64_t k = 0; k < piece[i].n; k++) assert_int_equal(host[k], 0);
        memset(host, i + 1, (size_t)piece[i].n);
        ctx_upload(&r.c, tensor_1d(piece[i].p, DT_U8, piece[i].n), host);
        rig_ok(&r);
        /* At most half of the pool is in use: no more was taken. */
        assert_int_equal(backend_get_memory(r.be).free_bytes, planned);
    }
    for (int i = 0; i < N; i++)
        if (piece[i].p) backend_release(r.be, piece[i].p);
    void *whole = backend_alloc(r.be, POOL, &st); /* the gaps have joined */
    assert_non_null(whole);
    assert_int_equal(backend_get_memory(r.be).free_bytes, planned);
    void *more = backend_alloc(r.be, POOL, &st); /* beyond the plan */
    assert_non_null(more);
    if (on_gpu()) assert_true(backend_get_memory(r.be).free_bytes < planned);
    backend_release(r.be, more);
    backend_release(r.be, whole);
    free(host);
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

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_weights_together),
        cmocka_unit_test(test_planned_memory),
        cmocka_unit_test(test_work_is_measured),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
