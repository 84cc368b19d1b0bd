/* generation.c - what a checkpoint's generation_config.json says of its answers: how they end, what a request samples by that
 * says nothing of it, and tokens that never come.
 *
 * Source: transformers' GenerationConfig and the processors that generate() makes of it. Thread: the loader's.
 * Tested by tests/engine/families/test_configs.c and tests/engine/test_sampler.c. */
#include <math.h>
#include <string.h>

#include "engine/families/family.h"

static void ban(config *c, const char *key, int64_t id, model_spec *out) {
    for (int i = 0; i < out->n_eos; i++)
        if (out->eos[i] == id) return; /* the reference lets an answer end */
    if (id < 0 || id >= out->text.vocab) return;
    if (out->n_banned < SPEC_MAX_BANNED)
        out->banned[out->n_banned++] = (int32_t)id;
    else
        config_fail(c, ST_UNSUPPORTED, key, "at most %d tokens can be banned", SPEC_MAX_BANNED);
}

/* Tokens that are banned at every step: words of one token, and those that are suppressed. */
static void read_bans(config *gen, model_spec *out) {
    const json_t *words = config_get(gen, "bad_words_ids"), *word;
    int32_t ids[SPEC_MAX_BANNED];
    size_t i;
    json_array_foreach((json_t *)(uintptr_t)words, i, word) {
        const json_t *id = json_array_get(word, 0);
        if (json_array_size(word) == 1 && json_is_integer(id))
            ban(gen, "bad_words_ids", json_integer_value(id), out);
        else
            log_warn("generation_config.json: bad_words_ids: only words of one token are implemented");
    }
    int n = config_ints(gen, "suppress_tokens", ids, SPEC_MAX_BANNED);
    for (int k = 0; k < n; k++) ban(gen, "suppress_tokens", ids[k], out);
}

/* What would change answers and is not implemented, where it is not at the value that changes nothing. */
static void warn_of_rest(config *gen) {
    static const struct {
        const char *key;
        double neutral;
    } numbers[] = {{"num_beams", 1},     {"no_repeat_ngram_size", 0},
                   {"min_length", 0},    {"min_new_tokens", 0},
                   {"typical_p", 1},     {"epsilon_cutoff", 0},
                   {"eta_cutoff", 0},    {"encoder_repetition_penalty", 1},
                   {"penalty_alpha", 0}, {"encoder_no_repeat_ngram_size", 0},
                   {"guidance_scale", 1}};
    static const char *const others[] = {"sequence_bias",        "force_words_ids",
                                         "forced_bos_token_id",  "forced_eos_token_id",
                                         "constraints",          "exponential_decay_length_penalty",
                                         "begin_suppress_tokens"};
    for (size_t i = 0; i < ARRAY_LEN(numbers); i++) {
        const json_t *v = config_get(gen, numbers[i].key);
        if (json_is_number(v) && json_number_value(v) != numbers[i].neutral)
            log_warn("generation_config.json: %s is not implemented and ignored", numbers[i].key);
    }
    for (size_t i = 0; i < ARRAY_LEN(others); i++) {
        const json_t *v = config_get(gen, others[i]);
        if (v && !(json_is_array(v) && json_array_size(v) == 0))
            log_warn("generation_config.json: %s is not implemented and ignored", others[i]);
    }
}

void generation_read(config *gen, config *top, config *text, model_spec *out) {
    config *from[] = {gen, top, text};
    for (int i = 0; i < 3 && out->n_eos == 0; i++)
        out->n_eos = config_ints(from[i], "eos_token_id", out->eos, SPEC_MAX_EOS);
    if (out->n_eos == 0 && out->text.eos >= 0) out->eos[out->n_eos++] = out->text.eos;
    out->bos = -1;
    for (int i = 0; i < 3 && out->bos < 0; i++)
        out->bos = (int32_t)config_int(from[i], "bos_token_id", -1, -1, INT32_MAX);
    if (out->bos < 0) out->bos = out->text.bos;
    out->temperature = (float)config_num(gen, "temperature", NAN, 0, 1000);
    out->top_p = (float)config_num(gen, "top_p", NAN, 0, 1);
    out->min_p = (float)config_num(gen, "min_p", NAN, 0, 1);
    out->repetition_penalty = (float)config_num(gen, "repetition_penalty", NAN, 1e-3, 1000);
    out->top_k = (int)config_int(gen, "top_k", -1, -1, INT32_MAX);
    out->max_new_tokens = (int)config_int(gen, "max_new_tokens", -1, 1, INT32_MAX);
    if (gen->j && config_has(gen, "do_sample") && !config_bool(gen, "do_sample", true)) out->temperature = 0;
    read_bans(gen, out);
    warn_of_rest(gen);
}
