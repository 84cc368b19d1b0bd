/* upload.c - weights on the device: any number of them in one allocation, filled in large copies from pinned memory while
 * helper threads read what comes next.
 *
 * Weights lie on the device in the order in which they lie in the host's memory, so that a mapped file is read from its
 * beginning to its end, and as packed rows, vectors widened to f32. The allocation is cut into chunks; a chunk is put together
 * in one of SLOTS pinned buffers by whoever is free (the helpers, or the caller when it would wait), and copied once those
 * before it are under way. What lies ahead of the chunks under work is asked of the disk beforehand.
 * Threads: the ctx owner's; helpers only while weights_load runs, and they touch host memory alone. Owner: each allocation
 * belongs to its weights together. Tested by tests/kernels/test_device_memory.c. */
#include "kernels/cuda/cuda.h"

#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { SLOTS = 8, HELPERS = 4, ALIGN = 256 };
#define CHUNK ((size_t)16 << 20)
#define AHEAD ((size_t)512 << 20) /* of the host's bytes */
#define LARGE ((size_t)1 << 30)   /* from here on the log shows progress */

typedef struct memory { /* one allocation */
    void *p;
    int users;
} memory;

/* What becomes of one weight, or of its second form. */
typedef struct part {
    weight *w;
    size_t at, bytes; /* in the allocation */
    bool vector;
} part;

typedef enum slot_state { EMPTY, FILLING, FULL } slot_state;

typedef struct load {
    part *parts;
    int n_parts;
    size_t bytes, n_chunks, next; /* next chunk to fill */
    uint8_t *pinned;
    slot_state state[SLOTS]; /* slot i % SLOTS holds chunk i */
    pthread_mutex_t mu;
    pthread_cond_t changed;
    bool over;
} load;

static size_t whole(size_t bytes) {
    return (bytes + ALIGN - 1) / ALIGN * ALIGN;
}

static bool has_matrix(const weight *w) {
    return w->use & (WEIGHT_TABLE | WEIGHT_LINEAR);
}

static size_t count(const weight *w) {
    return (size_t)(w->rows * w->cols);
}

static size_t matrix_bytes(const weight *w) {
    return has_matrix(w) ? count(w) * dtype_size(w->dt) : 0;
}

static size_t vector_bytes(const weight *w) {
    return w->use & WEIGHT_VECTOR ? count(w) * sizeof(float) : 0;
}

size_t cuda_weights_bytes(backend *be, weight *const *w, int n) {
    size_t bytes = 0;
    (void)be;
    for (int i = 0; i < n; i++) bytes += whole(matrix_bytes(w[i])) + whole(vector_bytes(w[i]));
    return bytes;
}

/* ---- putting a chunk together (any thread) ---- */

/* Bytes [from, from + n) of a matrix as packed rows. */
static void put_matrix(uint8_t *to, const weight *w, size_t from, size_t n) {
    const size_t size = dtype_size(w->dt), row = (size_t)w->cols * size;
    const uint8_t *host = w->host.data;
    const size_t ld = (w->rows > 1 ? (size_t)w->host.ld : (size_t)w->cols) * size;
    while (n > 0) {
        const size_t r = from / row, in_row = from % row;
        size_t k = ld == row ? n : row - in_row;
        if (k > n) k = n;
        memcpy(to, host + r * ld + in_row, k);
        to += k, from += k, n -= k;
    }
}

/* Bytes [from, from + n) of a vector's f32, both multiples of their size. */
static void put_vector(uint8_t *to, const weight *w, size_t from, size_t n) {
    const size_t size = dtype_size(w->dt), cols = (size_t)w->cols;
    const size_t ld = w->host.nd > 1 && w->rows > 1 ? (size_t)w->host.ld : cols;
    size_t i = from / sizeof(float), left = n / sizeof(float);
    while (left > 0) {
        const size_t r = i / cols, in_row = i % cols, k = cols - in_row < left ? cols - in_row : left;
        simd_portable.widen((float *)(void *)to, (const uint8_t *)w->host.data + (r * ld + in_row) * size,
                            w->dt, (int64_t)k);
        to += k * sizeof(float), i += k, left -= k;
    }
}

static void fill(const load *l, size_t chunk) {
    const size_t begin = chunk * CHUNK, end = begin + CHUNK < l->bytes ? begin + CHUNK : l->bytes;
    uint8_t *to = l->pinned + chunk % SLOTS * CHUNK;
    int lo = 0, hi = l->n_parts;
    while (lo < hi) { /* the first part that ends behind begin */
        const int mid = (lo + hi) / 2;
        if (l->parts[mid].at + l->parts[mid].bytes > begin)
            hi = mid;
        else
            lo = mid + 1;
    }
    for (; lo < l->n_parts && l->parts[lo].at < end; lo++) {
        const part *p = &l->parts[lo];
        const size_t from = p->at > begin ? p->at : begin,
                     upto = p->at + p->bytes < end ? p->at + p->bytes : end;
        (p->vector ? put_vector : put_matrix)(to + (from - begin), p->w, from - p->at, upto - from);
    }
}

