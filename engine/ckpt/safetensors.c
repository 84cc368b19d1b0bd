/* safetensors.c - maps one .safetensors file and checks its header.
 *
 * The header may be 100 MB of a stranger's JSON, so it is read by a scanner of its own that keeps only what a tensor
 * needs, instead of by a library that builds a tree of it. Thread: any, one file at a time. The st_file owns the
 * mapping and the names. */
#include "engine/ckpt/safetensors.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

static const st_dtype DTYPES[] = {
    {"F32", 32, true, DT_F32},         {"F16", 16, true, DT_F16},     {"BF16", 16, true, DT_BF16},
    {"F64", 64, false, DT_F32},        {"I64", 64, false, DT_F32},    {"I32", 32, false, DT_F32},
    {"I16", 16, false, DT_F32},        {"I8", 8, false, DT_F32},      {"U64", 64, false, DT_F32},
    {"U32", 32, false, DT_F32},        {"U16", 16, false, DT_F32},    {"U8", 8, false, DT_F32},
    {"BOOL", 8, false, DT_F32},        {"F8_E4M3", 8, false, DT_F32}, {"F8_E5M2", 8, false, DT_F32},
    {"F8_E8M0", 8, false, DT_F32},     {"F6_E2M3", 6, false, DT_F32}, {"F6_E3M2", 6, false, DT_F32},
    {"F4", 4, false, DT_F32},          {"C64", 64, false, DT_F32},    {"F8_E4M3FNUZ", 8, false, DT_F32},
    {"F8_E5M2FNUZ", 8, false, DT_F32},
};

struct st_file {
    const uint8_t *map;
    size_t map_bytes;
    bool mapped;
    st_tensor *t; /* sorted by name */
    size_t n, cap;
};

/* ---- the header's JSON ------------------------------------------------------------------------------------ */

enum { MAX_NEST = 16, MAX_NAME_BYTES = 4096 };

typedef struct scan {
    const uint8_t *p, *end, *begin;
    status *st;
    buf str; /* the last string, unescaped */
} scan;

static bool fail(scan *s, const char *what) {
    return status_set(s->st, ST_INVALID, "header: %s at byte %zu", what, (size_t)(s->p - s->begin) + 8);
}

static void skip_space(scan *s) {
    while (s->p < s->end && (*s->p == ' ' || *s->p == '\n' || *s->p == '\t' || *s->p == '\r')) s->p++;
}

static bool peek(scan *s, char c) {
    skip_space(s);
    return s->p < s->end && *s->p == c;
}

static bool eat(scan *s, char c) {
    if (!peek(s, c)) {
        char what[32];
        snprintf(what, sizeof what, "expected '%c'", c);
        return fail(s, what);
    }
    s->p++;
    return true;
}

static bool hex4(scan *s, uint32_t *out) {
    uint32_t v = 0;
    if (s->end - s->p < 4) return fail(s, "cut-off \\u escape");
    for (int i = 0; i < 4; i++) {
        int c = *s->p++;
        int d = c >= '0' && c <= '9'                 ? c - '0'
                : (c | 32) >= 'a' && (c | 32) <= 'f' ? (c | 32) - 'a' + 10
                                                     : -1;
        if (d < 0) return fail(s, "bad \\u escape");
        v = v * 16 + (uint32_t)d;
    }
    *out = v;
    return true;
}

static bool escape(scan *s) {
    static const char from[] = "\"\\/bfnrt", to[] = "\"\\/\b\f\n\r\t";
    if (s->p >= s->end) return fail(s, "unterminated string");
    char c = (char)*s->p++;
    const char *at = c ? strchr(from, c) : NULL;
    if (at) return buf_putc(&s->str, to[at - from]);
    if (c != 'u') return fail(s, "bad escape");
    uint32_t cp, lo;
    if (!hex4(s, &cp)) return false;
    if (cp >= 0xD800 && cp < 0xDC00) {
        if (s->end - s->p < 6 || s->p[0] != '\\' || s->p[1] != 'u') return fail(s, "lone surrogate");
        s->p += 2;
        if (!hex4(s, &lo)) return false;
        if (lo < 0xDC00 || lo > 0xDFFF) return fail(s, "lone surrogate");
        cp = 0x10000 + ((cp - 0xD800) << 10) + (lo - 0xDC00);
    } else if (cp >= 0xDC00 && cp < 0xE000) {
        return fail(s, "lone surrogate");
    }
    if (cp == 0) return fail(s, "NUL in a string");
    char u[4];
    return buf_append(&s->str, u, (size_t)utf8_encode(cp, u));
}

