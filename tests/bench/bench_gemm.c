/* bench_gemm.c - the row-exact GEMM at 256 rows against OpenBLAS sgemm, one thread each and all threads each,
 * in turns in the same run; and the bulk way (OpenBLAS on tiles, by our pool) on a tower's shapes. */
#include "tests/bench/bench_util.h"

#include <cblas.h>

int main(void) {
    const int all = bench_threads();
    status st = {0};
    static const int64_t shapes[][3] = {
        {256, 2048, 2048}, {256, 5632, 2048}, {256, 2048, 5632}, {577, 1024, 4096}};
    const dtype types[] = {DT_F32, DT_BF16};
    int counts[] = {1, all};
    for (int k = 0; k < (all > 1 ? 2 : 1); k++) {
        const int threads = counts[k];
        backend *be = backend_new(&(backend_options){.threads = threads}, &st);
        CHECK(be);
        printf("bench_gemm: %s; OpenBLAS %s\n", backend_describe(be), openblas_get_corename());
        for (size_t s = 0; s < ARRAY_LEN(shapes); s++) {
            const int64_t n = shapes[s][0], out = shapes[s][1], in = shapes[s][2];
            float *x = bench_alloc((size_t)(n * in) * 4), *w = bench_alloc((size_t)(out * in) * 4),
                  *y = bench_alloc((size_t)(n * out) * 4);
            uint8_t *wb = bench_alloc((size_t)(out * in) * 4);
            uint64_t seed = 1;
            for (int64_t i = 0; i < n * in; i++) x[i] = (float)(ref_next(&seed) >> 40) * 0x1p-24f - 0.5f;
            for (int64_t i = 0; i < out * in; i++) w[i] = (float)(ref_next(&seed) >> 40) * 0x1p-24f - 0.5f;
            ref_store(DT_BF16, wb, w, out * in);
            ctx c = {.be = be};
            double gflop = 2e-9 * (double)n * (double)out * (double)in, blas = 0, ours[4] = {0};
            for (int round = 0; round < 5; round++) {
                openblas_set_num_threads(threads);
                double t0 = time_now_s();
                cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, (int)n, (int)out, (int)in, 1, x, (int)in,
                            w, (int)in, 0, y, (int)out);
                double g = gflop / (time_now_s() - t0);
                blas = g > blas ? g : blas;
                openblas_set_num_threads(1);
                for (int way = 0; way < 4; way++) {
                    tensor wt = tensor_2d(way & 1 ? (void *)wb : (void *)w, types[way & 1], out, in);
                    weight *h = weight_new(be, &wt, WEIGHT_LINEAR, &st);
                    CHECK(h);
                    t0 = time_now_s();
                    op_linear(&c, tensor_2d(y, DT_F32, n, out), tensor_2d(x, DT_F32, n, in), h, NULL,
                              ACT_NONE, way & 2 ? LINEAR_BULK : 0);
                    g = gflop / (time_now_s() - t0);
                    ours[way] = g > ours[way] ? g : ours[way];
                    weight_free(h);
                }
            }
            CHECK(ctx_ok(&c));
            static const char *const names[] = {"exact f32", "exact bf16", "bulk f32", "bulk bf16"};
            for (int way = 0; way < 4; way++)
                printf("gemm %s %lld rows, %lldx%lld, %d threads: %.1f GFLOP/s, ratio %.2f (sgemm %.1f)\n",
                       names[way], (long long)n, (long long)out, (long long)in, threads, ours[way],
                       ours[way] / blas, blas);
            mem_free(x);
            mem_free(w);
            mem_free(y);
            mem_free(wb);
        }
        backend_free(be);
    }
    return 0;
}
