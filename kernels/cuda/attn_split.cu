/* attn_split.cu - attention of a row that is alone in its sequence, as in decoding. See attn.cuh for the arithmetic.
 *
 * A block takes one row and all heads of a group (16 at a time); blocks share out the row's splits of keys and leave
 * (m, l, o) of each in scratch, which `combine` folds in rising order. How many blocks share changes no bit. K and V
 * come into shared memory as in attn.cu.
 * Threads: the engine's launch. Owner: nothing; scratch is the caller's. Tested by tests/kernels/test_ops_attn.c. */
#include "kernels/cuda/attn.cuh"

enum { SPLIT_THREADS = 128 };
enum { WANTED_BLOCKS = 1024 }; /* a few for each multiprocessor */

/* T: what keys and values are made of; in shared memory as they come, a key key_row<T> floats from the next. */
template <class T> static constexpr bool NARROW = sizeof(typename T::bits) == 2;
template <class T> static __host__ __device__ __forceinline__ int key_row(const attn &t) {
    return NARROW<T> ? t.key_ld / 2 : t.ld;
}
template <class T>
static __device__ __forceinline__ void bring_as(const attn &t, float *to, const void *src, int64_t tok, const keys_of &k,
                                                const block_pages &b, int base) {
    if (NARROW<T>)
        bring_narrow(t, to, t.key_ld * 2, 16, src, tok, k, b, base);
    else
        bring(t, to, src, tok, k, b, base);
}

/* ---- split: one row, up to NV heads of its group; CT threads share out the columns, CC each ---- */

/* Scratch: o [units, heads, splits, hd], then (m, l) [units, heads, splits, 2]. A unit is a row, or a sequence of
 * one. */
static __device__ __forceinline__ int64_t scratch_at(const attn &t, int unit, int head, int split) {
    return (static_cast<int64_t>(unit) * t.a.heads + head) * t.splits + split;
}

static __device__ __forceinline__ float *scratch_ml(const attn &t, int64_t at) {
    return static_cast<float *>(t.a.scratch) +
           static_cast<int64_t>(t.a.n_seqs) * t.a.heads * t.splits * t.a.hd + at * 2;
}

/* Scores of 64 keys: two threads a key, which take turns at vectors. */
template <class T, int NV>
static __device__ __forceinline__ void split_scores(const attn &t, float *p, const float *q, const float *k) {
    const int j = static_cast<int>(threadIdx.x) % BLOCK, half = static_cast<int>(threadIdx.x) / BLOCK;
    const int MINE = (NV + 1) / 2;
    float s[MINE];
    if (NV == 1 && half) return;
#pragma unroll
    for (int i = 0; i < MINE; i++) s[i] = 0;
    if (NARROW<T>) {
        const uint4 *const key = reinterpret_cast<const uint4 *>(k) + j * (t.key_ld / 8);
#pragma unroll(NV <= 2 ? 2 : 1)
        for (int d = 0; d < t.parts; d += 2) {
            float4 f, g;
            widen8<T>(key[d / 2], &f, &g);
#pragma unroll
            for (int i = 0; i < MINE; i++) {
                const float *const at = q + (half + 2 * i) * t.ld + d * 4;
                s[i] = dot4(load4(at + 4), g, dot4(load4(at), f, s[i]));
            }
        }
    } else {
#pragma unroll(NV <= 2 ? 4 : NV <= 4 ? 2 : 1)
        for (int d = 0; d < t.parts; d++) {
            const float4 f = load4(k + j * t.ld + d * 4);
#pragma unroll
            for (int i = 0; i < MINE; i++) s[i] = dot4(load4(q + (half + 2 * i) * t.ld + d * 4), f, s[i]);
        }
    }
#pragma unroll
    for (int i = 0; i < MINE; i++) p[(half + 2 * i) * P_LD + j] = score_of(t, s[i]);
}

/* One vector's 64 scores become weights; a warp. */
static __device__ __forceinline__ float split_soften(float *p, int lo, int hi, float &m, float &l) {
    const int a = static_cast<int>(threadIdx.x) % 32, b = a + 32;
    const bool in_a = a >= lo && a < hi, in_b = b >= lo && b < hi;
    const float s = p[a], z = p[b];
    float top = m;
    if (in_a) top = fmaxf(top, s);
    if (in_b) top = fmaxf(top, z);
    top = cu_warp_max(top);
    const float u = in_a ? soft_exp(s - top) : 0.0f, w = in_b ? soft_exp(z - top) : 0.0f;
    p[a] = u;
    p[b] = w;
    const float sum = cu_warp_sum(__fadd_rn(u, w)), c = soft_exp(m - top);
    l = __fadd_rn(__fmul_rn(l, c), sum);
    m = top;
    return c;
}