/* Reads a string into s->str. keep false: only walks over it. */
static bool string(scan *s, bool keep) {
    if (!eat(s, '"')) return false;
    buf_clear(&s->str);
    while (s->p < s->end && *s->p != '"') {
        if (*s->p == '\\') {
            s->p++;
            if (!escape(s) && s->st->code != ST_OK) return false;
        } else if (*s->p < 0x20) {
            return fail(s, "control character in a string");
        } else {
            uint32_t cp;
            int k = utf8_decode((const char *)s->p, (size_t)(s->end - s->p), &cp);
            if (k == 0) return fail(s, "invalid UTF-8");
            if (keep) buf_append(&s->str, s->p, (size_t)k);
            s->p += k;
        }
        if (!keep) buf_clear(&s->str);
        if (s->str.len > MAX_NAME_BYTES) return fail(s, "a name longer than 4096 bytes");
    }
    if (s->str.failed || !buf_append(&s->str, "", 0) || !buf_reserve(&s->str, 1))
        return status_set(s->st, ST_NO_MEMORY, "no memory for the header");
    if (!s->str.data) return status_set(s->st, ST_NO_MEMORY, "no memory for the header");
    s->str.data[s->str.len] = 0;
    return eat(s, '"');
}

static bool number(scan *s, uint64_t *out) {
    skip_space(s);
    if (s->p >= s->end || *s->p < '0' || *s->p > '9') return fail(s, "expected a whole number >= 0");
    uint64_t v = 0;
    for (; s->p < s->end && *s->p >= '0' && *s->p <= '9'; s->p++) {
        if (__builtin_mul_overflow(v, (uint64_t)10, &v) ||
            __builtin_add_overflow(v, (uint64_t)(*s->p - '0'), &v))
            return fail(s, "a number over 64 bits");
    }
    if (s->p < s->end && (*s->p == '.' || *s->p == 'e' || *s->p == 'E'))
        return fail(s, "expected a whole number");
    *out = v;
    return true;
}

/* Walks over any value: what a later writer may add to an entry is not ours to judge. */
static bool skip_value(scan *s, int depth) {
    skip_space(s);
    if (depth > MAX_NEST) return fail(s, "nested too deeply");
    if (s->p >= s->end) return fail(s, "cut off");
    char c = (char)*s->p;
    if (c == '"') return string(s, false);
    if (c == '{' || c == '[') {
        char close = c == '{' ? '}' : ']';
        s->p++;
        if (peek(s, close)) return s->p++, true;
        for (;;) {
            if (c == '{' && (!string(s, false) || !eat(s, ':'))) return false;
            if (!skip_value(s, depth + 1)) return false;
            if (peek(s, close)) return s->p++, true;
            if (!eat(s, ',')) return false;
        }
    }
    const uint8_t *from = s->p;
    while (s->p < s->end && *s->p &&
           (strchr("+-.eE", *s->p) || (*s->p >= '0' && *s->p <= '9') || (*s->p >= 'a' && *s->p <= 'z')))
        s->p++;
    return s->p > from || fail(s, "expected a value");
}

typedef struct entry {
    uint64_t d[ST_TENSOR_MAX_DIMS], from, to;
    const st_dtype *dt;
    int nd;
    bool has_dtype, has_shape, has_offsets;
} entry;

static bool read_dtype(scan *s, entry *e) {
    if (!string(s, true)) return false;
    for (size_t i = 0; i < ARRAY_LEN(DTYPES); i++)
        if (strcmp(DTYPES[i].name, s->str.data) == 0) {
            e->dt = &DTYPES[i];
            e->has_dtype = true;
            return true;
        }
    return status_set(s->st, ST_INVALID, "unknown dtype \"%.20s\"", s->str.data);
}

static bool read_shape(scan *s, entry *e) {
    if (!eat(s, '[')) return false;
    e->has_shape = true;
    e->nd = 0;
    if (peek(s, ']')) return s->p++, true;
    for (;;) {
        if (e->nd == ST_TENSOR_MAX_DIMS) return fail(s, "more than 8 dimensions");
        if (!number(s, &e->d[e->nd])) return false;
        if (e->d[e->nd++] > INT64_MAX) return fail(s, "a dimension over 63 bits");
        if (peek(s, ']')) return s->p++, true;
        if (!eat(s, ',')) return false;
    }
}

static bool read_entry(scan *s, entry *e) {
    memset(e, 0, sizeof *e);
    if (!eat(s, '{')) return false;
    if (!peek(s, '}')) {
        for (;;) {
            if (!string(s, true) || !eat(s, ':')) return false;
            const char *key = s->str.data;
            if (strcmp(key, "dtype") == 0) {
                if (e->has_dtype) return fail(s, "dtype given twice");
                if (!read_dtype(s, e)) return false;
            } else if (strcmp(key, "shape") == 0) {
                if (e->has_shape) return fail(s, "shape given twice");
                if (!read_shape(s, e)) return false;
            } else if (strcmp(key, "data_offsets") == 0) {
                if (e->has_offsets) return fail(s, "data_offsets given twice");
                if (!eat(s, '[') || !number(s, &e->from) || !eat(s, ',') || !number(s, &e->to) ||
                    !eat(s, ']'))
                    return false;
                e->has_offsets = true;
            } else if (!skip_value(s, 0)) {
                return false;
            }
            if (peek(s, '}')) break;
            if (!eat(s, ',')) return false;
        }
    }
    s->p++;
    if (!e->has_dtype || !e->has_shape || !e->has_offsets)
        return fail(s, "a tensor without dtype, shape or data_offsets");
    return true;
}

