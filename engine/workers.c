/* workers.c - see workers.h. */
#include "engine/workers.h"

#include <pthread.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Below the threads that compute, which may use every core: a picture that is decoded a little later costs its own job
 * some milliseconds, a compute thread that waits for its core holds up every stream. At 10 the kernel gives a worker
 * about a ninth of a core's time against one of them: little for the streams, and still a 12-megapixel JPEG a second
 * where both cores compute without a pause. */
enum { WORKER_NICE = 10 };

/* A decode under way, on its worker's stack. Jobs that bring the same bytes wait for it without a thread. */
typedef struct flight {
    uint8_t source[IMAGE_KEY_BYTES];
    seq_list waiters; /* each at the picture of that source */
    struct flight *next;
} flight;

struct workers {
    pthread_mutex_t mu; /* may be held while the cache takes its own */
    pthread_cond_t changed;
    seq_list queue;
    flight *flights;
    bool stop;
    uint64_t decodes;
    double decode_s, resize_s;
    const promptkit *kit;
    piccache *pictures;
    inbox *in;
    int n_threads;
    pthread_t *threads;
};

static bool is_done(const seq *s) {
    return s->st.code != ST_OK || s->n_taken == s->prompt->n_images;
}

/* What is not done was cancelled, or the workers stop: nobody may take it for one whose pictures are there. */
static void post(workers *w, seq *s) {
    if (!is_done(s)) status_set(&s->st, ST_CANCELLED, "the server is shutting down");
    if (s->st.code == ST_OK) seq_send_input_done(s);
    inbox_post(w->in, s);
}

/* Whoever waited has what the decode gave: the picture, or why it cannot be decoded. Where memory was short, or
 * the one who decoded was cancelled, each tries for itself. */
static void serve(workers *w, flight *f, picture *pic, const status *why, seq_list *done) {
    bool again = false;
    flight **at = &w->flights;
    while (*at != f) at = &(*at)->next;
    *at = f->next;
    for (seq *v; (v = seq_list_pop(&f->waiters));) {
        if (pic)
            seq_take_picture(v, piccache_share(pic));
        else if (why->code != ST_NO_MEMORY && why->code != ST_CANCELLED) {
            v->st = *why;
            prompt_blame_image(v->prompt, v->n_taken, &v->st);
        }
        if (is_done(v)) {
            seq_list_push(done, v);
        } else {
            seq_list_insert(&w->queue, v);
            again = true;
        }
    }
    if (again) pthread_cond_broadcast(&w->changed);
}

static void decode_next(workers *w, seq *s, flight *f) {
    seq_list done = {0};
    status why = {0};
    prompt_image *im = &s->prompt->images[s->n_taken];
    picture *pic = NULL;
    double begin = time_now_s(), resized = s->prompt->resize_s;
    if (prompt_decode_image(w->kit, s->prompt, s->n_taken, &s->cancelled, &why))
        pic = piccache_add(w->pictures, f ? f->source : NULL, im->key, &im->pixels, im->encode_bytes, &why);
    double seconds = time_now_s() - begin;
    resized = s->prompt->resize_s - resized;
    pthread_mutex_lock(&w->mu);
    w->decode_s += seconds - resized;
    w->resize_s += resized;
    w->decodes++;
    if (f) serve(w, f, pic, &why, &done);
    pthread_mutex_unlock(&w->mu);
    if (!seq_take_picture(s, pic)) {
        s->st = why;
        prompt_blame_image(s->prompt, s->n_taken, &s->st);
    }
    for (seq *v; (v = seq_list_pop(&done));) post(w, v);
}

/* False: s belongs to another worker's flight now. */
static bool take_next(workers *w, seq *s) {
    flight f = {.waiters = {0}}, *other;
    if (!piccache_on(w->pictures)) {
        decode_next(w, s, NULL);
        return true;
    }
    const prompt_image *im = &s->prompt->images[s->n_taken];
    image_source_key(&im->source, &im->pixels, &w->kit->spec->prep, f.source);
    picture *pic = NULL;
    pthread_mutex_lock(&w->mu);
    for (other = w->flights; other; other = other->next)
        if (memcmp(other->source, f.source, IMAGE_KEY_BYTES) == 0) break;
    if (other) {
        seq_list_push(&other->waiters, s);
    } else if (!(pic = piccache_find(w->pictures, f.source))) { /* a flight ends after its picture entered */
        f.next = w->flights;
        // cppcheck-suppress autoVariables
        w->flights = &f; /* decode_next takes it off the list before this frame ends */
    }
    pthread_mutex_unlock(&w->mu);
    if (other) return false;
    if (!seq_take_picture(s, pic)) decode_next(w, s, &f);
    return true;
}

