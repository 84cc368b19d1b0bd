/* loss.cu - what a batch of pairs loses. See cuk.h.
 *
 * One warp a pair. Lane t of 32 takes numbers t, t + 32, ... of its row (and then of its column) in rising order; then the
 * butterfly of cu_warp_sum. The mean: one warp over all pairs, in the same order.
 * Threads: the engine's launch. Owner: nothing. Tested by tests/kernels/test_ops_loss.c. */
#include "kernels/cuda/cu.cuh"

static __device__ __forceinline__ float log_sum_exp(const float *x, int64_t step, int64_t n, int lane) {
    float most = -INFINITY, sum = 0;
    for (int64_t j = lane; j < n; j += 32) most = fmaxf(most, x[j * step]);
    most = cu_warp_max(most);
    for (int64_t j = lane; j < n; j += 32) sum = __fadd_rn(sum, expf(x[j * step] - most));
    return __fadd_rn(most, logf(cu_warp_sum(sum)));
}

/* -log sigmoid(x) */
static __device__ __forceinline__ float softplus_of_minus(float x) {
    return __fadd_rn(x < 0 ? -x : 0.0f, log1pf(expf(x < 0 ? x : -x)));
}

static __global__ void __launch_bounds__(256) terms_kernel(float *terms, const float *logits, int64_t ld, int64_t n, bool sigmoid) {
    const int lane = static_cast<int>(threadIdx.x) % 32;
    const int64_t i = static_cast<int64_t>(blockIdx.x) * (blockDim.x / 32) + threadIdx.x / 32;
    if (i >= n) return; /* a whole warp */
    const float *row = logits + i * ld, own = row[i];
    float term;
    if (sigmoid) {
        float sum = 0;
        for (int64_t j = lane; j < n; j += 32) sum = __fadd_rn(sum, softplus_of_minus(j == i ? row[j] : -row[j]));
        term = cu_warp_sum(sum);
    } else {
        const float by_row = __fadd_rn(log_sum_exp(row, 1, n, lane), -own);
        term = __fadd_rn(by_row, __fadd_rn(log_sum_exp(logits + i, ld, n, lane), -own)) / 2;
    }
    if (lane == 0) terms[i] = term;
}

static __global__ void __launch_bounds__(32) mean_kernel(float *loss, const float *terms, int64_t n) {
    const int lane = static_cast<int>(threadIdx.x);
    float sum = 0;
    for (int64_t i = lane; i < n; i += 32) sum = __fadd_rn(sum, terms[i]);
    sum = cu_warp_sum(sum);
    if (lane == 0) *loss = sum / static_cast<float>(n);
}

void cuk_pair_loss(cuk_stream s, float *loss, float *terms, const float *logits, int64_t ld, int64_t n, bool sigmoid) {
    cu_launch<terms_kernel>(dim3(cu_blocks(n, 8)), dim3(256), 0, s, terms, logits, ld, n, sigmoid);
    cu_launch<mean_kernel>(dim3(1), dim3(32), 0, s, loss, terms, n);
}
