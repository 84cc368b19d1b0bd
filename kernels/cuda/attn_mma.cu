/* attn_mma.cu - attention of many rows on tensor cores (mma.sync m16n8k16), where bits need not be those of a row alone.
 *
 * A vector is one query row and head, as in attn.cuh; a block takes a tile of 128 or 64, a warp 32 or 16 of them, by head size
 * and precision (mma_shape), through all keys that any of them sees. What a vector's numbers are made of depends on the head size and the
 * precision alone, not on the tile or the call:
 *   The keys [lo, hi) that it sees, in blocks of 32 or 16 that begin at multiples of it by position; block by block:
 *     s_j = scale * (q . k_j in steps of 16 columns, by the tensor core), capped where there is a cap
 *     m' = max(m, s); c = e(m - m'); p_j = e(s_j - m'), 0 for keys not seen
 *     l = l c + P; o = o c + (p v of this block, in steps of 16 keys, by the tensor core), one rounding
 *   A block of which it sees nothing changes no bit. In the end y = o / l; no key at all: zeros.
 * How factors get their 16 bits is `precise`'s or `rounded`'s. In `rounded`, l sums the rounded p_j: weights still add up to 1.
 * A tensor core truncates what it adds; as each of its sums runs over one block (v) or one vector (k) only, that does not
 * pile up over a long past (Dao, arXiv:2307.08691, for the order of work; what truncates: Fasi et al., PeerJ CS 7:e330).
 *
 * A NaN or infinity in a value reaches the vectors that see it and no other: it is left out of the product, where it would
 * meet weights of 0, and whoever sees its key becomes NaN in all columns.
 * Threads: the engine's launch. Owner: nothing. Tested by tests/kernels/test_ops_attn_mma.c. */
#include "kernels/cuda/attn.cuh"

enum { MMA_WARPS = 4, MMA_THREADS = MMA_WARPS * 32 };

/* threadIdx.x, asked again: what is worked out from it is not kept in registers from block to block of keys. */
static __device__ __forceinline__ int thread_again() {
#ifdef VLMD_CUDA_EMU
    return static_cast<int>(threadIdx.x);
#else
    int i;
    asm volatile("mov.u32 %0, %%tid.x;" : "=r"(i));
    return i;
#endif
}

/* ---- how an f32 becomes a factor ---- */

/* x = hi + lo + rest, |rest| <= 2^-17 |x|; a product is hi hi + hi lo + lo hi. */
struct precise {
    enum { PIECES = 2, AS_IS = -1 }; /* AS_IS: keys that come so stay so */
    static __device__ __forceinline__ float fit(float x) { return x; }
    static __device__ __forceinline__ void cut(float x, float y, unsigned &hi, unsigned &lo) {
        hi = cu_pack_bf16(x, y);
        lo = cu_pack_bf16(__fadd_rn(x, -__uint_as_float(hi << 16)), __fadd_rn(y, -__uint_as_float(hi & 0xffff0000u)));
    }
    static __device__ __forceinline__ float kept(float x, float y, unsigned) { return __fadd_rn(x, y); }
    static __device__ __forceinline__ unsigned pack(float, float) { return 0; } /* nobody has it so */
    static __device__ __forceinline__ void mma(float d[4], const unsigned a[4], const unsigned b[2]) { cu_mma_bf16(d, a, b); }
};

/* One product of numbers rounded to bf16: |rest| <= 2^-8 |x|. */
struct rounded_bf16 {
    enum { PIECES = 1, AS_IS = CUK_BF16 };
    static __device__ __forceinline__ float fit(float x) { return x; }
    static __device__ __forceinline__ unsigned pack(float x, float y) { return cu_pack_bf16(x, y); }
    static __device__ __forceinline__ void cut(float x, float y, unsigned &hi, unsigned &) { hi = cu_pack_bf16(x, y); }
    static __device__ __forceinline__ float kept(float, float, unsigned hi) {
        return __fadd_rn(__uint_as_float(hi << 16), __uint_as_float(hi & 0xffff0000u));
    }
    static __device__ __forceinline__ void mma(float d[4], const unsigned a[4], const unsigned b[2]) { cu_mma_bf16(d, a, b); }
};

