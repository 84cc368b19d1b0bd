/* cu.cuh - what every kernel file includes: launching, shared memory, conversions, warp sums, matrix instructions,
 * asynchronous copies. Each of the last two is a thin wrapper with a version for the host, so that the same files run under
 * the emulator (tests/cuda_emu).
 *
 * Rules for a kernel here: shared memory is the one dynamic block (SHARED), as large as the GPU allows; no static __shared__,
 * no printf, no legacy stream; what a warp exchanges goes through *_sync operations with the mask of the lanes that take
 * part. */
#ifndef VLMD_KERNELS_CUDA_CU_CUH
#define VLMD_KERNELS_CUDA_CU_CUH

#include <cstdint>
#include <cuda_runtime.h>

#include "kernels/cuda/cuk.h"

#define FULL_MASK 0xffffffffu

/* A kernel that is launched somewhere is in a list from the program's start on, which load.cu goes through. */
struct cu_entry {
    const void *kernel;
    const cu_entry *next;
    explicit cu_entry(const void *k);
};
template <auto KERNEL> struct cu_listed { static const cu_entry entry; };
template <auto KERNEL> const cu_entry cu_listed<KERNEL>::entry(reinterpret_cast<const void *>(KERNEL));

#ifdef VLMD_CUDA_EMU
template <class... P, class... A>
static inline void cu_start(void (*kernel)(P...), dim3 grid, dim3 block, size_t shared, cudaStream_t s, A... a) {
    emu_launch(reinterpret_cast<const void *>(kernel), grid, block, shared, s, [=] { kernel(static_cast<P>(a)...); });
}
#define SHARED(type, name) type *name = static_cast<type *>(emu_now->shared)
#else
template <class... P, class... A>
static inline void cu_start(void (*kernel)(P...), dim3 grid, dim3 block, size_t shared, cudaStream_t s, A... a) {
    kernel<<<grid, block, shared, s>>>(static_cast<P>(a)...);
}
#define SHARED(type, name)                                                                                   \
    extern __shared__ __align__(16) unsigned char cu_shared_bytes[];                                         \
    type *name = reinterpret_cast<type *>(cu_shared_bytes)
#endif

/* The one way to launch. */
template <auto KERNEL, class... A> static inline void cu_launch(dim3 grid, dim3 block, size_t shared, cudaStream_t s, A... a) {
    (void)&cu_listed<KERNEL>::entry;
    cu_start(KERNEL, grid, block, shared, s, a...);
}

static inline unsigned cu_blocks(int64_t n, int64_t each) {
    return static_cast<unsigned>((n + each - 1) / each);
}

/* ---- 16-bit floats as bits ---- */

static __device__ __forceinline__ float cu_from_bf16(uint16_t b) {
    return __uint_as_float(static_cast<unsigned>(b) << 16);
}

/* Nearest, ties to even; NaN stays NaN. */
static __device__ __forceinline__ uint16_t cu_to_bf16(float f) {
    unsigned u = __float_as_uint(f);
    if ((u & 0x7fffffffu) > 0x7f800000u) return static_cast<uint16_t>(u >> 16 | 0x40);
    return static_cast<uint16_t>((u + 0x7fff + (u >> 16 & 1)) >> 16);
}

static __device__ __forceinline__ float cu_from_f16(uint16_t h) {
#ifdef VLMD_CUDA_EMU
    const unsigned sign = static_cast<unsigned>(h & 0x8000) << 16, e = h >> 10 & 31, m = h & 0x3ff;
    if (e == 31) return __uint_as_float(sign | 0x7f800000u | m << 13);
    if (e == 0) return __uint_as_float(sign | __float_as_uint(static_cast<float>(m) * 5.9604644775390625e-8f));
    return __uint_as_float(sign | (e + 112) << 23 | m << 13);
#else
    float f;
    asm("cvt.f32.f16 %0, %1;" : "=f"(f) : "h"(h));
    return f;
#endif
}

/* Nearest, ties to even; beyond the largest becomes infinity. */
static __device__ __forceinline__ uint16_t cu_to_f16(float f) {
#ifdef VLMD_CUDA_EMU
    const unsigned u = __float_as_uint(f), sign = u >> 16 & 0x8000, a = u & 0x7fffffffu;
    if (a > 0x7f800000u) return static_cast<uint16_t>(sign | 0x7e00);
    if (a >= 0x47800000u) return static_cast<uint16_t>(sign | 0x7c00);
    if (a < 0x38800000u) /* a subnormal: let an addition round */
        return static_cast<uint16_t>(sign | (__float_as_uint(__uint_as_float(a) + 0.5f) - 0x3f000000u));
    return static_cast<uint16_t>(sign | ((a - 0x38000000u + 0xfff + (a >> 13 & 1)) >> 13));
#else
    uint16_t h;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(h) : "f"(f));
    return h;
