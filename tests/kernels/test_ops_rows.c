/* test_ops_rows.c - norms, activations, embedding, gather, patches, transfers, errors: against double precision over awkward
 * shapes, with equal bits on every instruction set and thread count. */
#include "tests/kernels/ops_util.h"
#include "kernels/cpu/simd.h"
#ifdef VLMD_CUDA
#include "kernels/cuda/cuda.h"
#endif

static const int64_t widths[] = {1, 2, 3, 8, 15, 16, 17, 31, 33, 64, 100, 513, 2048};
static const dtype types[] = {DT_F32, DT_F16, DT_BF16};

/* Units in the last place of an f32 near x. */
static double ulp_at(double x) {
    int e;
    frexp(x, &e);
    return ldexp(1, e - 24 < -149 ? -149 : e - 24);
}

static void test_exp(void **state) {
    (void)state;
    if (on_gpu()) skip(); /* the CPU's own */
    const simd *all[] = {
        &simd_portable,
#if defined(__x86_64__)
        __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") ? &simd_avx2 : NULL,
        __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
                __builtin_cpu_supports("avx512vl")
            ? &simd_avx512
            : NULL
#endif
    };
    enum { N = 300001 };
    float *x = floats(N), *y = floats(N), *z = floats(N);
    uint64_t seed = 5;
    for (int i = 0; i < N; i++) x[i] = i % 3 ? -110 + 205 * (float)i / N : ref_normal(&seed);
    const float special[] = {0,      -0.0f,    INFINITY, -INFINITY, NAN,   88.72283f, 88.7229f,
                             -87.4f, -103.97f, -103.9f,  -104,      1e30f, -1e30f};
    memcpy(x, special, sizeof special);
    double worst = 0;
    for (size_t s = 0; s < ARRAY_LEN(all); s++) {
        if (!all[s]) continue;
        all[s]->exp(s ? z : y, x, N);
        if (s) same_bits(all[s]->name, y, z, N);
    }
    for (int i = 0; i < N; i++) {
        double want = exp((double)x[i]);
        if (isnan(x[i]))
            assert_true(isnan(y[i]));
        else if (want > 3.4028235677973366e38)
            assert_true(isinf(y[i]));
        else {
            double err = fabs(y[i] - want) / ulp_at(want);
            worst = err > worst ? err : worst;
        }
    }
    if (!(worst <= 2)) fail_msg("exp: %.3f ulp", worst);
    op_free_all(x, y, z);
}

static void test_act(void **state) {
    (void)state;
    enum { ROWS = 40, D = 1003 };
    uint64_t seed = 6;
    for (int a = ACT_NONE; a <= ACT_RELU; a++) {
        /* a sigmoid's argument that is itself rounded costs more far out on the small side */
        const double rel = a == ACT_GELU_TANH || a == ACT_QUICK_GELU ? 4e-6 : 1.2e-6;
        float *x = random_floats(&seed, ROWS * D, 3), *u = random_floats(&seed, ROWS * D, 1), *first = NULL;
        for (int i = 0; i < D; i++) x[i] = -30 + 60 * (float)i / D; /* the tails too */
        x[D] = NAN;
        x[D + 1] = INFINITY;
        x[D + 2] = 0;
        rig r;
        for (int threads = 1; threads <= most_threads(3); threads++) RIG_EACH(r, threads) {
                float *y = floats(2 * ROWS * D), *g = y + ROWS * D;
                memcpy(y, x, sizeof(float) * ROWS * D);
                op_act(&r.c, tensor_2d(y, DT_F32, ROWS, D), (act)a);
                op_glu(&r.c, tensor_2d(g, DT_F32, ROWS, D), tensor_2d(x, DT_F32, ROWS, D),
                       tensor_2d(u, DT_F32, ROWS, D), (act)a);
                rig_ok(&r);
                if (first) {
                    same_bits(r.isa, first, y, 2 * ROWS * D);
                    op_free(y);
                } else {
                    for (int i = 0; i < ROWS * D; i++) {
                        double want = ref_act(x[i], (act)a), tol = fabs(want) * rel + 1e-12;
                        near("act", y[i], want, tol);
                        near("glu", g[i], want * u[i], tol * (1 + fabs((double)u[i])));
                    }
                    first = y;
                }
                rig_fini(&r);
            }
        op_free_all(first, x, u);
    }
}

