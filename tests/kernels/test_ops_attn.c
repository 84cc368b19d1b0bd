/* test_ops_attn.c - op_attn and op_kv_write: against double precision over random mixes of sequences, heads,
 * lengths and windows; whole = chunked = alone = batched bit for bit, on every instruction set and thread
 * count; a GPU with bits promised (without: test_ops_attn_mma.c). */
#include "tests/kernels/attn_util.h"
#ifdef VLMD_CUDA
#include "kernels/cuda/cuda.h"
#endif

static void check_row(const world *w, int s, int64_t p, int64_t len, bool causal, int window,
                      const float *y) {
    double want[512];
    int64_t g = w->heads / w->kv_heads, lo, hi;
    world_sees(w, s, p, len, causal, window, &lo, &hi);
    for (int64_t h = 0; h < w->heads; h++) {
        ref_attn(want, w->q[s] + (p * w->heads + h) * w->hd, w->k[s] + h / g * w->hd, w->v[s] + h / g * w->hd,
                 w->kv_heads * w->hd, lo, hi, w->hd, 1 / sqrt((double)w->hd), (double)w->softcap);
        for (int64_t d = 0; d < w->hd; d++) near("attn", y[h * w->hd + d], want[d], 4e-6);
    }
}

static const int64_t head_sizes[] = {1, 4, 8, 15, 16, 24, 33, 64, 72, 80, 96, 128, 131};

static void test_paged(void **state) {
    (void)state;
    uint64_t seed = 11;
    rig r;
    RIG_EXACT(r, 2) {
        for (int t = 0; t < 14; t++) {
            const int64_t *g = groupings[ref_int(&seed, 0, ARRAY_LEN(groupings) - 1)];
            int64_t hd = head_sizes[t % (int)ARRAY_LEN(head_sizes)];
            bool causal = ref_int(&seed, 0, 3) != 0;
            int window = ref_int(&seed, 0, 1) ? (int)ref_int(&seed, 1, 150) : 0;
            world w = world_new(&seed, (int)ref_int(&seed, 1, 5), g[0], g[1], hd, t % 4 ? 90 : 300);
            int seq[20];
            int64_t from[20], to[20];
            float *y[20];
            for (int s = 0; s < w.n_seqs; s++) {
                seq[s] = s;
                to[s] = w.len[s];
                from[s] = w.len[s] - w.rows[s];
                y[s] = floats(w.len[s] * g[0] * hd);
                int64_t cut = w.len[s] / 2;
                world_write(&r, &w, s, 0, cut);
                world_write(&r, &w, s, cut, w.len[s]);
            }
            world_attn(&r, &w, seq, w.n_seqs, from, to, causal, window, y);
            for (int s = 0; s < w.n_seqs; s++) {
                for (int64_t p = from[s]; p < to[s]; p++)
                    check_row(&w, s, p, w.len[s], causal, window, y[s] + p * g[0] * hd);
                op_free(y[s]);
            }
            world_free(&w);
        }
        rig_fini(&r);
    }
}

/* The same sequences: whole prompts, row by row as in decoding, and in random chunks mixed with each other.
 */
