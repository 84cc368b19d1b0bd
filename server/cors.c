/* cors.c - see cors.h. */
#include "server/cors.h"

#include <string.h>

/* All names of an option's values in one JSON list. */
static json_t *names_of(const arg_list *values, const char *option, status *st) {
    json_t *all = json_array();
    bool ok = all != NULL;
    for (int i = 0; i < values->n && ok; i++) {
        const char *text = values->v[i];
        json_t *list = text[0] == '[' ? json_loads(text, 0, NULL) : json_pack("[s]", text), *name;
        size_t k;
        if (!json_is_array(list)) {
            json_decref(list);
            json_decref(all);
            status_set(st, ST_INVALID, "--%s expects a name or a JSON list of names, found \"%.80s\"", option,
                       text);
            return NULL;
        }
        json_array_foreach(list, k, name) {
            const char *s = json_string_value(name);
            if (!s || !*s || strpbrk(s, "\r\n")) {
                json_decref(list);
                json_decref(all);
                status_set(st, ST_INVALID, "--%s expects names that are text, found \"%.80s\"", option, text);
                return NULL;
            }
            ok = ok && json_array_append(all, name) == 0;
        }
        json_decref(list);
    }
    if (ok) return all;
    json_decref(all);
    status_set(st, ST_NO_MEMORY, "no memory for the options");
    return NULL;
}

static bool has(const json_t *list, const char *name) {
    size_t i;
    json_t *v;
    json_array_foreach(list, i, v) if (strcmp(json_string_value(v), name) == 0) return true;
    return false;
}

/* scheme://host[:port], as browsers send it */
static bool check_origin(const char *s, status *st) {
    const char *host = strstr(s, "://");
    if (strcmp(s, "*") == 0 || strcmp(s, "null") == 0) return true;
    if (host && host > s && host[3] && !strpbrk(host + 3, "/?# ")) return true;
    return status_set(st, ST_INVALID,
                      "--allowed-origins expects origins such as https://example.org, without a path, or *, "
                      "found \"%.80s\"",
                      s);
}

static bool join(const json_t *list, const char *otherwise, const char *any, buf *out, status *st) {
    size_t i;
    json_t *v;
    if (has(list, "*"))
        buf_puts(out, any);
    else if (!json_array_size(list))
        buf_puts(out, otherwise);
    else
        json_array_foreach(list, i, v) buf_printf(out, i ? ", %s" : "%s", json_string_value(v));
    return !out->failed || status_set(st, ST_NO_MEMORY, "no memory for the options");
}

bool cors_init(cors *c, const arg_list *origins, const arg_list *methods, const arg_list *headers,
               bool credentials, status *st) {
    *c = (cors){.credentials = credentials};
    json_t *m = NULL, *h = NULL;
    bool ok = (c->origins = names_of(origins, "allowed-origins", st)) &&
              (m = names_of(methods, "allowed-methods", st)) &&
              (h = names_of(headers, "allowed-headers", st)) &&
              join(m, "GET, POST, OPTIONS", "GET, POST, OPTIONS", &c->methods, st) &&
              join(h, "", "", &c->headers, st);
    size_t i;
    json_t *v;
    json_array_foreach(c->origins, i, v) ok = ok && check_origin(json_string_value(v), st);
    c->any_origin = ok && has(c->origins, "*");
    json_decref(m);
    json_decref(h);
    if (!ok) cors_fini(c);
    return ok;
}

void cors_fini(cors *c) {
    json_decref(c->origins);
    buf_fini(&c->methods);
    buf_fini(&c->headers);
    *c = (cors){0};
}

bool cors_on(const cors *c) {
    return json_array_size(c->origins) > 0;
}

const char *cors_allow(const cors *c, const char *origin) {
    /* A browser takes no * together with credentials. */
    if (c->any_origin) return c->credentials ? origin : "*";
    return has(c->origins, origin) ? origin : NULL;
}
