/* sample.c - op_sample and op_next_ids on the GPU, host side: rules lie on the device already, ids and log-probs stay there
 * until they are fetched; logits never leave it. Thread: the ctx owner's. Memory: the lane's work memory. */
#include "kernels/cuda/cuda.h"

_Static_assert(sizeof(cuk_choice) == sizeof(sample_rule) && sizeof(cuk_chosen) == sizeof(sample_result),
               "kernels and op table share these");

void cuda_sample(ctx *c, tensor logits, tensor rules, tensor results) {
    if (!cuda_work(c, (size_t)(logits.d[0] * logits.d[1]) * sizeof(float))) return;
    cuda_lane *l = lane_of(c);
    cuk_sample(l->stream, logits.data, logits.ld, logits.d[0], logits.d[1], rules.data, l->work,
               results.data);
    cuda_ok(&c->st, cudaGetLastError(), "sample");
}

void cuda_next_ids(ctx *c, tensor ids, tensor from, tensor results) {
    cuk_next_ids(lane_of(c)->stream, ids.data, from.data, ids.d[0], results.data, results.d[0],
                 lane_of(c)->fault);
    cuda_ok(&c->st, cudaGetLastError(), "next_ids");
}
