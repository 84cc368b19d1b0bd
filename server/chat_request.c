/* chat_request.c - see chat_request.h. One thread; the request owns what is made here. */
#include "server/chat_request.h"

#include <errno.h>
#include <float.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "server/fields.h"

/* ---- fields that vlmd has not built ----------------------------------------------------------------------
 */

typedef enum neutral {
    NEUTRAL_NONE,   /* only null */
    NEUTRAL_FALSE,  /* false */
    NEUTRAL_TRUE,   /* true */
    NEUTRAL_ONE,    /* 1 */
    NEUTRAL_EMPTY,  /* an empty list or object */
    NEUTRAL_CHOICE, /* "none" or "auto" */
    NEUTRAL_TEXT,   /* {"type":"text"} */
    NEUTRAL_MODES,  /* ["text"] */
    NEUTRAL_ANY     /* known, and without effect here */
} neutral;

static const struct {
    const char *name;
    neutral rule;
} unbuilt[] = {
    {"length_penalty", NEUTRAL_ONE},
    {"tools", NEUTRAL_EMPTY},
    {"functions", NEUTRAL_EMPTY},
    {"tool_choice", NEUTRAL_CHOICE},
    {"function_call", NEUTRAL_CHOICE},
    {"response_format", NEUTRAL_TEXT},
    {"modalities", NEUTRAL_MODES},
    {"audio", NEUTRAL_NONE},
    {"prediction", NEUTRAL_NONE},
    {"web_search_options", NEUTRAL_NONE},
    {"use_beam_search", NEUTRAL_FALSE},
    {"echo", NEUTRAL_FALSE},
    {"continue_final_message", NEUTRAL_FALSE},
    {"add_special_tokens", NEUTRAL_FALSE},
    {"include_stop_str_in_output", NEUTRAL_FALSE},
    {"return_tokens_as_token_ids", NEUTRAL_FALSE},
    {"skip_special_tokens", NEUTRAL_TRUE},
    {"bad_words", NEUTRAL_EMPTY},
    {"allowed_token_ids", NEUTRAL_NONE},
    {"prompt_logprobs", NEUTRAL_NONE},
    {"truncate_prompt_tokens", NEUTRAL_NONE},
    {"guided_json", NEUTRAL_NONE},
    {"guided_regex", NEUTRAL_NONE},
    {"guided_choice", NEUTRAL_NONE},
    {"guided_grammar", NEUTRAL_NONE},
    {"structured_outputs", NEUTRAL_NONE},
    {"chat_template", NEUTRAL_NONE},
    {"documents", NEUTRAL_EMPTY},
    {"mm_processor_kwargs", NEUTRAL_EMPTY},
    {"parallel_tool_calls", NEUTRAL_ANY},
    {"user", NEUTRAL_ANY},
    {"store", NEUTRAL_ANY},
    {"metadata", NEUTRAL_ANY},
    {"service_tier", NEUTRAL_ANY},
    {"safety_identifier", NEUTRAL_ANY},
    {"prompt_cache_key", NEUTRAL_ANY},
    {"spaces_between_special_tokens", NEUTRAL_ANY},
    {"request_id", NEUTRAL_ANY},
};

static bool is_neutral(neutral rule, const json_t *v) {
    const char *s = json_string_value(v);
    switch (rule) {
    case NEUTRAL_NONE: return false;
    case NEUTRAL_FALSE: return json_is_false(v);
    case NEUTRAL_TRUE: return json_is_true(v);
    case NEUTRAL_ONE: return json_is_number(v) && json_number_value(v) == 1;
    case NEUTRAL_EMPTY:
        return (json_is_array(v) && !json_array_size(v)) || (json_is_object(v) && !json_object_size(v));
    case NEUTRAL_CHOICE: return s && (strcmp(s, "none") == 0 || strcmp(s, "auto") == 0);
    case NEUTRAL_TEXT: s = json_string_value(json_object_get(v, "type")); return s && strcmp(s, "text") == 0;
    case NEUTRAL_MODES:
        s = json_array_size(v) == 1 ? json_string_value(json_array_get(v, 0)) : NULL;
        return s && strcmp(s, "text") == 0;
    case NEUTRAL_ANY: return true;
    }
    return false;
}