#endif
}

/* The line around p is on its way to the L2 cache; p has to be an address that can be read. */
static __device__ __forceinline__ void cu_prefetch(const void *p) {
#ifndef VLMD_CUDA_EMU
    asm volatile("prefetch.global.L2 [%0];" ::"l"(p));
#else
    (void)p;
#endif
}

/* Element types of weights and of pages, as kernels take them: a template over these instead of a branch in the loop. */
struct cu_f32 {
    typedef float bits;
    static __device__ __forceinline__ float wide(float x) { return x; }
    static __device__ __forceinline__ float narrow(float x) { return x; }
};
struct cu_f16 {
    typedef uint16_t bits;
    static __device__ __forceinline__ float wide(uint16_t x) { return cu_from_f16(x); }
    static __device__ __forceinline__ uint16_t narrow(float x) { return cu_to_f16(x); }
};
struct cu_bf16 {
    typedef uint16_t bits;
    static __device__ __forceinline__ float wide(uint16_t x) { return cu_from_bf16(x); }
    static __device__ __forceinline__ uint16_t narrow(float x) { return cu_to_bf16(x); }
};

/* ---- warps; the order of summation is fixed: a butterfly of distances 16, 8, 4, 2, 1 ---- */

static __device__ __forceinline__ float cu_warp_sum(float x) {
    for (int d = 16; d > 0; d >>= 1) x += __shfl_xor_sync(FULL_MASK, x, d);
    return x;
}

static __device__ __forceinline__ float cu_warp_max(float x) {
    for (int d = 16; d > 0; d >>= 1) x = fmaxf(x, __shfl_xor_sync(FULL_MASK, x, d));
    return x;
}

/* ---- two floats as 16-bit numbers, nearest even, x in the low half ---- */

static __device__ __forceinline__ unsigned cu_pack_bf16(float x, float y) {
#ifdef VLMD_CUDA_EMU
    return cu_to_bf16(x) | static_cast<unsigned>(cu_to_bf16(y)) << 16;
#else
    unsigned r;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(r) : "f"(y), "f"(x));
    return r;
#endif
}
static __device__ __forceinline__ unsigned cu_pack_f16(float x, float y) {
#ifdef VLMD_CUDA_EMU
    return cu_to_f16(x) | static_cast<unsigned>(cu_to_f16(y)) << 16;
#else
    unsigned r;
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(r) : "f"(y), "f"(x));
    return r;
#endif
}

/* ---- matrix instructions: d[16,8] += a[16,16] b[16,8] of bf16 or f16 in f32, fragments as PTX lays them out. The host sums
 * in double and rounds once; a GPU adds a product's parts with truncation. ---- */

#ifdef VLMD_CUDA_EMU
struct cu_mma_in {
    float *d;
    const unsigned *a, *b;
};
template <class T> static inline float cu_half_of(const unsigned *r, int i) { /* element i of packed pairs */
    return T::wide(static_cast<uint16_t>(r[i / 2] >> (i % 2 * 16)));
}
template <class T> EMU_UNCHECKED static inline void cu_mma_all(const void *const in[32], void *const *, unsigned) {
    float a[16][16], b[16][8], d[16][8];
    for (int l = 0; l < 32; l++) {
        const cu_mma_in *x = static_cast<const cu_mma_in *>(in[l]);
        const int g = l / 4, t = l % 4;
        for (int i = 0; i < 8; i++) a[g + (i / 2 % 2) * 8][t * 2 + i % 2 + i / 4 * 8] = cu_half_of<T>(x->a, i);
        for (int i = 0; i < 4; i++) b[t * 2 + i % 2 + i / 2 * 8][g] = cu_half_of<T>(x->b, i);
        for (int i = 0; i < 4; i++) d[g + i / 2 * 8][t * 2 + i % 2] = x->d[i];
    }
    for (int r = 0; r < 16; r++) {
        double sum[8];
        for (int c = 0; c < 8; c++) sum[c] = d[r][c];
        for (int k = 0; k < 16; k++)
            for (int c = 0; c < 8; c++) sum[c] += static_cast<double>(a[r][k]) * static_cast<double>(b[k][c]);
        for (int c = 0; c < 8; c++) d[r][c] = static_cast<float>(sum[c]);
    }
    for (int l = 0; l < 32; l++)
        for (int i = 0; i < 4; i++) static_cast<const cu_mma_in *>(in[l])->d[i] = d[l / 4 + i / 2 * 8][l % 4 * 2 + i % 2];
}
#define CU_MMA(T, ptx)                                                                                       \
    cu_mma_in in = {d, a, b};                                                                                \
    emu_warp(FULL_MASK, cu_mma_all<T>, &in, nullptr)
