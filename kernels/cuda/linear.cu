/* linear.cu - y = act(x w^T + bias) with f32, f16 or bf16 weights and f32 activations and sums.
 *
 * Order of summation, for every output and whatever the number of rows: a weight row is cut into vectors of 16 bytes (4 or
 * 8 elements); lane l of a warp takes vectors l, l + 32, .. and adds their elements in rising order by fused multiply-add
 * from 0; then the butterfly of distances 16, 8, 4, 2, 1. Elements past k count as 0 times 0.
 * A warp holds a tile of R rows times O outputs in registers, so that a weight is widened once for R rows and an activation
 * read once for O outputs; an output's own sum does not see the tile's size. Hence one row, 16 and 512 give the same bits.
 * Weights are on their way while x is staged and while the ones before are multiplied.
 * Bound by reading w for few rows; by multiplications for many (which is cuBLASLt's work, unless bits are promised: blas.c).
 * Thread: the engine's. Owner: nothing. */
#include "kernels/cuda/linear.cuh"

enum {
    XS_FLOATS = 12288, /* of x in shared memory: R rows times XS_FLOATS / R elements, 48 KiB */
    EARLY = 3,         /* rounds of weights that are called before they are brought */
    ROUND = 256        /* elements that a warp takes at once with 16-bit weights; twice as many as with f32 */
};

/* What each number of rows gets: outputs a warp, vectors of each that a lane brings at once, whether it brings the next ones while
 * it multiplies (as far as there are registers), warps a block. */
template <int R> struct tile;
template <> struct tile<1> { enum { O = 2, U = 2, AHEAD = 1, WARPS = 8, BLOCKS = 2 }; };
template <> struct tile<2> { enum { O = 2, U = 2, AHEAD = 1, WARPS = 8, BLOCKS = 2 }; };
template <> struct tile<4> { enum { O = 4, U = 1, AHEAD = 1, WARPS = 8, BLOCKS = 2 }; };
template <> struct tile<8> { enum { O = 4, U = 1, AHEAD = 0, WARPS = 8, BLOCKS = 2 }; };
template <> struct tile<16> { enum { O = 4, U = 1, AHEAD = 1, WARPS = 8, BLOCKS = 1 }; };

/* ---- x: R rows of a chunk of k in shared memory, zeros where there is nothing ----
 * Quads of four elements; with VEC = 8 the even quads of a row lie before the odd ones, so that lanes next to each other
 * read quads next to each other. */

template <int VEC, int R>
static __device__ void stage(float4 *xs, int quads, const cuk_linear &l, int64_t row, int64_t k0, bool aligned) {
    const int parts = VEC / 4, each = quads / parts;
    for (int i = threadIdx.x; i < R * quads; i += blockDim.x) {
        const int r = i / quads, q = i % quads;
        const int64_t at = k0 + q * 4;
        float4 v = make_float4(0, 0, 0, 0);
        if (row + r < l.rows && at < l.k) {
            const float *x = l.x + (row + r) * l.x_ld + at;
            if (aligned && at + 4 <= l.k) {
                v = __ldg(reinterpret_cast<const float4 *>(x));
            } else {
                v.x = x[0];
                if (at + 1 < l.k) v.y = x[1];
                if (at + 2 < l.k) v.z = x[2];
                if (at + 3 < l.k) v.w = x[3];
            }
        }
        xs[r * quads + q % parts * each + q / parts] = v;
    }
}

/* acc[R][O] += x's vector v of R rows times w[O]. */
template <class T, int R, int O>
static __device__ __forceinline__ void multiply(float (&acc)[R * O], const float4 *xs, int quads, int v, const vec<T> (&w)[O]) {
    enum { PARTS = vec<T>::N / 4 };
#pragma unroll
    for (int p = 0; p < PARTS; p++) {
        float wide[O][4];
#pragma unroll
        for (int o = 0; o < O; o++)
#pragma unroll
            for (int i = 0; i < 4; i++) wide[o][i] = T::wide(w[o].e[p * 4 + i]);
#pragma unroll
        for (int r = 0; r < R; r++) {
            const float4 x = xs[r * quads + p * (quads / PARTS) + v];
#pragma unroll
            for (int o = 0; o < O; o++) {
                float a = acc[r * O + o];
                a = __fmaf_rn(x.x, wide[o][0], a);
                a = __fmaf_rn(x.y, wide[o][1], a);
                a = __fmaf_rn(x.z, wide[o][2], a);
                acc[r * O + o] = __fmaf_rn(x.w, wide[o][3], a);
            }
        }
    }
}

