/* sample.cu - a row of logits to a token, one block a row: the rules of kernels/cpu/choose.h.
 *
 * Weights are the CPU's exp to the bit, turned into integers of 2^-43 of the greatest; every sum is a sum of integers, and
 * every greatest a greatest key. So no result depends on the number of threads, on the order of atomics, or on which of the
 * ways below a row takes. Greedy reads the row once, log-probs once more.
 * Cuts read the row until what can be chosen fits in shared memory (candidates: value and id, sorted by id), and go on
 * there; a row that is too flat for that is selected from as a whole, by radix.
 * Thread: the engine's. Owner: nothing. */
#include "kernels/cuda/vecs.cuh"

#define GREEDY_BELOW 1e-5f
#define LOGPROB_MIN  -9999.0f
#define LARGEST      3.402823466e+38f
#define ONE          8796093022208.0f /* 2^43: a million weights of 1 fit into 64 bits */
#define MINUS_INF    __uint_as_float(0xff800000u)

enum {
    CANDIDATES = 2048,
    BUCKETS = 2048, /* 11 bits of a key at a time */
    PADDED = BUCKETS + BUCKETS / 32,
    STEPS = 512, /* of 1/16 below the greatest, in the exponent */
    PER_NAT = 16,
    MAX_WARPS = 32
};

struct found { /* going down from the greatest: the last bucket or value that is kept */
    unsigned at;
    unsigned above; /* how many are greater */
    uint64_t mass;  /* and their weight */
    bool any;
};

struct room { /* shared memory */
    uint64_t candidates[CANDIDATES]; /* the greater first: key and ~id, or ~id and key */
    unsigned count[PADDED], low[PADDED], high[PADDED]; /* a histogram; masses in two halves */
    float best[MAX_WARPS * 32];                        /* each thread's greatest of the row */
    uint64_t warp[MAX_WARPS + 1];
    unsigned warp_n[MAX_WARPS + 1];
    found hit;
    unsigned n; /* candidates */
};

/* What a row is read through: all of it, or the candidates. */
struct view {
    const float *row;
    const uint64_t *candidates; /* or NULL; sorted by id */
    int n;
};

/* What is kept, and how an element weighs; as choose.c: cut. */
struct cut {
    float max, inv_t, least, tie;
    int ties; /* of the elements equal to tie only the first `ties` weigh; -1: all */
};

/* ---- numbers ---- */

static __device__ __forceinline__ float clean(float v) {
    v = v == v ? v : MINUS_INF;
    return v < LARGEST ? v : LARGEST;
}

static __device__ __forceinline__ unsigned key_of(float v) {
    const unsigned u = __float_as_uint(v + 0.0f);
    return u & 0x80000000u ? ~u : u | 0x80000000u;
}

static __device__ __forceinline__ float value_of(unsigned key) {
    return __uint_as_float(key & 0x80000000u ? key & 0x7fffffffu : ~key);
}

/* choose.c: exp_neg, operation for operation. */
static __device__ __forceinline__ float exp_neg(float y) {
    const float t = y > -87.0f ? y : -87.0f;
    const float shifted = __fadd_rn(__fmul_rn(t, 1.44269504f), 12582912.0f), k = __fadd_rn(shifted, -12582912.0f);
    float r = __fadd_rn(t, -__fmul_rn(k, 0.693359375f));
    r = __fadd_rn(r, __fmul_rn(k, 2.12194440e-4f));
    float p = 1.0f / 5040;
    p = __fadd_rn(__fmul_rn(p, r), 1.0f / 720);
    p = __fadd_rn(__fmul_rn(p, r), 1.0f / 120);
    p = __fadd_rn(__fmul_rn(p, r), 1.0f / 24);
    p = __fadd_rn(__fmul_rn(p, r), 1.0f / 6);
    p = __fadd_rn(__fmul_rn(p, r), 0.5f);
    p = __fadd_rn(__fmul_rn(p, r), 1.0f);
    p = __fadd_rn(__fmul_rn(p, r), 1.0f);
    p = __fmul_rn(p, __uint_as_float(static_cast<unsigned>(static_cast<int>(k) + 127) << 23));
    return y > -87.0f ? p : 0.0f;
}

static __device__ __forceinline__ uint64_t fixed(float weight) {
    return static_cast<uint64_t>(__fmul_rn(weight, ONE));
}

