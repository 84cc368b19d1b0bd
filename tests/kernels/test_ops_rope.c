/* test_ops_rope.c - rotary positions, also on the way into pages: against double precision over awkward shapes, with equal bits
 * on every instruction set and thread count. */
#include "tests/kernels/ops_util.h"

static void test_rope(void **state) {
    (void)state;
    uint64_t seed = 10;
    const int64_t halves[] = {1, 2, 7, 16, 32, 64};
    for (int t = 0; t < 24; t++) {
        int64_t half = halves[t % 6], hd = 2 * half + (t % 2 ? 6 : 0), n = ref_int(&seed, 1, 30),
                heads = ref_int(&seed, 1, 5);
        bool dynamic = t % 3 == 0 && half > 1;
        int64_t axes = t % 4; /* 0: one position, without a map */
        int64_t many = axes ? axes : 1;
        float *inv = floats(half), *axis = floats(half), *x = random_floats(&seed, n * heads * hd, 1),
              *first = NULL;
        int32_t *pos = op_ints(n * many), *len = op_ints(n);
        for (int64_t i = 0; i < half; i++) axis[i] = (float)ref_int(&seed, 0, many - 1);
        for (int64_t i = 0; i < n * many; i++) pos[i] = (int32_t)ref_int(&seed, 0, 40000);
        for (int64_t i = 0; i < half; i++) inv[i] = (float)pow(10000, -(double)i / (double)half);
        for (int64_t i = 0; i < n; i++) len[i] = (int32_t)ref_int(&seed, 1, 300);
        rig r;
        RIG_EACH(r, 2) {
            weight *w = new_weight(&r, tensor_1d(inv, DT_F32, half), WEIGHT_VECTOR);
            weight *map = axes ? new_weight(&r, tensor_1d(axis, DT_F32, half), WEIGHT_VECTOR) : NULL;
            rope_args a = {.inv_freq = w,
                           .axis = map,
                           .factor = 1.25f,
                           .theta = 10000,
                           .dyn_factor = dynamic ? 2.0f : 0,
                           .max_pos = 100};
            float *cs = floats(n * half * 2), *y = floats(n * heads * hd);
            memcpy(y, x, sizeof(float) * (size_t)(n * heads * hd));
            tensor ct = tensor_3d(cs, DT_F32, n, half, 2), none = {0};
            op_rope_table(&r.c, ct, axes ? tensor_2d(pos, DT_I32, n, axes) : tensor_1d(pos, DT_I32, n),
                          dynamic ? tensor_1d(len, DT_I32, n) : none, &a);
            op_rope(&r.c, tensor_3d(y, DT_F32, n, heads, hd), ct);
            rig_ok(&r);
            double want_cs[128], row[256];
            for (int64_t i = 0; i < n; i++) {
                for (int64_t p = 0; p < half; p++) {
                    double f = inv[p];
                    if (dynamic && len[i] > 100) {
                        double base = 10000 * pow(2.0 * len[i] / 100 - 1,
                                                  2.0 * (double)half / (2.0 * (double)half - 2));
                        f = (float)pow(base, -(double)p / (double)half);
                    }
                    float angle = (float)pos[i * many + (int64_t)axis[p]] *
                                  (float)f; /* rounded as the reference library does */
                    want_cs[2 * p] = cos(angle) * 1.25;
                    want_cs[2 * p + 1] = sin(angle) * 1.25;
                    /* a frequency that is off by an ulp moves the angle by that much of itself */
                    double tol = 3e-7 + (dynamic ? fabs(angle) * 3e-7 : 0);
                    near("cos", cs[(i * half + p) * 2], want_cs[2 * p], tol);
                    near("sin", cs[(i * half + p) * 2 + 1], want_cs[2 * p + 1], tol);
                    want_cs[2 * p] = cs[(i * half + p) * 2];
                    want_cs[2 * p + 1] = cs[(i * half + p) * 2 + 1];
                }
                for (int64_t h = 0; h < heads; h++) {
                    for (int64_t k = 0; k < hd; k++) row[k] = x[(i * heads + h) * hd + k];
                    ref_rope(row, hd, want_cs, half);
                    for (int64_t k = 0; k < hd; k++) near("rope", y[(i * heads + h) * hd + k], row[k], 1e-6);
                }
            }
            if (!first) {
                first = y;
            } else {
                same_bits(r.isa, first, y, n * heads * hd);
                op_free(y);
            }
            weight_free(map);
            weight_free(w);
            op_free(cs);
            rig_fini(&r);
        }
        op_free_all(first, axis, inv, x, pos, len);
    }
}

