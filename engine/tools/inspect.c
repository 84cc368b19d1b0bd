/* inspect.c - `vlmd inspect`: prints what the engine understood of a checkpoint.
 *
 * Thread: main's. Owns its text. */
#include "engine/engine.h"
#include "engine/model/model.h"

bool tool_inspect(const char *model_dir, FILE *out, status *st) {
    buf text = {0};
    bool ok = model_inspect(model_dir, &text, st);
    if (ok && fwrite(text.data, 1, text.len, out) != text.len)
        ok = status_set(st, ST_IO, "cannot write the description");
    buf_fini(&text);
    return ok;
}
