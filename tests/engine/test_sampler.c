/* test_sampler.c - a sequence's row from step to step: counts against plain counting, bans, stop ids. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <math.h>
#include <string.h>

#include "engine/sampler.h"

enum { VOCAB = 500 };

static model_spec spec_with_eos(int n_eos) {
    model_spec s = {.text.vocab = VOCAB, .n_eos = n_eos};
    for (int i = 0; i < n_eos; i++) s.eos[i] = 2 + 5 * i;
    return s;
}

static engine_params plain(void) {
    return (engine_params){.max_tokens = -1, .top_p = 1, .repetition_penalty = 1, .top_logprobs = -1};
}

static uint32_t g_state = 12345;
static int rnd(int n) {
    g_state = g_state * 1664525u + 1013904223u;
    return (int)((g_state >> 8) % (uint32_t)n);
}

/* The lists against counts kept in plain arrays: disjoint, complete, each id once. */
static void check_row(const sample_row *r, const int *in_prompt, const int *in_out) {
    int seen[VOCAB] = {0}, n_prompt = 0, n_out = 0;
    for (int i = 0; i < VOCAB; i++) {
        n_prompt += in_prompt[i] && !in_out[i];
        n_out += in_out[i] > 0;
    }
    assert_int_equal(r->n_prompt_seen, n_prompt);
    assert_int_equal(r->n_out_seen, n_out);
    for (int i = 0; i < r->n_prompt_seen; i++) {
        assert_true(in_prompt[r->prompt_seen[i]]);
        assert_int_equal(seen[r->prompt_seen[i]]++, 0);
    }
    for (int i = 0; i < r->n_out_seen; i++) {
        assert_int_equal(r->out_count[i], in_out[r->out_seen[i]]);
        assert_int_equal(seen[r->out_seen[i]]++, 0);
    }
}

static void test_counts(void **state) {
    (void)state;
    model_spec spec = spec_with_eos(1);
    for (int round = 0; round < 40; round++) {
        int in_prompt[VOCAB] = {0}, in_out[VOCAB] = {0};
        int32_t given[300];
        int n = rnd(300), range = 1 + rnd(VOCAB);
        for (int i = 0; i < n; i++) {
            given[i] = rnd(range);
            in_prompt[given[i]] = 1;
        }
        if (n > 2) { /* a placeholder outside the vocabulary has no logit */
            in_prompt[given[0]] = 0;
            given[0] = VOCAB + 3;
            for (int i = 1; i < n; i++) in_prompt[given[i]] = 1;
        }
        engine_params p = plain();
        p.repetition_penalty = 1.1f;
        sampler s;
        status st = {0};
        assert_true(sampler_init(&s, &p, &spec, given, (size_t)n, 1, &st));
        for (int t = 0; t < 400; t++) {
            sample_row r;
            if (t % 7 == 0) {
                sampler_row(&s, (uint32_t)t, 0, &r);
                assert_int_equal(r.position, t);
                check_row(&r, in_prompt, in_out);
            }
            int id = rnd(range);
            in_out[id]++;
            assert_true(sampler_accept(&s, id));
        }
        sampler_fini(&s);
    }
}

/* Only the penalties that are on cost anything; presence and frequency do not read the prompt. */
static void test_what_is_tracked(void **state) {
    (void)state;
    model_spec spec = spec_with_eos(1);
    int32_t given[] = {5, 6, 5};
    sampler s;
    sample_row r;
    engine_params p = plain();
    p.has_seed = true;
    p.seed = 77;
    p.temperature = 0.5f;
    p.top_k = 3;
    p.min_p = 0.25f;
    assert_true(sampler_init(&s, &p, &spec, given, 3, 99, NULL));
    assert_true(sampler_accept(&s, 6));
    sampler_row(&s, 1, 0, &r);
    assert_int_equal(r.n_prompt_seen + r.n_out_seen, 0);
    assert_int_equal(r.seed, 77);
    assert_int_equal(r.top_k, 3);
    assert_true(r.temperature == 0.5f && r.min_p == 0.25f && r.top_p == 1 && r.top_logprobs == -1);
    sampler_fini(&s);
    p = plain();
    p.frequency_penalty = 0.5f;
    assert_true(sampler_init(&s, &p, &spec, given, 3, 99, NULL));
    assert_true(sampler_accept(&s, 6) && sampler_accept(&s, 6));
    sampler_row(&s, 2, 0, &r);
    assert_int_equal(r.n_prompt_seen, 0);
    assert_int_equal(r.n_out_seen, 1);
    assert_int_equal(r.out_count[0], 2);
    assert_int_equal(r.seed, 99);
    sampler_fini(&s);
}

