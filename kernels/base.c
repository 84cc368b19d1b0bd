/* base.c - see base.h. Any thread; owns nothing but what its objects own. */
#include "kernels/base.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

/* ---- status ---- */

/* vsnprintf may cut a character in two and callers may pass foreign bytes: a message stays UTF-8. */
static void clean_utf8(char *s) {
    size_t n = strlen(s);
    for (size_t i = 0; i < n;) {
        uint32_t cp;
        int k = utf8_decode(s + i, n - i, &cp);
        if (k == 0) {
            s[i] = '?';
            k = 1;
        } else if (k == 1 && (unsigned char)s[i] < 0x20) {
            s[i] = ' ';
        }
        i += (size_t)k;
    }
}

bool status_set(status *st, status_code code, const char *fmt, ...) {
    if (!st || st->code != ST_OK) return false;
    st->code = code;
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(st->msg, sizeof st->msg, fmt, ap);
    va_end(ap);
    clean_utf8(st->msg);
    return false;
}

bool status_param(status *st, const char *fmt, ...) {
    if (!st || st->param[0]) return false;
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(st->param, sizeof st->param, fmt, ap);
    va_end(ap);
    clean_utf8(st->param);
    return false;
}

bool status_prefix(status *st, const char *fmt, ...) {
    if (!st || st->code == ST_OK) return false;
    char head[sizeof st->msg], old[sizeof st->msg];
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(head, sizeof head, fmt, ap);
    va_end(ap);
    if (n < 0) return false;
    memcpy(old, st->msg, sizeof old);
    /* A long head gives way to the message, which says what is wrong. */
    int head_max = (int)sizeof head - 3 - (int)strlen(old);
    if (head_max < 80) head_max = 80;
    snprintf(st->msg, sizeof st->msg, "%.*s: %.*s", head_max, head, (int)sizeof st->msg - 3, old);
    clean_utf8(st->msg);
    return false;
}

/* ---- log ---- */

static _Atomic int g_level = LOG_INFO;
static atomic_bool g_json;

void log_set_level(log_level level) {
    atomic_store(&g_level, (int)level);
}

void log_set_json(bool json) {
    atomic_store(&g_json, json);
}

bool log_is_json(void) {
    return atomic_load(&g_json);
}

bool log_wants(log_level level) {
    return (int)level >= atomic_load(&g_level);
}

enum { LOG_LINE = 4096 };

/* Time and level; the caller's members or text follow. */
static size_t log_head(char *line, log_level level) {
    static const char *const names[] = {"debug", "info", "warn", "error"};
    struct timespec ts;
    struct tm tm;
    char day[32], zone[8];
    clock_gettime(CLOCK_REALTIME, &ts);
    localtime_r(&ts.tv_sec, &tm);
    int n, ms = (int)(ts.tv_nsec / 1000000);
    if (log_is_json()) {
        strftime(day, sizeof day, "%Y-%m-%dT%H:%M:%S", &tm);
        strftime(zone, sizeof zone, "%z", &tm);
        n = snprintf(line, LOG_LINE, "{\"time\":\"%s.%03d%s\",\"level\":\"%s\",", day, ms, zone,
                     names[level]);
    } else {
        strftime(day, sizeof day, "%Y-%m-%d %H:%M:%S", &tm);
        n = snprintf(line, LOG_LINE, "%s.%03d %s ", day, ms, names[level]);
    }
    return n > 0 ? (size_t)n : 0;
}

static void log_write(char *line, size_t n) {
    for (size_t i = 0; i < n; i++)
        if ((unsigned char)line[i] < 0x20) line[i] = ' ';
    line[n++] = '\n';
    ssize_t w = write(STDERR_FILENO, line, n); /* one write: lines of threads do not mix */
    (void)w;
}

void log_event(log_level level, const char *text_or_members) {
    if (!log_wants(level)) return;
    char line[LOG_LINE];
    size_t n = log_head(line, level), k = strlen(text_or_members), room = sizeof line - n - 2;
    if (k > room && log_is_json()) return; /* half an object is none */
    if (k > room) k = room;
    memcpy(line + n, text_or_members, k);
    n += k;
    if (log_is_json()) line[n++] = '}';
    log_write(line, n);
}

/* "message":"..." of at most room bytes, which is enough for quotes and name. */
static size_t json_message(char *to, size_t room, const char *s) {
    size_t n = 0, len = strlen(s);
    static const char name[] = "\"message\":\"";
    memcpy(to, name, sizeof name - 1);
    n += sizeof name - 1;
    for (size_t i = 0; i < len && n + 8 < room;) {
        uint32_t cp;
        int k = utf8_decode(s + i, len - i, &cp);
        if (!k || cp < 0x20) { /* no character, or a control one */
            to[n++] = k ? ' ' : '?';
            i++;
            continue;
        }
        if (cp == '"' || cp == '\\') to[n++] = '\\';
        for (; k > 0; k--) to[n++] = s[i++];
    }
    to[n++] = '"';
    return n;
}

