/* app.c - see app.h. Any thread; owns locks and counters, and the engine from app_set_engine to
 * app_take_engine. */
#include "server/app.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

bool app_init(app *a, arg_list names, status *st) {
    *a = (app){.names = names, .started = (long)time(NULL)};
    atomic_init(&a->state, APP_LOADING);
    metrics_init(&a->m);
    if (pthread_rwlock_init(&a->engine_lock, NULL) != 0)
        return status_set(st, ST_NO_MEMORY, "the system refused a lock");
    if (pthread_mutex_init(&a->unknown_lock, NULL) == 0) return true;
    pthread_rwlock_destroy(&a->engine_lock);
    return status_set(st, ST_NO_MEMORY, "the system refused a lock");
}

void app_fini(app *a) {
    pthread_rwlock_destroy(&a->engine_lock);
    pthread_mutex_destroy(&a->unknown_lock);
}

void app_fail(app *a, const char *why) {
    snprintf(a->failure, sizeof a->failure, "%s", why);
    int state = atomic_load(&a->state); /* what drains goes on to do so */
    while (state != APP_DRAINING && !atomic_compare_exchange_weak(&a->state, &state, APP_FAILED)) continue;
}

engine *app_enter(app *a, status *st) {
    pthread_rwlock_rdlock(&a->engine_lock);
    int state = atomic_load(&a->state);
    if (state == APP_READY && a->e) return a->e;
    pthread_rwlock_unlock(&a->engine_lock);
    if (state == APP_FAILED)
        status_set(st, ST_CANCELLED, "%s; the server is ending", a->failure);
    else
        status_set(st, ST_CANCELLED,
                   state == APP_LOADING ? "the model is still loading" : "the server is shutting down");
    return NULL;
}

void app_leave(app *a) {
    pthread_rwlock_unlock(&a->engine_lock);
}

void app_set_engine(app *a, engine *e) {
    pthread_rwlock_wrlock(&a->engine_lock);
    a->e = e;
    pthread_rwlock_unlock(&a->engine_lock);
    int loading = APP_LOADING; /* a signal may have come first */
    atomic_compare_exchange_strong(&a->state, &loading, APP_READY);
}

engine *app_take_engine(app *a) {
    pthread_rwlock_wrlock(&a->engine_lock);
    engine *e = a->e;
    a->e = NULL;
    pthread_rwlock_unlock(&a->engine_lock);
    return e;
}

const char *app_model(const app *a, const char *asked, status *st) {
    if (!asked) return a->names.v[0];
    for (int i = 0; i < a->names.n; i++)
        if (strcmp(asked, a->names.v[i]) == 0) return a->names.v[i];
    status_set(st, ST_NOT_FOUND, "the model \"%.100s\" is not served here, found \"%.100s\"", asked,
               a->names.v[0]);
    status_param(st, "model");
    return NULL;
}

void app_cancel(void *arg, outbox *ob) {
    app *a = arg;
    pthread_rwlock_rdlock(&a->engine_lock);
    uint64_t job = outbox_cancel(ob);
    if (job && a->e) engine_cancel(a->e, job);
    pthread_rwlock_unlock(&a->engine_lock);
}

bool app_has_room(void *arg, status *st) {
    app *a = arg;
    engine *e = app_enter(a, NULL);
    if (!e) return true; /* the handler says why there is none */
    bool ok = engine_has_room(e, st);
    app_leave(a);
    return ok;
}

int app_retry_after_s(void *arg) {
    app *a = arg;
    engine *e = app_enter(a, NULL);
    if (!e) return 1;
    int seconds = engine_retry_after_s(e);
    app_leave(a);
    return seconds;
}

void app_replied(void *arg, int http, const char *reason) {
    metrics_reply(&((app *)arg)->m, http, reason);
}

void app_unknown_field(void *arg, const char *name) {
    app *a = arg;
    pthread_mutex_lock(&a->unknown_lock);
    bool seen = a->n_unknown == APP_MAX_UNKNOWN;
    char key[sizeof a->unknown[0]];
    strncpy(key, name, sizeof key - 1);
    key[sizeof key - 1] = 0;
    for (int i = 0; i < a->n_unknown && !seen; i++) seen = strcmp(a->unknown[i], key) == 0;
    if (!seen) memcpy(a->unknown[a->n_unknown++], key, sizeof key);
    pthread_mutex_unlock(&a->unknown_lock);
    if (!seen) log_warn("unknown field \"%s\" in a request is ignored (logged once)", key);
}