/* To f16: |rest| <= 2^-11 |x| or 2^-25; what is too large becomes the largest. */
struct rounded_f16 {
    enum { PIECES = 1, AS_IS = CUK_F16 };
    static __device__ __forceinline__ float fit(float x) { return x > 65504.0f ? 65504.0f : x < -65504.0f ? -65504.0f : x; }
    static __device__ __forceinline__ unsigned pack(float x, float y) { return cu_pack_f16(x, y); }
    static __device__ __forceinline__ void cut(float x, float y, unsigned &hi, unsigned &) { hi = cu_pack_f16(x, y); }
    static __device__ __forceinline__ float kept(float, float, unsigned hi) {
        return __fadd_rn(cu_from_f16(static_cast<uint16_t>(hi)), cu_from_f16(static_cast<uint16_t>(hi >> 16)));
    }
    static __device__ __forceinline__ void mma(float d[4], const unsigned a[4], const unsigned b[2]) { cu_mma_f16(d, a, b); }
};

/* ---- shared memory: rows of HC numbers and a pad of 16 bytes, so that eight rows' pieces lie in different banks ---- */

template <class P, int HC> struct mma_shape {
    enum {
        M = HC <= (P::PIECES > 1 ? 96 : 128) ? 2 : 1, /* sixteens of vectors a warp */
        KEYS = HC <= 128 && !(HC == 96 && P::PIECES > 1) ? 32 : 16,
        VECS = MMA_WARPS * 16 * M,
        LD = HC + 4,     /* floats */
        UNITS = HC / 8,  /* of a row: eight numbers that one thread brings and cuts */
        LO = HC / 2,     /* floats from a unit's hi to its lo */
        BLOCKS = HC <= 64 && P::PIECES == 1 ? 3 : 2, /* of a multiprocessor */
        SHARED_BYTES = (VECS + 2 * KEYS) * LD * 4
    };
};

/* Unit u of a row that begins at src: columns 4u .. 4u + 3 and LO + 4u .. LO + 4u + 3, each where it stands in the row. */
template <class P, int HC>
static __device__ __forceinline__ void bring_unit(float *row, int u, const float *src, bool in, bool wide, const attn &t) {
    for (int half = 0; half < 2; half++) {
        const int col = 4 * u + half * mma_shape<P, HC>::LO;
        if (wide) {
            const bool read = in && col < t.a.hd;
            cu_cp_async<16>(row + col, read ? src + col : src, read);
        } else {
            for (int e = 0; e < 4; e++) row[col + e] = in && col + e < t.a.hd ? src[col + e] : 0.0f;
        }
    }
}

/* The same of 16-bit numbers: one behind the other where hi will be. */
template <class P, int HC>
static __device__ __forceinline__ void bring_narrow_unit(float *row, int u, const uint16_t *src, bool in, bool wide, const attn &t) {
    for (int half = 0; half < 2; half++) {
        const int col = 4 * u + half * mma_shape<P, HC>::LO;
        uint16_t *const cell = reinterpret_cast<uint16_t *>(row + 4 * u) + 4 * half;
        if (wide) {
            const bool read = in && col < t.a.hd;
            cu_cp_async<8>(cell, read ? src + col : src, read);
        } else {
            for (int e = 0; e < 4; e++) cell[e] = in && col + e < t.a.hd ? src[col + e] : static_cast<uint16_t>(0);
        }
    }
}

/* The same unit, by the thread that brought it, becomes 16 bits each in place: hi where its first four numbers were, lo where
 * the others were. kept: what it came as. clean: false when one of them is no number; it becomes 0. */
