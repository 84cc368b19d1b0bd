/* sampler.h - how one sequence chooses its tokens: a request's parameters and what has been generated so far,
 * turned into one sample_row a step.
 *
 * Threads: one at a time (made where the request is submitted, then the engine's thread). Owner: the sequence
 * embeds it; every list of the parameters is copied. It survives a preemption as it is: it knows the answer
 * so far. Tested by tests/engine/test_sampler.c. */
#ifndef VLMD_ENGINE_SAMPLER_H
#define VLMD_ENGINE_SAMPLER_H

#include "engine/engine.h"
#include "engine/model/spec.h"

typedef struct sampler_slot { /* where an id stands in the lists of seen ids */
    int32_t id;               /* -1: free */
    uint32_t at;              /* index * 2 + (1: in out_seen, 0: in prompt_seen) */
} sampler_slot;

typedef struct sampler {
    sample_row row; /* all that stays the same from step to step */
    int min_tokens, n_out;
    bool tracks; /* some penalty is on: ids are counted */
    /* bias_ids[0, n_user_bias) are the request's and the model's bans; up to n_all_bias the bans of end ids while
     * n_out < min_tokens */
    int32_t *bias_ids;
    float *bias;
    int n_user_bias, n_all_bias;
    int32_t *stop_ids; /* sorted: ids that end the answer */
    int n_stop_ids;
    int32_t *prompt_seen, *out_seen, *out_count; /* no id twice, neither within a list nor in both */
    int n_prompt_seen, n_out_seen, cap_out;
    sampler_slot *slots; /* open addressing over both lists */
    size_t n_slots;      /* a power of two, or 0 */
} sampler;

/* prompt_ids: placeholders expanded, as the reference counts them for repetition_penalty; read only here.
 * fresh_seed is used when the parameters bring none. Parameters are those that engine_check_params let pass.
 * After a failure (ST_NO_MEMORY) nothing is owned. */
bool sampler_init(sampler *s, const engine_params *p, const model_spec *spec, const int32_t *prompt_ids,
                  size_t n, uint64_t fresh_seed, status *st);
void sampler_fini(sampler *s);

/* The row for the next token, or for the one n_ahead further on. position: any number that is unique within the sequence
 * and the same in every run (the token's index in the answer). Pointers in out stay valid until the next accept. */
void sampler_row(const sampler *s, uint32_t position, int n_ahead, sample_row *out);
/* The row depends on which token came before, so that it cannot be made ahead. */
static inline bool sampler_needs_last(const sampler *s) {
    return s->tracks;
}

/* The token that was chosen joins the answer: constant work. False: no memory to count it. */
bool sampler_accept(sampler *s, int32_t id);

/* Does id end the answer: one of stop_token_ids, or an eos id of the model unless ignore_eos. Constant (log)
 * work; the token is part of the answer's count and not of its text. */
bool sampler_is_stop(const sampler *s, int32_t id);

#endif
