/* sample_greedy.c - stands in until sample.c is there: the best id, no log-probs. */
#include "kernels/cpu/cpu.h"

#include <string.h>

__attribute__((weak)) void cpu_sample(struct backend *be, tensor logits, const sample_row *rows,
                                      sample_result *out) {
    (void)be;
    (void)rows;
    for (int64_t i = 0; i < logits.d[0]; i++) {
        const float *l = (const float *)logits.data + i * logits.ld;
        memset(&out[i], 0, sizeof out[i]);
        for (int64_t v = 1; v < logits.d[1]; v++)
            if (l[v] > l[out[i].id]) out[i].id = (int32_t)v;
    }
}
