/* attn.cuh - what the attention kernels share: lengths and pages checked, tiles found; and of the two that compute in f32
 * (attn.cu, attn_split.cu; on tensor cores: attn_mma.cu) the arithmetic they agree on, keys brought into shared memory.
 *
 * A vector is one query row and head. What a vector's numbers are made of, whichever kernel runs, whatever else is
 * in the call and however its sequence is cut into calls:
 *   The keys [lo, hi) that it sees, by position, in splits of 256, and within them blocks of 64.
 *   In a split, block by block:
 *     s_j = scale * (sum over d, rising, by fused multiply-add from 0), capped where there is a cap
 *     m' = max(m, s); c = e(m - m'); p_j = e(s_j - m'), 0 for keys not seen
 *     l = l c + P, P the sum of 64 p folded in halves: j and j + 32, then 16, 8, 4, 2, 1
 *     o = o c, then o = fma(p_j, v_j, o) for j rising over the keys seen
 *   Splits that hold a key seen are folded, rising. The first is taken as it is; then M' = max(M, m),
 *   L = fma(l, e(m - M'), L e(M - M')), O likewise. In the end y = O (1 / L); no key at all: zeros.
 * So a row is bit for bit the same decoded alone, in a batch, in a chunk of a prompt or whole, from pages or from dense
 * rows (Milakov and Gimelshein, arXiv:1805.02867). A NaN in a key or value reaches only rows that see it.
 *
 * Threads: the engine's launch. Owner: nothing; scratch is the caller's. Tested by tests/kernels/test_ops_attn.c. */
#ifndef VLMD_KERNELS_CUDA_ATTN_CUH
#define VLMD_KERNELS_CUDA_ATTN_CUH

#include "kernels/cuda/act.cuh"
#include "kernels/cuda/vecs.cuh"

enum { BLOCK = 64, SPLIT = 256, PAGE = 16, P_LD = BLOCK + 4, MAX_HD = 256 };
enum { SMALL_SHARED = 99 << 10 }; /* what a block may have on every GPU of compute capability 8.0 and more */

/* Which sequences: any, those of one row, those of more. */
typedef enum serve_kind { ALL_ROWS, ROWS_ALONE, ROWS_TOGETHER } serve_kind;

struct attn {
    cuk_attn a;
    int group, vecs, chunks; /* heads of a group; vectors of a block; blocks of a group (split) */
    int ld, parts, shift;    /* of a vector or key in shared memory: floats, groups of four, log2 of threads it takes */
    int key_ld;              /* of a key of 16 bits as it comes (split): numbers */
    int splits;              /* that the longest sequence can have */
    serve_kind serve;
    bool wide, wide_q, wide_y; /* accesses of 16 bytes: K and V, q, y (mma, numbers of 16 bits: of 4 or 8) */
    bool one;                  /* K and V take turns in one buffer */
    float twice;               /* 2 / softcap */
};

static __device__ __forceinline__ float soft_exp(float x) {
    return __expf(x); /* its error grows with |x|, where the weight is small: 2e-7 of the sum */
}

/* ---- what lies in device memory, checked ---- */

struct rows_of {
    int from, n, len; /* rows of a sequence, its keys */
};

/* Sequence s; false, and n 0, when its numbers do not fit. */
static __device__ bool read_rows(const attn &t, int s, rows_of *r) {
    const cuk_attn &a = t.a;
    const int from = a.q_start[s], to = a.q_start[s + 1], len = a.kv_len[s];
    bool ok = from >= 0 && to >= from && to <= a.n_rows && len >= 0;
    if (ok && (a.causal || a.window > 0)) ok = len >= to - from;
    if (ok && a.pages) ok = len <= static_cast<int64_t>(a.pages_ld) * PAGE;
    if (ok && !a.pages) ok = static_cast<int64_t>(from) + len <= a.n_keys;
    r->from = from;
    r->n = ok ? to - from : 0;
    r->len = len;
    return ok;
}

/* How many keys there can be of a sequence whose rows begin at `from`. */
static __device__ __forceinline__ int64_t room_of(const attn &t, int from) {
    return t.a.pages ? static_cast<int64_t>(t.a.pages_ld) * PAGE : t.a.n_keys - from;
}

/* Keys [lo, hi) that the row at place i of its sequence sees; none when its limit cannot be. */
static __device__ __forceinline__ void sees(const attn &t, const rows_of &r, int i, int *lo, int *hi) {
    const int pos = r.len - r.n + i, limit = t.a.limit ? t.a.limit[r.from + i] : 0;
    *lo = t.a.window > 0 ? max(pos - t.a.window + 1, 0) : 0;
    *hi = t.a.causal ? min(pos + 1, r.len) : r.len;
    if (limit == 0) return;
    const bool ok = limit > 0 && limit <= room_of(t, r.from);
    if (!ok) cu_raise(t.a.fault, CUK_BAD_LENGTH);
    *hi = ok ? limit : 0;
    if (t.a.limit_spares) *lo = 0;
}