template <int NV, int CT, int CC> struct split_sum {
    static const int VG = SPLIT_THREADS / CT, MINE = (NV + VG - 1) / VG;
    float o[MINE][CC];
};

/* o = o c + p v; vectors vg, vg + VG, ... and columns col, col + CT of this thread. */
template <class T, int NV, int CT, int CC>
static __device__ __forceinline__ void split_mix(split_sum<NV, CT, CC> &sum, const attn &t, const float *p,
                                                 const float *c, const float *room, int lo, int hi) {
    const typename T::bits *const v = reinterpret_cast<const typename T::bits *>(room);
    const int ld = NARROW<T> ? t.key_ld : t.ld;
    typedef split_sum<NV, CT, CC> S;
    const int vg = static_cast<int>(threadIdx.x) / CT;
    int col[CC];
#pragma unroll
    for (int e = 0; e < CC; e++) col[e] = min(static_cast<int>(threadIdx.x) % CT + e * CT, t.a.hd - 1);
#pragma unroll
    for (int i = 0; i < S::MINE; i++)
#pragma unroll
        for (int e = 0; e < CC; e++) sum.o[i][e] = __fmul_rn(sum.o[i][e], c[min(vg + S::VG * i, NV - 1)]);
#pragma unroll(NV <= 4 ? 4 : 2)
    for (int j = lo; j < hi; j++) {
        float f[CC];
#pragma unroll
        for (int e = 0; e < CC; e++) f[e] = T::wide(v[j * ld + col[e]]);
#pragma unroll
        for (int i = 0; i < S::MINE; i++) {
            const float w = p[min(vg + S::VG * i, NV - 1) * P_LD + j];
#pragma unroll
            for (int e = 0; e < CC; e++) sum.o[i][e] = fmaf(w, f[e], sum.o[i][e]);
        }
    }
}

struct split_room {
    float *q, *p, *c, *k, *v;
};

/* Blocks of one split, [begin, end) of its row's keys; m, l: of vectors warp, warp + 4, ... */
template <class T, int NV, int CT, int CC>
static __device__ __forceinline__ void run_split(split_sum<NV, CT, CC> &sum, float *m, float *l,
                                                 const attn &t, const split_room &room, const keys_of &k,
                                                 int begin, int end) {
    const int warp = static_cast<int>(threadIdx.x) / 32, first = begin / BLOCK * BLOCK;
    block_pages now = pages_at(t, k, first);
    bring_as<T>(t, room.k, k.k, k.k_tok, k, now, first);
    cu_cp_commit();
    for (int base = first; base < end; base += BLOCK) {
        const bool more = base + BLOCK < end;
        const int lo = max(begin - base, 0), hi = min(end - base, static_cast<int>(BLOCK));
        cu_cp_wait<0>();
        __syncthreads();
        if (!t.one) bring_as<T>(t, room.v, k.v, k.v_tok, k, now, base);
        cu_cp_commit();
        const block_pages next = pages_at(t, k, base + BLOCK);
        split_scores<T, NV>(t, room.p, room.q, room.k);
        __syncthreads();
        if (t.one)
            bring_as<T>(t, room.v, k.v, k.v_tok, k, now, base);
        else if (more)
            bring_as<T>(t, room.k, k.k, k.k_tok, k, next, base + BLOCK);
        cu_cp_commit();
#pragma unroll
        for (int i = 0; i < (NV + 3) / 4; i++) {
            const int vec = warp + 4 * i;
            if (vec >= NV) break;
            const float c = split_soften(room.p + vec * P_LD, lo, hi, m[i], l[i]);
            if (threadIdx.x % 32 == 0) room.c[vec] = c;
        }
        if (t.one)
            cu_cp_wait<0>();
        else
            cu_cp_wait<1>();
        __syncthreads();
        split_mix<T, NV, CT, CC>(sum, t, room.p, room.c, room.v, lo, hi);
        if (t.one && more) {
            __syncthreads();
            bring_as<T>(t, room.k, k.k, k.k_tok, k, next, base + BLOCK);
            cu_cp_commit();
        }
        now = next;
    }
    __syncthreads(); /* before somebody brings the next split */
}

