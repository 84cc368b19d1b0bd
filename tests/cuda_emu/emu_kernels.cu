/* emu_kernels.cu - see emu_kernels.h. */
#include "kernels/cuda/cu.cuh"
#include "tests/cuda_emu/emu_kernels.h"

static __global__ void neighbour(float *out, neighbour_how how) {
    SHARED(float, room);
    const unsigned i = threadIdx.x;
    room[i] = static_cast<float>(i);
    if (how == NEIGHBOUR_RIGHT) __syncthreads();
    if (how == NEIGHBOUR_WARP) __syncwarp();
    out[i] = room[(i + 1) % blockDim.x];
}
void k_neighbour(cuk_stream s, float *out, int n, neighbour_how how) {
    cu_launch<neighbour>(dim3(1), dim3(static_cast<unsigned>(n)), static_cast<size_t>(n) * 4, s, out, how);
}

static __global__ void copy(float *out, const float *in, copy_how how) {
    SHARED(float, room);
    const unsigned i = threadIdx.x, next = (i + 1) % blockDim.x, from = how == COPY_OWN || how == COPY_NO_WAIT ? i : next;
    cu_cp_async<16>(room + i * 4, in + i * 4, true);
    cu_cp_commit();
    if (how != COPY_NO_WAIT) cu_cp_wait<0>();
    if (how == COPY_RIGHT || how == COPY_TOO_EARLY) __syncthreads();
    for (unsigned k = 0; k < 4; k++) out[i * 4 + k] = room[from * 4 + k];
    if (how == COPY_TOO_EARLY) {
        cu_cp_async<16>(room + i * 4, in, false);
        cu_cp_commit();
    }
    cu_cp_wait<0>();
}
void k_copy(cuk_stream s, float *out, const float *in, int threads, copy_how how) {
    cu_launch<copy>(dim3(1), dim3(static_cast<unsigned>(threads)), static_cast<size_t>(threads) * 16, s, out, in, how);
}

static __global__ void shared_start(float *out) {
    SHARED(float, room);
    out[threadIdx.x] = room[threadIdx.x];
}
void k_shared(cuk_stream s, float *out, int n) {
    cu_launch<shared_start>(dim3(1), dim3(static_cast<unsigned>(n)), static_cast<size_t>(n) * 4, s, out);
}

static __global__ void diverge(diverge_how how) {
    SHARED(char, room);
    const int lane = static_cast<int>(threadIdx.x);
    switch (how) {
    case DIVERGE_BARRIER:
        if (lane < 16) __syncthreads();
        break;
    case DIVERGE_ENDED:
        if (lane != 5) __shfl_xor_sync(FULL_MASK, lane, 1);
        break;
    case DIVERGE_MASKS: /* all wait for all, at two places */
        if (lane < 16)
            __shfl_xor_sync(FULL_MASK, lane, 1);
        else
            __ballot_sync(FULL_MASK, 1);
        break;
    case DIVERGE_OUTSIDE: __ballot_sync(0xffff, 1); break;
    case DIVERGE_SOURCE:
        if (lane < 16) __shfl_sync(0xffff, lane, 20);
        break;
    case DIVERGE_ALIGNMENT: cu_cp_async<16>(room + 4, nullptr, false); break;
    }
}
void k_diverge(cuk_stream s, diverge_how how) {
    cu_launch<diverge>(dim3(1), dim3(32), 64, s, how);
}

static __global__ void warp(int *out) {
    const int lane = static_cast<int>(threadIdx.x), v = lane * lane;
    int *o = out + lane;
    o[0] = __shfl_xor_sync(FULL_MASK, v, 5);
    o[32] = __shfl_up_sync(FULL_MASK, v, 3);
    o[64] = __shfl_down_sync(FULL_MASK, v, 3);
    o[96] = __shfl_sync(FULL_MASK, v, (lane * 7) % 32);
    o[128] = __shfl_sync(FULL_MASK, v, 9, 8);
    o[160] = __shfl_up_sync(FULL_MASK, v, 1, 4);
    o[192] = static_cast<int>(__ballot_sync(FULL_MASK, lane % 3 == 0));
    /* two halves that go their own ways */
    if (lane < 16)
        o[224] = __shfl_xor_sync(0xffffu, v, 1);
    else
        o[224] = static_cast<int>(__ballot_sync(0xffff0000u, lane % 2));
    o[256] = __any_sync(FULL_MASK, lane == 31) * 2 + __all_sync(FULL_MASK, lane >= 0);
    o[288] = static_cast<int>(cu_warp_sum(static_cast<float>(lane))) * 100 + static_cast<int>(cu_warp_max(static_cast<float>(lane)));
}
void k_warp(cuk_stream s, int *out) {
    cu_launch<warp>(dim3(1), dim3(32), 0, s, out);
}

