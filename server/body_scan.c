/* body_scan.c - see body_scan.h. One thread; owns skeleton and span list, borrows the body. */
#include "server/body_scan.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/random.h>

/* The keys on the way to a picture's URL. */
typedef enum key_kind {
    KEY_OTHER,
    KEY_MESSAGES,
    KEY_CONTENT,
    KEY_IMAGE_URL,
    KEY_URL,
    KEY_INPUT,
    KEY_IMAGE
} key_kind;

/* What stands on the way from the body to a picture's URL: the key of each object, A for a list. */
static const char KEY_SIGNS[] = "?MCIUNG";
static const char *const PICTURE_PATHS[] = {
    "MACAI", "MACAIU", /* messages[].content[].image_url(.url) */
    "NI",    "NIU",    "NAI",   "NAIU",
    "NG",    "NGU",    "NAG",   "NAGU",   /* input(.|[].)image_url(.url), input(.|[].)image */
    "NCAI",  "NCAIU",  "NACAI", "NACAIU", /* input(.|[].)content[].image_url(.url) */
    "G",     "GU",     "GI",    "GIU",    /* image, image.url, image.image_url(.url) */
};
enum { PICTURE_MAX_DEPTH = 6 };

typedef struct walker {
    char *p;
    size_t n, i;
    size_t next_quote, next_escape; /* found ahead by memchr; n when there is none */
    int depth;
    struct level {
        bool object, at_key;
        key_kind key;
    } at[BODY_MAX_DEPTH + 1];
} walker;

static size_t find(const walker *w, size_t from, char c) {
    if (from >= w->n) return w->n;
    const char *q = memchr(w->p + from, c, w->n - from);
    return q ? (size_t)(q - w->p) : w->n;
}

/* The closing quote of the string whose content starts at i, or n. Each of quote and escape is searched again
 * only once it has been passed, so that the whole walk stays linear. */
static size_t string_end(walker *w, size_t i) {
    for (;;) {
        if (w->next_quote < i) w->next_quote = find(w, i, '"');
        if (w->next_escape < i) w->next_escape = find(w, i, '\\');
        if (w->next_quote <= w->next_escape) return w->next_quote;
        i = w->next_escape + 2;
        if (i > w->n) return w->n;
    }
}

static key_kind key_of(const char *s, size_t n) {
    static const struct {
        const char *name;
        key_kind kind;
    } keys[] = {{"messages", KEY_MESSAGES}, {"content", KEY_CONTENT}, {"image_url", KEY_IMAGE_URL},
                {"url", KEY_URL},           {"input", KEY_INPUT},     {"image", KEY_IMAGE}};
    for (size_t i = 0; i < ARRAY_LEN(keys); i++)
        if (strlen(keys[i].name) == n && memcmp(keys[i].name, s, n) == 0) return keys[i].kind;
    return KEY_OTHER;
}

static bool at_picture(const walker *w) {
    char path[PICTURE_MAX_DEPTH + 1];
    if (w->depth < 1 || w->depth > PICTURE_MAX_DEPTH) return false;
    for (int i = 0; i < w->depth; i++) path[i] = w->at[i + 1].object ? KEY_SIGNS[w->at[i + 1].key] : 'A';
    path[w->depth] = 0;
    for (size_t i = 0; i < ARRAY_LEN(PICTURE_PATHS); i++)
        if (strcmp(PICTURE_PATHS[i], path) == 0) return true;
    return false;
}

static int hex4(const char *p) {
    int v = 0;
    for (int i = 0; i < 4; i++) {
        char c = p[i];
        int d = c >= '0' && c <= '9'   ? c - '0'
                : c >= 'a' && c <= 'f' ? c - 'a' + 10
                : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                       : -1;
        if (d < 0) return -1;
        v = v * 16 + d;
    }
    return v;
}

/* Undoes JSON's escapes in place. SIZE_MAX when one is malformed or stands for nothing that a data URL may
 * hold; the string is then untouched as far as the JSON library is concerned: nothing was written yet. */
static size_t unescape(char *p, size_t n) {
    for (size_t i = 0; i < n;) { /* look before writing */
        const char *q = memchr(p + i, '\\', n - i);
        if (!q) break;
        i = (size_t)(q - p);
        if (i + 1 >= n || !strchr("\"\\/bfnrtu", p[i + 1]) || p[i + 1] == 0) return SIZE_MAX;
        if (p[i + 1] == 'u') {
            int v = i + 6 <= n ? hex4(p + i + 2) : -1;
            if (v <= 0 || v > 0x7E) return SIZE_MAX;
            i += 6;
        } else {
            i += 2;
        }
    }
    const char *first = memchr(p, '\\', n);
    if (!first) return n;
    size_t out = (size_t)(first - p);
    for (size_t i = out; i < n;) {
        if (p[i] != '\\') {
            const char *q = memchr(p + i, '\\', n - i);
            size_t run = q ? (size_t)(q - p) - i : n - i;
            memmove(p + out, p + i, run);
            out += run;
            i += run;
            continue;
        }
        static const char from[] = "bfnrt", to[] = "\b\f\n\r\t";
        char c = p[i + 1];
        const char *named = strchr(from, c);
        if (c == 'u') {
            p[out++] = (char)hex4(p + i + 2);
            i += 6;
        } else {
            p[out++] = named ? to[named - from] : c;
            i += 2;
        }
    }
    return out;
}

