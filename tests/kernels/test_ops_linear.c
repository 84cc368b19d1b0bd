/* test_ops_linear.c - op_linear: against double precision over awkward shapes, and the promise of equal bits
 * (rows alone or together, any thread count, any instruction set). On a GPU: the same truth with cuBLASLt and without; more
 * than 16 rows with 16-bit weights are compared with the truth for activations rounded as they are there; 9 to 16, which go
 * to tensor cores, also with the error that docs/gpu.md promises. */
#include <float.h>

#include "tests/kernels/ops_util.h"

typedef struct lin {
    int64_t n, k, out, x_ld, y_ld, w_ld;
    dtype dt;
    float *x, *bias, *y0;
    uint8_t *bytes, *w; /* w = bytes + 2: unaligned */
} lin;

static lin lin_new(uint64_t *seed, int64_t n, int64_t k, int64_t out, dtype dt, bool strided) {
    lin l = {.n = n, .k = k, .out = out, .dt = dt};
    l.x_ld = k + (strided ? ref_int(seed, 0, 5) : 0);
    l.y_ld = out + (strided ? ref_int(seed, 0, 5) : 0);
    l.w_ld = k + (strided ? ref_int(seed, 0, 3) : 0);
    l.x = random_floats(seed, n * l.x_ld, 1);
    l.bias = random_floats(seed, out, 1);
    l.y0 = random_floats(seed, n * l.y_ld, 1);
    float *w = random_floats(seed, out * l.w_ld, 0.5f);
    l.bytes = malloc((size_t)(out * l.w_ld) * dtype_size(dt) + 2);
    assert_non_null(l.bytes);
    l.w = l.bytes + 2;
    ref_store(dt, l.w, w, out * l.w_ld);
    op_free(w);
    return l;
}
static void lin_free(lin *l) {
    op_free(l->x);
    op_free(l->bias);
    op_free(l->y0);
    free(l->bytes);
}

/* Rows [from, from + n) in calls of `chunk` rows; the result keeps y's stride. */
static float *lin_run(rig *r, const lin *l, int64_t chunk, bool bias, act a, unsigned flags) {
    float *y = floats(l->n * l->y_ld);
    memcpy(y, l->y0, sizeof(float) * (size_t)(l->n * l->y_ld));
    tensor wt = tensor_2d(l->w, l->dt, l->out, l->k), bt = tensor_1d(l->bias, DT_F32, l->out);
    wt.ld = l->w_ld;
    weight *w = new_weight(r, wt, WEIGHT_LINEAR), *b = new_weight(r, bt, WEIGHT_VECTOR);
    for (int64_t i = 0; i < l->n; i += chunk) {
        int64_t m = chunk < l->n - i ? chunk : l->n - i;
        tensor x = tensor_2d(l->x + i * l->x_ld, DT_F32, m, l->k),
               o = tensor_2d(y + i * l->y_ld, DT_F32, m, l->out);
        x.ld = l->x_ld;
        o.ld = l->y_ld;
        op_linear(&r->c, o, x, w, bias ? b : NULL, a, flags);
        rig_ok(r);
    }
    weight_free(w);
    weight_free(b);
    return y;
}

/* The activations as a product of n rows sees them. */
static float *seen(const lin *l, bool deterministic) {
    float *x = op_copy_of(l->x, sizeof(float) * (size_t)(l->n * l->x_ld));
    if (!on_gpu() || deterministic || l->n <= 16 || l->dt == DT_F32) return x;
    for (int64_t i = 0; i < l->n * l->x_ld; i++) {
        uint16_t h = l->dt == DT_F16 ? ref_to_f16(x[i]) : ref_to_bf16(x[i]);
        x[i] = (float)ref_from(l->dt, &h, 0);
    }
    return x;
}

