/* outbox.c - see outbox.h. Engine, picture, HTTP and watcher threads; every field is guarded by the lock. */
#include "server/outbox.h"

#include <pthread.h>
#include <string.h>

struct outbox {
    pthread_mutex_t lock;
    int refs;
    outbox_options o;
    outbox_batch pending;
    outbox_end end;
    int n_all;         /* choices */
    unsigned finishes; /* bits 1 << engine_finish */
    int n_open;        /* choices whose final event is still to come */
    bool sleeping, detached, cancelled, overflowed, seen_token, no_memory;
    uint64_t job;
    void (*release)(void *);
    void *kept;
    status reason;
    int n_tokens;
    double t_start, t_first, queue_s;
    double t_last[ENGINE_MAX_CHOICES]; /* each one's last token; 0: none */
};

void outbox_batch_fini(outbox_batch *b) {
    for (int i = 0; i < b->n_choices; i++) {
        buf_fini(&b->choices[i].text);
        buf_fini(&b->choices[i].bytes);
        mem_free(b->choices[i].tokens);
        mem_free(b->choices[i].tops);
    }
    *b = (outbox_batch){0};
}

outbox *outbox_new(const outbox_options *o) {
    outbox *ob = mem_calloc(1, sizeof *ob);
    if (!ob) return NULL;
    ob->o = *o;
    if (!ob->o.cap_bytes) ob->o.cap_bytes = (size_t)4 << 20;
    ob->refs = 1;
    ob->n_all = ob->n_open = ob->pending.n_choices = o->n_choices > 1 ? o->n_choices : 1;
    CHECK(ob->n_all <= ENGINE_MAX_CHOICES);
    ob->t_start = o->t_start > 0 ? o->t_start : time_now_s();
    if (pthread_mutex_init(&ob->lock, NULL) != 0) {
        mem_free(ob);
        return NULL;
    }
    return ob;
}

outbox *outbox_ref(outbox *ob) {
    pthread_mutex_lock(&ob->lock);
    ob->refs++;
    pthread_mutex_unlock(&ob->lock);
    return ob;
}

/* Takes what is kept out of the outbox, so that it can be freed without the lock. */
static void (*take_kept(outbox *ob, void **what))(void *) {
    void (*release)(void *) = ob->release;
    *what = ob->kept;
    ob->release = NULL;
    ob->kept = NULL;
    return release;
}

void outbox_unref(outbox *ob) {
    if (!ob) return;
    pthread_mutex_lock(&ob->lock);
    bool last = --ob->refs == 0;
    pthread_mutex_unlock(&ob->lock);
    if (!last) return;
    void *what;
    void (*release)(void *) = take_kept(ob, &what);
    if (release) release(what);
    outbox_batch_fini(&ob->pending);
    pthread_mutex_destroy(&ob->lock);
    mem_free(ob);
}

void outbox_keep(outbox *ob, void (*release)(void *), void *what) {
    pthread_mutex_lock(&ob->lock);
    CHECK(!ob->release);
    ob->release = release;
    ob->kept = what;
    pthread_mutex_unlock(&ob->lock);
}

void outbox_engine_begin(outbox *ob) {
    outbox_ref(ob);
}

void outbox_engine_refused(outbox *ob) {
    outbox_unref(ob);
}

/* ---- engine side ------------------------------------------------------------------------------------------
 */

static bool grow(void **p, size_t *cap, size_t need, size_t size) {
    if (need <= *cap) return true;
    size_t n = *cap ? *cap * 2 : 16;
    if (n < need) n = need;
    void *q = mem_realloc(*p, n * size);
    if (!q) return false;
    *p = q;
    *cap = n;
    return true;
}

static size_t batch_bytes(const outbox_batch *b) {
    size_t n = 0;
    for (const outbox_choice *c = b->choices; c < b->choices + b->n_choices; c++)
        n += c->text.len + c->bytes.len + c->n_tokens * sizeof *c->tokens + c->n_tops * sizeof *c->tops;
    return n;
}

/* Where the bytes begin that reply shows; *n is their number. */
static size_t add_bytes(outbox_choice *b, const char *bytes, size_t n_bytes, const char *special, size_t *n) {
    size_t at = b->bytes.len;
    *n = special ? strlen(special) : n_bytes;
    buf_append(&b->bytes, special ? special : bytes, *n);
    return at;
}