static void test_chunks(void **state) {
    (void)state;
    uint64_t seed = 12;
    for (int t = 0; t < 8; t++) {
        const int64_t *g = groupings[t];
        int64_t hd = head_sizes[ref_int(&seed, 0, ARRAY_LEN(head_sizes) - 1)], width = g[0] * hd;
        int window = t % 3 == 1 ? (int)ref_int(&seed, 1, 80) : 0;
        world w = world_new(&seed, 3, g[0], g[1], hd, 140);
        float *first[20] = {0}, *y[20];
        for (int s = 0; s < w.n_seqs; s++) y[s] = floats(w.len[s] * width);
        rig r;
        for (int threads = 1; threads <= 3; threads++) RIG_EXACT(r, threads) {
                for (int mode = 0; mode < 3; mode++) {
                    if (mode == 1 && threads == 2) continue;
                    for (int64_t i = 0; i < w.n_pages * w.kv_heads * KV_PAGE_TOK * hd; i++)
                        w.kc[i] = w.vc[i] = NAN;
                    int64_t at[20] = {0};
                    for (;;) {
                        int seq[20], n = 0;
                        int64_t from[20], to[20];
                        for (int s = 0; s < w.n_seqs; s++) {
                            if (at[s] >= w.len[s] || (mode == 2 && ref_int(&seed, 0, 3) == 0)) continue;
                            int64_t step = mode == 0 ? w.len[s] : mode == 1 ? 1 : ref_int(&seed, 1, 70);
                            seq[n] = s;
                            from[n] = at[s];
                            to[n] = at[s] + step < w.len[s] ? at[s] + step : w.len[s];
                            world_write(&r, &w, s, from[n], to[n]);
                            at[s] = to[n++];
                        }
                        bool done = true;
                        for (int s = 0; s < w.n_seqs; s++) done = done && at[s] >= w.len[s];
                        if (n) world_attn(&r, &w, seq, n, from, to, true, window, y);
                        if (done) break;
                    }
                    for (int s = 0; s < w.n_seqs; s++) {
                        if (!first[s]) {
                            first[s] = floats(w.len[s] * width);
                            memcpy(first[s], y[s], sizeof(float) * (size_t)(w.len[s] * width));
                            for (int64_t p = 0; p < w.len[s]; p += 7)
                                check_row(&w, s, p, w.len[s], true, window, y[s] + p * width);
                        }
                        same_bits(r.isa, first[s], y[s], w.len[s] * width);
                    }
                }
                rig_fini(&r);
            }
        for (int s = 0; s < w.n_seqs; s++) {
            op_free(first[s]);
            op_free(y[s]);
        }
        world_free(&w);
    }
}

/* Rows that see beyond their own place, and capped scores: right, and the same whole, alone, and in blocks of rows while
 * all keys are there already. */
static void test_limits(void **state) {
    (void)state;
    uint64_t seed = 17;
    for (int t = 0; t < 8; t++) {
        const int64_t *g = groupings[t];
        int64_t hd = head_sizes[ref_int(&seed, 1, ARRAY_LEN(head_sizes) - 1)], width = g[0] * hd;
        int window = t % 2 ? (int)ref_int(&seed, 1, 80) : 0;
        world w = world_new(&seed, 3, g[0], g[1], hd, t < 2 ? 600 : 200);
        if (t % 3) random_limits(&seed, &w);
        if (t != 1 && t != 5) w.softcap = 1.5f;
        w.limit_spares = t % 4 == 1;
        float *first[3] = {0};
        rig r;
        for (int threads = 1; threads <= 2; threads++) RIG_EXACT(r, threads) {
                for (int s = 0; s < 3; s++) world_write(&r, &w, s, 0, w.len[s]);
                for (int mode = 0; mode < 3; mode++) { /* together, alone, in blocks */
                    float *y[3];
                    for (int s = 0; s < 3; s++) y[s] = floats(w.len[s] * width);
                    const int all[] = {0, 1, 2};
                    int64_t from[3] = {0}, to[3] = {w.len[0], w.len[1], w.len[2]};
                    if (mode == 0) world_attn(&r, &w, all, 3, from, to, true, window, y);
                    for (int s = 0; s < 3 && mode; s++)
                        for (int64_t a = 0, b; a < w.len[s]; a = b) {
                            b = mode == 2 ? a + ref_int(&seed, 1, 60) : w.len[s];
                            if (b > w.len[s]) b = w.len[s];
                            world_attn(&r, &w, &s, 1, &a, &b, true, window, y);
                        }
                    for (int s = 0; s < 3; s++) {
                        if (!first[s]) {
                            for (int64_t p = 0; p < w.len[s]; p += 5)
                                check_row(&w, s, p, w.len[s], true, window, y[s] + p * width);
                            first[s] = y[s];
                            continue;
                        }
                        same_bits(r.isa, first[s], y[s], w.len[s] * width);
                        op_free(y[s]);
                    }
                }
                rig_fini(&r);
            }
        for (int s = 0; s < 3; s++) op_free(first[s]);
        world_free(&w);
    }
}

