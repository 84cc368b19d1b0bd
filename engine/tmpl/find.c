/* find.c - see find.h. Any thread; the caller owns what is returned.
 * Source: transformers' PreTrainedTokenizerBase, ProcessorMixin and render_jinja_template. */
#include "engine/tmpl/find.h"

#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "kernels/json.h"

#define MAX_FILE_BYTES ((size_t)64 << 20)

/* A whole file; NULL with *missing set when there is none. */
static char *read_file(const char *path, size_t *n, bool *missing, status *st) {
    *missing = false;
    buf b = {0};
    status own = {0};
    if (buf_read_file(&b, path, MAX_FILE_BYTES, &own)) {
        *n = b.len;
        return b.data;
    }
    *missing = own.code == ST_NOT_FOUND;
    if (!*missing) status_set(st, own.code, "%s: %s", path, own.msg);
    buf_fini(&b);
    return NULL;
}

/* jansson refuses integers beyond 64 bits, which tokenizer configs hold (model_max_length): such a number
 * gets
 * ".0" and is read as a real. Works on text outside of strings only. */
static bool widen_integers(const char *s, size_t n, buf *out) {
    bool in_string = false;
    for (size_t i = 0; i < n;) {
        char c = s[i];
        if (in_string || !((c >= '0' && c <= '9') || c == '-')) {
            size_t k = in_string && c == '\\' && i + 1 < n ? 2 : 1;
            if (c == '"') in_string = !in_string;
            if (!buf_append(out, s + i, k)) return false;
            i += k;
            continue;
        }
        size_t b = i;
        bool integer = true;
        while (i < n && (strchr("+-.eE", s[i]) || (s[i] >= '0' && s[i] <= '9')) && s[i]) {
            integer &= s[i] != '.' && s[i] != 'e' && s[i] != 'E';
            i++;
        }
        if (!buf_append(out, s + b, i - b)) return false;
        if (integer && i - b > 18 && !buf_puts(out, ".0")) return false;
    }
    return true;
}

static json_t *parse_json(const char *path, const char *s, size_t n, status *st) {
    buf wide = {0};
    json_error_t err;
    if (!widen_integers(s, n, &wide)) {
        buf_fini(&wide);
        status_set(st, ST_NO_MEMORY, "no memory to read %s", path);
        return NULL;
    }
    json_t *j = json_parse(wide.data ? wide.data : "", wide.len, JSON_ALLOW_NUL | JSON_DECODE_ANY, &err);
    buf_fini(&wide);
    if (!j)
        status_set(st, json_no_memory(&err) ? ST_NO_MEMORY : ST_INVALID, "%s is not JSON: line %d: %s", path,
                   err.line, err.text);
    else if (!json_is_object(j)) {
        status_set(st, ST_INVALID, "%s: expected a JSON object", path);
        json_decref(j);
        return NULL;
    }
    return j;
}

static const json_t *named_template(const json_t *t, const char *name) {
    if (json_is_string(t)) return strcmp(name, "default") == 0 ? t : NULL;
    if (json_is_object(t)) return json_object_get(t, name);
    for (size_t i = 0; i < json_array_size(t); i++) {
        const json_t *x = json_array_get(t, i), *own = json_object_get(x, "name");
        if (json_is_string(own) && strcmp(json_string_value(own), name) == 0)
            return json_object_get(x, "template");
    }
    return NULL;
}

/* chat_template of a JSON file. NULL without an error: the file has none. */
static char *from_json_file(const char *path, const char *name, size_t *n, bool *missing, status *st) {
    size_t len;
    char *text = read_file(path, &len, missing, st), *out = NULL;
    if (!text) return NULL;
    json_t *j = parse_json(path, text, len, st);
    mem_free(text);
    if (!j) return NULL;
    const json_t *all = json_object_get(j, "chat_template"), *t = NULL;
    if (!all || json_is_null(all))
        *missing = true;
    else {
        if (name) t = named_template(all, name);
        if (!t) t = named_template(all, "default");
        if (!json_is_string(t)) {
            status_set(st, ST_INVALID,
                       "%s: chat_template: expected a string, or a list with a template named \"default\"",
                       path);
        } else {
            *n = json_string_length(t);
            out = mem_strndup(json_string_value(t), *n);
            if (!out) status_set(st, ST_NO_MEMORY, "no memory for the chat template of %s", path);
        }
    }
    json_decref(j);
    return out;
}

