/* cors.h - which pages of other origins may call this server from a browser.
 *
 * Threads: cors_init from one, afterwards read-only. Memory: owns its lists until cors_fini. Source: the Fetch
 * standard's CORS protocol; options as vLLM's. Tested by tests/e2e/test_network.py. */
#ifndef VLMD_SERVER_CORS_H
#define VLMD_SERVER_CORS_H

#include <jansson.h>

#include "kernels/base.h"
#include "server/args.h"

typedef struct cors {
    json_t *origins; /* list of texts; empty: none, and no header is sent */
    bool any_origin, credentials;
    buf methods, headers; /* as header values; headers empty: whatever the page asks for */
} cors;

/* Each value is a name, or a JSON list of names. Errors: ST_INVALID, naming the option. */
bool cors_init(cors *c, const arg_list *origins, const arg_list *methods, const arg_list *headers,
               bool credentials, status *st);
void cors_fini(cors *c);
bool cors_on(const cors *c);
/* The value of Access-Control-Allow-Origin for this Origin (which may be returned itself), or NULL: not allowed. */
const char *cors_allow(const cors *c, const char *origin);

#endif