/* Without pages: a tower's rows, several pictures in one call, as column views of one fused projection. */
static void test_dense(void **state) {
    (void)state;
    uint64_t seed = 13;
    const int64_t shapes[][4] = {/* heads, kv heads, hd, rows of a picture */
                                 {2, 2, 64, 577},
                                 {3, 3, 72, 130},
                                 {2, 1, 80, 65},
                                 {1, 1, 5, 1},
                                 {4, 2, 16, 64}};
    for (size_t t = 0; t < ARRAY_LEN(shapes); t++) {
        int64_t h = shapes[t][0], kvh = shapes[t][1], hd = shapes[t][2], n = shapes[t][3],
                pics = t == 0 ? 1 : 3;
        int64_t width = (h + 2 * kvh) * hd, total = n * pics;
        float *x = random_floats(&seed, total * width, 1), *first = NULL;
        int32_t *start = op_ints(4), *len = op_ints(3);
        for (int i = 0; i <= pics; i++) start[i] = (int32_t)(i * n);
        for (int i = 0; i < pics; i++) len[i] = (int32_t)n;
        for (int causal = 0; causal < 2; causal++, op_free(first), first = NULL) {
            rig r;
            for (int threads = 1; threads <= 3; threads++) RIG_EXACT(r, threads) {
                    if (strcmp(r.isa, "portable") == 0 && n == 577 && (causal || threads > 1)) {
                        rig_fini(&r);
                        continue;
                    }
                    float *y = floats(total * h * hd);
                    tensor f = tensor_2d(x, DT_F32, total, width);
                    attn_args a = {.scale = 0.17f,
                                   .causal = causal,
                                   .n_seqs = (int)pics,
                                   .q_start = tensor_1d(start, DT_I32, pics + 1),
                                   .kv_len = tensor_1d(len, DT_I32, pics)};
                    op_attn(&r.c, tensor_3d(y, DT_F32, total, h, hd),
                            tensor_heads(tensor_cols(f, 0, h * hd), h, hd),
                            tensor_heads(tensor_cols(f, h * hd, kvh * hd), kvh, hd),
                            tensor_heads(tensor_cols(f, (h + kvh) * hd, kvh * hd), kvh, hd), &a);
                    rig_ok(&r);
                    if (first) {
                        same_bits(r.isa, first, y, total * h * hd);
                        op_free(y);
                    } else {
                        first = y;
                        double want[128];
                        for (int64_t i = 0; i<total; i += n> 200 ? 37 : 1)
                            for (int64_t j = 0; j < h; j++) {
                                const float *base = x + i / n * n * width;
                                ref_attn(want, x + i * width + j * hd, base + (h + j / (h / kvh)) * hd,
                                         base + (h + kvh + j / (h / kvh)) * hd, width, 0,
                                         causal ? i % n + 1 : n, hd, 0.17f, 0);
                                for (int64_t d = 0; d < hd; d++)
                                    near("dense", y[(i * h + j) * hd + d], want[d], 6e-6);
                            }
                    }
                    rig_fini(&r);
                }
        }
        op_free(x);
        op_free(start);
        op_free(len);
    }
}

