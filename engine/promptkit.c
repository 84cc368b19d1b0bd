/* promptkit.c - what prompts need of a checkpoint folder: tokenizer, chat template, named tokens. See prompt.h.
 * The loading thread; the kit owns all that it points to but the spec. */
#include <string.h>

#include "engine/embed.h"
#include "engine/families/registry.h"
#include "engine/families/token_classes.h"
#include "engine/tmpl/find.h"
#include "engine/tokfiles.h"

/* A token is a string or an AddedToken's object; NULL when it is neither. */
static const char *token_text(const json_t *j) {
    if (json_is_object(j)) j = json_object_get(j, "content");
    return json_string_value(j);
}

static bool put_token(json_t *vars, const char *name, const char *text) {
    return json_object_set_new(vars, name, json_string(text)) == 0;
}

/* Every "..._token" of a file, and the dictionaries in which newer files keep a model's own. */
static bool take_tokens(json_t *vars, json_t *file) {
    static const char *const groups[] = {"extra_special_tokens", "model_specific_special_tokens"};
    const char *key;
    json_t *value;
    for (size_t g = 0; g < ARRAY_LEN(groups); g++) {
        json_object_foreach(json_object_get(file, groups[g]), key, value) {
            if (token_text(value) && !put_token(vars, key, token_text(value))) return false;
        }
    }
    json_object_foreach(file, key, value) {
        size_t n = strlen(key);
        if (n < 6 || strcmp(key + n - 6, "_token") != 0) continue;
        if (json_is_null(value)) json_object_del(vars, key);
        if (token_text(value) && !put_token(vars, key, token_text(value))) return false;
    }
    return true;
}

static bool take_class_tokens(json_t *vars, const json_t *config) {
    const char *class = json_string_value(json_object_get(config, "tokenizer_class"));
    const class_token *c;
    for (int i = 0; class && (c = class_token_at(i)); i++)
        if (class_token_of(c, class) && !put_token(vars, c->name, c->token)) return false;
    return true;
}

/* As the reference's processor does it: a tokenizer that lacks the token gets it behind its last. */
static bool add_token(json_t *file, const char *token) {
    const json_t *vocab = json_object_get(json_object_get(file, "model"), "vocab"), *e;
    json_int_t next = (json_int_t)(json_is_array(vocab) ? json_array_size(vocab) : json_object_size(vocab));
    json_t *added = json_object_get(file, "added_tokens");
    size_t i;
    if (!json_is_array(added) &&
        (!(added = json_array()) || json_object_set_new(file, "added_tokens", added) != 0))
        return false;
    json_array_foreach(added, i, e) {
        const char *s = json_string_value(json_object_get(e, "content"));
        json_int_t id = json_integer_value(json_object_get(e, "id"));
        if (s && strcmp(s, token) == 0) return true;
        if (id >= next && id < INT32_MAX) next = id + 1;
    }
    if (json_is_integer(json_object_get(vocab, token)))
        next = json_integer_value(json_object_get(vocab, token));
    return json_array_append_new(added, json_pack("{s:I, s:s, s:b, s:b}", "id", next, "content", token,
                                                  "special", 1, "normalized", 0)) == 0;
}

/* config.json, or what stands for it. */
static json_t *model_config(const char *dir, status *st) {
    json_t *config = NULL;
    if (!tokfiles_object(dir, "config.json", true, &config, st) || config) return config;
    const char *type = family_format(dir);
    config = type ? json_pack("{s:s}", "model_type", type) : json_object();
    if (!config) status_set(st, ST_NO_MEMORY, "no memory for the tokenizer");
    return config;
}

static bool load_tokenizer(promptkit *k, const char *dir, const json_t *settings, status *st) {
    bool bare;
    json_t *file = tokfiles_read(dir, &bare, st), *config = file ? model_config(dir, st) : NULL;
    const char *class = config ? token_class_builds(file, config, settings) : NULL;
    bool ok = config != NULL;
    if (ok && bare && !class)
        ok = status_set(
            st, ST_NOT_FOUND,
            "%s: there is no tokenizer.json, and the tokenizer's class is none that builds one from its "
            "vocabulary",
            dir);
    ok = ok && tokfiles_add_tokens(file, dir, settings, class, st);
    if (ok &&
        ((bare && !tokfiles_surround(file, settings, class)) || !token_class_apply(file, config, settings)))
        ok = status_set(st, ST_NO_MEMORY, "no memory for the tokenizer");
    if (ok && k->spec && k->spec->added_token && !add_token(file, k->spec->added_token))
        ok = status_set(st, ST_NO_MEMORY, "no memory for the tokenizer");
    if (ok) k->tok = tok_from_json(file, st);
    if (ok && !k->tok) status_prefix(st, "tokenizer.json");
    json_decref(file);
    json_decref(config);
    return k->tok != NULL;
}

static bool load_names(promptkit *k, json_t *config, status *st) {
    k->template_vars = json_object();
    bool ok = k->template_vars && take_class_tokens(k->template_vars, config) &&
              take_tokens(k->template_vars, config);
    return ok || status_set(st, ST_NO_MEMORY, "no memory for the tokenizer's names");
}

