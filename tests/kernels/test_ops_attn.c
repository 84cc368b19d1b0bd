/* test_ops_attn.c - op_attn and op_kv_write: against double precision over random mixes of sequences, heads,
 * lengths and windows; whole = chunked = alone = batched bit for bit, on every instruction set and thread
 * count; a GPU with bits promised (without: test_ops_attn_mma.c). */
#include "tests/kernels/attn_util.h"
#ifdef VLMD_CUDA
#include "kernels/cuda/cuda.h"
#endif

static double exact(const world *w, const float *q, const float *k, const float *v, int64_t lo, int64_t hi) {
    (void)w, (void)q, (void)k, (void)v, (void)lo, (void)hi;
    return 4e-6;
}
static void check_row(const world *w, int s, int64_t p, int window, const float *y) {
    world_check_row(w, s, p, true, window, y, exact);
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
            world_keep(&w, kept_types[t % 3]);
            world_check(&r, &w, causal, window, INT32_MAX, exact);
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
        if (brief() && g[1] > 2) continue; /* heads without groups, as the first one's */
        world w = world_new(&seed, 3, g[0], g[1], hd, brief() ? 100 : 140);
        world_keep(&w, kept_types[t % 3]);
        float *first[20] = {0}, *y[20];
        for (int s = 0; s < w.n_seqs; s++) y[s] = floats(w.len[s] * width);
        rig r;
        for (int threads = 1; threads <= most_threads(3); threads++) RIG_EXACT(r, threads) {
                for (int mode = 0; mode < 3; mode++) {
                    if (mode == 1 && threads == 2) continue;
                    world_blank(&w);
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
                                check_row(&w, s, p, window, y[s] + p * width);
                        }
                        same_bits(r.isa, first[s], y[s], w.len[s] * width);
                    }
                }
                rig_fini(&r);
            }
        for (int s = 0; s < w.n_seqs; s++) op_free_all(first[s], y[s]);
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
        if (brief() && g[1] > 2) continue;
        world w = world_new(&seed, 3, g[0], g[1], hd, t < 2 ? 600 : brief() ? 100 : 200);
        world_keep(&w, kept_types[t / 2 % 3]);
        if (t % 3) random_limits(&seed, &w);
        if (t != 1 && t != 5) w.softcap = 1.5f;
        w.limit_spares = t % 4 == 1;
        float *first[3] = {0};
        rig r;
        for (int threads = 1; threads <= most_threads(2); threads++) RIG_EXACT(r, threads) {
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
                                check_row(&w, s, p, window, y[s] + p * width);
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
        const int64_t n = shapes[t][3], total = n * (t == 0 ? 1 : 3),
                      size = total * shapes[t][0] * shapes[t][2];
        fused f = fused_new(&seed, shapes[t][0], shapes[t][1], shapes[t][2], n, t == 0 ? 1 : 3, 0.17f);
        for (int causal = 0; causal < 2; causal++) {
            float *first = NULL;
            rig r;
            f.a.causal = causal;
            for (int threads = 1; threads <= most_threads(3); threads++) RIG_EXACT(r, threads) {
                    if (strcmp(r.isa, "portable") == 0 && n == 577 && (causal || threads > 1)) {
                        rig_fini(&r);
                        continue;
                    }
                    float *y = floats(size);
                    fused_attn(&r, &f, y);
                    if (first) {
                        same_bits(r.isa, first, y, size);
                        op_free(y);
                    } else {
                        first = y;
                        fused_check(&f, y, n > 200 ? 37 : 1, 6e-6);
                    }
                    rig_fini(&r);
                }
            op_free(first);
        }
        fused_free(&f);
    }
}

/* One picture's rows a block at a time over all its keys: the bits of all rows at once (which test_dense checks). */
static void test_block_of_rows(void **state) {
    (void)state;
    enum { H = 3, HD = 72, N = 213, OUT = N * H * HD };
    uint64_t seed = 14;
    fused f = fused_new(&seed, H, H, HD, N, 1, 0.12f);
    float *whole = floats(OUT), *y = floats(OUT);
    for (int threads = 1; threads <= most_threads(2); threads++) {
        rig r;
        RIG_EXACT(r, threads) {
            fused_attn(&r, &f, whole);
            static const int sizes[] = {1, 31, 64, 107};
            for (size_t i = 0; i < ARRAY_LEN(sizes); i++) {
                fused_blocks(&r, &f, sizes[i], y);
                same_bits(r.isa, whole, y, OUT);
            }
            /* more keys than there are; of several sequences keys and rows are alike */
            attn_args more = attn_rows(1, (int32_t[]){0, 10}, (int32_t[]){N + 1}),
                      two = attn_rows(2, (int32_t[]){0, 5, 10}, (int32_t[]){5, 5});
            op_attn(&r.c, tensor_3d(y, DT_F32, 10, H, HD), tensor_rows(f.q, 0, 10), f.k, f.v, &more);
            rig_fails(&r, "keys", "length");
            op_attn(&r.c, tensor_3d(y, DT_F32, 10, H, HD), tensor_rows(f.q, 0, 10), f.k, f.v, &two);
            assert_int_equal(r.c.st.code, ST_INTERNAL);
            memset(&r.c.st, 0, sizeof r.c.st);
            rig_ok(&r);
            attn_rows_free(&more);
            attn_rows_free(&two);
            rig_fini(&r);
        }
    }
    op_free_all(whole, y);
    fused_free(&f);
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
    static const int32_t brief_len[2][5] = {{520, 257, 64, 5, 65},
                                            {100, 16, 257, 3, 65}}; /* three splits, and two */
    enum { SEQS = 5, PART = 70 };
    uint64_t seed = 14;
    for (size_t t = 0; t < ARRAY_LEN(cases); t++) {
        const int window = cases[t].window;
        const int32_t *len = brief() ? brief_len[t > 1] : cases[t].len;
        world w = world_sized(&seed, SEQS, cases[t].heads, cases[t].kv_heads, cases[t].hd, 700, len);
        world_keep(&w, kept_types[(t + 1) % 3]);
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
                    check_row(&w, s, p, window, whole[s] + p * width);
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
        for (int s = 0; s < SEQS; s++) op_free_all(whole[s], y[s]);
        world_free(&w);
    }
}

