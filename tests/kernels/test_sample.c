/* test_sample.c - op_sample: the generator's known answers, every cut against transformers' processors
 * (tests/golden/sample) and against a slow reference in double precision, the drawn distribution, and rows
 * that no sane model gives. On a GPU (VLMD_DEVICE=cuda) the same, draws of a row as rows of one call. */
#include "tests/kernels/ops_util.h"

#include <float.h>

#include "kernels/cpu/choose.h"

static const sample_row PLAIN = {.temperature = 1, .top_p = 1, .repetition_penalty = 1, .top_logprobs = -1};

static double uniform_of(uint64_t seed, uint32_t choice, uint32_t position) {
    uint32_t r[4];
    philox4x32((uint32_t[4]){position, choice, 0, 0}, (uint32_t[2]){(uint32_t)seed, (uint32_t)(seed >> 32)},
               r);
    return ((double)(r[0] >> 5) * 67108864.0 + (r[1] >> 6)) / 9007199254740992.0;
}

/* xorshift, for test data */
static uint64_t g_state = 88172645463325252ull;
static double rnd(void) {
    g_state ^= g_state << 13, g_state ^= g_state >> 7, g_state ^= g_state << 17;
    return (double)(g_state >> 11) / 9007199254740992.0;
}

/* Random123's tests/kat_vectors, philox4x32 with 10 rounds. */
static void test_philox(void **state) {
    (void)state;
    static const struct {
        uint32_t counter[4], key[2], want[4];
    } kat[] = {
        {{0}, {0}, {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}},
        {{~0u, ~0u, ~0u, ~0u}, {~0u, ~0u}, {0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}},
        {{0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344},
         {0xa4093822, 0x299f31d0},
         {0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}},
    };
    for (size_t i = 0; i < ARRAY_LEN(kat); i++) {
        uint32_t r[4];
        philox4x32(kat[i].counter, kat[i].key, r);
        assert_memory_equal(r, kat[i].want, sizeof r);
    }
}

/* The token that u falls on when probabilities p[n] are laid out in order of id; slack for rounding at an
 * edge. */
static bool falls_on(const double *p, int n, double u, int id, double slack) {
    double before = 0;
    if (!(p[id] > 0)) return false;
    for (int i = 0; i < id; i++) before += p[i];
    (void)n;
    return u >= before - slack && u <= before + p[id] + slack;
}

static rig g_rig; /* on a GPU */

/* n rows of logits through op_sample; waits. */
static void sample_all(ctx *c, tensor logits, const sample_row *rows, sample_result *out) {
    const int n = (int)logits.d[0];
    size_t words = (size_t)n * SAMPLE_RULE_WORDS;
    for (int i = 0; i < n; i++) words += sample_list_words(&rows[i]);
    int32_t *rules = op_alloc(words * sizeof *rules);
    sample_result *results = op_copy_of(out, (size_t)n * sizeof *out);
    assert_int_equal(sample_pack(rules, rows, n), words);
    op_sample(c, logits, tensor_1d(rules, DT_I32, (int64_t)words),
              tensor_2d(results, DT_I32, n, SAMPLE_RESULT_WORDS));
    ctx_sync(c);
    memcpy(out, results, (size_t)n * sizeof *out);
    op_free(rules);
    op_free(results);
}

/* One row of logits, n ways to choose from it. */
static void choose_all(const float *x, int vocab, const sample_row *rows, int n, sample_result *out) {
    if (!on_gpu()) {
        float *work = mem_alloc((size_t)vocab * sizeof *work);
        for (int i = 0; i < n; i++) choose_token(x, vocab, &rows[i], work, &out[i]);
        mem_free(work);
        return;
    }
    float *logits = floats((int64_t)n * vocab);
    for (int i = 0; i < n; i++) memcpy(logits + (int64_t)i * vocab, x, (size_t)vocab * sizeof *x);
    memset(out, 0, (size_t)n * sizeof *out);
    sample_all(&g_rig.c, tensor_2d(logits, DT_F32, n, vocab), rows, out);
    rig_ok(&g_rig);
    op_free(logits);
}

static void choose_one(const float *x, int vocab, const sample_row *row, sample_result *out) {
    choose_all(x, vocab, row, 1, out);
}

