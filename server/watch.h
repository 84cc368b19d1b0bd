/* watch.h - a thread that looks after connections while the HTTP library does not.
 *
 * libmicrohttpd neither notices a hang-up nor times anything out while a connection is suspended, and its own
 * timeout starts afresh with every byte. The watcher polls the sockets of connections that wait for the
 * engine and cancels the job of one that hung up, asks for a keep-alive comment on silent streams, and ends
 * whatever is past its deadline: headers, body, request. Threads: functions from any thread; callbacks and
 * outbox calls on the watcher's own. Locks: the watcher's lock may be held while an outbox's is taken, never
 * the other way round, and not while cancel is called. Memory: an entry is embedded in the connection and
 * must be removed before its socket closes. Tested by tests/e2e/test_disconnect.py, test_limits.py. */
#ifndef VLMD_SERVER_WATCH_H
#define VLMD_SERVER_WATCH_H

#include "kernels/base.h"
#include "server/outbox.h"

typedef struct watch watch;

typedef enum watch_phase {
    WATCH_HEADERS, /* nothing of a request is there yet, or a part of its headers */
    WATCH_BODY,
    WATCH_JOB, /* the engine works for it, or its reply is on the way */
} watch_phase;

typedef struct watch_entry { /* the watcher's; opaque to others */
    int fd, slot;
    uint32_t serial;
    watch_phase phase;
    double deadline, next_comment; /* time_now_s; 0: none */
    outbox *ob;                    /* a reference while the job runs */
    bool shut;
} watch_entry;

typedef struct watch_options {
    double headers_s, body_s, request_s; /* 0: no limit; body_s counts from the last byte */
    bool encrypted;                      /* nothing may be written past the library */
    double comment_s;                    /* how often a silent stream gets a comment */
    void (*cancel)(void *arg, outbox *ob);
    void *arg;
} watch_options;

watch *watch_new(const watch_options *o, status *st);
void watch_free(watch *w); /* stops the thread; entries must be gone */

bool watch_add(watch *w, watch_entry *e, int fd); /* false: no memory */
void watch_remove(watch *w, watch_entry *e);
/* Enters HEADERS or BODY and starts its clock; for BODY again with every piece. */
void watch_enter(watch *w, watch_entry *e, watch_phase phase);
void watch_job(watch *w, watch_entry *e, outbox *ob); /* takes its own reference */
void watch_job_over(watch *w, watch_entry *e);
bool watch_timed_out(watch *w, const watch_entry *e); /* it was shut, past a deadline */
/* Cancels every job there is, giving them this reason. */
void watch_cancel_all(watch *w, status_code code, const char *why);
/* Writes an error reply past the HTTP library, as well as the socket takes it: in the middle of a body the
 * library can queue none. line: "408 Request Timeout"; message: no quotes. */
void watch_raw_reply(int fd, const char *line, const char *message);

#endif
