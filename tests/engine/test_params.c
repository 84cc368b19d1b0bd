/* test_params.c - which parameters pass, and which field a refusal names (ranges: vLLM's SamplingParams). */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "engine/params.h"

static model_spec g_spec;

static int set_up(void **state) {
    (void)state;
    g_spec.text.vocab = 100;
    g_spec.temperature = g_spec.top_p = g_spec.min_p = g_spec.repetition_penalty = NAN;
    g_spec.top_k = g_spec.max_new_tokens = -1;
    return 0;
}

static const char *refused(const engine_params *p, int n_prompt) {
    static status st;
    st = (status){0};
    if (params_check(p, &g_spec, n_prompt, 64, &st)) return "";
    assert_int_equal(st.code, ST_INVALID);
    assert_true(st.msg[0]);
    return st.param;
}

static void defaults(void **state) {
    (void)state;
    engine_params p;
    params_default(&g_spec, &p);
    assert_true(p.temperature == 1 && p.top_p == 1 && p.min_p == 0 && p.top_k == 0 &&
                p.repetition_penalty == 1);
    assert_int_equal(p.max_tokens, -1);
    assert_int_equal(p.top_logprobs, -1);
    assert_string_equal(refused(&p, 10), "");
    model_spec s = g_spec;
    s.temperature = 0.6f;
    s.top_p = 0.9f;
    s.top_k = 20;
    s.repetition_penalty = 1.05f;
    params_default(&s, &p);
    assert_true(p.temperature == 0.6f && p.top_p == 0.9f && p.top_k == 20 && p.repetition_penalty == 1.05f);
}

#define EXPECT(field, set)                                                                                   \
    do {                                                                                                     \
        engine_params p;                                                                                     \
        params_default(&g_spec, &p);                                                                         \
        set;                                                                                                 \
        assert_string_equal(refused(&p, 10), field);                                                         \
    } while (0)

static void ranges(void **state) {
    (void)state;
    EXPECT("temperature", p.temperature = -0.1f);
    EXPECT("temperature", p.temperature = NAN);
    EXPECT("temperature", p.temperature = INFINITY);
    EXPECT("", p.temperature = 2);
    EXPECT("top_p", p.top_p = 0);
    EXPECT("top_p", p.top_p = 1.01f);
    EXPECT("top_k", p.top_k = -2);
    EXPECT("min_p", p.min_p = -0.1f);
    EXPECT("repetition_penalty", p.repetition_penalty = 0);
    EXPECT("presence_penalty", p.presence_penalty = 2.1f);
    EXPECT("frequency_penalty", p.frequency_penalty = NAN);
    EXPECT("", p.frequency_penalty = -2);
    EXPECT("top_logprobs", p.top_logprobs = 21);
    EXPECT("", p.top_logprobs = 20);
}

static void lengths(void **state) {
    (void)state;
    EXPECT("max_tokens", p.max_tokens = 0);
    EXPECT("", p.max_tokens = 54); /* 10 + 54 = 64 */
    EXPECT("max_tokens", p.max_tokens = 55);
    EXPECT("min_tokens", p.min_tokens = -1);
    EXPECT("min_tokens", (p.max_tokens = 5, p.min_tokens = 6));
    EXPECT("min_tokens", p.min_tokens = 55);
    EXPECT("max_tokens", p.max_tokens = INT32_MAX);
}

static void lists(void **state) {
    (void)state;
    static const int32_t ids[2] = {99, 100};
    static const float bias[2] = {100, -100.5f};
    EXPECT("", (p.stop_ids = ids, p.n_stop_ids = 1));
    EXPECT("stop_token_ids", (p.stop_ids = ids, p.n_stop_ids = 2));
    EXPECT("", (p.bias_ids = ids, p.bias = bias, p.n_bias = 1));
    EXPECT("logit_bias", (p.bias_ids = ids, p.bias = bias, p.n_bias = 2));
    EXPECT("logit_bias", (p.bias_ids = ids, p.bias = bias + 1, p.n_bias = 1));
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(defaults), cmocka_unit_test(ranges),
                                       cmocka_unit_test(lengths), cmocka_unit_test(lists)};
    return cmocka_run_group_tests(tests, set_up, NULL);
}