static void test_softcap(void **state) {
    (void)state;
    enum { ROWS = 30, D = 1003 };
    uint64_t seed = 16;
    const float caps[] = {0.5f, 30, 50};
    for (size_t k = 0; k < ARRAY_LEN(caps); k++) {
        float *x = random_floats(&seed, ROWS * D, 20), *first = NULL;
        for (int i = 0; i < D; i++) x[i] = (-4 + 8 * (float)i / D) * caps[k];
        const float special[] = {NAN, INFINITY, -INFINITY, 0, 1e-20f, -1e30f};
        memcpy(x, special, sizeof special);
        rig r;
        for (int threads = 1; threads <= most_threads(2); threads++) RIG_EACH(r, threads) {
                float *y = floats(ROWS * D);
                memcpy(y, x, sizeof(float) * ROWS * D);
                op_softcap(&r.c, tensor_2d(y, DT_F32, ROWS, D), caps[k]);
                rig_ok(&r);
                for (int i = 0; i < ROWS * D && !first; i++) {
                    double want = (double)caps[k] * tanh((double)x[i] / (double)caps[k]);
                    near("softcap", y[i], want, fabs(want) * 1e-6);
                }
                if (first) same_bits(r.isa, first, y, ROWS * D);
                if (first)
                    op_free(y);
                else
                    first = y;
                rig_fini(&r);
            }
        op_free(first);
        op_free(x);
    }
}

static void test_norm(void **state) {
    (void)state;
    uint64_t seed = 7;
    for (int t = 0; t < 60; t++) {
        int64_t d = widths[t % (int)ARRAY_LEN(widths)], n = ref_int(&seed, 1, 20),
                heads = t % 3 ? 1 : ref_int(&seed, 1, 4);
        norm_kind kind = t % 2 ? NORM_RMS : NORM_LAYER;
        bool with_gain = t % 7 != 0, with_bias = ref_int(&seed, 0, 1), in_place = ref_int(&seed, 0, 1);
        int64_t ld = d * heads + ref_int(&seed, 0, 3);
        float eps = 1e-5f, offset = (float)ref_int(&seed, 0, 1);
        float *x = random_floats(&seed, n * ld, 2), *gain = random_floats(&seed, d, 1),
              *bias = random_floats(&seed, d, 1);
        for (int64_t i = 0; i < n * ld; i++) x[i] += 1;
        float *first = NULL;
        rig r;
        for (int threads = 1; threads <= most_threads(2); threads++) RIG_EACH(r, threads) {
                float *y = floats(n * ld);
                memcpy(y, x, sizeof(float) * (size_t)(n * ld));
                /* gain as bf16 when it is exact there: a vector may have any type */
                weight *gw = new_weight(&r, tensor_1d(gain, DT_F32, d), WEIGHT_VECTOR),
                       *bw = new_weight(&r, tensor_1d(bias, DT_F32, d), WEIGHT_VECTOR);
                tensor xt, yt;
                if (heads > 1) {
                    xt = tensor_3d(in_place ? y : x, DT_F32, n, heads, d);
                    yt = tensor_3d(y, DT_F32, n, heads, d);
                } else {
                    xt = tensor_2d(in_place ? y : x, DT_F32, n, d);
                    yt = tensor_2d(y, DT_F32, n, d);
                }
                xt.ld = yt.ld = ld;
                op_norm(&r.c, yt, xt, with_gain ? gw : NULL, with_bias ? bw : NULL, kind, eps, offset);
                rig_ok(&r);
                weight_free(gw);
                weight_free(bw);
                if (first) {
                    same_bits(r.isa, first, y, n * ld);
                    op_free(y);
                } else {
                    first = y;
                    double *want = doubles(d);
                    for (int64_t i = 0; i < n; i++)
                        for (int64_t h = 0; h < heads; h++) {
                            ref_norm(want, x + i * ld + h * d, d, with_gain ? gain : NULL,
                                     with_bias ? bias : NULL, kind, eps, offset);
                            /* a width of 1 or 2 cancels: the error then scales with x / deviation */
                            double tol = d <= 3 && kind == NORM_LAYER ? 1e-3 : 4e-6;
                            for (int64_t k = 0; k < d; k++)
                                near("norm", y[i * ld + h * d + k], want[k], tol * (1 + fabs(want[k])));
                        }
                    free(want);
                }
                rig_fini(&r);
            }
        op_free_all(first, x, gain, bias);
    }
}

