/* admission.c - see admission.h. One lock, held for a few instructions. */
#include "engine/admission.h"

#include <math.h>

enum { RETRY_MAX_S = 600 };
/* What happened longer ago than this counts half. */
static const double RATE_WINDOW_S = 60;

bool admission_init(admission *a, int max_jobs, int64_t max_tokens, status *st) {
    *a = (admission){.max_jobs = max_jobs, .max_tokens = max_tokens};
    if (pthread_mutex_init(&a->mu, NULL) == 0) return true;
    return status_set(st, ST_NO_MEMORY, "the system refused a lock");
}

void admission_fini(admission *a) {
    CHECK(a->n_jobs == 0 && a->n_tokens == 0);
    pthread_mutex_destroy(&a->mu);
}

/* The lock is held. */
static bool fits(const admission *a, int64_t tokens, status *st) {
    if (a->n_jobs >= a->max_jobs)
        return status_set(st, ST_BUSY,
                          "the server is full: %d requests wait, as many as may; try again later", a->n_jobs);
    if (a->n_jobs == 0 || a->n_tokens + tokens <= a->max_tokens) return true;
    return status_set(st, ST_BUSY,
                      "the server is full: %lld prompt tokens wait, at most %lld may; try again later",
                      (long long)a->n_tokens, (long long)a->max_tokens);
}

bool admission_has_room(admission *a, status *st) {
    pthread_mutex_lock(&a->mu);
    bool ok = fits(a, 1, st);
    pthread_mutex_unlock(&a->mu);
    return ok;
}

bool admission_enter(admission *a, int tokens, status *st) {
    pthread_mutex_lock(&a->mu);
    bool ok = fits(a, tokens, st);
    if (ok) {
        if (a->n_jobs == 0) {
            a->since = time_now_s();
            a->n_begun = 0;
        }
        a->n_jobs++;
        a->n_tokens += tokens;
    }
    pthread_mutex_unlock(&a->mu);
    return ok;
}

static void leave(admission *a, int tokens, bool begun) {
    pthread_mutex_lock(&a->mu);
    CHECK(a->n_jobs > 0 && a->n_tokens >= tokens);
    a->n_jobs--;
    a->n_tokens -= tokens;
    if (begun) a->n_begun++;
    pthread_mutex_unlock(&a->mu);
}

void admission_begun(admission *a, int tokens) {
    leave(a, tokens, true);
}

void admission_left(admission *a, int tokens) {
    leave(a, tokens, false);
}

int admission_retry_after_s(admission *a) {
    pthread_mutex_lock(&a->mu);
    double now = time_now_s(), span = now - a->since;
    if (span > RATE_WINDOW_S) {
        span /= 2;
        a->since = now - span;
        a->n_begun /= 2;
    }
    /* One more than have begun: where none has, the next may any moment. */
    double wait = a->n_jobs > 0 ? ceil(a->n_jobs * span / (a->n_begun + 1)) : 1;
    pthread_mutex_unlock(&a->mu);
    return wait < 1 ? 1 : wait > RETRY_MAX_S ? RETRY_MAX_S : (int)wait;
}

void admission_get(admission *a, int *jobs, int64_t *tokens) {
    pthread_mutex_lock(&a->mu);
    *jobs = a->n_jobs;
    *tokens = a->n_tokens;
    pthread_mutex_unlock(&a->mu);
}
