/* cuda_runtime.h - what a kernel sees, for the emulator: qualifiers, indices, barriers, warp operations, atomics.
 *
 * The threads of a block are fibers of one host thread (emu.cpp). Every operation that waits for others gives the turn
 * away, so a missing barrier shows as a result that depends on the order of turns (EMU_ORDER). */
#ifndef VLMD_CUDA_EMU_RUNTIME_H
#define VLMD_CUDA_EMU_RUNTIME_H

#include <cmath>
#include <cstdint>
#include <cstring>
#include <functional>

#include "cuda_runtime_api.h"

#define __global__
#define __device__
#define __host__
#define __constant__
#define __forceinline__ inline __attribute__((always_inline))
#define __noinline__    __attribute__((noinline))
#define __launch_bounds__(...)
#define __align__(n) __attribute__((aligned(n)))
/* What stands for one instruction and touches nothing but what it is given: a sanitizer would only make it slow. */
#define EMU_UNCHECKED __attribute__((no_sanitize("address", "undefined")))

struct dim3 {
    unsigned x, y, z;
    constexpr dim3(unsigned a = 1, unsigned b = 1, unsigned c = 1) : x(a), y(b), z(c) {}
};
struct uint3 {
    unsigned x, y, z;
};

#define EMU_VECTOR(T, N2, N4)                                                                                \
    struct alignas(2 * sizeof(T)) N2 {                                                                       \
        T x, y;                                                                                              \
    };                                                                                                       \
    struct alignas(16) N4 {                                                                                  \
        T x, y, z, w;                                                                                        \
    };                                                                                                       \
    static inline N2 make_##N2(T x, T y) {                                                                   \
        return N2{x, y};                                                                                     \
    }                                                                                                        \
    static inline N4 make_##N4(T x, T y, T z, T w) {                                                         \
        return N4{x, y, z, w};                                                                               \
    }
EMU_VECTOR(float, float2, float4)
EMU_VECTOR(int, int2, int4)
EMU_VECTOR(unsigned, uint2, uint4)

/* ---- where a thread is ---- */

struct emu_where {
    uint3 thread, block;
    dim3 block_dim, grid_dim;
    void *shared; /* the block's dynamic shared memory */
};
extern emu_where *emu_now;
#define threadIdx (emu_now->thread)
#define blockIdx  (emu_now->block)
#define blockDim  (emu_now->block_dim)
#define gridDim   (emu_now->grid_dim)
static const int warpSize = 32;

/* ---- waiting for others ---- */

void emu_barrier();
/* All lanes of mask meet; the last one has fn(in, out, mask) run once over what each lane (NULL: not in mask) brings and
 * takes. Lanes that bring another fn or mask are an error, as is one that has ended. */
typedef void (*emu_warp_fn)(const void *const in[32], void *const out[32], unsigned mask);
void emu_warp(unsigned mask, emu_warp_fn fn, const void *in, void *out);
int emu_lane();

static inline void __syncthreads() {
    emu_barrier();
}
static inline void emu_nothing(const void *const *, void *const *, unsigned) {}
static inline void __syncwarp(unsigned mask = 0xffffffffu) {
    emu_warp(mask, emu_nothing, nullptr, nullptr);
}
static inline void __threadfence() {}
static inline void __threadfence_block() {}

template <class T> struct emu_shfl {
    T value;
    int from; /* lane */
};
/* A source outside the mask is an error on the device's side too: undefined there, an abort here. */
[[noreturn]] void emu_fail(const char *what);
template <class T> void emu_shuffle(const void *const in[32], void *const out[32], unsigned mask) {
    for (int i = 0; i < 32; i++) {
        if (!(mask >> i & 1)) continue;
        int from = static_cast<const emu_shfl<T> *>(in[i])->from;
        if (!(mask >> from & 1)) emu_fail("a shuffle from a lane outside its mask");
        *static_cast<T *>(out[i]) = static_cast<const emu_shfl<T> *>(in[from])->value;
    }
}
template <class T> static T emu_shuffle_from(unsigned mask, T v, int from) {
    emu_shfl<T> in = {v, from};
    T out;
    emu_warp(mask, emu_shuffle<T>, &in, &out);
    return out;
}
/* lane within its section of `width`; a source beyond the section is the lane itself */
template <class T> static T __shfl_sync(unsigned mask, T v, int src, int width = 32) {
    return emu_shuffle_from(mask, v, (emu_lane() & ~(width - 1)) | (src & (width - 1)));
}
template <class T> static T __shfl_xor_sync(unsigned mask, T v, int x, int width = 32) {
    int to = emu_lane() ^ x;
    return emu_shuffle_from(mask, v, (to & ~(width - 1)) == (emu_lane() & ~(width - 1)) ? to : emu_lane());
}
template <class T> static T __shfl_down_sync(unsigned mask, T v, unsigned d, int width = 32) {
    int to = emu_lane() + (int)d;
    return emu_shuffle_from(mask, v, to / width == emu_lane() / width ? to : emu_lane());
}
template <class T> static T __shfl_up_sync(unsigned mask, T v, unsigned d, int width = 32) {
    int to = emu_lane() - (int)d;
    return emu_shuffle_from(mask, v, to >= 0 && to / width == emu_lane() / width ? to : emu_lane());
}
unsigned __ballot_sync(unsigned mask, int predicate);
static inline int __any_sync(unsigned mask, int p) {
    return __ballot_sync(mask, p) != 0;
}
static inline int __all_sync(unsigned mask, int p) {
    return __ballot_sync(mask, p) == mask;
}

