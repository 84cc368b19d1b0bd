/* test_ops_attn_mma.c - op_attn where a device may compute sequences of several rows on matrix units (CUDA without
 * deterministic), for every type that attn_args.narrow can name: within the error that docs/gpu.md promises, which follows
 * from the numbers at hand; a row's bits depend neither on the other rows nor on how its sequence is cut into pieces of
 * two rows and more, and one alone in its sequence has those of decoding. On a CPU nothing is rounded. */
#include "tests/kernels/attn_util.h"

static const dtype types[] = {DT_F32, DT_BF16, DT_F16};

/* The u of docs/gpu.md. On a CPU f32's. */
static double unit(dtype t, int64_t hd) {
#ifdef VLMD_CUDA_EMU
    const double cuts = 1; /* an instruction's products are added up exactly, then rounded */
#else
    const double cuts = 20;
#endif
    const double steps = ceil((double)(hd > 32 ? hd : 32) / 16) * ldexp(1, -23);
    if (!on_gpu()) return ldexp(1, -20);
    if (t == DT_BF16) return ldexp(1, -7) + ldexp(1, -16) + (cuts + 4) * steps;
    if (t == DT_F16) return ldexp(1, -10) + ldexp(1, -22) + (cuts + 4) * steps;
    return ldexp(1, -15) + (3 * cuts + 4) * steps;
}

/* How far docs/gpu.md says that an output of n keys may be off. score, sizes: the largest of scale times the sum of
 * |q||k|, and of |q| + |k|; value: the largest |v| */
static double most(dtype t, int64_t hd, double n, double score, double sizes, double value, double cap) {
    const double u = unit(t, hd), tiny = t == DT_F16 ? ldexp(1, -25) : 0;
    const double delta = u * score + 2e-7 * cap + tiny * sizes;
    return (2 * delta + 2 * u + n * ldexp(1, -27) + 2 * n * tiny) * value + tiny;
}

static double promised(const world *w, const float *q, const float *k, const float *v, int64_t lo,
                       int64_t hi) {
    const int64_t ld = w->kv_heads * w->hd;
    const double scale = 1 / sqrt((double)w->hd);
    double score = 0, sizes = 0, value = 0;
    for (int64_t j = lo; j < hi; j++) {
        double sum = 0, size = 0;
        for (int64_t d = 0; d < w->hd; d++) {
            sum += fabs((double)q[d] * k[j * ld + d]);
            size += fabs((double)q[d]) + fabs((double)k[j * ld + d]);
            value = fmax(value, fabs((double)v[j * ld + d]));
        }
        score = fmax(score, scale * sum);
        sizes = fmax(sizes, scale * size);
    }
    return most(w->narrow, w->hd, (double)(hi - lo), score, sizes, value, (double)w->softcap);
}

/* Head sizes on both sides of each width that a kernel is made for, and such as are no multiple of anything. */
static const int64_t head_sizes[] = {1, 8, 15, 33, 64, 72, 80, 88, 96, 100, 128, 131, 160, 256};

static void test_truth(void **state) {
    (void)state;
    uint64_t seed = 21;
    double worst[ARRAY_LEN(types)] = {0}; /* error as a part of the promised */
    rig r;
    RIG_EACH(r, 2) {
        for (int t = 0; t < (int)ARRAY_LEN(head_sizes) * 3; t++) {
            const int64_t *g = groupings[ref_int(&seed, 0, ARRAY_LEN(groupings) - 1)];
            const int64_t hd = head_sizes[t / 3];
            const bool causal = ref_int(&seed, 0, 3) != 0;
            const int window = ref_int(&seed, 0, 2) == 0 ? (int)ref_int(&seed, 1, 100) : 0;
            world w = world_new(&seed, (int)ref_int(&seed, 1, 3), g[0], g[1], hd, t % 5 ? 60 : 170);
            w.narrow = types[t % 3];
            world_keep(&w, ref_int(&seed, 0, 1) ? w.narrow : kept_types[ref_int(&seed, 0, 2)]);
            if (ref_int(&seed, 0, 2) == 0) w.softcap = 1.5f;
            if (causal && ref_int(&seed, 0, 2) == 0) {
                random_limits(&seed, &w);
                w.limit_spares = ref_int(&seed, 0, 1);
            }
            worst[t % 3] = fmax(worst[t % 3], world_check(&r, &w, causal, window, 16, promised));
            world_free(&w);
        }
        rig_fini(&r);
    }
    print_message("of the error promised: f32 %.3f, bf16 %.3f, f16 %.3f\n", worst[0], worst[1], worst[2]);
    for (int i = 0; on_gpu() && i < (int)ARRAY_LEN(types); i++) {
        assert_true(worst[i] < 0.1);                         /* worst cases do not come together */
        assert_true(types[i] == DT_F32 || worst[i] > 0.001); /* they were rounded */
    }
}

