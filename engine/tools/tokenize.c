/* tokenize.c - vlmd tokenize: text to ids, ids to text, one text or one JSON value a line. One thread; owns a
 * tok while it runs. Tested by tests/engine/tok/test_tok.c (tool_*). */
#include "engine/engine.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "engine/prompt.h"

static bool no_memory(status *st) {
    return status_set(st, ST_NO_MEMORY, "no memory");
}

static bool read_all(FILE *in, buf *b, status *st) {
    for (;;) {
        if (!buf_reserve(b, 1 << 16)) return no_memory(st);
        size_t got = fread(b->data + b->len, 1, 1 << 16, in);
        b->len += got;
        if (got < 1 << 16) return !ferror(in) || status_set(st, ST_IO, "cannot read the input");
    }
}

static void write_ids(const tok_ids *ids, FILE *out, const char *sep) {
    for (size_t i = 0; i < ids->n; i++) fprintf(out, "%s%d", i ? sep : "", (int)ids->v[i]);
}

static bool encode_line(const tok *t, const tool_tokenize_opts *o, const json_t *j, FILE *out, status *st) {
    if (!json_is_string(j)) return status_set(st, ST_INVALID, "expected a JSON string");
    tok_ids ids = {0};
    bool ok = tok_encode(t, json_string_value(j), json_string_length(j), NULL, 0, !o->no_special, &ids, st);
    if (ok) {
        fputc('[', out);
        write_ids(&ids, out, ", ");
        fputs("]\n", out);
    }
    tok_ids_fini(&ids);
    return ok;
}

static bool decode_line(const tok *t, const json_t *j, FILE *out, status *st) {
    if (!json_is_array(j)) return status_set(st, ST_INVALID, "expected a JSON array of ids");
    tok_ids ids = {0};
    buf text = {0};
    bool ok = true;
    for (size_t i = 0; i < json_array_size(j) && ok; i++) {
        const json_t *v = json_array_get(j, i);
        json_int_t id = json_integer_value(v);
        if (!json_is_integer(v))
            ok = status_set(st, ST_INVALID, "element %zu: expected an id", i);
        else if (id < 0 || id > INT32_MAX)
            ok = status_set(st, ST_INVALID, "element %zu: no such id", i);
        else if (!tok_ids_push(&ids, (int32_t)id))
            ok = no_memory(st);
    }
    ok = ok && tok_decode(t, ids.v, ids.n, false, &text, st);
    if (ok) {
        json_t *s = json_stringn(text.data ? text.data : "", text.len);
        char *dump = s ? json_dumps(s, JSON_ENCODE_ANY | JSON_ENSURE_ASCII) : NULL;
        if (dump)
            fprintf(out, "%s\n", dump);
        else
            ok = no_memory(st);
        free(dump);
        json_decref(s);
    }
    tok_ids_fini(&ids);
    buf_fini(&text);
    return ok;
}

static bool lines(const tok *t, const tool_tokenize_opts *o, FILE *in, FILE *out, status *st) {
    char *line = NULL;
    size_t cap = 0, number = 0;
    ssize_t n;
    bool ok = true;
    while (ok && (n = getline(&line, &cap, in)) >= 0) {
        number++;
        json_error_t err;
        json_t *j = json_loadb(line, (size_t)n, JSON_DECODE_ANY | JSON_ALLOW_NUL, &err);
        if (!j)
            ok = status_set(st, ST_INVALID, "not JSON: %s", err.text);
        else if (o->decode)
            ok = decode_line(t, j, out, st);
        else
            ok = encode_line(t, o, j, out, st);
        json_decref(j);
        if (!ok) status_prefix(st, "line %zu", number);
    }
    if (ok && ferror(in)) ok = status_set(st, ST_IO, "cannot read the input");
    free(line); /* getline's */
    return ok;
}

/* A folder's tokenizer is the server's; a file is taken as it is. */
static tok *load(const char *path, status *st) {
    struct stat sb;
    return stat(path, &sb) == 0 && S_ISDIR(sb.st_mode) ? promptkit_tok(path, st) : tok_load(path, st);
}

bool tool_tokenize(const tool_tokenize_opts *o, FILE *in, FILE *out, status *st) {
    if (o->decode && !o->json_lines)
        return status_set(st, ST_INVALID, "--decode goes with --json-lines (an array of ids a line)");
    tok *t = load(o->path, st);
    if (!t) return false;
    bool ok;
    if (o->json_lines) {
        ok = lines(t, o, in, out, st);
    } else {
        buf text = {0};
        tok_ids ids = {0};
        ok = read_all(in, &text, st) &&
             tok_encode(t, text.data ? text.data : "", text.len, NULL, 0, !o->no_special, &ids, st);
        if (ok) {
            write_ids(&ids, out, " ");
            fputc('\n', out);
        }
        tok_ids_fini(&ids);
        buf_fini(&text);
    }
    tok_free(t);
    if (ok && (fflush(out) != 0 || ferror(out))) ok = status_set(st, ST_IO, "cannot write the output");
    return ok;
}
