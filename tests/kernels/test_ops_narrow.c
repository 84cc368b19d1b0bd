/* test_ops_narrow.c - what goes into a product of many rows may be written in the weights' 16-bit type at once (ops.h:
 * op_linear_takes): the bits are those of the f32 result, rounded; elsewhere it is refused. */
#include "tests/kernels/attn_util.h"

static const dtype narrow_types[] = {DT_BF16, DT_F16};
enum { MANY = 17 /* rows of the least product that rounds */, GAP = 0x1234 };

/* Numbers of an op in f32 and, elsewhere, of the op in dt: as many rows with a gap behind each. */
typedef struct pair {
    float *wide;
    uint8_t *narrow;
    int64_t rows, ld;
    dtype dt;
} pair;

static pair pair_new(int64_t rows, int64_t ld, dtype dt) {
    pair p = {floats(rows * ld), op_alloc((size_t)(rows * ld) * 2), rows, ld, dt};
    for (int64_t i = 0; i < rows * ld; i++) { /* what is left alone stays different */
        p.wide[i] = -77;
        memcpy(p.narrow + 2 * i, (uint16_t[]){GAP}, 2);
    }
    return p;
}

static tensor pair_tensor(const pair *p, bool narrow, int64_t d) {
    tensor t = tensor_2d(narrow ? (void *)p->narrow : p->wide, narrow ? p->dt : DT_F32, p->rows, d);
    t.ld = p->ld;
    return t;
}

/* d: of a row; behind it nothing was written. */
static void pair_check(rig *r, pair *p, int64_t d, const char *what) {
    rig_ok(r);
    const int64_t n = p->rows * p->ld;
    uint8_t *want = malloc((size_t)n * 2);
    assert_non_null(want);
    ref_store(p->dt, want, p->wide, n);
    for (int64_t i = 0; i < n; i++) {
        if (i % p->ld >= d) memcpy(want + 2 * i, (uint16_t[]){GAP}, 2);
        if (i % p->ld < d && isnan(ref_from(p->dt, want, i)) && isnan(ref_from(p->dt, p->narrow, i)))
            continue;
        if (memcmp(want + 2 * i, p->narrow + 2 * i, 2) != 0)
            fail_msg("%s, %s: element %lld of rows of %lld: %g instead of %g", what, dtype_name(p->dt),
                     (long long)i, (long long)p->ld, ref_from(p->dt, p->narrow, i), ref_from(p->dt, want, i));
    }
    free(want);
    op_free_all(p->wide, p->narrow);
}

static void test_rows(void **state) {
    (void)state;
    if (!on_gpu()) skip();
    static const int64_t widths[] = {1, 3, 8, 17, 64, 100, 513, 1024};
    uint64_t seed = 31;
    rig r;
    assert_true(rig_init(&r, NULL, 1));
    for (size_t i = 0; i < 2 * ARRAY_LEN(widths); i++) {
        const dtype dt = narrow_types[i % 2];
        const int64_t d = widths[i / 2], n = ref_int(&seed, 1, 9), ld = d + (i % 3 ? 0 : 3);
        float *x = random_floats(&seed, n * d, 2), *u = random_floats(&seed, n * d, 2),
              *g = random_floats(&seed, 2 * d, 1);
        const float special[] = {65519.9f, 65520, -1e30f, INFINITY, -INFINITY, NAN, 1e-7f, 3e-8f};
        for (size_t k = 0; k < ARRAY_LEN(special) && (int64_t)k < n * d; k++) x[k] = special[k];
        for (int64_t k = 0; k < n * d && k < 8; k++) u[k] = 1; /* as they are where there is no activation */
        tensor xt = tensor_2d(x, DT_F32, n, d), ut = tensor_2d(u, DT_F32, n, d);
        weight *gain = new_weight(&r, tensor_1d(g, DT_F32, d), WEIGHT_VECTOR),
               *bias = new_weight(&r, tensor_1d(g + d, DT_F32, d), WEIGHT_VECTOR);
        const norm_kind kind = i % 5 ? NORM_RMS : NORM_LAYER;
        pair p = pair_new(n, ld, dt);
        for (int k = 0; k < 2; k++) op_norm(&r.c, pair_tensor(&p, k, d), xt, gain, bias, kind, 1e-5f, 0);
        pair_check(&r, &p, d, "norm");

        for (int a = ACT_NONE; a <= ACT_RELU; a++) {
            p = pair_new(n, ld, dt);
            for (int k = 0; k < 2; k++) op_glu(&r.c, pair_tensor(&p, k, d), xt, ut, (act)a);
            pair_check(&r, &p, d, "glu");
        }

        float *twice = op_copy_of(x, sizeof(float) * (size_t)(n * d));
        const norm_by after = {gain, bias, kind, 1e-5f, 1};
        p = pair_new(n, ld, dt);
        op_add_norm(&r.c, xt, ut, NULL, gain, pair_tensor(&p, false, d), &after);
        op_add_norm(&r.c, tensor_2d(twice, DT_F32, n, d), ut, NULL, gain, pair_tensor(&p, true, d), &after);
        pair_check(&r, &p, d, "add_norm");
        same_bits("add_norm", x, twice, n * d);
        weight_free(gain);
        weight_free(bias);
        op_free_all(x, u, g, twice);
    }
    rig_fini(&r);
}