/* All of it or nothing: a reply reads what is there. */
static bool add_token(outbox_choice *b, const engine_token *t) {
    size_t n_top = t->n_top > 0 ? (size_t)t->n_top : 0, n_tokens = b->n_tokens, n_tops = b->n_tops;
    if (!grow((void **)&b->tokens, &b->cap_tokens, b->n_tokens + 1, sizeof *b->tokens) ||
        !grow((void **)&b->tops, &b->cap_tops, b->n_tops + n_top, sizeof *b->tops))
        return false;
    outbox_token *o = &b->tokens[b->n_tokens++];
    *o = (outbox_token){.id = t->id, .logprob = t->logprob, .top_at = b->n_tops, .n_top = n_top};
    o->bytes_at = add_bytes(b, t->bytes, t->n_bytes, t->special, &o->n_bytes);
    o->special = t->special != NULL;
    for (size_t i = 0; i < n_top; i++) {
        outbox_top *top = &b->tops[b->n_tops++];
        *top = (outbox_top){.logprob = t->top[i].logprob, .special = t->top[i].special != NULL};
        top->bytes_at = add_bytes(b, t->top[i].bytes, t->top[i].n_bytes, t->top[i].special, &top->n_bytes);
    }
    if (!b->bytes.failed) return true;
    b->n_tokens = n_tokens;
    b->n_tops = n_tops;
    return false;
}

static void time_tokens(outbox *ob, const engine_event *ev) {
    if (ev->n_tokens < 1) return; /* text that was held back */
    double now = time_now_s(), *last = &ob->t_last[ev->choice];
    bool first = *last == 0;
    if (ob->o.on_token) ob->o.on_token(ob->o.observer, now - (first ? ob->t_start : *last), first);
    if (!ob->seen_token) ob->t_first = now;
    ob->seen_token = true;
    ob->n_tokens += ev->n_tokens;
    *last = now;
}

static void put_tokens(outbox *ob, const engine_event *ev) {
    time_tokens(ob, ev);
    if (ob->detached || ob->overflowed || ob->no_memory || ob->end.ended) return;
    if (ob->o.stream && batch_bytes(&ob->pending) > ob->o.cap_bytes) {
        ob->overflowed = true;
        return;
    }
    outbox_choice *c = &ob->pending.choices[ev->choice];
    bool ok = !ev->n_text || buf_append(&c->text, ev->text, ev->n_text);
    if (ob->o.keep_tokens)
        for (int i = 0; ok && i < ev->n_tokens; i++) ok = add_token(c, &ev->tokens[i]);
    if (!ok) ob->no_memory = true;
}

static void put_done(outbox *ob, const engine_event *ev) {
    outbox_end *e = &ob->end;
    if (ev->choice == 0) {
        e->prompt_tokens = ev->prompt_tokens;
        e->cached_tokens = ev->cached_tokens;
        ob->queue_s = ev->queue_s;
    }
    e->completion_tokens += ev->completion_tokens;
    if (ob->o.on_end) ob->o.on_end(ob->o.observer, ev, time_now_s() - ob->t_start);
    ob->finishes |= 1u << ev->finish;
    if (ev->choice == 0) e->finish = ev->finish;
    e->mixed = (ob->finishes & (ob->finishes - 1)) != 0;
    if (ob->detached) return;
    ob->pending.choices[ev->choice].ended = true;
    ob->pending.choices[ev->choice].finish = ev->finish;
    size_t floats = (size_t)ev->n_vectors * (size_t)ev->vector_width;
    if (floats &&
        !buf_append(&ob->pending.choices[ev->choice].bytes, ev->vectors, floats * sizeof *ev->vectors))
        ob->no_memory = true;
}

/* Of several choices that fail the first one's reason counts. */
static void fail(outbox *ob, const status *why) {
    outbox_end *e = &ob->end;
    if (e->failed) return;
    e->ended = e->failed = true;
    if (why) e->error = *why;
    if (e->error.code == ST_OK) status_set(&e->error, ST_INTERNAL, "the engine gave up without a reason");
    if (e->error.code == ST_CANCELLED && ob->reason.code != ST_OK) e->error = ob->reason;
}

static void put_final(outbox *ob, const engine_event *ev) {
    status st = {0};
    int n = ev->n_choices > 1 ? ev->n_choices : 1;
    CHECK(n <= ob->n_open); /* engine.h: exactly one final event for each choice */
    ob->n_open -= n;
    if (ev->kind == ENGINE_ERROR)
        fail(ob, ev->error);
    else
        put_done(ob, ev);
    if (ob->n_open > 0) return;
    ob->end.ended = true;
    if (ob->overflowed)
        status_set(&st, ST_CANCELLED, "the client reads too slowly");
    else if (ob->no_memory)
        status_set(&st, ST_NO_MEMORY, "no memory for the reply");
    if (st.code != ST_OK) fail(ob, &st);
}

static bool ready(const outbox *ob) {
    if (ob->end.ended) return true;
    if (!ob->o.stream) return false;
    const outbox_batch *p = &ob->pending;
    bool any = p->n_comments > 0;
    for (int i = 0; i < p->n_choices && !any; i++)
        any = p->choices[i].text.len || p->choices[i].n_tokens || p->choices[i].ended;
    return any;
}

