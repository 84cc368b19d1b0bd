/* linear_mma.cu - y = act(x w^T + bias) of 9 to 16 rows with f16 or bf16 weights, on tensor cores (mma.sync m16n8k16):
 * as near to f32 as linear.cu, which at so many rows is held up by its multiplications, but in an order of its own.
 *
 * x is the factor of sixteen rows, weights that of eight columns. Both go from memory straight into the registers where the
 * instruction wants them: of a step of 32 elements, lane (g, t) = (lane / 4, lane % 4) takes 8t .. 8t + 7 of weight rows g,
 * g + 8, .., 16 bytes each, which are two instructions' second factors, and of x's rows g and g + 8. Which element an
 * instruction takes for its k-th does not matter as long as both factors agree.
 * A block has 8 M outputs; its eight warps share k, so that each number of x is cut up once a block, nothing is staged and
 * no warp waits for another before the end. Each lane has 16 / M steps of weights under way, 256 bytes: 64 KiB a block, which
 * a multiprocessor has registers for one of; and two steps of x, another 32 KiB.
 *
 * Order of summation, for every output and whatever the number of rows and M: warp s takes steps s, s + 8, ..; what a step
 * adds up to is the tensor core's, from 0 each time, so that its truncation does not pile up over k; steps are added with one
 * rounding each, in rising order; then the warps' sums, in rising order. Elements past k count as 0 times 0.
 * x as factors, each a sum of its own, the first one and the rest:
 *   bf16   three numbers that add up to x exactly, 8 bits each, cut off (down to 2^-133)
 *   f16    x / s rounded to f16, and what that left times 2^11, rounded: within 2^-23 of x, or 2^-50 of the largest of the
 *          step. s, a power of two, is chosen for each row and step: whatever is finite stays so.
 * What is no number in w or x shows in the first sum; the rest (0 times infinity) is then left out. An infinite f16 weight
 * makes NaN of a number below 2^-40 of the largest of its step.
 * Thread: the engine's. Owner: nothing. Tested by tests/kernels/test_ops_linear.c; docs/gpu.md has the bound. */
#include "kernels/cuda/linear.cuh"

enum { WARPS = 8, THREADS = WARPS * 32, STEP = 32, ROUND = WARPS * STEP, ROWS = 16 };

/* ---- x as factors: pairs of neighbours, as registers hold them ---- */

struct from_bf16 {
    enum { PIECES = 3 };
    static __device__ __forceinline__ float fit(float (&)[8]) { return 1; }
    static __device__ __forceinline__ float times(float sum, float, float part) { return __fadd_rn(sum, part); }
    static __device__ __forceinline__ float rest(float x) { return x; }
    static __device__ __forceinline__ void cut(float x, float y, unsigned (&to)[PIECES]) {
#pragma unroll
        for (int p = 0; p < PIECES; p++) {
            const unsigned a = __float_as_uint(x), b = __float_as_uint(y) & 0xffff0000u;
            to[p] = a >> 16 | b;
            x = __fadd_rn(x, -__uint_as_float(a & 0xffff0000u));
            y = __fadd_rn(y, -__uint_as_float(b));
        }
    }
    static __device__ __forceinline__ void mma(float d[4], const unsigned a[4], const unsigned b[2]) { cu_mma_bf16(d, a, b); }
};

struct from_f16 {
    enum { PIECES = 2 };
    /* x becomes x / s of at most 2^15, by the largest of the step's 32, which four lanes share; returns s. */
    static __device__ __forceinline__ float fit(float (&x)[8]) {
        float top = 0;
#pragma unroll
        for (int i = 0; i < 8; i++) top = fmaxf(top, fabsf(x[i]));
        top = fmaxf(top, __shfl_xor_sync(FULL_MASK, top, 1));
        top = fmaxf(top, __shfl_xor_sync(FULL_MASK, top, 2));
        const int e = min(max(static_cast<int>(__float_as_uint(top) >> 23), 15), 254);
        const float by = __uint_as_float(static_cast<unsigned>(268 - e) << 23);
#pragma unroll
        for (int i = 0; i < 8; i++) x[i] = __fmul_rn(x[i], by);
        return __uint_as_float(static_cast<unsigned>(e - 14) << 23);
    }
    static __device__ __forceinline__ float times(float sum, float s, float part) { return fmaf(part, s, sum); }
    static __device__ __forceinline__ float rest(float x) { return __fmul_rn(x, 1.0f / 2048); }
    static __device__ __forceinline__ void cut(float x, float y, unsigned (&to)[PIECES]) {
        to[0] = cu_pack_f16(x, y);
        x = __fadd_rn(x, -cu_from_f16(static_cast<uint16_t>(to[0])));
        y = __fadd_rn(y, -cu_from_f16(static_cast<uint16_t>(to[0] >> 16)));
        to[1] = cu_pack_f16(__fmul_rn(x, 2048), __fmul_rn(y, 2048));
    }
    static __device__ __forceinline__ void mma(float d[4], const unsigned a[4], const unsigned b[2]) { cu_mma_f16(d, a, b); }
};