/* As one op behind the other, bit for bit; these are held to double precision above and below. */
static void test_add_norm(void **state) {
    (void)state;
    uint64_t seed = 21;
    rig r;
    for (int threads = 1; threads <= most_threads(2); threads++) RIG_EACH(r, threads) {
            for (int t = 0; t < 48; t++) {
                int64_t d = widths[t % (int)ARRAY_LEN(widths)], n = ref_int(&seed, 1, 20),
                        ld = d + ref_int(&seed, 0, 4);
                const bool before = t & 1, scaled = t & 2, after = t & 4, in_place = t & 8;
                float *g = random_floats(&seed, 5 * d, 1), *x = random_floats(&seed, n * ld, 2),
                      *h = random_floats(&seed, n * ld, 2), *y = random_floats(&seed, n * ld, 1);
                float *want_x = op_copy_of(x, sizeof(float) * (size_t)(n * ld)),
                      *want_h = op_copy_of(h, sizeof(float) * (size_t)(n * ld)),
                      *want_y = op_copy_of(in_place ? x : y, sizeof(float) * (size_t)(n * ld));
                weight *w[5];
                for (int i = 0; i < 5; i++)
                    w[i] = new_weight(&r, tensor_1d(g + i * d, DT_F32, d), WEIGHT_VECTOR);
                const norm_by a = {w[0], t % 3 ? w[1] : NULL, t % 5 ? NORM_RMS : NORM_LAYER, 1e-5f,
                                   (float)(t % 2)},
                              b = {t % 7 ? w[2] : NULL, w[3], t % 4 ? NORM_LAYER : NORM_RMS, 1e-6f, 1};
                tensor xt = tensor_2d(x, DT_F32, n, d), ht = tensor_2d(h, DT_F32, n, d),
                       yt = tensor_2d(in_place ? x : y, DT_F32, n, d), wx = tensor_2d(want_x, DT_F32, n, d),
                       wh = tensor_2d(want_h, DT_F32, n, d), wy = tensor_2d(want_y, DT_F32, n, d);
                xt.ld = ht.ld = yt.ld = wx.ld = wh.ld = wy.ld = ld;
                if (before) op_norm(&r.c, wh, wh, a.gain, a.bias, a.kind, a.eps, a.gain_offset);
                if (scaled)
                    op_add_scaled(&r.c, wx, wh, w[4]);
                else
                    op_add(&r.c, wx, wh);
                if (after) op_norm(&r.c, wy, wx, b.gain, b.bias, b.kind, b.eps, b.gain_offset);
                op_add_norm(&r.c, xt, ht, before ? &a : NULL, scaled ? w[4] : NULL, after ? yt : (tensor){0},
                            after ? &b : NULL);
                rig_ok(&r);
                same_bits(r.isa, in_place && after ? want_y : want_x, x, n * ld);
                if (!in_place) same_bits(r.isa, want_y, y, n * ld);
                for (int i = 0; i < 5; i++) weight_free(w[i]);
                op_free_all(g, x, h, y, want_x, want_h, want_y);
            }
            float x[4] = {0};
            tensor two = tensor_2d(x, DT_F32, 1, 2), three = tensor_2d(x, DT_F32, 1, 3);
            op_add_norm(&r.c, two, three, NULL, NULL, two, NULL);
            rig_fails(&r, "add_norm: h: expected [1,2] f32 (-1: any), found [1,3] f32", "add_norm: h");
            op_add_norm(&r.c, two, two, NULL, NULL, three, &(norm_by){.eps = 1});
            rig_fails(&r, "add_norm: y: expected [1,2] f32", "add_norm: y");
            rig_fini(&r);
        }
}

static void test_add_copy_gather(void **state) {
    (void)state;
    uint64_t seed = 8;
    rig r;
    RIG_EACH(r, 2) {
        for (int t = 0; t < 30; t++) {
            int64_t d = widths[t % (int)ARRAY_LEN(widths)], n = ref_int(&seed, 1, 60),
                    ld = d + ref_int(&seed, 0, 4);
            float *x = random_floats(&seed, n * ld, 1), *y = random_floats(&seed, n * ld, 1),
                  *old = floats(n * ld);
            memcpy(old, y, sizeof(float) * (size_t)(n * ld));
            int32_t *idx = op_ints(n);
            for (int64_t i = 0; i < n; i++) idx[i] = (int32_t)ref_int(&seed, 0, n - 1);
            tensor xt = tensor_2d(x, DT_F32, n, d), yt = tensor_2d(y, DT_F32, n, d);
            xt.ld = yt.ld = ld;
            op_add(&r.c, yt, xt);
            rig_ok(&r);
            for (int64_t i = 0; i < n * ld; i++) assert_true(y[i] == (i % ld < d ? old[i] + x[i] : old[i]));
            memcpy(old, y, sizeof(float) * (size_t)(n * ld));
            float *g = random_floats(&seed, d, 1);
            tensor host = tensor_1d(g, DT_F32, d);
            weight *gain = weight_new(r.be, &host, WEIGHT_VECTOR, NULL);
            op_add_scaled(&r.c, yt, xt, gain);
            rig_ok(&r);
            for (int64_t i = 0; i < n * ld; i++)
                assert_true(y[i] == (i % ld < d ? old[i] + g[i % ld] * x[i] : old[i]));
            weight_free(gain);
            op_free(g);
            op_copy(&r.c, yt, xt);
            rig_ok(&r);
            for (int64_t i = 0; i < n * ld; i++) assert_true(y[i] == (i % ld < d ? x[i] : old[i]));
            op_gather(&r.c, yt, xt, tensor_1d(idx, DT_I32, n));
            rig_ok(&r);
            for (int64_t i = 0; i < n; i++)
                assert_memory_equal(y + i * ld, x + idx[i] * ld, sizeof(float) * (size_t)d);
            for (int bad = 0; bad < 2; bad++) {
                idx[n - 1] = bad ? -1 : (int32_t)n;
                op_gather(&r.c, yt, xt, tensor_1d(idx, DT_I32, n));
                rig_fails(&r, "gather", "row index");
            }
            op_free_all(x, y, old, idx);
        }
        rig_fini(&r);
    }
}

