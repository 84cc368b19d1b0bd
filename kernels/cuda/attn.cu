/* attn.cu - attention over pages or dense rows: two kernels, one arithmetic. See cuk.h.
 *
 * A vector is one query row and head. What a vector's numbers are made of, whichever kernel runs, whatever else is in the
 * call and however its sequence is cut into calls:
 *   Keys [lo, hi) that it may see, by position, in splits of 256 and within them blocks of 64.
 *   In a split, block by block: s_j = scale * (sum over d, rising, by fused multiply-add from 0); m' = max(m, s); c = e(m - m');
 *   p_j = e(s_j - m'), 0 for keys not seen; l = l * c + P, P the sum of 64 p folded in halves (j and j + 32, then 16, 8, 4, 2, 1);
 *   o = o * c, then o = fma(p_j, v_j, o) for j rising over the keys seen.
 *   Splits that hold a key seen are folded, rising: the first is taken as it is; then M' = max(M, m), L = l e(m - M') + L e(M - M'),
 *   O likewise, by a product and a fused multiply-add. y = O * (1 / L); no key at all: zeros.
 * So a row is the same bits decoded alone, in a batch, in a chunk of a prompt, from pages or from dense rows (Milakov and
 * Gimelshein, arXiv:1805.02867). A key's number that is not one reaches only rows that see it.
 *
 * tile: M vectors of one sequence and kv head (16, 32 or 64 by head size), the sum O kept in y between splits.
 * split: all heads of a group of one row; blocks share out the splits, leave them in scratch, and `combine` folds.
 * Both keep one block of K and one of V in shared memory: V comes while scores are made, the next K while V is summed.
 * Lengths and page numbers are checked here before use. A grid is sized by what the host knows: rows, sequences, capacity.
 * Threads: the engine's launch. Owner: nothing; scratch is the caller's. Tested by tests/kernels/test_ops_attn.c. */
#include "kernels/cuda/vecs.cuh"

enum { BLOCK = 64, SPLIT = 256, PAGE = 16, P_LD = BLOCK + 4, SPLIT_THREADS = 128, MAX_HD = 256 };
enum { SMALL_SHARED = 99 << 10 };   /* what a block may have on every GPU of compute capability 8.0 and more */
enum { WANTED_BLOCKS = 1024 };      /* of the split kernel: a few for each multiprocessor */

typedef enum serve_kind { ALL_ROWS, ROWS_ALONE, ROWS_TOGETHER } serve_kind; /* which sequences: any, those of one row, of more */

