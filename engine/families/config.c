/* config.c - see config.h. Thread: the loader's. Owns nothing. */
#include "engine/families/config.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

/* What every config may carry without a say in the forward pass: bookkeeping, training, generation defaults that old
 * writers dumped, and switches of the reference library's own outputs. */
static const char *const BENIGN[] = {
    "_attn_implementation_autoset",
    "_commit_hash",
    "_from_model_config",
    "_name_or_path",
    "add_cross_attention", /* and is_decoder, is_encoder_decoder: a decoder looks itself */
    "add_faster_video",
    "architectures",
    "attention_dropout",
    "auto_map",
    "bad_words_ids",
    "begin_suppress_tokens",
    "bos_token_id",
    "chunk_size_feed_forward",
    "cross_attention_hidden_size",
    "decoder_start_token_id",
    "diversity_penalty",
    "do_sample",
    "dropout",
    "dtype",
    "early_stopping",
    "encoder_no_repeat_ngram_size",
    "eos_token_id",
    "exponential_decay_length_penalty",
    "finetuned", /* in old YaRN settings */
    "finetuning_task",
    "forced_bos_token_id",
    "forced_eos_token_id",
    "id2label",
    "ignore_index",
    "initializer_factor",
    "initializer_range",
    "is_decoder",
    "is_encoder_decoder",
    "label2id",
    "length_penalty",
    "max_length",
    "min_length",
    "model_type",
    "no_repeat_ngram_size",
    "num_beam_groups",
    "num_beams",
    "num_return_sequences",
    "output_attentions",
    "output_hidden_states",
    "output_scores",
    "pad_token_id",
    "prefix",
    "pretraining_tp",
    "problem_type",
    "pruned_heads",
    "remove_invalid_values",
    "repetition_penalty",
    "return_dict",
    "return_dict_in_generate",
    "sep_token_id",
    "suppress_tokens",
    "task_specific_params",
    "temperature",
    "tf_legacy_loss",
    "tie_encoder_decoder",
    "tokenizer_class",
    "top_k",
    "top_p",
    "torch_dtype",
    "torchscript",
    "transformers_version",
    "typical_p",
    "unsloth_version",
    "unsloth_fixed",
    "use_bfloat16",
    "use_cache",
    "projection_dim",
    "use_image_newline_parameter",
    "freeze_mm_mlp_adapter",
    "vocab_size",
    "attn_implementation",
    "num_labels",
};

/* A path without what joins it to a key. */
static int path_chars(const char *path) {
    size_t n = strlen(path);
    while (n > 0 && strchr(" :.", path[n - 1])) n--;
    return (int)n;
}

config config_of(const json_t *j, const char *path, status *st) {
    config c = {.st = st};
    snprintf(c.path, sizeof c.path, "%s", path);
    if (j && !json_is_object(j))
        status_set(st, ST_INVALID, "%.*s: expected an object", path_chars(path), path);
    else
        c.j = j;
    return c;
}

config config_sub(config *c, const char *key) {
    char path[sizeof c->path + 64];
    snprintf(path, sizeof path, "%s%s.", c->path, key);
    return config_of(config_get(c, key), path, c->st);
}

bool config_fail(config *c, status_code code, const char *key, const char *fmt, ...) {
    char msg[320];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(msg, sizeof msg, fmt, ap);
    va_end(ap);
    return status_set(c->st, code, "%s%s: %s", c->path, key, msg);
}

const json_t *config_get(config *c, const char *key) {
    if (c->n_seen < CONFIG_MAX_SEEN) c->seen[c->n_seen++] = key;
    const json_t *v = c->j ? json_object_get(c->j, key) : NULL;
    return v && !json_is_null(v) ? v : NULL;
}

bool config_has(config *c, const char *key) {
    return config_get(c, key) != NULL;
}

/* A value as short text, for messages. */
static const char *shown(const json_t *v, char *out, size_t n) {
    char *s = json_dumps(v, JSON_ENCODE_ANY | JSON_COMPACT);
    snprintf(out, n, "%.60s", s ? s : "?");
    if (s) {
        json_free_t give_back;
        json_get_alloc_funcs(NULL, &give_back);
        give_back(s);
    }
    return out;
}

int64_t config_int(config *c, const char *key, int64_t def, int64_t min, int64_t max) {
    const json_t *v = config_get(c, key);
    char text[64];
    if (!v) return def;
    double d = json_number_value(v);
    if (!json_is_number(v) || (json_is_real(v) && (d != floor(d) || fabs(d) > 1e15))) {
        config_fail(c, ST_INVALID, key, "expected a whole number, found %s", shown(v, text, sizeof text));
        return def;
    }
    int64_t i = json_is_integer(v) ? json_integer_value(v) : (int64_t)d;
    if (i < min || i > max) {
        config_fail(c, ST_INVALID, key, "expected a whole number from %lld to %lld, found %lld",
                    (long long)min, (long long)max, (long long)i);
        return def;
    }
    return i;
}

int64_t config_int_as(config *c, const char *other, const char *key, int64_t def, int64_t min, int64_t max) {
    return config_int(c, other, config_int(c, key, def, min, max), min, max);
}

double config_num(config *c, const char *key, double def, double min, double max) {
    const json_t *v = config_get(c, key);
    char text[64];
    if (!v) return def;
    double d = json_number_value(v);
    if (!json_is_number(v) || !(d >= min && d <= max)) {
        config_fail(c, ST_INVALID, key, "expected a number from %g to %g, found %s", min, max,
                    shown(v, text, sizeof text));
        return def;
    }
    return d;
}