static bool banned(const sampler *s, int32_t id) {
    sample_row r;
    sampler_row(s, 0, 0, &r);
    for (int i = 0; i < r.n_bias; i++)
        if (r.bias_ids[i] == id && r.bias[i] == -INFINITY) return true;
    return false;
}

static void test_what_the_model_never_says(void **state) {
    (void)state;
    model_spec spec = spec_with_eos(1);
    spec.banned[0] = 5, spec.banned[1] = 9, spec.n_banned = 2;
    int32_t bias_ids[] = {9, 4};
    float bias[] = {100, 100};
    engine_params p = plain();
    p.bias_ids = bias_ids, p.bias = bias, p.n_bias = 2;
    for (int least = 0; least < 3; least += 2) {
        p.min_tokens = least;
        sampler s;
        assert_true(sampler_init(&s, &p, &spec, NULL, 0, 1, NULL));
        for (int t = 0; t < 4; t++) {
            assert_true(banned(&s, 5) && banned(&s, 9));
            assert_false(banned(&s, 4));
            assert_int_equal(banned(&s, 2), t < least);
            assert_true(sampler_accept(&s, 1));
        }
        sampler_fini(&s);
    }
}

static void test_min_tokens_and_stops(void **state) {
    (void)state;
    model_spec spec = spec_with_eos(3); /* 2, 7, 12 */
    int32_t stops[] = {40, 30, 40, 7}, bias_ids[] = {2, 9};
    float bias[] = {100, -5};
    for (int ignore = 0; ignore < 2; ignore++) {
        engine_params p = plain();
        p.min_tokens = 2;
        p.ignore_eos = ignore;
        p.stop_ids = stops, p.n_stop_ids = 4;
        p.bias_ids = bias_ids, p.bias = bias, p.n_bias = 2;
        sampler s;
        assert_true(sampler_init(&s, &p, &spec, NULL, 0, 1, NULL));
        for (int t = 0; t < 4; t++) {
            const int32_t ends[] = {2, 7, 12, 30, 40};
            for (size_t i = 0; i < ARRAY_LEN(ends); i++) assert_int_equal(banned(&s, ends[i]), t < 2);
            assert_false(banned(&s, 9));
            sample_row r;
            sampler_row(&s, 0, 0, &r);
            assert_int_equal(r.n_bias, t < 2 ? 2 + 5 : 2);
            assert_int_equal(r.bias_ids[1], 9);
            assert_true(r.bias[1] == -5);
            assert_true(sampler_accept(&s, 1));
        }
        /* With ignore_eos an eos is generated and does not stop; stop_token_ids still do (7 is both). */
        assert_int_equal(sampler_is_stop(&s, 2), !ignore);
        assert_int_equal(sampler_is_stop(&s, 12), !ignore);
        assert_true(sampler_is_stop(&s, 7) && sampler_is_stop(&s, 30) && sampler_is_stop(&s, 40));
        assert_false(sampler_is_stop(&s, 9));
        sampler_fini(&s);
    }
    engine_params p = plain();
    model_spec none = spec_with_eos(0);
    sampler s;
    assert_true(sampler_init(&s, &p, &none, NULL, 0, 1, NULL));
    assert_false(sampler_is_stop(&s, 2));
    sampler_fini(&s);
    sampler_fini(&s); /* twice is fine */
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_counts),
        cmocka_unit_test(test_what_is_tracked),
        cmocka_unit_test(test_min_tokens_and_stops),
        cmocka_unit_test(test_what_the_model_never_says),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
