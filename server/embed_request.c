/* embed_request.c - see embed_request.h. One thread; the request owns what is made here. */
#include "server/embed_request.h"

#include <limits.h>
#include <stdio.h>
#include <string.h>

#include "server/fields.h"
#include "server/image_url.h"

static bool no_memory(status *st) {
    return status_set(st, ST_NO_MEMORY, "no memory for the request");
}

static void report_unknown(const json_t *root, const char *const *known, size_t n, const embed_context *ctx) {
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)(uintptr_t)root, key, value) {
        bool found = false;
        for (size_t i = 0; i < n && !found; i++) found = strcmp(key, known[i]) == 0;
        if (!found && ctx->unknown) ctx->unknown(ctx->arg, key);
    }
}

/* Fields that vlmd has not built, with the one value that asks for nothing. */
static bool only(const json_t *root, const char *name, const json_t *value, const char *shown, status *st) {
    const json_t *v = field_get(root, name);
    if (!v || json_equal((json_t *)(uintptr_t)v, (json_t *)(uintptr_t)value)) return true;
    status_set(st, ST_UNSUPPORTED, "%s: only %s is supported", name, shown);
    return status_param(st, "%s", name);
}

/* Room for n inputs; their names and pictures stand still from here on. */
static bool make_room(embed_request *r, size_t n, size_t n_ids, const char *name, status *st) {
    if (n > EMBED_MAX_INPUTS) {
        status_set(st, ST_TOO_LARGE, "%s: at most %d in a request, found %zu", name, EMBED_MAX_INPUTS, n);
        return status_param(st, "%s", name);
    }
    r->in = mem_calloc(n, sizeof *r->in);
    r->images = mem_calloc(n, sizeof *r->images);
    r->params = mem_calloc(n, sizeof *r->params);
    r->ids = mem_calloc(n_ids, sizeof *r->ids);
    r->cap = (int)n;
    return (r->in && r->images && r->params && r->ids) || no_memory(st);
}

/* The next input under the name of param, which is copied. */
static engine_embed_input *next_input(embed_request *r, const char *param) {
    CHECK(r->n < r->cap);
    snprintf(r->params[r->n], sizeof r->params[r->n], "%s", param);
    r->in[r->n].param = r->params[r->n];
    return &r->in[r->n++];
}

static bool add_text(embed_request *r, const json_t *v, const char *param, status *st) {
    if (!json_is_string(v)) return field_wrong(st, v, "text", "%s", param);
    engine_embed_input *in = next_input(r, param);
    in->text = json_string_value(v);
    in->n_text = json_string_length(v);
    return true;
}

static bool add_ids(embed_request *r, const json_t *list, const embed_context *ctx, const char *param,
                    status *st) {
    engine_embed_input *in = next_input(r, param);
    in->ids = r->ids + r->n_ids;
    in->n_ids = json_array_size(list);
    for (size_t i = 0; i < in->n_ids; i++) {
        int64_t id;
        const json_t *v = json_array_get(list, i);
        if (!json_whole(v, &id)) return field_wrong(st, v, "a token id", "%.40s[%zu]", param, i);
        if (id < 0 || id >= ctx->vocab_size) {
            status_set(st, ST_INVALID, "%s[%zu]: the vocabulary holds ids from 0 to %d, found %lld", param, i,
                       ctx->vocab_size - 1, (long long)id);
            return status_param(st, "%.40s[%zu]", param, i);
        }
        r->ids[r->n_ids++] = (int32_t)id;
    }
    return true;
}

static bool add_image(embed_request *r, const json_t *v, const char *param, status *st) {
    char full[64];
    bool lifted;
    const json_t *url = image_url_of(v, param, full, st);
    engine_image *im = &r->images[r->n];
    if (!url || !image_url_find(&r->scan, url, full, &im->b64, &im->n, &lifted, st)) return false;
    engine_embed_input *in = next_input(r, full);
    im->param = in->param;
    in->image = im;
    return true;
}

static bool add_part(embed_request *r, const json_t *part, const char *path, status *st) {
    char param[64];
    const json_t *type = field_get(part, "type");
    if (!json_is_string(type)) return field_wrong(st, type, "\"text\" or \"image_url\"", "%s.type", path);
    const char *name = json_string_value(type);
    bool text = strcmp(name, "text") == 0;
    if (!text && strcmp(name, "image_url") != 0) {
        status_set(st, ST_UNSUPPORTED,
                   "%s.type: \"%.40s\" is not supported; parts are \"text\" and \"image_url\"", path, name);
        return status_param(st, "%s.type", path);
    }
    snprintf(param, sizeof param, "%.50s.%s", path, name);
    return text ? add_text(r, field_get(part, "text"), param, st)
                : add_image(r, field_get(part, "image_url"), param, st);
}