static void test_embed(void **state) {
    (void)state;
    uint64_t seed = 9;
    rig r;
    RIG_EACH(r, 2) {
        for (int t = 0; t < 39; t++) {
            int64_t d = widths[t % (int)ARRAY_LEN(widths)], n = ref_int(&seed, 1, 40),
                    rows = ref_int(&seed, 1, 50);
            dtype dt = types[t % 3];
            float *src = random_floats(&seed, rows * d, 1), *y = random_floats(&seed, n * d, 1),
                  *old = floats(n * d);
            uint8_t *bytes = op_alloc((size_t)(rows * d) * 4 + 2);
            ref_store(dt, bytes + 2, src, rows * d);
            memcpy(old, y, sizeof(float) * (size_t)(n * d));
            int32_t *ids = op_ints(n);
            for (int64_t i = 0; i < n; i++) ids[i] = (int32_t)ref_int(&seed, -1, rows - 1);
            weight *w = new_weight(&r, tensor_2d(bytes + 2, dt, rows, d), WEIGHT_TABLE | WEIGHT_LINEAR);
            assert_int_equal(weight_dim(w, 0), rows);
            assert_int_equal(weight_dim(w, 1), d);
            tensor yt = tensor_2d(y, DT_F32, n, d), it = tensor_1d(ids, DT_I32, n);
            op_embed(&r.c, yt, w, it, 2.5f);
            rig_ok(&r);
            for (int64_t i = 0; i < n * d; i++) {
                int32_t id = ids[i / d];
                float want = id < 0 ? old[i] : (float)ref_from(dt, bytes + 2, id * d + i % d) * 2.5f;
                assert_true(y[i] == want);
                if (id < 0) ids[i / d] = id;
            }
            for (int64_t i = 0; i < n; i++) ids[i] = ids[i] < 0 ? 0 : ids[i];
            memcpy(y, old, sizeof(float) * (size_t)(n * d));
            op_embed_add(&r.c, yt, w, it);
            rig_ok(&r);
            for (int64_t i = 0; i < n * d; i++)
                assert_true(y[i] == old[i] + (float)ref_from(dt, bytes + 2, ids[i / d] * d + i % d));
            ids[0] = (int32_t)rows;
            op_embed(&r.c, yt, w, it, 1);
            rig_fails(&r, "embed", "an id beyond");
            ids[0] = -1;
            op_embed_add(&r.c, yt, w, it);
            rig_fails(&r, "embed", "an id beyond");
            weight_free(w);
            op_free_all(src, bytes, y, old, ids);
        }
        rig_fini(&r);
    }
}

