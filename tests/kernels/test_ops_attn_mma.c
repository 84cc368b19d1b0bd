/* test_ops_attn_mma.c - op_attn where a device may compute sequences of several rows on matrix units (CUDA without
 * deterministic), for every type that attn_args.narrow can name: within the error that docs/gpu.md promises, which follows
 * from the numbers at hand; a row's bits depend neither on the other rows nor on how its sequence is cut into pieces of
 * two rows and more, and one alone in its sequence has those of decoding. On a CPU nothing is rounded. */
#include "tests/kernels/attn_util.h"

static const dtype types[] = {DT_F32, DT_BF16, DT_F16};

/* The u of docs/gpu.md: of a product, with what sums add. On a CPU f32's. */
static double unit(dtype t) {
    if (!on_gpu()) return ldexp(1, -20);
    return t == DT_BF16 ? ldexp(1, -8) : t == DT_F16 ? ldexp(1, -11) : 5 * ldexp(1, -18);
}

static double worst[3]; /* error as a part of the promised, by type */

/* |y - reference| <= unit * (2 * largest score of magnitudes + 2) * largest value, see docs/gpu.md */
static void check_row(const world *w, int s, int64_t p, int64_t len, bool causal, int window,
                      const float *y) {
    double want[256];
    const int64_t g = w->heads / w->kv_heads, ld = w->kv_heads * w->hd;
    const double scale = 1 / sqrt((double)w->hd);
    int64_t lo, hi;
    world_sees(w, s, p, len, causal, window, &lo, &hi);
    for (int64_t h = 0; h < w->heads; h++) {
        const float *q = w->q[s] + (p * w->heads + h) * w->hd, *k = w->k[s] + h / g * w->hd,
                    *v = w->v[s] + h / g * w->hd;
        double score = 0, value = 0;
        for (int64_t j = lo; j < hi; j++) {
            double sum = 0;
            for (int64_t d = 0; d < w->hd; d++) {
                sum += fabs((double)q[d] * k[j * ld + d]);
                value = fmax(value, fabs(v[j * ld + d]));
            }
            score = fmax(score, sum * scale);
        }
        const double bound = unit(w->narrow) * (2 * score + 2) * value;
        ref_attn(want, q, k, v, ld, lo, hi, w->hd, scale, (double)w->softcap);
        for (int64_t d = 0; d < w->hd; d++) {
            near("attn", y[h * w->hd + d], want[d], bound);
            double *part = &worst[w->narrow == DT_F32 ? 0 : w->narrow == DT_BF16 ? 1 : 2];
            *part = fmax(*part, fabs(y[h * w->hd + d] - want[d]) / bound);
        }
    }
}

/* Head sizes on both sides of each width that a kernel is made for, and such as are no multiple of anything. */
static const int64_t head_sizes[] = {1, 8, 15, 33, 64, 72, 80, 88, 96, 100, 128, 131, 160, 256};

static void test_truth(void **state) {
    (void)state;
    uint64_t seed = 21;
    rig r;
    RIG_EACH(r, 2) {
        for (int t = 0; t < (int)ARRAY_LEN(head_sizes) * 3; t++) {
            const int64_t *g = groupings[ref_int(&seed, 0, ARRAY_LEN(groupings) - 1)];
            const int64_t hd = head_sizes[t / 3], width = g[0] * hd;
            const bool causal = ref_int(&seed, 0, 3) != 0;
            const int window = ref_int(&seed, 0, 2) == 0 ? (int)ref_int(&seed, 1, 100) : 0;
            world w = world_new(&seed, (int)ref_int(&seed, 1, 3), g[0], g[1], hd, t % 5 ? 60 : 170);
            w.narrow = types[t % 3];
            if (ref_int(&seed, 0, 2) == 0) w.softcap = 1.5f;
            if (causal && ref_int(&seed, 0, 2) == 0) {
                random_limits(&seed, &w);
                w.limit_spares = ref_int(&seed, 0, 1);
            }
            int seq[3];
            int64_t from[3], to[3];
            float *y[3];
            for (int s = 0; s < w.n_seqs; s++) {
                seq[s] = s;
                to[s] = w.len[s];
                from[s] = w.len[s] - w.rows[s];
                y[s] = floats(w.len[s] * width);
                world_write(&r, &w, s, 0, w.len[s]);
            }
            world_attn(&r, &w, seq, w.n_seqs, from, to, causal, window, y);
            for (int s = 0; s < w.n_seqs; s++) {
                for (int64_t p = from[s]; p < to[s]; p += 1 + (to[s] - from[s]) / 16)
                    check_row(&w, s, p, w.len[s], causal, window, y[s] + p * width);
                op_free(y[s]);
            }
            world_free(&w);
        }
        rig_fini(&r);
    }
    if (on_gpu()) assert_true(worst[1] > 0.001 && worst[2] > 0.001); /* they were rounded */
    print_message("of the error promised: f32 %.2f, bf16 %.2f, f16 %.2f\n", worst[0], worst[1], worst[2]);
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
    } cases[] = {{3, 1, 64, 0, 0, false},  {2, 2, 15, 70, 0, false},     {8, 2, 128, 0, 1.5f, true},
                 {2, 1, 80, 100, 0, true}, {1, 1, 256, 40, 1.5f, false}, {7, 1, 96, 0, 0, true}};
    static const int32_t lens[SEQS] = {150, 33, 64, 2};
    uint64_t seed = 22;
    for (size_t t = 0; t < ARRAY_LEN(cases) * 3; t++) {
        const int window = cases[t / 3].window;
        world w =
            world_sized(&seed, SEQS, cases[t / 3].heads, cases[t / 3].kv_heads, cases[t / 3].hd, 150, lens);
        const int64_t width = w.heads * w.hd;
        float *whole[SEQS], *y[SEQS];
        w.narrow = types[t % 3];
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
        for (int s = 0; s < SEQS; s++) {
            op_free(whole[s]);
            op_free(y[s]);
        }
        world_free(&w);
    }
}

