#include "kernels/cuda/cu.cuh"

void cuk_sample(cuk_stream, const float *, int64_t, int64_t, int64_t, const cuk_choice *, const int32_t *, const float *, float *,
                cuk_chosen *) {}
