/* config.h - reads one object of a config file: every key asked for is remembered, so that what nobody asked for can
 * be named in a warning. Errors stick and name the key by its path ("config.json: text_config.hidden_act: ...").
 *
 * One thread. Borrows the JSON. Tested by tests/engine/model/test_bad.c. */
#ifndef VLMD_ENGINE_FAMILIES_CONFIG_H
#define VLMD_ENGINE_FAMILIES_CONFIG_H

#include <jansson.h>

#include "kernels/ops.h"

enum { CONFIG_MAX_SEEN = 96 };

typedef struct config {
    const json_t *j; /* an object, or NULL: every key takes its default */
    char path[96];   /* "config.json: text_config." */
    status *st;
    const char *seen[CONFIG_MAX_SEEN];
    int n_seen;
} config;

/* j that is no object (and not NULL) is an error. */
config config_of(const json_t *j, const char *path, status *st);
/* The object under key; missing or null gives a config of defaults. */
config config_sub(config *c, const char *key);

/* The value of key, NULL when missing or null. Marks it as seen. */
const json_t *config_get(config *c, const char *key);
bool config_has(config *c, const char *key);
/* Whole numbers within [min, max]; a float with a whole value passes, as it does in Python. */
int64_t config_int(config *c, const char *key, int64_t def, int64_t min, int64_t max);
/* The same of an attribute that the reference also knows by another name (attribute_map), which wins where both are there. */
int64_t config_int_as(config *c, const char *other, const char *key, int64_t def, int64_t min, int64_t max);
double config_num(config *c, const char *key, double def, double min, double max);
bool config_bool(config *c, const char *key, bool def);
const char *config_str(config *c, const char *key, const char *def);
act config_act(config *c, const char *key, const char *def);
/* An int or a list of ints into out[max]; returns how many, 0 when missing or null. */
int config_ints(config *c, const char *key, int32_t *out, int max);
/* A square size: 336, [336, 336] or {"height": 336, "width": 336}. */
int config_square(config *c, const char *key, int def);
/* The key may be absent or hold this value; anything else is not implemented. */
void config_only_int(config *c, const char *key, int64_t only);
void config_only_bool(config *c, const char *key, bool only);
/* Keys of no consequence for the forward pass; NULL-terminated. */
void config_skip(config *c, const char *const *keys);
/* Fails with the key's path before the message. */
bool config_fail(config *c, status_code code, const char *key, const char *fmt, ...) PRINTF_LIKE(4, 5);
/* One warning for the keys that nobody asked for. */
void config_warn_unknown(config *c);

#endif
