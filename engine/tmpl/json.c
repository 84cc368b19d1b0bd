/* json.c - the tojson filter: json.dumps with the arguments transformers exposes. A user's text stays the
 * user's, escapes included. Memory is the env's. Source: Python's json module. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/tmpl/value.h"

static void escape_json(char to[16], uint32_t cp, int ascii) {
    static const char *const named[] = {['\b'] = "\\b", ['\t'] = "\\t", ['\n'] = "\\n", ['\f'] = "\\f",
                                        ['\r'] = "\\r", ['"'] = "\\\"", ['\\'] = "\\\\"};
    if (cp < ARRAY_LEN(named) && named[cp])
        strcpy(to, named[cp]);
    else if (cp < 0x20 || (ascii && cp >= 0x7F && cp < 0x10000))
        snprintf(to, 16, "\\u%04x", cp);
    else if (ascii && cp >= 0x10000)
        snprintf(to, 16, "\\u%04x\\u%04x", 0xD800 + ((cp - 0x10000) >> 10), 0xDC00 + (cp & 0x3FF));
}

static void put_json_str(sb *b, const str *s, bool ascii) {
    sb_puts(b, "\"");
    sb_escaped(b, s, escape_json, ascii);
    sb_puts(b, "\"");
}

static void newline(sb *b, const json_style *style, int level) {
    if (!style->indent) return;
    sb_puts(b, "\n");
    for (int i = 0; i < level; i++) sb_str(b, style->indent);
}

static void put_scalar(sb *b, val v) {
    switch (v.t) {
    case V_NONE: sb_puts(b, "null"); break;
    case V_BOOL: sb_puts(b, v.b ? "true" : "false"); break;
    case V_FLOAT:
        if (isnan(v.f))
            sb_puts(b, "NaN");
        else if (isinf(v.f))
            sb_puts(b, v.f > 0 ? "Infinity" : "-Infinity");
        else
            put_float(b, v.f);
        break;
    default: put_repr(b, v); break;
    }
}

static void put_key(sb *b, val k, const json_style *style) {
    if (k.t == V_STR) {
        put_json_str(b, k.s, style->ensure_ascii);
        return;
    }
    if (k.t != V_NONE && k.t != V_BOOL && k.t != V_INT && k.t != V_FLOAT)
        fail(b->e, "keys must be str, int, float, bool or None, not %s", type_name(k));
    sb_puts(b, "\"");
    put_scalar(b, k);
    sb_puts(b, "\"");
}

static void sort_entries(env *e, entry *v, entry *tmp, size_t n) { /* stable merge sort */
    if (n < 2) return;
    size_t h = n / 2, i = 0, j = h, k = 0;
    sort_entries(e, v, tmp, h);
    sort_entries(e, v + h, tmp, n - h);
    memcpy(tmp, v, n * sizeof *v);
    while (i < h && j < n) {
        bool nan = false;
        v[k++] = val_cmp(e, tmp[j].key, tmp[i].key, "<", &nan) < 0 ? tmp[j++] : tmp[i++];
    }
    while (i < h) v[k++] = tmp[i++];
    while (j < n) v[k++] = tmp[j++];
}

static void put_value(sb *b, val v, const json_style *style, int level) {
    env *e = b->e;
    env_step(e, 1);
    env_enter(e);
    switch (v.t) {
    case V_NONE:
    case V_BOOL:
    case V_INT:
    case V_FLOAT: put_scalar(b, v); break;
    case V_STR: put_json_str(b, v.s, style->ensure_ascii); break;
    case V_LIST:
    case V_TUPLE:
        if (v.l->n == 0) {
            sb_puts(b, "[]");
            break;
        }
        sb_puts(b, "[");
        for (size_t i = 0; i < v.l->n; i++) {
            if (i) sb_str(b, style->item_sep);
            newline(b, style, level + 1);
            put_value(b, v.l->v[i], style, level + 1);
        }
        newline(b, style, level);
        sb_puts(b, "]");
        break;
    case V_DICT: {
        dict *d = v.d;
        entry *x = d->e;
        if (d->n == 0) {
            sb_puts(b, "{}");
            break;
        }
        if (style->sort_keys) {
            x = env_array(e, d->n, sizeof *x);
            entry *tmp = env_array(e, d->n, sizeof *x);
            memcpy(x, d->e, d->n * sizeof *x);
            sort_entries(e, x, tmp, d->n);
        }
        sb_puts(b, "{");
        for (size_t i = 0; i < d->n; i++) {
            if (i) sb_str(b, style->item_sep);
            newline(b, style, level + 1);
            put_key(b, x[i].key, style);
            sb_str(b, style->key_sep);
            put_value(b, x[i].value, style, level + 1);
        }
        newline(b, style, level);
        sb_puts(b, "}");
        break;
    }
    default: fail(e, "Object of type %s is not JSON serializable", type_name(v));
    }
    env_leave(e);
}

void put_json(sb *b, val v, const json_style *style) {
    put_value(b, v, style, 0);
}