/* What the rule's field has to be, so that a wrong type is not called unsupported. */
static const char *wrong_type(const char *name, neutral rule, const json_t *v) {
    if (strcmp(name, "user") == 0 && !json_is_string(v)) return "text";
    if (strcmp(name, "parallel_tool_calls") == 0 && !json_is_boolean(v)) return "true or false";
    if (rule == NEUTRAL_ONE && !json_is_number(v)) return "a number";
    if ((rule == NEUTRAL_FALSE || rule == NEUTRAL_TRUE) && !json_is_boolean(v)) return "true or false";
    if (rule == NEUTRAL_TEXT && !json_is_string(json_object_get(v, "type"))) return "an object with \"type\"";
    if (strcmp(name, "mm_processor_kwargs") == 0 && !json_is_object(v)) return "an object";
    if (rule == NEUTRAL_EMPTY && !json_is_array(v) && strcmp(name, "mm_processor_kwargs") != 0)
        return "a list";
    if (rule == NEUTRAL_CHOICE && !json_is_string(v) && !json_is_object(v)) return "text or an object";
    if (rule == NEUTRAL_MODES && !json_is_array(v)) return "a list";
    return NULL;
}

/* The only values that pass, as JSON; NULL: none at all. */
static const char *only_values(const char *name, neutral rule) {
    switch (rule) {
    case NEUTRAL_FALSE: return "false";
    case NEUTRAL_TRUE: return "true";
    case NEUTRAL_ONE: return "1";
    case NEUTRAL_EMPTY: return strcmp(name, "mm_processor_kwargs") == 0 ? "{}" : "[]";
    case NEUTRAL_CHOICE: return "\"none\" or \"auto\"";
    case NEUTRAL_TEXT: return "{\"type\":\"text\"}";
    case NEUTRAL_MODES: return "[\"text\"]";
    case NEUTRAL_NONE:
    case NEUTRAL_ANY: return NULL;
    }
    return NULL;
}

/* A value as a message shows it: JSON when it is short, else what kind it is. */
static void show_value(const json_t *v, char *out, size_t n) {
    const char *type = json_string_value(json_object_get(v, "type"));
    if (json_is_string(v))
        snprintf(out, n, "\"%.*s\"",
                 (int)utf8_whole_prefix(json_string_value(v), strnlen(json_string_value(v), 60)),
                 json_string_value(v));
    else if (json_is_number(v))
        snprintf(out, n, "%.15g", json_number_value(v));
    else if (json_is_array(v))
        snprintf(out, n, "a list of %zu", json_array_size(v));
    else if (type)
        snprintf(out, n, "{\"type\":\"%.*s\"}", (int)utf8_whole_prefix(type, strnlen(type, 60)), type);
    else
        snprintf(out, n, "%s", json_kind_name(v));
}

static bool unbuilt_value(const char *name, neutral rule, const json_t *v, status *st) {
    const char *only = only_values(name, rule);
    char found[80];
    show_value(v, found, sizeof found);
    if (only)
        status_set(st, ST_UNSUPPORTED, "%s: only %s is supported, found %s", name, only, found);
    else
        status_set(st, ST_UNSUPPORTED, "%s is not supported by this server, found %s", name, found);
    return status_param(st, "%s", name);
}

static bool check_unbuilt(const json_t *root, status *st) {
    for (size_t i = 0; i < ARRAY_LEN(unbuilt); i++) {
        const char *name = unbuilt[i].name;
        const json_t *v = field_get(root, name);
        if (!v) continue;
        const char *expected = wrong_type(name, unbuilt[i].rule, v);
        if (expected) return field_wrong(st, v, expected, "%s", name);
        if (is_neutral(unbuilt[i].rule, v)) continue;
        return unbuilt_value(name, unbuilt[i].rule, v, st);
    }
    return true;
}

static const char *const built[] = {
    "model",
    "messages",
    "n",
    "best_of",
    "max_tokens",
    "max_completion_tokens",
    "min_tokens",
    "temperature",
    "top_p",
    "top_k",
    "min_p",
    "seed",
    "stop",
    "stop_token_ids",
    "ignore_eos",
    "repetition_penalty",
    "presence_penalty",
    "logit_bias",
    "logprobs",
    "frequency_penalty",
    "top_logprobs",
    "return_token_ids",
    "cache_salt",
    "priority",
    "stream",
    "stream_options",
    "chat_template_kwargs",
    "add_generation_prompt",
};

static void report_unknown(const json_t *root, const chat_context *ctx) {
    if (!ctx->unknown) return;
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)root, key, value) {
        bool known = false;
        for (size_t i = 0; i < ARRAY_LEN(built) && !known; i++) known = strcmp(key, built[i]) == 0;
        for (size_t i = 0; i < ARRAY_LEN(unbuilt) && !known; i++) known = strcmp(key, unbuilt[i].name) == 0;
        if (!known) ctx->unknown(ctx->arg, key);
    }
}