bool config_bool(config *c, const char *key, bool def) {
    const json_t *v = config_get(c, key);
    char text[64];
    if (!v) return def;
    if (json_is_integer(v) && (json_integer_value(v) == 0 || json_integer_value(v) == 1))
        return json_integer_value(v) == 1;
    if (!json_is_boolean(v)) {
        config_fail(c, ST_INVALID, key, "expected true or false, found %s", shown(v, text, sizeof text));
        return def;
    }
    return json_is_true(v);
}

const char *config_str(config *c, const char *key, const char *def) {
    const json_t *v = config_get(c, key);
    char text[64];
    if (!v) return def;
    if (!json_is_string(v)) {
        config_fail(c, ST_INVALID, key, "expected a string, found %s", shown(v, text, sizeof text));
        return def;
    }
    return json_string_value(v);
}

act config_act(config *c, const char *key, const char *def) {
    static const struct {
        const char *name;
        act a;
    } acts[] = {
        {"gelu", ACT_GELU},
        {"gelu_python", ACT_GELU},
        {"gelu_pytorch_tanh", ACT_GELU_TANH},
        {"gelu_python_tanh", ACT_GELU_TANH},
        {"gelu_new", ACT_GELU_TANH},
        {"gelu_fast", ACT_GELU_TANH},
        {"gelu_accurate", ACT_GELU_TANH},
        {"quick_gelu", ACT_QUICK_GELU},
        {"silu", ACT_SILU},
        {"swish", ACT_SILU},
        {"relu", ACT_RELU},
        {"linear", ACT_NONE},
    };
    const char *name = config_str(c, key, def);
    for (size_t i = 0; i < ARRAY_LEN(acts); i++)
        if (strcmp(acts[i].name, name) == 0) return acts[i].a;
    config_fail(c, ST_UNSUPPORTED, key,
                "activation \"%.60s\" is not implemented; known are gelu, gelu_pytorch_tanh, gelu_new, "
                "quick_gelu, silu, "
                "relu, linear",
                name);
    return ACT_NONE;
}

int config_ints(config *c, const char *key, int32_t *out, int max) {
    const json_t *v = config_get(c, key);
    char text[64];
    if (!v) return 0;
    size_t n = json_is_array(v) ? json_array_size(v) : 1;
    if (n > (size_t)max) {
        config_fail(c, ST_UNSUPPORTED, key, "a list of %zu, at most %d are possible", n, max);
        return 0;
    }
    for (size_t i = 0; i < n; i++) {
        const json_t *e = json_is_array(v) ? json_array_get(v, i) : v;
        if (!json_is_integer(e) || json_integer_value(e) < INT32_MIN || json_integer_value(e) > INT32_MAX) {
            config_fail(c, ST_INVALID, key, "expected whole numbers, found %s", shown(e, text, sizeof text));
            return 0;
        }
        out[i] = (int32_t)json_integer_value(e);
    }
    return (int)n;
}

int config_square(config *c, const char *key, int def) {
    const json_t *v = config_get(c, key), *w = v, *h = v;
    char text[64];
    if (!v) return def;
    if (json_is_array(v) && json_array_size(v) == 2) {
        h = json_array_get(v, 0);
        w = json_array_get(v, 1);
    } else if (json_is_object(v)) {
        h = json_object_get(v, "height");
        w = json_object_get(v, "width");
    }
    if (!json_is_integer(h) || !json_is_integer(w) || json_integer_value(h) < 1 ||
        json_integer_value(h) > 16384) {
        config_fail(c, ST_INVALID, key, "expected a size from 1 to 16384, found %s",
                    shown(v, text, sizeof text));
        return def;
    }
    if (json_integer_value(h) != json_integer_value(w)) {
        config_fail(c, ST_UNSUPPORTED, key, "only squares are implemented, found %s",
                    shown(v, text, sizeof text));
        return def;
    }
    return (int)json_integer_value(h);
}

void config_only_int(config *c, const char *key, int64_t only) {
    int64_t v = config_int(c, key, only, INT64_MIN, INT64_MAX);
    if (v != only)
        config_fail(c, ST_UNSUPPORTED, key, "only %lld is implemented, found %lld", (long long)only,
                    (long long)v);
}

void config_only_bool(config *c, const char *key, bool only) {
    if (config_bool(c, key, only) != only)
        config_fail(c, ST_UNSUPPORTED, key, "only %s is implemented", only ? "true" : "false");
}

void config_skip(config *c, const char *const *keys) {
    for (; *keys; keys++) config_get(c, *keys);
}

static bool is_seen(const config *c, const char *key) {
    for (int i = 0; i < c->n_seen; i++)
        if (strcmp(c->seen[i], key) == 0) return true;
    for (size_t i = 0; i < ARRAY_LEN(BENIGN); i++)
        if (strcmp(BENIGN[i], key) == 0) return true;
    return false;
}

void config_warn_unknown(config *c) {
    if (!c->j || c->st->code != ST_OK) return;
    if (config_has(c, "per_layer_config")) {
        config_fail(c, ST_UNSUPPORTED, "per_layer_config",
                    "layers with settings of their own are not implemented");
        return;
    }
    char list[400];
    size_t at = 0, n = 0;
    const char *key;
    json_t *v;
    json_object_foreach((json_t *)(uintptr_t)c->j, key, v) {
        if (json_is_null(v) || is_seen(c, key)) continue;
        n++;
        if (at < sizeof list - 1)
            at += (size_t)snprintf(list + at, sizeof list - at, "%s%.60s", n > 1 ? ", " : "", key);
    }
    if (n) log_warn("%.*s: unknown key%s ignored: %s", path_chars(c->path), c->path, n > 1 ? "s" : "", list);
}
