/* base.h - what every file of vlmd stands on: status, log, memory, arena, byte buffer.
 *
 * Threads: status, arena and buf belong to one thread at a time; log_* and mem_* may be called from any.
 * Errors: a caller's or the environment's fault becomes a status with a message that says what was expected
 * and what was found. Our own bug is an assert (CHECK), in every build. Nothing here exits.
 * Tested by tests/kernels/test_base.c. */
#ifndef VLMD_KERNELS_BASE_H
#define VLMD_KERNELS_BASE_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define PRINTF_LIKE(fmt, args) __attribute__((format(printf, fmt, args)))
#define ARRAY_LEN(a)           (sizeof(a) / sizeof((a)[0]))

/* ---- status ----------------------------------------------------------------------------------------- */

typedef enum status_code {
    ST_OK = 0,
    ST_INVALID,     /* the caller's input is wrong                    HTTP 400 */
    ST_UNSUPPORTED, /* understood, but vlmd does not do it            HTTP 400 */
    ST_NOT_FOUND,   /* no such model, route, file                     HTTP 404 */
    ST_TOO_LARGE,   /* over a configured bound                        HTTP 413 (400 inside a body) */
    ST_BUSY,        /* does not fit now                               HTTP 429 */
    ST_CANCELLED,   /* the client left, or the server is stopping     HTTP 503 */
    ST_NO_MEMORY,   /* the environment refused memory                 HTTP 503 */
    ST_IO,          /* a file or the system failed                    HTTP 500 */
    ST_INTERNAL,    /* the model or the device failed                 HTTP 500 */
    ST_LOST         /* the device failed for good: the process ends   HTTP 500 */
} status_code;

/* The first error sticks: status_set on a status that already holds one leaves it alone. Zero-initialise. */
typedef struct status {
    status_code code;
    char param[64]; /* which field of the request is at fault ("messages[0].content"), or "" */
    char msg[440];  /* one or two sentences, no trailing newline, always valid UTF-8 */
} status;

/* Always returns false, so that a fallible function can end with `return status_set(st, ...)`.
 * st may be NULL. */
bool status_set(status *st, status_code code, const char *fmt, ...) PRINTF_LIKE(3, 4);
/* Names the field at fault, unless one is named already. Returns false. */
bool status_param(status *st, const char *fmt, ...) PRINTF_LIKE(2, 3);
/* Puts "fmt: " before the message of a failed status (which file, which tensor). Returns false. */
bool status_prefix(status *st, const char *fmt, ...) PRINTF_LIKE(2, 3);

/* ---- log: one line a call, to stderr, whole lines only ------------------------------------------------ */

typedef enum log_level { LOG_DEBUG, LOG_INFO, LOG_WARN, LOG_ERROR } log_level;
void log_set_level(log_level level);
void log_set_json(bool json); /* lines are objects: {"time":...,"level":...,"message":...} */
bool log_is_json(void);
bool log_wants(log_level level); /* whether a line of this level would be written */
/* A line that its caller made: as it stands after time and level, or in JSON the object's further members. */
void log_event(log_level level, const char *text_or_members);
void log_at(log_level level, const char *fmt, ...) PRINTF_LIKE(2, 3);
#define log_debug(...) log_at(LOG_DEBUG, __VA_ARGS__)
#define log_info(...)  log_at(LOG_INFO, __VA_ARGS__)
#define log_warn(...)  log_at(LOG_WARN, __VA_ARGS__)
#define log_error(...) log_at(LOG_ERROR, __VA_ARGS__)

/* An invariant of ours; prints and aborts, in every build. Never for input. */
#define CHECK(cond)                                                                                          \
    do {                                                                                                     \
        if (!(cond)) check_failed(__FILE__, __LINE__, #cond);                                                \
    } while (0)
_Noreturn void check_failed(const char *file, int line, const char *what);

/* ---- memory: the only allocator of vlmd's own code ---------------------------------------------------- */

/* NULL when the system refuses (or a test says so); every caller handles it. n may be 0. */
void *mem_alloc(size_t n);
void *mem_calloc(size_t count, size_t size); /* zeroed; NULL on overflow too */
void *mem_realloc(void *p, size_t n);
void *mem_aligned(size_t align, size_t n); /* align: a power of two >= 8 */
char *mem_strndup(const char *s, size_t n);
char *mem_strdup(const char *s);
void mem_free(void *p); /* NULL is fine; takes what any of the above returned */

/* ---- arena: bump allocation, given back all at once ---------------------------------------------------- */

typedef struct arena {
    uint8_t *base;
    size_t cap_bytes, used_bytes, peak_bytes;
} arena;
bool arena_init(arena *a, size_t cap_bytes, status *st); /* owns cap_bytes until arena_fini */
void arena_fini(arena *a);
/* 64-byte aligned; NULL when full. With base == NULL (a dry arena) it counts and returns NULL. */
void *arena_alloc(arena *a, size_t n);
static inline size_t arena_mark(const arena *a) {
    return a->used_bytes;
}
static inline void arena_reset(arena *a, size_t mark) {
    a->used_bytes = mark;
}

/* ---- buf: a growing byte string, always NUL-terminated when data != NULL --------------------------------- */

typedef struct buf {
    char *data;
    size_t len, cap;
    bool failed; /* sticky: an append did not get memory; the content is then incomplete */
} buf;
void buf_fini(buf *b); /* frees and zeroes */
bool buf_reserve(buf *b, size_t extra);
bool buf_append(buf *b, const void *p, size_t n);
bool buf_puts(buf *b, const char *s);
bool buf_putc(buf *b, char c);
bool buf_printf(buf *b, const char *fmt, ...) PRINTF_LIKE(2, 3);
/* Appends p[0..n) with every invalid UTF-8 sequence replaced by U+FFFD (as Python's errors="replace"). */
bool buf_append_utf8(buf *b, const char *p, size_t n);
/* Appends a whole file of at most max_bytes. The message does not name it; ST_NOT_FOUND when there is none. */
bool buf_read_file(buf *b, const char *path, size_t max_bytes, status *st);
static inline void buf_clear(buf *b) {
    b->len = 0;
    if (b->data) b->data[0] = 0;
}

/* Length of the longest prefix of p[0..n) that ends on a UTF-8 character boundary: cuts off at most 3 bytes
 * of a character that later bytes could still complete. */
size_t utf8_whole_prefix(const char *p, size_t n);
/* Decodes the character at p (n > 0 bytes left) into *cp and returns its length; 0 when it is not UTF-8. */
int utf8_decode(const char *p, size_t n, uint32_t *cp);
bool utf8_valid(const char *p, size_t n);
/* Writes cp to out[4], returns the length. */
int utf8_encode(uint32_t cp, char *out);

double time_now_s(void); /* monotonic seconds */

#endif