/* A message's content, or an input's. */
static bool add_content(embed_request *r, const json_t *v, const char *path, status *st) {
    char param[64];
    if (json_is_string(v)) return add_text(r, v, path, st);
    if (!json_is_array(v)) return field_wrong(st, v, "text or a list of one part", "%s", path);
    if (json_array_size(v) != 1) {
        status_set(
            st, ST_INVALID,
            "%s: one input is one text or one picture, found a list of %zu parts; give each an item of "
            "\"input\"",
            path, json_array_size(v));
        return status_param(st, "%s", path);
    }
    snprintf(param, sizeof param, "%.50s[0]", path);
    const json_t *part = json_array_get(v, 0);
    if (!json_is_object(part)) return field_wrong(st, part, "an object with \"type\"", "%s", param);
    return add_part(r, part, param, st);
}

static bool add_item(embed_request *r, const json_t *v, const embed_context *ctx, const char *path,
                     status *st) {
    char param[64];
    if (json_is_string(v)) return add_text(r, v, path, st);
    if (json_is_array(v)) return add_ids(r, v, ctx, path, st);
    if (!json_is_object(v)) return field_wrong(st, v, "text, a list of token ids or an object", "%s", path);
    if (field_get(v, "type")) return add_part(r, v, path, st);
    static const char *const keys[] = {"content", "text", "image", "image_url"};
    for (size_t i = 0; i < ARRAY_LEN(keys); i++) {
        const json_t *inner = field_get(v, keys[i]);
        if (!inner) continue;
        snprintf(param, sizeof param, "%.50s.%s", path, keys[i]);
        return i == 0   ? add_content(r, inner, param, st)
               : i == 1 ? add_text(r, inner, param, st)
                        : add_image(r, inner, param, st);
    }
    status_set(st, ST_INVALID, "%s: expected an object with \"type\", \"content\", \"text\" or \"image\"",
               path);
    return status_param(st, "%s", path);
}

/* Every number of the tree below: as many ids there can be. */
static size_t count_ids(const json_t *list) {
    size_t n = 0, i;
    const json_t *v;
    json_array_foreach(list, i, v) n += json_is_array(v) ? json_array_size(v) : 1;
    return n;
}

static bool parse_input(embed_request *r, const embed_context *ctx, status *st) {
    const json_t *v = field_get(r->root, "input"), *first = json_array_get(v, 0);
    if (!v) return field_wrong(st, v, "text, a list of texts, token ids or pictures", "input");
    bool one = !json_is_array(v) || json_is_number(first);
    size_t n = one ? 1 : json_array_size(v);
    if (n == 0) {
        status_set(st, ST_INVALID, "input: the list is empty, expected at least one input");
        return status_param(st, "input");
    }
    if (!make_room(r, n, count_ids(v), "input", st)) return false;
    if (one) return add_item(r, v, ctx, "input", st);
    for (size_t i = 0; i < n; i++) {
        char path[32];
        snprintf(path, sizeof path, "input[%zu]", i);
        if (!add_item(r, json_array_get(v, i), ctx, path, st)) return false;
    }
    return true;
}

static bool parse_messages(embed_request *r, const json_t *v, status *st) {
    if (!json_is_array(v)) return field_wrong(st, v, "a list of one message", "messages");
    if (field_get(r->root, "input")) {
        status_set(st, ST_INVALID, "either \"input\" or \"messages\", not both");
        return status_param(st, "messages");
    }
    if (json_array_size(v) != 1) {
        status_set(st, ST_INVALID,
                   "messages: a message is one input; expected 1, found %zu (\"input\" takes a list)",
                   json_array_size(v));
        return status_param(st, "messages");
    }
    const json_t *m = json_array_get(v, 0), *content = field_get(m, "content");
    if (!json_is_object(m)) return field_wrong(st, m, "an object with role and content", "messages[0]");
    return make_room(r, 1, 0, "messages", st) && add_content(r, content, "messages[0].content", st);
}

/* truncate_prompt_tokens is vLLM's: -1 means as many as the model takes. */
static bool parse_options(embed_request *r, const embed_context *ctx, status *st) {
    const json_t *root = r->root;
    const char *format = "float", *user = NULL;
    int64_t dims = ctx->width, cut = 0, priority = 0;
    bool normalize = true;
    if (!field_string(root, "encoding_format", &format, st) || !field_string(root, "user", &user, st) ||
        !field_bool(root, "normalize", &normalize, st) || !field_bool(root, "truncate", &r->o.truncate, st) ||
        !field_int(root, "priority", INT_MIN, INT_MAX, &priority, st) ||
        !field_int(root, "dimensions", 1, INT_MAX, &dims, st) ||
        !field_int(root, "truncate_prompt_tokens", -1, INT_MAX, &cut, st) ||
        !only(root, "add_special_tokens", json_true(), "true", st))
        return false;
    r->base64 = strcmp(format, "base64") == 0;
    if (!r->base64 && strcmp(format, "float") != 0) {
        status_set(st, ST_INVALID, "encoding_format: expected float or base64, found \"%.40s\"", format);
        return status_param(st, "encoding_format");
    }
    if (dims != ctx->width) {
        status_set(st, ST_UNSUPPORTED,
                   "dimensions: this model's vectors have %d numbers and cannot be shortened, found %lld",
                   ctx->width, (long long)dims);
        return status_param(st, "dimensions");
    }
    if (field_get(root, "truncate_prompt_tokens") && cut != -1) {
        status_set(st, ST_UNSUPPORTED,
                   "truncate_prompt_tokens: only -1 (what the model takes) is supported, found %lld",
                   (long long)cut);
        return status_param(st, "truncate_prompt_tokens");
    }
    r->o.truncate = r->o.truncate || cut == -1;
    r->o.raw = !normalize;
    r->o.priority = (int)priority;
    return true;
}

