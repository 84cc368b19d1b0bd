/* sample.c - op_sample and op_next_ids on the CPU: rows spread over the pool, each chosen alone by choose.c. The ctx's
 * thread; work memory is the backend's. */
#include <string.h>

#include "kernels/cpu/choose.h"
#include "kernels/cpu/cpu.h"

typedef struct sample_job {
    cpu_backend *be;
    tensor logits;
    const int32_t *words;
    sample_result *out;
} sample_job;

static sample_row row_of(const int32_t *words, int64_t i) {
    sample_rule k;
    memcpy(&k, words + i * SAMPLE_RULE_WORDS, sizeof k);
    return (sample_row){.temperature = k.temperature,
                        .top_p = k.top_p,
                        .min_p = k.min_p,
                        .top_k = k.top_k,
                        .repetition_penalty = k.repetition,
                        .presence_penalty = k.presence,
                        .frequency_penalty = k.frequency,
                        .seed = k.seed_lo | (uint64_t)k.seed_hi << 32,
                        .choice = k.choice,
                        .position = k.position,
                        .bias_ids = words + k.bias_at,
                        .bias = (const float *)(const void *)(words + k.bias_at + k.n_bias),
                        .n_bias = k.n_bias,
                        .prompt_seen = words + k.prompt_at,
                        .n_prompt_seen = k.n_prompt,
                        .out_seen = words + k.out_at,
                        .out_count = words + k.out_at + k.n_out,
                        .n_out_seen = k.n_out,
                        .top_logprobs = k.top_logprobs};
}

static void sample_rows(void *arg, int64_t from, int64_t to, int thread) {
    const sample_job *j = arg;
    for (int64_t i = from; i < to; i++) {
        const float *x = (const float *)j->logits.data + i * j->logits.ld;
        const sample_row row = row_of(j->words, i);
        float *work = choose_adjusts(&row) ? cpu_work_thread(j->be, thread) : NULL;
        choose_token(x, j->logits.d[1], &row, work, &j->out[i]);
    }
}

void cpu_sample(ctx *c, tensor logits, tensor rules, tensor results) {
    int64_t n = logits.d[0], vocab = logits.d[1];
    bool adjusts = false;
    for (int64_t i = 0; i < n; i++) {
        const sample_row row = row_of(rules.data, i);
        adjusts |= choose_adjusts(&row);
    }
    if (adjusts && !cpu_work(c, 0, (size_t)vocab * sizeof(float))) return;
    sample_job j = {cpu_of(c), logits, rules.data, results.data};
    cpu_for(cpu_of(c), n, 1, (double)n * (double)vocab, sample_rows, &j);
}

void cpu_next_ids(ctx *c, tensor ids, tensor from, tensor results) {
    const int32_t *at = from.data;
    for (int64_t i = 0; i < ids.d[0]; i++) {
        if (at[i] < 0) continue;
        if (at[i] >= results.d[0]) {
            status_set(&c->st, ST_INTERNAL, "next_ids: expected one of %lld results, found %d",
                       (long long)results.d[0], (int)at[i]);
            return;
        }
        ((int32_t *)ids.data)[i] = ((const sample_result *)results.data)[at[i]].id;
    }
}