/* ---- lists
 * --------------------------------------------------------------------------------------------------- */

static bool no_memory(status *st) {
    return status_set(st, ST_NO_MEMORY, "no memory for the request");
}

static bool parse_stop(chat_request *r, status *st) {
    const json_t *v = field_get(r->root, "stop");
    if (!v) return true;
    size_t n = json_is_array(v) ? json_array_size(v) : 1, bytes = 0;
    if (!json_is_array(v) && !json_is_string(v)) return field_wrong(st, v, "text or a list of texts", "stop");
    if (n > CHAT_MAX_STOPS) {
        status_set(st, ST_INVALID, "stop: at most %d strings, found %zu", CHAT_MAX_STOPS, n);
        return status_param(st, "stop");
    }
    r->stops = mem_calloc(n, sizeof *r->stops);
    if (!r->stops) return no_memory(st);
    for (size_t i = 0; i < n; i++) {
        const json_t *s = json_is_array(v) ? json_array_get(v, i) : v;
        if (!json_is_string(s)) return field_wrong(st, s, "text", "stop[%zu]", i);
        if (!json_string_length(s)) {
            status_set(st, ST_INVALID, "stop: a stop string must not be empty");
            return status_param(st, "stop");
        }
        bytes += json_string_length(s);
        r->stops[i] = json_string_value(s);
    }
    if (bytes > CHAT_MAX_STOP_BYTES) {
        status_set(st, ST_INVALID, "stop: at most %d bytes together, found %zu", CHAT_MAX_STOP_BYTES, bytes);
        return status_param(st, "stop");
    }
    r->params.stop = r->stops;
    r->params.n_stop = (int)n;
    return true;
}

static bool parse_stop_ids(chat_request *r, int vocab, status *st) {
    const json_t *v = field_get(r->root, "stop_token_ids");
    if (!v) return true;
    if (!json_is_array(v)) return field_wrong(st, v, "a list of token ids", "stop_token_ids");
    size_t n = json_array_size(v);
    if (n > CHAT_MAX_STOP_IDS) {
        status_set(st, ST_INVALID, "stop_token_ids: at most %d, found %zu", CHAT_MAX_STOP_IDS, n);
        return status_param(st, "stop_token_ids");
    }
    r->stop_ids = mem_calloc(n, sizeof *r->stop_ids);
    if (!r->stop_ids) return no_memory(st);
    for (size_t i = 0; i < n; i++) {
        int64_t id;
        const json_t *item = json_array_get(v, i);
        if (!json_whole(item, &id)) return field_wrong(st, item, "a token id", "stop_token_ids[%zu]", i);
        if (id < 0 || id >= vocab) {
            status_set(st, ST_INVALID,
                       "stop_token_ids[%zu]: the vocabulary holds ids from 0 to %d, found %lld", i, vocab - 1,
                       (long long)id);
            return status_param(st, "stop_token_ids");
        }
        r->stop_ids[i] = (int32_t)id;
    }
    r->params.stop_ids = r->stop_ids;
    r->params.n_stop_ids = (int)n;
    return true;
}

static bool parse_bias(chat_request *r, int vocab, status *st) {
    const json_t *v = field_get(r->root, "logit_bias");
    if (!v) return true;
    if (!json_is_object(v)) return field_wrong(st, v, "an object of token ids and numbers", "logit_bias");
    size_t n = json_object_size(v), i = 0;
    if (n > (size_t)vocab) {
        status_set(st, ST_INVALID, "logit_bias: more entries (%zu) than the vocabulary has (%d)", n, vocab);
        return status_param(st, "logit_bias");
    }
    r->bias_ids = mem_calloc(n, sizeof *r->bias_ids);
    r->bias = mem_calloc(n, sizeof *r->bias);
    if (!r->bias_ids || !r->bias) return no_memory(st);
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)v, key, value) {
        char *end;
        errno = 0;
        long id = key[0] >= '0' && key[0] <= '9' ? strtol(key, &end, 10) : -1;
        if (id < 0 || *end || errno || id >= vocab) {
            status_set(st, ST_INVALID, "logit_bias: expected token ids from 0 to %d, found \"%.40s\"",
                       vocab - 1, key);
            return status_param(st, "logit_bias");
        }
        double b = json_number_value(value);
        if (!json_is_number(value)) return field_wrong(st, value, "a number", "logit_bias.%s", key);
        if (!(b >= -100 && b <= 100)) {
            status_set(st, ST_INVALID, "logit_bias.%s must be from -100 to 100, found %.9g", key, b);
            return status_param(st, "logit_bias");
        }
        r->bias_ids[i] = (int32_t)id;
        r->bias[i++] = (float)b;
    }
    r->params.bias_ids = r->bias_ids;
    r->params.bias = r->bias;
    r->params.n_bias = (int)n;
    return true;
}

