/* attn.cu - attention over pages or dense rows: many rows of a sequence, and the choice of the kernel. See cuk.h, and
 * attn.cuh for the arithmetic.
 *
 * A block takes a tile of vectors (16, 32 or 64 by head size) of one sequence and kv head through all keys that any of
 * them sees; between splits the sum O lies in y. It keeps one block of K and one of V in shared memory: V comes while
 * scores are made, the next K while V is summed. The grid is sized by what the host knows: rows and sequences.
 * Threads: the engine's launch. Owner: nothing. Tested by tests/kernels/test_ops_attn.c. */
#include "kernels/cuda/attn.cuh"

/* ---- tile: 16 threads a row of four vectors; thread x of them has keys x, x + 16, ... and columns 4x, 4x + 64,
 * ... ---- */

/* Keys or values as they come: of 16 bits spread out, so that widen can make f32 of them where they lie. */
static __device__ __forceinline__ void bring_block(const attn &t, float *to, const void *src, int64_t tok, const keys_of &k,
                                                   const block_pages &b, int base) {
    if (is_narrow(t))
        bring_narrow(t, to, t.ld * 4, 32, src, tok, k, b, base);
    else
        bring(t, to, src, tok, k, b, base);
}

/* By the thread that brought them, once they are there; before the barrier. */
static __device__ __forceinline__ void widen_block(const attn &t, float *block) {
    if (!is_narrow(t)) return;
    const int shift = t.shift - 1, mask = (1 << shift) - 1;
    for (int i = static_cast<int>(threadIdx.x); i < BLOCK << shift; i += static_cast<int>(blockDim.x)) {
        const int u = i & mask;
        if (u >= t.parts / 2) continue;
        float4 *const at = reinterpret_cast<float4 *>(block + (i >> shift) * t.ld + u * 8);
        float4 a, b;
        widen8(t.a.kept, *reinterpret_cast<const uint4 *>(at), &a, &b);
        at[0] = a;
        at[1] = b;
    }
}