struct attn {
    cuk_attn a;
    int group, vecs, chunks; /* heads of a group; vectors of a block; blocks of a group (split) */
    int ld, parts, shift;    /* of a key in shared memory: floats, groups of four, log2 of threads it takes */
    int splits;              /* that the longest sequence can have */
    serve_kind serve;
    bool wide, wide_y, wide_q, one; /* loads of 16 bytes; K and V take turns in one buffer */
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

/* Keys [lo, hi) that a row at a position may see. */
static __device__ __forceinline__ int lo_of(const attn &t, int pos) {
    return t.a.window > 0 ? max(pos - t.a.window + 1, 0) : 0;
}

static __device__ __forceinline__ int hi_of(const attn &t, int pos, int len) {
    return t.a.causal ? min(pos + 1, len) : len;
}

/* The same of the row at place i of its sequence. */
static __device__ __forceinline__ void sees(const attn &t, const rows_of &r, int i, int *lo, int *hi) {
    *lo = lo_of(t, r.len - r.n + i);
    *hi = hi_of(t, r.len - r.n + i, r.len);
}

/* Keys of one sequence and kv head. */
struct keys_of {
    const float *k, *v;
    int64_t k_tok, v_tok, page_ld; /* in floats */
    const int32_t *pages;
    int from, to; /* those that are read */
};

static __device__ __forceinline__ keys_of keys_at(const attn &t, int s, const rows_of &r, int kvh) {
    const cuk_attn &a = t.a;
    if (a.pages) {
        const int64_t head = static_cast<int64_t>(PAGE) * a.hd;
        return {a.k + kvh * head, a.v + kvh * head, a.hd, a.hd, a.kv_heads * head, a.pages + static_cast<int64_t>(s) * a.pages_ld,
                0,                0};
    }
    const int64_t col = static_cast<int64_t>(kvh) * a.hd;
    return {a.k + r.from * a.k_ld + col, a.v + r.from * a.v_ld + col, a.k_ld, a.v_ld, 0, nullptr, 0, 0};
}

/* The page numbers of a block of keys; -1 for a page that is not read or does not exist. */
struct block_pages {
    int p[BLOCK / PAGE];
};

static __device__ __forceinline__ block_pages pages_at(const attn &t, const keys_of &k, int base) {
    block_pages b;
    for (int g = 0; g < BLOCK / PAGE; g++) {
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

/* Brings 64 keys (or values) from position base on into `to`, [64][ld], zeros for those outside [from, to) and behind hd.
 * Asynchronous where it can be: the caller commits, waits, and holds a barrier. */
static __device__ __forceinline__ void bring(const attn &t, float *to, const float *src, int64_t tok, const keys_of &k,
                                             const block_pages &b, int base) {
    const int mask = (1 << t.shift) - 1;
    for (int i = static_cast<int>(threadIdx.x); i < BLOCK << t.shift; i += static_cast<int>(blockDim.x)) {
        const int j = i >> t.shift, part = i & mask, at = base + j;
        if (part >= t.parts) continue;
        bool in = at >= k.from && at < k.to;
        int64_t off = at * tok;
        if (k.pages) {
            const int g = j / PAGE, page = g == 0 ? b.p[0] : g == 1 ? b.p[1] : g == 2 ? b.p[2] : b.p[3];
            in = in && page >= 0;
            off = page * k.page_ld + j % PAGE * tok;
        }
        float *cell = to + j * t.ld + part * 4;
        if (t.wide) {
            cu_cp_async16(cell, in ? src + off + part * 4 : t.a.k, in);
        } else {
            for (int e = 0; e < 4; e++) cell[e] = in && part * 4 + e < t.a.hd ? src[off + part * 4 + e] : 0.0f;
        }
    }
}

static __device__ __forceinline__ float4 load4(const float *p) {
    return *reinterpret_cast<const float4 *>(p);
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

/* ---- tile: 16 threads a row of four vectors; thread x of them has keys x, x + 16, ... and columns 4x, 4x + 64, ... ---- */

struct tile_at {
    int s, first; /* vector: row times group plus head */
    rows_of rows;
};

/* Which sequence and which of its tiles is number `want`? The whole warp asks; false: there are fewer. */
static __device__ bool find_tile(const attn &t, int want, tile_at *at) {
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
static __device__ void check_all(const attn &t) {
    rows_of r;
    for (int s = static_cast<int>(threadIdx.x); s < t.a.n_seqs; s += static_cast<int>(blockDim.x))
        if (!read_rows(t, s, &r)) cu_raise(t.a.fault, CUK_BAD_LENGTH);
}

/* Vectors first .. of the tile into q, [vecs][ld], zeros past the last and behind hd. */
static __device__ void bring_queries(const attn &t, float *q, const tile_at &at, int kvh) {
    const cuk_attn &a = t.a;
    const int n = at.rows.n * t.group - at.first, width = t.parts * 4;
    for (int v = static_cast<int>(threadIdx.x) / 16; v < t.vecs; v += static_cast<int>(blockDim.x) / 16) {
        const int u = at.first + v;
        const float *src = a.q + (at.rows.from + u / t.group) * a.q_ld + (kvh * t.group + u % t.group) * static_cast<int64_t>(a.hd);
        for (int d = static_cast<int>(threadIdx.x) % 16; d < width; d += 16) q[v * t.ld + d] = v < n && d < a.hd ? src[d] : 0.0f;
    }
}

/* s[r][c] = scale * q_(row r) . k_(x + 16 c) */
static __device__ __forceinline__ void scores(float s[4][4], const attn &t, const float *q, const float *k) {
    for (int r = 0; r < 4; r++)
        for (int c = 0; c < 4; c++) s[r][c] = 0;
#pragma unroll 1
    for (int d = 0; d < t.parts; d++) {
        float4 qs[4], ks[4];
#pragma unroll
        for (int r = 0; r < 4; r++) qs[r] = load4(q + r * t.ld + d * 4);
#pragma unroll
        for (int c = 0; c < 4; c++) ks[c] = load4(k + c * 16 * t.ld + d * 4);
#pragma unroll
        for (int r = 0; r < 4; r++)
#pragma unroll
            for (int c = 0; c < 4; c++) s[r][c] = dot4(qs[r], ks[c], s[r][c]);
    }
#pragma unroll
    for (int r = 0; r < 4; r++)
#pragma unroll
        for (int c = 0; c < 4; c++) s[r][c] = __fmul_rn(s[r][c], t.a.scale);
}

/* One row's 64 scores become weights in p; m, l move on; returns c. lo, hi: relative to the block. */
static __device__ __forceinline__ float soften(const float s[4], float *p, int x, int lo, int hi, float &m, float &l) {
    float top = m, w[4];
#pragma unroll
    for (int c = 0; c < 4; c++)
        if (x + 16 * c >= lo && x + 16 * c < hi) top = fmaxf(top, s[c]);
    for (int d = 8; d > 0; d >>= 1) top = fmaxf(top, __shfl_xor_sync(FULL_MASK, top, d));
#pragma unroll
    for (int c = 0; c < 4; c++) {
        w[c] = x + 16 * c >= lo && x + 16 * c < hi ? soft_exp(s[c] - top) : 0.0f;
        p[x + 16 * c] = w[c];
    }
    float sum = __fadd_rn(__fadd_rn(w[0], w[2]), __fadd_rn(w[1], w[3]));
    for (int d = 8; d > 0; d >>= 1) sum = __fadd_rn(sum, __shfl_xor_sync(FULL_MASK, sum, d));
    if (lo >= hi) return 1; /* nothing seen: as if the block were not there */
    const float c = soft_exp(m - top);
    l = __fadd_rn(__fmul_rn(l, c), sum);
    m = top;
    return c;
}

/* o += p v over the block. MASKED: a row takes part in its keys alone. */
template <int C4, bool MASKED>
static __device__ __forceinline__ void mix(float4 o[4][C4], const attn &t, const float *p, const float *v, int x, const int lo[4],
                                           const int hi[4]) {
    int col[C4]; /* threads past the last column do the last one again */
#pragma unroll
    for (int i = 0; i < C4; i++) col[i] = min(x + 16 * i, t.parts - 1) * 4;
#pragma unroll 1
    for (int j = 0; j < BLOCK; j += 4) {
        float w[4][4];
#pragma unroll
        for (int r = 0; r < 4; r++) {
            const float4 f = load4(p + r * P_LD + j);
            w[r][0] = f.x, w[r][1] = f.y, w[r][2] = f.z, w[r][3] = f.w;
        }
#pragma unroll
        for (int e = 0; e < 4; e++)
#pragma unroll
            for (int i = 0; i < C4; i++) {
                const float4 f = load4(v + (j + e) * t.ld + col[i]);
#pragma unroll
                for (int r = 0; r < 4; r++) {
                    if (MASKED && (j + e < lo[r] || j + e >= hi[r])) continue;
                    float4 &to = o[r][i];
                    to.x = fmaf(w[r][e], f.x, to.x);
                    to.y = fmaf(w[r][e], f.y, to.y);
                    to.z = fmaf(w[r][e], f.z, to.z);
                    to.w = fmaf(w[r][e], f.w, to.w);
                }
            }
    }
}

/* Four numbers of y, or of them those below hd; the sum that y holds between splits comes back the same way. */
static __device__ __forceinline__ void put4(const attn &t, float *y, int col, float4 f) {
    if (t.wide_y) {
        *reinterpret_cast<float4 *>(y + col) = f;
        return;
    }
    y[col] = f.x;
    if (col + 1 < t.a.hd) y[col + 1] = f.y;
    if (col + 2 < t.a.hd) y[col + 2] = f.z;
    if (col + 3 < t.a.hd) y[col + 3] = f.w;
}

static __device__ __forceinline__ float4 get4(const attn &t, const float *y, int col) {
    if (t.wide_y) return load4(y + col);
    return make_float4(y[col], col + 1 < t.a.hd ? y[col + 1] : 0, col + 2 < t.a.hd ? y[col + 2] : 0, col + 3 < t.a.hd ? y[col + 3] : 0);
}

static __device__ __forceinline__ float4 scaled(float4 f, float by) {
    return make_float4(__fmul_rn(f.x, by), __fmul_rn(f.y, by), __fmul_rn(f.z, by), __fmul_rn(f.w, by));
}

static __device__ __forceinline__ float4 folded(float4 O, float4 o, float keep, float take) {
    return make_float4(fmaf(o.x, take, __fmul_rn(O.x, keep)), fmaf(o.y, take, __fmul_rn(O.y, keep)),
                       fmaf(o.z, take, __fmul_rn(O.z, keep)), fmaf(o.w, take, __fmul_rn(O.w, keep)));
}

/* What a thread keeps of each of its four rows between blocks; M and L of the splits before lie in shared memory. */
struct vec_state {
    int pos; /* of the row, as if it were causal */
    float m, l;
};

/* A split, keys [begin, begin + SPLIT), ends for one row; ML: its M and L, shared by its 16 threads; last: its last split.
 * vec: of the sequence. */
template <int C4>
static __device__ __forceinline__ void end_split(vec_state &u, float4 o[C4], const attn &t, float *ML, const tile_at &at, int vec,
                                                 int begin, bool last) {
    const int x = static_cast<int>(threadIdx.x) % 16, lo = lo_of(t, u.pos), hi = hi_of(t, u.pos, at.rows.len);
    const bool had = lo < begin && lo < hi, seen = lo < begin + SPLIT && hi > begin && lo < hi;
    float M = u.m, L = u.l, keep = 1, take = 0;
    if (had) {
        M = ML[0];
        L = ML[1];
        if (seen) fold(M, L, u.m, u.l, &keep, &take);
    }
    __syncwarp();
    if (seen && x == 0) {
        ML[0] = M;
        ML[1] = L;
    }
    __syncwarp();
    const float inv = inverse(L);
    float *y = t.a.y + (at.rows.from + vec / t.group) * t.a.y_ld +
               (static_cast<int>(blockIdx.y) * t.group + vec % t.group) * static_cast<int64_t>(t.a.hd);
#pragma unroll
    for (int i = 0; i < C4; i++) {
        const int part = x + 16 * i;
        if (vec < at.rows.n * t.group && part < t.parts && (seen || last)) {
            float4 f = o[i];
            if (had) {
                f = get4(t, y, part * 4);
                if (seen) f = folded(f, o[i], keep, take);
            }
            put4(t, y, part * 4, last ? scaled(f, inv) : f);
        }
        o[i] = make_float4(0, 0, 0, 0);
    }
    u.m = -INFINITY;
    u.l = 0;
}

template <int C4> static __global__ void __launch_bounds__(256, C4 <= 2 ? 2 : 1) tile_kernel(const attn t) {
    SHARED(float, room);
    if (blockIdx.x == 0 && blockIdx.y == 0) check_all(t);
    tile_at at;
    if (!find_tile(t, static_cast<int>(gridDim.x - 1 - blockIdx.x), &at)) return; /* the last, often longest, first */
    const int kvh = static_cast<int>(blockIdx.y), x = static_cast<int>(threadIdx.x) % 16, row = static_cast<int>(threadIdx.x) / 16 * 4;
    float *qs = room, *ks = qs + t.vecs * t.ld, *vs = t.one ? ks : ks + BLOCK * t.ld, *p = vs + BLOCK * t.ld;
    float *ps = p + row * P_LD, *ML = p + t.vecs * P_LD + row * 2;
    const int n = at.rows.n * t.group, last_vec = min(at.first + t.vecs, n) - 1;
    vec_state u[4];
    float4 o[4][C4];
#pragma unroll
    for (int r = 0; r < 4; r++) { /* those past the tile's last do what the last one does, and leave nothing */
        u[r] = {at.rows.len - at.rows.n + min(at.first + row + r, n - 1) / t.group, -INFINITY, 0};
#pragma unroll
        for (int i = 0; i < C4; i++) o[r][i] = make_float4(0, 0, 0, 0);
    }
    /* What any row of the tile sees, and what all of them see. */
    keys_of k = keys_at(t, at.s, at.rows, kvh);
    int all_lo, all_hi;
    sees(t, at.rows, at.first / t.group, &k.from, &all_hi);
    sees(t, at.rows, last_vec / t.group, &all_lo, &k.to);
    const int begin = k.from / BLOCK * BLOCK, end = k.from < k.to ? k.to : begin;

    bring_queries(t, qs, at, kvh);
    block_pages now = pages_at(t, k, begin);
    if (begin < end) bring(t, ks, k.k, k.k_tok, k, now, begin);
    cu_cp_commit();
    for (int base = begin; base < end; base += BLOCK) {
        const bool more = base + BLOCK < end;
        cu_cp_wait<0>();
        __syncthreads();
        if (!t.one) bring(t, vs, k.v, k.v_tok, k, now, base);
        cu_cp_commit();
        const block_pages next = pages_at(t, k, base + BLOCK);
        float s[4][4], c[4];
        scores(s, t, qs + row * t.ld, ks + x * t.ld);
        __syncthreads();
        if (t.one)
            bring(t, vs, k.v, k.v_tok, k, now, base);
        else if (more)
            bring(t, ks, k.k, k.k_tok, k, next, base + BLOCK);
        cu_cp_commit();
        int lo[4], hi[4];
#pragma unroll
        for (int r = 0; r < 4; r++) {
            lo[r] = max(lo_of(t, u[r].pos) - base, 0);
            hi[r] = min(hi_of(t, u[r].pos, at.rows.len) - base, static_cast<int>(BLOCK));
            c[r] = soften(s[r], ps + r * P_LD, x, lo[r], hi[r], u[r].m, u[r].l);
#pragma unroll
            for (int i = 0; i < C4; i++) o[r][i] = scaled(o[r][i], c[r]);
        }
        if (t.one)
            cu_cp_wait<0>();
        else
            cu_cp_wait<1>();
        __syncthreads();
        if (base >= all_lo && base + BLOCK <= all_hi)
            mix<C4, false>(o, t, ps, vs, x, lo, hi);
        else
            mix<C4, true>(o, t, ps, vs, x, lo, hi);
        if (t.one && more) {
            __syncthreads();
            bring(t, ks, k.k, k.k_tok, k, next, base + BLOCK);
            cu_cp_commit();
        }
        now = next;
        if (more && (base + BLOCK) % SPLIT == 0)
#pragma unroll
            for (int r = 0; r < 4; r++)
                end_split<C4>(u[r], o[r], t, ML + 2 * r, at, at.first + row + r, base / SPLIT * SPLIT, false);
    }
    const int split = (end > begin ? (end - 1) / SPLIT : 0) * SPLIT;
#pragma unroll
    for (int r = 0; r < 4; r++) end_split<C4>(u[r], o[r], t, ML + 2 * r, at, at.first + row + r, split, true);
}

/* ---- split: one row, up to NV heads of its group; CT threads share out the columns, CC each ---- */

/* Scratch: o [units, heads, splits, hd], then (m, l) [units, heads, splits, 2]. A unit is a row, or a sequence of one. */
static __device__ __forceinline__ int64_t scratch_at(const attn &t, int unit, int head, int split) {
    return (static_cast<int64_t>(unit) * t.a.heads + head) * t.splits + split;
}

static __device__ __forceinline__ float *scratch_ml(const attn &t, int64_t at) {
    return static_cast<float *>(t.a.scratch) + static_cast<int64_t>(t.a.n_seqs) * t.a.heads * t.splits * t.a.hd + at * 2;
}

/* Scores of 64 keys: two threads a key, which take turns at vectors. */
template <int NV> static __device__ __forceinline__ void split_scores(const attn &t, float *p, const float *q, const float *k) {
    const int j = static_cast<int>(threadIdx.x) % BLOCK, half = static_cast<int>(threadIdx.x) / BLOCK;
    const int MINE = (NV + 1) / 2;
    float s[MINE];
    if (NV == 1 && half) return;
#pragma unroll
    for (int i = 0; i < MINE; i++) s[i] = 0;
#pragma unroll(NV <= 2 ? 4 : NV <= 4 ? 2 : 1)
    for (int d = 0; d < t.parts; d++) {
        const float4 f = load4(k + j * t.ld + d * 4);
#pragma unroll
        for (int i = 0; i < MINE; i++) s[i] = dot4(load4(q + (half + 2 * i) * t.ld + d * 4), f, s[i]);
    }
#pragma unroll
    for (int i = 0; i < MINE; i++) p[(half + 2 * i) * P_LD + j] = __fmul_rn(s[i], t.a.scale);
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
template <int NV, int CT, int CC>
static __device__ __forceinline__ void split_mix(split_sum<NV, CT, CC> &sum, const attn &t, const float *p, const float *c,
                                                 const float *v, int lo, int hi) {
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
        for (int e = 0; e < CC; e++) f[e] = v[j * t.ld + col[e]];
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
template <int NV, int CT, int CC>
static __device__ __forceinline__ void run_split(split_sum<NV, CT, CC> &sum, float *m, float *l, const attn &t, const split_room &room,
                                                 const keys_of &k, int begin, int end) {
    const int warp = static_cast<int>(threadIdx.x) / 32, first = begin / BLOCK * BLOCK;
    block_pages now = pages_at(t, k, first);
    bring(t, room.k, k.k, k.k_tok, k, now, first);
    cu_cp_commit();
    for (int base = first; base < end; base += BLOCK) {
        const bool more = base + BLOCK < end;
        const int lo = max(begin - base, 0), hi = min(end - base, static_cast<int>(BLOCK));
        cu_cp_wait<0>();
        __syncthreads();
        if (!t.one) bring(t, room.v, k.v, k.v_tok, k, now, base);
        cu_cp_commit();
        const block_pages next = pages_at(t, k, base + BLOCK);
        split_scores<NV>(t, room.p, room.q, room.k);
        __syncthreads();
        if (t.one)
            bring(t, room.v, k.v, k.v_tok, k, now, base);
        else if (more)
            bring(t, room.k, k.k, k.k_tok, k, next, base + BLOCK);
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
        split_mix<NV, CT, CC>(sum, t, room.p, room.c, room.v, lo, hi);
        if (t.one && more) {
            __syncthreads();
            bring(t, room.k, k.k, k.k_tok, k, next, base + BLOCK);
            cu_cp_commit();
        }
        now = next;
    }
    __syncthreads(); /* before somebody brings the next split */
}

/* Leaves a split's sums in scratch, or, when it is the only one there can be, the result in y. */
template <int NV, int CT, int CC>
static __device__ __forceinline__ void leave_split(split_sum<NV, CT, CC> &sum, const float *m, const float *l, const attn &t,
                                                   const split_room &room, int row, int unit, int head0, int n, int split) {
    typedef split_sum<NV, CT, CC> S;
    const int warp = static_cast<int>(threadIdx.x) / 32, vg = static_cast<int>(threadIdx.x) / CT, c0 = static_cast<int>(threadIdx.x) % CT;
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
    float *to = alone ? t.a.y + row * t.a.y_ld + (head0 + vg) * hd
                      : static_cast<float *>(t.a.scratch) + scratch_at(t, unit, head0 + vg, split) * hd;
#pragma unroll
    for (int i = 0; i < S::MINE; i++, to += step) {
        const int vec = vg + S::VG * i;
        if (vec >= n) break;
        const float by = alone ? room.c[vec] : 1.0f;
#pragma unroll
        for (int e = 0; e < CC; e++)
            if (c0 + e * CT < t.a.hd) to[c0 + e * CT] = __fmul_rn(sum.o[i][e], by);
    }
}

/* Block (sequence, kv head and chunk of its group, which of the splits: z, z + gridDim.z, ...) */
template <int NV, int CT, int CC> static __global__ void __launch_bounds__(SPLIT_THREADS, NV <= 4 ? 4 : 2) split_kernel(const attn t) {
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
    room.v = t.one ? room.k : room.k + BLOCK * t.ld;
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
        for (int split = first; split * SPLIT < k.to || (empty && split == first); split += static_cast<int>(gridDim.z)) {
            split_sum<NV, CT, CC> sum = {};
            float m[(NV + 3) / 4], l[(NV + 3) / 4];
#pragma unroll
            for (int v = 0; v < (NV + 3) / 4; v++) m[v] = -INFINITY, l[v] = 0;
            const int begin = max(k.from, split * SPLIT), end = min(k.to, (split + 1) * SPLIT);
            if (!empty) run_split<NV, CT, CC>(sum, m, l, t, room, k, begin, end);
            leave_split<NV, CT, CC>(sum, m, l, t, room, row, unit, head0, n, split);
            if (empty) break;
        }
        __syncthreads();
    }
}

/* Folds a row's splits, a block for each head. */
static __global__ void __launch_bounds__(MAX_HD) combine_kernel(const attn t) {
    const int s = static_cast<int>(blockIdx.x), head = static_cast<int>(blockIdx.y), d = static_cast<int>(threadIdx.x);
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
        t.a.y[row * t.a.y_ld + head * static_cast<int64_t>(t.a.hd) + d] = __fmul_rn(O, inverse(L));
    }
}

/* ---- launching ---- */

static int64_t most_keys(const cuk_attn *a) {
    return a->pages ? static_cast<int64_t>(a->pages_ld) * PAGE : a->n_keys;
}

size_t cuk_attn_scratch(const cuk_attn *a) {
    const int64_t splits = (most_keys(a) + SPLIT - 1) / SPLIT;
    if (splits <= 1 || (!a->pages && a->n_rows > a->n_seqs) || (a->n_seqs == 1 && a->n_rows > 1)) return 0;
    return static_cast<size_t>(static_cast<int64_t>(a->n_seqs) * a->heads * splits * (a->hd + 2)) * sizeof(float);
}

template <class K> static void launch(K kernel, int *allowed, dim3 grid, int threads, size_t shared, cuk_stream s, const attn &t) {
    if (shared > (48 << 10) && static_cast<int>(shared) > *allowed) {
        cu_allow_shared(kernel, static_cast<int>(shared));
        *allowed = static_cast<int>(shared);
    }
    cu_launch(kernel, grid, dim3(static_cast<unsigned>(threads)), shared, s, t);
}

static size_t tile_shared(const attn &t) {
    return static_cast<size_t>((t.vecs + (t.one ? BLOCK : 2 * BLOCK)) * t.ld + t.vecs * (P_LD + 2)) * sizeof(float);
}

template <int C4> static void launch_tile(cuk_stream s, const attn &t) {
    static int allowed;
    const int64_t most = static_cast<int64_t>(t.a.n_rows) * t.group / t.vecs + t.a.n_seqs;
    launch(tile_kernel<C4>, &allowed, dim3(static_cast<unsigned>(most), static_cast<unsigned>(t.a.kv_heads)), t.vecs * 4,
           tile_shared(t), s, t);
}

static void run_tiles(cuk_stream s, attn t) {
    static const struct {
        int vecs;
        bool one;
    } ways[] = {{64, false}, {32, false}, {32, true}, {16, true}};
    for (int i = 0; i < 4; i++) {
        t.vecs = ways[i].vecs;
        t.one = ways[i].one;
        if (tile_shared(t) <= SMALL_SHARED) break;
    }
    if (t.parts <= 16)
        launch_tile<1>(s, t);
    else if (t.parts <= 32)
        launch_tile<2>(s, t);
    else
        launch_tile<4>(s, t);
}

template <int NV, int CT, int CC> static void launch_split(cuk_stream s, attn t) {
    static int allowed;
    t.vecs = NV;
    t.chunks = (t.group + NV - 1) / NV;
    const int fixed = NV * (t.ld + P_LD) + 16, need = (fixed + 2 * BLOCK * t.ld) * static_cast<int>(sizeof(float));
    t.one = need > SMALL_SHARED;
    const int64_t others = static_cast<int64_t>(t.a.n_seqs) * t.a.kv_heads * t.chunks, share = (WANTED_BLOCKS + others - 1) / others;
    const dim3 grid(static_cast<unsigned>(t.a.n_seqs), static_cast<unsigned>(t.a.kv_heads * t.chunks),
                    static_cast<unsigned>(share < t.splits ? share : t.splits));
    launch(split_kernel<NV, CT, CC>, &allowed, grid, SPLIT_THREADS,
           static_cast<size_t>(fixed + (t.one ? 1 : 2) * BLOCK * t.ld) * sizeof(float), s, t);
}

template <int NV> static void split_columns(cuk_stream s, const attn &t) {
    if (t.a.hd <= 64)
        launch_split<NV, 64, 1>(s, t);
    else if (t.a.hd <= 128)
        launch_split<NV, 128, 1>(s, t);
    else
        launch_split<NV, 128, 2>(s, t);
}

static void run_splits(cuk_stream s, const attn &t) {
    if (t.group == 1)
        split_columns<1>(s, t);
    else if (t.group == 2)
        split_columns<2>(s, t);
    else if (t.group <= 4)
        split_columns<4>(s, t);
    else if (t.group <= 8)
        split_columns<8>(s, t);
    else
        split_columns<16>(s, t);
    if (t.splits > 1)
        cu_launch(combine_kernel, dim3(static_cast<unsigned>(t.a.n_seqs), static_cast<unsigned>(t.a.heads)),
                  dim3((static_cast<unsigned>(t.a.hd) + 31) / 32 * 32), 0, s, t);
}

void cuk_attention(cuk_stream s, const cuk_attn *a) {
    if (a->n_rows <= 0 || a->n_seqs <= 0 || a->heads <= 0 || a->hd <= 0 || a->hd > MAX_HD) return;
    attn t = {};
    t.a = *a;
    t.group = a->heads / a->kv_heads;
    t.chunks = 1;
    t.parts = (a->hd + 3) / 4;
    t.ld = (t.parts | 1) * 4; /* an odd number of groups: keys lie in different banks */
    while (1 << t.shift < t.parts) t.shift++;
    const int64_t splits = (most_keys(a) + SPLIT - 1) / SPLIT;
    t.splits = splits < 1 ? 1 : static_cast<int>(splits);
    const bool by_four = a->hd % 4 == 0;
    t.wide = by_four && cu_wide(a->k, a->pages ? 0 : a->k_ld) && cu_wide(a->v, a->pages ? 0 : a->v_ld);
    t.wide_y = by_four && cu_wide(a->y, a->y_ld);
    /* Rows alone go to the split kernel, unless its scratch is missing; the bits are the same. */
    const size_t want = cuk_attn_scratch(a);
    const bool can_split = want <= a->scratch_bytes && (want == 0 || a->scratch);
    t.serve = ALL_ROWS;
    if (can_split && a->n_rows <= a->n_seqs) {
        run_splits(s, t);
    } else if (can_split && a->pages && a->n_seqs > 1) {
        t.serve = ROWS_TOGETHER;
        run_tiles(s, t);
        t.serve = ROWS_ALONE;
        run_splits(s, t);
    } else {
        run_tiles(s, t);
    }
}
