/* str.c - strings that remember which bytes came from the user, and the builder that makes them.
 * Spans of a string are sorted, disjoint and not adjacent. One thread; memory is the env's. */
#include <string.h>

#include "engine/tmpl/value.h"

static str *str_alloc(env *e, const char *p, size_t n) {
    str *s = env_alloc(e, sizeof *s);
    s->p = p;
    s->n = n;
    s->n_cp = SIZE_MAX;
    return s;
}

str *str_new(env *e, const char *p, size_t n, bool user) {
    str *s = str_alloc(e, p, n);
    if (user && n) {
        span *u = env_alloc(e, sizeof *u);
        *u = (span){0, n};
        s->user = u;
        s->n_user = 1;
    }
    return s;
}

str *str_lit(env *e, const char *z) {
    return str_new(e, z, strlen(z), false);
}

str *str_copy(env *e, const char *p, size_t n, bool user) {
    char *q = env_alloc(e, n + 1);
    memcpy(q, p, n);
    q[n] = 0;
    return str_new(e, q, n, user);
}

val lit_val(env *e, const char *z) {
    return str_val(str_lit(e, z));
}

int str_char(const str *s, size_t i, uint32_t *cp) {
    unsigned char c = (unsigned char)s->p[i];
    if (c < 0x80) {
        *cp = c;
        return 1;
    }
    int k = utf8_decode(s->p + i, s->n - i, cp);
    if (k > 0) return k;
    *cp = 0xFFFD;
    return 1;
}

size_t str_len(env *e, str *s) {
    if (s->n_cp == SIZE_MAX) {
        env_step(e, s->n / 64);
        size_t n = 0;
        uint32_t cp;
        for (size_t i = 0; i < s->n; n++) i += (size_t)str_char(s, i, &cp);
        s->n_cp = n;
    }
    return s->n_cp;
}

size_t str_offset(env *e, str *s, size_t i) {
    if (str_len(e, s) == s->n) return i < s->n ? i : s->n;
    env_step(e, i / 64);
    size_t at = 0;
    uint32_t cp;
    for (; i > 0 && at < s->n; i--) at += (size_t)str_char(s, at, &cp);
    return at;
}

