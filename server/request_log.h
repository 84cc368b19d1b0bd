/* request_log.h - one line of the log for a request: what came, how it ended, how long it took; never a body, a key
 * or a picture's bytes. Threads: any. Owns nothing. Tested by tests/e2e/test_log.py. */
#ifndef VLMD_SERVER_REQUEST_LOG_H
#define VLMD_SERVER_REQUEST_LOG_H

#include "kernels/base.h"
#include "server/outbox.h"

typedef struct request_line {
    const char *id, *method, *path;
    int http;
    bool left;  /* the client did not wait for the whole reply */
    bool quiet; /* probes and scrapes would fill the log: debug only */
    double total_s;
    const char *refusal;         /* the reason, or NULL */
    const outbox_summary *job;   /* NULL: none ran */
    int prompt_tokens, n_images; /* of the job */
} request_line;
void request_log(const request_line *l);

#endif