template <class P, int HC, bool CLEAN> static __device__ __forceinline__ bool cut_unit(float *row, int u, cuk_type kept) {
    if (!CLEAN && static_cast<int>(kept) == P::AS_IS) return true;
    float4 a, b;
    if (kept == CUK_F32)
        a = load4(row + 4 * u), b = load4(row + 4 * u + mma_shape<P, HC>::LO);
    else
        widen8(kept, *reinterpret_cast<const uint4 *>(row + 4 * u), &a, &b);
    bool ok = true;
    if (CLEAN) {
        float *const all[8] = {&a.x, &a.y, &a.z, &a.w, &b.x, &b.y, &b.z, &b.w};
        float sum = 0; /* 0 unless one is infinite or NaN */
#pragma unroll
        for (int i = 0; i < 8; i++) sum = fmaf(*all[i], 0.0f, sum);
        ok = sum == 0;
        if (!ok)
#pragma unroll
            for (int i = 0; i < 8; i++)
                if (!(fabsf(*all[i]) < INFINITY)) *all[i] = 0;
    }
    uint4 hi, lo = make_uint4(0, 0, 0, 0);
    P::cut(P::fit(a.x), P::fit(a.y), hi.x, lo.x);
    P::cut(P::fit(a.z), P::fit(a.w), hi.y, lo.y);
    P::cut(P::fit(b.x), P::fit(b.y), hi.z, lo.z);
    P::cut(P::fit(b.z), P::fit(b.w), hi.w, lo.w);
    *reinterpret_cast<uint4 *>(row + 4 * u) = hi;
    if (P::PIECES > 1) *reinterpret_cast<uint4 *>(row + 4 * u + mma_shape<P, HC>::LO) = lo;
    return ok;
}

/* A block of keys (or values) of the sequence that begins at row0 from the pool or dense rows at src, zeros for those outside
 * [from, to). Where they
 * lie is worked out each time: what stays in registers all the way is short of them. */
template <class P, int HC>
static __device__ __forceinline__ void bring_keys(const attn &t, float *to, const void *src, int64_t ld, int row0,
                                                  const keys_of &k, const pages_of<mma_shape<P, HC>::KEYS> &pages, int base) {
    typedef mma_shape<P, HC> S;
    const int kvh = static_cast<int>(blockIdx.y);
#pragma unroll 1
    for (int i = thread_again(); i < S::KEYS * S::UNITS; i += MMA_THREADS) {
        const int j = i / S::UNITS, key = base + j;
        bool in = key >= k.from && key < k.to;
        int64_t row = row0 + key;
        if (t.a.pages) {
            const int page = j < PAGE ? pages.p[0] : pages.p[S::KEYS / PAGE - 1];
            in = in && page >= 0;
            row = (static_cast<int64_t>(page) * t.a.kv_heads + kvh) * PAGE + j % PAGE;
        }
        const int64_t off = t.a.pages ? row * t.a.hd : row * ld + kvh * t.a.hd;
        if (is_narrow(t))
            bring_narrow_unit<P, HC>(to + j * S::LD, i % S::UNITS, static_cast<const uint16_t *>(src) + (in ? off : 0), in, t.wide, t);
        else
            bring_unit<P, HC>(to + j * S::LD, i % S::UNITS, static_cast<const float *>(src) + (in ? off : 0), in, t.wide, t);
    }
}

template <class P, int HC> static __device__ __forceinline__ void cut_keys(float *k, cuk_type kept) {
    typedef mma_shape<P, HC> S;
#pragma unroll 1
    for (int i = thread_again(); i < S::KEYS * S::UNITS; i += MMA_THREADS)
        cut_unit<P, HC, false>(k + i / S::UNITS * S::LD, i % S::UNITS, kept);
}

/* spoilt: a bit for each key whose value has something in it that is no number */
template <class P, int HC> static __device__ __forceinline__ void cut_values(float *v, int *spoilt, cuk_type kept) {
    typedef mma_shape<P, HC> S;
#pragma unroll 1
    for (int i = thread_again(); i < S::KEYS * S::UNITS; i += MMA_THREADS)
        if (!cut_unit<P, HC, true>(v + i / S::UNITS * S::LD, i % S::UNITS, kept)) atomicOr(spoilt, 1 << i / S::UNITS);
}

template <class P, int HC> static __device__ void bring_vectors(const attn &t, float *q, const tile_at &at, int kvh) {
    typedef mma_shape<P, HC> S;
    const int n = at.rows.n * t.group - at.first;
#pragma unroll 1
    for (int i = static_cast<int>(threadIdx.x); i < S::VECS * S::UNITS; i += MMA_THREADS) {
        const int v = i / S::UNITS, u = at.first + min(v, n - 1);
        const float *src = t.a.q + (at.rows.from + u / t.group) * t.a.q_ld +
                           (kvh * t.group + u % t.group) * static_cast<int64_t>(t.a.hd);
        bring_unit<P, HC>(q + v * S::LD, i % S::UNITS, src, v < n, t.wide_q, t);
    }
}