enum { MOST_DRAWS = 300 };
static void check_draws(const float *x, int n, sample_row row, const double *p, int draws) {
    static sample_row rows[MOST_DRAWS];
    static sample_result out[MOST_DRAWS];
    assert_in_range(draws, 1, MOST_DRAWS);
    if (on_gpu()) draws = (draws + 3) / (brief() ? 16 : 4);
    for (int d = 0; d < draws; d++) {
        rows[d] = row;
        rows[d].seed = 1000003ull * (uint64_t)d + 17;
        rows[d].position = (uint32_t)d;
        rows[d].choice = (uint32_t)d % 3;
    }
    choose_all(x, n, rows, draws, out);
    for (int d = 0; d < draws; d++) {
        assert_in_range(out[d].id, 0, n - 1);
        double u = uniform_of(rows[d].seed, rows[d].choice, rows[d].position);
        if (!falls_on(p, n, u, out[d].id, 1e-5)) fail_msg("draw %d: u = %f gave id %d", d, u, out[d].id);
    }
}

static int read_list(FILE *f, int32_t *ids, float *values, int32_t *counts) {
    int n;
    assert_int_equal(fscanf(f, "%d", &n), 1);
    for (int i = 0; i < n; i++) {
        assert_int_equal(fscanf(f, "%d", &ids[i]), 1);
        if (values) assert_int_equal(fscanf(f, "%f", &values[i]), 1);
        if (counts) assert_int_equal(fscanf(f, "%d", &counts[i]), 1);
    }
    return n;
}

static void test_reference_cases(void **state) {
    (void)state;
    FILE *f = fopen("tests/golden/sample/cases.txt", "r");
    assert_non_null(f);
    int n, cases = 0;
    while (fscanf(f, "%d", &n) == 1) {
        assert_in_range(n, 1, 64);
        sample_row row = PLAIN;
        int32_t bias_ids[64], prompt[64], out_ids[64], out_count[64];
        float bias[64], x[64];
        double p[64];
        assert_int_equal(fscanf(f, "%f %d %f %f %f %f %f", &row.temperature, &row.top_k, &row.top_p,
                                &row.min_p, &row.repetition_penalty, &row.presence_penalty,
                                &row.frequency_penalty),
                         7);
        row.n_bias = read_list(f, bias_ids, bias, NULL);
        row.n_prompt_seen = read_list(f, prompt, NULL, NULL);
        row.n_out_seen = read_list(f, out_ids, NULL, out_count);
        row.bias_ids = bias_ids, row.bias = bias, row.prompt_seen = prompt;
        row.out_seen = out_ids, row.out_count = out_count;
        for (int i = 0; i < n; i++) assert_int_equal(fscanf(f, "%f", &x[i]), 1);
        for (int i = 0; i < n; i++) assert_int_equal(fscanf(f, "%lf", &p[i]), 1);
        check_draws(x, n, row, p, 300);
        cases++;
    }
    fclose(f);
    assert_int_equal(cases, 60);
}

/* ---- the slow reference: by definition, with sorting ---- */

static const float *g_sort_x;
static int by_greater(const void *a, const void *b) {
    int i = *(const int *)a, j = *(const int *)b;
    if (g_sort_x[i] != g_sort_x[j]) return g_sort_x[i] < g_sort_x[j] ? 1 : -1;
    return i - j;
}

static void reference(const float *x, int n, const sample_row *r, double *p) {
    int *order = mem_alloc((size_t)n * sizeof *order);
    for (int i = 0; i < n; i++) order[i] = i;
    g_sort_x = x;
    qsort(order, (size_t)n, sizeof *order, by_greater);
    double top = x[order[0]], total = 0;
    int kept = n;
    if (r->top_k > 0 && r->top_k < n)
        for (kept = r->top_k; kept < n && x[order[kept]] == x[order[r->top_k - 1]];) kept++;
    for (int i = 0; i < n; i++) p[i] = exp((x[i] - top) / (double)r->temperature);
    for (int i = 0; i < kept; i++) total += p[order[i]];
    if (r->top_p < 1) {
        double sum = 0;
        int i = 0;
        do sum += p[order[i++]];
        while (i < kept && sum < (double)r->top_p * total);
        kept = i;
    }
    while (kept > 1 && p[order[kept - 1]] < (double)r->min_p) kept--;
    for (int i = kept; i < n; i++) p[order[i]] = 0;
    total = 0;
    for (int i = 0; i < kept; i++) total += p[order[i]];
    for (int i = 0; i < n; i++) p[i] /= total;
    mem_free(order);
}