#else
#define CU_MMA(T, ptx)                                                                                       \
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32." ptx ".f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};" \
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])                                            \
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]))
#endif
static __device__ __forceinline__ void cu_mma_bf16(float d[4], const unsigned a[4], const unsigned b[2]) {
    CU_MMA(cu_bf16, "bf16.bf16");
}
static __device__ __forceinline__ void cu_mma_f16(float d[4], const unsigned a[4], const unsigned b[2]) {
    CU_MMA(cu_f16, "f16.f16");
}

/* ---- four 8 by 8 matrices of 16-bit numbers from shared memory: lanes 8i .. 8i+7 name the rows (16 bytes each) of matrix
 * i, and r[i] gets its row lane / 4, columns 2 (lane % 4) and the next; TURNED: of its transpose ---- */

#ifdef VLMD_CUDA_EMU
template <bool TURNED> static inline void cu_ldmatrix_all(const void *const in[32], void *const out[32], unsigned) {
    for (int l = 0; l < 32; l++)
        for (int i = 0; i < 4; i++) {
            const int g = l / 4, t = l % 4 * 2;
            uint16_t pair[2];
            for (int e = 0; e < 2; e++) {
                const char *row = static_cast<const char *>(in[8 * i + (TURNED ? t + e : g)]);
                memcpy(&pair[e], row + 2 * (TURNED ? g : t + e), sizeof pair[e]);
            }
            static_cast<unsigned *>(out[l])[i] = pair[0] | static_cast<unsigned>(pair[1]) << 16;
        }
}
#endif
template <bool TURNED> static __device__ __forceinline__ void cu_ldmatrix(unsigned r[4], const void *row) {
#ifdef VLMD_CUDA_EMU
    if (reinterpret_cast<uintptr_t>(row) % 16) emu_fail("a matrix row that does not lie on 16 bytes");
    emu_warp(FULL_MASK, cu_ldmatrix_all<TURNED>, row, r);
#else
    const unsigned from = static_cast<unsigned>(__cvta_generic_to_shared(row));
    if (TURNED)
        asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
                     : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                     : "r"(from)
                     : "memory");
    else
        asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                     : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                     : "r"(from)
                     : "memory");
#endif
}

/* ---- asynchronous copies of 16 or 8 bytes into shared memory; !read fills with zeros ---- */

template <int BYTES> static __device__ __forceinline__ void cu_cp_async(void *shared, const void *global, bool read) {
    static_assert(BYTES == 16 || BYTES == 8, "16 past the L1 cache, or 8");
#ifdef VLMD_CUDA_EMU
    emu_cp_async(shared, global, BYTES, read);
#else
    const unsigned to = static_cast<unsigned>(__cvta_generic_to_shared(shared));
    if (BYTES == 16)
        asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(global), "r"(read ? 16 : 0) : "memory");
    else
        asm volatile("cp.async.ca.shared.global [%0], [%1], 8, %2;" ::"r"(to), "l"(global), "r"(read ? 8 : 0) : "memory");
#endif
}
static __device__ __forceinline__ void cu_cp_commit() {
#ifdef VLMD_CUDA_EMU
    emu_cp_commit();
#else
    asm volatile("cp.async.commit_group;" ::: "memory");
#endif
}
/* Waits for this thread's own copies until at most LEFT groups are open; a barrier makes them everybody's. */
template <int LEFT> static __device__ __forceinline__ void cu_cp_wait() {
#ifdef VLMD_CUDA_EMU
    emu_cp_wait(LEFT);
#else
    asm volatile("cp.async.wait_group %0;" ::"n"(LEFT) : "memory");
#endif
}

#endif
