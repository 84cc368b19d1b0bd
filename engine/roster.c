/* roster.c - see roster.h. The engine's thread; published stats have a lock of their own. */
#include "engine/roster.h"

bool roster_init(roster *r, const roster_options *o, inbox *in, workers *w) {
    CHECK(o->max_running >= 1);
    *r = (roster){.o = *o, .in = in, .w = w};
    if (!(r->running = mem_calloc((size_t)o->max_running, sizeof(seq *)))) return false;
    if (pthread_mutex_init(&r->mu, NULL) == 0) return true;
    mem_free(r->running);
    r->running = NULL;
    return false;
}

void roster_fini(roster *r) {
    if (!r->running) return;
    CHECK(r->n_running == 0 && !r->waiting.head && !r->arrived.head);
    pthread_mutex_destroy(&r->mu);
    mem_free(r->running);
}

/* ---- arrivals and cancels ---- */

static void set_cancelled(seq *s) {
    s->st = (status){0};
    status_set(&s->st, ST_CANCELLED, "the request was cancelled");
}

seq_list roster_take(roster *r) {
    seq_list gone = {0};
    bool cancels;
    r->arrived = inbox_take(r->in, &cancels);
    piccache_collect(r->o.pictures); /* after the take: what arrived may count on it */
    if (!cancels) return gone;
    if (r->w) workers_take_cancelled(r->w, &gone);
    seq_list_take_cancelled(&r->waiting, &gone);
    for (seq *s = gone.head; s; s = s->next) set_cancelled(s);
    for (int i = 0; i < r->n_running; i++)
        if (atomic_load(&r->running[i]->cancelled)) set_cancelled(r->running[i]);
    return gone;
}

seq *roster_next_arrival(roster *r) {
    for (seq *s; (s = seq_list_pop(&r->arrived));) {
        if (atomic_load(&s->cancelled)) {
            set_cancelled(s);
        } else if (r->lost.code != ST_OK) {
            s->st = r->lost;
        } else if (s->awaits_room) {
            s->awaits_room = false;
            workers_add(r->w, s);
            continue;
        }
        return s;
    }
    return NULL;
}

void roster_wait(roster *r, seq *s) {
    seq_send_input_done(s);
    s->order = ++r->n_arrived;
    seq_list_insert(&r->waiting, s);
}

void roster_begun(roster *r, seq *s) {
    s->t_run = time_now_s();
    if (s->queued) admission_begun(r->o.queue, s->n_prompt);
    s->queued = false;
}

void roster_left(roster *r, seq *s, engine_finish finish) {
    engine_stats *t = &r->stats;
    *(s->st.code == ST_CANCELLED ? &t->finished_abort
      : s->st.code != ST_OK      ? &t->finished_error
      : finish == FINISH_STOP    ? &t->finished_stop
                                 : &t->finished_length) += (uint64_t)s->n_choices;
    if (s->queued) admission_left(r->o.queue, s->n_prompt);
    s->queued = false;
    inbox_leave(r->in, s);
    roster_publish(r);
}

/* ---- failures ---- */

bool roster_note_loss(roster *r, const status *why) {
    if (why->code != ST_LOST) return false;
    if (r->lost.code == ST_OK) {
        status_set(&r->lost, ST_LOST, "the device failed: %.300s", why->msg);
        log_error("%s; nothing can run any more", r->lost.msg);
        if (r->o.lost) r->o.lost(r->o.user, &r->lost);
    }
    return true;
}

void roster_check_loss(roster *r, seq *s) {
    if (roster_note_loss(r, &s->st)) s->st = r->lost;
}

seq *roster_next_lost(roster *r) {
    if (r->lost.code == ST_OK) return NULL;
    seq *s = r->n_running ? r->running[--r->n_running] : seq_list_pop(&r->waiting);
    if (s) s->st = r->lost;
    return s;
}

void roster_encode_failed(roster *r, seq *s, picture *pic, const status *why) {
    bool several = picture_reset(pic), lost = roster_note_loss(r, why);
    if (!lost) log_error("a picture's encode failed%s: %s", several ? " (of several)" : "", why->msg);
    if (s && (lost || !several)) s->st = lost ? r->lost : *why;
}

/* ---- counters ---- */

void roster_count_step(roster *r, int rows) {
    int i = 0;
    while (i < ENGINE_ROW_BUCKETS - 1 && rows > engine_row_bound(i)) i++;
    r->stats.steps++;
    r->stats.rows += (uint64_t)rows;
    r->stats.steps_by_rows[i]++;
}

void roster_publish(roster *r) {
    r->stats.running = r->n_running;
    pthread_mutex_lock(&r->mu);
    r->published = r->stats;
    pthread_mutex_unlock(&r->mu);
}

void roster_get_stats(roster *r, engine_stats *out) {
    pthread_mutex_lock(&r->mu);
    *out = r->published;
    pthread_mutex_unlock(&r->mu);
}