template <class P, int HC> static __device__ void cut_vectors(float *q) {
    typedef mma_shape<P, HC> S;
#pragma unroll 1
    for (int i = static_cast<int>(threadIdx.x); i < S::VECS * S::UNITS; i += MMA_THREADS)
        cut_unit<P, HC, false>(q + i / S::UNITS * S::LD, i % S::UNITS, CUK_F32);
}

/* ---- what a warp keeps; a lane has, of each sixteen, the vectors lane / 4 and lane / 4 + 8 ---- */

template <class P, int HC> struct mma_sums {
    enum { M = mma_shape<P, HC>::M };
    float o[M][mma_shape<P, HC>::UNITS][4];
};

/* Registers are short, so the rest stands in the pads of rows. Of a vector's: the keys [lo, hi) that it sees, m, l. */
struct vector_pad {
    int lo, hi;
    float m, l;
};
template <class P, int HC> static __device__ __forceinline__ vector_pad *pad_of(float *q, int vec) {
    return reinterpret_cast<vector_pad *>(q + vec * mma_shape<P, HC>::LD + HC);
}
/* Of key 0's: a bit for each key whose value has something in it that is no number, by turns; the tile's sequence and the
 * first of its rows. */
struct tile_pad {
    int spoilt[2], s, row;
};
template <class P, int HC> static __device__ __forceinline__ tile_pad *pad_of_tile(float *ks) {
    return reinterpret_cast<tile_pad *>(ks + HC);
}
/* Of key 1 + warp's: the keys that any and that all of its vectors see. */
struct warp_pad {
    int any_lo, any_hi, all_lo, all_hi;
};
template <class P, int HC> static __device__ __forceinline__ warp_pad *pad_of_warp(float *ks) {
    return reinterpret_cast<warp_pad *>(ks + (1 + thread_again() / 32) * mma_shape<P, HC>::LD + HC);
}

/* q: of the warp's first vector, the tile's `first` */
template <class P, int HC>
static __device__ __forceinline__ void start(mma_sums<P, HC> &w, const attn &t, const tile_at &at, float *q, float *ks, int first) {
    const int n = at.rows.n * t.group, lane = static_cast<int>(threadIdx.x) % 32;
    warp_pad see = {0x7fffffff, 0, 0, 0x7fffffff};
    if (lane < 16 * w.M) { /* those past the last do what the last one does, and leave nothing */
        sees(t, at.rows, min(first + lane, n - 1) / t.group, &see.all_lo, &see.all_hi);
        *pad_of<P, HC>(q, lane) = {see.all_lo, see.all_hi, -INFINITY, 0};
        if (see.all_lo < see.all_hi) see.any_lo = see.all_lo, see.any_hi = see.all_hi;
    }
    for (int d = 16; d > 0; d >>= 1) {
        see.any_lo = min(see.any_lo, __shfl_xor_sync(FULL_MASK, see.any_lo, d));
        see.any_hi = max(see.any_hi, __shfl_xor_sync(FULL_MASK, see.any_hi, d));
        see.all_lo = max(see.all_lo, __shfl_xor_sync(FULL_MASK, see.all_lo, d));
        see.all_hi = min(see.all_hi, __shfl_xor_sync(FULL_MASK, see.all_hi, d));
    }
    if (first >= n) see.any_hi = 0; /* nothing of it is wanted */
    if (lane == 0) *pad_of_warp<P, HC>(ks) = see;
#pragma unroll
    for (int m = 0; m < w.M; m++)
#pragma unroll
        for (int u = 0; u < mma_shape<P, HC>::UNITS; u++)
#pragma unroll
            for (int e = 0; e < 4; e++) w.o[m][u][e] = 0;
    __syncwarp(); /* of the pads */
}

/* ---- one block of keys ---- */

/* What four registers hold of sixteen vectors and eight keys: scores of two neighbouring keys, of the lane's first vector
 * and of its second; in their place, later, their weights as factors: hi of both vectors, then lo. */
template <class P, int HC> struct mma_scores {
    float at[mma_shape<P, HC>::M][mma_shape<P, HC>::KEYS / 8][4];
};