/* The same bits as of the three ops by themselves, whatever rows lie beside or behind; keys as in double precision. */
static void test_rope_kv_write(void **state) {
    (void)state;
    uint64_t seed = 14;
    static const int64_t halves[] = {0, 1, 2, 7, 16, 64}, more[] = {0, 4, 6}, pads[] = {0, 4, 3};
    for (int t = 0; t < 54; t++) {
        const int64_t half = halves[t % 6], hd = half + t / 6 % 3 ? 2 * half + more[t / 6 % 3] : 5,
                      n = ref_int(&seed, 1, 40), kv = ref_int(&seed, 1, 3), heads = kv * ref_int(&seed, 1, 4),
                      pad = pads[t / 18], pages = 2 + n / 8, pool = pages * kv * KV_PAGE_TOK * hd,
                      q_ld = heads * hd + pad, k_ld = kv * hd + pad;
        int64_t pd[] = {pages, kv, KV_PAGE_TOK, hd};
        float *src = random_floats(&seed, n * q_ld, 1), *k = random_floats(&seed, n * k_ld, 1),
              *v = random_floats(&seed, n * k_ld, 1), *cs = floats(n * half * 2), *first = NULL;
        int32_t *slots = op_ints(n), *places = op_ints(pages * KV_PAGE_TOK);
        for (int64_t i = 0; i < n * half; i++) {
            const float angle = ref_normal(&seed) * 3;
            cs[2 * i] = cosf(angle) * 1.25f, cs[2 * i + 1] = sinf(angle) * 1.25f;
        }
        for (int64_t i = 0; i < pages * KV_PAGE_TOK; i++) { /* in any order, none twice */
            const int64_t at = ref_int(&seed, 0, i);
            places[i] = places[at], places[at] = (int32_t)i;
        }
        for (int64_t i = 0; i < n; i++) slots[i] = ref_int(&seed, 0, 3) ? places[i] : -1;
        tensor st = tensor_1d(slots, DT_I32, n), ct = tensor_3d(cs, DT_F32, n, half, 2);
        rig r;
        for (int threads = 1; threads <= most_threads(2); threads++) RIG_EACH(r, threads) {
                enum { BY_ITSELF, IN_ONE };
                float *all[2], *kept = op_copy_of(k, sizeof *k * (size_t)(n * k_ld));
                /* q, pages of k and of v, one behind the other */
                for (int way = BY_ITSELF; way <= IN_ONE; way++) {
                    float *q = all[way] = floats(n * q_ld + 3 + 2 * pool), *kc = q + (n * q_ld + 3) / 4 * 4,
                          *vc = kc + pool;
                    for (int64_t i = 0; i < n * q_ld + 3 + 2 * pool; i++) q[i] = i < n * q_ld ? src[i] : NAN;
                    tensor qt = tensor_3d(q, DT_F32, n, heads, hd), kt = tensor_3d(kept, DT_F32, n, kv, hd),
                           vt = tensor_3d(v, DT_F32, n, kv, hd), kct = tensor_of(kc, DT_F32, 4, pd),
                           vct = tensor_of(vc, DT_F32, 4, pd);
                    qt.ld = q_ld, kt.ld = vt.ld = k_ld;
                    if (way == IN_ONE) {
                        op_rope_kv_write(&r.c, qt, kt, vt, ct, kct, vct, st);
                        rig_ok(&r);
                        same_bits("k", k, kept, n * k_ld);
                        const int32_t last = slots[n - 1];
                        for (int bad = 0; bad < 2; bad++) { /* after which q means nothing */
                            float *other = op_copy_of(q, sizeof *q * (size_t)(n * q_ld));
                            tensor ot = qt;
                            ot.data = other;
                            slots[n - 1] = bad ? -2 : (int32_t)(pages * KV_PAGE_TOK);
                            op_rope_kv_write(&r.c, ot, kt, vt, ct, kct, vct, st);
                            rig_fails(&r, "rope_kv_write: expected slots", "slot");
                            op_free(other);
                        }
                        slots[n - 1] = last;
                    } else {
                        op_rope(&r.c, qt, ct);
                        op_rope(&r.c, kt, ct);
                        op_kv_write(&r.c, kct, vct, kt, vt, st);
                        rig_ok(&r);
                        memcpy(kept, k, sizeof *k * (size_t)(n * k_ld));
                    }
                }
                same_bits(r.isa, all[0], all[1], n * q_ld + 3 + 2 * pool);
                const float *kc = all[1] + (n * q_ld + 3) / 4 * 4;
                for (int64_t i = 0; i < n && !first; i++) {
                    double row[134], turn[128];
                    for (int64_t p = 0; p < 2 * half; p++) turn[p] = cs[i * half * 2 + p];
                    for (int64_t h = 0; h < kv && slots[i] >= 0; h++) {
                        const int64_t at = ((slots[i] / 16 * kv + h) * 16 + slots[i] % 16) * hd;
                        for (int64_t e = 0; e < hd; e++) row[e] = k[i * k_ld + h * hd + e];
                        ref_rope(row, hd, turn, half);
                        for (int64_t e = 0; e < hd; e++) near("key", kc[at + e], row[e], 2e-6);
                        assert_memory_equal(kc + pool + at, v + i * k_ld + h * hd, sizeof *v * (size_t)hd);
                    }
                }
                if (first) same_bits(r.isa, first, all[1], n * q_ld + 3 + 2 * pool);
                if (first)
                    op_free(all[1]);
                else
                    first = all[1];
                op_free(all[0]);
                op_free(kept);
                rig_fini(&r);
            }
        op_free_all(first, src, k, v, cs, slots, places);
    }
}