/* Rows of runs are theirs whatever ids says, the others the table's or left alone; more runs than one launch takes. */
static void test_splice(void **state) {
    (void)state;
    enum { TABLE = 9, MOST = 150 };
    uint64_t seed = 22;
    rig r;
    RIG_EACH(r, 2) {
        for (int t = 0; t < 12; t++) {
            const int n = t % 6 == 5 ? MOST : (int)ref_int(&seed, 0, 5);
            const int64_t d = widths[t % (int)ARRAY_LEN(widths)], ld = d + ref_int(&seed, 0, 4);
            const dtype dt = types[t % 3];
            row_run runs[MOST];
            float *src[MOST];
            int64_t rows = 0;
            for (int i = 0; i < n; i++) {
                int64_t m = ref_int(&seed, 0, 3), src_ld = d + (t % 2 ? 0 : ref_int(&seed, 0, 4));
                rows += ref_int(&seed, 0, 2);
                src[i] = random_floats(&seed, (m + 1) * src_ld, 1);
                runs[i] = (row_run){rows, tensor_2d(src[i], DT_F32, m, d)};
                runs[i].rows.ld = src_ld;
                rows += m;
            }
            rows += ref_int(&seed, 2, 3);
            float *table = random_floats(&seed, TABLE * d, 1), *y = random_floats(&seed, rows * ld, 1),
                  *want = op_copy_of(y, sizeof(float) * (size_t)(rows * ld));
            uint8_t *bytes = op_alloc((size_t)(TABLE * d) * 4);
            ref_store(dt, bytes, table, TABLE * d);
            int32_t *ids = op_ints(rows);
            for (int64_t i = 0; i < rows; i++) {
                ids[i] = (int32_t)ref_int(&seed, -1, TABLE - 1);
                for (int64_t k = 0; k < d && ids[i] >= 0; k++)
                    want[i * ld + k] = (float)ref_from(dt, bytes, ids[i] * d + k) * 0.5f;
            }
            for (int i = 0; i < n; i++)
                for (int64_t k = 0; k < runs[i].rows.d[0]; k++)
                    memcpy(want + (runs[i].row + k) * ld, src[i] + k * runs[i].rows.ld,
                           sizeof(float) * (size_t)d);
            weight *w = new_weight(&r, tensor_2d(bytes, dt, TABLE, d), WEIGHT_TABLE);
            tensor yt = tensor_2d(y, DT_F32, rows, d);
            yt.ld = ld;
            op_embed_splice(&r.c, yt, w, tensor_1d(ids, DT_I32, rows), 0.5f, runs, n);
            rig_ok(&r);
            same_bits("splice", want, y, rows * ld);
            row_run bad[2] = {{rows - 1, tensor_rows(yt, 0, 2)}, {0, tensor_rows(yt, 0, 1)}};
            op_embed_splice(&r.c, yt, w, tensor_1d(ids, DT_I32, rows), 1, bad, 1);
            rig_fails(&r, "embed: expected runs within the rows", "embed: expected runs within the rows");
            bad[0] = bad[1]; /* the same row twice */
            op_embed_splice(&r.c, yt, w, tensor_1d(ids, DT_I32, rows), 1, bad, 2);
            rig_fails(&r, "embed: expected runs within the rows", "embed: expected runs within the rows");
            weight_free(w);
            for (int i = 0; i < n; i++) op_free(src[i]);
            op_free_all(table, y, want, bytes, ids);
        }
        rig_fini(&r);
    }
}

static void test_patchify(void **state) {
    (void)state;
    uint64_t seed = 11;
    rig r;
    assert_true(rig_init(&r, NULL, 2));
    for (int t = 0; t < 12; t++) {
        int64_t p = ref_int(&seed, 1, 16), h = ref_int(&seed, 1, 60), w = ref_int(&seed, 1, 60),
                across = w / p;
        int64_t n = (h / p) * across, d = 3 * p * p;
        uint8_t *px = op_alloc((size_t)(h * w * 3));
        for (int64_t i = 0; i < h * w * 3; i++) px[i] = (uint8_t)ref_next(&seed);
        float *x = floats(n * d);
        patchify_args a = {.patch = (int)p,
                           .rescale = 1 / 255.0f,
                           .mean = {0.48f, 0.45f, 0.4f},
                           .std = {0.26f, 0.27f, 0.28f}};
        op_patchify(&r.c, tensor_2d(x, DT_F32, n, d), tensor_3d(px, DT_U8, h, w, 3), &a);
        rig_ok(&r);
        for (int64_t i = 0; i < n * d; i++) {
            int64_t patch = i / d, c = i % d / (p * p), py = i % (p * p) / p, qx = i % p;
            int64_t y = patch / across * p + py, xx = patch % across * p + qx;
            near("patchify", x[i], (px[(y * w + xx) * 3 + c] * (double)a.rescale - a.mean[c]) / a.std[c],
                 1e-6);
        }
        op_free(px);
        op_free(x);
    }
    rig_fini(&r);
}