static __device__ __forceinline__ float score_of(const attn &t, float dot) {
    const float s = __fmul_rn(dot, t.a.scale);
    return t.a.softcap > 0 ? cu_softcap(s, t.a.softcap) : s;
}

static __device__ __forceinline__ bool is_narrow(const attn &t) {
    return t.a.kept != CUK_F32;
}

/* Keys of one sequence and kv head. */
struct keys_of {
    const void *k, *v;
    int64_t k_tok, v_tok, page_ld; /* in numbers */
    const int32_t *pages;
    int from, to; /* those that are read */
};

static __device__ __forceinline__ keys_of keys_at(const attn &t, int s, const rows_of &r, int kvh) {
    const cuk_attn &a = t.a;
    if (a.pages) {
        const int64_t head = static_cast<int64_t>(PAGE) * a.hd, bytes = kvh * head * (is_narrow(t) ? 2 : 4);
        return {static_cast<const char *>(a.k) + bytes,
                static_cast<const char *>(a.v) + bytes,
                a.hd,
                a.hd,
                a.kv_heads * head,
                a.pages + static_cast<int64_t>(s) * a.pages_ld,
                0,
                0};
    }
    const int64_t col = static_cast<int64_t>(kvh) * a.hd;
    return {static_cast<const float *>(a.k) + r.from * a.k_ld + col,
            static_cast<const float *>(a.v) + r.from * a.v_ld + col,
            a.k_ld,
            a.v_ld,
            0,
            nullptr,
            0,
            0};
}

/* The page numbers of a block of keys; -1 for a page that is not read or does not exist. */
template <int KEYS> struct pages_of {
    int p[KEYS / PAGE];
};
typedef pages_of<BLOCK> block_pages;

template <int KEYS = BLOCK>
static __device__ __forceinline__ pages_of<KEYS> pages_at(const attn &t, const keys_of &k, int base) {
    pages_of<KEYS> b;
    for (int g = 0; g < KEYS / PAGE; g++) {
        const int j = base + g * PAGE;
        b.p[g] = -1;
        if (!k.pages || j + PAGE <= k.from || j >= k.to) continue;
        const int p = k.pages[j / PAGE];
        if (p < 0 || p >= t.a.n_pages)
            cu_raise(t.a.fault, CUK_BAD_PAGE);
        else
            b.p[g] = p;
    }
    return b;
}

/* ---- tiles: vectors that go through the keys together ---- */

struct tile_at {
    int s, first; /* vector: row times group plus head */
    rows_of rows;
};

/* Which sequence and which of its tiles is number `want`? The whole warp asks; false: there are fewer. */
static inline __device__ bool find_tile(const attn &t, int want, tile_at *at) {
    const int lane = static_cast<int>(threadIdx.x) % 32;
    for (int s0 = 0; s0 < t.a.n_seqs; s0 += 32) {
        rows_of r = {0, 0, 0};
        if (s0 + lane < t.a.n_seqs) read_rows(t, s0 + lane, &r);
        if (t.serve == ROWS_TOGETHER && r.n == 1) r.n = 0;
        const int tiles = (r.n * t.group + t.vecs - 1) / t.vecs;
        int sum = tiles;
        for (int d = 1; d < 32; d *= 2) {
            const int other = __shfl_up_sync(FULL_MASK, sum, d);
            if (lane >= d) sum += other;
        }
        const unsigned after = __ballot_sync(FULL_MASK, sum > want);
        if (after) {
            const int l = __ffs(static_cast<int>(after)) - 1;
            at->s = s0 + l;
            at->first = (want - __shfl_sync(FULL_MASK, sum - tiles, l)) * t.vecs;
            read_rows(t, at->s, &at->rows);
            return true;
        }
        want -= __shfl_sync(FULL_MASK, sum, 31);
    }
    return false;
}

/* Says what is wrong with lengths: one block looks at all of them. */
static inline __device__ void check_all(const attn &t) {
    rows_of r;
    for (int s = static_cast<int>(threadIdx.x); s < t.a.n_seqs; s += static_cast<int>(blockDim.x))
        if (!read_rows(t, s, &r)) cu_raise(t.a.fault, CUK_BAD_LENGTH);
}

/* Keys that any vector of the tile, up to `last`, sees: k's from and to; and that all of them see: lo, hi. */
static __device__ __forceinline__ void range_of(const attn &t, const tile_at &at, int last, keys_of *k, int *lo, int *hi) {
    sees(t, at.rows, at.first / t.group, &k->from, hi);
    sees(t, at.rows, last / t.group, lo, &k->to);
    for (int i = at.first / t.group; t.a.limit && i <= last / t.group; i++) {
        int from, to;
        sees(t, at.rows, i, &from, &to);
        k->from = min(k->from, from), *lo = max(*lo, from);
        k->to = max(k->to, to), *hi = min(*hi, to);
    }
}

/* ---- arithmetic in f32 ---- */