/* One picture's rows a block at a time over all its keys: the bits of all rows at once (which test_dense checks). */
static void test_block_of_rows(void **state) {
    (void)state;
    enum { H = 3, HD = 72, N = 213, W = 3 * H * HD };
    uint64_t seed = 14;
    float *x = random_floats(&seed, (int64_t)N * W, 1), *whole = floats(N * H * HD), *y = floats(N * H * HD);
    tensor f = tensor_2d(x, DT_F32, N, W), q = tensor_heads(tensor_cols(f, 0, H * HD), H, HD);
    tensor k = tensor_heads(tensor_cols(f, H * HD, H * HD), H, HD),
           v = tensor_heads(tensor_cols(f, 2 * H * HD, H * HD), H, HD);
    for (int threads = 1; threads <= 2; threads++) {
        rig r;
        RIG_EXACT(r, threads) {
            int32_t *start = op_ints(2), *len = op_ints(1), *two = op_ints(3), *lens = op_ints(2);
            start[0] = 0, start[1] = *len = N;
            attn_args a = {.scale = 0.12f,
                           .n_seqs = 1,
                           .q_start = tensor_1d(start, DT_I32, 2),
                           .kv_len = tensor_1d(len, DT_I32, 1)};
            op_attn(&r.c, tensor_3d(whole, DT_F32, N, H, HD), q, k, v, &a);
            rig_ok(&r);
            static const int sizes[] = {1, 31, 64, 107};
            for (size_t i = 0; i < ARRAY_LEN(sizes); i++) {
                for (int64_t at = 0; at < N; at += sizes[i]) {
                    int64_t n = N - at < sizes[i] ? N - at : sizes[i];
                    start[1] = (int32_t)n;
                    op_attn(&r.c, tensor_3d(y + at * H * HD, DT_F32, n, H, HD), tensor_rows(q, at, n), k, v,
                            &a);
                    rig_ok(&r); /* start changes */
                }
                rig_ok(&r);
                same_bits(r.isa, whole, y, N * H * HD);
            }
            start[1] = 10, *len = N + 1; /* more keys than there are */
            op_attn(&r.c, tensor_3d(y, DT_F32, 10, H, HD), tensor_rows(q, 0, 10), k, v, &a);
            rig_fails(&r, "keys", "length");
            for (int t = 0; t < 3; t++) two[t] = 5 * t;
            lens[0] = lens[1] = 5; /* of several sequences keys and rows are alike */
            a.n_seqs = 2;
            a.q_start = tensor_1d(two, DT_I32, 3);
            a.kv_len = tensor_1d(lens, DT_I32, 2);
            op_attn(&r.c, tensor_3d(y, DT_F32, 10, H, HD), tensor_rows(q, 0, 10), k, v, &a);
            assert_int_equal(r.c.st.code, ST_INTERNAL);
            memset(&r.c.st, 0, sizeof r.c.st);
            rig_ok(&r);
            op_free(start);
            op_free(len);
            op_free(two);
            op_free(lens);
            rig_fini(&r);
        }
    }
    op_free(x);
    op_free(whole);
    op_free(y);
}

/* Over several hundred keys, where work on one row may be shared out: a row has the same bits in a whole prompt, from dense
 * rows, as the one row of its sequence, and in every mix of sequences. */