/* Ties not looked at. */
static __device__ __forceinline__ uint64_t weigh(const cut &c, float v) {
    return v >= c.least ? fixed(exp_neg(__fmul_rn(__fadd_rn(v, -c.max), c.inv_t))) : 0;
}

static __device__ __forceinline__ float at(const view &x, int i) {
    return x.candidates ? value_of(static_cast<unsigned>(x.candidates[i])) : clean(x.row[i]);
}

static __device__ __forceinline__ int id_of(const view &x, int i) {
    return x.candidates ? static_cast<int>(~static_cast<unsigned>(x.candidates[i] >> 32)) : i;
}

/* Philox4x32-10, as choose.c; uniform in [0, 1) with 53 bits. */
static __device__ double uniform(const cuk_choice &h) {
    unsigned c0 = h.position, c1 = h.choice, c2 = 0, c3 = 0, k0 = h.seed_lo, k1 = h.seed_hi;
    for (int round = 0; round < 10; round++) {
        const unsigned h0 = __umulhi(0xD2511F53u, c0), h1 = __umulhi(0xCD9E8D57u, c2), l0 = 0xD2511F53u * c0, l1 = 0xCD9E8D57u * c2;
        c0 = h1 ^ c1 ^ k0;
        c2 = h0 ^ c3 ^ k1;
        c1 = l1;
        c3 = l0;
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    return (static_cast<double>(c0 >> 5) * 67108864.0 + static_cast<double>(c1 >> 6)) * 1.1102230246251565e-16;
}

/* ---- blocks ---- */

static __device__ __forceinline__ uint64_t larger(uint64_t a, uint64_t b) {
    return a > b ? a : b;
}

static __device__ uint64_t block_max(room *s, uint64_t v) {
    for (int d = 16; d > 0; d >>= 1) v = larger(v, __shfl_xor_sync(FULL_MASK, v, d));
    if (threadIdx.x % 32 == 0) s->warp[threadIdx.x / 32] = v;
    __syncthreads();
    v = 0;
    for (unsigned w = 0; w < blockDim.x / 32; w++) v = larger(v, s->warp[w]);
    __syncthreads();
    return v;
}

static __device__ __forceinline__ uint64_t warp_sum(uint64_t v) {
    for (int d = 16; d > 0; d >>= 1) v += __shfl_xor_sync(FULL_MASK, v, d);
    return v;
}

static __device__ uint64_t block_sum(room *s, uint64_t v) {
    v = warp_sum(v);
    if (threadIdx.x % 32 == 0) s->warp[threadIdx.x / 32] = v;
    __syncthreads();
    v = 0;
    for (unsigned w = 0; w < blockDim.x / 32; w++) v += s->warp[w];
    __syncthreads();
    return v;
}

/* Greatest value and lowest id of it, as key and ~id. own: this thread's greatest value, or NULL. */
static __device__ uint64_t greatest(room *s, const view &x, float *own) {
    unsigned key = 0, id = 0xffffffffu;
#pragma unroll 4
    for (int i = threadIdx.x; i < x.n; i += blockDim.x) {
        const unsigned k = key_of(at(x, i));
        if (k > key) {
            key = k;
            id = i;
        }
    }
    if (own) *own = key ? value_of(key) : MINUS_INF;
    return block_max(s, static_cast<uint64_t>(key) << 32 | static_cast<unsigned>(~id));
}

static __device__ uint64_t mass_of(room *s, const view &x, const cut &c) {
    uint64_t sum = 0;
#pragma unroll 4
    for (int i = threadIdx.x; i < x.n; i += blockDim.x) sum += weigh(c, at(x, i));
    return block_sum(s, sum);
}

/* ---- histograms: integers, so that the order of atomics is nobody's business ---- */

static __device__ __forceinline__ int bucket(int b) { /* a step aside every 32, for a warp that reads 32 apart */
    return b + b / 32;
}

static __device__ void clear(room *s) {
    for (int i = threadIdx.x; i < PADDED; i += blockDim.x) s->count[i] = s->low[i] = s->high[i] = 0;
    __syncthreads();
}

static __device__ __forceinline__ void add_mass(room *s, int b, uint64_t mass) {
    const unsigned low = static_cast<unsigned>(mass), old = atomicAdd(&s->low[b], low);
    const unsigned high = static_cast<unsigned>(mass >> 32) + (old + low < old);
    if (high) atomicAdd(&s->high[b], high);
}

static __device__ __forceinline__ uint64_t mass_at(const room *s, int b) {
    return static_cast<uint64_t>(s->high[b]) << 32 | s->low[b];
}

template <class T> static __device__ __forceinline__ T warp_before(T v) { /* the sum of the lanes before */
    const int lane = threadIdx.x % 32;
    T sum = v;
    for (int d = 1; d < 32; d <<= 1) {
        const T other = __shfl_up_sync(FULL_MASK, sum, d);
        if (lane >= d) sum += other;
    }
    return sum - v;
}

/* The bucket, from the highest down, where the count reaches want_n or (want_n 0) the mass reaches want; start: what lies
 * above the histogram. By the first warp, 64 buckets a lane; everybody gets the answer. */
static __device__ found walk(room *s, unsigned want_n, uint64_t want, found start) {
    __syncthreads();
    if (threadIdx.x < 32) {
        enum { EACH = BUCKETS / 32 };
        const int top = BUCKETS - 1 - static_cast<int>(threadIdx.x) * EACH;
        unsigned n = 0;
        uint64_t mass = 0;
        for (int j = 0; j < EACH; j++) {
            n += s->count[bucket(top - j)];
            mass += mass_at(s, bucket(top - j));
        }
        found f = start;
        f.above += warp_before(n);
        f.mass += warp_before(mass);
        const bool mine = want_n ? f.above < want_n && f.above + n >= want_n : f.mass < want && f.mass + mass >= want;
        const unsigned who = __ballot_sync(FULL_MASK, mine);
        if (threadIdx.x == 0 && !who) s->hit.any = false;
        if (mine) {
            for (int b = top;; b--) {
                const unsigned here = s->count[bucket(b)];
                const uint64_t weight = mass_at(s, bucket(b));
                f.at = b;
                if (want_n ? f.above + here >= want_n : f.mass + weight >= want) break;
                f.above += here;
                f.mass += weight;
            }
            f.any = true;
            s->hit = f;
        }
    }
    __syncthreads();
    const found f = s->hit;
    __syncthreads();
    return f;
}

/* The value where the count (want_n) or the mass (want) is reached among those from c.least up: radix selection by the key's
 * bits 11, 11, 10. at: the value's key. */
static __device__ found select_down(room *s, const view &x, const cut &c, unsigned want_n, uint64_t want) {
    found f = {0, 0, 0, false};
    unsigned key = 0, mask = 0;
    for (int pass = 0; pass < 3; pass++) {
        const int shift = pass == 0 ? 21 : pass == 1 ? 10 : 0;
        const unsigned in = pass == 2 ? 1023 : 2047;
        clear(s);
        for (int i = threadIdx.x; i < x.n; i += blockDim.x) {
            const float v = at(x, i);
            const unsigned k = key_of(v);
            if (v < c.least || (k & mask) != key) continue;
            const int b = bucket(k >> shift & in);
            atomicAdd(&s->count[b], 1u);
            if (!want_n) add_mass(s, b, weigh(c, v));
        }
        f = walk(s, want_n, want, f);
        if (!f.any) return f;
        key |= f.at << shift;
        mask |= in << shift;
    }
    f.at = key;
    return f;
}

/* ---- candidates ---- */

/* Bitonic, the greatest first; n a power of two. */
static __device__ void sort(uint64_t *a, int n) {
    for (int k = 2; k <= n; k *= 2)
        for (int j = k / 2; j > 0; j /= 2) {
            for (int i = threadIdx.x; i < n; i += blockDim.x) {
                const int o = i ^ j;
                if (o < i) continue;
                const uint64_t p = a[i], q = a[o];
                if ((p < q) == ((i & k) == 0)) {
                    a[i] = q;
                    a[o] = p;
                }
            }
            __syncthreads();
        }
}

/* Elements from `least` up into s->candidates, sorted by id, or by value and then id. -1: they do not fit. */
static __device__ int gather(room *s, const view &x, float least, bool by_id) {
    if (!(least > MINUS_INF) && x.n > CANDIDATES) return -1;
    if (threadIdx.x == 0) s->n = 0;
    __syncthreads();
#pragma unroll 4
    for (int i = threadIdx.x; i < x.n; i += blockDim.x) {
        const float v = at(x, i);
        if (v < least) continue;
        const unsigned slot = atomicAdd(&s->n, 1u), key = key_of(v), id = ~static_cast<unsigned>(i);
        if (slot < CANDIDATES)
            s->candidates[slot] = by_id ? static_cast<uint64_t>(id) << 32 | key : static_cast<uint64_t>(key) << 32 | id;
    }
    __syncthreads();
    const unsigned n = s->n;
    __syncthreads();
    if (n > CANDIDATES) return -1;
    unsigned all = 1;
    while (all < n) all *= 2;
    for (unsigned i = n + threadIdx.x; i < all; i += blockDim.x) s->candidates[i] = 0;
    __syncthreads();
    sort(s->candidates, all);
    return n;
}

/* A value that at least k elements reach: the k-th greatest of what single threads saw (own). */
static __device__ float bound(room *s, float own, int k) {
    s->best[threadIdx.x] = own;
    __syncthreads();
    if (k > static_cast<int>(blockDim.x)) return MINUS_INF;
    const view all = {s->best, nullptr, static_cast<int>(blockDim.x)};
    const cut any = {0, 1, MINUS_INF, 0, -1};
    const found f = select_down(s, all, any, k, 0);
    return f.any ? value_of(f.at) : MINUS_INF;
}

/* ---- cuts ---- */

static __device__ void cut_top_k(room *s, view *x, cut *c, int k, float own) {
    if (k <= 0 || k >= x->n) return;
    c->least = bound(s, own, k);
    const int n = gather(s, *x, c->least, true);
    if (n >= 0) *x = {nullptr, s->candidates, n};
    const found f = select_down(s, *x, *c, k, 0);
    if (f.any) c->least = value_of(f.at);
}

/* The whole row's weight, and a value above which there is at least top_p of it: elements are counted in steps below the
 * greatest, and a step's weight is at least what its far end has. */
static __device__ uint64_t mass_and_bracket(room *s, const view &x, const cut &c, float *least, double top_p) {
    const float scale = __fmul_rn(PER_NAT, c.inv_t);
    uint64_t sum = 0;
    clear(s);
    for (int i = threadIdx.x; i < x.n; i += blockDim.x) {
        const float v = at(x, i), d = __fmul_rn(__fadd_rn(c.max, -v), scale);
        if (v < c.least) continue;
        sum += weigh(c, v);
        if (d < STEPS) atomicAdd(&s->count[bucket(BUCKETS - 1 - static_cast<int>(d))], 1u);
    }
    sum = block_sum(s, sum);
    for (int j = threadIdx.x; j < STEPS; j += blockDim.x) {
        const int b = bucket(BUCKETS - 1 - j);
        const uint64_t each = fixed(__fmul_rn(exp_neg(-(j + 1.0f) / PER_NAT), 0.9999f)), mass = each * s->count[b];
        s->low[b] = static_cast<unsigned>(mass);
        s->high[b] = static_cast<unsigned>(mass >> 32);
    }
    const uint64_t want = static_cast<uint64_t>(top_p * static_cast<double>(sum)) + 1;
    const found f = walk(s, 0, want, {0, 0, 0, false});
    *least = f.any ? __fadd_rn(c.max, -(static_cast<float>(BUCKETS - 1 - f.at) + 2) / scale) : MINUS_INF; /* two more steps */
    return sum;
}

static __device__ void cut_top_p(room *s, view *x, cut *c, float top_p) {
    if (!(top_p < 1)) return;
    float least = c->least;
    const double share = top_p > 0 ? top_p : 0;
    const uint64_t all = x->candidates ? mass_of(s, *x, *c) : mass_and_bracket(s, *x, *c, &least, share);
    const double exact = share * static_cast<double>(all);
    uint64_t want = static_cast<uint64_t>(exact);
    want += static_cast<double>(want) < exact || want == 0; /* top_p 0: the greatest alone */
    if (least > c->least) c->least = least;
    if (!x->candidates && c->least > MINUS_INF) {
        const int n = gather(s, *x, c->least, true);
        if (n >= 0) *x = {nullptr, s->candidates, n};
    }
    const found f = select_down(s, *x, *c, 0, want);
    if (!f.any) return;
    const float value = value_of(f.at);
    const uint64_t each = weigh(*c, value), ties = each ? (want - f.mass + each - 1) / each : 1;
    c->tie = c->least = value;
    c->ties = ties < 1 ? 1 : ties < 0x7fffffff ? static_cast<int>(ties) : 0x7fffffff;
}

static __device__ void cut_min_p(cut *c, float min_p) {
    if (!(min_p > 0)) return;
    const double least = static_cast<double>(c->max) + log(static_cast<double>(min_p)) / static_cast<double>(c->inv_t);
    const float f = least < static_cast<double>(c->max) ? static_cast<float>(least) : c->max;
    if (f > c->least) c->least = f;
}

/* ---- the draw ---- */

struct stretch { /* of a view: elements from .. to - 1; the weight and the ties of those before */
    int from, to;
    uint64_t mass;
    unsigned ties;
};

/* Elements equal to tie are counted instead of weighed, when only some of them count. */
static __device__ __forceinline__ bool is_tie(const cut &c, float v) {
    return c.ties >= 0 && v == c.tie && v >= c.least;
}

static __device__ __forceinline__ uint64_t tie_mass(const cut &c, uint64_t each, unsigned before, unsigned n) {
    const unsigned max = c.ties < 0 ? 0 : c.ties, left = before < max ? max - before : 0;
    return each * (n < left ? n : left);
}

/* Cuts a stretch into one part a warp, and sums each: s->warp, s->warp_n. Returns a part's length. */
static __device__ int part_sums(room *s, const view &x, const cut &c, const stretch &t) {
    const int warps = blockDim.x / 32, lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const int each = ((t.to - t.from + warps - 1) / warps + 31) / 32 * 32, from = t.from + warp * each;
    const int to = from + each < t.to ? from + each : t.to;
    uint64_t mass = 0;
    unsigned ties = 0;
#pragma unroll 4
    for (int i = from + lane; i < to; i += 32) {
        const float v = at(x, i);
        if (is_tie(c, v))
            ties++;
        else
            mass += weigh(c, v);
    }
    mass = warp_sum(mass);
    for (int d = 16; d > 0; d >>= 1) ties += __shfl_xor_sync(FULL_MASK, ties, d);
    if (lane == 0) {
        s->warp[warp] = mass;
        s->warp_n[warp] = ties;
    }
    __syncthreads();
    return each;
}

/* Where in a stretch of at most a few times 32 the sum first exceeds target. By one warp. */
static __device__ int find(const view &x, const cut &c, stretch t, uint64_t target, uint64_t tie) {
    const int lane = threadIdx.x % 32;
    for (int i = t.from; i < t.to; i += 32) {
        const bool in = i + lane < t.to;
        const float v = in ? at(x, i + lane) : MINUS_INF;
        const bool ties = in && is_tie(c, v);
        const unsigned tied = __ballot_sync(FULL_MASK, ties);
        uint64_t w = in && !ties ? weigh(c, v) : 0;
        if (ties) w = tie_mass(c, tie, t.ties + __popc(tied & ((1u << lane) - 1)), 1);
        const uint64_t upto = t.mass + warp_before(w) + w;
        const unsigned over = __ballot_sync(FULL_MASK, w > 0 && upto > target);
        if (over) return i + __ffs(over) - 1;
        t.mass = __shfl_sync(FULL_MASK, upto, 31);
        t.ties += __popc(tied);
    }
    return -1;
}

/* Inverse of the cumulated weights in order of id. */
static __device__ int draw(room *s, const view &x, const cut &c, double u) {
    const int warps = blockDim.x / 32;
    const uint64_t tie = c.ties >= 0 ? weigh(c, c.tie) : 0;
    stretch t = {0, x.n, 0, 0};
    uint64_t target = 0;
    for (bool first = true; first || t.to - t.from > 128; first = false) {
        const int each = part_sums(s, x, c, t);
        if (first) {
            uint64_t total = 0;
            unsigned ties = 0;
            for (int w = 0; w < warps; w++) {
                total += s->warp[w] + tie_mass(c, tie, ties, s->warp_n[w]);
                ties += s->warp_n[w];
            }
            target = static_cast<uint64_t>(u * static_cast<double>(total));
            if (target >= total) target = total - 1; /* rounding */
        }
        stretch in = t;
        int w = 0;
        for (;; w++) {
            const uint64_t next = in.mass + s->warp[w] + tie_mass(c, tie, in.ties, s->warp_n[w]);
            if (next > target || w + 1 == warps) break;
            in.mass = next;
            in.ties += s->warp_n[w];
        }
        in.from = t.from + w * each;
        in.to = in.from + each < t.to ? in.from + each : t.to;
        t = in;
        __syncthreads();
    }
    const int i = find(x, c, t, target, tie); /* every warp, the same */
    __syncthreads();
    return i < 0 ? -1 : id_of(x, i);
}

/* ---- log-probs ---- */

static __device__ float logprob_of(float v, float max, double log_sum) {
    if (!(max > MINUS_INF)) return LOGPROB_MIN;
    const double lp = static_cast<double>(v) - static_cast<double>(max) - log_sum;
    return lp > static_cast<double>(LOGPROB_MIN) ? static_cast<float>(lp) : LOGPROB_MIN;
}

/* The next below `last` (key and ~id): for rows whose best do not fit anywhere. */
static __device__ uint64_t next_below(room *s, const view &x, uint64_t last) {
    uint64_t best = 0;
    for (int i = threadIdx.x; i < x.n; i += blockDim.x) {
        const uint64_t k = static_cast<uint64_t>(key_of(at(x, i))) << 32 | static_cast<unsigned>(~i);
        if (k < last) best = larger(best, k);
    }
    return block_max(s, best);
}

static __device__ void top_n(room *s, const view &x, int want, float own, float max, double log_sum, cuk_chosen *out) {
    if (want > x.n) want = x.n;
    const bool fits = gather(s, x, bound(s, own, want), false) >= 0;
    uint64_t last = ~static_cast<uint64_t>(0);
    for (int j = 0; j < want; j++) {
        last = fits ? s->candidates[j] : next_below(s, x, last);
        if (threadIdx.x > 0) continue;
        out->top_id[j] = static_cast<int>(~static_cast<unsigned>(last));
        out->top_logprob[j] = logprob_of(value_of(static_cast<unsigned>(last >> 32)), max, log_sum);
    }
    if (threadIdx.x == 0) out->n_top = want;
}

/* ---- one row ---- */

static __device__ bool penalises(const cuk_choice &h) {
    return (h.repetition != 1 && h.n_prompt + h.n_out > 0) || ((h.presence != 0 || h.frequency != 0) && h.n_out > 0);
}

static __device__ void repeat(float *x, float penalty) {
    *x = *x > 0 ? *x / penalty : __fmul_rn(*x, penalty);
}

/* An id that stands twice gets its biases in their order, by whoever has its first place. */
static __device__ void add_biases(float *x, int n, const int32_t *ids, const float *values, int n_bias) {
    for (int i = threadIdx.x; i < n_bias; i += blockDim.x) {
        const int id = ids[i];
        if (id < 0 || id >= n) continue;
        float v = x[id];
        int first = i;
        for (int j = 0; j < n_bias && first == i; j++) {
            if (ids[j] != id) continue;
            if (j < i)
                first = j;
            else
                v = __fadd_rn(v, values[j]);
        }
        if (first == i) x[id] = v;
    }
}

/* Biases, then penalties. No id stands twice among what was seen (ops.h). */
static __device__ void adjust(float *x, int n, const cuk_choice &h, const int32_t *words) {
    const int32_t *bias = words + h.bias_at;
    add_biases(x, n, bias, reinterpret_cast<const float *>(bias + h.n_bias), h.n_bias);
    __syncthreads();
    if (penalises(h)) {
        for (int i = threadIdx.x; h.repetition != 1 && i < h.n_prompt; i += blockDim.x) {
            const int id = words[h.prompt_at + i];
            if (id >= 0 && id < n) repeat(&x[id], h.repetition);
        }
        for (int i = threadIdx.x; i < h.n_out; i += blockDim.x) {
            const int id = words[h.out_at + i];
            if (id < 0 || id >= n) continue;
            if (h.repetition != 1) repeat(&x[id], h.repetition);
            x[id] = __fadd_rn(x[id], -__fmul_rn(h.frequency, static_cast<float>(words[h.out_at + h.n_out + i])));
            x[id] = __fadd_rn(x[id], -h.presence);
        }
    }
    __syncthreads();
}

static __device__ int first_of(uint64_t best, const view &x) {
    const int id = static_cast<int>(~static_cast<unsigned>(best));
    return id >= 0 && id < x.n ? id : 0;
}

/* own: each thread's greatest of x. best: the greatest of x. */
static __device__ int choose(room *s, view x, const cuk_choice &h, uint64_t best, float own) {
    const float max = value_of(static_cast<unsigned>(best >> 32));
    const int greedy = first_of(best, x);
    if (!(max > MINUS_INF) || !(h.temperature >= GREEDY_BELOW)) return greedy;
    cut c = {max, 1.0f / h.temperature, MINUS_INF, 0, -1};
    cut_top_k(s, &x, &c, h.top_k, own);
    cut_top_p(s, &x, &c, h.top_p);
    cut_min_p(&c, h.min_p);
    const int id = draw(s, x, c, uniform(h));
    return id < 0 ? greedy : id;
}

static __global__ void __launch_bounds__(MAX_WARPS * 32)
    sample_kernel(const float *logits, int64_t ld, int vocab, const int32_t *rules, float *work, cuk_chosen *out) {
    SHARED(room, s);
    const cuk_choice h = reinterpret_cast<const cuk_choice *>(rules)[blockIdx.x];
    const view raw = {logits + blockIdx.x * ld, nullptr, vocab};
    float own, own_raw;
    const uint64_t best_raw = greatest(s, raw, &own_raw);
    view x = raw;
    uint64_t best = best_raw;
    own = own_raw;
    if (h.n_bias > 0 || penalises(h)) {
        float *mine = work + static_cast<int64_t>(blockIdx.x) * vocab;
        for (int i = threadIdx.x; i < vocab; i += blockDim.x) mine[i] = clean(raw.row[i]);
        __syncthreads();
        adjust(mine, vocab, h, rules);
        const view adjusted = {mine, nullptr, vocab};
        float own_adjusted;
        const uint64_t b = greatest(s, adjusted, &own_adjusted);
        if (value_of(static_cast<unsigned>(b >> 32)) > MINUS_INF) { /* else all is banned, and no ban counts */
            x = adjusted;
            best = b;
            own = own_adjusted;
        }
    }
    const int id = choose(s, x, h, best, own);
    cuk_chosen *to = &out[blockIdx.x];
    if (threadIdx.x == 0) {
        to->id = id;
        to->n_top = 0;
        to->logprob = 0;
    }
    if (h.top_logprobs < 0) return;
    const float max = value_of(static_cast<unsigned>(best_raw >> 32));
    const cut plain = {max, 1, MINUS_INF, 0, -1};
    const double log_sum = max > MINUS_INF ? log(static_cast<double>(mass_of(s, raw, plain)) / static_cast<double>(ONE)) : 0;
    if (threadIdx.x == 0) to->logprob = logprob_of(clean(raw.row[id]), max, log_sum);
    if (h.top_logprobs > 0) top_n(s, raw, h.top_logprobs, own_raw, max, log_sum, to);
}

void cuk_sample(cuk_stream s, const float *logits, int64_t ld, int64_t rows, int64_t vocab, const int32_t *rules, float *work,
                cuk_chosen *out) {
    static_assert(sizeof(room) <= 48 << 10, "more than a launch gives unasked");
    if (rows <= 0 || vocab <= 0) return;
    const unsigned threads = vocab <= 256 ? 64 : vocab <= 8192 ? 256 : 1024; /* no result depends on it */
    cu_launch<sample_kernel>(dim3(static_cast<unsigned>(rows)), dim3(threads), sizeof(room), s, logits, ld, vocab, rules, work, out);
}

/* ---- what was chosen goes on ---- */

static __global__ void next_ids_kernel(int32_t *ids, const int32_t *from, int64_t rows, const cuk_chosen *chosen, int64_t n_chosen,
                                       int32_t *fault) {
    const int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
    if (i >= rows || from[i] < 0) return;
    if (from[i] >= n_chosen)
        cu_raise(fault, CUK_BAD_INDEX);
    else
        ids[i] = chosen[from[i]].id;
}

void cuk_next_ids(cuk_stream s, int32_t *ids, const int32_t *from, int64_t rows, const cuk_chosen *chosen, int64_t n_chosen,
                  int32_t *fault) {
    if (rows > 0) cu_launch<next_ids_kernel>(dim3(cu_blocks(rows, 256)), dim3(256), 0, s, ids, from, rows, chosen, n_chosen, fault);
}