static void test_random_rows(void **state) {
    (void)state;
    enum { MAX = 3000 };
    float *x = mem_alloc(MAX * sizeof *x);
    double *p = mem_alloc(MAX * sizeof *p);
    for (int round = 0; round < (on_gpu() ? 100 : 300); round++) {
        int n = 1 + (int)(rnd() * (round % 10 ? 300 : MAX - 1));
        double spread = 0.2 + rnd() * 12;
        bool ties = round % 3 == 0;
        for (int i = 0; i < n; i++) {
            double v = (rnd() + rnd() + rnd() - 1.5) * spread;
            x[i] = ties ? (float)(round % 2 ? floor(v) : 0.0) : (float)v;
        }
        sample_row row = PLAIN;
        row.temperature = (float)(0.05 + rnd() * 2);
        if (round & 1) row.top_k = 1 + (int)(rnd() * n * 1.2);
        if (round & 2) row.top_p = (float)rnd();
        if (round & 4) row.min_p = (float)(rnd() * rnd());
        reference(x, n, &row, p);
        check_draws(x, n, row, p, 40);
    }
    mem_free(x);
    mem_free(p);
}

static void test_equal_logits_top_p(void **state) {
    (void)state;
    float x[10] = {0};
    double p[10] = {0};
    sample_row row = PLAIN;
    row.top_p = 0.45f; /* the shortest run that reaches it: five of ten, the lowest ids */
    for (int i = 0; i < 5; i++) p[i] = 0.2;
    check_draws(x, 10, row, p, 200);
    row.top_p = 0; /* the greatest alone */
    memset(p, 0, sizeof p);
    p[0] = 1;
    check_draws(x, 10, row, p, 50);
}

/* Chi-square over 40 outcomes: 39 degrees of freedom, 99.9 % below 72.1. */
static void test_distribution(void **state) {
    (void)state;
    enum { N = 40, AT_ONCE = 200 };
    const int total = on_gpu() ? 4000 : 40000;
    static sample_row rows[AT_ONCE];
    static sample_result out[AT_ONCE];
    float x[N];
    double p[N];
    int seen[N] = {0};
    for (int i = 0; i < N; i++) x[i] = (float)sin(i * 1.7) * 2;
    sample_row row = PLAIN;
    row.temperature = 0.8f;
    reference(x, N, &row, p);
    row.seed = 20240229;
    for (int d = 0; d < total; d += AT_ONCE) {
        for (int i = 0; i < AT_ONCE; i++) {
            row.position = (uint32_t)(d + i);
            rows[i] = row;
        }
        choose_all(x, N, rows, AT_ONCE, out);
        for (int i = 0; i < AT_ONCE; i++) seen[out[i].id]++;
    }
    double chi = 0;
    for (int i = 0; i < N; i++) chi += pow(seen[i] - p[i] * total, 2) / (p[i] * total);
    assert_true(chi < 72.1);
}

static void test_log_probs(void **state) {
    (void)state;
    enum { N = 5003 };
    float *x = mem_alloc(N * sizeof *x);
    int *order = mem_alloc(N * sizeof *order);
    for (int round = 0; round < 8; round++) {
        double sum = 0;
        for (int i = 0; i < N; i++) {
            double v = (rnd() - 0.5) * (1 + 10 * round);
            x[i] = (float)(round % 2 ? floor(v * 4) / 4 : v) + (round == 6 ? 1e4f : 0);
            if (round == 7) x[i] = (float)i * 1e-3f; /* rising: every element enters the list */
            order[i] = i;
        }
        g_sort_x = x;
        qsort(order, N, sizeof *order, by_greater);
        double top = x[order[0]];
        for (int i = 0; i < N; i++) sum += exp(x[i] - top);
        sample_row row = PLAIN;
        row.temperature = round < 4 ? 0 : 1;
        row.top_logprobs = round == 3 ? 0 : round == 4 ? 5 : 20;
        int32_t banned[1] = {order[0]};
        float minus[1] = {-INFINITY};
        if (round == 2) row.bias_ids = banned, row.bias = minus, row.n_bias = 1;
        sample_result r;
        choose_one(x, N, &row, &r);
        if (row.temperature == 0) assert_int_equal(r.id, order[round == 2 ? 1 : 0]);
        assert_float_equal(r.logprob, x[r.id] - top - log(sum), 2e-6 * (1 + fabs(x[r.id] - top)));
        assert_int_equal(r.n_top, row.top_logprobs);
        for (int i = 0; i < r.n_top; i++) { /* of the raw logits: a ban does not show */
            assert_int_equal(r.top_id[i], order[i]);
            assert_float_equal(r.top_logprob[i], x[order[i]] - top - log(sum), 1e-5);
        }
    }
    mem_free(x);
    mem_free(order);
}

