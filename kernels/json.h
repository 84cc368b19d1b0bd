/* json.h - JSON text to jansson's values, also where memory is refused. Any thread; the caller owns the value.
 *
 * A jansson that is refused memory within a text drops a character and goes on, or aborts. */
#ifndef VLMD_KERNELS_JSON_H
#define VLMD_KERNELS_JSON_H

#include <jansson.h>

#include "kernels/base.h"

/* Gives jansson the allocator that json_parse relies on. Once, before there are other threads. */
void json_init(void);
/* json_loadb; NULL, and json_no_memory(err), wherever memory was refused. */
json_t *json_parse(const char *p, size_t n, size_t flags, json_error_t *err);
bool json_no_memory(const json_error_t *err);
/* A constant of ours as JSON: ' stands for the double quote, ` for the single one. NULL: no memory. */
json_t *json_literal(const char *text);

#endif