/* Index of the first span that ends after byte i. */
static size_t span_after(const span *u, size_t n, size_t i) {
    size_t lo = 0, hi = n;
    while (lo < hi) {
        size_t mid = (lo + hi) / 2;
        if (u[mid].end <= i)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo;
}

bool str_user_at(const str *s, size_t i) {
    size_t k = span_after(s->user, s->n_user, i);
    return k < s->n_user && s->user[k].begin <= i;
}

bool str_user_in(const str *s, size_t b, size_t e2) {
    size_t k = span_after(s->user, s->n_user, b);
    return k < s->n_user && s->user[k].begin < e2;
}

bool str_any_user(const str *s) {
    return s->n_user > 0;
}

str *str_sub(env *e, const str *s, size_t b, size_t e2) {
    if (b == 0 && e2 == s->n) return (str *)s;
    str *r = str_alloc(e, s->p + b, e2 - b);
    if (s->n_cp == s->n) r->n_cp = r->n;
    r->markup = s->markup;
    if (s->n_user == 0 || b == e2) return r;
    size_t first = span_after(s->user, s->n_user, b), last = first;
    while (last < s->n_user && s->user[last].begin < e2) last++;
    if (last == first) return r;
    env_step(e, (last - first) / 16);
    span *u = env_array(e, last - first, sizeof *u);
    for (size_t i = first; i < last; i++) {
        size_t x = s->user[i].begin < b ? b : s->user[i].begin, y = s->user[i].end > e2 ? e2 : s->user[i].end;
        u[i - first] = (span){x - b, y - b};
    }
    r->user = u;
    r->n_user = last - first;
    return r;
}

/* Appending to the string that was appended to last costs only the new part: s = s + t in a loop is linear.
 */
str *str_concat(env *e, str *a, str *b) {
    if (a->n == 0 && !a->markup) return b;
    if (b->n == 0 && !b->markup) return a;
    size_t n = a->n + b->n;
    if (n > e->max_str_bytes) fail(e, "a string grows beyond %zu MiB", e->max_str_bytes >> 20);
    env_step(e, b->n / 64);
    strbuf *own = a->own;
    if (!own || a->p + a->n != own->data + own->used || own->cap - own->used < b->n) {
        env_step(e, a->n / 64);
        own = env_alloc(e, sizeof *own);
        own->cap = n < 64 ? n : 2 * n;
        own->data = env_alloc(e, own->cap);
        memcpy(own->data, a->p, a->n);
        own->used = a->n;
        str *head = str_alloc(e, own->data, a->n);
        head->n_cp = a->n_cp;
        head->user = a->user;
        head->n_user = a->n_user;
        head->markup = a->markup;
        a = head;
    }
    memcpy(own->data + own->used, b->p, b->n);
    own->used += b->n;
    str *r = str_alloc(e, a->p, n);
    if (a->n_cp != SIZE_MAX && b->n_cp != SIZE_MAX) r->n_cp = a->n_cp + b->n_cp;
    r->own = own;
    r->markup = a->markup && b->markup;
    if (a->n_user + b->n_user == 0) return r;
    env_step(e, (a->n_user + b->n_user) / 16);
    span *u = env_array(e, a->n_user + b->n_user, sizeof *u);
    size_t k = a->n_user;
    if (k) memcpy(u, a->user, k * sizeof *u);
    for (size_t i = 0; i < b->n_user; i++) {
        span x = {b->user[i].begin + a->n, b->user[i].end + a->n};
        if (k && u[k - 1].end == x.begin)
            u[k - 1].end = x.end;
        else
            u[k++] = x;
    }
    r->user = u;
    r->n_user = k;
    return r;
}

bool str_eq(const str *a, const str *b) {
    return a->n == b->n && memcmp(a->p, b->p, a->n) == 0;
}

bool str_is(const str *a, const char *z) {
    return strlen(z) == a->n && memcmp(a->p, z, a->n) == 0;
}

int str_cmp(const str *a, const str *b) { /* UTF-8 sorts as its code points do */
    size_t n = a->n < b->n ? a->n : b->n;
    int c = n ? memcmp(a->p, b->p, n) : 0;
    return c ? c : (a->n > b->n) - (a->n < b->n);
}

size_t str_find(env *e, const str *s, const str *needle, size_t from, size_t to) {
    if (from > to || needle->n > to - from) return SIZE_MAX;
    if (needle->n == 0) return from;
    const char *hit = memmem(s->p + from, to - from, needle->p, needle->n); /* glibc's is linear */
    env_step(e, (hit ? (size_t)(hit - s->p) - from : to - from) / 64 + 1);
    return hit ? (size_t)(hit - s->p) : SIZE_MAX;
}

size_t str_rfind(env *e, const str *s, const str *needle, size_t from, size_t to) {
    if (from > to || needle->n > to - from) return SIZE_MAX;
    if (needle->n == 0) return to;
    for (size_t i = to - needle->n + 1; i-- > from;) {
        env_step(e, 1);
        if (s->p[i] != needle->p[0]) continue;
        env_step(e, needle->n / 64);
        if (memcmp(s->p + i, needle->p, needle->n) == 0) return i;
    }
    return SIZE_MAX;
}

/* ---- builder ---- */

static void sb_room(sb *b, size_t extra) {
    if (extra > b->e->max_str_bytes || b->n > b->e->max_str_bytes - extra)
        fail(b->e, "a string grows beyond %zu MiB", b->e->max_str_bytes >> 20);
    if (b->cap - b->n >= extra) return;
    size_t cap = b->cap ? b->cap : 32;
    while (cap - b->n < extra) cap *= 2;
    char *p = env_alloc(b->e, cap);
    if (b->n) memcpy(p, b->p, b->n);
    env_step(b->e, cap / 128);
    b->p = p;
    b->cap = cap;
}

static void sb_mark(sb *b, size_t begin, size_t end) {
    if (begin == end) return;
    if (b->n_user && b->user[b->n_user - 1].end == begin) {
        b->user[b->n_user - 1].end = end;
        return;
    }
    if (b->n_user == b->cap_user) {
        size_t cap = b->cap_user ? 2 * b->cap_user : 4;
        span *u = env_array(b->e, cap, sizeof *u);
        if (b->n_user) memcpy(u, b->user, b->n_user * sizeof *u);
        b->user = u;
        b->cap_user = cap;
    }
    b->user[b->n_user++] = (span){begin, end};
}

void sb_add(sb *b, const char *p, size_t n, bool user) {
    if (n == 0) return;
    sb_room(b, n);
    memcpy(b->p + b->n, p, n);
    if (user) sb_mark(b, b->n, b->n + n);
    b->n += n;
    if (n >= 64) env_step(b->e, n / 64);
}

void sb_puts(sb *b, const char *z) {
    sb_add(b, z, strlen(z), false);
}

void sb_cp(sb *b, uint32_t cp, bool user) {
    char c[4] = {0};
    sb_add(b, c, (size_t)utf8_encode(cp, c), user);
}

void sb_sub(sb *b, const str *s, size_t begin, size_t end) {
    size_t at = b->n;
    sb_add(b, s->p + begin, end - begin, false);
    for (size_t i = span_after(s->user, s->n_user, begin); i < s->n_user && s->user[i].begin < end; i++) {
        size_t x = s->user[i].begin < begin ? begin : s->user[i].begin;
        size_t y = s->user[i].end > end ? end : s->user[i].end;
        sb_mark(b, at + x - begin, at + y - begin);
    }
}

void sb_str(sb *b, const str *s) {
    sb_sub(b, s, 0, s->n);
}

void sb_escaped(sb *b, const str *s, sb_escape *escape, int how) {
    size_t from = 0;
    for (size_t i = 0; i < s->n;) {
        uint32_t cp;
        char to[16];
        size_t k = (size_t)str_char(s, i, &cp);
        to[0] = 0;
        escape(to, cp, how);
        if (to[0]) {
            sb_sub(b, s, from, i);
            sb_add(b, to, strlen(to), str_user_at(s, i));
            from = i + k;
        }
        i += k;
    }
    sb_sub(b, s, from, s->n);
}

void sb_repeat(sb *b, const str *s, size_t times) {
    if (s->n == 0) return;
    if (times > b->e->max_str_bytes / s->n)
        fail(b->e, "a string grows beyond %zu MiB", b->e->max_str_bytes >> 20);
    sb_room(b, s->n * times);
    env_step(b->e, times);
    while (times-- > 0) sb_str(b, s);
}

str *sb_done(sb *b) {
    str *s = str_alloc(b->e, b->p ? b->p : "", b->n);
    s->user = b->user;
    s->n_user = b->n_user;
    return s;
}