/* Is key j of the block at base to be read? off: where its numbers begin. */
static __device__ __forceinline__ bool find_key(const keys_of &k, const block_pages &b, int64_t tok, int base, int j, int64_t *off) {
    bool in = base + j >= k.from && base + j < k.to;
    *off = (base + j) * tok;
    if (k.pages) {
        const int g = j / PAGE, page = g == 0 ? b.p[0] : g == 1 ? b.p[1] : g == 2 ? b.p[2] : b.p[3];
        in = in && page >= 0;
        *off = page * k.page_ld + j % PAGE * tok;
    }
    return in;
}

/* Brings 64 keys (or values) from position base on into `to`, [64][ld], zeros for those outside [from, to) and
 * behind hd. Asynchronous where it can be: the caller commits, waits, and holds a barrier. */
static __device__ __forceinline__ void bring(const attn &t, float *to, const void *src, int64_t tok,
                                             const keys_of &k, const block_pages &b, int base) {
    const int mask = (1 << t.shift) - 1;
    const float *const from = static_cast<const float *>(src);
    for (int i = static_cast<int>(threadIdx.x); i < BLOCK << t.shift; i += static_cast<int>(blockDim.x)) {
        const int j = i >> t.shift, part = i & mask;
        if (part >= t.parts) continue;
        int64_t off;
        const bool in = find_key(k, b, tok, base, j, &off);
        float *cell = to + j * t.ld + part * 4;
        if (t.wide) {
            cu_cp_async<16>(cell, in ? from + off + part * 4 : t.a.k, in);
        } else {
            for (int e = 0; e < 4; e++)
                cell[e] = in && part * 4 + e < t.a.hd ? from[off + part * 4 + e] : 0.0f;
        }
    }
}

/* The same of 16-bit numbers, eight a unit: unit u of key j goes to byte j * row + u * each. */
static __device__ __forceinline__ void bring_narrow(const attn &t, float *to, int row, int each, const void *src, int64_t tok,
                                                    const keys_of &k, const block_pages &b, int base) {
    const int shift = t.shift - 1, mask = (1 << shift) - 1;
    const uint16_t *const from = static_cast<const uint16_t *>(src);
    for (int i = static_cast<int>(threadIdx.x); i < BLOCK << shift; i += static_cast<int>(blockDim.x)) {
        const int j = i >> shift, u = i & mask;
        if (u >= t.parts / 2) continue;
        int64_t off;
        const bool in = find_key(k, b, tok, base, j, &off);
        uint16_t *cell = reinterpret_cast<uint16_t *>(reinterpret_cast<char *>(to) + j * row + u * each);
        if (t.wide) {
            cu_cp_async<16>(cell, in ? from + off + u * 8 : t.a.k, in);
        } else {
            for (int e = 0; e < 8; e++) cell[e] = in && u * 8 + e < t.a.hd ? from[off + u * 8 + e] : static_cast<uint16_t>(0);
        }
    }
}

static __device__ __forceinline__ float4 load4(const float *p) {
    return *reinterpret_cast<const float4 *>(p);
}

/* Eight 16-bit numbers, in order. */
template <class T> static __device__ __forceinline__ void widen8(uint4 w, float4 *a, float4 *b) {
    *a = make_float4(T::wide(static_cast<uint16_t>(w.x)), T::wide(static_cast<uint16_t>(w.x >> 16)),
                     T::wide(static_cast<uint16_t>(w.y)), T::wide(static_cast<uint16_t>(w.y >> 16)));
    *b = make_float4(T::wide(static_cast<uint16_t>(w.z)), T::wide(static_cast<uint16_t>(w.z >> 16)),
                     T::wide(static_cast<uint16_t>(w.w)), T::wide(static_cast<uint16_t>(w.w >> 16)));
}
static __device__ __forceinline__ void widen8(cuk_type type, uint4 w, float4 *a, float4 *b) {
    if (type == CUK_BF16)
        widen8<cu_bf16>(w, a, b);
    else
        widen8<cu_f16>(w, a, b);
}

static __device__ __forceinline__ float dot4(float4 a, float4 b, float sum) {
    return fmaf(a.w, b.w, fmaf(a.z, b.z, fmaf(a.y, b.y, fmaf(a.x, b.x, sum))));
}

/* One more split of a vector: M, L stand for those before; keep and take are what O and o are multiplied by. */
static __device__ __forceinline__ void fold(float &M, float &L, float m, float l, float *keep, float *take) {
    const float top = fmaxf(M, m);
    *keep = soft_exp(M - top);
    *take = soft_exp(m - top);
    L = fmaf(l, *take, __fmul_rn(L, *keep));
    M = top;
}

static __device__ __forceinline__ float inverse(float l) {
    return l == 0 ? 0.0f : 1.0f / l;
}

/* attn_split.cu: rows that are alone in their sequence, or (ALL_ROWS) every row */
void attn_run_splits(cuk_stream s, const attn &t);
/* attn_mma.cu: rows together, or every row, with a.precision's rounding */
void attn_run_mma(cuk_stream s, attn t);

#endif