/* Leaves a split's sums in scratch, or, when it is the only one there can be, the result in y. */
template <int NV, int CT, int CC>
static __device__ __forceinline__ void leave_split(split_sum<NV, CT, CC> &sum, const float *m, const float *l,
                                                   const attn &t, const split_room &room, int row, int unit,
                                                   int head0, int n, int split) {
    typedef split_sum<NV, CT, CC> S;
    const int warp = static_cast<int>(threadIdx.x) / 32, vg = static_cast<int>(threadIdx.x) / CT,
              c0 = static_cast<int>(threadIdx.x) % CT;
    const bool alone = t.splits == 1;
    float *ml = alone ? nullptr : scratch_ml(t, scratch_at(t, unit, head0 + warp, split));
    if (threadIdx.x % 32 == 0) {
#pragma unroll
        for (int i = 0; i < (NV + 3) / 4; i++) {
            if (warp + 4 * i >= n) break;
            if (alone) {
                room.c[warp + 4 * i] = inverse(l[i]);
            } else {
                ml[0] = m[i];
                ml[1] = l[i];
                ml += static_cast<int64_t>(t.splits) * 8;
            }
        }
    }
    if (alone) __syncthreads();
    const int64_t hd = t.a.hd, step = S::VG * (alone ? hd : t.splits * hd);
    void *const to = alone ? t.a.y : t.a.scratch;
    const cuk_type type = alone ? t.a.left : CUK_F32;
    int64_t at = alone ? row * t.a.y_ld + (head0 + vg) * hd : scratch_at(t, unit, head0 + vg, split) * hd;
#pragma unroll
    for (int i = 0; i < S::MINE; i++, at += step) {
        const int vec = vg + S::VG * i;
        if (vec >= n) break;
        const float by = alone ? room.c[vec] : 1.0f;
#pragma unroll
        for (int e = 0; e < CC; e++)
            if (c0 + e * CT < t.a.hd) cu_store_any<1>(to, type, at + c0 + e * CT, {{__fmul_rn(sum.o[i][e], by)}});
    }
}

/* Block (sequence, kv head and chunk of its group, which of the splits: z, z + gridDim.z, ...) */
template <class T, int NV, int CT, int CC>
static __global__ void __launch_bounds__(SPLIT_THREADS, NV <= 4 || (NV == 8 && CT == 64) ? 4 : 2) split_kernel(const attn t) {
    SHARED(float, all);
    const int s = static_cast<int>(blockIdx.x), kvh = static_cast<int>(blockIdx.y) / t.chunks,
              chunk = static_cast<int>(blockIdx.y) % t.chunks, z = static_cast<int>(blockIdx.z);
    rows_of r;
    if (!read_rows(t, s, &r)) {
        if (threadIdx.x == 0) cu_raise(t.a.fault, CUK_BAD_LENGTH);
        return;
    }
    if (t.serve == ROWS_ALONE && r.n != 1) return;
    split_room room;
    room.q = all;
    room.p = room.q + NV * t.ld;
    room.c = room.p + NV * P_LD;
    room.k = room.c + 16;
    room.v = t.one ? room.k : room.k + BLOCK * key_row<T>(t);
    const int head0 = kvh * t.group + chunk * NV, n = min(static_cast<int>(NV), t.group - chunk * NV);
    for (int i = 0; i < r.n; i++) {
        const int row = r.from + i, unit = t.serve == ROWS_ALONE ? s : row;
        keys_of k = keys_at(t, s, r, kvh);
        sees(t, r, i, &k.from, &k.to);
        const int first = k.from / SPLIT + z;
        const bool empty = t.splits == 1 && k.from >= k.to;
        if (!empty && first * SPLIT >= k.to) continue;
        const float *q = t.a.q + row * t.a.q_ld + head0 * static_cast<int64_t>(t.a.hd);
        for (int e = static_cast<int>(threadIdx.x); e < NV * t.parts * 4; e += SPLIT_THREADS) {
            const int vec = e / (t.parts * 4), d = e % (t.parts * 4);
            room.q[vec * t.ld + d] = vec < n && d < t.a.hd ? q[vec * t.a.hd + d] : 0.0f;
        }
        for (int split = first; split * SPLIT < k.to || (empty && split == first);
             split += static_cast<int>(gridDim.z)) {
            split_sum<NV, CT, CC> sum = {};
            float m[(NV + 3) / 4], l[(NV + 3) / 4];
#pragma unroll
            for (int v = 0; v < (NV + 3) / 4; v++) m[v] = -INFINITY, l[v] = 0;
            const int begin = max(k.from, split * SPLIT), end = min(k.to, (split + 1) * SPLIT);
            if (!empty) run_split<T, NV, CT, CC>(sum, m, l, t, room, k, begin, end);
            leave_split<NV, CT, CC>(sum, m, l, t, room, row, unit, head0, n, split);
            if (empty) break;
        }
        __syncthreads();
    }
}

