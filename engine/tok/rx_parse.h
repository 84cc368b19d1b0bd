/* rx_parse.h - from Oniguruma's syntax to a pattern over sets; see rx.h. Private to engine/tok/rx*.c. */
#ifndef VLMD_ENGINE_TOK_RX_PARSE_H
#define VLMD_ENGINE_TOK_RX_PARSE_H

#include "engine/tok/uset.h"

/* A pattern whose operators are PCRE2's and whose every character is the place of a set: RX_SET, then the
 * index of the set as two bytes (low first). Zero-initialise, rx_parsed_fini frees. */
#define RX_SET 0x01
typedef struct rx_parsed {
    buf out;
    uset *sets;
    size_t n, cap;
} rx_parsed;
bool rx_parse(const char *pattern, size_t n, rx_parsed *p, status *st);
void rx_parsed_fini(rx_parsed *p);

#endif