/* Vectors first .. of the tile into q, [vecs][ld], zeros past the last and behind hd. */
static __device__ void bring_queries(const attn &t, float *q, const tile_at &at, int kvh) {
    const cuk_attn &a = t.a;
    const int n = at.rows.n * t.group - at.first, width = t.parts * 4;
    for (int v = static_cast<int>(threadIdx.x) / 16; v < t.vecs; v += static_cast<int>(blockDim.x) / 16) {
        const int u = at.first + v;
        const float *src = a.q + (at.rows.from + u / t.group) * a.q_ld +
                           (kvh * t.group + u % t.group) * static_cast<int64_t>(a.hd);
        for (int d = static_cast<int>(threadIdx.x) % 16; d < width; d += 16)
            q[v * t.ld + d] = v < n && d < a.hd ? src[d] : 0.0f;
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
        for (int c = 0; c < 4; c++) s[r][c] = score_of(t, s[r][c]);
}

/* One row's 64 scores become weights in p; m, l move on; returns c. lo, hi: relative to the block. */
static __device__ __forceinline__ float soften(const float s[4], float *p, int x, int lo, int hi, float &m,
                                               float &l) {
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
static __device__ __forceinline__ void mix(float4 o[4][C4], const attn &t, const float *p, const float *v,
                                           int x, const int lo[4], const int hi[4]) {
    int col[C4]; /* threads past the last column do the last one again */
#pragma unroll
    for (int i = 0; i < C4; i++) col[i] = min(x + 16 * i, t.parts - 1) * 4;
    const int STEP = MASKED ? 1 : 4; /* the rarer one takes fewer registers */
#pragma unroll 1
    for (int j = 0; j < BLOCK; j += STEP) {
        float w[4][4];
#pragma unroll
        for (int r = 0; r < 4; r++) {
            if (MASKED) {
                w[r][0] = p[r * P_LD + j];
                continue;
            }
            const float4 f = load4(p + r * P_LD + j);
            w[r][0] = f.x, w[r][1] = f.y, w[r][2] = f.z, w[r][3] = f.w;
        }
#pragma unroll
        for (int e = 0; e < STEP; e++)
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
    return make_float4(y[col], col + 1 < t.a.hd ? y[col + 1] : 0, col + 2 < t.a.hd ? y[col + 2] : 0,
                       col + 3 < t.a.hd ? y[col + 3] : 0);
}

static __device__ __forceinline__ float4 scaled(float4 f, float by) {
    return make_float4(__fmul_rn(f.x, by), __fmul_rn(f.y, by), __fmul_rn(f.z, by), __fmul_rn(f.w, by));
}

static __device__ __forceinline__ float4 folded(float4 O, float4 o, float keep, float take) {
    return make_float4(fmaf(o.x, take, __fmul_rn(O.x, keep)), fmaf(o.y, take, __fmul_rn(O.y, keep)),
                       fmaf(o.z, take, __fmul_rn(O.z, keep)), fmaf(o.w, take, __fmul_rn(O.w, keep)));
}

/* What a thread keeps of each of its four rows between blocks; M and L of the splits before, and the keys [lo, hi) that
 * the row sees, lie in shared memory. */
struct vec_state {
    float m, l;
};

/* A split, keys [begin, begin + SPLIT), ends for one row; ML: its M and L, shared by its 16 threads; last: its last
 * split. see: its lo and hi. vec: of the sequence. */
template <int C4>
static __device__ __forceinline__ void end_split(vec_state &u, float4 o[C4], const attn &t, float *ML,
                                                 const int *see, const tile_at &at, int vec, int begin, bool last) {
    const int x = static_cast<int>(threadIdx.x) % 16, lo = see[0], hi = see[1];
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
    float *y = static_cast<float *>(t.a.y) + (at.rows.from + vec / t.group) * t.a.y_ld +
               (static_cast<int>(blockIdx.y) * t.group + vec % t.group) * static_cast<int64_t>(t.a.hd);
#pragma unroll
    for (int i = 0; i < C4; i++) {
        const int part = x + 16 * i;
        if (vec < at.rows.n * t.group && part * 4 < t.a.hd && (seen || last)) {
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
    if (!find_tile(t, static_cast<int>(gridDim.x - 1 - blockIdx.x), &at))
        return; /* the last, often longest, first */
    const int kvh = static_cast<int>(blockIdx.y), x = static_cast<int>(threadIdx.x) % 16,
              row = static_cast<int>(threadIdx.x) / 16 * 4;
    float *qs = room, *ks = qs + t.vecs * t.ld, *vs = t.one ? ks : ks + BLOCK * t.ld, *p = vs + BLOCK * t.ld;
    float *ps = p + row * P_LD, *ML = p + t.vecs * P_LD + row * 2;
    int *see = reinterpret_cast<int *>(p + t.vecs * (P_LD + 2)) + row * 2;
    const int n = at.rows.n * t.group, last_vec = min(at.first + t.vecs, n) - 1;
    vec_state u[4];
    float4 o[4][C4];
    /* Those past the tile's last do what the last one does, and leave nothing. */
#pragma unroll
    for (int r = 0; r < 4; r++) {
        u[r] = {-INFINITY, 0};
        if (x == r) sees(t, at.rows, min(at.first + row + r, n - 1) / t.group, &see[2 * r], &see[2 * r + 1]);
#pragma unroll
        for (int i = 0; i < C4; i++) o[r][i] = make_float4(0, 0, 0, 0);
    }
    __syncwarp(); /* of what they see */
    keys_of k = keys_at(t, at.s, at.rows, kvh);
    int all_lo, all_hi;
    range_of(t, at, last_vec, &k, &all_lo, &all_hi);
    const int begin = k.from / BLOCK * BLOCK, end = k.from < k.to ? k.to : begin;

    bring_queries(t, qs, at, kvh);
    if (begin < end) bring_block(t, ks, k.k, k.k_tok, k, pages_at(t, k, begin), begin);
    cu_cp_commit();
    for (int base = begin; base < end; base += BLOCK) {
        const bool more = base + BLOCK < end;
        cu_cp_wait<0>();
        widen_block(t, ks);
        __syncthreads();
        if (!t.one) bring_block(t, vs, k.v, k.v_tok, k, pages_at(t, k, base), base);
        cu_cp_commit();
        const block_pages next = pages_at(t, k, base + BLOCK); /* early: what they name is asked for soon */
        float s[4][4], c[4];
        scores(s, t, qs + row * t.ld, ks + x * t.ld);
        __syncthreads();
        if (t.one)
            bring_block(t, vs, k.v, k.v_tok, k, pages_at(t, k, base), base);
        else if (more)
            bring_block(t, ks, k.k, k.k_tok, k, next, base + BLOCK);
        cu_cp_commit();
        int lo[4], hi[4];
#pragma unroll
        for (int r = 0; r < 4; r++) {
            lo[r] = max(see[2 * r] - base, 0);
            hi[r] = min(see[2 * r + 1] - base, static_cast<int>(BLOCK));
            c[r] = soften(s[r], ps + r * P_LD, x, lo[r], hi[r], u[r].m, u[r].l);
#pragma unroll
            for (int i = 0; i < C4; i++) o[r][i] = scaled(o[r][i], c[r]);
        }
        if (t.one)
            cu_cp_wait<0>();
        else
            cu_cp_wait<1>();
        widen_block(t, vs);
        __syncthreads();
        if (base >= all_lo && base + BLOCK <= all_hi)
            mix<C4, false>(o, t, ps, vs, x, lo, hi);
        else
            mix<C4, true>(o, t, ps, vs, x, lo, hi);
        if (t.one && more) {
            __syncthreads();
            bring_block(t, ks, k.k, k.k_tok, k, next, base + BLOCK);
            cu_cp_commit();
        }
        if (more && (base + BLOCK) % SPLIT == 0)
#pragma unroll
            for (int r = 0; r < 4; r++)
                end_split<C4>(u[r], o[r], t, ML + 2 * r, see + 2 * r, at, at.first + row + r, base / SPLIT * SPLIT, false);
    }
    const int split = (end > begin ? (end - 1) / SPLIT : 0) * SPLIT;
#pragma unroll
    for (int r = 0; r < 4; r++)
        end_split<C4>(u[r], o[r], t, ML + 2 * r, see + 2 * r, at, at.first + row + r, split, true);
}

/* ---- launching ---- */

/* By their shape, not by where they lie: a dry run asks for scratch with nothing in memory. */
static bool is_paged(const cuk_attn *a) {
    return a->pages_ld > 0;
}

static int64_t most_keys(const cuk_attn *a) {
    return is_paged(a) ? static_cast<int64_t>(a->pages_ld) * PAGE : a->n_keys;
}

size_t cuk_attn_scratch(const cuk_attn *a) {
    const int64_t splits = (most_keys(a) + SPLIT - 1) / SPLIT;
    if (a->uniform || splits <= 1 || (!is_paged(a) && a->n_rows > a->n_seqs) || (a->n_seqs == 1 && a->n_rows > 1))
        return 0;
    return static_cast<size_t>(static_cast<int64_t>(a->n_seqs) * a->heads * splits * (a->hd + 2)) *
           sizeof(float);
}

static size_t tile_shared(const attn &t) {
    return static_cast<size_t>((t.vecs + (t.one ? BLOCK : 2 * BLOCK)) * t.ld + t.vecs * (P_LD + 4)) *
           sizeof(float);
}

template <int C4> static void launch_tile(cuk_stream s, const attn &t) {
    const int64_t most = static_cast<int64_t>(t.a.n_rows) * t.group / t.vecs + t.a.n_seqs;
    cu_launch<tile_kernel<C4>>(dim3(static_cast<unsigned>(most), static_cast<unsigned>(t.a.kv_heads)),
                               dim3(static_cast<unsigned>(t.vecs * 4)), tile_shared(t), s, t);
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

void cuk_attention(cuk_stream s, const cuk_attn *a) {
    if (a->n_rows <= 0 || a->n_seqs <= 0 || a->heads <= 0 || a->hd <= 0 || a->hd > MAX_HD) return;
    attn t = {};
    t.a = *a;
    t.group = a->heads / a->kv_heads;
    t.chunks = 1;
    const bool narrow = a->kept != CUK_F32;
    t.parts = narrow ? (a->hd + 7) / 8 * 2 : (a->hd + 3) / 4;
    t.key_ld = (t.parts / 2 | 1) * 8;
    t.ld = (t.parts | 1) * 4; /* an odd number of groups: keys lie in different banks */
    while (1 << t.shift < t.parts) t.shift++;
    const int64_t splits = (most_keys(a) + SPLIT - 1) / SPLIT;
    t.splits = splits < 1 ? 1 : static_cast<int>(splits);
    const bool by_four = a->hd % 4 == 0;
    t.wide = narrow ? a->hd % 8 == 0 && cu_wide(a->k, 0) && cu_wide(a->v, 0)
                    : by_four && cu_wide(a->k, is_paged(a) ? 0 : a->k_ld) && cu_wide(a->v, is_paged(a) ? 0 : a->v_ld);
    t.wide_q = by_four && cu_wide(a->q, a->q_ld);
    t.wide_y = by_four && cu_wide(a->y, a->y_ld, cu_size(a->left));
    void (*const together)(cuk_stream, attn) = a->precision == CUK_ATTN_EXACT ? run_tiles : attn_run_mma;
    /* Rows alone go to the split kernel, unless its scratch is missing; the bits are the same if exact. */
    const size_t want = cuk_attn_scratch(a);
    const bool can_split = !a->uniform && want <= a->scratch_bytes && (want == 0 || a->scratch);
    t.serve = ALL_ROWS;
    if (can_split && a->n_rows <= a->n_seqs) {
        attn_run_splits(s, t);
    } else if (can_split && is_paged(a) && a->n_seqs > 1) {
        t.serve = ROWS_TOGETHER;
        together(s, t);
        t.serve = ROWS_ALONE;
        attn_run_splits(s, t);
    } else {
        together(s, t);
    }
}