/* Sequences without rows, rows without keys, and rows that know more keys than they are. */
static void test_empty(void **state) {
    (void)state;
    rig r;
    RIG_EXACT(r, 2) {
        enum { SEQS = 5, HD = 8 };
        uint64_t seed = 15;
        for (int more = 0; more < 2; more++) { /* as many rows as sequences at most, and more */
            const int n2 = more ? 4 : 2, rows = 2 + n2;
            const int32_t starts[] = {0, 0, 1, 1 + n2, 2 + n2, 2 + n2}, lens[] = {5, 0, 20, 1, 0},
                          pages[] = {1, 0, 0, 0, 2, 3, 4, 0, 0, 0};
            paged p = paged_new(&seed, SEQS, rows, HD, 6, 2);
            memcpy(p.start, starts, sizeof starts);
            memcpy(p.len, lens, sizeof lens);
            memcpy(p.pages, pages, sizeof pages);
            p.a.scale = 0.5f;
            op_attn(&r.c, p.yt, p.qt, p.kt, p.vt, &p.a);
            rig_ok(&r);
            for (int i = 0; i < rows; i++) {
                double want[HD] = {0};
                const int first = (i <= n2 ? 2 : 4) * KV_PAGE_TOK * HD;
                if (i > 0)
                    ref_attn(want, p.q + i * HD, p.kc + first, p.vc + first, HD, 0, i <= n2 ? 20 : 1, HD, 0.5,
                             0);
                for (int d = 0; d < HD; d++) near("empty", p.y[i * HD + d], want[d], 2e-6);
            }
            paged_free(&p);
        }
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
                    ref_attn(want, x + i * W + h * HD, (const float *)base.k + start[s] * W + g * HD,
                             (const float *)base.v + start[s] * W + g * HD, W, 0, len[s], HD, 0.2f, 0);
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
    op_free_all(x, y, start, len);
    rig_fini(&r);
#endif
}

static void test_spoilt(void **state) {
    (void)state;
    rig r;
    RIG_EXACT(r, 1) {
        attn_spoilt(&r, DT_F32);
        for (size_t i = 0; i < ARRAY_LEN(kept_types); i++) world_spoilt(&r, kept_types[i], DT_F32);
        rig_fini(&r);
    }
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
        attn_args a = attn_rows(1, (int32_t[]){0, N}, (int32_t[]){N});
        a.causal = true;
        attn_dense(&r, y, q, k, v, N, 1, 1, HD, &a);
        for (int i = 0; i < N; i++) {
            double want[HD];
            if (i == 3) {
                assert_true(isnan(y[i * HD]));
                continue;
            }
            ref_attn(want, q + i * HD, k, v, HD, 0, i + 1, HD, 1, 0);
            near("extremes", y[i * HD], want[0], 1e-4);
        }
        op_free_all(q, k, v, y);
        attn_rows_free(&a);
        rig_fini(&r);
    }
}

/* Lengths, pages and slots that lie are errors, not wild reads. */
static void test_bad_data(void **state) {
    (void)state;
    rig r;
    assert_true(rig_init_as(&r, NULL, 2, true));
    uint64_t seed = 18;
    paged p = paged_new(&seed, 1, 4, 4, 2, 1);
    int32_t *slots = op_ints(4);
    p.a.causal = true;
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
        memcpy(p.start, bad[i].start, 2 * sizeof *p.start);
        *p.len = bad[i].len;
        *p.pages = bad[i].page;
        for (int k = 0; k < 3; k++) slots[k] = k + 1;
        slots[3] = bad[i].slot;
        op_kv_write(&r.c, p.kt, p.vt, p.qt, p.qt, tensor_1d(slots, DT_I32, 4));
        op_attn(&r.c, p.yt, p.qt, p.kt, p.vt, &p.a);
        rig_fails(&r, bad[i].why, bad[i].why_on_gpu);
    }
    p.start[0] = 0, p.start[1] = *p.len = 4, *p.pages = 1;
    p.a.limit = tensor_1d(p.limit, DT_I32, 4);
    for (int k = 0; k < 2; k++) { /* behind the pages, below none */
        memset(p.limit, 0, 4 * sizeof *p.limit);
        p.limit[2] = k ? -1 : KV_PAGE_TOK + 1;
        op_attn(&r.c, p.yt, p.qt, p.kt, p.vt, &p.a);
        rig_fails(&r, k ? "limit" : "pages", "length");
    }
    memset(p.limit, 0, 4 * sizeof *p.limit);
    p.limit[2] = KV_PAGE_TOK; /* all that the page holds */
    op_attn(&r.c, p.yt, p.qt, p.kt, p.vt, &p.a);
    rig_ok(&r);
    op_free(slots);
    paged_free(&p);
    rig_fini(&r);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_paged),    cmocka_unit_test(test_chunks),
                                       cmocka_unit_test(test_dense),    cmocka_unit_test(test_block_of_rows),
                                       cmocka_unit_test(test_limits),   cmocka_unit_test(test_long),
                                       cmocka_unit_test(test_empty),    cmocka_unit_test(test_device_only),
                                       cmocka_unit_test(test_extremes), cmocka_unit_test(test_spoilt),
                                       cmocka_unit_test(test_bad_data)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
