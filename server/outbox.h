/* outbox.h - one request's queues from the engine to its HTTP connection, one for each choice.
 *
 * The engine's sink puts events in (engine thread or picture worker), the HTTP thread takes them out in
 * batches and sleeps when there is nothing. Sleeping and waking happen under the outbox's lock, so no wake-up
 * is lost; the lock is held for copies of a few bytes and for the wake function, never over engine or socket
 * calls. Memory: counted references. The HTTP side has one, the engine has one from outbox_engine_begin until
 * the final event of its last choice; outbox_ref takes another. What the job reads in place (the request body) is kept here and
 * freed at INPUT_DONE. A choice that fails fails the request: what others still make is dropped. Bounds: a streaming
 * outbox holds at most cap_bytes, all choices together; past that it drops. outbox_is_lost tells the watcher of both,
 * which cancels the job. An unstreamed answer is bounded by the model's
 * length. Tested by tests/server/test_outbox.c. */
#ifndef VLMD_SERVER_OUTBOX_H
#define VLMD_SERVER_OUTBOX_H

#include "engine/engine.h"
#include "kernels/base.h"

typedef struct outbox outbox;

typedef struct outbox_token {
    int32_t id;
    float logprob;
    size_t bytes_at, n_bytes; /* in batch.bytes: what it adds to the text, or a special token's spelling */
    bool special;
    size_t top_at, n_top; /* in batch.tops */
} outbox_token;

typedef struct outbox_top {
    float logprob;
    size_t bytes_at, n_bytes;
    bool special;
} outbox_top;

typedef struct outbox_choice { /* what came of one choice */
    buf text;
    outbox_token *tokens;
    size_t n_tokens, cap_tokens;
    outbox_top *tops;
    size_t n_tops, cap_tops;
    buf bytes;  /* of a job for vectors: its floats */
    bool ended; /* by itself, since the last take */
    engine_finish finish;
} outbox_choice;

typedef struct outbox_batch {
    outbox_choice choices[ENGINE_MAX_CHOICES];
    int n_choices;  /* of the request */
    int n_comments; /* keep-alive comments to send */
} outbox_batch;
void outbox_batch_fini(outbox_batch *b);

typedef struct outbox_end {
    bool ended;                       /* nothing more is to come: all choices ended, or one failed */
    bool failed;                      /* error says why */
    engine_finish finish;             /* of choice 0 */
    bool mixed;                       /* and another choice ended in another way */
    int prompt_tokens, cached_tokens; /* of choice 0 */
    int completion_tokens;            /* of all */
    status error;
} outbox_end;

typedef struct outbox_options {
    int n_choices;    /* 0: 1 */
    bool stream;      /* wake for every event, not only for the last */
    bool keep_tokens; /* ids and log-probs are wanted */
    size_t cap_bytes; /* of a stream; 0: 4 MiB */
    void (*wake)(void *arg);
    void *arg;
    double t_start; /* when the request was complete, time_now_s; 0: now */
    /* Observers, called under the lock; may be NULL. on_token: seconds since the start or the choice's token before.
     * on_end: of a choice that finished by itself, the seconds since the start. */
    void (*on_token)(void *observer, double seconds, bool first);
    void (*on_end)(void *observer, const engine_event *done, double seconds);
    void *observer;
} outbox_options;

outbox *outbox_new(const outbox_options *o); /* NULL: no memory. The caller has one reference */
outbox *outbox_ref(outbox *ob);
void outbox_unref(outbox *ob); /* NULL is fine */

/* Has `release(what)` called once, at INPUT_DONE or the final event or when the outbox goes. Before submit
 * only. */
void outbox_keep(outbox *ob, void (*release)(void *), void *what);

/* The engine's reference: taken before engine_submit, given back by the last final event, or by
 * outbox_engine_refused when engine_submit returned 0. */
void outbox_engine_begin(outbox *ob);
void outbox_engine_refused(outbox *ob);
void outbox_sink(void *ob, const engine_event *ev); /* an engine_sink */

/* The job's number, for whoever cancels. outbox_set_job returns true when a cancel was asked for before the
 * number was known; outbox_cancel returns the number to cancel now, or 0 when it is unknown as yet or over.
 */
bool outbox_set_job(outbox *ob, uint64_t job);
uint64_t outbox_cancel(outbox *ob);

/* ---- HTTP side ---- */

/* Moves everything pending into *out (which must be empty or zeroed) and says how the job stands. */
void outbox_take(outbox *ob, outbox_batch *out, outbox_end *end);
/* When there is nothing to take: calls suspend(arg) under the lock and returns true; wake(arg) will follow.
 */
bool outbox_sleep(outbox *ob, void (*suspend)(void *arg));
/* The HTTP side leaves: wake is never called again. */
void outbox_detach(outbox *ob);

/* ---- watcher side ---- */

/* Asks for a keep-alive comment; false once the first token is there or the job is over. */
bool outbox_comment(outbox *ob);
/* The request has failed while its job goes on: it is to be cancelled. */
bool outbox_is_lost(outbox *ob);
/* The reason to give when the job ends cancelled ("took longer than 60 s"); the first one counts. http 0:
 * none. */
void outbox_reason(outbox *ob, status_code code, const char *why);
bool outbox_over(outbox *ob);          /* the job is */
bool outbox_streams(const outbox *ob); /* what the options said */

/* How the job stands, for a line of the log. */
typedef struct outbox_summary {
    outbox_end end; /* ended false: it still ran when its client left */
    int n_tokens;   /* so far, of all choices */
    double queue_s; /* 0: unknown */
    double first_s; /* start to first token; 0: none came */
} outbox_summary;
void outbox_sum_up(outbox *ob, outbox_summary *out);

#endif