/* ---- from memory: a lane's part of one step. All of it, on 16 bytes; or `left` elements and zeros. ---- */

static __device__ __forceinline__ uint4 some_weights(const uint16_t *w, int left) {
    vec<cu_bf16> v; /* bits */
    load_some<cu_bf16>(v, w, left);
    return v.all;
}

static __device__ __forceinline__ uint4 sixteen_bytes(const void *p) {
    return __ldg(static_cast<const uint4 *>(p));
}

struct activations { /* of one row */
    float v[8];

    __device__ __forceinline__ void bring(const float *x) {
#pragma unroll
        for (int i = 0; i < 2; i++) {
            const uint4 f = sixteen_bytes(x + 4 * i);
            v[4 * i] = __uint_as_float(f.x), v[4 * i + 1] = __uint_as_float(f.y);
            v[4 * i + 2] = __uint_as_float(f.z), v[4 * i + 3] = __uint_as_float(f.w);
        }
    }
    __device__ __forceinline__ void bring_some(const float *x, int left) {
#pragma unroll
        for (int i = 0; i < 8; i++) v[i] = i < left ? x[i] : 0;
    }
};

/* ---- one step ---- */

template <class P> struct factors {
    unsigned a[P::PIECES][2][4]; /* of two instructions */
    float s[2];                  /* of rows g, g + 8 */

    __device__ __forceinline__ void of(activations (&x)[2]) {
#pragma unroll
        for (int r = 0; r < 2; r++) {
            s[r] = P::fit(x[r].v);
#pragma unroll
            for (int i = 0; i < 4; i++) {
                unsigned cut[P::PIECES];
                P::cut(x[r].v[2 * i], x[r].v[2 * i + 1], cut);
#pragma unroll
                for (int p = 0; p < P::PIECES; p++) a[p][i / 2][i % 2 * 2 + r] = cut[p];
            }
        }
    }
};

/* Sums of sixteen rows and eight outputs: [e] is row g + e / 2 * 8, output 2t + e % 2. */
struct tile_sums {
    float first[4], rest[4];

    template <class P> __device__ __forceinline__ void add(const factors<P> &x, const uint4 &w) {
        const unsigned b[2][2] = {{w.x, w.y}, {w.z, w.w}};
        float d[4] = {0, 0, 0, 0}, r[4] = {0, 0, 0, 0};
#pragma unroll
        for (int h = 0; h < 2; h++) {
            P::mma(d, x.a[0][h], b[h]);
#pragma unroll
            for (int p = 1; p < P::PIECES; p++) P::mma(r, x.a[p][h], b[h]);
        }
#pragma unroll
        for (int e = 0; e < 4; e++) {
            first[e] = P::times(first[e], x.s[e / 2], d[e]);
            rest[e] = P::times(rest[e], x.s[e / 2], r[e]);
        }
    }
    template <class P> __device__ __forceinline__ float sum(int e) const {
        const float r = P::rest(rest[e]);
        return fabsf(r) < INFINITY ? __fadd_rn(first[e], r) : first[e];
    }
};

/* ---- the kernel ---- */

/* A number that the compiler keeps instead of working it out again for each use. */
static __device__ __forceinline__ int kept(int i) {
#ifndef VLMD_CUDA_EMU
    asm volatile("" : "+r"(i));
#endif
    return i;
}

/* Sums of a warp in shared memory: a row's outputs one after the other. */
template <int M> struct mma_tile { enum { OUTS = 8 * M, LD = OUTS + 8, SHARED_BYTES = WARPS * ROWS * LD * 4 }; };