/* Each of its tensors with one dimension that does not fit. */
static void test_rope_kv_shapes(void **state) {
    (void)state;
    rig r;
    assert_true(rig_init(&r, NULL, 1));
    enum { N = 3, H = 4, K = 2, HD = 6, HALF = 2, PAGES = 2 };
    r.c.dry = true;
    static const struct {
        int which, dim;
        int64_t size;
        const char *why;
    } bad[] = {{0, 0, 2, "q: expected [3,-1,6]"},
               {0, 2, 5, "q: expected"},
               {1, 0, 2, "v: expected [2,2,6]"},
               {1, 2, 5, "v: expected"},
               {2, 1, 1, "v: expected"},
               {3, 0, 2, "cs: expected [3,-1,2]"},
               {3, 1, 4, "a table no wider than a head"},
               {3, 2, 1, "cs: expected"},
               {4, 1, 1, "k pages: expected [-1,2,16,6]"},
               {4, 2, 8, "k pages: expected"},
               {5, 0, 1, "v pages: expected [2,2,16,6]"},
               {5, 3, 5, "v pages: expected"},
               {6, 0, 2, "slots: expected [3]"}};
    for (size_t i = 0; i <= ARRAY_LEN(bad); i++) {
        tensor x[] = {tensor_3d(NULL, DT_F32, N, H, HD),
                      tensor_3d(NULL, DT_F32, N, K, HD),
                      tensor_3d(NULL, DT_F32, N, K, HD),
                      tensor_3d(NULL, DT_F32, N, HALF, 2),
                      tensor_of(NULL, DT_F32, 4, (int64_t[]){PAGES, K, KV_PAGE_TOK, HD}),
                      tensor_of(NULL, DT_F32, 4, (int64_t[]){PAGES, K, KV_PAGE_TOK, HD}),
                      tensor_1d(NULL, DT_I32, N)};
        if (i < ARRAY_LEN(bad)) {
            tensor *odd = &x[bad[i].which];
            odd->d[bad[i].dim] = bad[i].size;
            *odd = tensor_of(NULL, odd->dt, odd->nd, odd->d); /* with its stride */
        }
        op_rope_kv_write(&r.c, x[0], x[1], x[2], x[3], x[4], x[5], x[6]);
        if (i == ARRAY_LEN(bad)) break; /* that one is right */
        assert_int_equal(r.c.st.code, ST_INTERNAL);
        if (!strstr(r.c.st.msg, "rope_kv_write: ") || !strstr(r.c.st.msg, bad[i].why))
            fail_msg("expected %s, found %s", bad[i].why, r.c.st.msg);
        memset(&r.c.st, 0, sizeof r.c.st);
    }
    rig_ok(&r);
    rig_fini(&r);
}