static __global__ void atomics(int *out) {
    const int i = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
    atomicAdd(out, i);
    atomicMax(out + 1, i);
    atomicMin(out + 2, -i);
    atomicOr(out + 3, 1 << (i % 31));
    atomicCAS(out + 4, 0, 77);
}
void k_atomics(cuk_stream s, int *out, int blocks, int threads) {
    cu_launch<atomics>(dim3(static_cast<unsigned>(blocks)), dim3(static_cast<unsigned>(threads)), 0, s, out);
}

static __device__ unsigned pair(const uint16_t *p, int step) {
    return p[0] | static_cast<unsigned>(p[step]) << 16;
}
/* Fragments by the PTX manual's figures for m16n8k16. */
static __global__ void mma(float *d, const uint16_t *a, const uint16_t *b, int f16) {
    const int g = static_cast<int>(threadIdx.x) / 4, t = static_cast<int>(threadIdx.x) % 4 * 2;
    const unsigned as[4] = {pair(a + g * 16 + t, 1), pair(a + (g + 8) * 16 + t, 1), pair(a + g * 16 + t + 8, 1),
                            pair(a + (g + 8) * 16 + t + 8, 1)};
    const unsigned bs[2] = {pair(b + t * 8 + g, 8), pair(b + (t + 8) * 8 + g, 8)};
    float *lo = d + g * 8 + t, *hi = d + (g + 8) * 8 + t, ds[4] = {lo[0], lo[1], hi[0], hi[1]};
    if (f16)
        cu_mma_f16(ds, as, bs);
    else
        cu_mma_bf16(ds, as, bs);
    lo[0] = ds[0], lo[1] = ds[1], hi[0] = ds[2], hi[1] = ds[3];
}
void k_mma(cuk_stream s, float *d, const uint16_t *a, const uint16_t *b, int f16) {
    cu_launch<mma>(dim3(1), dim3(32), 0, s, d, a, b, f16);
}

/* Matrix i of four: a's rows 8 (i % 2) .., columns 8 (i / 2) ..; b's rows likewise, its one column of matrices twice. */
static __global__ void mma_shared(float *d, const uint16_t *a, const uint16_t *b) {
    SHARED(uint16_t, room);
    const int lane = static_cast<int>(threadIdx.x), i = lane / 8, r = lane % 8 + i % 2 * 8, g = lane / 4, t = lane % 4 * 2;
    for (int e = lane; e < 256; e += 32) room[e] = a[e];
    for (int e = lane; e < 128; e += 32) room[256 + e] = b[e];
    __syncwarp();
    unsigned as[4], bs[4];
    cu_ldmatrix<false>(as, room + r * 16 + i / 2 * 8);
    cu_ldmatrix<true>(bs, room + 256 + r * 8);
    float *lo = d + g * 8 + t, *hi = d + (g + 8) * 8 + t, ds[4] = {lo[0], lo[1], hi[0], hi[1]};
    cu_mma_bf16(ds, as, bs);
    lo[0] = ds[0], lo[1] = ds[1], hi[0] = ds[2], hi[1] = ds[3];
}
void k_mma_shared(cuk_stream s, float *d, const uint16_t *a, const uint16_t *b) {
    cu_launch<mma_shared>(dim3(1), dim3(32), 768, s, d, a, b);
}

static __global__ void affine(float *x, int n, float mul, float add) {
    const int i = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
    if (i < n) x[i] = x[i] * mul + add;
}
void k_affine(cuk_stream s, float *x, int n, float mul, float add) {
    cu_launch<affine>(dim3(cu_blocks(n, 64)), dim3(64), 0, s, x, n, mul, add);
}

static __global__ void grid(int *count) {
    atomicAdd(count, 1);
}
void k_grid(cuk_stream s, int *count, unsigned gx, unsigned gy, unsigned gz, unsigned threads, int shared) {
    cu_launch<grid>(dim3(gx, gy, gz), dim3(threads), static_cast<size_t>(shared), s, count);
}
void k_allow(int shared) {
    cudaFuncSetAttribute(reinterpret_cast<const void *>(grid), cudaFuncAttributeMaxDynamicSharedMemorySize, shared);
}

static __global__ void write_at(float *p, int i) {
    p[i] = 1;
}
void k_write(cuk_stream s, float *p, int i) {
    cu_launch<write_at>(dim3(1), dim3(1), 0, s, p, i);
}

static __global__ void write_shared(int i) {
    SHARED(char, room);
    room[i] = 1;
}
void k_write_shared(cuk_stream s, int bytes, int i) {
    cu_launch<write_shared>(dim3(1), dim3(1), static_cast<size_t>(bytes), s, i);
}

static __global__ void unlisted(int) {}
void k_unlisted(cuk_stream s) {
    cu_start(unlisted, dim3(1), dim3(1), 0, s, 0);
}