/* s += q . k */
template <class P, int HC>
static __device__ __forceinline__ void products(mma_scores<P, HC> &s, const float *q, const float *k) {
    typedef mma_shape<P, HC> S;
    const int lane = thread_again() % 32, i = lane / 8, r = lane % 8;
    q += ((i & 1) * 8 + r) * S::LD + i / 2 * 4;
    k += (i / 2 * 8 + r) * S::LD + (i & 1) * 4;
#pragma unroll 1
    for (int d = 0; d < HC / 16; d++) {
        unsigned a[S::M][P::PIECES][4];
#pragma unroll
        for (int m = 0; m < S::M; m++)
#pragma unroll
            for (int p = 0; p < P::PIECES; p++) cu_ldmatrix<false>(a[m][p], q + m * 16 * S::LD + d * 8 + p * S::LO);
#pragma unroll
        for (int j = 0; j < S::KEYS / 16; j++) {
            unsigned b[P::PIECES][4];
#pragma unroll
            for (int p = 0; p < P::PIECES; p++) cu_ldmatrix<false>(b[p], k + j * 16 * S::LD + d * 8 + p * S::LO);
#pragma unroll
            for (int h = 0; h < 2; h++)
#pragma unroll
                for (int m = 0; m < S::M; m++) {
                    float(&to)[4] = s.at[m][2 * j + h];
                    if (P::PIECES > 1) {
                        P::mma(to, a[m][P::PIECES - 1], b[0] + 2 * h);
                        P::mma(to, a[m][0], b[P::PIECES - 1] + 2 * h);
                    }
                    P::mma(to, a[m][0], b[0] + 2 * h);
                }
        }
    }
}

/* scale x, and cap tanh(scale x / cap) by tanh z = 1 - 2 / (1 + e^2z): within 2e-7 of the cap. twice: 2 / cap */
static __device__ __forceinline__ float score_from(float x, float scale, float cap, float twice) {
    x = __fmul_rn(x, scale);
    if (cap > 0) x = fmaf(-cap, __fdividef(2.0f, __fadd_rn(1.0f, soft_exp(__fmul_rn(x, twice)))), cap);
    return x;
}

/* Scores of sixteen m become weights, its vectors' m and l move on; c: what their sums are multiplied by. q: of the warp */
template <class P, int HC>
static __device__ __forceinline__ void weigh(mma_scores<P, HC> &scores, float c[2], int m, const attn &t, float *q, float *ks,
                                             int base) {
    enum { KEYS = mma_shape<P, HC>::KEYS };
    float(&s)[KEYS / 8][4] = scores.at[m];
    const int lane = thread_again() % 32, key = base + lane % 4 * 2;
    const warp_pad see = *pad_of_warp<P, HC>(ks);
    const bool masked = __any_sync(FULL_MASK, base < see.all_lo || base + KEYS > see.all_hi); /* a vote: uniform to the compiler */
    float sum[2];
#pragma unroll
    for (int r = 0; r < 2; r++) {
        vector_pad *const pad = pad_of<P, HC>(q, m * 16 + r * 8 + lane / 4);
        const vector_pad is = *pad;
        float top = is.m;
#pragma unroll
        for (int n = 0; n < KEYS / 8; n++)
#pragma unroll
            for (int e = 0; e < 2; e++) {
                float &x = s[n][2 * r + e];
                x = score_from(x, t.a.scale, t.a.softcap, t.twice);
                if (masked && (key + n * 8 + e < is.lo || key + n * 8 + e >= is.hi)) x = -INFINITY;
                top = fmaxf(top, x);
            }
        top = fmaxf(top, __shfl_xor_sync(FULL_MASK, top, 1));
        top = fmaxf(top, __shfl_xor_sync(FULL_MASK, top, 2));
        const bool none = masked && (is.lo >= is.hi || is.lo >= base + KEYS || is.hi <= base);
        c[r] = none ? 1.0f : soft_exp(is.m - top);
        __syncwarp(); /* all four have read it */
        if (lane % 4 == 0) pad->m = top;
        if (none) top = 0; /* it may be -inf */
        sum[r] = 0;
#pragma unroll
        for (int n = 0; n < KEYS / 8; n++)
#pragma unroll
            for (int e = 0; e < 2; e++) s[n][2 * r + e] = soft_exp(s[n][2 * r + e] - top);
    }
#pragma unroll
    for (int n = 0; n < KEYS / 8; n++) {
        unsigned hi[2], lo[2] = {0, 0};
#pragma unroll
        for (int r = 0; r < 2; r++) {
            P::cut(s[n][2 * r], s[n][2 * r + 1], hi[r], lo[r]);
            sum[r] = __fadd_rn(sum[r], P::kept(s[n][2 * r], s[n][2 * r + 1], hi[r]));
        }
#pragma unroll
        for (int r = 0; r < 2; r++) s[n][r] = __uint_as_float(hi[r]), s[n][2 + r] = __uint_as_float(lo[r]);
    }
#pragma unroll
    for (int r = 0; r < 2; r++) {
        vector_pad *const pad = pad_of<P, HC>(q, m * 16 + r * 8 + lane / 4);
        sum[r] = __fadd_rn(sum[r], __shfl_xor_sync(FULL_MASK, sum[r], 1));
        sum[r] = __fadd_rn(sum[r], __shfl_xor_sync(FULL_MASK, sum[r], 2));
        if (lane % 4 == 0) pad->l = fmaf(pad->l, c[r], sum[r]);
    }
}

