/* harness.h - jobs made from a seed, what their events said, and a scheduler to run them on without threads.
 * Include after fake_model.h. */
#ifndef VLMD_TESTS_SCHED_HARNESS_H
#define VLMD_TESTS_SCHED_HARNESS_H

#include "engine/engine.h"

typedef struct rng {
    uint32_t s;
} rng;
static uint32_t rnd(rng *r, uint32_t n) { /* 0..n-1 */
    r->s = r->s * 1664525u + 1013904223u;
    return (uint32_t)((uint64_t)(r->s >> 4) * n >> 28);
}

/* ---- what the events of a job said ---- */

typedef struct answer {
    buf text;
    int32_t ids[FAKE_MAX_POS];
    float logprobs[FAKE_MAX_POS];
    int n, n_input_done, n_final, prompt_tokens, completion_tokens;
    bool error, out_of_order;
    engine_finish finish;
    status_code code;
} answer;

static void on_event(void *user, const engine_event *ev) {
    answer *a = user;
    if (a->n_final) a->out_of_order = true;
    if (ev->kind == ENGINE_INPUT_DONE) {
        if (a->n || a->n_input_done) a->out_of_order = true;
        a->n_input_done++;
    } else if (ev->kind == ENGINE_TOKENS) {
        if (!a->n_input_done) a->out_of_order = true;
        buf_append(&a->text, ev->text, ev->n_text);
        for (int i = 0; i < ev->n_tokens; i++) {
            a->ids[a->n] = ev->tokens[i].id;
            a->logprobs[a->n++] = ev->tokens[i].logprob;
        }
    } else {
        a->n_final++;
        a->error = ev->kind == ENGINE_ERROR;
        if (a->error) a->code = ev->error->code;
        a->finish = ev->finish;
        a->prompt_tokens = ev->prompt_tokens;
        a->completion_tokens = ev->completion_tokens;
    }
}
static void answer_fini(answer *a) {
    buf_fini(&a->text);
}

#endif
