/* inbox.c - see inbox.h. One lock, held for a few instructions; a cancel walks the live jobs. */
#include "engine/inbox.h"

bool inbox_init(inbox *in, status *st) {
    *in = (inbox){0};
    if (pthread_mutex_init(&in->mu, NULL) != 0)
        return status_set(st, ST_NO_MEMORY, "the system refused a lock");
    if (pthread_cond_init(&in->changed, NULL) != 0) {
        pthread_mutex_destroy(&in->mu);
        return status_set(st, ST_NO_MEMORY, "the system refused a condition variable");
    }
    return true;
}

void inbox_fini(inbox *in) {
    CHECK(in->n_live == 0 && !in->arrived.head);
    pthread_cond_destroy(&in->changed);
    pthread_mutex_destroy(&in->mu);
}

static void link_live(inbox *in, seq *s) {
    s->live_prev = NULL;
    s->live_next = in->live;
    if (in->live) in->live->live_prev = s;
    in->live = s;
}

uint64_t inbox_enter(inbox *in, seq *s) {
    pthread_mutex_lock(&in->mu);
    uint64_t job = s->job = s->order = ++in->last_job;
    link_live(in, s);
    in->n_live += s->n_choices;
    in->pixels += s->pixels;
    pthread_mutex_unlock(&in->mu);
    return job;
}

void inbox_post(inbox *in, seq *s) {
    pthread_mutex_lock(&in->mu);
    seq_list_push(&in->arrived, s);
    pthread_cond_signal(&in->changed);
    pthread_mutex_unlock(&in->mu);
}

void inbox_cancel(inbox *in, uint64_t job) {
    pthread_mutex_lock(&in->mu);
    for (seq *s = in->live; s; s = s->live_next) {
        if (s->job != job) continue;
        atomic_store(&s->cancelled, true);
        in->cancels = true;
        pthread_cond_signal(&in->changed);
    }
    pthread_mutex_unlock(&in->mu);
}

void inbox_stop(inbox *in) {
    pthread_mutex_lock(&in->mu);
    in->stop = in->cancels = true;
    for (seq *s = in->live; s; s = s->live_next) atomic_store(&s->cancelled, true);
    pthread_cond_signal(&in->changed);
    pthread_mutex_unlock(&in->mu);
}

bool inbox_wait(inbox *in) {
    pthread_mutex_lock(&in->mu);
    while (!in->arrived.head && !in->cancels && !in->stop) pthread_cond_wait(&in->changed, &in->mu);
    bool go_on = in->arrived.head || in->cancels;
    pthread_mutex_unlock(&in->mu);
    return go_on;
}

seq_list inbox_take(inbox *in, bool *cancels) {
    pthread_mutex_lock(&in->mu);
    seq_list got = in->arrived;
    in->arrived = (seq_list){0};
    *cancels = in->cancels;
    in->cancels = false;
    pthread_mutex_unlock(&in->mu);
    return got;
}

void inbox_part(inbox *in, seq *s) {
    pthread_mutex_lock(&in->mu);
    for (seq *f = s->forks.head; f; f = f->next) {
        f->job = s->job;
        atomic_store(&f->cancelled, atomic_load(&s->cancelled));
        link_live(in, f);
    }
    pthread_mutex_unlock(&in->mu);
}

void inbox_leave(inbox *in, seq *s) {
    pthread_mutex_lock(&in->mu);
    *(s->live_prev ? &s->live_prev->live_next : &in->live) = s->live_next;
    if (s->live_next) s->live_next->live_prev = s->live_prev;
    in->n_live -= s->n_choices;
    in->pixels -= s->pixels;
    s->pixels = 0;
    pthread_mutex_unlock(&in->mu);
}

void inbox_encoded(inbox *in, seq *s) {
    pthread_mutex_lock(&in->mu);
    in->pixels -= s->pixels;
    s->pixels = 0;
    pthread_mutex_unlock(&in->mu);
}

int64_t inbox_pixels(inbox *in) {
    pthread_mutex_lock(&in->mu);
    int64_t n = in->pixels;
    pthread_mutex_unlock(&in->mu);
    return n;
}

int inbox_live(inbox *in) {
    pthread_mutex_lock(&in->mu);
    int n = in->n_live;
    pthread_mutex_unlock(&in->mu);
    return n;
}
