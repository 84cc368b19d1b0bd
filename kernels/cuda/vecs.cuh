/* vecs.cuh - groups of N neighbouring floats, N 1 or 4, and kernels that treat each group of a row alone: what the files of
 * row-by-row kernels share. A group of four is one access of 16 (or, for 16-bit numbers, 8) bytes. */
#ifndef VLMD_KERNELS_CUDA_VECS_CUH
#define VLMD_KERNELS_CUDA_VECS_CUH

#include "kernels/cuda/cu.cuh"

template <int N> struct cu_vec {
    float v[N];
};

template <int N> static __device__ __forceinline__ cu_vec<N> cu_load(const float *p) {
    cu_vec<N> r;
    if (N == 4) {
        const float4 f = *reinterpret_cast<const float4 *>(p);
        r.v[0] = f.x, r.v[N - 3 > 0 ? 1 : 0] = f.y, r.v[N > 2 ? 2 : 0] = f.z, r.v[N - 1] = f.w;
    } else {
        r.v[0] = *p;
    }
    return r;
}

template <int N> static __device__ __forceinline__ void cu_store(float *p, const cu_vec<N> &x) {
    if (N == 4)
        *reinterpret_cast<float4 *>(p) = make_float4(x.v[0], x.v[N > 1 ? 1 : 0], x.v[N > 2 ? 2 : 0], x.v[N - 1]);
    else
        *p = x.v[0];
}

/* The same of 16-bit numbers and floats, as type T of cu.cuh says. */
template <class T, int N> static __device__ __forceinline__ cu_vec<N> cu_load_as(const typename T::bits *p) {
    cu_vec<N> r;
    if (N == 4 && sizeof *p == 2) {
        const uint2 u = *reinterpret_cast<const uint2 *>(p);
        const unsigned w[2] = {u.x, u.y};
        for (int i = 0; i < N; i++) r.v[i] = T::wide(static_cast<typename T::bits>(w[i / 2] >> (i % 2 * 16)));
        return r;
    }
    if (N == 4) return cu_load<N>(reinterpret_cast<const float *>(p));
    r.v[0] = T::wide(*p);
    return r;
}

template <class T, int N> static __device__ __forceinline__ void cu_store_as(typename T::bits *p, const cu_vec<N> &x) {
    if (N == 4 && sizeof *p == 2) {
        unsigned w[2] = {0, 0};
        for (int i = 0; i < N; i++) w[i / 2] |= static_cast<unsigned>(T::narrow(x.v[i])) << (i % 2 * 16);
        *reinterpret_cast<uint2 *>(p) = make_uint2(w[0], w[1]);
    } else if (N == 4) {
        cu_store<N>(reinterpret_cast<float *>(p), x);
    } else {
        *p = T::narrow(x.v[0]);
    }
}

/* The same where the type is known only when the kernel runs; i counts numbers. */
template <int N> static __device__ __forceinline__ void cu_store_any(void *p, cuk_type t, int64_t i, const cu_vec<N> &x) {
    if (t == CUK_F32)
        cu_store<N>(static_cast<float *>(p) + i, x);
    else if (t == CUK_BF16)
        cu_store_as<cu_bf16, N>(static_cast<uint16_t *>(p) + i, x);
    else
        cu_store_as<cu_f16, N>(static_cast<uint16_t *>(p) + i, x);
}
static inline size_t cu_size(cuk_type t) { return t == CUK_F32 ? 4 : 2; }

/* One block a row and piece of it; op.at<N>(row, column) treats the N columns from there on. */
template <class OP, int N> static __global__ void __launch_bounds__(256) cu_each(OP op, int64_t d) {
    const int64_t row = blockIdx.x, c = (static_cast<int64_t>(blockIdx.y) * blockDim.x + threadIdx.x) * N;
    if (c + N <= d)
        op.template at<N>(row, c);
    else
        for (int64_t i = c; i < d; i++) op.template at<1>(row, i);
}

/* wide: every row that op touches begins on a multiple of four numbers */
template <class OP> static void cu_each_row(cuk_stream s, const OP &op, int64_t rows, int64_t d, bool wide) {
    if (rows <= 0 || d <= 0) return;
    const int64_t n = wide ? (d + 3) / 4 : d;
    const unsigned threads = n >= 256 ? 256 : static_cast<unsigned>((n + 31) / 32 * 32);
    const dim3 grid(static_cast<unsigned>(rows), cu_blocks(n, threads));
    if (wide)
        cu_launch<cu_each<OP, 4>>(grid, dim3(threads), 0, s, op, d);
    else
        cu_launch<cu_each<OP, 1>>(grid, dim3(threads), 0, s, op, d);
}

/* Rows of ld numbers of `size` bytes at p all begin on a multiple of four numbers; p NULL does. */
static inline bool cu_wide(const void *p, int64_t ld, size_t size = 4) {
    return ld % 4 == 0 && reinterpret_cast<uintptr_t>(p) % (4 * size) == 0;
}

/* The first fault of a step stays. */
static __device__ __forceinline__ void cu_raise(int32_t *fault, cuk_fault code) {
    atomicCAS(fault, 0, static_cast<int32_t>(code));
}

#endif