void log_at(log_level level, const char *fmt, ...) {
    if (!log_wants(level)) return;
    char line[LOG_LINE], text[2048];
    va_list ap;
    va_start(ap, fmt);
    int m = vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    if (m < 0) return;
    size_t n = log_head(line, level);
    if (log_is_json()) {
        n += json_message(line + n, sizeof line - n - 2, text);
        line[n++] = '}';
    } else {
        size_t k = strlen(text);
        memcpy(line + n, text, k);
        n += k;
    }
    log_write(line, n);
}

void check_failed(const char *file, int line, const char *what) {
    fprintf(stderr, "vlmd: internal error at %s:%d: %s\n", file, line, what);
    abort();
}

/* ---- memory ---- */

void *mem_alloc(size_t n) {
    return malloc(n ? n : 1);
}

void *mem_calloc(size_t count, size_t size) {
    return calloc(count ? count : 1, size ? size : 1);
}

void *mem_realloc(void *p, size_t n) {
    return realloc(p, n ? n : 1);
}

void *mem_aligned(size_t align, size_t n) {
    void *p = NULL;
    return posix_memalign(&p, align, n ? n : 1) == 0 ? p : NULL;
}

char *mem_strndup(const char *s, size_t n) {
    char *p = mem_alloc(n + 1);
    if (!p) return NULL;
    memcpy(p, s, n);
    p[n] = 0;
    return p;
}

char *mem_strdup(const char *s) {
    return mem_strndup(s, strlen(s));
}

void mem_free(void *p) {
    free(p);
}

/* ---- arena ---- */

bool arena_init(arena *a, size_t cap_bytes, status *st) {
    *a = (arena){0};
    a->base = mem_aligned(64, cap_bytes);
    if (!a->base) return status_set(st, ST_NO_MEMORY, "no memory for a work area of %zu bytes", cap_bytes);
    a->cap_bytes = cap_bytes;
    return true;
}

void arena_fini(arena *a) {
    mem_free(a->base);
    *a = (arena){0};
}

void *arena_alloc(arena *a, size_t n) {
    size_t need = (n + 63) & ~(size_t)63;
    if (need < n) return NULL;
    if (a->base && need > a->cap_bytes - a->used_bytes) return NULL;
    void *p = a->base ? a->base + a->used_bytes : NULL;
    a->used_bytes += need;
    if (a->used_bytes > a->peak_bytes) a->peak_bytes = a->used_bytes;
    return p;
}

/* ---- buf ---- */

void buf_fini(buf *b) {
    mem_free(b->data);
    *b = (buf){0};
}

bool buf_reserve(buf *b, size_t extra) {
    if (b->failed) return false;
    if (extra >= SIZE_MAX / 2 - b->len) return b->failed = true, false;
    size_t need = b->len + extra + 1;
    if (need <= b->cap) return true;
    size_t cap = b->cap ? b->cap : 64;
    while (cap < need) cap *= 2;
    char *p = mem_realloc(b->data, cap);
    if (!p) return b->failed = true, false;
    b->data = p;
    b->cap = cap;
    b->data[b->len] = 0;
    return true;
}

bool buf_append(buf *b, const void *p, size_t n) {
    if (!buf_reserve(b, n)) return false;
    if (n) memcpy(b->data + b->len, p, n);
    b->len += n;
    b->data[b->len] = 0;
    return true;
}

bool buf_puts(buf *b, const char *s) {
    return buf_append(b, s, strlen(s));
}

bool buf_putc(buf *b, char c) {
    return buf_append(b, &c, 1);
}

bool buf_printf(buf *b, const char *fmt, ...) {
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(NULL, 0, fmt, ap);
    va_end(ap);
    if (n < 0 || !buf_reserve(b, (size_t)n)) return false;
    va_start(ap, fmt);
    vsnprintf(b->data + b->len, (size_t)n + 1, fmt, ap);
    va_end(ap);
    b->len += (size_t)n;
    return true;
}

bool buf_read_file(buf *b, const char *path, size_t max_bytes, status *st) {
    enum { STEP = 1 << 16 };
    FILE *f = fopen(path, "rbe");
    if (!f) {
        bool none = errno == ENOENT || errno == ENOTDIR;
        return status_set(st, none ? ST_NOT_FOUND : ST_IO, "%s", strerror(errno));
    }
    bool ok = true;
    size_t before = b->len, got = STEP;
    while (ok && got == STEP) {
        if (!buf_reserve(b, STEP)) {
            ok = status_set(st, ST_NO_MEMORY, "no memory to read the file");
            break;
        }
        got = fread(b->data + b->len, 1, STEP, f);
        b->len += got;
        b->data[b->len] = 0;
        if (got < STEP && ferror(f))
            ok = status_set(st, ST_IO, "cannot read: %s", strerror(errno));
        else if (b->len - before > max_bytes)
            ok = status_set(st, ST_INVALID, "larger than %zu bytes, the bound for such a file", max_bytes);
    }
    fclose(f);
    return ok;
}