/* What a sequence's next piece may be: never one row, nor one row left behind it. */
static int64_t piece(uint64_t *seed, int64_t left) {
    int64_t n = ref_int(seed, 2, 70);
    return left - n < 2 ? left : n;
}

/* Whole, whole with others, in pieces mixed with other sequences' pieces and single rows, from dense rows: the same bits. */
static void test_pieces(void **state) {
    (void)state;
    enum { SEQS = 4 };
    static const struct {
        int64_t heads, kv_heads, hd;
        int window;
        float softcap;
        bool limits;
        /* windows of 63 and 47: to the last rows of warps the first key of a block is the only one behind it */
    } cases[] = {{3, 1, 64, 0, 0, false},  {2, 2, 15, 63, 0, false},     {8, 2, 128, 0, 1.5f, true},
                 {2, 1, 80, 100, 0, true}, {1, 1, 256, 47, 1.5f, false}, {7, 1, 96, 0, 0, true}};
    static const int32_t lens[SEQS] = {150, 33, 64, 2};
    uint64_t seed = 22;
    for (size_t t = 0; t < ARRAY_LEN(cases) * 3; t++) {
        const int window = cases[t / 3].window;
        if (brief() && t % 3 != t / 3 % 3) continue; /* every width and every type, not each with each */
        world w =
            world_sized(&seed, SEQS, cases[t / 3].heads, cases[t / 3].kv_heads, cases[t / 3].hd, 150, lens);
        const int64_t width = w.heads * w.hd;
        float *whole[SEQS], *y[SEQS];
        w.narrow = types[t % 3];
        world_keep(&w, t % 2 ? kept_types[(t / 2 + 1) % 3] : w.narrow);
        w.softcap = cases[t / 3].softcap;
        if (cases[t / 3].limits) random_limits(&seed, &w);
        for (int s = 0; s < SEQS; s++) whole[s] = floats(w.len[s] * width), y[s] = floats(w.len[s] * width);
        rig r;
        RIG_EACH(r, 2) {
            const int all[] = {0, 1, 2, 3};
            int64_t none[SEQS] = {0}, to[SEQS], at[SEQS] = {0};
            for (int s = 0; s < SEQS; s++) {
                to[s] = w.len[s];
                world_write(&r, &w, s, 0, w.len[s]);
                world_attn(&r, &w, &s, 1, &none[s], &to[s], true, window, whole);
            }
            world_attn(&r, &w, all, SEQS, none, to, true, window, y);
            for (int s = 0; s < SEQS; s++) same_bits("with others", whole[s], y[s], w.len[s] * width);
            for (bool more = true; more;) {
                int seq[SEQS], n = 0;
                int64_t from[SEQS], upto[SEQS];
                more = false;
                for (int s = 0; s < SEQS; s++) {
                    const int64_t left = w.len[s] - at[s];
                    if (left == 0 || ref_int(&seed, 0, 2) == 0) {
                        more = more || left;
                        continue;
                    }
                    seq[n] = s;
                    from[n] = at[s];
                    upto[n++] = at[s] += piece(&seed, left);
                    more = more || at[s] < w.len[s];
                }
                if (n) world_attn(&r, &w, seq, n, from, upto, true, window, y);
            }
            for (int s = 0; s < SEQS; s++) same_bits("in pieces", whole[s], y[s], w.len[s] * width);
            for (int s = 0; s < SEQS && !w.softcap && !cases[t / 3].limits; s++) {
                world_dense(&r, &w, s, window, y[s]);
                same_bits("dense", whole[s], y[s], w.len[s] * width);
            }
            /* The last row of each sequence, computed as its others: alone, with others, and of a call of its own. */
            int64_t last[SEQS], first[SEQS] = {w.len[0] - 1, 0, w.len[2] - 1, 0};
            for (int s = 0; s < SEQS; s++) last[s] = w.len[s] - 1;
            w.uniform = true;
            for (int mode = 0; mode < 3; mode++) {
                for (int s = 0; s < SEQS && mode == 2; s++)
                    world_attn(&r, &w, &s, 1, &last[s], &to[s], true, window, y);
                if (mode < 2) world_attn(&r, &w, all, SEQS, mode ? first : last, to, true, window, y);
                for (int s = 0; s < SEQS; s++)
                    same_bits("uniform", whole[s] + last[s] * width, y[s] + last[s] * width, width);
            }
            w.uniform = false;
            /* The last row of some beside all rows of others: that of a call of its own. */
            world_attn(&r, &w, all, SEQS, first, to, true, window, y);
            for (int s = 1; s < SEQS; s += 2)
                same_bits("beside single rows", whole[s], y[s], w.len[s] * width);
            for (int s = 0; s < SEQS; s += 2) {
                memcpy(whole[s], y[s] + last[s] * width, sizeof(float) * (size_t)width);
                world_attn(&r, &w, &s, 1, &last[s], &to[s], true, window, y);
                same_bits("single row", whole[s], y[s] + last[s] * width, width);
            }
            rig_fini(&r);
        }
        for (int s = 0; s < SEQS; s++) op_free_all(whole[s], y[s]);
        world_free(&w);
    }
}