/* Pictures: rows without pages that all see each other, several in one call; and one picture's rows in blocks. */
static void test_dense(void **state) {
    (void)state;
    enum { H = 3, HD = 72, N = 213, PICS = 3, W = 3 * H * HD, OUT = N * H * HD };
    uint64_t seed = 23;
    float *x = random_floats(&seed, (int64_t)PICS * N * W, 1), *whole = floats(PICS * OUT), *y = floats(OUT);
    int32_t *start = op_ints(PICS + 1), *len = op_ints(PICS);
    for (size_t t = 0; t < ARRAY_LEN(types); t++) {
        rig r;
        RIG_EACH(r, 2) {
            tensor f = tensor_2d(x, DT_F32, PICS * N, W), q = tensor_heads(tensor_cols(f, 0, H * HD), H, HD);
            tensor k = tensor_heads(tensor_cols(f, H * HD, H * HD), H, HD),
                   v = tensor_heads(tensor_cols(f, 2 * H * HD, H * HD), H, HD);
            attn_args a = {.scale = 0.12f,
                           .narrow = types[t],
                           .n_seqs = PICS,
                           .q_start = tensor_1d(start, DT_I32, PICS + 1),
                           .kv_len = tensor_1d(len, DT_I32, PICS)};
            for (int i = 0; i <= PICS; i++) start[i] = i * N;
            for (int i = 0; i < PICS; i++) len[i] = N;
            op_attn(&r.c, tensor_3d(whole, DT_F32, PICS * N, H, HD), q, k, v, &a);
            rig_ok(&r);
            for (int i = 0; i < PICS * N; i += 31) {
                double want[HD];
                const float *keys = x + i / N * N * W + H * HD;
                ref_attn(want, x + i * W, keys, keys + H * HD, W, 0, N, HD, 0.12f, 0);
                /* the promised bound of the largest score, 0.12 * 72 */
                for (int d = 0; d < HD; d++)
                    near("dense", whole[i * H * HD + d], want[d], unit(types[t]) * (2 * 0.12 * HD + 2));
            }
            a.n_seqs = 1;
            a.q_start = tensor_1d(start, DT_I32, 2);
            a.kv_len = tensor_1d(len, DT_I32, 1);
            for (int at = 0, n; at < N; at += n) {
                n = N - at < 71 ? N - at : 71;
                start[1] = n;
                op_attn(&r.c, tensor_3d(y + at * H * HD, DT_F32, n, H, HD), tensor_rows(q, at, n),
                        tensor_rows(k, 0, N), tensor_rows(v, 0, N), &a);
                rig_ok(&r);
            }
            same_bits("blocks of rows", whole, y, OUT);
            rig_fini(&r);
        }
    }
    op_free(x);
    op_free(whole);
    op_free(y);
    op_free(start);
    op_free(len);
}

/* What is no number in a key or value reaches the rows that see it and no other; large numbers stay finite in f16. */
static void test_spoilt(void **state) {
    (void)state;
    enum { N = 150, HD = 64, BAD = 77 };
    for (size_t t = 0; t < ARRAY_LEN(types) * 4; t++) {
        const float bad = t % 2 ? INFINITY : NAN;
        const bool in_value = t / 2 % 2;
        rig r;
        RIG_EACH(r, 1) {
            uint64_t seed = 24;
            float *q = random_floats(&seed, N * HD, 1), *k = random_floats(&seed, N * HD, 1),
                  *v = random_floats(&seed, N * HD, 1), *y = floats(2 * N * HD);
            int32_t *start = op_copy_of((int32_t[]){0, N}, 8), *len = op_copy_of((int32_t[]){N}, 4);
            attn_args a = {.scale = 0.125f,
                           .causal = true,
                           .window = 40,
                           .narrow = types[t / 4],
                           .n_seqs = 1,
                           .q_start = tensor_1d(start, DT_I32, 2),
                           .kv_len = tensor_1d(len, DT_I32, 1)};
            for (int i = 0; i < 2; i++) {
                op_attn(&r.c, tensor_3d(y + i * N * HD, DT_F32, N, 1, HD), tensor_3d(q, DT_F32, N, 1, HD),
                        tensor_3d(k, DT_F32, N, 1, HD), tensor_3d(v, DT_F32, N, 1, HD), &a);
                rig_ok(&r);
                if (i == 0) (in_value ? v : k)[BAD * HD + 5] = bad;
            }
            for (int i = 0; i < N; i++)
                if (i < BAD || i >= BAD + 40)
                    same_bits("spared", y + i * HD, y + (N + i) * HD, HD);
                else if (in_value || isnan(bad))
                    assert_false(isfinite(y[(N + i) * HD + 5]));
            for (int i = 0; i < HD; i++) k[i] = 1e6f, v[i] = -3e5f;
            (in_value ? v : k)[BAD * HD + 5] = 0;
            op_attn(&r.c, tensor_3d(y, DT_F32, N, 1, HD), tensor_3d(q, DT_F32, N, 1, HD),
                    tensor_3d(k, DT_F32, N, 1, HD), tensor_3d(v, DT_F32, N, 1, HD), &a);
            rig_ok(&r);
            for (int i = 0; i < N * HD; i++) assert_true(isfinite(y[i]));
            op_free(q);
            op_free(k);
            op_free(v);
            op_free(y);
            op_free(start);
            op_free(len);
            rig_fini(&r);
        }
    }
}