/* Weights of sixteen vectors and keys 16 j .. as a fragment: hi, or lo. */
template <class P, int HC>
static __device__ __forceinline__ void weights_of(unsigned a[4], const mma_scores<P, HC> &s, int m, int j, int lo) {
#pragma unroll
    for (int i = 0; i < 4; i++) a[i] = __float_as_uint(s.at[m][2 * j + i / 2][2 * lo + i % 2]);
}

/* o = o c + p v */
template <class P, int HC>
static __device__ __forceinline__ void mix(mma_sums<P, HC> &w, const mma_scores<P, HC> &p, const float (&c)[mma_shape<P, HC>::M][2],
                                           const float *v) {
    typedef mma_shape<P, HC> S;
    const int lane = thread_again() % 32, i = lane / 8, r = lane % 8;
    v += ((i & 1) * 8 + r) * S::LD + i / 2 * 4;
#pragma unroll
    for (int u = 0; u < S::UNITS; u += 2) {
        __syncwarp(); /* this and the next keep the compiler from loading all of v first: registers do not suffice */
        float part[S::M][2][4];
#pragma unroll
        for (int m = 0; m < S::M; m++)
#pragma unroll
            for (int e = 0; e < 8; e++) part[m][e / 4][e % 4] = 0;
#pragma unroll
        for (int j = 0; j < S::KEYS / 16; j++) {
            unsigned b[P::PIECES][4];
#pragma unroll
            for (int x = 0; x < P::PIECES; x++) cu_ldmatrix<true>(b[x], v + j * 16 * S::LD + u * 4 + x * S::LO);
#pragma unroll
            for (int h = 0; h < 2; h++)
#pragma unroll
                for (int m = 0; m < S::M; m++) {
                    unsigned hi[4], lo[4];
                    weights_of<P, HC>(hi, p, m, j, 0);
                    weights_of<P, HC>(lo, p, m, j, 1);
                    if (P::PIECES > 1) {
                        P::mma(part[m][h], lo, b[0] + 2 * h);
                        P::mma(part[m][h], hi, b[P::PIECES - 1] + 2 * h);
                    }
                    P::mma(part[m][h], hi, b[0] + 2 * h);
                }
        }
#pragma unroll
        for (int m = 0; m < S::M; m++)
#pragma unroll
            for (int h = 0; h < 2; h++)
#pragma unroll
                for (int e = 0; e < 4; e++) w.o[m][u + h][e] = fmaf(w.o[m][u + h][e], c[m][e / 2], part[m][h][e]);
        __syncwarp();
    }
}

/* Vectors that see a key of `spoilt` (bits of the block) become NaN. q: of the warp */
template <class P, int HC> static __device__ void spoil(int spoilt, float *q, int base) {
    const int lane = static_cast<int>(threadIdx.x) % 32;
    __syncwarp(); /* of what l was */
    if (lane >= 16 * mma_shape<P, HC>::M) return;
    vector_pad *const pad = pad_of<P, HC>(q, lane);
    for (int j = max(pad->lo - base, 0); j < min(pad->hi - base, static_cast<int>(mma_shape<P, HC>::KEYS)); j++)
        if (spoilt >> j & 1) pad->l = NAN;
}

