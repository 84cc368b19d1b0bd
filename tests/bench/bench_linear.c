/* bench_linear.c - decode linears (few rows, weights from memory) against the machine's read bandwidth,
 * measured in turns in the same run with the same threads. */
#include "tests/bench/bench_util.h"

enum { WINDOW = 48 << 20 };

int main(void) {
    const int threads = bench_threads();
    status st = {0};
    backend *be = backend_new(&(backend_options){.threads = threads}, &st);
    pool *p = pool_new(threads, &st);
    CHECK(be && p);
    printf("bench_linear: %s\n", backend_describe(be));
    /* Layers of a 1.1B Llama, enough of them to be far larger than any cache. */
    const int64_t shapes[][2] = {{2048, 2048}, {5632, 2048}, {2048, 5632}, {32000, 2048}};
    const dtype types[] = {DT_BF16, DT_F16, DT_F32};
    const size_t total = (size_t)768 << 20;
    uint8_t *data = bench_alloc(total);
    for (size_t i = 0; i < total; i += 2) { /* small numbers in all three types */
        uint16_t h = (uint16_t)(0x3000 | (i * 2654435761u >> 13 & 0x8FF));
        memcpy(data + i, &h, 2);
    }
    arena scratch;
    CHECK(arena_init(&scratch, 64 << 20, &st));
    ctx c = {.be = be, .scratch = &scratch};
    const char *quick = getenv("BENCH_QUICK");
    for (size_t t = 0; t < (quick ? 1 : ARRAY_LEN(types)); t++)
        for (size_t s = 0; s < ARRAY_LEN(shapes); s++) {
            const int64_t out = shapes[s][0], in = shapes[s][1];
            const size_t bytes = (size_t)(out * in) * dtype_size(types[t]);
            const int n = (int)(total / bytes);
            weight *w[1024];
            CHECK(n <= 1024);
            for (int i = 0; i < n; i++) {
                tensor wt = tensor_2d(data + (size_t)i * bytes, types[t], out, in);
                w[i] = weight_new(be, &wt, WEIGHT_LINEAR, &st);
                CHECK(w[i]);
            }
            static const int rows[] = {1, 2, 4, 8, 16};
            double best_read = 0, best[ARRAY_LEN(rows)] = {0};
            for (int round = 0; round < 4; round++) {
                /* Windows of 48 MiB out of data far larger than any cache; the best window counts, on both sides:
                 * it is the one that other work on the machine disturbed least. */
                for (size_t off = 0; off + WINDOW <= (size_t)n * bytes; off += WINDOW) {
                    double r = bench_read_pass(p, data + off, WINDOW);
                    best_read = r > best_read ? r : best_read;
                }
                for (size_t k = 0; k < (t == 0 ? ARRAY_LEN(rows) : 1); k++) {
                    arena_reset(&scratch, 0);
                    tensor x = ctx_2d(&c, DT_F32, rows[k], in), y = ctx_2d(&c, DT_F32, rows[k], out);
                    if (!round) memset(x.data, 0, (size_t)(rows[k] * in) * 4);
                    const int per = (int)(WINDOW / bytes > 0 ? WINDOW / bytes : 1);
                    for (int from = 0; from + per <= n; from += per) {
                        double t0 = time_now_s();
                        for (int i = from; i < from + per; i++) op_linear(&c, y, x, w[i], NULL, ACT_NONE, 0);
                        double b = (double)per * (double)bytes / (time_now_s() - t0);
                        best[k] = b > best[k] ? b : best[k];
                    }
                }
            }
            CHECK(ctx_ok(&c));
            for (size_t k = 0; k < (t == 0 ? ARRAY_LEN(rows) : 1); k++)
                printf("linear %s %lldx%lld, %d rows: %.1f GB/s of weights, ratio %.2f (read %.1f GB/s)\n",
                       dtype_name(types[t]), (long long)out, (long long)in, rows[k], best[k] * 1e-9,
                       best[k] / best_read, best_read * 1e-9);
            for (int i = 0; i < n; i++) weight_free(w[i]);
        }
    arena_fini(&scratch);
    mem_free(data);
    pool_free(p);
    backend_free(be);
    return 0;
}