static void test_strange_rows(void **state) {
    (void)state;
    float nan_row[5] = {NAN, NAN, NAN, NAN, NAN}, none[5], mixed[5] = {NAN, -1, NAN, 3, -INFINITY};
    float infinite[5] = {1, INFINITY, FLT_MAX, -FLT_MAX, INFINITY}, huge[5] = {-FLT_MAX, FLT_MAX, 0, 1, 2};
    for (int i = 0; i < 5; i++) none[i] = -INFINITY;
    const float *rows[] = {nan_row, none, mixed, infinite, huge};
    const int greedy[] = {0, 0, 3, 1, 1};
    int32_t all[] = {0, 1, 2, 3, 4, 77, -5};
    float bans[] = {-INFINITY, -INFINITY, -INFINITY, -INFINITY, -INFINITY, 1, 1};
    for (size_t k = 0; k < ARRAY_LEN(rows); k++)
        for (int t = 0; t < 7; t++) {
            sample_row row = PLAIN;
            row.temperature = (float[]){0, 1e-6f, 1e-4f, 1, 100, NAN, -1}[t];
            row.top_logprobs = 20;
            for (int cuts = 0; cuts < 8; cuts++) {
                row.top_k = cuts & 1 ? 2 : 0, row.top_p = cuts & 2 ? 0.5f : 1, row.min_p = cuts & 4 ? 1 : 0;
                for (int banned = 0; banned < 2; banned++) {
                    row.bias_ids = all, row.bias = bans, row.n_bias = banned ? (int)ARRAY_LEN(all) : 0;
                    sample_result r;
                    choose_one(rows[k], 5, &row, &r);
                    assert_in_range(r.id, 0, 4);
                    if (t < 3 && k != 3) assert_int_equal(r.id, greedy[k]);
                    assert_true(r.logprob <= 0 && r.logprob >= -9999);
                    assert_int_equal(r.n_top, 5);
                    for (int i = 0; i < 5; i++)
                        assert_true(r.top_logprob[i] <= 0 && r.top_logprob[i] >= -9999);
                }
            }
        }
    float one[1] = {4};
    sample_row row = PLAIN;
    row.top_logprobs = 20;
    sample_result r;
    choose_one(one, 1, &row, &r);
    assert_int_equal(r.id, 0);
    assert_int_equal(r.n_top, 1);
    assert_float_equal(r.logprob, 0, 0);
}

static void test_tiny_temperature(void **state) {
    (void)state;
    float x[4] = {1.0f, 1.001f, 0.5f, 1.001f};
    double p[4] = {0, 0.5, 0, 0.5}; /* above the greedy bound a tie is drawn */
    sample_row row = PLAIN;
    row.temperature = 2e-5f;
    check_draws(x, 4, row, p, 100);
    row.temperature = 9e-6f; /* below it the lowest id wins */
    p[1] = 1, p[3] = 0;
    check_draws(x, 4, row, p, 20);
}

/* The op: rows of a batch with a stride, over threads, equal to rows alone. On a GPU equal to the CPU's: weights are the same
 * bits there, sums are not, so that log-probs may differ by rounding. */
static void test_op_rows(void **state) {
    (void)state;
    enum { ROWS = 16, V = 4099, LD = 4104 };
    status st = {0};
    backend *be = on_gpu() ? g_rig.be : backend_new(&(backend_options){.device = "cpu", .threads = 3}, &st);
    assert_non_null(be);
    float *x = floats((int64_t)ROWS * LD);
    float *work = mem_alloc(V * sizeof *work);
    for (int i = 0; i < ROWS * LD; i++) x[i] = (float)((rnd() - 0.5) * 8);
    sample_row rows[ROWS];
    sample_result out[ROWS];
    static const int32_t ids[] = {5, 9, 4098, 9}, counts[] = {1, 3, 2};
    static const float bias[] = {3, -2, 100, 0.7f};
    for (int i = 0; i < ROWS; i++) {
        rows[i] = PLAIN;
        rows[i].temperature = (float)(i % 4) * 0.5f;
        rows[i].seed = (uint64_t)i * 7;
        rows[i].top_logprobs = i % 5 - 1;
        if (i % 3 == 1) rows[i].bias_ids = ids, rows[i].bias = bias, rows[i].n_bias = i > 8 ? 4 : 3;
        if (i % 5 == 2) {
            rows[i].frequency_penalty = 2, rows[i].repetition_penalty = 1.5f;
            rows[i].out_seen = ids, rows[i].out_count = counts, rows[i].n_out_seen = 3;
        }
    }
    ctx c = {.be = be};
    tensor logits = tensor_2d(x, DT_F32, ROWS, V);
    logits.ld = LD;
    memset(out, 0, sizeof out);
    sample_all(&c, logits, rows, out);
    assert_true(ctx_ok(&c));
    for (int i = 0; i < ROWS; i++) {
        sample_result alone = {0};
        choose_token(x + (size_t)i * LD, V, &rows[i], work, &alone);
        if (!on_gpu()) {
            assert_memory_equal(&out[i], &alone, sizeof alone);
            continue;
        }
        assert_int_equal(out[i].id, alone.id);
        assert_int_equal(out[i].n_top, alone.n_top);
        assert_float_equal(out[i].logprob, alone.logprob, 1e-5);
        for (int j = 0; j < alone.n_top; j++) {
            assert_int_equal(out[i].top_id[j], alone.top_id[j]);
            assert_float_equal(out[i].top_logprob[j], alone.top_logprob[j], 1e-5);
        }
    }
    mem_free(work);
    op_free(x);
    if (!on_gpu()) backend_free(be);
}