/* aligned: rows of w and x lie on 16 bytes */
template <class P, int M>
static __global__ void __launch_bounds__(THREADS, 1) linear_mma_kernel(const cuk_linear l, const linear_blocks blocks, bool aligned) {
    typedef mma_tile<M> S;
    enum { AHEAD = 16 / M, X_AHEAD = 2 }; /* steps under way */
    SHARED(float, sums);
    const int lane = static_cast<int>(threadIdx.x) % 32, warp = static_cast<int>(threadIdx.x) / 32, g = lane / 4, t = lane % 4;
    const int which = linear_of(blocks, l.n, blockIdx.x);
    const cuk_linear_to &to = l.to[which];
    const int64_t out = static_cast<int64_t>(blockIdx.x - blocks.first[which]) * S::OUTS;
    const int k = static_cast<int>(l.k) - warp * STEP, whole = aligned && k >= STEP ? (k - STEP) / ROUND + 1 : 0;
    /* A row past the end reads one before it and is dropped: of w every eighth from `first`, of x the last. Registers are short
     * of pointers to each. */
    const int64_t first = min(out + g, to.out - 1);
    const int w_apart = kept(static_cast<int>(8 * to.w_ld));
    const int w_last = kept(static_cast<int>(min((to.out - 1 - first) / 8, static_cast<int64_t>(M))));
    const int last = static_cast<int>(l.rows) - 1, row = min(g, last), x_apart = kept(static_cast<int>((min(g + 8, last) - row) * l.x_ld));
    const uint16_t *w = static_cast<const uint16_t *>(to.w) + first * to.w_ld + warp * STEP + 8 * t;
    const float *x = l.x + row * l.x_ld + warp * STEP + 8 * t;
    tile_sums acc[M] = {};
    uint4 ring[AHEAD][M];
    activations x_ring[X_AHEAD][2];
#pragma unroll
    for (int u = 0; u < AHEAD; u++)
#pragma unroll
        for (int m = 0; m < M; m++)
            if (u < whole) ring[u][m] = sixteen_bytes(w + min(m, w_last) * w_apart + u * ROUND);
#pragma unroll
    for (int u = 0; u < X_AHEAD; u++)
#pragma unroll
        for (int r = 0; r < 2; r++)
            if (u < whole) x_ring[u][r].bring(x + r * x_apart + u * ROUND);
    int at = 0; /* of the steps: where w and x point */
#pragma unroll 1
    for (; at < whole; at += AHEAD) {
#pragma unroll
        for (int u = 0; u < AHEAD; u++) {
            if (at + u >= whole) break; /* it also keeps the compiler from putting off the loads of several steps */
            factors<P> f;
            f.of(x_ring[u % X_AHEAD]);
            /* At the end one twice: where nothing came, the compiler would copy what was there. */
            const int ahead = at + u + X_AHEAD < whole ? (u + X_AHEAD) * ROUND : u * ROUND;
#pragma unroll
            for (int r = 0; r < 2; r++) x_ring[u % X_AHEAD][r].bring(x + r * x_apart + ahead);
#pragma unroll
            for (int m = 0; m < M; m++) acc[m].template add<P>(f, ring[u][m]);
            if (at + u + AHEAD < whole)
#pragma unroll
                for (int m = 0; m < M; m++) ring[u][m] = sixteen_bytes(w + min(m, w_last) * w_apart + (u + AHEAD) * ROUND);
        }
        w += AHEAD * ROUND;
        x += AHEAD * ROUND;
    }
#pragma unroll 1
    for (int i = whole; i * ROUND < k; i++) { /* the last one, where k ends in it; all of them without alignment */
        const int from = (i - at) * ROUND, left = k - i * ROUND - 8 * t;
        factors<P> f;
#pragma unroll
        for (int r = 0; r < 2; r++) x_ring[0][r].bring_some(x + r * x_apart + from, left);
        f.of(x_ring[0]);
#pragma unroll
        for (int m = 0; m < M; m++) {
            acc[m].template add<P>(f, some_weights(w + min(m, w_last) * w_apart + from, left));
            __syncwarp(); /* one after the other: registers */
        }
    }
    float *const mine = sums + (warp * ROWS + g) * S::LD + 2 * t;
#pragma unroll
    for (int m = 0; m < M; m++)
#pragma unroll
        for (int e = 0; e < 4; e++) mine[e / 2 * 8 * S::LD + m * 8 + e % 2] = acc[m].template sum<P>(e);
    __syncthreads();
    for (int i = static_cast<int>(threadIdx.x); i < ROWS * S::OUTS; i += THREADS) {
        const float *from = sums + i / S::OUTS * S::LD + i % S::OUTS;
        float sum = from[0];
#pragma unroll
        for (int s = 1; s < WARPS; s++) sum = __fadd_rn(sum, from[s * ROWS * S::LD]);
        finish(l, to, i / S::OUTS, out + i % S::OUTS, sum);
    }
}

/* ---- launches ---- */

template <class P, int M> static void launch(cuk_stream s, const cuk_linear *l) {
    const linear_blocks blocks = blocks_of(l, mma_tile<M>::OUTS);
    cu_launch<linear_mma_kernel<P, M>>(dim3(blocks.all), dim3(THREADS), mma_tile<M>::SHARED_BYTES, s, *l, blocks,
              w_on_16(l) && x_on_16(l));
}

/* A block reads 64 bytes of x for every 16 M of weights; but 128 blocks are to be there, about one a multiprocessor. */
template <class P> static void by_size(cuk_stream s, const cuk_linear *l) {
    int64_t out = 0;
    for (int i = 0; i < l->n; i++) out += l->to[i].out;
    if (out < 128 * 32)
        launch<P, 2>(s, l);
    else if (out < 128 * 64)
        launch<P, 4>(s, l);
    else
        launch<P, 8>(s, l);
}

void cuk_linear_mma(cuk_stream s, const cuk_linear *l) {
    if (l->rows <= 0) return;
    if (l->t == CUK_F16)
        by_size<from_f16>(s, l);
    else
        by_size<from_bf16>(s, l);
}