/* Pictures: rows without pages that all see each other, several in one call; and one picture's rows in blocks. */
static void test_dense(void **state) {
    (void)state;
    enum { H = 3, HD = 72, N = 213, PICS = 3, OUT = N * H * HD };
    static const double SCALE = 0.125;
    uint64_t seed = 23;
    fused f = fused_new(&seed, H, H, HD, N, PICS, (float)SCALE);
    float *whole = floats(PICS * OUT), *y = floats(OUT);
    for (size_t t = 0; t < ARRAY_LEN(types); t++) {
        rig r;
        f.a.narrow = types[t];
        RIG_EACH(r, 2) {
            fused_attn(&r, &f, whole);
            fused_check(&f, whole, 31,
                        most(types[t], HD, N, SCALE * HD, SCALE * HD * 2, 1, 0)); /* none is beyond 1 */
            fused_blocks(&r, &f, 71, y);
            same_bits("blocks of rows", whole, y, OUT);
            rig_fini(&r);
        }
    }
    op_free_all(whole, y);
    fused_free(&f);
}

static void test_spoilt(void **state) {
    (void)state;
    for (size_t t = 0; t < ARRAY_LEN(types); t++) {
        rig r;
        RIG_EACH(r, 1) {
            attn_spoilt(&r, types[t]);
            for (size_t i = 0; i < ARRAY_LEN(kept_types); i++) world_spoilt(&r, kept_types[i], types[t]);
            rig_fini(&r);
        }
    }
}