/* y[at], y[at + 1] = a, b, as far as there are `left`; of P's own type or f32. */
template <class P> static __device__ __forceinline__ void put_two(const attn &t, int64_t at, float a, float b, int left) {
    const bool as_is = static_cast<int>(P::AS_IS) == static_cast<int>(t.a.left);
    if (as_is && t.wide_y && left > 0) {
        static_cast<unsigned *>(t.a.y)[at / 2] = P::pack(a, b);
    } else if (as_is) {
        const unsigned both = P::pack(a, b);
        if (left > 0) static_cast<uint16_t *>(t.a.y)[at] = static_cast<uint16_t>(both);
        if (left > 1) static_cast<uint16_t *>(t.a.y)[at + 1] = static_cast<uint16_t>(both >> 16);
    } else if (t.wide_y && left > 0) {
        *reinterpret_cast<float2 *>(static_cast<float *>(t.a.y) + at) = make_float2(a, b);
    } else {
        if (left > 0) static_cast<float *>(t.a.y)[at] = a;
        if (left > 1) static_cast<float *>(t.a.y)[at + 1] = b;
    }
}

template <class P, int HC> static __device__ __forceinline__ void leave(const mma_sums<P, HC> &w, const attn &t, float *q) {
    tile_at at; /* found again: registers */
    if (!find_tile(t, static_cast<int>(gridDim.x - 1 - blockIdx.x), &at)) return;
    const int lane = thread_again() % 32, c = lane % 4, kvh = static_cast<int>(blockIdx.y),
              first = at.first + thread_again() / 32 * 16 * w.M;
#pragma unroll
    for (int m = 0; m < w.M; m++)
#pragma unroll
        for (int r = 0; r < 2; r++) {
            const int vec = first + m * 16 + r * 8 + lane / 4;
            if (vec >= at.rows.n * t.group) continue;
            const float l = pad_of<P, HC>(q, m * 16 + r * 8 + lane / 4)->l;
            const float inv = l == 0 ? 0.0f : __fdividef(1.0f, l); /* no call of a slow path: registers */
            const int64_t y = (at.rows.from + vec / t.group) * t.a.y_ld +
                              (kvh * t.group + vec % t.group) * static_cast<int64_t>(t.a.hd);
#pragma unroll
            for (int u = 0; u < mma_shape<P, HC>::UNITS; u++) {
                const int col = 4 * u + (c < 2 ? 2 * c : mma_shape<P, HC>::LO + 2 * (c - 2));
                const float a = __fmul_rn(w.o[m][u][2 * r], inv), b = __fmul_rn(w.o[m][u][2 * r + 1], inv);
                put_two<P>(t, y + col, a, b, t.a.hd - col);
            }
        }
}

static __device__ __forceinline__ const int32_t *pages_of_sequence(const attn &t, int s) {
    return t.a.pages ? t.a.pages + static_cast<int64_t>(s) * t.a.pages_ld : nullptr;
}