static bool parse_body(embed_request *r, char *body, size_t n, status *st) {
    *r = (embed_request){0};
    if (!body_scan_run(&r->scan, body, n, st)) return false;
    if (r->scan.n_json > EMBED_MAX_TEXT_BYTES)
        return status_set(st, ST_TOO_LARGE,
                          "the request has %zu bytes of JSON besides its pictures; expected at most %d",
                          r->scan.n_json, EMBED_MAX_TEXT_BYTES);
    r->root = body_parse(r->scan.json, r->scan.n_json, r->scan.n_spans == 0, st);
    return r->root && field_string(r->root, "model", &r->model, st);
}

bool embed_request_parse(embed_request *r, char *body, size_t n, const embed_context *ctx, status *st) {
    static const char *const known[] = {"model",      "input",      "messages",
                                        "user",       "truncate",   "encoding_format",
                                        "dimensions", "priority",   "truncate_prompt_tokens",
                                        "normalize",  "request_id", "add_special_tokens"};
    if (!parse_body(r, body, n, st)) return false;
    report_unknown(r->root, known, ARRAY_LEN(known), ctx);
    const json_t *messages = field_get(r->root, "messages");
    return (messages ? parse_messages(r, messages, st) : parse_input(r, ctx, st)) &&
           parse_options(r, ctx, st);
}

/* ---- zero-shot ---- */

static bool find_place(const char *template, const char **place, status *st) {
    *place = strstr(template, "{}");
    if (*place && !strstr(*place + 2, "{}")) return true;
    status_set(st, ST_INVALID, "template: expected one {} where the label goes, found %s",
               *place ? "several" : "none");
    return status_param(st, "template");
}

static bool add_labels(embed_request *r, const char *template, const char *place, status *st) {
    size_t n = json_array_size(r->labels), around = strlen(template), bytes = 0;
    for (size_t i = 0; i < n; i++) {
        const json_t *v = json_array_get(r->labels, i);
        if (!json_is_string(v)) return field_wrong(st, v, "text", "labels[%zu]", i);
        bytes += json_string_length(v) + around;
    }
    if (bytes > EMBED_MAX_TEXT_BYTES) {
        status_set(st, ST_TOO_LARGE, "labels: %zu bytes in their template; expected at most %d", bytes,
                   EMBED_MAX_TEXT_BYTES);
        return status_param(st, "labels");
    }
    char *to = r->texts = mem_alloc(bytes + 1);
    if (!to) return no_memory(st);
    for (size_t i = 0; i < n; i++) {
        char param[32];
        snprintf(param, sizeof param, "labels[%zu]", i);
        engine_embed_input *in = next_input(r, param);
        in->text = to;
        in->n_text = (size_t)sprintf(to, "%.*s%s%s", (int)(place - template), template,
                                     json_string_value(json_array_get(r->labels, i)), place + 2);
        to += in->n_text;
    }
    return true;
}

bool zero_shot_request_parse(embed_request *r, char *body, size_t n, const embed_context *ctx, status *st) {
    static const char *const known[] = {"model", "image",    "labels",   "template",
                                        "user",  "truncate", "priority", "request_id"};
    const char *template = "a photo of a {}.", *place = NULL, *user = NULL;
    int64_t priority = 0;
    if (!parse_body(r, body, n, st)) return false;
    report_unknown(r->root, known, ARRAY_LEN(known), ctx);
    const json_t *labels = r->labels = field_get(r->root, "labels"), *picture = field_get(r->root, "image");
    if (!json_is_array(labels)) return field_wrong(st, labels, "a list of texts", "labels");
    if (json_array_size(labels) == 0) {
        status_set(st, ST_INVALID, "labels: the list is empty, expected at least one");
        return status_param(st, "labels");
    }
    if (!field_string(r->root, "template", &template, st) || !find_place(template, &place, st) ||
        !field_string(r->root, "user", &user, st) || !field_bool(r->root, "truncate", &r->o.truncate, st) ||
        !field_int(r->root, "priority", INT_MIN, INT_MAX, &priority, st) ||
        !make_room(r, json_array_size(labels) + 1, 0, "labels", st))
        return false;
    r->o.priority = (int)priority;
    bool part = json_is_object(picture) && field_get(picture, "image_url");
    return add_image(r, part ? field_get(picture, "image_url") : picture, part ? "image.image_url" : "image",
                     st) &&
           add_labels(r, template, place, st);
}

void embed_request_fini(embed_request *r) {
    json_decref(r->root);
    body_scan_fini(&r->scan);
    mem_free(r->in);
    mem_free(r->images);
    mem_free(r->params);
    mem_free(r->ids);
    mem_free(r->texts);
    *r = (embed_request){0};
}