/* Fills one chunk, if there is a slot for it. Called, and returns, under the lock. */
static bool fill_next(load *l) {
    if (l->next >= l->n_chunks || l->state[l->next % SLOTS] != EMPTY) return false;
    const size_t chunk = l->next++;
    l->state[chunk % SLOTS] = FILLING;
    pthread_mutex_unlock(&l->mu);
    fill(l, chunk);
    pthread_mutex_lock(&l->mu);
    l->state[chunk % SLOTS] = FULL;
    pthread_cond_broadcast(&l->changed);
    return true;
}

static void *help(void *arg) {
    load *l = arg;
    pthread_mutex_lock(&l->mu);
    while (!l->over && l->next < l->n_chunks)
        if (!fill_next(l)) pthread_cond_wait(&l->changed, &l->mu);
    pthread_mutex_unlock(&l->mu);
    return NULL;
}

/* ---- copying (the caller's thread) ---- */

/* Tells the system which of the host's bytes chunks up to `chunk` need soon. *part: where the last call ended. */
static void read_ahead(const load *l, size_t chunk, int *at) {
    const size_t upto = chunk * CHUNK + AHEAD, page = (size_t)sysconf(_SC_PAGESIZE);
    for (; *at < l->n_parts && l->parts[*at].at < upto; (*at)++) {
        const part *p = &l->parts[*at];
        const uintptr_t from = (uintptr_t)p->w->host.data / page * page;
        const size_t bytes = matrix_bytes(p->w);
        if (bytes >= page) madvise((void *)from, (uintptr_t)p->w->host.data + bytes - from, MADV_WILLNEED);
    }
}

static void show(const load *l, size_t chunk, double begin, double *said) {
    const double now = time_now_s(), done = (double)(chunk * CHUNK);
    if (l->bytes < LARGE || now - *said < 2) return;
    *said = now;
    log_info("weights: %.1f of %.1f GB on the GPU, %.2f GB/s", done / 1e9, (double)l->bytes / 1e9,
             done / 1e9 / (now - begin));
}

/* A slot is free again when its copy is done. */
static bool free_slot(load *l, int slot, cudaEvent_t copied, status *st) {
    if (!cuda_ok(st, cudaEventSynchronize(copied), "upload of weights")) return false;
    pthread_mutex_lock(&l->mu);
    l->state[slot] = EMPTY;
    pthread_cond_broadcast(&l->changed);
    pthread_mutex_unlock(&l->mu);
    return true;
}

static bool copy_chunks(cuda_backend *be, load *l, uint8_t *to, cudaEvent_t *copied, status *st) {
    const double begin = time_now_s();
    double said = begin;
    int ahead = 0;
    for (size_t i = 0; i < l->n_chunks; i++) {
        const size_t slot = i % SLOTS, n = i + 1 < l->n_chunks ? CHUNK : l->bytes - i * CHUNK;
        /* Half of the slots are copied while the others are filled. */
        if (i >= SLOTS / 2 &&
            !free_slot(l, (int)((i - SLOTS / 2) % SLOTS), copied[(i - SLOTS / 2) % SLOTS], st))
            return false;
        read_ahead(l, i, &ahead);
        show(l, i, begin, &said);
        pthread_mutex_lock(&l->mu);
        while (l->state[slot] != FULL)
            if (!fill_next(l)) pthread_cond_wait(&l->changed, &l->mu);
        pthread_mutex_unlock(&l->mu);
        if (!cuda_ok(st,
                     cudaMemcpyAsync(to + i * CHUNK, l->pinned + slot * CHUNK, n, cudaMemcpyHostToDevice,
                                     load_lane(be)->stream),
                     "upload of weights") ||
            !cuda_ok(st, cudaEventRecord(copied[slot], load_lane(be)->stream), "upload of weights"))
            return false;
    }
    if (!cuda_ok(st, cudaStreamSynchronize(load_lane(be)->stream), "upload of weights")) return false;
    const double took = time_now_s() - begin;
    if (l->bytes >= LARGE)
        log_info("weights: %.1f GB on the GPU in %.1f s, %.2f GB/s", (double)l->bytes / 1e9, took,
                 (double)l->bytes / 1e9 / (took + 1e-9));
    return true;
}