/* ---- single fields
 * -------------------------------------------------------------------------------------------- */

/* best_of asks for more answers than are returned, unless it is n. */
static bool parse_choices(chat_request *r, status *st) {
    int64_t n = 1;
    if (!field_int(r->root, "n", 1, ENGINE_MAX_CHOICES, &n, st)) return false;
    int64_t best = n;
    if (!field_int(r->root, "best_of", 1, INT_MAX, &best, st)) return false;
    r->params.n = (int)n;
    if (best == n) return true;
    status_set(st, ST_UNSUPPORTED, "best_of: only the value of n, %d, is supported, found %d", (int)n,
               (int)best);
    return status_param(st, "best_of");
}

static bool parse_lengths(chat_request *r, status *st) {
    const json_t *root = r->root;
    int64_t max = 0, min = r->params.min_tokens;
    if (!field_int(root, "max_tokens", 1, INT_MAX, &max, st) ||
        !field_int(root, "max_completion_tokens", 1, INT_MAX, &max, st) ||
        !field_int(root, "min_tokens", 0, INT_MAX, &min, st))
        return false;
    if (max) {
        r->max_tokens_name =
            field_get(root, "max_completion_tokens") ? "max_completion_tokens" : "max_tokens";
        r->params.max_tokens = (int)max;
        if (min > max) {
            status_set(st, ST_INVALID, "min_tokens (%lld) is more than %s (%lld)", (long long)min,
                       r->max_tokens_name, (long long)max);
            return status_param(st, "min_tokens");
        }
    }
    r->params.min_tokens = (int)min;
    return true;
}

static bool parse_real(const json_t *root, const char *name, double lo, double hi, float *out, status *st) {
    double v = *out;
    if (!field_real(root, name, lo, hi, &v, st)) return false;
    *out = (float)v;
    return true;
}

static bool parse_sampling(chat_request *r, status *st) {
    const json_t *root = r->root;
    engine_params *p = &r->params;
    int64_t top_k = p->top_k, seed = 0;
    if (!parse_real(root, "temperature", 0, 2, &p->temperature, st) ||
        !parse_real(root, "top_p", 0, 1, &p->top_p, st) || !parse_real(root, "min_p", 0, 1, &p->min_p, st) ||
        !parse_real(root, "presence_penalty", -2, 2, &p->presence_penalty, st) ||
        !parse_real(root, "frequency_penalty", -2, 2, &p->frequency_penalty, st) ||
        !parse_real(root, "repetition_penalty", 0, 100, &p->repetition_penalty, st) ||
        !field_int(root, "top_k", -1, INT64_MAX, &top_k, st) ||
        !field_int(root, "seed", INT64_MIN, INT64_MAX, &seed, st) ||
        !field_bool(root, "ignore_eos", &p->ignore_eos, st))
        return false;
    static const char *const positive[] = {"top_p", "repetition_penalty"};
    const float values[] = {p->top_p, p->repetition_penalty};
    for (size_t i = 0; i < ARRAY_LEN(positive); i++)
        if (field_get(root, positive[i]) && !(values[i] >= FLT_MIN)) {
            status_set(st, ST_INVALID, "%s must be more than 0", positive[i]);
            return status_param(st, "%s", positive[i]);
        }
    p->top_k = top_k < 0 ? 0 : top_k > INT_MAX ? INT_MAX : (int)top_k;
    if (field_get(root, "seed")) {
        p->has_seed = true;
        p->seed = (uint64_t)seed;
    }
    return true;
}

static bool parse_logprobs(chat_request *r, status *st) {
    int64_t top = -1;
    if (!field_bool(r->root, "logprobs", &r->logprobs, st) ||
        !field_int(r->root, "top_logprobs", 0, 20, &top, st))
        return false;
    if (top > 0 && !r->logprobs) {
        status_set(st, ST_INVALID, "top_logprobs needs logprobs to be true");
        return status_param(st, "top_logprobs");
    }
    r->params.top_logprobs = !r->logprobs ? -1 : top < 0 ? 0 : (int)top;
    return true;
}