static void check_truth(const lin *l, const float *y, bool bias, act a, unsigned flags, bool deterministic) {
    double *want = doubles(l->n * l->out);
    float *x = seen(l, deterministic);
    ref_linear(want, x, l->x_ld, l->n, l->k, l->out, l->dt, l->w, l->w_ld, bias ? l->bias : NULL, a);
    for (int64_t i = 0; i < l->n; i++)
        for (int64_t o = 0; o < l->y_ld; o++) {
            double old = l->y0[i * l->y_ld + o], got = y[i * l->y_ld + o];
            if (o >= l->out) {
                assert_true(got == old); /* the gap between rows is not ours */
                continue;
            }
            double size =
                ref_dot_size(x + i * l->x_ld, l->dt, l->w + (size_t)(o * l->w_ld) * dtype_size(l->dt), l->k);
            near("linear", got, want[i * l->out + o] + (flags & LINEAR_ADD ? old : 0),
                 1e-6 + 3e-7 * (size + 4));
        }
    op_free(x);
    free(want);
}

static const int64_t odd_k[] = {1, 2, 15, 16, 17, 31, 33, 100, 1023, 1040, 2100};
static const int64_t odd_n[] = {1, 2, 3, 4, 5, 7, 8, 9, 13, 16, 17, 40, 129};
static const int64_t odd_out[] = {1, 2, 5, 6, 7, 8, 23, 25, 64, 70};
static const dtype types[] = {DT_F32, DT_F16, DT_BF16};

static void truth(rig *r, uint64_t *seed, int rounds, int64_t most, bool deterministic) {
    for (int t = 0; t < rounds; t++) {
        int64_t k = odd_k[ref_int(seed, 0, ARRAY_LEN(odd_k) - 1)],
                n = odd_n[ref_int(seed, 0, ARRAY_LEN(odd_n) - 1)],
                out = odd_out[ref_int(seed, 0, ARRAY_LEN(odd_out) - 1)];
        if (n * k * out > most) n = 9;
        bool bias = ref_int(seed, 0, 1);
        act a = (act)ref_int(seed, 0, ACT_RELU);
        unsigned flags = (unsigned)ref_int(seed, 0, 3);
        lin l = lin_new(seed, n, k, out, types[t % 3], ref_int(seed, 0, 1));
        float *y = lin_run(r, &l, n, bias, a, flags);
        check_truth(&l, y, bias, a, flags, deterministic);
        op_free(y);
        lin_free(&l);
    }
}

static void test_truth(void **state) {
    (void)state;
    uint64_t seed = 1;
    rig r;
    RIG_EACH(r, 2) {
        truth(&r, &seed, on_gpu() || strcmp(r.isa, "portable") == 0 ? 150 : 40, on_gpu() ? 500000 : 3000000,
              false);
        rig_fini(&r);
    }
    if (!on_gpu()) return;
    assert_true(rig_init_as(&r, NULL, 1, true));
    truth(&r, &seed, 60, 500000, true);
    rig_fini(&r);
}

/* Alone = together, portable = AVX2 = AVX-512, 1 = 2 = 3 threads. */
static void test_bits(void **state) {
    (void)state;
    if (on_gpu()) skip(); /* test_gpu_bits */
    uint64_t seed = 2;
    for (int t = 0; t < 14; t++) {
        int64_t n = t % 7 == 6 ? 300 : ref_int(&seed, 1, 40),
                k = odd_k[ref_int(&seed, 0, ARRAY_LEN(odd_k) - 1)],
                out = n == 300 ? 40 : ref_int(&seed, 1, 150);
        act a = (act)ref_int(&seed, 0, ACT_RELU);
        unsigned flags = (unsigned)ref_int(&seed, 0, 1);
        lin l = lin_new(&seed, n, k, out, types[t % 3], true);
        float *first = NULL;
        rig r;
        for (int threads = 1; threads <= 3; threads++) RIG_EACH(r, threads) {
                bool slow = strcmp(r.isa, "portable") == 0;
                for (int64_t chunk = 1; chunk <= n;
                     chunk = chunk < 9 ? chunk + (slow ? 4 : 1) : chunk * 2 + 1) {
                    if (slow && threads > 1 && chunk > 1) break;
                    float *y = lin_run(&r, &l, chunk == 1 && first && n > 40 ? n : chunk, true, a, flags);
                    if (!first)
                        first = y;
                    else {
                        same_bits(r.isa, first, y, n * l.y_ld);
                        op_free(y);
                    }
                }
                float *y = lin_run(&r, &l, n, true, a, flags);
                same_bits(r.isa, first, y, n * l.y_ld);
                op_free(y);
                rig_fini(&r);
            }
        op_free(first);
        lin_free(&l);
    }
}

