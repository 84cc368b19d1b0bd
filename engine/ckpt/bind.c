/* bind.c - see bind.h. Thread: the loader's. Owns the marks, not the tensors. */
#include "engine/ckpt/bind.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

typedef struct mark {
    bind_state state;
    const char *why;
    uint32_t parts, n_parts; /* of one that is taken in parts: those that are */
} mark;

struct bind {
    const ckpt *c;
    mark *marks;
};

enum { MAX_NAME = 512 };

bind *bind_new(const ckpt *c, status *st) {
    bind *b = mem_calloc(1, sizeof *b);
    mark *marks = mem_calloc(ckpt_count(c) + 1, sizeof *marks);
    if (!b || !marks) {
        mem_free(b);
        mem_free(marks);
        status_set(st, ST_NO_MEMORY, "no memory for %zu tensors", ckpt_count(c));
        return NULL;
    }
    b->c = c;
    b->marks = marks;
    return b;
}

void bind_free(bind *b) {
    if (!b) return;
    mem_free(b->marks);
    mem_free(b);
}

size_t bind_find(const bind *b, const char *const *prefixes, const char *name, status *st) {
    size_t found = SIZE_MAX;
    char full[MAX_NAME];
    for (; *prefixes; prefixes++) {
        int n = snprintf(full, sizeof full, "%s%s", *prefixes, name);
        CHECK(n > 0 && n < MAX_NAME);
        size_t i = ckpt_find(b->c, full);
        if (i == SIZE_MAX) continue;
        if (found != SIZE_MAX) {
            status_set(st, ST_INVALID, "tensors %s and %s both stand for %s", ckpt_at(b->c, found)->name,
                       full, name);
            return SIZE_MAX;
        }
        found = i;
    }
    return found;
}

static void shape_text(char *out, size_t n, int nd, const int64_t *d) {
    size_t at = 0;
    at += (size_t)snprintf(out, n, "[");
    for (int i = 0; i < nd && at < n; i++)
        at += (size_t)snprintf(out + at, n - at, "%s%" PRId64, i ? ", " : "", d[i]);
    if (at < n) snprintf(out + at, n - at, "]");
}

/* "name#k/n" to its parts; a name without is part 0 of 1. */
static void split_part(const char *name, char *out, uint32_t *k, uint32_t *n) {
    const char *hash = strchr(name, '#');
    size_t len = hash ? (size_t)(hash - name) : strlen(name);
    CHECK(len < MAX_NAME);
    memcpy(out, name, len);
    out[len] = 0;
    *k = 0, *n = 1;
    if (hash) CHECK(sscanf(hash, "#%" SCNu32 "/%" SCNu32, k, n) == 2 && *k < *n && *n <= 32);
}

bool bind_take(bind *b, const char *const *prefixes, const char *part_name, int nd, const int64_t *part_d,
               tensor *out, status *st) {
    char name[MAX_NAME];
    uint32_t part, parts;
    int64_t d[TENSOR_MAX_DIMS];
    CHECK(nd >= 1 && nd <= TENSOR_MAX_DIMS);
    if (st->code != ST_OK) return false;
    split_part(part_name, name, &part, &parts);
    memcpy(d, part_d, (size_t)nd * sizeof *d);
    d[0] *= parts;
    char want[128], found[192];
    shape_text(want, sizeof want, nd, d);
    size_t i = bind_find(b, prefixes, name, st);
    if (st->code != ST_OK) return false;
    if (i == SIZE_MAX) {
        buf tried = {0};
        for (int k = 0; k < 4 && prefixes[k]; k++)
            buf_printf(&tried, "%s%s%s", k ? ", " : "", prefixes[k], name);
        status_set(st, ST_INVALID, "tensor %s of shape %s is missing (looked for %.300s)", name, want,
                   tried.data ? tried.data : name);
        buf_fini(&tried);
        return false;
    }
    const st_tensor *t = ckpt_at(b->c, i);
    mark *m = &b->marks[i];
    if (m->state == BIND_USED && (m->n_parts != parts || (m->parts >> part & 1)))
        return status_set(st, ST_INVALID, "tensor %s is asked for twice", t->name);
    int lead = t->nd - nd;                                         /* dimensions of 1 in front say nothing */
    bool same = lead >= 0 || (t->nd == 0 && nd == 1 && d[0] == 1); /* the latter: a lone number */
    for (int k = 0; same && k < t->nd; k++) same = t->d[k] == (k < lead ? 1 : d[k - lead]);
    if (!same)
        return status_set(st, ST_INVALID, "%s: tensor %.160s: expected shape %s, found %s",
                          ckpt_file_of(b->c, i), t->name, want, st_describe(t, found, sizeof found));
    if (!t->dt->computes)
        return status_set(st, ST_UNSUPPORTED, "%s: tensor %.160s: expected F32, F16 or BF16, found %s",
                          ckpt_file_of(b->c, i), t->name, st_describe(t, found, sizeof found));
    m->state = BIND_USED;
    m->n_parts = parts;
    m->parts |= 1u << part;
    *out = tensor_of((void *)(uintptr_t)(t->data + t->bytes / parts * part), t->dt->as, nd, part_d);
    return true;
}

void bind_ignore(bind *b, size_t i, const char *why) {
    CHECK(i < ckpt_count(b->c));
    if (b->marks[i].state == BIND_FREE) b->marks[i] = (mark){.state = BIND_IGNORED, .why = why};
}

void bind_ignore_like(bind *b, const char *glob, const char *why) {
    for (size_t i = 0; i < ckpt_count(b->c); i++)
        if (b->marks[i].state == BIND_FREE && glob_match(glob, ckpt_at(b->c, i)->name))
            bind_ignore(b, i, why);
}

bool bind_finish(const bind *b, status *st) {
    size_t left = 0, first = 0;
    for (size_t i = 0; i < ckpt_count(b->c); i++)
        CHECK(b->marks[i].state != BIND_USED ||
              b->marks[i].parts == (uint32_t)((1ull << b->marks[i].n_parts) - 1));
    for (size_t i = 0; i < ckpt_count(b->c); i++)
        if (b->marks[i].state == BIND_FREE && left++ == 0) first = i;
    if (!left) return true;
    char found[192];
    const st_tensor *t = ckpt_at(b->c, first);
    return status_set(st, ST_INVALID, "%s: tensor %.200s %s has no place in this model%s%.0zu%s",
                      ckpt_file_of(b->c, first), t->name, st_describe(t, found, sizeof found),
                      left > 1 ? ", nor have " : "", left - 1, left > 1 ? " others" : "");
}

bind_state bind_state_of(const bind *b, size_t i) {
    CHECK(i < ckpt_count(b->c));
    return b->marks[i].state;
}

const char *bind_why(const bind *b, size_t i) {
    return b->marks[i].why;
}

/* Linear in the name for a glob of few stars: backtracks to the last star only. */
bool glob_match(const char *g, const char *s) {
    const char *star = NULL, *back = NULL;
    while (*s) {
        if (*g == '*') {
            star = g++;
            back = s;
        } else if (*g == *s) {
            g++;
            s++;
        } else if (star) {
            g = star + 1;
            s = ++back;
        } else {
            return false;
        }
    }
    while (*g == '*') g++;
    return *g == 0;
}