/* Rows in any order, frames and channels last: the same numbers as test_patchify's, elsewhere. */
static void test_patchify_forms(void **state) {
    (void)state;
    uint64_t seed = 12;
    rig r;
    assert_true(rig_init(&r, NULL, 2));
    for (int t = 0; t < 24; t++) {
        int64_t p = ref_int(&seed, 1, 9), h = ref_int(&seed, 1, 4) * p, w = ref_int(&seed, 1, 5) * p,
                across = w / p;
        int64_t all = (h / p) * across, n = ref_int(&seed, 1, 30), frames = t % 3 ? ref_int(&seed, 1, 3) : 1;
        int64_t d = 3 * frames * p * p;
        uint8_t *px = op_alloc((size_t)(h * w * 3));
        for (int64_t i = 0; i < h * w * 3; i++) px[i] = (uint8_t)ref_next(&seed);
        float *x = floats(n * d);
        int32_t *order = op_ints(n);
        for (int64_t i = 0; i < n; i++) order[i] = (int32_t)ref_int(&seed, 0, all - 1);
        patchify_args a = {.patch = (int)p,
                           .rescale = 1 / 255.0f,
                           .mean = {0.48f, 0.45f, 0.4f},
                           .std = {0.26f, 0.27f, 0.28f},
                           .frames = (int)frames,
                           .channels_last = t % 3 == 0,
                           .order = tensor_1d(order, DT_I32, n)};
        op_patchify(&r.c, tensor_2d(x, DT_F32, n, d), tensor_3d(px, DT_U8, h, w, 3), &a);
        rig_ok(&r);
        for (int64_t i = 0; i < n * d; i++) {
            int64_t e = i % d, c = a.channels_last ? e % 3 : e / (p * p) / frames;
            int64_t py = a.channels_last ? e / 3 / p : e % (p * p) / p,
                    qx = a.channels_last ? e / 3 % p : e % p;
            int64_t y = order[i / d] / across * p + py, xx = order[i / d] % across * p + qx;
            near("patchify", x[i], (px[(y * w + xx) * 3 + c] * (double)a.rescale - a.mean[c]) / a.std[c],
                 1e-6);
        }
        order[n - 1] = t % 2 ? -1 : (int32_t)all;
        op_patchify(&r.c, tensor_2d(x, DT_F32, n, d), tensor_3d(px, DT_U8, h, w, 3), &a);
        rig_fails(&r, "patchify", "row ind");
        op_free_all(px, x, order);
    }
    rig_fini(&r);
}

/* Sums of rows with weights, of activations and of a table in each dtype; a negative index is left out. */
static void test_mix(void **state) {
    (void)state;
    uint64_t seed = 13;
    rig r;
    RIG_EACH(r, 2) {
        for (int t = 0; t < 39; t++) {
            int64_t d = widths[t % (int)ARRAY_LEN(widths)], n = ref_int(&seed, 1, 40),
                    rows = ref_int(&seed, 1, 50), taps = ref_int(&seed, 1, 6);
            dtype dt = t % 2 ? types[t / 2 % 3] : DT_F32;
            float *src = random_floats(&seed, rows * d, 1), *y = random_floats(&seed, n * d, 1),
                  *old = floats(n * d), *by = random_floats(&seed, n * taps, 1);
            uint8_t *bytes = op_alloc((size_t)(rows * d) * 4);
            ref_store(dt, bytes, src, rows * d);
            memcpy(old, y, sizeof(float) * (size_t)(n * d));
            int32_t *from = op_ints(n * taps);
            for (int64_t i = 0; i < n * taps; i++) from[i] = (int32_t)ref_int(&seed, -1, rows - 1);
            tensor yt = tensor_2d(y, DT_F32, n, d), host = tensor_2d(bytes, dt, rows, d);
            tensor ft = tensor_2d(from, DT_I32, n, taps),
                   bt = t % 5 ? tensor_2d(by, DT_F32, n, taps) : (tensor){0};
            weight *w = NULL;
            if (t % 2) {
                assert_non_null(w = weight_new(r.be, &host, WEIGHT_TABLE, NULL));
                op_embed_mix(&r.c, yt, w, ft, bt);
            } else {
                op_mix(&r.c, yt, host, ft, bt);
            }
            rig_ok(&r);
            for (int64_t i = 0; i < n * d; i++) {
                double want = t % 2 ? old[i] : 0, size = fabs(want);
                for (int64_t k = 0; k < taps; k++) {
                    int32_t row = from[i / d * taps + k];
                    if (row < 0) continue;
                    double v =
                        ref_from(dt, bytes, row * d + i % d) * (bt.nd ? (double)by[i / d * taps + k] : 1);
                    want += v;
                    size += fabs(v);
                }
                near("mix", y[i], want, 1e-6 * (1 + size));
            }
            from[n * taps - 1] = (int32_t)rows;
            if (t % 2)
                op_embed_mix(&r.c, yt, w, ft, bt);
            else
                op_mix(&r.c, yt, host, ft, bt);
            rig_fails(&r, "mix", "row ind");
            weight_free(w);
            op_free_all(src, y, old, by, bytes, from);
        }
        rig_fini(&r);
    }
}