static bool add_span(body_scan *s, char *p, size_t n, status *st) {
    if (s->n_spans == s->cap_spans) {
        int cap = s->cap_spans ? s->cap_spans * 2 : 8;
        body_span *more = mem_realloc(s->spans, sizeof *more * (size_t)cap);
        if (!more) return status_set(st, ST_NO_MEMORY, "no memory for the request");
        s->spans = more;
        s->cap_spans = cap;
    }
    s->spans[s->n_spans++] = (body_span){p, n};
    return true;
}

static void draw_tag(body_scan *s) {
    uint64_t r[2] = {0};
    if (getrandom(r, sizeof r, GRND_NONBLOCK) != (ssize_t)sizeof r) {
        /* A guessed tag lets a client refer to its own picture twice, no more. */
        r[0] = (uint64_t)(time_now_s() * 1e9);
        r[1] = (uint64_t)(uintptr_t)s;
    }
    snprintf(s->tag, sizeof s->tag, "vlmd:%016llx%016llx:", (unsigned long long)r[0],
             (unsigned long long)r[1]);
}

/* One value string: lifts it when it is a picture. *from is where the skeleton still has to copy from. */
static bool visit_string(body_scan *s, walker *w, size_t end, size_t *from, status *st) {
    size_t begin = w->i + 1, n = end - begin;
    if (n < 5 || !at_picture(w) || strncasecmp(w->p + begin, "data:", 5) != 0) return true;
    size_t plain = unescape(w->p + begin, n);
    if (plain == SIZE_MAX) return true;
    if (!s->n_spans) draw_tag(s);
    buf_append(&s->skeleton, w->p + *from, begin - *from);
    buf_printf(&s->skeleton, "%s%d", s->tag, s->n_spans);
    *from = end;
    if (s->skeleton.failed) return status_set(st, ST_NO_MEMORY, "no memory for the request");
    return add_span(s, w->p + begin, plain, st);
}

static bool walk(body_scan *s, walker *w, status *st) {
    size_t from = 0;
    for (; w->i < w->n; w->i++) {
        struct level *top = &w->at[w->depth];
        char c = w->p[w->i];
        if (c == '"') {
            size_t end = string_end(w, w->i + 1);
            if (end >= w->n) break;
            if (top->object && top->at_key)
                top->key = key_of(w->p + w->i + 1, end - w->i - 1);
            else if (!visit_string(s, w, end, &from, st))
                return false;
            w->i = end;
        } else if (c == '{' || c == '[') {
            if (w->depth == BODY_MAX_DEPTH)
                return status_set(st, ST_INVALID, "the JSON body nests deeper than %d levels",
                                  BODY_MAX_DEPTH);
            w->at[++w->depth] = (struct level){.object = c == '{', .at_key = c == '{'};
        } else if (c == '}' || c == ']') {
            if (w->depth) w->depth--;
        } else if (c == ',') {
            top->at_key = top->object;
        } else if (c == ':') {
            top->at_key = false;
        }
    }
    if (s->n_spans) {
        if (!buf_append(&s->skeleton, w->p + from, w->n - from))
            return status_set(st, ST_NO_MEMORY, "no memory for the request");
        s->json = s->skeleton.data;
        s->n_json = s->skeleton.len;
    }
    return true;
}

bool body_scan_run(body_scan *s, char *body, size_t n, status *st) {
    *s = (body_scan){.json = body, .n_json = n};
    if (n >= 3 &&
        memcmp(body, "\xEF\xBB\xBF", 3) == 0) { /* a byte order mark is no JSON, but some clients send it */
        body += 3;
        n -= 3;
        s->json = body;
        s->n_json = n;
    }
    walker w = {.p = body, .n = n};
    w.next_quote = find(&w, 0, '"');
    w.next_escape = find(&w, 0, '\\');
    return walk(s, &w, st);
}

void body_scan_fini(body_scan *s) {
    buf_fini(&s->skeleton);
    mem_free(s->spans);
    *s = (body_scan){0};
}

const body_span *body_scan_find(const body_scan *s, const char *text, size_t n) {
    size_t k = strlen(s->tag);
    if (!s->n_spans || n <= k || n > k + 9 || memcmp(text, s->tag, k) != 0) return NULL;
    int i = atoi(text + k);
    return i >= 0 && i < s->n_spans ? &s->spans[i] : NULL;
}
