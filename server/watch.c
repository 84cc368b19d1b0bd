/* watch.c - see watch.h. One thread of its own; owns the slot table and the epoll set. */
#include "server/watch.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

enum { TICK_MS = 200, MAX_EVENTS = 64 };

struct watch {
    watch_options o;
    pthread_mutex_t lock;
    pthread_t thread;
    int epoll, stop_fd;
    watch_entry **slots;
    int n_slots, n_used; /* slots[0..n_used) may be in use */
    uint32_t serial;
    outbox **doomed; /* references whose jobs are to be cancelled once the lock is let go; 4 * n_slots long */
    int n_doomed;
};

/* ---- under the lock ---------------------------------------------------------------------------------------
 */

static void doom(watch *w, watch_entry *e) {
    if (w->n_doomed < 4 * w->n_slots) w->doomed[w->n_doomed++] = outbox_ref(e->ob);
}

void watch_raw_reply(int fd, const char *line, const char *message) {
    char body[300], text[600];
    int n = snprintf(
        body, sizeof body,
        "{\"error\":{\"message\":\"%s\",\"type\":\"invalid_request_error\",\"param\":null,\"code\":null}}\n",
        message);
    int k = snprintf(
        text, sizeof text,
        "HTTP/1.1 %s\r\nContent-Type: application/json\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s",
        line, n, body);
    ssize_t sent = send(fd, text, (size_t)k, MSG_NOSIGNAL | MSG_DONTWAIT);
    (void)sent;
}

static void shut(const watch *w, watch_entry *e) {
    if (e->shut) return;
    e->shut = true;
    if (e->phase == WATCH_BODY && !w->o.encrypted) {
        /* The library cannot answer in the middle of a body, and writes nothing meanwhile. */
        watch_raw_reply(e->fd, "408 Request Timeout", "the request's body did not arrive in time");
    }
    shutdown(e->fd, SHUT_RDWR); /* the library then sees the end and closes */
}

static void look_after(watch *w, watch_entry *e, double now) {
    if (e->deadline && now > e->deadline) {
        if (e->phase != WATCH_JOB) {
            shut(w, e);
        } else if (e->ob) {
            outbox_reason(e->ob, ST_CANCELLED, "the request took longer than this server allows");
            doom(w, e);
        }
        e->deadline = 0;
    }
    if (!e->ob) return;
    if (e->next_comment && now >= e->next_comment)
        e->next_comment = outbox_comment(e->ob) ? now + w->o.comment_s : 0;
    if (outbox_is_lost(e->ob)) doom(w, e);
}

static void hung_up(watch *w, uint64_t tag) {
    int slot = (int)(tag & 0xFFFFFF);
    watch_entry *e = slot < w->n_used ? w->slots[slot] : NULL;
    if (e && e->serial == (uint32_t)(tag >> 32) && e->ob) doom(w, e);
}

/* ---- the thread
 * -------------------------------------------------------------------------------------------- */

static void cancel_doomed(watch *w, outbox **list, int n) {
    for (int i = 0; i < n; i++) {
        w->o.cancel(w->o.arg, list[i]);
        outbox_unref(list[i]);
    }
}

static void *run(void *arg) {
    watch *w = arg;
    outbox *batch[MAX_EVENTS];
    double next_tick = time_now_s();
    for (;;) {
        struct epoll_event ev[MAX_EVENTS];
        int n = epoll_wait(w->epoll, ev, MAX_EVENTS, TICK_MS);
        if (n < 0 && errno != EINTR) log_error("watcher: epoll_wait: %s", strerror(errno));
        double now = time_now_s();
        pthread_mutex_lock(&w->lock);
        bool stop = false;
        for (int i = 0; i < n; i++) {
            if (ev[i].data.u64 == UINT64_MAX)
                stop = true;
            else
                hung_up(w, ev[i].data.u64);
        }
        if (now >= next_tick) {
            next_tick = now + TICK_MS / 1000.0;
            for (int i = 0; i < w->n_used; i++)
                if (w->slots[i]) look_after(w, w->slots[i], now);
        }
        while (w->n_doomed) {
            int k = w->n_doomed < MAX_EVENTS ? w->n_doomed : MAX_EVENTS;
            memcpy(batch, w->doomed + w->n_doomed - k, sizeof *batch * (size_t)k);
            w->n_doomed -= k;
            pthread_mutex_unlock(&w->lock);
            cancel_doomed(w, batch, k);
            pthread_mutex_lock(&w->lock);
        }
        pthread_mutex_unlock(&w->lock);
        if (stop) return NULL;
    }
}

