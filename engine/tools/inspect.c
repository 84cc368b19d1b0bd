/* inspect.c - `vlmd inspect`: prints what the engine understood of a checkpoint.
 *
 * `vlmd families`: the table of those that it knows. Thread: main's. Owns its text. */
#include "engine/engine.h"
#include "engine/families/registry.h"
#include "engine/model/model.h"

static bool put(buf *text, bool ok, FILE *out, status *st) {
    if (ok && fwrite(text->data, 1, text->len, out) != text->len)
        ok = status_set(st, ST_IO, "cannot write the description");
    buf_fini(text);
    return ok;
}

bool tool_inspect(const char *model_dir, FILE *out, status *st) {
    buf text = {0};
    bool ok = model_inspect(model_dir, &text, st);
    return put(&text, ok, out, st);
}

bool tool_families(FILE *out, status *st) {
    buf text = {0};
    bool ok = family_table(&text) || status_set(st, ST_NO_MEMORY, "no memory for the table");
    return put(&text, ok, out, st);
}