/* Large numbers stay finite in f16. */
static void test_large(void **state) {
    (void)state;
    enum { N = 150, HD = 64 };
    uint64_t seed = 24;
    float *q = random_floats(&seed, N * HD, 1), *k = random_floats(&seed, N * HD, 1),
          *v = random_floats(&seed, N * HD, 1), *y = floats(N * HD);
    for (int i = 0; i < HD; i++) k[i] = 1e6f, v[i] = -3e5f;
    for (size_t t = 0; t < ARRAY_LEN(types); t++) {
        rig r;
        RIG_EACH(r, 1) {
            attn_args a = attn_rows(1, (int32_t[]){0, N}, (int32_t[]){N});
            a.scale = 0.125f;
            a.causal = true;
            a.window = 40;
            a.narrow = types[t];
            attn_dense(&r, y, q, k, v, N, 1, 1, HD, &a);
            for (int i = 0; i < N * HD; i++) assert_true(isfinite(y[i]));
            attn_rows_free(&a);
            rig_fini(&r);
        }
    }
    op_free_all(q, k, v, y);
}

/* Sequences without keys or rows, lengths and pages that lie, a type that is no float. */
static void test_bad_data(void **state) {
    (void)state;
    enum { ROWS = 6 };
    rig r;
    assert_true(rig_init(&r, NULL, 1));
    uint64_t seed = 25;
    paged p = paged_new(&seed, 2, ROWS, 24, 3, 2);
    p.a.causal = true;
    p.a.limit = tensor_1d(p.limit, DT_I32, ROWS);
    static const struct {
        int32_t start[3], len[2], page, limit;
        const char *why, *why_on_gpu; /* NULL: nothing is wrong */
    } cases[] = {{{0, 3, 6}, {20, 3}, 1, 0, NULL, NULL},
                 {{0, 6, 6}, {20, 0}, 1, 0, NULL, NULL},
                 {{0, 3, 6}, {20, 3}, 1, 32, NULL, NULL}, /* all that the pages hold */
                 {{0, 3, 6}, {20, 2}, 1, 0, "keys", "length"},
                 {{0, 3, 6}, {33, 3}, 1, 0, "pages", "length"},
                 {{0, 3, 7}, {20, 4}, 1, 0, "rows", "length"},
                 {{0, 3, 6}, {20, 3}, 3, 0, "pages", "page number"},
                 {{0, 3, 6}, {20, 3}, -1, 0, "pages", "page number"},
                 {{0, 3, 6}, {20, 3}, 1, 33, "pages", "length"},
                 {{0, 3, 6}, {20, 3}, 1, -1, "limit", "length"}};
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        memcpy(p.start, cases[i].start, sizeof cases[i].start);
        memcpy(p.len, cases[i].len, sizeof cases[i].len);
        memcpy(p.pages, (int32_t[]){1, cases[i].page, 2, 0}, 4 * sizeof *p.pages);
        memset(p.limit, 0, ROWS * sizeof *p.limit);
        p.limit[1] = cases[i].limit;
        op_attn(&r.c, p.yt, p.qt, p.kt, p.vt, &p.a);
        if (cases[i].why)
            rig_fails(&r, cases[i].why, cases[i].why_on_gpu);
        else
            rig_ok(&r);
    }
    p.a.narrow = DT_I32;
    op_attn(&r.c, p.yt, p.qt, p.kt, p.vt, &p.a);
    assert_int_equal(r.c.st.code, ST_INTERNAL);
    assert_non_null(strstr(r.c.st.msg, "float type"));
    memset(&r.c.st, 0, sizeof r.c.st);
    p.a.narrow = DT_BF16;
    memcpy(p.start, (int32_t[]){0, 0, 6}, sizeof cases[0].start); /* a sequence without keys */
    memcpy(p.len, (int32_t[]){0, 6}, sizeof cases[0].len);
    p.limit[1] = 0;
    op_attn(&r.c, p.yt, p.qt, p.kt, p.vt, &p.a);
    rig_ok(&r);
    paged_free(&p);
    rig_fini(&r);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_truth), cmocka_unit_test(test_pieces),
                                       cmocka_unit_test(test_dense), cmocka_unit_test(test_spoilt),
                                       cmocka_unit_test(test_large), cmocka_unit_test(test_bad_data)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
