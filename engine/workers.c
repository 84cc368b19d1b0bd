/* workers.c - see workers.h. */
#include "engine/workers.h"

#include <pthread.h>

struct workers {
    pthread_mutex_t mu;
    pthread_cond_t changed;
    seq_list queue;
    bool stop;
    double decode_s, resize_s;
    const promptkit *kit;
    inbox *in;
    int n_threads;
    pthread_t *threads;
};

/* A cancelled job ends within one picture, a JPEG of many scans within one row of blocks. */
static bool decode(const workers *w, seq *s) {
    for (int i = 0; i < s->prompt->n_images; i++)
        if (atomic_load(&s->cancelled) || !prompt_decode_image(w->kit, s->prompt, i, &s->cancelled, &s->st))
            return false;
    return true;
}

static void *run(void *arg) {
    workers *w = arg;
    pthread_mutex_lock(&w->mu);
    for (;;) {
        while (!w->queue.head && !w->stop) pthread_cond_wait(&w->changed, &w->mu);
        if (w->stop) break;
        seq *s = seq_list_pop(&w->queue);
        pthread_mutex_unlock(&w->mu);
        double begin = time_now_s();
        if (decode(w, s)) seq_send_input_done(s);
        double seconds = time_now_s() - begin, resize = s->prompt->resize_s;
        inbox_post(w->in, s);
        pthread_mutex_lock(&w->mu);
        w->resize_s += resize;
        w->decode_s += seconds > resize ? seconds - resize : 0;
    }
    pthread_mutex_unlock(&w->mu);
    return NULL;
}

workers *workers_new(int n, const promptkit *kit, inbox *in, status *st) {
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
    for (seq *s; (s = seq_list_pop(&w->queue));) inbox_post(w->in, s);
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
    seq_list_push(&w->queue, s);
    pthread_cond_signal(&w->changed);
    pthread_mutex_unlock(&w->mu);
}

void workers_take_cancelled(workers *w, seq_list *to) {
    pthread_mutex_lock(&w->mu);
    seq_list_take_cancelled(&w->queue, to);
    pthread_mutex_unlock(&w->mu);
}

void workers_seconds(workers *w, double *decode, double *resize) {
    pthread_mutex_lock(&w->mu);
    *decode = w->decode_s;
    *resize = w->resize_s;
    pthread_mutex_unlock(&w->mu);
}