/* ---- UTF-8 (The Unicode Standard, table 3-7: well-formed byte sequences) ---- */

/* Length of the well-formed sequence at p, or 0; *bad gets how many bytes one U+FFFD stands for, and
 * *cut says that only the end of input broke the sequence. */
static int sequence(const unsigned char *p, size_t n, int *bad, bool *cut) {
    unsigned char c = p[0], lo = 0x80, hi = 0xBF;
    int len;
    *bad = 1;
    *cut = false;
    if (c < 0x80) return 1;
    if (c >= 0xC2 && c <= 0xDF)
        len = 2;
    else if (c >= 0xE0 && c <= 0xEF)
        len = 3;
    else if (c >= 0xF0 && c <= 0xF4)
        len = 4;
    else
        return 0;
    if (c == 0xE0) lo = 0xA0;
    if (c == 0xED) hi = 0x9F;
    if (c == 0xF0) lo = 0x90;
    if (c == 0xF4) hi = 0x8F;
    for (int i = 1; i < len; i++) {
        *bad = i;
        if ((size_t)i >= n) return *cut = true, 0;
        if (p[i] < lo || p[i] > hi) return 0;
        lo = 0x80;
        hi = 0xBF;
    }
    return len;
}

bool buf_append_utf8(buf *b, const char *s, size_t n) {
    const unsigned char *p = (const unsigned char *)s;
    size_t from = 0, i = 0;
    while (i < n) {
        int bad;
        bool cut;
        int k = sequence(p + i, n - i, &bad, &cut);
        if (k) {
            i += (size_t)k;
            continue;
        }
        buf_append(b, s + from, i - from);
        buf_append(b, "\xEF\xBF\xBD", 3);
        i += (size_t)bad;
        from = i;
    }
    return buf_append(b, s + from, n - from);
}

size_t utf8_whole_prefix(const char *s, size_t n) {
    const unsigned char *p = (const unsigned char *)s;
    for (size_t back = 1; back <= 3 && back <= n; back++) {
        if ((p[n - back] & 0xC0) == 0x80) continue;
        int bad;
        bool cut;
        if (!sequence(p + n - back, back, &bad, &cut) && cut) return n - back;
        break;
    }
    return n;
}

int utf8_decode(const char *s, size_t n, uint32_t *cp) {
    const unsigned char *p = (const unsigned char *)s;
    int bad;
    bool cut;
    int k = sequence(p, n, &bad, &cut);
    if (k == 1)
        *cp = p[0];
    else if (k == 2)
        *cp = (uint32_t)(p[0] & 0x1F) << 6 | (p[1] & 0x3F);
    else if (k == 3)
        *cp = (uint32_t)(p[0] & 0x0F) << 12 | (uint32_t)(p[1] & 0x3F) << 6 | (p[2] & 0x3F);
    else if (k == 4)
        *cp = (uint32_t)(p[0] & 0x07) << 18 | (uint32_t)(p[1] & 0x3F) << 12 | (uint32_t)(p[2] & 0x3F) << 6 |
              (p[3] & 0x3F);
    return k;
}

bool utf8_valid(const char *s, size_t n) {
    for (size_t i = 0; i < n;) {
        uint32_t cp;
        int k = (unsigned char)s[i] < 0x80 ? 1 : utf8_decode(s + i, n - i, &cp);
        if (k == 0) return false;
        i += (size_t)k;
    }
    return true;
}

int utf8_encode(uint32_t cp, char *out) {
    if (cp < 0x80) {
        out[0] = (char)cp;
        return 1;
    }
    if (cp < 0x800) {
        out[0] = (char)(0xC0 | cp >> 6);
        out[1] = (char)(0x80 | (cp & 0x3F));
        return 2;
    }
    if (cp < 0x10000) {
        out[0] = (char)(0xE0 | cp >> 12);
        out[1] = (char)(0x80 | (cp >> 6 & 0x3F));
        out[2] = (char)(0x80 | (cp & 0x3F));
        return 3;
    }
    out[0] = (char)(0xF0 | cp >> 18);
    out[1] = (char)(0x80 | (cp >> 12 & 0x3F));
    out[2] = (char)(0x80 | (cp >> 6 & 0x3F));
    out[3] = (char)(0x80 | (cp & 0x3F));
    return 4;
}

double time_now_s(void) {
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (double)ts.tv_sec + 1e-9 * (double)ts.tv_nsec;
}