/* This lane's vectors v, v + 32, .. of O weight rows; w: at the chunk's begin. */
template <class T, int O, int U, bool ALIGNED>
static __device__ __forceinline__ void bring(vec<T> (&in)[U][O], const typename T::bits *const (&w)[O], int v) {
#pragma unroll
    for (int u = 0; u < U; u++)
#pragma unroll
        for (int o = 0; o < O; o++) load<T, ALIGNED>(in[u][o], w[o] + (v + 32 * u) * vec<T>::N);
}
/* Are there U of them in a chunk of n elements? */
template <class T, int U> static __device__ __forceinline__ bool has(int64_t n, int v) {
    return v + 32 * (U - 1) < static_cast<int>(n / vec<T>::N);
}

/* Without the registers for that: towards the L2 cache, EARLY rounds before they are brought from there. */
template <class T, int O, int U>
static __device__ __forceinline__ void call(const typename T::bits *const (&w)[O], int64_t n, int v) {
    if (!has<T, U>(n, v)) return;
#pragma unroll
    for (int u = 0; u < U; u++)
#pragma unroll
        for (int o = 0; o < O; o++) cu_prefetch(w[o] + (v + 32 * u) * vec<T>::N);
}

template <int R> static __device__ __forceinline__ constexpr bool ahead(bool aligned) { return aligned && tile<R>::AHEAD; }

/* acc += U vectors of each output, from v on. */
template <class T, int R, int O, int U>
static __device__ __forceinline__ void multiply_all(float (&acc)[R * O], const float4 *xs, int quads, int v, const vec<T> (&in)[U][O]) {
#pragma unroll
    for (int u = 0; u < U; u++) multiply<T, R, O>(acc, xs, quads, v + 32 * u, in[u]);
}

/* This lane's share of a chunk of n elements. a: with `ahead` its first vectors, if it has so many. */
template <class T, int R, int O, int U, bool ALIGNED>
static __device__ __forceinline__ void chunk(float (&acc)[R * O], const float4 *xs, int quads, const typename T::bits *const (&w)[O],
                                             int64_t n, int lane, vec<T> (&a)[U][O]) {
    enum { N = vec<T>::N, STEP = 32 * U };
    const int whole = static_cast<int>(n / N), all = static_cast<int>((n + N - 1) / N);
    int v = lane;
    bool more = has<T, U>(n, v);
    if (ahead<R>(ALIGNED)) {
        vec<T> b[U][O]; /* a and b take turns: one is multiplied, the other on its way */
#pragma unroll 1
        while (more) {
            more = has<T, U>(n, v + STEP);
            if (more) bring<T, O, U, ALIGNED>(b, w, v + STEP);
            multiply_all<T, R, O, U>(acc, xs, quads, v, a);
            v += STEP;
            if (!more) break;
            more = has<T, U>(n, v + STEP);
            if (more) bring<T, O, U, ALIGNED>(a, w, v + STEP);
            multiply_all<T, R, O, U>(acc, xs, quads, v, b);
            v += STEP;
        }
    } else {
#pragma unroll 1
        for (; more; more = has<T, U>(n, v)) {
            call<T, O, U>(w, n, v + EARLY * STEP);
            bring<T, O, U, ALIGNED>(a, w, v);
            multiply_all<T, R, O, U>(acc, xs, quads, v, a);
            v += STEP;
        }
    }
#pragma unroll 1
    for (; v < all; v += 32) {
        vec<T> in[O];
#pragma unroll
        for (int o = 0; o < O; o++)
            if (v < whole)
                load<T, ALIGNED>(in[o], w[o] + v * N);
            else
                load_some<T>(in[o], w[o] + v * N, n - v * N);
        multiply<T, R, O>(acc, xs, quads, v, in);
    }
}

/* ---- what follows the sum ---- */

/* The butterfly for N sums at once: at each distance a lane keeps half of them and gives the other half away. Sum i ends
 * in lanes i * 32 / N .. when N <= 32, else two in each lane: sums 2 lane, 2 lane + 1 in v[0], v[1]. */
template <int N> static __device__ __forceinline__ void butterfly(float (&v)[N], int lane) {
    int n = N;
#pragma unroll
    for (int d = 16; d > 0; d >>= 1) {
        if (n == 1) {
            v[0] += __shfl_xor_sync(FULL_MASK, v[0], d);
            continue;
        }
        n /= 2;
        const bool up = lane & d;
#pragma unroll
        for (int i = 0; i < N / 2; i++) {
            if (i >= n) break;
            const float give = up ? v[i] : v[i + n], keep = up ? v[i + n] : v[i];
            v[i] = keep + __shfl_xor_sync(FULL_MASK, give, d);
        }
    }
}