/* x as f32 and rounded beforehand, y as f32 and rounded afterwards; with a bias, with and without activation. */
static void test_linear(void **state) {
    (void)state;
    if (!on_gpu()) skip();
    static const int64_t shapes[][3] = {
        {MANY, 8, 16}, {40, 33, 24}, {70, 64, 9}, {129, 48, 32}}; /* rows, k, out */
    uint64_t seed = 32;
    rig r;
    assert_true(rig_init(&r, NULL, 1));
    for (size_t i = 0; i < 2 * ARRAY_LEN(shapes); i++) {
        const dtype dt = narrow_types[i % 2];
        const int64_t n = shapes[i / 2][0], k = shapes[i / 2][1], out = shapes[i / 2][2],
                      ld = k + (i % 3 ? 0 : 8);
        float *x = random_floats(&seed, n * ld, 1), *ws = random_floats(&seed, out * k, 1),
              *b = random_floats(&seed, out, 1);
        uint8_t *xn = op_alloc((size_t)(n * ld) * 2), *wn = op_alloc((size_t)(out * k) * 2);
        ref_store(dt, xn, x, n * ld);
        ref_store(dt, wn, ws, out * k);
        tensor xt = tensor_2d(x, DT_F32, n, k), xnt = tensor_2d(xn, dt, n, k);
        xt.ld = xnt.ld = ld;
        weight *w = new_weight(&r, tensor_2d(wn, dt, out, k), WEIGHT_LINEAR),
               *bias = new_weight(&r, tensor_1d(b, DT_F32, out), WEIGHT_VECTOR);
        assert_int_equal(op_linear_takes(&r.c, n, w), dt);
        assert_int_equal(op_linear_takes(&r.c, MANY - 1, w), DT_F32);
        float *y = floats(4 * n * out);
        memset(y, 0, sizeof(float) * (size_t)(4 * n * out));
        for (int a = 0; a < 2; a++) {
            const act how = a ? ACT_QUICK_GELU : ACT_NONE;
            op_linear(&r.c, tensor_2d(y, DT_F32, n, out), xt, w, bias, how, 0);
            op_linear(&r.c, tensor_2d(y + n * out, DT_F32, n, out), xnt, w, bias, how, 0);
            op_linear(&r.c, tensor_2d(y + 2 * n * out, DT_F32, n, out), xnt, w, bias, how, LINEAR_ADD);
            op_linears(&r.c, xnt, (linear_to[]){{tensor_2d(y + 3 * n * out, DT_F32, n, out), w, bias}}, 1);
            rig_ok(&r);
            same_bits("x narrow", y, y + n * out, n * out);
            if (a == 0) same_bits("several, x narrow", y, y + 3 * n * out, n * out);
            for (int64_t e = 0; e < n * out; e++) assert_true(y[e] == y[2 * n * out + e]);
            memset(y + 2 * n * out, 0, sizeof(float) * (size_t)(n * out));
            for (int from = 0; from < 2; from++) {
                pair p = pair_new(n, out + (i % 3), dt);
                for (int to = 0; to < 2; to++)
                    op_linear(&r.c, pair_tensor(&p, to, out), from ? xnt : xt, w, bias, how, 0);
                pair_check(&r, &p, out, "linear");
            }
        }
        weight_free(w);
        weight_free(bias);
        op_free_all(x, ws, b, xn, wn, y);
    }
    rig_fini(&r);
}

