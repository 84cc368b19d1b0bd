/* admit.h - the way into the engine of a request that becomes a job: is there still room, and who has its body.
 *
 * Threads: the connection's. Tested by tests/e2e. */
#ifndef VLMD_SERVER_ADMIT_H
#define VLMD_SERVER_ADMIT_H

#include "server/app.h"
#include "server/http.h"

/* Makes a job of the body, which it takes over, and says in *w how the request waits for it. False: refused, with st. */
typedef bool admit_fn(app *a, engine *e, request_body body, http_req *r, http_work *w, status *st);

/* A handler's whole work: refuses, waits, or streams where the outbox does. */
void admit_request(http_req *r, admit_fn *make);

#endif