/* A GPU: what fits among the candidates and what does not, every cut, rows that are steep, flat or full of ties; the ids
 * that the CPU chooses. */
static void test_gpu_ways(void **state) {
    (void)state;
    if (!on_gpu()) skip();
    enum { WAYS = 12 };
    static const struct {
        int vocab;
        double flat; /* 0: steep */
    } shapes[] = {{9001, 0}, {9001, 1}, {5000, 1}, {5000, 0}, {200, 0}, {8192, 2}};
    float *work = mem_alloc(9001 * sizeof *work), *x = mem_alloc(9001 * sizeof *x);
    int apart = 0;
    for (size_t k = 0; k < ARRAY_LEN(shapes); k++) {
        const int n = shapes[k].vocab;
        for (int i = 0; i < n; i++) {
            double v = shapes[k].flat > 0 ? rnd() * 0.5 : -3 * log(rnd() + 1e-9) - 20 * rnd();
            x[i] = (float)(shapes[k].flat > 1 ? floor(v * 8) / 8 : v); /* 2: four values */
        }
        sample_row rows[WAYS];
        sample_result out[WAYS], cpu;
        for (int i = 0; i < WAYS; i++) {
            rows[i] = PLAIN;
            rows[i].temperature = (float)(0.3 + rnd());
            rows[i].seed = 77 + (uint64_t)i;
            rows[i].top_logprobs = i % 2 ? 20 : -1;
            if (i % 4 == 1) rows[i].top_k = (int[]){1, 40, 1500}[i / 4];
            if (i % 4 == 2 || i == 5) rows[i].top_p = (float[]){0.1f, 0.8f, 0.99f}[i / 4];
            if (i % 4 == 3) rows[i].top_k = n - 3, rows[i].top_p = 0.6f, rows[i].min_p = 0.05f;
        }
        choose_all(x, n, rows, WAYS, out);
        for (int i = 0; i < WAYS; i++) {
            choose_token(x, n, &rows[i], work, &cpu);
            apart += out[i].id != cpu.id; /* u within rounding of an edge */
            assert_int_equal(out[i].n_top, cpu.n_top);
            assert_memory_equal(out[i].top_id, cpu.top_id, (size_t)cpu.n_top * sizeof *cpu.top_id);
            for (int j = 0; j < cpu.n_top; j++)
                assert_float_equal(out[i].top_logprob[j], cpu.top_logprob[j], 1e-5);
        }
    }
    assert_in_range(apart, 0, 1);
    mem_free(work);
    mem_free(x);
}

static int set_up(void **state) {
    (void)state;
    if (on_gpu()) assert_true(rig_init(&g_rig, NULL, 1));
    return 0;
}

static int tear_down(void **state) {
    (void)state;
    if (on_gpu()) rig_fini(&g_rig);
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_philox),       cmocka_unit_test(test_reference_cases),
        cmocka_unit_test(test_random_rows),  cmocka_unit_test(test_equal_logits_top_p),
        cmocka_unit_test(test_distribution), cmocka_unit_test(test_log_probs),
        cmocka_unit_test(test_strange_rows), cmocka_unit_test(test_tiny_temperature),
        cmocka_unit_test(test_op_rows),      cmocka_unit_test(test_gpu_ways),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