static void wake_if_ready(outbox *ob) {
    if (!ob->sleeping || ob->detached || !ready(ob)) return;
    ob->sleeping = false;
    ob->o.wake(ob->o.arg);
}

void outbox_sink(void *user, const engine_event *ev) {
    outbox *ob = user;
    void *what = NULL;
    void (*release)(void *) = NULL;
    pthread_mutex_lock(&ob->lock);
    bool final = ev->kind == ENGINE_DONE || ev->kind == ENGINE_ERROR;
    if (ev->kind == ENGINE_INPUT_DONE || final) release = take_kept(ob, &what);
    CHECK(ev->choice >= 0 && ev->choice < ob->n_all);
    if (ev->kind == ENGINE_TOKENS) put_tokens(ob, ev);
    if (final) put_final(ob, ev);
    bool last = final && ob->n_open == 0;
    wake_if_ready(ob);
    pthread_mutex_unlock(&ob->lock);
    if (release) release(what);
    if (last) outbox_unref(ob);
}

bool outbox_set_job(outbox *ob, uint64_t job) {
    pthread_mutex_lock(&ob->lock);
    ob->job = job;
    bool cancel = ob->cancelled && ob->n_open > 0;
    pthread_mutex_unlock(&ob->lock);
    return cancel;
}

uint64_t outbox_cancel(outbox *ob) {
    pthread_mutex_lock(&ob->lock);
    ob->cancelled = true;
    uint64_t job = ob->n_open > 0 ? ob->job : 0;
    pthread_mutex_unlock(&ob->lock);
    return job;
}

/* ---- HTTP side
 * ----------------------------------------------------------------------------------------------- */

void outbox_take(outbox *ob, outbox_batch *out, outbox_end *end) {
    pthread_mutex_lock(&ob->lock);
    outbox_batch_fini(out);
    *out = ob->pending;
    out->n_choices = ob->n_all;
    ob->pending = (outbox_batch){.n_choices = ob->n_all};
    *end = ob->end;
    pthread_mutex_unlock(&ob->lock);
}

bool outbox_sleep(outbox *ob, void (*suspend)(void *)) {
    pthread_mutex_lock(&ob->lock);
    bool sleeps = !ready(ob);
    if (sleeps) {
        ob->sleeping = true;
        suspend(ob->o.arg);
    }
    pthread_mutex_unlock(&ob->lock);
    return sleeps;
}

void outbox_detach(outbox *ob) {
    pthread_mutex_lock(&ob->lock);
    ob->detached = true;
    outbox_batch_fini(&ob->pending);
    pthread_mutex_unlock(&ob->lock);
}

/* ---- watcher side
 * ----------------------------------------------------------------------------------------------- */

bool outbox_comment(outbox *ob) {
    pthread_mutex_lock(&ob->lock);
    bool wanted = ob->o.stream && !ob->seen_token && !ob->end.ended && !ob->detached;
    if (wanted && !ob->pending.n_comments) ob->pending.n_comments = 1;
    if (wanted) wake_if_ready(ob);
    pthread_mutex_unlock(&ob->lock);
    return wanted;
}

bool outbox_is_lost(outbox *ob) {
    pthread_mutex_lock(&ob->lock);
    bool lost = (ob->overflowed || ob->no_memory || ob->end.failed) && !ob->cancelled && ob->n_open > 0;
    if (lost && ob->overflowed)
        status_set(&ob->reason, ST_CANCELLED, "the client reads too slowly");
    else if (lost && ob->no_memory)
        status_set(&ob->reason, ST_NO_MEMORY, "no memory for the reply");
    pthread_mutex_unlock(&ob->lock);
    return lost;
}

void outbox_reason(outbox *ob, status_code code, const char *why) {
    pthread_mutex_lock(&ob->lock);
    status_set(&ob->reason, code, "%s", why);
    pthread_mutex_unlock(&ob->lock);
}

bool outbox_streams(const outbox *ob) {
    return ob->o.stream;
}

bool outbox_over(outbox *ob) {
    pthread_mutex_lock(&ob->lock);
    bool over = ob->n_open == 0;
    pthread_mutex_unlock(&ob->lock);
    return over;
}

void outbox_sum_up(outbox *ob, outbox_summary *out) {
    pthread_mutex_lock(&ob->lock);
    *out = (outbox_summary){.end = ob->end,
                            .n_tokens = ob->n_tokens,
                            .queue_s = ob->queue_s,
                            .first_s = ob->seen_token ? ob->t_first - ob->t_start : 0};
    pthread_mutex_unlock(&ob->lock);
}