/* Block b: rows from b % groups * R, outputs of b / groups, as `blocks` says; blocks that share weights follow each other. */
template <class T, int R, bool ALIGNED>
static __global__ void __launch_bounds__(tile<R>::WARPS * 32, tile<R>::BLOCKS)
    linear_kernel(const cuk_linear l, const linear_blocks blocks, int groups, int quads, bool x_aligned) {
    enum { O = tile<R>::O, U = tile<R>::U, N = R * O };
    typedef typename T::bits bits;
    SHARED(float4, xs);
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const int64_t row = static_cast<int64_t>(blockIdx.x % groups) * R;
    const unsigned block = blockIdx.x / groups;
    const int which = linear_of(blocks, l.n, block);
    const cuk_linear_to &to = l.to[which];
    const int64_t out = (static_cast<int64_t>(block - blocks.first[which]) * tile<R>::WARPS + warp) * O;
    const bits *w[O];
#pragma unroll
    for (int o = 0; o < O; o++) /* a row past the end reads the last one and is dropped */
        w[o] = static_cast<const bits *>(to.w) + (out + o < to.out ? out + o : to.out - 1) * to.w_ld;
    float acc[N];
#pragma unroll
    for (int i = 0; i < N; i++) acc[i] = 0.0f;
    for (int64_t k0 = 0; k0 < l.k; k0 += quads * 4) {
        const int64_t left = l.k - k0, n = left < quads * 4 ? left : quads * 4;
        vec<T> first[U][O]; /* weights are on their way while x is staged */
        if (!ahead<R>(ALIGNED))
            for (int i = 0; i < EARLY; i++) call<T, O, U>(w, n, lane + 32 * U * i);
        else if (has<T, U>(n, lane))
            bring<T, O, U, ALIGNED>(first, w, lane);
        if (k0 > 0) __syncthreads();
        stage<vec<T>::N, R>(xs, quads, l, row, k0, x_aligned);
        __syncthreads();
        chunk<T, R, O, U, ALIGNED>(acc, xs, quads, w, n, lane, first);
#pragma unroll
        for (int o = 0; o < O; o++) w[o] += quads * 4;
    }
    butterfly<N>(acc, lane);
    if (N > 32) {
        finish(l, to, row + lane * 2 / O, out + lane * 2 % O, acc[0]);
        finish(l, to, row + lane * 2 / O, out + lane * 2 % O + 1, acc[N > 1]);
    } else if (lane % (32 / (N > 32 ? 32 : N)) == 0) {
        const int i = lane / (32 / (N > 32 ? 32 : N));
        finish(l, to, row + i / O, out + i % O, acc[0]);
    }
}

/* ---- launches ---- */

template <class T, int R> static void launch(cuk_stream s, const cuk_linear *l) {
    const int64_t per_row = XS_FLOATS / R, round = (l->k + ROUND - 1) / ROUND * ROUND;
    const int quads = static_cast<int>((round < per_row ? round : per_row) / 4), groups = static_cast<int>((l->rows + R - 1) / R);
    const linear_blocks blocks = blocks_of(l, tile<R>::WARPS * tile<R>::O);
    const size_t shared = static_cast<size_t>(quads) * R * sizeof(float4);
    const dim3 grid(blocks.all * static_cast<unsigned>(groups)), block(tile<R>::WARPS * 32);
    if (w_on_16(l))
        cu_launch<linear_kernel<T, R, true>>(grid, block, shared, s, *l, blocks, groups, quads, x_on_16(l));
    else
        cu_launch<linear_kernel<T, R, false>>(grid, block, shared, s, *l, blocks, groups, quads, x_on_16(l));
}

template <class T> static void by_rows(cuk_stream s, const cuk_linear *l) {
    if (l->rows <= 1)
        launch<T, 1>(s, l);
    else if (l->rows <= 2)
        launch<T, 2>(s, l);
    else if (l->rows <= 4)
        launch<T, 4>(s, l);
    else if (l->rows <= 8)
        launch<T, 8>(s, l);
    else
        launch<T, 16>(s, l);
}

static void by_type(cuk_stream s, const cuk_linear *l) {
    if (l->rows <= 0) return;
    if (l->t == CUK_F32)
        by_rows<cu_f32>(s, l);
    else if (l->t == CUK_F16)
        by_rows<cu_f16>(s, l);
    else
        by_rows<cu_bf16>(s, l);
}

void cuk_linear_few(cuk_stream s, const cuk_linear *l) {
    by_type(s, l);
}

void cuk_linear_exact(cuk_stream s, const cuk_linear *l) {
    by_type(s, l);
}
