/* pool.c - see pool.h.
 *
 * `state` is generation << 32 | open << 16 | how many workers are inside the job. A worker joins by raising
 * the count while the job is open; the caller closes the job when no tile is left and waits for those inside.
 * So a worker that wakes too late costs nothing, and a job's fields never change under a worker that is
 * inside. Owner: the backend. */
#include "kernels/cpu/pool.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>

enum { SPINS = 4000 }; /* some 50 to 100 microseconds */
#define OPEN     (1ull << 16)
#define COUNT(s) ((s)&0xFFFF)
#define GEN(s)   ((s) >> 32)

struct pool {
    int threads;
    pool_fn fn;
    void *arg;
    int64_t n_tiles;
    _Alignas(64) _Atomic uint64_t state;
    _Alignas(64) _Atomic int64_t next;
    _Alignas(64) _Atomic int sleepers; /* workers, or the caller, in a wait */
    _Atomic bool stop;
    pthread_mutex_t lock;
    pthread_cond_t wake;
    int started;
    struct worker {
        pool *p;
        int index;
        pthread_t thread;
    } * workers;
};

static inline void relax(void) {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#else
    sched_yield();
#endif
}

static void work(pool *p, int thread) {
    for (;;) {
        int64_t t = atomic_fetch_add_explicit(&p->next, 1, memory_order_relaxed);
        if (t >= p->n_tiles) return;
        p->fn(p->arg, t, thread);
    }
}

/* Wakes whoever waits for `state` or `stop` to change. The lock closes the gap between a waiter's last look
 * and its wait. */
static void notify(pool *p) {
    if (atomic_load(&p->sleepers) == 0) return;
    pthread_mutex_lock(&p->lock);
    pthread_cond_broadcast(&p->wake);
    pthread_mutex_unlock(&p->lock);
}

static bool job_waits(pool *p, uint64_t seen) {
    uint64_t s = atomic_load(&p->state);
    return atomic_load(&p->stop) || ((s & OPEN) && GEN(s) != seen);
}

static void *worker_main(void *arg) {
    struct worker *w = arg;
    pool *p = w->p;
    uint64_t seen = 0; /* generation of the last job joined; the first is 1 */
    for (;;) {
        for (int i = 0; i < SPINS && !job_waits(p, seen); i++) relax();
        if (!job_waits(p, seen)) {
            pthread_mutex_lock(&p->lock);
            atomic_fetch_add(&p->sleepers, 1);
            while (!job_waits(p, seen)) pthread_cond_wait(&p->wake, &p->lock);
            atomic_fetch_sub(&p->sleepers, 1);
            pthread_mutex_unlock(&p->lock);
        }
        if (atomic_load(&p->stop)) return NULL;
        uint64_t s = atomic_load(&p->state);
        bool in = false;
        while (!in && (s & OPEN) && GEN(s) != seen) in = atomic_compare_exchange_weak(&p->state, &s, s + 1);
        if (!in) continue;
        seen = GEN(s);
        work(p, w->index);
        if (COUNT(atomic_fetch_sub(&p->state, 1)) == 1) notify(p);
    }
}

static bool inside(pool *p) {
    return COUNT(atomic_load(&p->state)) != 0;
}

void pool_run(pool *p, int64_t n_tiles, pool_fn fn, void *arg) {
    if (n_tiles <= 0) return;
    if (n_tiles == 1 || p->threads == 1) {
        for (int64_t t = 0; t < n_tiles; t++) fn(arg, t, 0);
        return;
    }
    p->fn = fn;
    p->arg = arg;
    p->n_tiles = n_tiles;
    atomic_store(&p->next, 0);
    uint64_t s = atomic_load(&p->state);
    atomic_store(&p->state, (GEN(s) + 1) << 32 | OPEN); /* nobody is inside: no lost count */
    notify(p);
    work(p, 0);
    atomic_fetch_and(&p->state, ~OPEN);
    for (int i = 0; i < SPINS && inside(p); i++) relax();
    if (!inside(p)) return;
    pthread_mutex_lock(&p->lock);
    atomic_fetch_add(&p->sleepers, 1);
    while (inside(p)) pthread_cond_wait(&p->wake, &p->lock);
    atomic_fetch_sub(&p->sleepers, 1);
    pthread_mutex_unlock(&p->lock);
}

static bool start_locks(pool *p) {
    *p = (pool){0};
    if (pthread_mutex_init(&p->lock, NULL) != 0) return false;
    if (pthread_cond_init(&p->wake, NULL) == 0) return true;
    pthread_mutex_destroy(&p->lock);
    return false;
}

pool *pool_new(int threads, status *st) {
    CHECK(threads >= 1 && threads <= 4096);
    pool *p = mem_aligned(64, sizeof *p);
    struct worker *w = mem_calloc((size_t)threads, sizeof *w);
    if (!p || !w || !start_locks(p)) {
        mem_free(p);
        mem_free(w);
        status_set(st, ST_NO_MEMORY, "no memory for a pool of %d threads", threads);
        return NULL;
    }
    p->threads = threads;
    p->workers = w;
    for (int i = 1; i < threads; i++) {
        w[i] = (struct worker){.p = p, .index = i};
        if (pthread_create(&w[i].thread, NULL, worker_main, &w[i]) != 0) {
            status_set(st, ST_IO, "compute thread %d of %d did not start", i + 1, threads);
            pool_free(p);
            return NULL;
        }
        p->started = i;
    }
    return p;
}

void pool_free(pool *p) {
    if (!p) return;
    atomic_store(&p->stop, true);
    pthread_mutex_lock(&p->lock);
    pthread_cond_broadcast(&p->wake);
    pthread_mutex_unlock(&p->lock);
    for (int i = 1; i <= p->started; i++) pthread_join(p->workers[i].thread, NULL);
    pthread_cond_destroy(&p->wake);
    pthread_mutex_destroy(&p->lock);
    mem_free(p->workers);
    mem_free(p);
}

int pool_threads(const pool *p) {
    return p->threads;
}