static void test_context(void **state) {
    (void)state;
    rig r;
    assert_true(rig_init(&r, NULL, 1));
    assert_non_null(strstr(backend_describe(r.be), on_gpu() ? "cuda:" : "cpu "));
    size_t mark = arena_mark(&r.scratch);
    tensor t = ctx_2d(&r.c, DT_F32, 3, 5);
    float src[15], dst[15];
    for (int i = 0; i < 15; i++) src[i] = (float)i;
    ctx_upload(&r.c, t, src);
    ctx_download(&r.c, dst, t);
    assert_memory_equal(src, dst, sizeof src);
    /* the same in dry mode: counted, not there */
    arena dry = {0};
    ctx d = {.be = r.be, .scratch = &dry, .dry = true};
    tensor u = ctx_2d(&d, DT_F32, 3, 5);
    assert_null(u.data);
    assert_int_equal(dry.peak_bytes, arena_mark(&r.scratch) - mark);
    op_add(&d, u, u);
    assert_true(ctx_ok(&d));
    op_add(&d, u, ctx_2d(&d, DT_F32, 3, 4));
    assert_int_equal(d.st.code, ST_INTERNAL);
    assert_string_equal(d.st.msg, "add: x: expected [3,5] f32 (-1: any), found [3,4] f32");
    /* errors stick: the first is told, the rest does nothing */
    op_add(&r.c, t, ctx_2d(&r.c, DT_F32, 3, 6));
    op_add(&r.c, t, t);
    ctx_download(&r.c, dst, t);
    assert_memory_equal(src, dst, sizeof src);
    assert_int_equal(r.c.st.code, ST_INTERNAL);
    memset(&r.c.st, 0, sizeof r.c.st);
    ctx_2d(&r.c, DT_F32, 1 << 20, 1 << 10);
    assert_int_equal(r.c.st.code, ST_NO_MEMORY);
    memset(&r.c.st, 0, sizeof r.c.st);
    ctx_2d(&r.c, DT_F32, INT64_MAX / 2, 16);
    assert_int_equal(r.c.st.code, ST_INTERNAL);
    rig_fini(&r);

    status st = {0};
    assert_null(backend_new(&(backend_options){.device = "tpu"}, &st));
    assert_int_equal(st.code, ST_INVALID);
    memset(&st, 0, sizeof st);
    assert_null(backend_new(&(backend_options){.isa = "mmx"}, &st));
    assert_int_equal(st.code, ST_UNSUPPORTED);
}

/* A weight's shapes: convolution kernels as matrices, odd vectors, wrong types. */
static void test_weight(void **state) {
    (void)state;
    rig r;
    assert_true(rig_init(&r, NULL, 1));
    float data[24];
    for (int i = 0; i < 24; i++) data[i] = (float)i;
    weight *conv = new_weight(&r, tensor_of(data, DT_F32, 4, (int64_t[]){2, 3, 2, 2}), WEIGHT_LINEAR);
    assert_int_equal(weight_dim(conv, 2), 2);
    float *x = op_copy_of((float[12]){1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2}, 12 * sizeof(float)),
          *y = floats(2);
    op_linear(&r.c, tensor_2d(y, DT_F32, 1, 2), tensor_2d(x, DT_F32, 1, 12), conv, NULL, ACT_NONE, 0);
    rig_ok(&r);
    assert_true(y[0] == 22 && y[1] == 12 + 46);
    weight *vec = new_weight(&r, tensor_3d(data, DT_F32, 1, 2, 3), WEIGHT_VECTOR);
    assert_int_equal(weight_dim(vec, 0), 6);
    op_linear(&r.c, tensor_2d(y, DT_F32, 1, 2), tensor_2d(x, DT_F32, 1, 12), vec, NULL, ACT_NONE, 0);
    assert_int_equal(r.c.st.code, ST_INTERNAL); /* not a matrix */
    op_free(x);
    op_free(y);
    weight_free(conv);
    weight_free(vec);
    weight_free(NULL);
    status st = {0};
    tensor ints = tensor_2d(data, DT_I32, 2, 3);
    assert_null(weight_new(r.be, &ints, WEIGHT_LINEAR, &st));
    assert_int_equal(st.code, ST_UNSUPPORTED);
    rig_fini(&r);
}