static int start_helpers(load *l, pthread_t *helpers) {
    sigset_t all, old;
    int n = 0;
    if (l->n_chunks < 2) return 0;
    sigfillset(&all); /* signals are the server's */
    pthread_sigmask(SIG_SETMASK, &all, &old);
    while (n < HELPERS && pthread_create(&helpers[n], NULL, help, l) == 0) n++;
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    return n; /* with none the caller does it all */
}

static bool run(cuda_backend *be, load *l, uint8_t *to, status *st) {
    cudaEvent_t copied[SLOTS] = {0};
    pthread_t helpers[HELPERS];
    const size_t slots = l->n_chunks < SLOTS ? l->n_chunks : SLOTS;
    bool ok = cuda_ok(st, cudaMallocHost((void **)&l->pinned, l->n_chunks == 1 ? l->bytes : slots * CHUNK),
                      "pinned memory for the upload of weights");
    for (size_t i = 0; i < slots && ok; i++)
        ok = cuda_ok(st, cudaEventCreateWithFlags(&copied[i], cudaEventDisableTiming), "event");
    if (ok) {
        const int n = start_helpers(l, helpers);
        ok = copy_chunks(be, l, to, copied, st);
        pthread_mutex_lock(&l->mu);
        l->over = true;
        pthread_cond_broadcast(&l->changed);
        pthread_mutex_unlock(&l->mu);
        for (int i = 0; i < n; i++) pthread_join(helpers[i], NULL);
    }
    cudaStreamSynchronize(load_lane(be)->stream);
    for (size_t i = 0; i < slots; i++)
        if (copied[i]) cudaEventDestroy(copied[i]);
    cudaFreeHost(l->pinned);
    return ok;
}

/* ---- weights ---- */

static int by_address(const void *a, const void *b) {
    const part *x = a, *y = b;
    const uintptr_t p = (uintptr_t)x->w->host.data, q = (uintptr_t)y->w->host.data;
    return p != q ? (p < q ? -1 : 1) : (int)x->vector - (int)y->vector;
}

static bool lay_out(load *l, weight *const *w, int n, status *st) {
    l->parts = mem_calloc(2 * (size_t)n, sizeof *l->parts);
    if (!l->parts) return status_set(st, ST_NO_MEMORY, "no memory for %d weights", n);
    for (int i = 0; i < n; i++) {
        if (has_matrix(w[i])) l->parts[l->n_parts++] = (part){w[i], 0, matrix_bytes(w[i]), false};
        if (w[i]->use & WEIGHT_VECTOR) l->parts[l->n_parts++] = (part){w[i], 0, vector_bytes(w[i]), true};
    }
    qsort(l->parts, (size_t)l->n_parts, sizeof *l->parts, by_address);
    for (int i = 0; i < l->n_parts; i++) {
        l->parts[i].at = l->bytes;
        l->bytes += whole(l->parts[i].bytes);
    }
    l->n_chunks = (l->bytes + CHUNK - 1) / CHUNK;
    return true;
}

/* The weights take the allocation over. */
static void hand_over(const load *l, memory *m) {
    for (int i = 0; i < l->n_parts; i++) {
        weight *w = l->parts[i].w;
        void *p = (uint8_t *)m->p + l->parts[i].at;
        if (l->parts[i].vector)
            w->vec = p;
        else
            w->data = p;
        if (w->memory) continue;
        w->memory = m;
        m->users++;
    }
}

bool cuda_weights_load(backend *b, weight *const *w, int n, status *st) {
    cuda_backend *be = cuda_enter(b);
    load l = {.mu = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER};
    memory *m = mem_calloc(1, sizeof *m);
    bool ok = m || status_set(st, ST_NO_MEMORY, "no memory for %d weights", n);
    ok = ok && lay_out(&l, w, n, st);
    if (ok && l.bytes) {
        m->p = cuda_take(be, l.bytes, st);
        ok = m->p && run(be, &l, m->p, st);
    }
    if (ok && l.n_parts) {
        hand_over(&l, m);
    } else {
        if (m) cudaFree(m->p);
        mem_free(m);
    }
    mem_free(l.parts);
    pthread_mutex_destroy(&l.mu);
    pthread_cond_destroy(&l.changed);
    return ok;
}

/* A matrix lies packed on the device, as stored. */
bool cuda_weight_init(weight *w, const tensor *host, status *st) {
    (void)host, (void)st;
    w->data = NULL;
    w->ld = w->cols;
    return true;
}

void cuda_weight_fini(weight *w) {
    memory *m = w->memory;
    if (!m || --m->users) return;
    cuda_enter(w->be);
    cudaFree(m->p);
    mem_free(m);
}
