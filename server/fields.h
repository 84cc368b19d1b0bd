/* fields.h - typed reading of the fields of a JSON body, with OpenAI's way of naming what is wrong.
 *
 * Every getter leaves its target alone when the field is absent or null, and returns false with a status that
 * names the field when it has another type or is out of range. Threads: one. Memory: strings stay the JSON's.
 * Tested by tests/server/test_chat_request.c. */
#ifndef VLMD_SERVER_FIELDS_H
#define VLMD_SERVER_FIELDS_H

#include <jansson.h>

#include "kernels/base.h"

/* "a list", "text", ...: what messages call a JSON value. */
const char *json_kind_name(const json_t *v);
/* NULL when absent or null. */
const json_t *field_get(const json_t *obj, const char *name);

bool field_bool(const json_t *obj, const char *name, bool *out, status *st);
bool field_int(const json_t *obj, const char *name, int64_t lo, int64_t hi, int64_t *out, status *st);
bool field_real(const json_t *obj, const char *name, double lo, double hi, double *out, status *st);
bool field_string(const json_t *obj, const char *name, const char **out, status *st);
/* A whole number, also when written 5.0. */
bool json_whole(const json_t *v, int64_t *out);

/* Parses a body: UTF-8, one JSON object, no duplicate keys. exact: positions in messages are the client's. */
json_t *body_parse(const char *p, size_t n, bool exact, status *st);

/* "wrong type" with param: "expected text, found a list". */
bool field_wrong(status *st, const json_t *found, const char *expected, const char *fmt, ...)
    PRINTF_LIKE(4, 5);

#endif
