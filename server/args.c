/* args.c - see args.h. One thread; owns the lists and the parsed config until args_fini. */
#include "server/args.h"

#include <ctype.h>
#include <errno.h>
#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "kernels/json.h"

enum { MAX_DEFS = 64, MAX_NAME = 64, MAX_CONFIG = 1 << 20 };

/* ---- nearest name ---------------------------------------------------------------------------------------
 */

/* Levenshtein's distance with one row; both names are cut at MAX_NAME, which is longer than any of ours. */
static int distance(const char *a, const char *b) {
    size_t na = strnlen(a, MAX_NAME), nb = strnlen(b, MAX_NAME);
    int row[MAX_NAME + 1];
    for (size_t j = 0; j <= nb; j++) row[j] = (int)j;
    for (size_t i = 1; i <= na; i++) {
        int diag = row[0];
        row[0] = (int)i;
        for (size_t j = 1; j <= nb; j++) {
            int subst = diag + (tolower((unsigned char)a[i - 1]) != tolower((unsigned char)b[j - 1]));
            diag = row[j];
            int best = row[j] + 1;
            if (row[j - 1] + 1 < best) best = row[j - 1] + 1;
            if (subst < best) best = subst;
            row[j] = best;
        }
    }
    return row[nb];
}

const char *args_nearest(const char *name, const char *const *candidates, int n) {
    const char *best = NULL;
    int best_d = INT_MAX;
    size_t len = strnlen(name, MAX_NAME);
    for (int i = 0; i < n; i++) {
        int d = distance(name, candidates[i]);
        /* A prefix is meant even when much is missing: --max-model for --max-model-len. */
        if (len >= 3 && strncmp(name, candidates[i], len) == 0 && d > 1) d = 1;
        if (d < best_d) {
            best_d = d;
            best = candidates[i];
        }
    }
    int limit = (int)len / 3 < 2 ? 2 : (int)len / 3;
    if ((int)len <= 2) limit = 1;
    return best_d <= limit ? best : NULL;
}

/* ---- values
 * ------------------------------------------------------------------------------------------------- */

bool args_parse_number(const char *text, int unit, double *out) {
    if (!isdigit((unsigned char)text[0]) && text[0] != '.' && text[0] != '-') return false;
    char *end;
    errno = 0;
    double v = strtod(text, &end);
    if (end == text || !isfinite(v) || text[1] == 'x' || text[1] == 'X') return false;
    static const char letters[] = "kmgt";
    const char *l = *end ? strchr(letters, tolower((unsigned char)*end)) : NULL;
    if (l && unit) {
        for (long i = 0; i <= l - letters; i++) v *= unit;
        end++;
        if (tolower((unsigned char)*end) == 'i') end++;
        if (tolower((unsigned char)*end) == 'b') end++;
    }
    if (*end) return false;
    *out = v;
    return true;
}

static bool bad_value(const arg_def *d, const char *shown, const char *expected, status *st) {
    return status_set(st, ST_INVALID, "%s expects %s, found \"%.80s\"", d->name, expected, shown);
}

static bool list_add(arg_list *l, const char *text, status *st) {
    const char **v = mem_realloc(l->v, sizeof *v * (size_t)(l->n + 1));
    if (!v) return status_set(st, ST_NO_MEMORY, "no memory for the options");
    l->v = v;
    v[l->n++] = text;
    return true;
}

static bool set_text(const arg_def *d, const char *text, void *options, status *st) {
    void *field = (char *)options + d->offset;
    double v = 0;
    switch (d->type) {
    case ARG_FLAG:
        if (strcmp(text, "true") == 0 || strcmp(text, "1") == 0)
            *(bool *)field = true;
        else if (strcmp(text, "false") == 0 || strcmp(text, "0") == 0)
            *(bool *)field = false;
        else
            return bad_value(d, text, "true or false", st);
        return true;
    case ARG_STRING: *(const char **)field = text; return true;
    case ARG_LIST: return list_add((arg_list *)field, text, st);
    case ARG_INT:
    case ARG_COUNT:
        if (!args_parse_number(text, 1000, &v) || v != floor(v) || fabs(v) > 9e15)
            return bad_value(d, text, "a whole number", st);
        break;
    case ARG_SIZE:
        if (!args_parse_number(text, 1024, &v) || v < 0 || v > 9e15)
            return bad_value(d, text, "a size such as 512M or 2G", st);
        v = floor(v);
        break;
    case ARG_REAL:
        if (!args_parse_number(text, 0, &v)) return bad_value(d, text, "a number", st);
        break;
    }
    double lo = d->min, hi = d->max;
    if (lo == 0 && hi == 0) hi = 9e15, lo = -9e15;
    if (d->type == ARG_INT && hi > INT_MAX) hi = INT_MAX;
    if (d->type == ARG_INT && lo < INT_MIN) lo = INT_MIN;
    if (v < lo || v > hi)
        return status_set(st, ST_INVALID, "%s must be from %.15g to %.15g, found %.80s", d->name, lo, hi,
                          text);
    if (d->type == ARG_INT)
        *(int *)field = (int)v;
    else if (d->type == ARG_COUNT)
        *(int64_t *)field = (int64_t)v;
    else if (d->type == ARG_SIZE)
        *(size_t *)field = (size_t)v;
    else
        *(double *)field = v;
    return true;
}