static char *join_path(const char *dir, const char *file, status *st) {
    buf b = {0};
    buf_puts(&b, dir);
    buf_puts(&b, "/");
    buf_puts(&b, file);
    if (!b.failed) return b.data;
    buf_fini(&b);
    status_set(st, ST_NO_MEMORY, "no memory for a path");
    return NULL;
}

static char *from_dir_file(const char *dir, const char *file, bool json, const char *name, size_t *n,
                           bool *missing, status *st) {
    *missing = false;
    char *path = join_path(dir, file, st);
    if (!path) return NULL;
    char *text = json ? from_json_file(path, name, n, missing, st) : read_file(path, n, missing, st);
    mem_free(path);
    return text;
}

/* A model that takes pictures is read by a processor, which looks for templates in another order than a tokenizer. */
static bool has_processor(const char *dir, status *st) {
    static const char *const files[] = {"processor_config.json", "preprocessor_config.json"};
    bool is = false;
    for (size_t i = 0; i < ARRAY_LEN(files) && !is; i++) {
        char *path = join_path(dir, files[i], st);
        struct stat sb;
        is = path && stat(path, &sb) == 0;
        mem_free(path);
    }
    return is;
}

char *tmpl_find_source(const char *dir, const char *name, size_t *n, status *st) {
    static const char *const by_processor[] = {"processor_config.json", "chat_template.json",
                                               "chat_template.jinja", "tokenizer_config.json"},
                             *const by_tokenizer[] = {"chat_template.jinja", "tokenizer_config.json",
                                                      "chat_template.json", NULL};
    bool missing;
    char *t;
    if (name && strcmp(name, "default") != 0 && !strchr(name, '/')) {
        char file[200];
        snprintf(file, sizeof file, "additional_chat_templates/%.100s.jinja", name);
        t = from_dir_file(dir, file, false, NULL, n, &missing, st);
        if (t || !missing) return t;
    }
    const char *const *files = has_processor(dir, st) ? by_processor : by_tokenizer;
    for (int i = 0; i < 4 && files[i]; i++) {
        bool json = strcmp(files[i], "chat_template.jinja") != 0;
        t = from_dir_file(dir, files[i], json, name, n, &missing, st);
        if (t || !missing) return t;
    }
    status_set(
        st, ST_NOT_FOUND,
        "%s has no chat template (looked for chat_template.jinja, chat_template.json and chat_template in "
        "tokenizer_config.json)",
        dir);
    return NULL;
}

char *tmpl_file_source(const char *path, const char *name, size_t *n, status *st) {
    bool missing;
    size_t k = strlen(path);
    bool json = k > 5 && strcmp(path + k - 5, ".json") == 0;
    char *t = json ? from_json_file(path, name, n, &missing, st) : read_file(path, n, &missing, st);
    if (!t && missing)
        status_set(st, ST_NOT_FOUND, json ? "%s: no file, or no chat_template in it" : "%s: no such file",
                   path);
    return t;
}

/* ---- variables ---- */

static bool set_default(json_t *vars, const char *name, json_t *fresh) {
    if (!json_object_get(vars, name)) return json_object_set_new(vars, name, fresh) == 0;
    json_decref(fresh);
    return true;
}

/* {"thinking": reasoning, **message, "reasoning_content": reasoning} */
static json_t *with_reasoning(json_t *message) {
    static const char *const fields[] = {"reasoning_content", "thinking", "reasoning"};
    json_t *reasoning = NULL;
    for (size_t i = 0; i < ARRAY_LEN(fields) && !reasoning; i++) {
        json_t *x = json_object_get(message, fields[i]);
        if (x && !json_is_null(x)) reasoning = x;
    }
    if (!reasoning) return json_incref(message);
    json_t *m = json_object();
    if (m && json_object_set(m, "thinking", reasoning) == 0 && json_object_update(m, message) == 0 &&
        json_object_set(m, "reasoning_content", reasoning) == 0)
        return m;
    json_decref(m);
    return NULL;
}

bool tmpl_complete_vars(json_t *vars, status *st) {
    bool ok = set_default(vars, "tools", json_null()) && set_default(vars, "documents", json_null()) &&
              set_default(vars, "add_generation_prompt", json_false());
    json_t *messages = json_object_get(vars, "messages");
    for (size_t i = 0; ok && i < json_array_size(messages); i++) {
        json_t *m = json_array_get(messages, i);
        if (json_is_object(m)) ok = json_array_set_new(messages, i, with_reasoning(m)) == 0;
    }
    return ok || status_set(st, ST_NO_MEMORY, "no memory for the template's variables");
}