/* A GPU with deterministic: 1 row, 2, 3 .. and all of them, for every tile and both ways to load weights. Without it as
 * long as there are at most 8, with f32 weights 16. */
static void test_gpu_bits(void **state) {
    (void)state;
    if (!on_gpu()) skip();
    uint64_t seed = 4;
    const int64_t shapes[][3] = {{35, 520, 19}, {16, 13, 70}, {16, 2600, 5}, {7, 1600, 9}, {18, 96, 33}};
    for (size_t i = 0; i < ARRAY_LEN(shapes) * ARRAY_LEN(types); i++) {
        const int64_t *shape = shapes[i % ARRAY_LEN(shapes)], n = shape[0];
        lin l = lin_new(&seed, n, shape[1], shape[2], types[i / ARRAY_LEN(shapes)], i % 2);
        const act a = (act)ref_int(&seed, 0, ACT_RELU);
        const unsigned flags = (unsigned)ref_int(&seed, 0, 1);
        rig r;
        assert_true(rig_init_as(&r, NULL, 1, true));
        float *all = lin_run(&r, &l, n, true, a, flags);
        check_truth(&l, all, true, a, flags, true);
        for (int64_t chunk = 1; chunk < n; chunk = chunk * 2 + (chunk == 4)) {
            float *y = lin_run(&r, &l, chunk, true, a, flags);
            same_bits("alone and together", all, y, n * l.y_ld);
            op_free(y);
        }
        rig_fini(&r);
        assert_true(rig_init(&r, NULL, 1));
        for (int64_t chunk = 3; chunk <= (l.dt == DT_F32 ? 16 : 8); chunk += 5) {
            float *y = lin_run(&r, &l, chunk, true, a, flags);
            same_bits("few rows, whatever the promise", all, y, n * l.y_ld);
            op_free(y);
        }
        rig_fini(&r);
        op_free(all);
        lin_free(&l);
    }
}

/* The promise of --deterministic, for every number of rows from 1 on. */
static void test_every_row_count(void **state) {
    (void)state;
    uint64_t seed = 14;
    const int64_t n = 35;
    for (size_t d = 0; d < ARRAY_LEN(types); d++) {
        lin l = lin_new(&seed, n, 40, 9, types[d], true);
        rig r;
        assert_true(rig_init_as(&r, NULL, 2, true));
        float *alone = lin_run(&r, &l, 1, true, ACT_SILU, 0);
        for (int64_t together = 2; together <= n; together++) {
            float *y = lin_run(&r, &l, together, true, ACT_SILU, 0);
            same_bits("alone and together", alone, y, n * l.y_ld);
            op_free(y);
        }
        op_free(alone);
        rig_fini(&r);
        lin_free(&l);
    }
}

/* BULK: bits do not depend on the thread count. */
static void test_bulk_bits(void **state) {
    (void)state;
    uint64_t seed = 3;
    const int64_t shapes[][3] = {{577, 96, 300}, {33, 130, 513}, {700, 64, 64}, {16, 16, 1}};
    for (size_t s = on_gpu() ? 1 : 0; s < ARRAY_LEN(shapes); s++)
        for (size_t d = 0; d < ARRAY_LEN(types); d++) {
            lin l = lin_new(&seed, shapes[s][0], shapes[s][1], shapes[s][2], types[d], true);
            float *first = NULL;
            for (int threads = 1; threads <= most_threads(3); threads++) {
                rig r;
                assert_true(rig_init(&r, NULL, threads));
                float *y = lin_run(&r, &l, l.n, true, ACT_QUICK_GELU, LINEAR_BULK);
                if (first) {
                    same_bits("bulk", first, y, l.n * l.y_ld);
                    op_free(y);
                } else {
                    check_truth(&l, y, true, ACT_QUICK_GELU, LINEAR_BULK, false);
                    first = y;
                }
                rig_fini(&r);
            }
            op_free(first);
            lin_free(&l);
        }
}

