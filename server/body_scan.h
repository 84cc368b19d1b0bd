/* body_scan.h - lifts pictures out of a body before the JSON library sees it.
 *
 * A picture arrives as a data URL of many megabytes inside a JSON string. The scanner walks the body once,
 * notes where such strings lie (where a chat or a request for vectors has its pictures, and nowhere else), undoes their JSON
 * escapes in place, and writes a skeleton in which each is a short placeholder. The base64 is never copied.
 * The walk is linear, judges nothing but nesting depth, and leaves malformed text for the JSON library to
 * refuse. Threads: one. Memory: spans point into the body, which must stay; the skeleton is owned by the
 * scan. Tested by tests/server/test_body_scan.c, fuzzed by tests/fuzz/fuzz_request.c. */
#ifndef VLMD_SERVER_BODY_SCAN_H
#define VLMD_SERVER_BODY_SCAN_H

#include "kernels/base.h"

enum { BODY_MAX_DEPTH = 64 };

typedef struct body_span {
    char *p; /* the URL, "data:..." unescaped, inside the body; not NUL-terminated */
    size_t n;
} body_span;

typedef struct body_scan {
    const char *json; /* what the JSON library is to parse: the body itself when nothing was lifted */
    size_t n_json;
    body_span *spans;
    int n_spans, cap_spans;
    buf skeleton;
    char tag[40]; /* what placeholders begin with; drawn per scan, so that no client can write one */
} body_scan;

/* Errors: ST_INVALID (nesting), ST_NO_MEMORY. body_scan_fini may be called after any result, and after
 * zeroing. */
bool body_scan_run(body_scan *s, char *body, size_t n, status *st);
void body_scan_fini(body_scan *s);
/* The span that a JSON string stands for, or NULL when it is no placeholder of this scan. */
const body_span *body_scan_find(const body_scan *s, const char *text, size_t n);

#endif
