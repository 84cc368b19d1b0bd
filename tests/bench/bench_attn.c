/* bench_attn.c - attention: decoding against the machine's read bandwidth (keys and values are read once),
 * prefill and a tower's dense attention against OpenBLAS sgemm, in turns in the same run. */
#include "tests/bench/bench_util.h"

#include <cblas.h>

/* GFLOP/s of sgemm 256 x 1024 x 1024 by one thread, times threads: the multiply bound. */
static double sgemm_bound(int threads) {
    enum { M = 256, N = 1024 };
    float *a = bench_alloc((size_t)M * N * 4), *b = bench_alloc((size_t)N * N * 4),
          *y = bench_alloc((size_t)M * N * 4);
    for (int i = 0; i < M * N; i++) a[i] = 1;
    for (int i = 0; i < N * N; i++) b[i] = 1;
    double best = 0;
    for (int i = 0; i < 5; i++) {
        double t = time_now_s();
        cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, M, N, N, 1, a, N, b, N, 0, y, N);
        double g = 2e-9 * M * N * N / (time_now_s() - t);
        best = g > best ? g : best;
    }
    mem_free(a);
    mem_free(b);
    mem_free(y);
    return best * threads;
}

int main(void) {
    const int threads = bench_threads();
    status st = {0};
    backend *be = backend_new(&(backend_options){.threads = threads}, &st);
    pool *p = pool_new(threads, &st);
    CHECK(be && p);
    printf("bench_attn: %s\n", backend_describe(be));
    openblas_set_num_threads(1);
    ctx c = {.be = be};
    static const struct {
        const char *name;
        int seqs, rows, len, heads, kv_heads, hd;
        bool paged;
        dtype kept;
    } cases[] = {{"decode 1 seq", 1, 1, 8192, 32, 4, 64, true, DT_F32},
                 {"decode 1 seq, no groups", 1, 1, 4096, 32, 32, 128, true, DT_F32},
                 {"decode 16 seqs", 16, 1, 1024, 32, 8, 128, true, DT_F32},
                 {"decode 16 seqs", 16, 1, 1024, 32, 8, 128, true, DT_BF16},
                 {"decode 16 seqs", 16, 1, 1024, 32, 8, 128, true, DT_F16},
                 {"prefill", 1, 512, 1024, 32, 4, 64, true, DT_F32},
                 {"prefill", 1, 512, 2048, 32, 8, 128, true, DT_F32},
                 {"prefill", 1, 512, 2048, 32, 8, 128, true, DT_BF16},
                 {"tower", 1, 577, 577, 16, 16, 64, false, DT_F32}};
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        const int64_t S = cases[i].seqs, R = cases[i].rows, L = cases[i].len, H = cases[i].heads,
                      K = cases[i].kv_heads, D = cases[i].hd, per = (L + 15) / 16, pages = S * per + 1;
        int64_t cache = cases[i].paged ? pages * K * 16 * D : S * L * K * D;
        float *kc = backend_alloc(be, (size_t)cache * 4, &st),
              *vc = backend_alloc(be, (size_t)cache * 4, &st);
        CHECK(kc && vc);
        float *q = bench_alloc((size_t)(S * R * H * D) * 4), *y = bench_alloc((size_t)(S * R * H * D) * 4);
        for (int64_t k = 0; k < cache; k++) kc[k] = vc[k] = (float)(k % 17) * 0.1f;
        for (int64_t k = 0; k < S * R * H * D; k++) q[k] = (float)(k % 13) * 0.1f;
        int32_t *table = bench_alloc((size_t)(S * per) * 4), start[64], len[64];
        for (int64_t k = 0; k < S * per; k++) table[k] = (int32_t)(1 + k);
        for (int64_t s = 0; s <= S; s++) start[s] = (int32_t)(s * R);
        for (int64_t s = 0; s < S; s++) len[s] = (int32_t)L;
        attn_args a = {.scale = 0.1f,
                       .causal = cases[i].paged,
                       .n_seqs = (int)S,
                       .q_start = tensor_1d(start, DT_I32, S + 1),
                       .kv_len = tensor_1d(len, DT_I32, S)};
        tensor k, v;
        if (cases[i].paged) {
            int64_t d[] = {pages, K, 16, D};
            k = tensor_of(kc, cases[i].kept, 4, d);
            v = tensor_of(vc, cases[i].kept, 4, d);
            if (cases[i].kept != DT_F32) { /* small numbers, as either type reads them */
                memset(kc, 0x2e, (size_t)cache * 2);
                memset(vc, 0x2e, (size_t)cache * 2);
            }
            a.pages = tensor_2d(table, DT_I32, S, per);
        } else {
            k = tensor_3d(kc, DT_F32, S * L, K, D);
            v = tensor_3d(vc, DT_F32, S * L, K, D);
        }
        double best = 1e9, read = 0, bound = 0;
        const size_t size = dtype_size(cases[i].kept),
                     bytes = (size_t)cache * size & ~(size_t)((1 << 20) - 1);
        for (int round = 0; round < 12; round++) {
            if (R == 1) {
                double b = bench_read_pass(p, kc, bytes);
                read = b > read ? b : read;
            } else {
                double b = sgemm_bound(threads);
                bound = b > bound ? b : bound;
            }
            double t = time_now_s();
            op_attn(&c, tensor_3d(y, DT_F32, S * R, H, D), tensor_3d(q, DT_F32, S * R, H, D), k, v, &a);
            t = time_now_s() - t;
            best = t < best ? t : best;
        }
        if (!ctx_ok(&c)) printf("%s\n", c.st.msg);
        if (R == 1) {
            double b = (double)(cache * 2) * (double)size / best;
            printf("attn %s, %lld %s keys, %lld/%lld heads of %lld: %.0f us, %.1f GB/s, ratio %.2f (read "
                   "%.1f GB/s)\n",
                   cases[i].name, (long long)L, dtype_name(cases[i].kept), (long long)H, (long long)K,
                   (long long)D, best * 1e6, b * 1e-9, b / read, read * 1e-9);
        } else {
            double keys = cases[i].paged ? (double)L - (double)R / 2 : (double)L;
            double g = 4e-9 * (double)(S * R * H * D) * keys / best;
            printf("attn %s, %lld rows of %lld %s keys, %lld/%lld heads of %lld: %.1f GFLOP/s, ratio %.2f "
                   "(sgemm %.1f)\n",
                   cases[i].name, (long long)R, (long long)L, dtype_name(cases[i].kept), (long long)H,
                   (long long)K, (long long)D, g, g / bound, bound);
        }
        backend_release(be, kc);
        backend_release(be, vc);
        mem_free(q);
        mem_free(y);
        mem_free(table);
    }
    pool_free(p);
    backend_free(be);
    return 0;
}
