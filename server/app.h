/* app.h - what all routes share: the engine behind its state, the names it is served under, the counters.
 *
 * Threads: any. The engine is reached between app_enter and app_leave only, so that it can be taken away at
 * the end. Memory: app_init borrows names and options, app_fini frees the rest. Tested by tests/e2e. */
#ifndef VLMD_SERVER_APP_H
#define VLMD_SERVER_APP_H

#include <pthread.h>
#include <stdatomic.h>

#include "engine/engine.h"
#include "server/args.h"
#include "server/body.h"
#include "server/metrics.h"

#define VLMD_VERSION "0.1.0"

typedef enum app_state { APP_LOADING, APP_READY, APP_DRAINING, APP_FAILED } app_state;

enum { APP_MAX_UNKNOWN = 64 };

typedef struct app {
    atomic_int state;
    char failure[320];            /* set before the state becomes APP_FAILED */
    pthread_rwlock_t engine_lock; /* readers use the engine, the writer takes it away */
    engine *e;
    arg_list names; /* the first is the one that replies carry */
    long started;   /* Unix time */
    metrics m;
    body_pool bodies;             /* of all requests */
    pthread_mutex_t unknown_lock; /* field names that were logged already */
    char unknown[APP_MAX_UNKNOWN][48];
    int n_unknown;
} app;

bool app_init(app *a, arg_list names, status *st);
void app_fini(app *a);

/* The device is gone for good: from now on there is no engine for anyone. Once; any thread. */
void app_fail(app *a, const char *why);
/* The engine, or NULL with ST_CANCELLED (503) while loading, shutting down or after app_fail. Pair with app_leave. */
engine *app_enter(app *a, status *st);
void app_leave(app *a);
/* Hands the engine over when it is ready; takes it back, once nobody is inside. */
void app_set_engine(app *a, engine *e);
engine *app_take_engine(app *a);

/* "model" of a request: the served name, or NULL with ST_NOT_FOUND. A request without one means the first. */
const char *app_model(const app *a, const char *asked, status *st);
/* Cancels the outbox's job (http_options.cancel). */
void app_cancel(void *app, outbox *ob);
/* Whether the engine could take one more request (http_route.admit), and when it should be asked again
 * (http_options.retry_after_s). */
bool app_has_room(void *app, status *st);
int app_retry_after_s(void *app);
void app_replied(void *app, int http, const char *reason);
/* Logs a request's unknown field once. */
void app_unknown_field(void *app, const char *name);

#endif