enum { ROWS = 12, PAGES = 40, LONGEST = 20 };

/* Sequences of rows starts and keys lens, pages[LONGEST] of each that may be used: more or fewer than one split of keys. */
static void over_pages(rig *r, uint64_t *seed, int64_t h, int64_t kv, int64_t hd, dtype dt, int n_seqs,
                       const int32_t *starts, const int32_t *lens, int pages, int64_t ld) {
    const int64_t pool = PAGES * kv * KV_PAGE_TOK * hd, rows = starts[n_seqs];
    float *q = random_floats(seed, rows * h * hd, 1), *k = random_floats(seed, pool, 1),
          *v = random_floats(seed, pool, 1);
    int32_t *table = op_ints(n_seqs * pages);
    for (int e = 0; e < n_seqs * pages; e++) table[e] = 1 + (e * 7) % (PAGES - 1);
    attn_args a = attn_rows(n_seqs, starts, lens);
    a.scale = 0.2f;
    a.causal = true;
    a.narrow = dt;
    a.pages = tensor_2d(table, DT_I32, n_seqs, pages);
    tensor qt = tensor_3d(q, DT_F32, rows, h, hd),
           kt = tensor_of(k, DT_F32, 4, (int64_t[]){PAGES, kv, KV_PAGE_TOK, hd}), vt = kt;
    vt.data = v;
    for (int uniform = 0; uniform < 2; uniform++) {
        a.uniform = uniform;
        pair p = pair_new(rows, ld, dt);
        for (int to = 0; to < 2; to++)
            op_attn(&r->c, tensor_heads(pair_tensor(&p, to, h * hd), h, hd), qt, kt, vt, &a);
        pair_check(r, &p, h * hd, "attention over pages");
    }
    attn_rows_free(&a);
    op_free_all(q, k, v, table);
}

static void test_attn(void **state) {
    (void)state;
    if (!on_gpu()) skip();
    static const int64_t heads[][3] = {
        {4, 2, 64}, {2, 1, 30}, {3, 3, 6}, {8, 1, 128}}; /* heads, kv_heads, hd */
    uint64_t seed = 33;
    rig r;
    assert_true(rig_init(&r, NULL, 1));
    for (size_t i = 0; i < 2 * ARRAY_LEN(heads); i++) {
        const dtype dt = narrow_types[i % 2];
        const int64_t h = heads[i / 2][0], kv = heads[i / 2][1], hd = heads[i / 2][2],
                      ld = h * hd + (int64_t)(i % 3);
        /* several splits of keys, then one; rows that are alone beside others, then only such */
        over_pages(&r, &seed, h, kv, hd, dt, 3, (int32_t[]){0, 1, 11, 12}, (int32_t[]){300, 45, 20}, LONGEST,
                   ld);
        over_pages(&r, &seed, h, kv, hd, dt, 3, (int32_t[]){0, 1, 11, 12}, (int32_t[]){70, 45, 20}, 5, ld);
        over_pages(&r, &seed, h, kv, hd, dt, 4, (int32_t[]){0, 1, 2, 3, 4}, (int32_t[]){300, 1, 20, 256},
                   LONGEST, ld);
        over_pages(&r, &seed, h, kv, hd, dt, 4, (int32_t[]){0, 1, 2, 3, 4}, (int32_t[]){70, 1, 20, 64}, 5,
                   ld);
        float *q = random_floats(&seed, ROWS * h * hd, 1), *k = random_floats(&seed, 200 * kv * hd, 1),
              *v = random_floats(&seed, 200 * kv * hd, 1);
        attn_args a = attn_rows(1, (int32_t[]){0, ROWS}, (int32_t[]){200});
        a.scale = 0.2f;
        a.narrow = dt;
        const tensor qt = tensor_3d(q, DT_F32, ROWS, h, hd), kt = tensor_3d(k, DT_F32, 200, kv, hd),
                     vt = tensor_3d(v, DT_F32, 200, kv, hd);
        pair p = pair_new(ROWS, h * hd, dt);
        for (int to = 0; to < 2; to++)
            op_attn(&r.c, tensor_heads(pair_tensor(&p, to, h * hd), h, hd), qt, kt, vt, &a);
        pair_check(&r, &p, h * hd, "attention");
        a.narrow = DT_F32; /* y of another type than it rounds to */
        float *y = floats(ROWS * h * hd);
        op_attn(&r.c, tensor_3d(y, dt, ROWS, h, hd), qt, kt, vt, &a);
        rig_fails(&r, "attn: expected y of f32", "attn: expected y of f32 or of the type to narrow to");
        attn_rows_free(&a);
        op_free_all(q, k, v, y);
    }
    rig_fini(&r);
}