/* Subnormals, infinities and NaN of f16 weights arrive as they are; NaN stays in its row. */
static void test_special(void **state) {
    (void)state;
    rig r;
    RIG_EACH(r, 2) {
        enum { K = 19, OUT = 5 };
        for (int64_t n = 1; n <= 21; n += 5) {
            uint16_t w[OUT * K] = {0};
            float *x = floats(n * K), *y = floats(n * OUT);
            for (int64_t i = 0; i < n * K; i++) x[i] = 1.0f + (float)(i % K);
            w[0 * K + 3] = 0x0001;  /* smallest subnormal, 2^-24 */
            w[0 * K + 18] = 0x03FF; /* largest subnormal */
            w[1 * K + 17] = 0x7C00; /* infinity */
            w[2 * K + 2] = 0xFC00;  /* -infinity */
            w[3 * K + 18] = 0x7E00; /* NaN */
            w[4 * K + 0] = 0x8001;
            if (n > 2) x[1 * K + 5] = NAN;
            weight *wt = new_weight(&r, tensor_2d(w, DT_F16, OUT, K), WEIGHT_LINEAR);
            op_linear(&r.c, tensor_2d(y, DT_F32, n, OUT), tensor_2d(x, DT_F32, n, K), wt, NULL, ACT_NONE, 0);
            rig_ok(&r);
            for (int64_t i = 0; i < n; i++) {
                const float *o = y + i * OUT;
                if (n > 2 && i == 1) {
                    for (int j = 0; j < OUT; j++) assert_true(isnan(o[j]));
                    continue;
                }
                near("subnormals", o[0], 4 * 0x1p-24 + 19 * 1023 * 0x1p-24, 0);
                assert_true(isinf(o[1]) && o[1] > 0);
                assert_true(isinf(o[2]) && o[2] < 0);
                assert_true(isnan(o[3]));
                near("negative subnormal", o[4], -0x1p-24, 0);
            }
            weight_free(wt);
            op_free(x);
            op_free(y);
        }
        rig_fini(&r);
    }
}

/* op_linears: each of up to three weights of any size and type has the bits of an op_linear of its own, and what it asks for
 * in dry mode suffices. */
static void test_linears(void **state) {
    (void)state;
    static const int64_t rows[] = {1, 2, 3, 5, 8, 9, 12, 16, 17, 40},
                         outs[][LINEARS] = {{70, 25, 25}, {1, 9, 0}, {40, 40, 0}, {33, 0, 8}, {7, 130, 16}};
    uint64_t seed = 41;
    for (int t = 0; t < 2 * (int)ARRAY_LEN(rows) * (int)ARRAY_LEN(types); t++) {
        const int64_t n = rows[t % ARRAY_LEN(rows)], k = odd_k[ref_int(&seed, 0, ARRAY_LEN(odd_k) - 2)],
                      *out = outs[ref_int(&seed, 0, ARRAY_LEN(outs) - 1)];
        const dtype dt = types[t / (int)ARRAY_LEN(rows) % 3];
        lin l[LINEARS];
        for (int i = 0; i < LINEARS; i++)
            l[i] = lin_new(&seed, n, k, out[i], i < 2 || t % 4 ? dt : types[t % 3], true);
        rig r;
        RIG_EACH_AS(r, 2, t % 2) {
            linear_to to[LINEARS];
            weight *w[LINEARS], *b[LINEARS];
            tensor x = tensor_2d(l[0].x, DT_F32, n, k);
            x.ld = l[0].x_ld;
            for (int i = 0; i < LINEARS; i++) {
                tensor wt = tensor_2d(l[i].w, l[i].dt, out[i], k), y = tensor_2d(NULL, DT_F32, n, out[i]);
                wt.ld = l[i].w_ld;
                w[i] = new_weight(&r, wt, WEIGHT_LINEAR);
                b[i] = new_weight(&r, tensor_1d(l[i].bias, DT_F32, out[i]), WEIGHT_VECTOR);
                y.data = op_copy_of(l[i].y0, sizeof(float) * (size_t)(n * l[i].y_ld));
                y.ld = l[i].y_ld;
                to[i] = (linear_to){y, w[i], (t + i) % 3 ? b[i] : NULL};
            }
            const int some = out[2] ? 3 : 2;
            r.c.dry = true;
            op_linears(&r.c, x, to, some);
            r.c.dry = false;
            status st = {0};
            assert_true(backend_reserve(r.be, &st));
            op_linears(&r.c, x, to, some);
            rig_ok(&r);
            for (int i = 0; i < some; i++) {
                lin alone = l[i];
                alone.x = l[0].x, alone.x_ld = l[0].x_ld;
                float *y = lin_run(&r, &alone, n, to[i].b != NULL, ACT_NONE, 0);
                same_bits("alone", y, to[i].y.data, n * l[i].y_ld);
                op_free(y);
            }
            for (int i = 0; i < LINEARS; i++) {
                op_free(to[i].y.data);
                weight_free(w[i]);
                weight_free(b[i]);
            }
            rig_fini(&r);
        }
        for (int i = 0; i < LINEARS; i++) lin_free(&l[i]);
    }
}