/* Sequences without keys or rows, lengths and pages that lie, a type that is no float. */
static void test_bad_data(void **state) {
    (void)state;
    enum { ROWS = 6, HD = 24, POOL = 3 * KV_PAGE_TOK * HD };
    rig r;
    assert_true(rig_init(&r, NULL, 1));
    uint64_t seed = 25;
    float *kc = random_floats(&seed, POOL, 1), *vc = random_floats(&seed, POOL, 1),
          *q = random_floats(&seed, ROWS * HD, 1), *y = floats(ROWS * HD);
    int32_t *start = op_ints(3), *len = op_ints(2), *pages = op_ints(4), *limit = op_ints(ROWS);
    static const struct {
        int32_t start[3], len[2], page, limit;
        const char *why, *why_on_gpu; /* NULL: nothing is wrong */
    } cases[] = {{{0, 3, 6}, {20, 3}, 1, 0, NULL, NULL},
                 {{0, 6, 6}, {20, 0}, 1, 0, NULL, NULL},
                 {{0, 3, 6}, {20, 2}, 1, 0, "keys", "length"},
                 {{0, 3, 6}, {33, 3}, 1, 0, "pages", "length"},
                 {{0, 3, 7}, {20, 4}, 1, 0, "rows", "length"},
                 {{0, 3, 6}, {20, 3}, 3, 0, "pages", "page number"},
                 {{0, 3, 6}, {20, 3}, -1, 0, "pages", "page number"},
                 {{0, 3, 6}, {20, 3}, 1, 33, "pages", "length"},
                 {{0, 3, 6}, {20, 3}, 1, -1, "limit", "length"}};
    const int64_t pd[] = {3, 1, KV_PAGE_TOK, HD};
    attn_args a = {.scale = 1,
                   .causal = true,
                   .n_seqs = 2,
                   .q_start = tensor_1d(start, DT_I32, 3),
                   .kv_len = tensor_1d(len, DT_I32, 2),
                   .limit = tensor_1d(limit, DT_I32, ROWS),
                   .pages = tensor_2d(pages, DT_I32, 2, 2)};
    tensor kt = tensor_of(kc, DT_F32, 4, pd), vt = tensor_of(vc, DT_F32, 4, pd),
           qt = tensor_3d(q, DT_F32, ROWS, 1, HD), yt = tensor_3d(y, DT_F32, ROWS, 1, HD);
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        memcpy(start, cases[i].start, sizeof cases[i].start);
        memcpy(len, cases[i].len, sizeof cases[i].len);
        memcpy(pages, (int32_t[]){1, cases[i].page, 2, 0}, 4 * sizeof *pages);
        memset(limit, 0, ROWS * sizeof *limit);
        limit[1] = cases[i].limit;
        op_attn(&r.c, yt, qt, kt, vt, &a);
        if (cases[i].why)
            rig_fails(&r, cases[i].why, cases[i].why_on_gpu);
        else
            rig_ok(&r);
    }
    a.narrow = DT_I32;
    op_attn(&r.c, yt, qt, kt, vt, &a);
    assert_int_equal(r.c.st.code, ST_INTERNAL);
    assert_non_null(strstr(r.c.st.msg, "float type"));
    memset(&r.c.st, 0, sizeof r.c.st);
    a.narrow = DT_BF16;
    memcpy(start, (int32_t[]){0, 0, 6}, sizeof cases[0].start); /* a sequence without keys */
    memcpy(len, (int32_t[]){0, 6}, sizeof cases[0].len);
    limit[1] = 0;
    op_attn(&r.c, yt, qt, kt, vt, &a);
    rig_ok(&r);
    op_free(kc);
    op_free(vc);
    op_free(q);
    op_free(y);
    op_free(start);
    op_free(len);
    op_free(pages);
    op_free(limit);
    rig_fini(&r);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_truth), cmocka_unit_test(test_pieces),
                                       cmocka_unit_test(test_dense), cmocka_unit_test(test_spoilt),
                                       cmocka_unit_test(test_bad_data)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
