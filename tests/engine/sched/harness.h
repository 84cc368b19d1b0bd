/* harness.h - jobs made from a seed, what their events said, and a scheduler to run them on without threads.
 * Include after fake_model.h. */
#ifndef VLMD_TESTS_SCHED_HARNESS_H
#define VLMD_TESTS_SCHED_HARNESS_H

#include <string.h>

#include "engine/engine.h"
#include "tests/tools/rng.h"

/* ---- what the events of a job said ---- */

enum { ANSWER_MAX = 512 };

typedef struct answer {
    buf text;
    int32_t ids[ANSWER_MAX];
    float logprobs[ANSWER_MAX];
    int n, n_input_done, n_final, prompt_tokens, completion_tokens, cached_tokens;
    uint32_t tops; /* a hash of all top_logprobs */
    bool error, out_of_order;
    engine_finish finish;
    status_code code;
    char why[200];
} answer;

/* The final event of a choice. */
static void on_final(answer *a, const engine_event *ev) {
    a->n_final++;
    a->error = ev->kind == ENGINE_ERROR;
    if (a->error) {
        a->code = ev->error->code;
        snprintf(a->why, sizeof a->why, "%s", ev->error->msg);
    }
    a->finish = ev->finish;
    a->prompt_tokens = ev->prompt_tokens;
    a->completion_tokens = ev->completion_tokens;
    a->cached_tokens = ev->cached_tokens;
}

/* user: an answer for each choice. */
static void on_event(void *user, const engine_event *ev) {
    answer *all = user, *a = all + ev->choice;
    if (a->n_final) a->out_of_order = true;
    if (ev->kind == ENGINE_INPUT_DONE) {
        if (a->n || a->n_input_done) a->out_of_order = true;
        a->n_input_done++;
    } else if (ev->kind == ENGINE_TOKENS) {
        if (!all->n_input_done) a->out_of_order = true;
        buf_append(&a->text, ev->text, ev->n_text);
        for (int i = 0; i < ev->n_tokens; i++) {
            for (int k = 0; k < ev->tokens[i].n_top; k++) {
                uint32_t bits;
                memcpy(&bits, &ev->tokens[i].top[k].logprob, sizeof bits);
                a->tops = (a->tops * 31 + (uint32_t)ev->tokens[i].top[k].id) * 31 + bits;
            }
            CHECK(a->n < ANSWER_MAX);
            a->ids[a->n] = ev->tokens[i].id;
            a->logprobs[a->n++] = ev->tokens[i].logprob;
        }
    } else {
        CHECK(ev->n_choices >= 1);
        for (int i = 0; i < ev->n_choices; i++) on_final(a + i, ev);
    }
}
static void answer_fini(answer *a) {
    buf_fini(&a->text);
}

/* What a has so far is how b begins. */
static inline bool answer_begins(const answer *a, const answer *b) {
    return a->n <= b->n && memcmp(a->ids, b->ids, (size_t)a->n * sizeof a->ids[0]) == 0 &&
           memcmp(a->logprobs, b->logprobs, (size_t)a->n * sizeof a->logprobs[0]) == 0;
}

static inline bool answer_same(const answer *a, const answer *b) {
    return a->error == b->error && a->code == b->code && a->n == b->n && answer_begins(a, b) &&
           a->tops == b->tops && a->finish == b->finish && a->prompt_tokens == b->prompt_tokens &&
           a->completion_tokens == b->completion_tokens && a->text.len == b->text.len &&
           (a->text.len == 0 || memcmp(a->text.data, b->text.data, a->text.len) == 0);
}

#endif