/* ---- 9 to 16 rows with 16-bit weights ---- */

/* What docs/gpu.md promises of a row without bias and activation, as a part of the sum of magnitudes; elsewhere what f32 sums
 * allow. */
static double unit(const lin *l) {
    const double r = ldexp(1, -24);
    if (!on_gpu()) return ((double)l->k / 16 + 8) * r;
#ifdef VLMD_CUDA_EMU
    const double step =
        3 * r; /* the emulator adds up exactly and rounds each of two instructions, and of the rest's */
#else
    const double step = 80 * r;
#endif
    return step + (l->dt == DT_F16 ? 2 * r : 0) + (double)((l->k + 255) / 256 + 9) * r;
}

/* Worst error as a part of the promised. */
static double check_promise(const lin *l, const float *y) {
    double *want = doubles(l->n * l->out), worst = 0;
    ref_linear(want, l->x, l->x_ld, l->n, l->k, l->out, l->dt, l->w, l->w_ld, NULL, ACT_NONE);
    for (int64_t i = 0; i < l->n; i++)
        for (int64_t o = 0; o<l->out; o += l->out> 1000 ? 37 : 1) {
            const uint8_t *w = l->w + (size_t)(o * l->w_ld) * 2;
            const float *x = l->x + i * l->x_ld;
            double bound = unit(l) * ref_dot_size(x, l->dt, w, l->k) + (double)l->k * ldexp(1, -149);
            for (int64_t k0 = 0; k0 < l->k && l->dt == DT_F16; k0 += 32) { /* what a step's largest hides */
                double top = 0, sum = 0;
                for (int64_t k = k0; k < l->k && k < k0 + 32; k++) {
                    top = fmax(top, fabs((double)x[k]));
                    sum += fabs(ref_from(l->dt, w, k));
                }
                bound += ldexp(top, -50) * sum;
            }
            near("promised", y[i * l->y_ld + o], want[i * l->out + o], bound);
            worst = fmax(worst, fabs(y[i * l->y_ld + o] - want[i * l->out + o]) / bound);
        }
    free(want);
    return worst;
}

/* How x and w look: as everywhere here; all of one sign, where nothing cancels and truncation would pile up; x of any size,
 * from row to row and within one. */
enum { PLAIN, POSITIVE, WIDE, LOOKS };
static void look(uint64_t *seed, lin *l, int how) {
    if (how == PLAIN) return;
    for (int64_t i = 0; i < l->n * l->x_ld; i++)
        l->x[i] = how == POSITIVE
                      ? fabsf(l->x[i])
                      : ldexpf(l->x[i], (int)ref_int(seed, -30, 30) + (int)(i / l->x_ld % 3 - 1) * 60);
    uint16_t h;
    for (int64_t i = 0; i < l->out * l->w_ld && how == POSITIVE; i++) {
        memcpy(&h, l->w + 2 * i, 2);
        h &= 0x7fff;
        memcpy(l->w + 2 * i, &h, 2);
    }
}

