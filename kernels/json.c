/* json.c - see json.h. When the system refuses memory, jansson gets it from a reserve made beforehand, and its text
 * ends there: it finds a fault in half a text, which it does well. */
#include "kernels/json.h"

#include <string.h>

/* jansson buffers this much; a buffer for a token is at most twice as long as the text, and its copy as long. */
enum { FEED = 1024, RESERVE = 64 << 10, RESERVE_A_BYTE = 4 };

typedef struct parse {
    const char *text;
    size_t left;
    char *reserve;
    size_t size, used;
    bool refused;
} parse;

static _Thread_local parse *parsing;

static void *take(size_t n) {
    void *p = mem_alloc(n);
    if (p || !parsing) return p;
    parsing->refused = true;
    if (n > parsing->size - parsing->used) return NULL;
    p = parsing->reserve + parsing->used;
    n = (n + 15) & ~(size_t)15;
    parsing->used = n > parsing->size - parsing->used ? parsing->size : parsing->used + n;
    return p;
}

static void give_back(void *p) {
    if (parsing && (char *)p >= parsing->reserve && (char *)p < parsing->reserve + parsing->size) return;
    mem_free(p);
}

void json_init(void) {
    json_set_alloc_funcs(take, give_back);
}

static size_t feed(void *to, size_t n, void *arg) {
    parse *s = arg;
    if (n > FEED) n = FEED;
    if (n > s->left) n = s->left;
    if (s->refused) n = 0;
    memcpy(to, s->text, n);
    s->text += n;
    s->left -= n;
    return n;
}

json_t *json_parse(const char *p, size_t n, size_t flags, json_error_t *err) {
    parse s = {.text = p, .left = n, .size = RESERVE + RESERVE_A_BYTE * n};
    json_t *j = NULL;
    s.reserve = mem_alloc(s.size);
    s.refused = !s.reserve;
    if (s.reserve) {
        parsing = &s;
        j = json_load_callback(feed, &s, flags, err);
        if (s.refused) json_decref(j);
        parsing = NULL;
    }
    mem_free(s.reserve);
    if (!s.refused) return j;
    *err = (json_error_t){.line = -1, .column = -1, .text = "out of memory"};
    err->text[sizeof err->text - 1] = json_error_out_of_memory; /* where jansson keeps the code */
    return NULL;
}

bool json_no_memory(const json_error_t *err) {
    return json_error_code(err) == json_error_out_of_memory;
}

json_t *json_literal(const char *text) {
    char *s = mem_strdup(text);
    for (char *c = s; c && *c; c++) *c = *c == '\'' ? '"' : *c == '`' ? '\'' : *c;
    json_error_t err;
    json_t *j = s ? json_parse(s, strlen(s), JSON_DECODE_ANY, &err) : NULL;
    CHECK(j || !s || json_no_memory(&err));
    mem_free(s);
    return j;
}
