/* fields.c - see fields.h. One thread; owns nothing. */
#include "server/fields.h"

#include <math.h>
#include <stdio.h>

#include "kernels/json.h"

const char *json_kind_name(const json_t *v) {
    if (!v) return "nothing";
    static const char *const names[] = {"an object", "a list", "text",  "a whole number",
                                        "a number",  "true",   "false", "null"};
    return names[json_typeof(v)];
}

const json_t *field_get(const json_t *obj, const char *name) {
    const json_t *v = json_object_get(obj, name);
    return json_is_null(v) ? NULL : v;
}

bool field_wrong(status *st, const json_t *found, const char *expected, const char *fmt, ...) {
    char param[sizeof st->param];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(param, sizeof param, fmt, ap);
    va_end(ap);
    if (found)
        status_set(st, ST_INVALID, "%s: expected %s, found %s", param, expected, json_kind_name(found));
    else
        status_set(st, ST_INVALID, "%s: missing, expected %s", param, expected);
    return status_param(st, "%s", param);
}

static bool out_of_range(status *st, const char *name, double lo, double hi, double v) {
    status_set(st, ST_INVALID, "%s must be from %.15g to %.15g, found %.15g", name, lo, hi, v);
    return status_param(st, "%s", name);
}

bool json_whole(const json_t *v, int64_t *out) {
    if (json_is_integer(v)) {
        *out = json_integer_value(v);
        return true;
    }
    if (!json_is_real(v)) return false;
    double d = json_real_value(v);
    if (d != floor(d) || fabs(d) > 9e15) return false;
    *out = (int64_t)d;
    return true;
}

bool field_bool(const json_t *obj, const char *name, bool *out, status *st) {
    const json_t *v = field_get(obj, name);
    if (!v) return true;
    if (!json_is_boolean(v)) return field_wrong(st, v, "true or false", "%s", name);
    *out = json_is_true(v);
    return true;
}

bool field_int(const json_t *obj, const char *name, int64_t lo, int64_t hi, int64_t *out, status *st) {
    const json_t *v = field_get(obj, name);
    if (!v) return true;
    int64_t k;
    if (!json_whole(v, &k)) return field_wrong(st, v, "a whole number", "%s", name);
    if (k < lo || k > hi) return out_of_range(st, name, (double)lo, (double)hi, (double)k);
    *out = k;
    return true;
}

bool field_real(const json_t *obj, const char *name, double lo, double hi, double *out, status *st) {
    const json_t *v = field_get(obj, name);
    if (!v) return true;
    if (!json_is_number(v)) return field_wrong(st, v, "a number", "%s", name);
    double d = json_number_value(v);
    if (!(d >= lo && d <= hi)) return out_of_range(st, name, lo, hi, d);
    *out = d;
    return true;
}

bool field_string(const json_t *obj, const char *name, const char **out, status *st) {
    const json_t *v = field_get(obj, name);
    if (!v) return true;
    if (!json_is_string(v)) return field_wrong(st, v, "text", "%s", name);
    *out = json_string_value(v);
    return true;
}

json_t *body_parse(const char *p, size_t n, bool exact, status *st) {
    size_t i = 0;
    while (i < n && (p[i] == ' ' || p[i] == '\n' || p[i] == '\r' || p[i] == '\t')) i++;
    if (i == n) {
        status_set(st, ST_INVALID, "the body is empty, expected a JSON object");
        return NULL;
    }
    json_error_t err;
    json_t *root = json_parse(p, n, JSON_REJECT_DUPLICATES, &err);
    if (!root) {
        if (json_no_memory(&err))
            status_set(st, ST_NO_MEMORY, "no memory for the request");
        else if (json_error_code(&err) == json_error_null_character)
            status_set(st, ST_INVALID, "the body holds the character U+0000 in text, which is not accepted");
        else if (exact)
            status_set(st, ST_INVALID, "the body is no valid JSON: line %d, column %d: %s", err.line,
                       err.column, err.text);
        else
            status_set(st, ST_INVALID, "the body is no valid JSON: %s", err.text);
        return NULL;
    }
    if (!json_is_object(root)) {
        status_set(st, ST_INVALID, "the body must be a JSON object, found %s", json_kind_name(root));
        json_decref(root);
        return NULL;
    }
    return root;
}
