/* params.c - see params.h. */
#include "engine/params.h"

#include <math.h>

static float or_else(float set, float otherwise) {
    return isnan(set) ? otherwise : set;
}

void params_default(const model_spec *spec, engine_params *out) {
    *out = (engine_params){
        .max_tokens = -1, /* up to max_new_tokens, where the checkpoint names it */
        .temperature = or_else(spec->temperature, 1),
        .top_p = or_else(spec->top_p, 1),
        .min_p = or_else(spec->min_p, 0),
        .top_k = spec->top_k > 0 ? spec->top_k : 0,
        .repetition_penalty = or_else(spec->repetition_penalty, 1),
        .top_logprobs = -1,
    };
}

static bool refuse(status *st, const char *field, const char *expected, double found) {
    status_set(st, ST_INVALID, "%s must be %s; found %g", field, expected, found);
    return status_param(st, "%s", field);
}

static bool check_choice(const engine_params *p, status *st) {
    if (p->n < 0 || p->n > ENGINE_MAX_CHOICES) return refuse(st, "n", "from 1 to 16", p->n);
    /* Written so that NaN fails. */
    if (!(p->temperature >= 0 && p->temperature <= 100))
        return refuse(st, "temperature", "from 0 to 100", (double)p->temperature);
    if (!(p->top_p > 0 && p->top_p <= 1))
        return refuse(st, "top_p", "above 0 and at most 1", (double)p->top_p);
    if (!(p->min_p >= 0 && p->min_p <= 1)) return refuse(st, "min_p", "from 0 to 1", (double)p->min_p);
    if (p->top_k < 0) return refuse(st, "top_k", "at least 1, or 0 or -1 for no limit", p->top_k);
    if (!(p->repetition_penalty > 0 && p->repetition_penalty <= 100))
        return refuse(st, "repetition_penalty", "above 0 and at most 100", (double)p->repetition_penalty);
    if (!(fabsf(p->presence_penalty) <= 2))
        return refuse(st, "presence_penalty", "from -2 to 2", (double)p->presence_penalty);
    if (!(fabsf(p->frequency_penalty) <= 2))
        return refuse(st, "frequency_penalty", "from -2 to 2", (double)p->frequency_penalty);
    if (p->top_logprobs < -1 || p->top_logprobs > 20)
        return refuse(st, "top_logprobs", "from 0 to 20", p->top_logprobs);
    return true;
}

static bool check_lengths(const engine_params *p, int n_prompt, int max_model_len, status *st) {
    if (p->max_tokens < 1 && p->max_tokens != -1)
        return refuse(st, "max_tokens", "at least 1", p->max_tokens);
    if (p->min_tokens < 0) return refuse(st, "min_tokens", "at least 0", p->min_tokens);
    if (p->max_tokens > 0 && p->min_tokens > p->max_tokens) {
        status_set(st, ST_INVALID, "min_tokens (%d) is more than max_tokens (%d)", p->min_tokens,
                   p->max_tokens);
        return status_param(st, "min_tokens");
    }
    int room = max_model_len - (n_prompt > 0 ? n_prompt : 1);
    if (p->max_tokens <= room && p->min_tokens <= room) return true;
    const char *field = p->max_tokens > room ? "max_tokens" : "min_tokens";
    status_set(st, ST_INVALID,
               "%s is too large: %d; the model's context is %d tokens and the prompt has %d, which leaves %d",
               field, p->max_tokens > room ? p->max_tokens : p->min_tokens, max_model_len,
               n_prompt > 0 ? n_prompt : 1, room);
    return status_param(st, "%s", field);
}

static bool check_lists(const engine_params *p, int vocab, status *st) {
    for (int i = 0; i < p->n_stop_ids; i++) {
        if (p->stop_ids[i] >= 0 && p->stop_ids[i] < vocab) continue;
        status_set(st, ST_INVALID, "stop_token_ids must lie from 0 to %d; found %d", vocab - 1,
                   (int)p->stop_ids[i]);
        return status_param(st, "stop_token_ids");
    }
    if (p->n_bias > vocab) return refuse(st, "logit_bias", "at most one for each token", p->n_bias);
    for (int i = 0; i < p->n_bias; i++) {
        if (p->bias_ids[i] < 0 || p->bias_ids[i] >= vocab) {
            status_set(st, ST_INVALID, "logit_bias names token %d; ids lie from 0 to %d", (int)p->bias_ids[i],
                       vocab - 1);
            return status_param(st, "logit_bias");
        }
        if (!(fabsf(p->bias[i]) <= 100))
            return refuse(st, "logit_bias", "from -100 to 100", (double)p->bias[i]);
    }
    return true;
}

bool params_check(const engine_params *p, const model_spec *spec, int n_prompt, int max_model_len,
                  status *st) {
    return check_choice(p, st) && check_lengths(p, n_prompt, max_model_len, st) &&
           check_lists(p, spec->text.vocab, st);
}
