/* render.c - `vlmd render`: a JSON object of variables in, the rendered prompt out, nothing added.
 * Main thread; owns what it reads. Tested by tests/engine/tmpl/test_find.c and the golden cases. */
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "engine/engine.h"
#include "engine/tmpl/find.h"
#include "engine/tmpl/tmpl.h"

static json_t *read_vars(FILE *in, status *st) {
    buf b = {0};
    char part[65536];
    size_t n;
    json_error_t err;
    while ((n = fread(part, 1, sizeof part, in)) > 0 && buf_append(&b, part, n)) {
    }
    json_t *vars = NULL;
    if (b.failed)
        status_set(st, ST_NO_MEMORY, "no memory for the variables on stdin");
    else if (ferror(in))
        status_set(st, ST_IO, "cannot read the variables from stdin");
    else {
        vars = json_loadb(b.data ? b.data : "", b.len, JSON_ALLOW_NUL, &err);
        if (!vars)
            status_set(st, ST_INVALID, "stdin is not JSON: line %d: %s", err.line, err.text);
        else if (!json_is_object(vars)) {
            status_set(st, ST_INVALID, "stdin: expected a JSON object of variables");
            json_decref(vars);
            vars = NULL;
        }
    }
    buf_fini(&b);
    return vars;
}

static char *source_for(const char *path, const json_t *vars, size_t *n, status *st) {
    struct stat sb;
    const json_t *tools = json_object_get(vars, "tools");
    const char *name = tools && !json_is_null(tools) ? "tool_use" : NULL;
    if (stat(path, &sb) == 0 && S_ISDIR(sb.st_mode)) return tmpl_find_source(path, name, n, st);
    return tmpl_file_source(path, name, n, st);
}

bool tool_render(const char *template_file_or_dir, FILE *in, FILE *out, status *st) {
    tmpl *t = NULL;
    tmpl_out text = {0};
    size_t n = 0;
    json_t *vars = read_vars(in, st);
    bool ok = vars && tmpl_complete_vars(vars, st);
    char *src = ok ? source_for(template_file_or_dir, vars, &n, st) : NULL;
    if (src) t = tmpl_parse(src, n, st);
    ok = t && tmpl_render(t, NULL, vars, NULL, &text, st);
    if (ok && (fwrite(text.text.data, 1, text.text.len, out) != text.text.len || fflush(out) != 0))
        ok = status_set(st, ST_IO, "cannot write the rendered prompt");
    tmpl_out_fini(&text);
    tmpl_free(t);
    mem_free(src);
    json_decref(vars);
    return ok;
}