static bool stops(workers *w) {
    pthread_mutex_lock(&w->mu);
    bool stop = w->stop;
    pthread_mutex_unlock(&w->mu);
    return stop;
}

/* A cancelled job ends within one picture, a JPEG within one row of blocks. */
static void work(workers *w, seq *s) {
    while (!is_done(s) && !atomic_load(&s->cancelled) && !stops(w))
        if (!take_next(w, s)) return;
    post(w, s);
}

/* Of this thread alone (Linux counts niceness by thread). Where it is refused the worker is as urgent as the others. */
static void be_nice(void) {
    id_t self = (id_t)syscall(SYS_gettid);
    (void)setpriority(PRIO_PROCESS, self, getpriority(PRIO_PROCESS, self) + WORKER_NICE);
}

static void *run(void *arg) {
    workers *w = arg;
    be_nice();
    pthread_mutex_lock(&w->mu);
    for (;;) {
        while (!w->queue.head && !w->stop) pthread_cond_wait(&w->changed, &w->mu);
        if (w->stop) break;
        seq *s = seq_list_pop(&w->queue);
        pthread_mutex_unlock(&w->mu);
        work(w, s);
        pthread_mutex_lock(&w->mu);
    }
    pthread_mutex_unlock(&w->mu);
    return NULL;
}

workers *workers_new(int n, const promptkit *kit, piccache *pictures, inbox *in, status *st) {
    workers *w = mem_calloc(1, sizeof *w);
    pthread_t *threads = mem_calloc((size_t)n, sizeof *threads);
    if (!w || !threads || pthread_mutex_init(&w->mu, NULL) != 0) {
        mem_free(w);
        mem_free(threads);
        status_set(st, ST_NO_MEMORY, "no memory for the picture workers");
        return NULL;
    }
    pthread_cond_init(&w->changed, NULL); /* cannot fail on Linux */
    w->threads = threads;
    w->kit = kit;
    w->pictures = pictures;
    w->in = in;
    while (w->n_threads < n) {
        if (pthread_create(&w->threads[w->n_threads], NULL, run, w) != 0) {
            workers_free(w);
            status_set(st, ST_NO_MEMORY, "the system refused a thread for pictures");
            return NULL;
        }
        w->n_threads++;
    }
    return w;
}

void workers_stop(workers *w) {
    pthread_mutex_lock(&w->mu);
    w->stop = true;
    pthread_cond_broadcast(&w->changed);
    pthread_mutex_unlock(&w->mu);
    for (int i = 0; i < w->n_threads; i++) pthread_join(w->threads[i], NULL);
    w->n_threads = 0;
    for (seq *s; (s = seq_list_pop(&w->queue));) post(w, s);
}

void workers_free(workers *w) {
    if (!w) return;
    workers_stop(w);
    pthread_cond_destroy(&w->changed);
    pthread_mutex_destroy(&w->mu);
    mem_free(w->threads);
    mem_free(w);
}

void workers_add(workers *w, seq *s) {
    pthread_mutex_lock(&w->mu);
    bool stop = w->stop;
    if (!stop) {
        seq_list_insert(&w->queue, s);
        pthread_cond_signal(&w->changed);
    }
    pthread_mutex_unlock(&w->mu);
    if (stop) post(w, s);
}

void workers_take_cancelled(workers *w, seq_list *to) {
    pthread_mutex_lock(&w->mu);
    seq_list_take_cancelled(&w->queue, to);
    for (flight *f = w->flights; f; f = f->next) seq_list_take_cancelled(&f->waiters, to);
    pthread_mutex_unlock(&w->mu);
}

void workers_get_stats(workers *w, uint64_t *decodes, double *decode_s, double *resize_s) {
    pthread_mutex_lock(&w->mu);
    *decodes = w->decodes;
    *decode_s = w->decode_s;
    *resize_s = w->resize_s;
    pthread_mutex_unlock(&w->mu);
}
