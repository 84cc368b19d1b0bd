/* util.h - shared by the template tests: rendering in one call, reading files. Main thread. */
#ifndef VLMD_TESTS_TMPL_UTIL_H
#define VLMD_TESTS_TMPL_UTIL_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "engine/tmpl/tmpl.h"

static inline bool render(const char *src, json_t *trusted, json_t *user, const tmpl_limits *l, tmpl_out *out,
                          status *st) {
    *out = (tmpl_out){0};
    *st = (status){0};
    tmpl *t = tmpl_parse(src, strlen(src), st);
    bool ok = t && tmpl_render(t, trusted, user, l, out, st);
    tmpl_free(t);
    return ok;
}

static inline json_t *load_json(const char *path) {
    json_error_t err;
    json_t *j = json_load_file(path, JSON_ALLOW_NUL, &err);
    if (!j) fail_msg("%s: %s", path, err.text);
    return j;
}

#endif
