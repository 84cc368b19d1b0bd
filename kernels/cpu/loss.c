/* loss.c - what a batch of pairs loses, on the CPU. Thread: the ctx owner's; pairs on the pool. Owns nothing. */
#include <math.h>

#include "kernels/cpu/cpu.h"

enum { LANES = 16 };

/* The order that ops.h states for dot products. */
static float fold(float lane[LANES]) {
    for (int half = LANES / 2; half > 0; half /= 2)
        for (int i = 0; i < half; i++) lane[i] += lane[i + half];
    return lane[0];
}

/* log sum exp of n numbers, step apart. */
static float log_sum_exp(const float *x, int64_t step, int64_t n) {
    float lane[LANES] = {0}, most = -INFINITY;
    for (int64_t j = 0; j < n; j++) most = x[j * step] > most ? x[j * step] : most;
    for (int64_t j = 0; j < n; j++) lane[j % LANES] += expf(x[j * step] - most);
    return most + logf(fold(lane));
}

/* -log sigmoid(x) */
static float softplus_of_minus(float x) {
    return (x < 0 ? -x : 0) + log1pf(expf(x < 0 ? x : -x));
}

static float sigmoid_term(const float *row, int64_t i, int64_t n) {
    float lane[LANES] = {0};
    for (int64_t j = 0; j < n; j++) lane[j % LANES] += softplus_of_minus(j == i ? row[j] : -row[j]);
    return fold(lane);
}

typedef struct loss_job {
    const float *logits;
    float *terms;
    int64_t ld, n;
    bool sigmoid;
} loss_job;

static void terms_range(void *arg, int64_t from, int64_t to, int thread) {
    (void)thread;
    const loss_job *l = arg;
    for (int64_t i = from; i < to; i++) {
        const float *row = l->logits + i * l->ld;
        l->terms[i] =
            l->sigmoid
                ? sigmoid_term(row, i, l->n)
                : (log_sum_exp(row, 1, l->n) - row[i] + (log_sum_exp(l->logits + i, l->ld, l->n) - row[i])) /
                      2;
    }
}

void cpu_pair_loss(ctx *c, tensor loss, tensor terms, tensor logits, bool sigmoid) {
    loss_job l = {logits.data, terms.data, logits.ld, logits.d[0], sigmoid};
    float lane[LANES] = {0};
    cpu_for(cpu_of(c), l.n, 8, (double)l.n * (double)l.n * 20, terms_range, &l);
    for (int64_t i = 0; i < l.n; i++) lane[i % LANES] += l.terms[i];
    *(float *)loss.data = fold(lane) / (float)l.n;
}