static void test_few_promise(void **state) {
    (void)state;
    static const int64_t ks[] = {1, 2, 8, 33, 40, 256, 264, 300, 520, 1040, 2100, 2600},
                         outs[] = {1, 7, 23, 70};
    uint64_t seed = 31;
    double worst[LOOKS] = {0};
    rig r;
    RIG_EACH(r, 2) {
        for (int t = 0; t < (int)ARRAY_LEN(ks) * LOOKS * 2; t++) {
            lin l = lin_new(&seed, ref_int(&seed, 9, 16), ks[t / LOOKS / 2], outs[ref_int(&seed, 0, 3)],
                            t % 2 ? DT_F16 : DT_BF16, ref_int(&seed, 0, 1));
            look(&seed, &l, t / 2 % LOOKS);
            float *y = lin_run(&r, &l, l.n, false, ACT_NONE, 0);
            double *w = &worst[t / 2 % LOOKS];
            *w = fmax(*w, check_promise(&l, y));
            op_free(y);
            lin_free(&l);
        }
        rig_fini(&r);
    }
    print_message("of the error promised: %.2f, of one sign %.2f, of any size %.2f\n", worst[PLAIN],
                  worst[POSITIVE], worst[WIDE]);
}

/* A row's bits are the same among 9, 10, .. 16 rows and at any place among them; and an output's whatever its weight's size. */
static void test_few_bits(void **state) {
    (void)state;
    if (!on_gpu()) skip(); /* test_bits */
    static const struct {
        int64_t k, out;
        dtype dt;
    } cases[] = {{520, 70, DT_BF16}, {77, 9, DT_F16},      {2600, 16, DT_F16},
                 {264, 5, DT_BF16},  {1100, 4100, DT_F16}, {600, 8200, DT_BF16}};
    uint64_t seed = 32;
    rig r;
    assert_true(rig_init(&r, NULL, 1));
    for (size_t t = 0; t < ARRAY_LEN(cases); t++) {
        const int64_t out = cases[t].out;
        lin l = lin_new(&seed, 16, cases[t].k, out, cases[t].dt, out < 1000);
        look(&seed, &l, t % 2 ? WIDE : PLAIN);
        float *all = lin_run(&r, &l, 16, false, ACT_NONE, 0);
        lin part = l;
        if (out > 1000) {
            check_promise(&l, all);
            part.out = part.y_ld = 40;
            part.w += (size_t)((out - part.out) * l.w_ld) * 2;
            float *y = lin_run(&r, &part, 16, false, ACT_NONE, 0);
            for (int64_t i = 0; i < 16; i++)
                same_bits("a part of the weights", all + i * l.y_ld + out - part.out, y + i * part.out,
                          part.out);
            op_free(y);
        } else {
            for (part.n = 9; part.n < 16; part.n++)
                for (int64_t from = 0; from <= 16 - part.n; from += 16 - part.n) {
                    part.x = l.x + from * l.x_ld;
                    part.y0 = l.y0 + from * l.y_ld;
                    float *y = lin_run(&r, &part, part.n, false, ACT_NONE, 0);
                    same_bits("among fewer", all + from * l.y_ld, y, part.n * l.y_ld);
                    op_free(y);
                }
        }
        op_free(all);
        lin_free(&l);
    }
    rig_fini(&r);
}