/* Pages of 16 bits: what pages of f32 hold, rounded; by both ops, with what rounding is about. */
static void test_narrow_pages(void **state) {
    (void)state;
    static const dtype types[] = {DT_BF16, DT_F16};
    static const float special[] = {
        0.0f,    -0.0f,     1e-40f,    0x1p-133f, 0x1.8p-134f,  0x1p-25f,    0x1.8p-25f,   0x1.002p-14f,
        65504,   65519.99f, 65520,     -1e6f,     1 + 0x1p-8f,  1 + 0x3p-8f, 1 + 0x1p-11f, 1 + 0x3p-11f,
        3.4e38f, INFINITY,  -INFINITY, NAN,       0x1.fffp-15f, 0x1.ffcp15f, 0x1.01p-140f, -0x1.8p-24f};
    static const int64_t sizes[] = {8, 12, 64, 7, 130};
    enum { N = 37, KV = 2, PAGES = 4 };
    uint64_t seed = 15;
    for (size_t t = 0; t < ARRAY_LEN(sizes) * ARRAY_LEN(types); t++) {
        const dtype type = types[t % 2];
        const int64_t hd = sizes[t / 2], pool = PAGES * KV * KV_PAGE_TOK * hd, half = hd % 4 ? 3 : hd / 4;
        float *k = random_floats(&seed, N * KV * hd, 1), *v = random_floats(&seed, N * KV * hd, 100),
              *q = random_floats(&seed, N * KV * hd, 1), *cs = random_floats(&seed, N * half * 2, 1);
        int32_t *slots = op_ints(N);
        for (int i = 0; i < N; i++) slots[i] = i % 9 == 4 ? -1 : (i * 23 + 5) % (PAGES * KV_PAGE_TOK);
        for (int i = 0; i < N * KV * hd; i += 3) v[i] = special[i / 3 % (int)ARRAY_LEN(special)];
        const int64_t pd[] = {PAGES, KV, KV_PAGE_TOK, hd};
        tensor kt = tensor_3d(k, DT_F32, N, KV, hd), vt = tensor_3d(v, DT_F32, N, KV, hd),
               qt = tensor_3d(q, DT_F32, N, KV, hd), ct = tensor_3d(cs, DT_F32, N, half, 2),
               st = tensor_1d(slots, DT_I32, N);
        rig r;
        RIG_EACH(r, 1) {
            for (int roped = 0; roped < 2; roped++) {
                float *wide = floats(2 * pool), *narrow = floats(2 * pool);
                memset(wide, 0, sizeof *wide * 2 * (size_t)pool);
                memset(narrow, 0, sizeof *narrow * 2 * (size_t)pool);
                for (int i = 0; i < 2; i++) {
                    uint8_t *at = (uint8_t *)(i ? narrow : wide);
                    const dtype kept = i ? type : DT_F32;
                    tensor kc = tensor_of(at, kept, 4, pd),
                           vc = tensor_of(at + (size_t)pool * dtype_size(kept), kept, 4, pd);
                    if (roped)
                        op_rope_kv_write(&r.c, qt, kt, vt, ct, kc, vc, st);
                    else
                        op_kv_write(&r.c, kc, vc, kt, vt, st);
                    rig_ok(&r);
                }
                for (int64_t i = 0; i < 2 * pool; i++) {
                    uint16_t want, got;
                    ref_store(type, &want, wide + i, 1);
                    memcpy(&got, (uint8_t *)narrow + 2 * i, sizeof got);
                    if (isnan(wide[i]))
                        assert_true(isnan(ref_from(type, &got, 0)));
                    else if (want != got)
                        fail_msg("%s of %a: expected %04x, found %04x", dtype_name(type), (double)wide[i],
                                 want, got);
                }
                op_free_all(wide, narrow);
            }
            rig_fini(&r);
        }
        op_free_all(k, v, q, cs, slots);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_rope), cmocka_unit_test(test_rope_kv_write),
                                       cmocka_unit_test(test_narrow_pages),
                                       cmocka_unit_test(test_rope_kv_shapes)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