watch *watch_new(const watch_options *o, status *st) {
    watch *w = mem_calloc(1, sizeof *w);
    if (!w) return status_set(st, ST_NO_MEMORY, "no memory for the watcher"), NULL;
    w->o = *o;
    w->epoll = epoll_create1(EPOLL_CLOEXEC);
    w->stop_fd = eventfd(0, EFD_CLOEXEC);
    struct epoll_event ev = {.events = EPOLLIN, .data.u64 = UINT64_MAX};
    bool ok = w->epoll >= 0 && w->stop_fd >= 0 && epoll_ctl(w->epoll, EPOLL_CTL_ADD, w->stop_fd, &ev) == 0 &&
              pthread_mutex_init(&w->lock, NULL) == 0;
    if (ok && pthread_create(&w->thread, NULL, run, w) != 0) {
        pthread_mutex_destroy(&w->lock);
        ok = false;
    }
    if (ok) return w;
    status_set(st, ST_IO, "cannot start the watcher thread: %s", strerror(errno));
    if (w->epoll >= 0) close(w->epoll);
    if (w->stop_fd >= 0) close(w->stop_fd);
    mem_free(w);
    return NULL;
}

void watch_free(watch *w) {
    if (!w) return;
    uint64_t one = 1;
    ssize_t k = write(w->stop_fd, &one, sizeof one);
    (void)k;
    pthread_join(w->thread, NULL);
    close(w->epoll);
    close(w->stop_fd);
    pthread_mutex_destroy(&w->lock);
    mem_free(w->slots);
    mem_free(w->doomed);
    mem_free(w);
}

/* ---- called by HTTP threads
 * ---------------------------------------------------------------------------------- */

static bool more_slots(watch *w) {
    int n = w->n_slots ? w->n_slots * 2 : 64;
    if (n > 0xFFFFFF) return false;
    watch_entry **s = mem_realloc(w->slots, sizeof *s * (size_t)n);
    if (!s) return false;
    w->slots = s;
    outbox **d = mem_realloc(w->doomed, sizeof *d * (size_t)n * 4);
    if (!d) return false;
    w->doomed = d;
    w->n_slots = n;
    return true;
}

static double limit(double seconds) {
    return seconds > 0 ? time_now_s() + seconds : 0;
}

bool watch_add(watch *w, watch_entry *e, int fd) {
    pthread_mutex_lock(&w->lock);
    int slot = 0;
    while (slot < w->n_used && w->slots[slot]) slot++;
    bool ok = slot < w->n_slots || more_slots(w);
    if (ok) {
        *e = (watch_entry){.fd = fd, .slot = slot, .serial = ++w->serial, .deadline = limit(w->o.headers_s)};
        w->slots[slot] = e;
        if (slot == w->n_used) w->n_used++;
    }
    pthread_mutex_unlock(&w->lock);
    return ok;
}

static void leave_job(watch *w, watch_entry *e, outbox **ob) {
    *ob = e->ob;
    if (!e->ob) return;
    e->ob = NULL;
    e->next_comment = 0;
    epoll_ctl(w->epoll, EPOLL_CTL_DEL, e->fd, NULL);
}

void watch_remove(watch *w, watch_entry *e) {
    outbox *ob;
    pthread_mutex_lock(&w->lock);
    leave_job(w, e, &ob);
    w->slots[e->slot] = NULL;
    while (w->n_used && !w->slots[w->n_used - 1]) w->n_used--;
    pthread_mutex_unlock(&w->lock);
    outbox_unref(ob);
}

void watch_enter(watch *w, watch_entry *e, watch_phase phase) {
    pthread_mutex_lock(&w->lock);
    e->phase = phase;
    e->deadline = limit(phase == WATCH_HEADERS ? w->o.headers_s : phase == WATCH_BODY ? w->o.body_s : 0);
    pthread_mutex_unlock(&w->lock);
}

void watch_job(watch *w, watch_entry *e, outbox *ob) {
    outbox_ref(ob);
    pthread_mutex_lock(&w->lock);
    CHECK(!e->ob);
    e->ob = ob;
    e->phase = WATCH_JOB;
    e->deadline = limit(w->o.request_s);
    e->next_comment = limit(w->o.comment_s);
    struct epoll_event ev = {.events = EPOLLRDHUP | EPOLLONESHOT,
                             .data.u64 = (uint64_t)e->serial << 32 | (uint32_t)e->slot};
    if (epoll_ctl(w->epoll, EPOLL_CTL_ADD, e->fd, &ev) != 0)
        log_warn("watcher: cannot watch a connection: %s", strerror(errno));
    pthread_mutex_unlock(&w->lock);
}

void watch_job_over(watch *w, watch_entry *e) {
    outbox *ob;
    pthread_mutex_lock(&w->lock);
    leave_job(w, e, &ob);
    pthread_mutex_unlock(&w->lock);
    outbox_unref(ob);
}

bool watch_timed_out(watch *w, const watch_entry *e) {
    pthread_mutex_lock(&w->lock);
    bool shut_down = e->shut;
    pthread_mutex_unlock(&w->lock);
    return shut_down;
}

void watch_cancel_all(watch *w, status_code code, const char *why) {
    pthread_mutex_lock(&w->lock);
    for (int i = 0; i < w->n_used; i++) {
        watch_entry *e = w->slots[i];
        if (!e || !e->ob) continue;
        outbox_reason(e->ob, code, why);
        doom(w, e);
    }
    pthread_mutex_unlock(&w->lock);
}