/* The largest numbers stay finite where the sum is; infinities and NaN in x or w reach their row or output and no other. */
static void test_few_special(void **state) {
    (void)state;
    enum { N = 13, K = 304, OUT = 20 };
    uint64_t seed = 33;
    rig r;
    RIG_EACH(r, 1) {
        for (int t = 0; t < 2; t++) {
            lin l = lin_new(&seed, N, K, OUT, t ? DT_F16 : DT_BF16, false);
            float *w = floats(OUT * K);
            for (int64_t i = 0; i < OUT * K; i++) w[i] = ldexpf(i / K % 2 ? -1 : 1, -9);
            ref_store(l.dt, l.w, w, OUT * K);
            op_free(w);
            for (int i = 0; i < 90; i++) { /* sums up to 0.2 of the largest number */
                l.x[2 * K + 3 * i] = FLT_MAX, l.x[3 * K + i] = -FLT_MAX;
                l.x[4 * K + 2 * i] = i % 2 ? FLT_MAX : -FLT_MAX, l.x[5 * K + i] = 65520;
            }
            float *y = lin_run(&r, &l, N, false, ACT_NONE, 0);
            for (int64_t i = 0; i < N * OUT; i++) assert_true(isfinite(y[i]));
            check_promise(&l, y);
            const uint16_t inf = t ? 0x7C00 : 0x7F80, nan = t ? 0x7E00 : 0x7FC0;
            l.x[6 * K + 250] = INFINITY, l.x[7 * K + 5] = NAN, l.x[8 * K] = -INFINITY;
            memcpy(l.w + 2 * (7 * K + 301), &inf, 2);
            memcpy(l.w + 2 * (9 * K + 290), &nan, 2);
            op_free(y);
            y = lin_run(&r, &l, N, false, ACT_NONE, 0);
            check_promise(&l, y); /* what is no number: the same as the truth's */
            assert_true(isinf(y[6 * OUT]) && isnan(y[7 * OUT]) && isinf(y[8 * OUT]) && isinf(y[7]) &&
                        isnan(y[9]));
            op_free(y);
            lin_free(&l);
        }
        rig_fini(&r);
    }
}

static void test_empty_and_dry(void **state) {
    (void)state;
    rig r;
    assert_true(rig_init(&r, NULL, 2));
    float w[12] = {0};
    weight *wt = new_weight(&r, tensor_2d(w, DT_F32, 3, 4), WEIGHT_LINEAR);
    op_linear(&r.c, tensor_2d(NULL, DT_F32, 0, 3), tensor_2d(NULL, DT_F32, 0, 4), wt, NULL, ACT_NONE, 0);
    rig_ok(&r);
    r.c.dry = true;
    op_linear(&r.c, tensor_2d(NULL, DT_F32, 7, 3), tensor_2d(NULL, DT_F32, 7, 4), wt, NULL, ACT_NONE, 0);
    rig_ok(&r);
    op_linear(&r.c, tensor_2d(NULL, DT_F32, 7, 3), tensor_2d(NULL, DT_F32, 7, 5), wt, NULL, ACT_NONE, 0);
    assert_int_equal(r.c.st.code, ST_INTERNAL);
    assert_non_null(strstr(r.c.st.msg, "expected 5"));
    memset(&r.c.st, 0, sizeof r.c.st);
    linear_to to[LINEARS + 1] = {{tensor_2d(NULL, DT_F32, 7, 3), wt, NULL}};
    for (int i = 1; i <= LINEARS; i++) to[i] = to[0];
    op_linears(&r.c, tensor_2d(NULL, DT_F32, 7, 4), to, LINEARS);
    rig_ok(&r);
    op_linears(&r.c, tensor_2d(NULL, DT_F32, 7, 4), to, LINEARS + 1);
    assert_int_equal(r.c.st.code, ST_INTERNAL);
    memset(&r.c.st, 0, sizeof r.c.st);
    to[2].y.d[1] = 4;
    op_linears(&r.c, tensor_2d(NULL, DT_F32, 7, 4), to, LINEARS);
    assert_int_equal(r.c.st.code, ST_INTERNAL);
    weight_free(wt);
    rig_fini(&r);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_truth),        cmocka_unit_test(test_bits),
        cmocka_unit_test(test_gpu_bits),     cmocka_unit_test(test_every_row_count),
        cmocka_unit_test(test_bulk_bits),    cmocka_unit_test(test_special),
        cmocka_unit_test(test_linears),      cmocka_unit_test(test_few_promise),
        cmocka_unit_test(test_few_bits),     cmocka_unit_test(test_few_special),
        cmocka_unit_test(test_empty_and_dry)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
