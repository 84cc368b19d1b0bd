/* base64.h - base64 as it lies in a request body, decoded all at once or a window at a time.
 *
 * Threads: a state belongs to one thread. Owner: nothing here allocates except base64_decode (into the
 * caller's buf). Accepted: standard and URL-safe alphabet, white space anywhere, padding optional, and JSON's
 * own escapes of these characters (\/ \n \r \t and \u002b), because a body's strings are lifted out before
 * any JSON library unescapes them. Source: RFC 4648, RFC 8259. Tested by tests/engine/image/test_base64.c. */
#ifndef VLMD_ENGINE_IMAGE_BASE64_H
#define VLMD_ENGINE_IMAGE_BASE64_H

#include "kernels/base.h"

typedef struct base64_state {
    const uint8_t *p, *end;
    const uint8_t *start; /* for the position in messages */
    uint32_t acc;         /* the digits of an unfinished group of four */
    int n_acc;
    int n_pad;
    bool bad; /* sticky: p stands at the byte that is no base64 */
} base64_state;

void base64_begin(base64_state *b, const char *s, size_t n);
/* Decodes up to cap bytes to out (cap >= 3) and returns how many; fewer than cap - 2 only at the end or when
 * bad. */
size_t base64_some(base64_state *b, uint8_t *out, size_t cap);
/* Passes over whole groups that stand for at most n bytes, looking only at which characters are digits;
 * returns the bytes passed. The rest, and everything at an odd place, is for base64_some. */
size_t base64_skip(base64_state *b, size_t n);

/* The vector part (base64_avx2.c): decodes clean blocks of 32 digits, stops at the first other one. in and
 * out advance; writes up to 32 bytes from *out, so out_end - *out must allow for it. */
void base64_blocks_avx2(const uint8_t **in, const uint8_t *in_end, uint8_t **out, const uint8_t *out_end);

#endif