static void list_clear(const arg_def *d, void *options) {
    if (d->type != ARG_LIST) return;
    arg_list *l = (arg_list *)((char *)options + d->offset);
    mem_free(l->v);
    *l = (arg_list){0};
}

/* ---- config file
 * ------------------------------------------------------------------------------------------------ */

static const char *nearest_option(const arg_command *cmd, const char *name) {
    const char *names[MAX_DEFS];
    for (int i = 0; i < cmd->n_defs; i++) names[i] = cmd->defs[i].name;
    return args_nearest(name, names, cmd->n_defs);
}

static int find_def(const arg_command *cmd, const char *name, size_t n) {
    for (int i = 0; i < cmd->n_defs; i++) {
        const char *d = cmd->defs[i].name;
        size_t k = 0;
        while (k < n && d[k] && (d[k] == name[k] || (d[k] == '-' && name[k] == '_'))) k++;
        if (k == n && !d[k]) return i;
    }
    return -1;
}

static const char *json_kind(const json_t *v) {
    static const char *const names[] = {"an object", "a list", "text",  "a whole number",
                                        "a number",  "true",   "false", "null"};
    return names[json_typeof(v)];
}

static bool set_json(const arg_def *d, const json_t *v, void *options, status *st) {
    if (json_is_null(v)) return true;
    bool number = d->type == ARG_INT || d->type == ARG_COUNT || d->type == ARG_SIZE || d->type == ARG_REAL;
    if (json_is_string(v) && d->type != ARG_FLAG) return set_text(d, json_string_value(v), options, st);
    if (json_is_boolean(v) && d->type == ARG_FLAG)
        return set_text(d, json_is_true(v) ? "true" : "false", options, st);
    if (json_is_number(v) && number) {
        char text[40];
        snprintf(text, sizeof text, "%.17g", json_number_value(v));
        return set_text(d, text, options, st);
    }
    if (json_is_array(v) && d->type == ARG_LIST) {
        size_t i;
        json_t *item;
        json_array_foreach(v, i, item) {
            if (!json_is_string(item))
                return status_set(st, ST_INVALID, "%s expects a list of texts, found %s in it", d->name,
                                  json_kind(item));
            if (!set_text(d, json_string_value(item), options, st)) return false;
        }
        return true;
    }
    static const char *const expected[] = {"true or false",          "a whole number", "a whole number",
                                           "a size such as 512M",    "a number",       "text",
                                           "text or a list of texts"};
    return status_set(st, ST_INVALID, "%s expects %s, found %s", d->name, expected[d->type], json_kind(v));
}

bool args_apply_config(const arg_command *cmd, const json_t *config, const bool *seen, void *options,
                       status *st) {
    if (!json_is_object(config)) return status_set(st, ST_INVALID, "expected one JSON object of options");
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)config, key, value) {
        int i = find_def(cmd, key, strlen(key));
        if (i < 0 || cmd->defs[i].cli_only) {
            const char *near = nearest_option(cmd, key);
            if (i >= 0) return status_set(st, ST_INVALID, "\"%.60s\" cannot be set in a config file", key);
            return status_set(st, ST_INVALID, "unknown option \"%.60s\"%s%s%s", key,
                              near ? ", did you mean \"" : "", near ? near : "", near ? "\"?" : "");
        }
        if (seen && seen[i]) continue;
        list_clear(&cmd->defs[i], options);
        if (!set_json(&cmd->defs[i], value, options, st)) return false;
    }
    return true;
}

/* ---- command line
 * ------------------------------------------------------------------------------------------------- */

