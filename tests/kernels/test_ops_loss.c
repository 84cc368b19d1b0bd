/* test_ops_loss.c - losses of a batch of pairs: against double precision and the reference library's numbers
 * (tests/golden/dual/loss.json), with equal bits on every instruction set and thread count; a pair's term depends on its
 * own row and column alone. */
#include <jansson.h>

#include "tests/kernels/ops_util.h"

static void run(rig *r, bool sigmoid, tensor logits, float *loss, float *terms) {
    tensor l = tensor_1d(loss, DT_F32, 1), t = tensor_1d(terms, DT_F32, logits.d[0]);
    (sigmoid ? op_sigmoid_loss : op_info_nce)(&r->c, l, t, logits);
    rig_ok(r);
}

static void test_double(void **state) {
    (void)state;
    static const int64_t sizes[] = {1, 2, 3, 15, 16, 17, 33, 100, 257};
    for (size_t s = 0; s < ARRAY_LEN(sizes); s++)
        for (int sigmoid = 0; sigmoid < 2; sigmoid++)
            for (int wide = 0; wide < 2; wide++) {
                int64_t n = sizes[s], ld = n + 3 * wide;
                uint64_t seed = 7 + s;
                float *x = random_floats(&seed, n * ld, wide ? 40 : 4), *first = floats(n + 1),
                      *again = floats(n + 1);
                double *want = doubles(n), mean = 0;
                tensor logits = tensor_2d(x, DT_F32, n, n);
                logits.ld = ld;
                ref_pair_loss(want, x, ld, n, sigmoid);
                for (int64_t i = 0; i < n; i++) mean += want[i] / (double)n;
                bool any = false;
                for (int threads = 1; threads <= most_threads(3); threads += 2) {
                    rig r;
                    RIG_EACH(r, threads) {
                        float *to = any ? again : first;
                        run(&r, sigmoid, logits, to + n, to);
                        for (int64_t i = 0; i < n && !any; i++)
                            near("term", to[i], want[i], 1e-5 * (1 + fabs(want[i])));
                        if (!any) near("loss", to[n], mean, 1e-5 * (1 + fabs(mean)));
                        if (any) same_bits("loss", first, again, n + 1);
                        any = true;
                        rig_fini(&r);
                    }
                }
                op_free_all(x, first, again);
                free(want);
            }
}

/* Other pairs' rows may change as they like, but for the column that a pair of InfoNCE sees. */
static void test_row_exact(void **state) {
    (void)state;
    enum { N = 41, I = 7 };
    rig r;
    assert_true(rig_init(&r, NULL, 2));
    for (int sigmoid = 0; sigmoid < 2; sigmoid++) {
        uint64_t seed = 3;
        float *x = random_floats(&seed, N * N, 5), *a = floats(N + 1), *b = floats(N + 1);
        run(&r, sigmoid, tensor_2d(x, DT_F32, N, N), a + N, a);
        for (int i = 0; i < N; i++)
            for (int j = 0; j < N; j++)
                if (i != I && (sigmoid || j != I)) x[i * N + j] = ref_normal(&seed);
        run(&r, sigmoid, tensor_2d(x, DT_F32, N, N), b + N, b);
        same_bits("term", a + I, b + I, 1);
        assert_true(a[I + 1] != b[I + 1]);
        op_free_all(x, a, b);
    }
    rig_fini(&r);
}

static void test_golden(void **state) {
    (void)state;
    json_t *all = json_load_file("tests/golden/dual/loss.json", 0, NULL), *c;
    size_t at, n_cases = 0;
    rig r;
    assert_non_null(all);
    assert_true(rig_init(&r, NULL, 2));
    json_array_foreach(json_object_get(all, "cases"), at, c) {
        json_t *logits = json_object_get(c, "logits");
        int64_t n = json_integer_value(json_object_get(c, "n"));
        float *x = floats(n * n), *got = floats(n + 1);
        for (int64_t i = 0; i < n * n; i++)
            x[i] = (float)json_number_value(json_array_get(logits, (size_t)i));
        for (int sigmoid = 0; sigmoid < 2; sigmoid++) {
            run(&r, sigmoid, tensor_2d(x, DT_F32, n, n), got + n, got);
            double want = json_number_value(json_object_get(c, sigmoid ? "sigmoid" : "info_nce"));
            near("golden", got[n], want, 2e-6 * (1 + fabs(want)));
        }
        op_free(x);
        op_free(got);
        n_cases++;
    }
    assert_true(n_cases >= 4);
    json_decref(all);
    rig_fini(&r);
}

static void test_shapes(void **state) {
    (void)state;
    rig r;
    assert_true(rig_init(&r, NULL, 1));
    float *x = floats(16);
    for (int i = 0; i < 16; i++) x[i] = 0;
    op_info_nce(&r.c, tensor_1d(x, DT_F32, 1), tensor_1d(x + 1, DT_F32, 3), tensor_2d(x, DT_F32, 3, 4));
    assert_int_equal(r.c.st.code, ST_INTERNAL);
    r.c.st = (status){0};
    op_sigmoid_loss(&r.c, tensor_1d(x, DT_F32, 1), tensor_1d(x + 1, DT_F32, 2), tensor_2d(x, DT_F32, 3, 3));
    assert_int_equal(r.c.st.code, ST_INTERNAL);
    r.c.st = (status){0};
    op_info_nce(&r.c, tensor_1d(x, DT_F32, 2), tensor_1d(x + 1, DT_F32, 3), tensor_2d(x, DT_F32, 3, 3));
    assert_int_equal(r.c.st.code, ST_INTERNAL);
    op_free(x);
    rig_fini(&r);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_double), cmocka_unit_test(test_row_exact),
                                       cmocka_unit_test(test_golden), cmocka_unit_test(test_shapes)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
