/* rules.c - how rows are to be chosen from, packed into words for the device. See ops.h: sample_rule.
 *
 * Threads: any. Owns nothing. Tested by tests/kernels/test_sample.c. */
#include <string.h>

#include "kernels/ops.h"

size_t sample_list_words(const sample_row *row) {
    return 2 * (size_t)row->n_bias + (size_t)row->n_prompt_seen + 2 * (size_t)row->n_out_seen;
}

/* Appends n words at *at; returns where they begin. */
static int32_t put(int32_t *to, size_t *at, const void *words, int n) {
    size_t begin = *at;
    if (n > 0) memcpy(to + begin, words, (size_t)n * sizeof *to);
    *at += (size_t)n;
    return (int32_t)begin;
}

static sample_rule rule_of(const sample_row *r) {
    return (sample_rule){.temperature = r->temperature,
                         .top_p = r->top_p,
                         .min_p = r->min_p,
                         .repetition = r->repetition_penalty,
                         .presence = r->presence_penalty,
                         .frequency = r->frequency_penalty,
                         .top_k = r->top_k,
                         .top_logprobs = r->top_logprobs > 20 ? 20 : r->top_logprobs,
                         .seed_lo = (uint32_t)r->seed,
                         .seed_hi = (uint32_t)(r->seed >> 32),
                         .choice = r->choice,
                         .position = r->position,
                         .n_bias = r->n_bias,
                         .n_prompt = r->n_prompt_seen,
                         .n_out = r->n_out_seen};
}

size_t sample_pack(int32_t *to, const sample_row *rows, int n) {
    size_t at = (size_t)n * SAMPLE_RULE_WORDS;
    for (int i = 0; i < n; i++) {
        sample_rule k = rule_of(&rows[i]);
        k.bias_at = put(to, &at, rows[i].bias_ids, k.n_bias);
        put(to, &at, rows[i].bias, k.n_bias);
        k.prompt_at = put(to, &at, rows[i].prompt_seen, k.n_prompt);
        k.out_at = put(to, &at, rows[i].out_seen, k.n_out);
        put(to, &at, rows[i].out_count, k.n_out);
        memcpy(to + (size_t)i * SAMPLE_RULE_WORDS, &k, sizeof k);
    }
    return at;
}