static bool parse_flag(const arg_command *cmd, int argc, char **argv, int *at, void *options, bool *seen,
                       status *st) {
    const char *name = argv[*at] + 2, *eq = strchr(name, '=');
    size_t n = eq ? (size_t)(eq - name) : strlen(name);
    int i = find_def(cmd, name, n);
    if (i < 0) {
        char shown[MAX_NAME];
        snprintf(shown, sizeof shown, "%.*s", (int)(n < 60 ? n : 60), name);
        const char *near = nearest_option(cmd, shown);
        return status_set(st, ST_INVALID, "unknown option --%s%s%s%s", shown, near ? ", did you mean --" : "",
                          near ? near : "", near ? "?" : "");
    }
    const arg_def *d = &cmd->defs[i];
    const char *value = eq ? eq + 1 : NULL;
    if (!value && d->type == ARG_FLAG) value = "true";
    if (!value) {
        if (*at + 1 >= argc || strncmp(argv[*at + 1], "--", 2) == 0)
            return status_set(st, ST_INVALID, "--%s needs a value (%s)", d->name, d->value);
        value = argv[++*at];
    }
    if (!seen[i]) /* a list's flags add up, and replace its default */
        list_clear(d, options);
    seen[i] = true;
    if (set_text(d, value, options, st)) return true;
    char named[sizeof st->msg]; /* the message begins with the option's name: as it was typed */
    snprintf(named, sizeof named, "%s", st->msg);
    snprintf(st->msg, sizeof st->msg, "--%.430s", named);
    return false;
}

static bool load_config(const arg_command *cmd, const bool *seen, void *options, arg_values *out,
                        status *st) {
    int i = find_def(cmd, "config", 6);
    if (i < 0) return true;
    const char *path = *(const char **)((char *)options + cmd->defs[i].offset);
    if (!path) return true;
    json_error_t err;
    buf text = {0};
    bool read = buf_read_file(&text, path, MAX_CONFIG, st);
    if (read) out->config = json_parse(text.data, text.len, JSON_REJECT_DUPLICATES, &err);
    buf_fini(&text);
    if (!read) return status_prefix(st, "--config %.200s", path);
    if (!out->config) {
        if (err.line < 0) return status_set(st, ST_INVALID, "--config %.200s: %.160s", path, err.text);
        return status_set(st, ST_INVALID, "--config %.200s, line %d: %.160s", path, err.line, err.text);
    }
    if (args_apply_config(cmd, out->config, seen, options, st)) return true;
    return status_prefix(st, "--config %.200s", path);
}

arg_result args_parse(const arg_command *cmd, int argc, char **argv, void *options, arg_values *out,
                      status *st) {
    CHECK(cmd->n_defs <= MAX_DEFS);
    bool seen[MAX_DEFS] = {false}, only_pos = false;
    *out = (arg_values){.options = options};
    for (int i = 0; i < cmd->n_defs; i++)
        if (cmd->defs[i].deflt && !set_text(&cmd->defs[i], cmd->defs[i].deflt, options, st)) return ARGS_BAD;
    for (int i = 0; i < argc; i++) {
        const char *a = argv[i];
        if (!only_pos && strcmp(a, "--") == 0) {
            only_pos = true;
        } else if (!only_pos && (strcmp(a, "--help") == 0 || strcmp(a, "-h") == 0)) {
            return ARGS_HELP;
        } else if (!only_pos && (strcmp(a, "--version") == 0 || strcmp(a, "-V") == 0)) {
            return ARGS_VERSION;
        } else if (!only_pos && a[0] == '-' && a[1] == '-') {
            if (!parse_flag(cmd, argc, argv, &i, options, seen, st)) return ARGS_BAD;
        } else if (!only_pos && a[0] == '-' && a[1]) {
            status_set(st, ST_INVALID, "unknown option %.60s (options start with --)", a);
            return ARGS_BAD;
        } else if (out->n_pos >= cmd->max_pos || out->n_pos >= (int)ARRAY_LEN(out->pos)) {
            status_set(st, ST_INVALID, "unexpected argument \"%.80s\"", a);
            return ARGS_BAD;
        } else {
            out->pos[out->n_pos++] = a;
        }
    }
    if (!load_config(cmd, seen, options, out, st)) return ARGS_BAD;
    if (out->n_pos < cmd->min_pos) {
        status_set(st, ST_INVALID, "missing argument %s", cmd->pos_name);
        return ARGS_BAD;
    }
    return ARGS_RUN;
}

void args_fini(const arg_command *cmd, arg_values *v) {
    for (int i = 0; i < cmd->n_defs; i++) list_clear(&cmd->defs[i], v->options);
    json_decref(v->config);
    v->config = NULL;
}

void args_help(const arg_command *cmd, buf *out) {
    buf_printf(out, "usage: vlmd %s\n%s\n\noptions:\n", cmd->usage, cmd->about);
    for (int i = 0; i < cmd->n_defs; i++) {
        const arg_def *d = &cmd->defs[i];
        char head[80];
        snprintf(head, sizeof head, "--%s%s%s", d->name, d->type == ARG_FLAG ? "" : " ",
                 d->type == ARG_FLAG ? "" : d->value);
        buf_printf(out, "  %-28s %s", head, d->help);
        if (d->deflt) buf_printf(out, " [%s]", d->deflt);
        buf_puts(out, "\n");
    }
    buf_printf(out, "  %-28s %s\n  %-28s %s\n", "--help", "this text", "--version", "the version");
}