static bool parse_stream(chat_request *r, status *st) {
    const json_t *o = field_get(r->root, "stream_options");
    if (!field_bool(r->root, "stream", &r->stream, st)) return false;
    if (!o) return true;
    if (!json_is_object(o)) return field_wrong(st, o, "an object", "stream_options");
    if (!r->stream) {
        status_set(st, ST_INVALID, "stream_options needs stream to be true");
        return status_param(st, "stream_options");
    }
    bool each = false;
    if (!field_bool(o, "include_usage", &r->include_usage, st) ||
        !field_bool(o, "continuous_usage_stats", &each, st)) {
        char name[sizeof st->param];
        memcpy(name, st->param, sizeof name);
        st->param[0] = 0;
        return status_param(st, "stream_options.%.48s", name);
    }
    if (each) {
        status_set(st, ST_UNSUPPORTED,
                   "stream_options.continuous_usage_stats is not supported by this server");
        return status_param(st, "stream_options.continuous_usage_stats");
    }
    return true;
}

static bool parse_template(chat_request *r, status *st) {
    const json_t *kw = field_get(r->root, "chat_template_kwargs");
    bool generate = true;
    if (kw && !json_is_object(kw)) return field_wrong(st, kw, "an object", "chat_template_kwargs");
    if (!field_bool(r->root, "add_generation_prompt", &generate, st)) return false;
    r->chat.template_kwargs = kw;
    r->chat.no_generation_prompt = !generate;
    return true;
}

/* Longer than any name of a tenant; a zero byte would make two of them one. */
static bool parse_cache_salt(chat_request *r, status *st) {
    const json_t *v = field_get(r->root, "cache_salt");
    if (!field_string(r->root, "cache_salt", &r->params.cache_salt, st)) return false;
    if (!v || (json_string_length(v) <= 1024 && !memchr(json_string_value(v), 0, json_string_length(v))))
        return true;
    status_set(st, ST_INVALID, "cache_salt: expected at most 1024 bytes of text without U+0000, found %zu",
               json_string_length(v));
    return status_param(st, "cache_salt");
}

static bool parse_priority(chat_request *r, status *st) {
    int64_t priority = r->params.priority;
    if (!field_int(r->root, "priority", INT_MIN, INT_MAX, &priority, st)) return false;
    r->params.priority = (int)priority;
    return true;
}

bool chat_request_text_fits(const body_scan *scan, int max_model_len, status *st) {
    size_t most = (size_t)max_model_len * CHAT_TOKEN_BYTES;
    if (most < CHAT_MIN_TEXT_BYTES) most = CHAT_MIN_TEXT_BYTES;
    if (scan->n_json <= most) return true;
    return status_set(
        st, ST_INVALID,
        "the request has %zu bytes of JSON besides its pictures; expected at most %zu for a model "
        "that takes %d tokens",
        scan->n_json, most, max_model_len);
}

bool chat_request_parse(chat_request *r, char *body, size_t n, const chat_context *ctx, status *st) {
    *r = (chat_request){.params = ctx->defaults};
    if (!body_scan_run(&r->scan, body, n, st) || !chat_request_text_fits(&r->scan, ctx->max_model_len, st))
        return false;
    r->root = body_parse(r->scan.json, r->scan.n_json, r->scan.n_spans == 0, st);
    if (!r->root) return false;
    report_unknown(r->root, ctx);
    return field_string(r->root, "model", &r->model, st) && chat_request_messages(r, st) &&
           check_unbuilt(r->root, st) && parse_choices(r, st) && parse_lengths(r, st) &&
           parse_sampling(r, st) && parse_stop(r, st) && parse_stop_ids(r, ctx->vocab_size, st) &&
           parse_bias(r, ctx->vocab_size, st) && parse_logprobs(r, st) &&
           field_bool(r->root, "return_token_ids", &r->return_token_ids, st) && parse_cache_salt(r, st) &&
           parse_priority(r, st) && parse_stream(r, st) && parse_template(r, st);
}

void chat_request_fini(chat_request *r) {
    json_decref(r->root);
    json_decref(r->kept);
    body_scan_fini(&r->scan);
    mem_free(r->images);
    mem_free(r->image_params);
    mem_free(r->stops);
    mem_free(r->stop_ids);
    mem_free(r->bias_ids);
    mem_free(r->bias);
    *r = (chat_request){0};
}