/* Shape, dtype and offsets must tell one story. */
static bool check_entry(const st_file *f, const entry *e, size_t data_at, status *st) {
    uint64_t bits = (uint64_t)e->dt->bits, size = f->map_bytes - data_at;
    for (int i = 0; i < e->nd; i++)
        if (__builtin_mul_overflow(bits, e->d[i], &bits))
            return status_set(st, ST_INVALID, "its shape overflows");
    if (bits % 8) return status_set(st, ST_INVALID, "not a whole number of bytes");
    if (e->from > e->to || e->to > size)
        return status_set(st, ST_INVALID,
                          "data_offsets [%" PRIu64 ", %" PRIu64 "] outside of the file's %" PRIu64
                          " data bytes (is the file cut off?)",
                          e->from, e->to, size);
    if (e->to - e->from != bits / 8)
        return status_set(st, ST_INVALID,
                          "shape and dtype %s need %" PRIu64 " bytes, data_offsets give %" PRIu64,
                          e->dt->name, bits / 8, e->to - e->from);
    return true;
}

static bool add_tensor(st_file *f, char *name, const entry *e, size_t data_at, status *st) {
    if (f->n == f->cap) {
        size_t cap = f->cap ? f->cap * 2 : 256;
        st_tensor *t = mem_realloc(f->t, cap * sizeof *t);
        if (!t) return status_set(st, ST_NO_MEMORY, "no memory for %zu tensors", cap);
        f->t = t;
        f->cap = cap;
    }
    st_tensor *t = &f->t[f->n];
    *t = (st_tensor){.name = name, .dt = e->dt, .nd = e->nd, .bytes = (size_t)(e->to - e->from)};
    for (int i = 0; i < e->nd; i++) t->d[i] = (int64_t)e->d[i];
    t->data = f->map + data_at + e->from;
    f->n++;
    return true;
}

static bool read_header(st_file *f, scan *s, size_t data_at) {
    if (!eat(s, '{')) return false;
    if (peek(s, '}')) return s->p++, true;
    for (;;) {
        entry e;
        if (!string(s, true) || !eat(s, ':')) return false;
        if (strcmp(s->str.data, "__metadata__") == 0) {
            if (!skip_value(s, 0)) return false;
        } else {
            char *name = mem_strndup(s->str.data, s->str.len);
            if (!name) return status_set(s->st, ST_NO_MEMORY, "no memory for a tensor's name");
            if (!read_entry(s, &e) || !check_entry(f, &e, data_at, s->st) ||
                !add_tensor(f, name, &e, data_at, s->st)) {
                status_prefix(s->st, "tensor %.200s", name);
                mem_free(name);
                return false;
            }
        }
        if (peek(s, '}')) return s->p++, true;
        if (!eat(s, ',')) return false;
    }
}

static int by_place(const void *a, const void *b) {
    const st_tensor *x = a, *y = b;
    if (x->data != y->data) return x->data < y->data ? -1 : 1;
    return x->bytes < y->bytes ? -1 : x->bytes > y->bytes;
}

static int by_name(const void *a, const void *b) {
    return strcmp(((const st_tensor *)a)->name, ((const st_tensor *)b)->name);
}

/* The data region is covered once and without holes, as the format demands; names are unique. */
static bool check_layout(st_file *f, size_t data_at, status *st) {
    const uint8_t *at = f->map + data_at, *end = f->map + f->map_bytes;
    if (f->n) qsort(f->t, f->n, sizeof *f->t, by_place);
    for (size_t i = 0; i < f->n; i++) {
        if (f->t[i].data != at)
            return status_set(st, ST_INVALID, "tensor %.200s %s at data byte %zu", f->t[i].name,
                              f->t[i].data < at ? "overlaps another" : "leaves a hole before it",
                              (size_t)(f->t[i].data - f->map) - data_at);
        at += f->t[i].bytes;
    }
    if (at != end)
        return status_set(st, ST_INVALID, "%zu bytes behind the last tensor that none owns",
                          (size_t)(end - at));
    if (f->n) qsort(f->t, f->n, sizeof *f->t, by_name);
    for (size_t i = 1; i < f->n; i++)
        if (strcmp(f->t[i - 1].name, f->t[i].name) == 0)
            return status_set(st, ST_INVALID, "tensor %.200s is listed twice", f->t[i].name);
    return true;
}