static bool load_template(promptkit *k, const char *dir, const char *own_file, status *st) {
    status own = {0};
    size_t n;
    if (k->spec->reads.what == READS_QUESTION) return true;
    char *src = own_file ? tmpl_file_source(own_file, NULL, &n, &own) : tmpl_find_source(dir, NULL, &n, &own);
    const char *default_src = own_file ? NULL : k->spec->chat_template;
    if (!src && own.code == ST_NOT_FOUND && default_src) {
        k->tmpl = tmpl_parse(default_src, strlen(default_src), st);
        if (k->tmpl) k->forms = tmpl_content_forms(k->tmpl);
        return k->tmpl != NULL;
    }
    if (!src && own.code == ST_NOT_FOUND && !own_file) {
        log_warn("%s brings no chat template: chat requests will be refused without --chat-template", dir);
        return true;
    }
    if (!src) return status_set(st, own.code, "%s", own.msg);
    k->tmpl = tmpl_parse(src, n, st);
    mem_free(src);
    if (!k->tmpl) return status_prefix(st, "the chat template");
    k->forms = tmpl_content_forms(k->tmpl);
    return true;
}

/* An added token that config.json names for pictures; NULL with st set. */
static const char *picture_token(const promptkit *k, int32_t id, status *st) {
    const char *text = tok_id_string(k->tok, id);
    if (text && tok_guard(k->tok, id)) return text;
    status_set(st, ST_INVALID,
               "tokenizer.json: expected an added token with id %d, config.json's placeholder of a picture; "
               "found %s",
               (int)id, text ? "a word of the vocabulary" : "none");
    return NULL;
}

static bool load_placeholder(promptkit *k, status *st) {
    const model_spec *s = k->spec;
    k->image_token = s->added_token ? tok_find(k->tok, s->added_token) : s->image_token;
    if (s->no_place) {
        const char *begin = tok_id_string(k->tok, s->open_id);
        k->placeholder = s->placeholder;
        return (begin && tok_guard(k->tok, s->open_id)) ||
               status_set(
                   st, ST_INVALID,
                   "tokenizer.json: expected an added token with id %d, which a prompt begins with; found %s",
                   (int)s->open_id, begin ? "a word of the vocabulary" : "none");
    }
    if (s->fuse == FUSE_NONE || k->image_token < 0) return true;
    const char *row = picture_token(k, k->image_token, st),
               *placeholder = s->placeholder ? s->placeholder : row;
    if (row && s->placeholder_id > 0) placeholder = picture_token(k, s->placeholder_id, st);
    if (!row || !placeholder) return false;
    if (s->bos_behind_pictures && !json_is_string(json_object_get(k->template_vars, "bos_token")))
        return status_set(st, ST_INVALID,
                          "tokenizer_config.json: expected a bos_token, which follows the pictures");
    k->row_token = mem_strdup(row);
    if (!s->pictures_in_front)
        k->placeholder =
            placeholder == row ? k->row_token : placeholder; /* the tokenizer's or the spec's own */
    return k->row_token || status_set(st, ST_NO_MEMORY, "no memory for the prompt's parts");
}

static bool load_reads(promptkit *k, const char *dir, status *st) {
    const reads_spec *r = &k->spec->reads;
    buf path = {0};
    if (r->what == READS_NOTHING) return true;
    k->read_tok = k->tok;
    if (!r->tokenizer) return true;
    bool ok = buf_printf(&path, "%s/%s", dir, r->tokenizer) ||
              status_set(st, ST_NO_MEMORY, "no memory for %s", r->tokenizer);
    if (ok) ok = (k->read_tok = promptkit_tok(path.data, st)) || status_prefix(st, "%s", r->tokenizer);
    buf_fini(&path);
    return ok;
}

bool promptkit_load(promptkit *k, const char *model_dir, const char *template_file, const model_spec *spec,
                    int max_model_len, const image_limits *limits, status *st) {
    *k = (promptkit){.spec = spec, .max_model_len = max_model_len, .limits = *limits};
    json_t *config = tokfiles_config(model_dir, st);
    bool ok = config && load_tokenizer(k, model_dir, config, st) && load_names(k, config, st) &&
              (spec->dual.on ? embed_rules_read(k, config, st)
                             : load_placeholder(k, st) && load_template(k, model_dir, template_file, st) &&
                                   load_reads(k, model_dir, st));
    json_decref(config);
    if (ok) return true;
    promptkit_fini(k);
    return false;
}

void promptkit_fini(promptkit *k) {
    tmpl_free(k->tmpl);
    if (k->read_tok != k->tok) tok_free(k->read_tok);
    tok_free(k->tok);
    json_decref(k->template_vars);
    mem_free(k->row_token);
    *k = (promptkit){0};
}

tok *promptkit_tok(const char *dir, status *st) {
    promptkit k = {0};
    json_t *config = tokfiles_config(dir, st);
    if (config) load_tokenizer(&k, dir, config, st);
    json_decref(config);
    return k.tok;
}