/* What the most rows take does for all, on both sides of where rounding begins. */
static void test_factor(void **state) {
    (void)state;
    rig r;
    assert_true(rig_init(&r, NULL, 1));
    float *f = floats(32 * 32);
    weight *w = new_weight(&r, tensor_2d(f, DT_BF16, 32, 32), WEIGHT_LINEAR);
    size_t before = 0;
    for (int rows = 1; rows < 70; rows++) {
        arena counting = {0};
        ctx dry = {.be = r.be, .scratch = &counting, .dry = true};
        const tensor t = ctx_factor(&dry, op_linear_takes(&dry, rows, w), rows, 32);
        assert_int_equal(t.d[0], rows);
        assert_int_equal(t.d[1], 32);
        assert_true(counting.peak_bytes >= before);
        assert_true(counting.peak_bytes >= (size_t)(rows * 32) * dtype_size(t.dt));
        before = counting.peak_bytes;
    }
    weight_free(w);
    op_free(f);
    rig_fini(&r);
}

/* f32 weights, few rows, sums, promised bits and a CPU know nothing but f32. */
static void test_refused(void **state) {
    (void)state;
    rig r;
    for (int exact = 0; exact < 2; exact++) RIG_EACH_AS(r, 1, exact) {
            float *f = floats(64 * 64);
            memset(f, 0, sizeof(float) * 64 * 64);
            weight *w = new_weight(&r, tensor_2d(f, DT_BF16, 32, 32), WEIGHT_LINEAR),
                   *wide = new_weight(&r, tensor_2d(f, DT_F32, 32, 32), WEIGHT_LINEAR);
            const bool some = on_gpu() && !exact;
            const tensor x = tensor_2d(f, DT_BF16, 32, 32), few = tensor_2d(f, DT_BF16, MANY - 1, 32),
                         other = tensor_2d(f, DT_F16, 32, 32), y = tensor_2d(f + 32 * 32, DT_F32, 32, 32),
                         y16 = tensor_2d(f + 32 * 32, DT_BF16, 32, 32);
            assert_int_equal(op_linear_takes(&r.c, 32, wide), DT_F32);
            assert_int_equal(op_linear_takes(&r.c, 32, w), some ? DT_BF16 : DT_F32);
            op_linear(&r.c, tensor_rows(y, 0, MANY - 1), few, w, NULL, ACT_NONE, 0);
            rig_fails(&r, "x: expected [-1,-1] f32", "x: expected [-1,-1] f32");
            op_linear(&r.c, y, other, w, NULL, ACT_NONE, 0);
            rig_fails(&r, "x: expected [-1,-1] f32",
                      some ? "x: expected [-1,-1] bf16" : "x: expected [-1,-1] f32");
            op_linear(&r.c, y, x, wide, NULL, ACT_NONE, 0);
            rig_fails(&r, "x: expected [-1,-1] f32", "x: expected [-1,-1] f32");
            op_linear(&r.c, y16, y, w, NULL, ACT_NONE, LINEAR_ADD);
            rig_fails(&r, "y: expected [32,32] f32", "y: expected [32,32] f32");
            op_linear(&r.c, tensor_rows(y16, 0, MANY - 1), tensor_rows(y, 0, MANY - 1), w, NULL, ACT_NONE, 0);
            rig_fails(&r, "y: expected [16,32] f32", "y: expected [16,32] f32");
            if (!some) {
                op_norm(&r.c, y16, y, NULL, NULL, NORM_RMS, 1, 1);
                rig_fails(&r, "norm: y: expected", "norm: y: expected");
                op_glu(&r.c, y16, y, y, ACT_NONE);
                rig_fails(&r, "glu: y: expected [-1,-1] f32", "glu: y: expected [-1,-1] f32");
            }
            weight_free(w);
            weight_free(wide);
            op_free(f);
            rig_fini(&r);
        }
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_rows), cmocka_unit_test(test_linear),
                                       cmocka_unit_test(test_attn), cmocka_unit_test(test_refused),
                                       cmocka_unit_test(test_factor)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
