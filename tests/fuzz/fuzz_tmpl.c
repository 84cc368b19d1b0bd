/* fuzz_tmpl.c - libFuzzer target for the template engine: the input is a template, a NUL byte, and the JSON of its
 * variables. Small bounds, so that a run stays fast. */
#include <string.h>

#include "engine/tmpl/tmpl.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
    static const tmpl_limits limits = {.max_output_bytes = 1 << 16, .max_steps = 100000, .max_depth = 30};
    const uint8_t *cut = memchr(data, 0, n);
    size_t n_src = cut ? (size_t)(cut - data) : n;
    status st = {0};
    tmpl *t = tmpl_parse((const char *)data, n_src, &st);
    if (!t) {
        CHECK(st.code == ST_INVALID);
        return 0;
    }
    json_error_t err;
    json_t *vars = cut ? json_loadb((const char *)cut + 1, n - n_src - 1, JSON_ALLOW_NUL, &err) : NULL;
    tmpl_out out = {0};
    if (tmpl_render(t, NULL, vars, &limits, &out, &st)) {
        for (size_t i = 0; i < out.n_user; i++)
            CHECK(out.user[i].begin < out.user[i].end && out.user[i].end <= out.text.len);
    } else
        CHECK(st.code == ST_INVALID);
    tmpl_out_fini(&out);
    json_decref(vars);
    tmpl_free(t);
    return 0;
}