/* Block (tile, kv head). While scores are made V comes, while V is summed the next K. */
template <class P, int HC> static __global__ void __launch_bounds__(MMA_THREADS, mma_shape<P, HC>::BLOCKS) mma_kernel(const attn t) {
    typedef mma_shape<P, HC> S;
    SHARED(float, q);
    if (blockIdx.x == 0 && blockIdx.y == 0) check_all(t);
    tile_at at;
    if (!find_tile(t, static_cast<int>(gridDim.x - 1 - blockIdx.x), &at)) return; /* the last, often longest, first */
    const int kvh = static_cast<int>(blockIdx.y), warp = static_cast<int>(threadIdx.x) / 32, first = at.first + warp * 16 * S::M;
    float *ks = q + S::VECS * S::LD, *vs = ks + S::KEYS * S::LD;
    float *const mine = q + warp * 16 * S::M * S::LD;
    keys_of k = {};
    int unused_lo, unused_hi;
    range_of(t, at, min(at.first + t.vecs, at.rows.n * t.group) - 1, &k, &unused_lo, &unused_hi);
    mma_sums<P, HC> w;
    start<P, HC>(w, t, at, mine, ks, first);
    const int begin = k.from / S::KEYS * S::KEYS, end = k.from < k.to ? k.to : begin;
    k.pages = pages_of_sequence(t, at.s);
    if (begin < end) {
        bring_vectors<P, HC>(t, q, at, kvh);
        bring_keys<P, HC>(t, ks, t.a.k, t.a.k_ld, at.rows.from, k, pages_at<S::KEYS>(t, k, begin), begin);
        if (threadIdx.x == 0) *pad_of_tile<P, HC>(ks) = {{0, 0}, at.s, at.rows.from};
        if (threadIdx.x == 0) *pad_of_tile<P, HC>(vs) = {{0, 0}, k.from, k.to};
    }
    cu_cp_commit();
    for (int base = begin, turn = 0; base < end; base += S::KEYS, turn ^= 1) {
        cu_cp_wait<0>();
        if (base == begin) cut_vectors<P, HC>(q);
        cut_keys<P, HC>(ks, t.a.kept);
        __syncthreads();
        tile_pad *const pad = pad_of_tile<P, HC>(ks);
        const warp_pad see = *pad_of_warp<P, HC>(ks);
        const bool busy = __any_sync(FULL_MASK, base < see.any_hi && base + S::KEYS > see.any_lo);
        if (threadIdx.x == 0) pad->spoilt[turn ^ 1] = 0;
        k = {};
        k.from = pad_of_tile<P, HC>(vs)->s;
        k.to = end;
        k.pages = pages_of_sequence(t, pad->s);
        bring_keys<P, HC>(t, vs, t.a.v, t.a.v_ld, pad->row, k, pages_at<S::KEYS>(t, k, base), base);
        cu_cp_commit();
        const pages_of<S::KEYS> next = pages_at<S::KEYS>(t, k, base + S::KEYS); /* early: what they name is asked for soon */
        mma_scores<P, HC> s = {};
        float c[S::M][2] = {};
        if (busy) products<P, HC>(s, mine, ks);
        __syncthreads();
        if (base + S::KEYS < end) bring_keys<P, HC>(t, ks, t.a.k, t.a.k_ld, pad->row, k, next, base + S::KEYS);
        cu_cp_commit();
        if (busy)
#pragma unroll
            for (int m = 0; m < S::M; m++) weigh<P, HC>(s, c[m], m, t, mine, ks, base);
        cu_cp_wait<1>();
        cut_values<P, HC>(vs, &pad->spoilt[turn], t.a.kept);
        __syncthreads();
        if (!busy) continue;
        mix<P, HC>(w, s, c, vs);
        if (pad->spoilt[turn]) spoil<P, HC>(pad->spoilt[turn], mine, base);
    }
    __syncwarp();
    leave<P, HC>(w, t, mine);
}

/* ---- launching ---- */

template <class P, int HC> static void launch_mma(cuk_stream s, attn t) {
    typedef mma_shape<P, HC> S;
    t.vecs = S::VECS;
    t.twice = 2.0f / t.a.softcap;
    const int64_t most = static_cast<int64_t>(t.a.n_rows) * t.group / t.vecs + t.a.n_seqs;
    cu_launch<mma_kernel<P, HC>>(dim3(static_cast<unsigned>(most), static_cast<unsigned>(t.a.kv_heads)), dim3(MMA_THREADS),
                                 S::SHARED_BYTES, s, t);
}

template <class P> static void by_width(cuk_stream s, const attn &t) {
    if (t.a.hd <= 64)
        launch_mma<P, 64>(s, t);
    else if (t.a.hd <= 80)
        launch_mma<P, 80>(s, t);
    else if (t.a.hd <= 96)
        launch_mma<P, 96>(s, t);
    else if (t.a.hd <= 128)
        launch_mma<P, 128>(s, t);
    else
        launch_mma<P, 256>(s, t);
}

void attn_run_mma(cuk_stream s, attn t) {
    if (t.a.kept != CUK_F32) t.wide = t.a.hd % 4 == 0 && cu_wide(t.a.k, 0, 2) && cu_wide(t.a.v, 0, 2);
    if (t.a.precision == CUK_ATTN_BF16)
        by_width<rounded_bf16>(s, t);
    else if (t.a.precision == CUK_ATTN_F16)
        by_width<rounded_f16>(s, t);
    else
        by_width<precise>(s, t);
}
