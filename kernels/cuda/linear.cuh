/* linear.cuh - what the two files of products share: a weight row's vectors of 16 bytes, and what follows a sum. */
#ifndef VLMD_KERNELS_CUDA_LINEAR_CUH
#define VLMD_KERNELS_CUDA_LINEAR_CUH

#include "kernels/cuda/act.cuh"

template <class T> union vec {
    enum { N = 16 / sizeof(typename T::bits) };
    uint4 all;
    typename T::bits e[N];
};

/* A vector that ends past k, or that does not lie on 16 bytes. */
template <class T> static __device__ __forceinline__ void load_some(vec<T> &v, const typename T::bits *w, int64_t left) {
#pragma unroll
    for (int i = 0; i < vec<T>::N; i++) v.e[i] = i < left ? w[i] : static_cast<typename T::bits>(0);
}

template <class T, bool ALIGNED>
static __device__ __forceinline__ void load(vec<T> &v, const typename T::bits *w) {
    if (ALIGNED)
        v.all = __ldg(reinterpret_cast<const uint4 *>(w));
    else
        load_some<T>(v, w, vec<T>::N);
}

static __device__ __forceinline__ void finish(const cuk_linear &l, const cuk_linear_to &to, int64_t row, int64_t out, float sum) {
    if (row >= l.rows || out >= to.out) return;
    if (to.bias) sum = __fadd_rn(sum, to.bias[out]);
    sum = cu_act_any(sum, l.act);
    float *y = to.y + row * to.y_ld + out;
    *y = l.add ? __fadd_rn(*y, sum) : sum;
}

/* ---- which weight a block works on: each has blocks of its own, `each` outputs a block ---- */

struct linear_blocks {
    unsigned first[CUK_LINEARS], all; /* blocks before each; of all */
};
static inline linear_blocks blocks_of(const cuk_linear *l, int64_t each) {
    linear_blocks b = {};
    for (int i = 0; i < CUK_LINEARS; i++) {
        b.first[i] = b.all;
        if (i < l->n) b.all += cu_blocks(l->to[i].out, each);
    }
    return b;
}
static __device__ __forceinline__ int linear_of(const linear_blocks &b, int n, unsigned block) {
    int i = 0;
#pragma unroll
    for (int j = 1; j < CUK_LINEARS; j++)
        if (j < n && block >= b.first[j]) i = j;
    return i;
}

/* Every row of all w, or of x, begins on 16 bytes. */
static inline bool w_on_16(const cuk_linear *l) {
    bool ok = true;
    for (int i = 0; i < l->n; i++)
        ok = ok && reinterpret_cast<uintptr_t>(l->to[i].w) % 16 == 0 && l->to[i].w_ld * (l->t == CUK_F32 ? 4 : 2) % 16 == 0;
    return ok;
}
static inline bool x_on_16(const cuk_linear *l) {
    return reinterpret_cast<uintptr_t>(l->x) % 16 == 0 && l->x_ld % 4 == 0;
}

#endif