static bool parse(st_file *f, status *st) {
    if (f->map_bytes < 8)
        return status_set(st, ST_INVALID, "%zu bytes are too few for a safetensors file", f->map_bytes);
    static const char pointer[] = "version https://git-lfs";
    if (f->map_bytes >= sizeof pointer - 1 && memcmp(f->map, pointer, sizeof pointer - 1) == 0)
        return status_set(
            st, ST_INVALID,
            "expected a safetensors file, found a Git LFS pointer of %zu bytes: the file itself was not "
            "downloaded (git lfs pull)",
            f->map_bytes);
    uint64_t n = 0;
    for (int i = 7; i >= 0; i--) n = n << 8 | f->map[i];
    if (n > ST_MAX_HEADER_BYTES)
        return status_set(st, ST_INVALID,
                          "header of %" PRIu64 " bytes, at most %u are allowed (not a safetensors file?)", n,
                          ST_MAX_HEADER_BYTES);
    if (n > f->map_bytes - 8)
        return status_set(st, ST_INVALID, "header of %" PRIu64 " bytes, the file has %zu (is it cut off?)", n,
                          f->map_bytes - 8);
    if (n == 0 || f->map[8] != '{') return status_set(st, ST_INVALID, "header does not begin with '{'");
    size_t data_at = 8 + (size_t)n;
    scan s = {.p = f->map + 8, .begin = f->map + 8, .end = f->map + data_at, .st = st};
    bool ok = read_header(f, &s, data_at);
    if (ok) {
        skip_space(&s);
        if (s.p != s.end) ok = fail(&s, "text behind the header's object");
    }
    buf_fini(&s.str);
    return ok && check_layout(f, data_at, st);
}

/* ---- files -------------------------------------------------------------------------------------------------- */

st_file *st_open_bytes(const void *data, size_t n, status *st) {
    status local = {0};
    if (!st) st = &local;
    st_file *f = mem_calloc(1, sizeof *f);
    if (!f) {
        status_set(st, ST_NO_MEMORY, "no memory for a safetensors file");
        return NULL;
    }
    f->map = data;
    f->map_bytes = n;
    if (parse(f, st)) return f;
    st_close(f);
    return NULL;
}

st_file *st_open(const char *path, status *st) {
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        status_set(st, errno == ENOENT ? ST_NOT_FOUND : ST_IO, "%s", strerror(errno));
        return NULL;
    }
    struct stat sb;
    void *map = NULL;
    if (fstat(fd, &sb) != 0) {
        status_set(st, ST_IO, "%s", strerror(errno));
    } else if (!S_ISREG(sb.st_mode)) {
        status_set(st, ST_INVALID, "not a regular file");
    } else if (sb.st_size < 8) {
        status_set(st, ST_INVALID, "%lld bytes are too few for a safetensors file", (long long)sb.st_size);
    } else {
        map = mmap(NULL, (size_t)sb.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
        if (map == MAP_FAILED) {
            status_set(st, ST_IO, "cannot map %lld bytes: %s", (long long)sb.st_size, strerror(errno));
            map = NULL;
        }
    }
    close(fd);
    if (!map) return NULL;
    st_file *f = st_open_bytes(map, (size_t)sb.st_size, st);
    if (f)
        f->mapped = true;
    else
        munmap(map, (size_t)sb.st_size);
    return f;
}

void st_close(st_file *f) {
    if (!f) return;
    for (size_t i = 0; i < f->n; i++) mem_free((void *)(uintptr_t)f->t[i].name);
    mem_free(f->t);
    if (f->mapped) munmap((void *)(uintptr_t)f->map, f->map_bytes);
    mem_free(f);
}

void st_forget(const st_file *f) {
    if (f->mapped) madvise((void *)(uintptr_t)f->map, f->map_bytes, MADV_DONTNEED);
}

size_t st_count(const st_file *f) {
    return f->n;
}

const st_tensor *st_at(const st_file *f, size_t i) {
    CHECK(i < f->n);
    return &f->t[i];
}

const st_tensor *st_find(const st_file *f, const char *name) {
    st_tensor key = {.name = name};
    return f->n ? bsearch(&key, f->t, f->n, sizeof *f->t, by_name) : NULL;
}

char *st_describe(const st_tensor *t, char *out, size_t n) {
    size_t at = 0;
    at += (size_t)snprintf(out, n, "%s [", t->dt->name);
    for (int i = 0; i < t->nd && at < n; i++)
        at += (size_t)snprintf(out + at, n - at, "%s%" PRId64, i ? ", " : "", t->d[i]);
    if (at < n) snprintf(out + at, n - at, "]");
    return out;
}