/* Folds a row's splits, a block for each head. */
static __global__ void __launch_bounds__(MAX_HD) combine_kernel(const attn t) {
    const int s = static_cast<int>(blockIdx.x), head = static_cast<int>(blockIdx.y),
              d = static_cast<int>(threadIdx.x);
    rows_of r;
    if (!read_rows(t, s, &r) || (t.serve == ROWS_ALONE && r.n != 1) || d >= t.a.hd) return;
    for (int i = 0; i < r.n; i++) {
        const int row = r.from + i, unit = t.serve == ROWS_ALONE ? s : row;
        int lo, hi;
        sees(t, r, i, &lo, &hi);
        float M = -INFINITY, L = 0, O = 0;
#pragma unroll 4
        for (int split = lo / SPLIT; split * SPLIT < hi; split++) {
            const int64_t at = scratch_at(t, unit, head, split);
            const float *ml = scratch_ml(t, at), o = static_cast<const float *>(t.a.scratch)[at * t.a.hd + d];
            if (split == lo / SPLIT) {
                M = ml[0], L = ml[1], O = o;
                continue;
            }
            float keep, take;
            fold(M, L, ml[0], ml[1], &keep, &take);
            O = fmaf(o, take, __fmul_rn(O, keep));
        }
        cu_store_any<1>(t.a.y, t.a.left, row * t.a.y_ld + head * static_cast<int64_t>(t.a.hd) + d, {{__fmul_rn(O, inverse(L))}});
    }
}

/* ---- launching ---- */

template <class T, int NV, int CT, int CC> static void launch_split(cuk_stream s, attn t) {
    t.vecs = NV;
    t.chunks = (t.group + NV - 1) / NV;
    const int fixed = NV * (t.ld + P_LD) + 16, block = BLOCK * key_row<T>(t),
              need = (fixed + 2 * block) * static_cast<int>(sizeof(float));
    t.one = need > SMALL_SHARED;
    const int64_t others = static_cast<int64_t>(t.a.n_seqs) * t.a.kv_heads * t.chunks,
                  share = (WANTED_BLOCKS + others - 1) / others;
    const dim3 grid(static_cast<unsigned>(t.a.n_seqs), static_cast<unsigned>(t.a.kv_heads * t.chunks),
                    static_cast<unsigned>(share < t.splits ? share : t.splits));
    cu_launch<split_kernel<T, NV, CT, CC>>(grid, dim3(SPLIT_THREADS),
                                           static_cast<size_t>(fixed + (t.one ? 1 : 2) * block) * sizeof(float), s, t);
}

template <class T, int NV> static void split_columns(cuk_stream s, const attn &t) {
    if (t.a.hd <= 64)
        launch_split<T, NV, 64, 1>(s, t);
    else if (t.a.hd <= 128)
        launch_split<T, NV, 128, 1>(s, t);
    else
        launch_split<T, NV, 128, 2>(s, t);
}

template <class T> static void split_group(cuk_stream s, const attn &t) {
    if (t.group == 1)
        split_columns<T, 1>(s, t);
    else if (t.group == 2)
        split_columns<T, 2>(s, t);
    else if (t.group <= 4)
        split_columns<T, 4>(s, t);
    else if (t.group <= 8)
        split_columns<T, 8>(s, t);
    else
        split_columns<T, 16>(s, t);
}

void attn_run_splits(cuk_stream s, const attn &t) {
    if (t.a.kept == CUK_BF16)
        split_group<cu_bf16>(s, t);
    else if (t.a.kept == CUK_F16)
        split_group<cu_f16>(s, t);
    else
        split_group<cu_f32>(s, t);
    if (t.splits > 1)
        cu_launch<combine_kernel>(dim3(static_cast<unsigned>(t.a.n_seqs), static_cast<unsigned>(t.a.heads)),
                  dim3((static_cast<unsigned>(t.a.hd) + 31) / 32 * 32), 0, s, t);
}
