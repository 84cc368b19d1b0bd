/* sample.c - op_sample on the CPU: rows spread over the pool, each chosen alone by choose.c. The ctx's
 * thread; work memory is the backend's. */
#include "kernels/cpu/choose.h"
#include "kernels/cpu/cpu.h"

typedef struct sample_job {
    cpu_backend *be;
    tensor logits;
    const sample_row *rows;
    sample_result *out;
} sample_job;

static void sample_rows(void *arg, int64_t from, int64_t to, int thread) {
    const sample_job *j = arg;
    for (int64_t i = from; i < to; i++) {
        const float *x = (const float *)j->logits.data + i * j->logits.ld;
        float *work = choose_adjusts(&j->rows[i]) ? cpu_work_thread(j->be, thread) : NULL;
        choose_token(x, j->logits.d[1], &j->rows[i], work, &j->out[i]);
    }
}

void cpu_sample(ctx *c, tensor logits, const sample_row *rows, sample_result *out) {
    int64_t n = logits.d[0], vocab = logits.d[1];
    bool adjusts = false;
    for (int64_t i = 0; i < n; i++) adjusts |= choose_adjusts(&rows[i]);
    if (adjusts && !cpu_work(c, 0, (size_t)vocab * sizeof(float))) return;
    sample_job j = {cpu_of(c), logits, rows, out};
    cpu_for(cpu_of(c), n, 1, (double)n * (double)vocab, sample_rows, &j);
}