/* Where a row lies, and how wide its loads can be, changes no bit. */
static void test_alignment(void **state) {
    (void)state;
    enum { N = 5, D = 516, H = 4 };
    uint64_t seed = 21;
    float *src = random_floats(&seed, N * D, 2), *up = random_floats(&seed, N * D, 1), *one = floats(D),
          *first = NULL;
    for (int i = 0; i < D; i++) one[i] = 1 + (float)i / D;
    rig r;
    RIG_EACH(r, 1) {
        weight *g = new_weight(&r, tensor_1d(one, DT_F32, D), WEIGHT_VECTOR),
               *gh = new_weight(&r, tensor_1d(one, DT_F32, D / H), WEIGHT_VECTOR);
        for (int shift = 0; shift < 4; shift++) {
            enum { OPS = 5 };
            const int64_t ld = D + shift, size = N * ld + 4;
            float *y = floats(OPS * size), *x = floats(size), *u = floats(size), *out = floats(OPS * N * D);
            tensor t[OPS], xt = tensor_2d(x + shift, DT_F32, N, D), ut = tensor_2d(u + shift, DT_F32, N, D);
            xt.ld = ut.ld = ld;
            for (int i = 0; i < N; i++) {
                memcpy(x + shift + i * ld, src + i * D, D * sizeof *x);
                memcpy(u + shift + i * ld, up + i * D, D * sizeof *u);
            }
            for (int k = 0; k < OPS; k++) {
                t[k] = tensor_2d(y + k * size + shift, DT_F32, N, D);
                t[k].ld = ld;
            }
            op_norm(&r.c, t[0], xt, g, g, NORM_LAYER, 1e-5f, 0);
            op_norm(&r.c, tensor_heads(t[1], H, D / H), tensor_heads(xt, H, D / H), gh, NULL, NORM_RMS, 1e-6f,
                    1);
            op_glu(&r.c, t[2], xt, ut, ACT_GELU);
            op_copy(&r.c, t[3], xt);
            op_act(&r.c, t[3], ACT_SILU);
            op_copy(&r.c, t[4], ut);
            op_add(&r.c, t[4], xt);
            rig_ok(&r);
            for (int k = 0; k < OPS; k++)
                for (int i = 0; i < N; i++)
                    memcpy(out + (k * N + i) * D, (float *)t[k].data + i * ld, D * sizeof *out);
            if (first) {
                same_bits("alignment", first, out, OPS * N * D);
                op_free(out);
            } else {
                first = out;
            }
            op_free_all(y, x, u);
        }
        weight_free(g);
        weight_free(gh);
        rig_fini(&r);
    }
    op_free_all(first, src, up, one);
}

/* Kernels that no op launches by itself: rounding to 16 bits, and what a matrix product leaves to do. */
static void test_device_only(void **state) {
    (void)state;
    if (!on_gpu()) skip();
#ifdef VLMD_CUDA
    uint64_t seed = 22;
    rig r;
    assert_true(rig_init(&r, NULL, 1));
    const cuk_stream s = lane_of(&r.c)->stream;
    for (int t = 0; t < 12; t++) {
        const int64_t n = 3, d = t % 3 == 0 ? 1024 : 1021, ld = d + t % 2 * 3;
        float *x = random_floats(&seed, n * ld, t % 4 ? 3 : 20000), *bias = random_floats(&seed, d, 1),
              *y = random_floats(&seed, n * ld, 1), *old = op_copy_of(y, sizeof(float) * (size_t)(n * ld));
        uint16_t *h = op_alloc(2 * (size_t)(n * d));
        const float special[] = {0,     -0.0f, INFINITY, -INFINITY, NAN,     65519,
                                 65520, 6e-8f, 2.9e-8f,  3.1e-8f,   6.1e-5f, 1e-42f};
        if (t % 2) memcpy(x, special, sizeof special);
        const bool bf16 = t % 4 < 2;
        cuk_narrow(s, h, bf16 ? CUK_BF16 : CUK_F16, x, ld, n, d);
        cuk_epilogue(s, y, CUK_F32, ld, x, ld, t % 3 ? bias : NULL, n, d, (cuk_act)(t % 6), t % 2);
        rig_ok(&r);
        for (int64_t i = 0; i < n * d; i++) {
            const int64_t at = i / d * ld + i % d;
            const uint16_t want = bf16 ? ref_to_bf16(x[at]) : ref_to_f16(x[at]);
            if (isnan(x[at]))
                assert_true(isnan(ref_from(bf16 ? DT_BF16 : DT_F16, h, i)));
            else
                assert_int_equal(h[i], want);
            /* as test_act, and the rounding of x + bias and of the sum */
            const double v = (double)x[at] + (t % 3 ? (double)bias[i % d] : 0);
            const double f = ref_act(v, (act)(t % 6)), before = t % 2 ? (double)old[at] : 0;
            if (fabs(v) < 1e30)
                near("epilogue", y[at], f + before,
                     4e-6 * (fabs(f) + 1e-3) + 2e-7 * (fabs(before) + fabs(v)));
        }
        op_free_all(x, bias, y, old, h);
    }
    rig_fini(&r);
#endif
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_exp),
                                       cmocka_unit_test(test_act),
                                       cmocka_unit_test(test_softcap),
                                       cmocka_unit_test(test_norm),
                                       cmocka_unit_test(test_add_norm),
                                       cmocka_unit_test(test_embed),
                                       cmocka_unit_test(test_splice),
                                       cmocka_unit_test(test_add_copy_gather),
                                       cmocka_unit_test(test_context),
                                       cmocka_unit_test(test_patchify),
                                       cmocka_unit_test(test_patchify_forms),
                                       cmocka_unit_test(test_mix),
                                       cmocka_unit_test(test_weight),
                                       cmocka_unit_test(test_alignment),
                                       cmocka_unit_test(test_device_only)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
