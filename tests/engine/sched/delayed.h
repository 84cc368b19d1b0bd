/* delayed.h - a CPU backend that behaves as if it worked beside the host: what is fetched arrives when its mark is waited
 * for, and so does what went wrong. Until then it is rubbish. Include after fake_model.h, whose faults it carries. */
#ifndef VLMD_TESTS_SCHED_DELAYED_H
#define VLMD_TESTS_SCHED_DELAYED_H

#include "kernels/backend.h"

typedef struct delayed_copy {
    void *to, *bytes;
    size_t n;
    struct delayed_copy *next;
} delayed_copy;

static delayed_copy *delayed_open[CTX_LANES]; /* fetched, with no mark behind them yet */
static backend_ops delayed_ops;

typedef struct delayed_event {
    delayed_copy *copies;
    int asked; /* how often whether it was reached */
    bool fault, reached;
} delayed_event;

static void delayed_fetch(ctx *c, void *dst, tensor src) {
    delayed_copy *d = mem_calloc(1, sizeof *d);
    size_t n = (size_t)tensor_count(&src) * dtype_size(src.dt);
    *d = (delayed_copy){dst, mem_alloc(n), n, delayed_open[c->lane]};
    memcpy(d->bytes, src.data, n);
    memset(dst, 0xa5, n);
    delayed_open[c->lane] = d;
}

static bool delayed_mark_init(backend_mark *m, status *st) {
    (void)st;
    m->event = mem_calloc(1, sizeof(delayed_event));
    return m->event;
}

static void delayed_arrive(delayed_event *e) {
    for (delayed_copy *d = e->copies, *next; d; d = next) {
        next = d->next;
        memcpy(d->to, d->bytes, d->n);
        mem_free(d->bytes);
        mem_free(d);
    }
    e->copies = NULL;
    e->reached = true;
}

static void delayed_mark_fini(backend_mark *m) {
    delayed_arrive(m->event);
    mem_free(m->event);
}

static void delayed_mark(ctx *c, backend_mark *m) {
    delayed_event *e = m->event;
    CHECK(!e->copies); /* nobody sets a mark anew before it was waited for */
    *e = (delayed_event){.copies = delayed_open[c->lane], .fault = fake_fault[c->lane]};
    delayed_open[c->lane] = NULL;
    fake_fault[c->lane] = false;
}

static bool delayed_reached(const backend_mark *m) {
    delayed_event *e = m->event;
    return e->reached || ++e->asked > 2;
}

static void delayed_wait(ctx *c, backend_mark *m) {
    delayed_event *e = m->event;
    delayed_arrive(e);
    if (e->fault) status_set(&c->st, ST_INTERNAL, "poisoned");
    e->fault = false;
}

/* From now on be is such a one. */
static inline void delay_backend(backend *be) {
    delayed_ops = *be->ops;
    delayed_ops.fetch = delayed_fetch;
    delayed_ops.mark_init = delayed_mark_init;
    delayed_ops.mark_fini = delayed_mark_fini;
    delayed_ops.mark = delayed_mark;
    delayed_ops.reached = delayed_reached;
    delayed_ops.wait = delayed_wait;
    be->ops = &delayed_ops;
}

#endif