/* ---- atomics: one host thread, so a plain update is one ---- */

template <class T> static T atomicAdd(T *p, T v) {
    T old = *p;
    *p = old + v;
    return old;
}
template <class T> static T atomicMax(T *p, T v) {
    T old = *p;
    if (v > old) *p = v;
    return old;
}
template <class T> static T atomicMin(T *p, T v) {
    T old = *p;
    if (v < old) *p = v;
    return old;
}
template <class T> static T atomicOr(T *p, T v) {
    T old = *p;
    *p = old | v;
    return old;
}
template <class T> static T atomicExch(T *p, T v) {
    T old = *p;
    *p = v;
    return old;
}
template <class T> static T atomicCAS(T *p, T cmp, T v) {
    T old = *p;
    if (old == cmp) *p = v;
    return old;
}

/* ---- arithmetic ---- */

template <class T> static T __ldg(const T *p) {
    return *p;
}
static inline int __popc(unsigned x) {
    return __builtin_popcount(x);
}
static inline int __ffs(int x) {
    return __builtin_ffs(x);
}
static inline int __clz(int x) {
    return x ? __builtin_clz((unsigned)x) : 32;
}
static inline float __fmaf_rn(float a, float b, float c) {
    return fmaf(a, b, c);
}
static inline float __fadd_rn(float a, float b) {
    return a + b;
}
static inline float __fmul_rn(float a, float b) {
    return a * b;
}
#define __expf expf /* glibc has declared these two names */
#define __logf logf
static inline float __fdividef(float a, float b) {
    return a / b;
}
static inline float rsqrtf(float x) {
    return 1.0f / sqrtf(x);
}
static inline float __int_as_float(int i) {
    float f;
    memcpy(&f, &i, 4);
    return f;
}
static inline int __float_as_int(float f) {
    int i;
    memcpy(&i, &f, 4);
    return i;
}
static inline float __uint_as_float(unsigned i) {
    float f;
    memcpy(&f, &i, 4);
    return f;
}
static inline unsigned __float_as_uint(float f) {
    unsigned i;
    memcpy(&i, &f, 4);
    return i;
}
static inline unsigned __umulhi(unsigned a, unsigned b) {
    return (unsigned)((uint64_t)a * b >> 32);
}
template <class T> static T emu_min(T a, T b) {
    return b < a ? b : a;
}
template <class T> static T emu_max(T a, T b) {
    return a < b ? b : a;
}
static inline int min(int a, int b) {
    return emu_min(a, b);
}
static inline int max(int a, int b) {
    return emu_max(a, b);
}
static inline unsigned min(unsigned a, unsigned b) {
    return emu_min(a, b);
}
static inline unsigned max(unsigned a, unsigned b) {
    return emu_max(a, b);
}
static inline int64_t min(int64_t a, int64_t b) {
    return emu_min(a, b);
}
static inline int64_t max(int64_t a, int64_t b) {
    return emu_max(a, b);
}

/* ---- asynchronous copies: what is copied is there after the wait, not before ---- */

void emu_cp_async(void *shared, const void *global, int bytes, bool read); /* !read: zeros */
void emu_cp_commit();
void emu_cp_wait(int groups_left);

/* ---- launch ---- */

#define __CUDA_ARCH_LIST__ 900 /* what the emulated devices have code for */
/* kernel: NULL for what is no kernel of the program's. */
cudaError_t emu_launch(const void *kernel, dim3 grid, dim3 block, size_t shared, cudaStream_t s,
                       std::function<void()> body);

#endif