static void test_long(void **state) {
    (void)state;
    static const struct {
        int64_t heads, kv_heads, hd;
        int window;
        int32_t len[5];
    } cases[] = {{4, 2, 32, 0, {700, 257, 256, 5, 513}}, {1, 1, 15, 300, {700, 257, 256, 5, 513}},
                 {8, 1, 24, 0, {300, 64, 512, 1, 65}},   {20, 1, 8, 100, {300, 64, 258, 1, 65}},
                 {2, 2, 160, 0, {290, 16, 257, 3, 129}}, {1, 1, 256, 0, {270, 16, 257, 3, 129}}};
    enum { SEQS = 5, PART = 70 };
    uint64_t seed = 14;
    for (size_t t = 0; t < ARRAY_LEN(cases); t++) {
        const int window = cases[t].window;
        world w = world_sized(&seed, SEQS, cases[t].heads, cases[t].kv_heads, cases[t].hd, 700, cases[t].len);
        const int64_t width = w.heads * w.hd;
        float *whole[SEQS], *y[SEQS];
        int64_t none[SEQS] = {0}, to[SEQS], last[SEQS], part[SEQS];
        for (int s = 0; s < SEQS; s++) {
            whole[s] = floats(w.len[s] * width);
            y[s] = floats(w.len[s] * width);
            to[s] = w.len[s];
            last[s] = part[s] = w.len[s] - 1;
        }
        part[2] = to[2] > PART ? to[2] - PART : 0;
        rig r;
        RIG_EXACT(r, 2) {
            const int all[] = {0, 1, 2, 3, 4};
            for (int s = 0; s < SEQS; s++) {
                world_write(&r, &w, s, 0, w.len[s]);
                world_attn(&r, &w, &s, 1, &none[s], &to[s], true, window, whole);
                for (int64_t p = w.len[s] - 1; p >= 0; p -= 61)
                    check_row(&w, s, p, w.len[s], true, window, whole[s] + p * width);
            }
            for (int mode = 0; mode < 5; mode++) {
                const int64_t *from = mode == 0 || mode == 3 ? none : mode == 2 ? part : last;
                if (mode == 3)
                    for (int s = 0; s < SEQS; s++) world_dense(&r, &w, s, window, y[s]);
                else if (mode == 4)
                    world_attn(&r, &w, all, 1, from, to, true, window, y);
                else
                    world_attn(&r, &w, all, SEQS, from, to, true, window, y);
                for (int s = 0; s < (mode == 4 ? 1 : SEQS); s++)
                    same_bits(r.isa, whole[s] + from[s] * width, y[s] + from[s] * width,
                              (to[s] - from[s]) * width);
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

/* Sequences without rows, rows without keys, and rows that know more keys than they are. */
static void test_empty(void **state) {
    (void)state;
    rig r;
    RIG_EXACT(r, 2) {
        enum { SEQS = 5, HD = 8, POOL = 6 * KV_PAGE_TOK * HD };
        uint64_t seed = 15;
        float *kc = random_floats(&seed, POOL, 1), *vc = random_floats(&seed, POOL, 1);
        const int64_t pd[] = {6, 1, KV_PAGE_TOK, HD};
        for (int more = 0; more < 2; more++) { /* as many rows as sequences at most, and more */
            const int n2 = more ? 4 : 2, rows = 2 + n2;
            const int32_t starts[] = {0, 0, 1, 1 + n2, 2 + n2, 2 + n2}, lens[] = {5, 0, 20, 1, 0};
            int32_t *start = op_copy_of(starts, sizeof starts), *len = op_copy_of(lens, sizeof lens),
                    *pages = op_copy_of((int32_t[]){1, 0, 0, 0, 2, 3, 4, 0, 0, 0}, 10 * sizeof *pages);
            float *q = random_floats(&seed, rows * HD, 1), *y = random_floats(&seed, rows * HD, 1);
            attn_args a = {.scale = 0.5f,
                           .n_seqs = SEQS,
                           .q_start = tensor_1d(start, DT_I32, SEQS + 1),
                           .kv_len = tensor_1d(len, DT_I32, SEQS),
                           .pages = tensor_2d(pages, DT_I32, SEQS, 2)};
            op_attn(&r.c, tensor_3d(y, DT_F32, rows, 1, HD), tensor_3d(q, DT_F32, rows, 1, HD),
                    tensor_of(kc, DT_F32, 4, pd), tensor_of(vc, DT_F32, 4, pd), &a);
            rig_ok(&r);
            for (int i = 0; i < rows; i++) {
                double want[HD] = {0};
                if (i > 0)
                    ref_attn(want, q + i * HD, kc + (i <= n2 ? 2 : 4) * KV_PAGE_TOK * HD,
                             vc + (i <= n2 ? 2 : 4) * KV_PAGE_TOK * HD, HD, 0, i <= n2 ? 20 : 1, HD, 0.5, 0);
                for (int d = 0; d < HD; d++) near("empty", y[i * HD + d], want[d], 2e-6);
            }
            op_free(start);
            op_free(len);
            op_free(pages);
            op_free(q);
            op_free(y);
        }
        op_free(kc);
        op_free(vc);
        rig_fini(&r);
    }
}

/* The kernel itself: dense keys without queries of their own, and the same bits without scratch. */
static void test_device_only(void **state) {
    (void)state;
    if (!on_gpu()) skip();
#ifdef VLMD_CUDA
    enum { KEYS = 600, HD = 36, H = 6, K = 2, W = (H + 2 * K) * HD, OUT = 4 * H * HD };
    uint64_t seed = 16;
    rig r;
    assert_true(rig_init_as(&r, NULL, 1, true));
    float *x = random_floats(&seed, KEYS * W, 1), *y = floats(3 * OUT);
    int32_t *start = op_ints(4), *len = op_ints(3);
    const cuk_attn base = {.q = x,
                           .k = x + H * HD,
                           .v = x + (H + K) * HD,
                           .y_ld = H * HD,
                           .q_ld = W,
                           .k_ld = W,
                           .v_ld = W,
                           .heads = H,
                           .kv_heads = K,
                           .hd = HD,
                           .n_keys = KEYS,
                           .q_start = start,
                           .kv_len = len,
                           .scale = 0.2f,
                           .fault = lane_of(&r.c)->fault};
    /* rows of each sequence: no more rows than sequences go to the split kernel, the last case is a tile */
    static const int32_t starts[3][4] = {{0, 1, 2, 3}, {0, 2, 3, 3}, {0, 4, 4, 4}};
    static const int32_t lens[3][3] = {{600, 500, 1}, {600, 77, 0}, {600, 0, 0}};
    for (int t = 0; t < 3; t++) {
        memcpy(start, starts[t], sizeof starts[t]);
        memcpy(len, lens[t], sizeof lens[t]);
        cuk_attn a = base;
        a.n_seqs = t == 2 ? 1 : 3;
        a.n_rows = start[a.n_seqs];
        const size_t bytes = cuk_attn_scratch(&a);
        assert_true((bytes > 0) == (t < 2));
        a.uniform = true;
        assert_int_equal(cuk_attn_scratch(&a), 0);
        for (int with = 0; with < 2; with++) {
            a.uniform = !with;
            a.y = y + with * OUT;
            a.scratch = with && bytes ? op_alloc(bytes) : NULL;
            a.scratch_bytes = with ? bytes : 0;
            cuk_attention(lane_of(&r.c)->stream, &a);
            rig_ok(&r);
            op_free(a.scratch);
        }
        same_bits("scratch", y, y + OUT, a.n_rows * H * HD);
        for (int s = 0; s < a.n_seqs; s++)
            for (int i = start[s]; i < start[s + 1]; i++)
                for (int h = 0; h < H; h++) {
                    double want[HD];
                    const int g = h / (H / K);
                    ref_attn(want, x + i * W + h * HD, base.k + start[s] * W + g * HD,
                             base.v + start[s] * W + g * HD, W, 0, len[s], HD, 0.2f, 0);
                    for (int d = 0; d < HD; d++) near("probe", y[(i * H + h) * HD + d], want[d], 4e-6);
                }
        if (t == 0) memcpy(y + 2 * OUT, y, H * HD * sizeof *y);
        same_bits("row 0 in every call", y, y + 2 * OUT, H * HD);
    }
    len[0] = KEYS + 1;
    cuk_attn a = base;
    a.y = y;
    a.n_seqs = 1;
    for (a.n_rows = 1; a.n_rows <= 4; a.n_rows += 3) {
        start[1] = a.n_rows;
        cuk_attention(lane_of(&r.c)->stream, &a);
        rig_fails(&r, "", "length");
    }
    op_free(x);
    op_free(y);
    op_free(start);
    op_free(len);
    rig_fini(&r);
#endif
}

/* Scores far apart, and large ones: the running maximum keeps exp in range. NaN stays in its row and head. */
static void test_extremes(void **state) {
    (void)state;
    rig r;
    RIG_EXACT(r, 1) {
        enum { N = 150, HD = 16 };
        float *q = floats(N * HD), *k = floats(N * HD), *v = floats(N * HD), *y = floats(N * HD);
        for (int i = 0; i < N * HD; i++) q[i] = 30, k[i] = (i / HD % 7 - 3) * 40.0f, v[i] = (float)(i / HD);
        q[3 * HD] = NAN;
        int32_t *start = op_copy_of((int32_t[]){0, N}, 8), *len = op_copy_of((int32_t[]){N}, 4);
        attn_args a = {.scale = 1,
                       .causal = true,
                       .n_seqs = 1,
                       .q_start = tensor_1d(start, DT_I32, 2),
                       .kv_len = tensor_1d(len, DT_I32, 1)};
        op_attn(&r.c, tensor_3d(y, DT_F32, N, 1, HD), tensor_3d(q, DT_F32, N, 1, HD),
                tensor_3d(k, DT_F32, N, 1, HD), tensor_3d(v, DT_F32, N, 1, HD), &a);
        rig_ok(&r);
        for (int i = 0; i < N; i++) {
            double want[HD];
            if (i == 3) {
                assert_true(isnan(y[i * HD]));
                continue;
            }
            ref_attn(want, q + i * HD, k, v, HD, 0, i + 1, HD, 1, 0);
            near("extremes", y[i * HD], want[0], 1e-4);
        }
        op_free(q);
        op_free(k);
        op_free(v);
        op_free(y);
        op_free(start);
        op_free(len);
        rig_fini(&r);
    }
}

/* Lengths, pages and slots that lie are errors, not wild reads. */
static void test_bad_data(void **state) {
    (void)state;
    rig r;
    assert_true(rig_init_as(&r, NULL, 2, true));
    enum { POOL = 2 * 1 * 16 * 4, ROWS = 4 * 4 };
    float *kc = floats(POOL), *vc = floats(POOL), *q = floats(ROWS), *y = floats(ROWS);
    memset(kc, 0, POOL * sizeof *kc);
    memset(vc, 0, POOL * sizeof *vc);
    memset(q, 0, ROWS * sizeof *q);
    int32_t *start = op_ints(2), *len = op_ints(1), *page = op_ints(1), *slots = op_ints(4);
    int64_t pd[] = {2, 1, 16, 4};
    tensor kt = tensor_of(kc, DT_F32, 4, pd), vt = tensor_of(vc, DT_F32, 4, pd),
           qt = tensor_3d(q, DT_F32, 4, 1, 4), yt = tensor_3d(y, DT_F32, 4, 1, 4);
    static const struct {
        int32_t start[2], len, page, slot;
        const char *why, *why_on_gpu;
    } bad[] = {{{0, 4}, 3, 1, 0, "keys", "length"},        {{0, 5}, 5, 1, 0, "rows", "length"},
               {{-1, 4}, 5, 1, 0, "rows", "length"},       {{0, 4}, 17, 1, 0, "pages", "length"},
               {{3, 0}, 4, 1, 0, "rows", "length"},        {{0, 4}, -1, 1, 0, "keys", "length"},
               {{0, 1}, 0, 1, 0, "keys", "length"},        {{0, 4}, 4, 2, 0, "pages", "page number"},
               {{0, 4}, 4, -1, 0, "pages", "page number"}, {{0, 1}, 4, 2, 0, "pages", "page number"},
               {{0, 4}, 4, 1, 32, "slots", "slot"},        {{0, 4}, 4, 1, -2, "slots", "slot"}};
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        memcpy(start, bad[i].start, 2 * sizeof *start);
        *len = bad[i].len;
        *page = bad[i].page;
        for (int k = 0; k < 3; k++) slots[k] = k + 1;
        slots[3] = bad[i].slot;
        attn_args a = {.scale = 1,
                       .causal = true,
                       .n_seqs = 1,
                       .q_start = tensor_1d(start, DT_I32, 2),
                       .kv_len = tensor_1d(len, DT_I32, 1),
                       .pages = tensor_2d(page, DT_I32, 1, 1)};
        op_kv_write(&r.c, kt, vt, qt, qt, tensor_1d(slots, DT_I32, 4));
        op_attn(&r.c, yt, qt, kt, vt, &a);
        rig_fails(&r, bad[i].why, bad[i].why_on_gpu);
    }
    int32_t *limit = op_ints(4);
    start[0] = 0, start[1] = *len = 4, *page = 1;
    for (int k = 0; k < 2; k++) { /* behind the pages, below none */
        memset(limit, 0, 4 * sizeof *limit);
        limit[2] = k ? -1 : KV_PAGE_TOK + 1;
        attn_args a = {.scale = 1,
                       .causal = true,
                       .n_seqs = 1,
                       .q_start = tensor_1d(start, DT_I32, 2),
                       .kv_len = tensor_1d(len, DT_I32, 1),
                       .limit = tensor_1d(limit, DT_I32, 4),
                       .pages = tensor_2d(page, DT_I32, 1, 1)};
        op_attn(&r.c, yt, qt, kt, vt, &a);
        rig_fails(&r, k ? "limit" : "pages", "length");
    }
    op_free(limit);
    op_free(kc);
    op_free(vc);
    op_free(q);
    op_free(y);
    op_free(start);
    op_free(len);
    op_free(page);
    op_free(slots);
    rig_fini(&r);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_paged),    cmocka_unit_test(test_chunks),
                                       cmocka_unit_test(test_dense),    cmocka_unit_test(test_block_of_rows),
                                       cmocka_unit_test(test_limits),   cmocka_unit_test(test_long),
                                       cmocka_unit_test(test_empty),    cmocka_unit_test(test_device_only),
                                       cmocka_unit_test(test_extremes), cmocka_unit_test(test_bad_data)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
