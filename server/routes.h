/* routes.h - the handlers, one per route, and their table. Threads: HTTP threads; the app is http_app.
 * Tested by tests/e2e. */
#ifndef VLMD_SERVER_ROUTES_H
#define VLMD_SERVER_ROUTES_H

#include "server/http.h"

extern const http_route routes_table[];
extern const int routes_count;

void chat_handler(http_req *r);
void embeddings_handler(http_req *r);
void zero_shot_handler(http_req *r);
void tokenize_handler(http_req *r);
void detokenize_handler(http_req *r);

#endif
