/* http.h - the HTTP side: listening, routes, keys, bodies, and connections that wait for the engine.
 *
 * A handler is called on an HTTP thread once a request's body is complete, and answers in one of three ways:
 * at once (http_reply*), when an outbox is over (http_wait), or as a stream of what an outbox brings
 * (http_stream). Refusals that need no handler (unknown route, wrong method, key, size) are made here, after
 * the body has been drained. Threads: handlers and callbacks of one request run on the thread of its
 * connection, one at a time. Memory: http_req lives from its headers to the end of its reply; what it borrows
 * out is valid as long. Built on libmicrohttpd 0.9.75; no other file includes it. Tested by tests/e2e. */
#ifndef VLMD_SERVER_HTTP_H
#define VLMD_SERVER_HTTP_H

#include "kernels/base.h"
#include "server/args.h"
#include "server/body.h"
#include "server/cors.h"
#include "server/outbox.h"
#include "server/tls.h"

typedef struct http_server http_server;
typedef struct http_req http_req;

enum { HTTP_GET = 1, HTTP_POST = 2 };

typedef struct http_route {
    const char *path; /* "/v1/models", or "/v1/models/" followed by '*' for all below it */
    int methods;      /* HEAD goes with GET, OPTIONS with any */
    bool open;        /* needs no key, and is logged at debug only */
    /* NULL, or whether a request may come in now, asked before its body is read. ST_BUSY: its body is not kept. */
    bool (*admit)(void *app, status *st);
    void (*handler)(http_req *r);
} http_route;

typedef struct http_options {
    const char *host;
    int port;             /* 0: a free one */
    const char *uds;      /* listen on a Unix socket of this path instead; NULL: host and port */
    const tls_files *tls; /* NULL: plain HTTP; must outlive the server */
    const cors *cors;     /* must outlive the server */
    int threads, max_connections;
    size_t max_body_bytes; /* of one */
    body_pool *bodies;     /* of all; must outlive the server */
    arg_list keys;         /* none: open to all */
    bool key_for_all;      /* open routes need a key, too */
    double headers_s, body_s, request_s, comment_s;
    const http_route *routes;
    int n_routes;
    void *app;                             /* for the handlers */
    void (*cancel)(void *app, outbox *ob); /* cancel the outbox's job; called with no lock held */
    /* For counting; reason: of a refusal, or NULL. */
    void (*replied)(void *app, int status, const char *reason);
    int (*retry_after_s)(void *app); /* what a client that is refused for want of room is told */
} http_options;

/* Listens and serves. Errors: ST_IO with a message for the user (port in use, no such host). */
http_server *http_start(const http_options *o, status *st);
int http_port(const http_server *s);
/* Requests whose handler was called and whose reply is not finished. */
int http_in_flight(http_server *s);
void http_cancel_all(http_server *s, status_code code, const char *why);
/* Every outbox must be over (the engine is gone): the library must not be stopped with a suspended
 * connection. */
void http_stop(http_server *s);

/* ---- for handlers ---- */

void *http_app(const http_req *r);
const char *http_path(const http_req *r);
double http_arrived(const http_req *r); /* time_now_s when the request was complete */
const char *http_id(const http_req *r); /* X-Request-Id, the client's or ours */
request_body *http_body(http_req *r);   /* the handler may take it */

/* Adds a header to the reply to come (at most 16). Strings with static or request lifetime. */
void http_header(http_req *r, const char *name, const char *value);
void http_reply(http_req *r, int http, const char *content_type, buf *body); /* takes the body */
void http_reply_fault(http_req *r, int http, const char *message, const char *param, const char *code);
void http_reply_status(http_req *r, const status *st);

/* What a request keeps while the engine works. Calls drop(state) once, when the request is over. */
typedef struct http_work {
    outbox *ob; /* taken over */
    void *state;
    int prompt_tokens, n_images; /* for the log */
    void (*drop)(void *state);
    /* http_wait: the outbox is over; must reply. */
    void (*ready)(http_req *r, void *state);
    /* http_stream: renders a batch (and the end, when there) to SSE. */
    void (*render)(void *state, const outbox_batch *batch, const outbox_end *end, buf *out);
} http_work;
/* An outbox_options.wake: resumes the request given as arg. */
void http_wake(void *r);
void http_wait(http_req *r, const http_work *w);
void http_stream(http_req *r, const http_work *w);

#endif
