/* choose.c - see choose.h. Pure functions; nothing is allocated. */
#include "kernels/cpu/choose.h"

#include <float.h>
#include <math.h>
#include <string.h>

/* No code here looks at the floating-point exception flags; without their order a choice between two values
 * can be a vector's blend. No result changes. (clang takes this for granted.) */
#ifndef __clang__
#pragma GCC optimize("no-trapping-math")
#endif

enum {
    LANES = 16,
    BLOCK = 256,     /* elements summed in f32 before they join a double */
    RADIX_BITS = 11, /* of a key's 32 in one selection pass: 11, 11, 10 */
    SMALL_K = 128    /* up to here a sorted list finds the k-th */
};

/* Below this a temperature is greedy (vLLM's bound): a division would leave nothing but the greatest. */
#define GREEDY_BELOW 1e-5f
#define LOGPROB_MIN  -9999.0f

void philox4x32(const uint32_t counter[4], const uint32_t key[2], uint32_t out[4]) {
    uint32_t c0 = counter[0], c1 = counter[1], c2 = counter[2], c3 = counter[3], k0 = key[0], k1 = key[1];
    for (int round = 0; round < 10; round++) {
        uint64_t p0 = (uint64_t)0xD2511F53u * c0, p1 = (uint64_t)0xCD9E8D57u * c2;
        c0 = (uint32_t)(p1 >> 32) ^ c1 ^ k0;
        c2 = (uint32_t)(p0 >> 32) ^ c3 ^ k1;
        c1 = (uint32_t)p1;
        c3 = (uint32_t)p0;
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    out[0] = c0, out[1] = c1, out[2] = c2, out[3] = c3;
}

/* Uniform in [0, 1), 53 bits. */
static double uniform(const sample_row *row) {
    uint32_t counter[4] = {row->position, row->choice, 0, 0}, r[4];
    uint32_t key[2] = {(uint32_t)row->seed, (uint32_t)(row->seed >> 32)};
    philox4x32(counter, key, r);
    return ((double)(r[0] >> 5) * 67108864.0 + (double)(r[1] >> 6)) * 0x1p-53;
}

/* ---- passes over a row; plain loops over lanes, so that the compiler may use vectors without changing a bit
 * ---- */

static inline float clean(float v) {
    v = v == v ? v : -INFINITY;
    return v < FLT_MAX ? v : FLT_MAX;
}

static float row_max(const float *x, int64_t n) {
    float lane[LANES];
    for (int j = 0; j < LANES; j++) lane[j] = -INFINITY;
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES)
        for (int j = 0; j < LANES; j++) {
            float v = clean(x[i + j]);
            lane[j] = v > lane[j] ? v : lane[j];
        }
    for (; i < n; i++) lane[0] = fmaxf(lane[0], clean(x[i]));
    float m = lane[0];
    for (int j = 1; j < LANES; j++) m = lane[j] > m ? lane[j] : m;
    return m;
}

/* Is any of LANES elements at least v: what lets a pass skip a stretch. */
static inline bool any_at_least(const float *x, float v) {
    int any = 0;
    for (int j = 0; j < LANES; j++) any |= clean(x[j]) >= v;
    return any;
}

static inline bool any_equal(const float *x, float v) {
    int any = 0;
    for (int j = 0; j < LANES; j++) any |= clean(x[j]) == v;
    return any;
}

static int64_t first_of(const float *x, int64_t n, float value) {
    int64_t i = 0;
    while (i + LANES <= n && !any_equal(x + i, value)) i += LANES;
    for (; i < n; i++)
        if (clean(x[i]) == value) return i;
    return 0;
}

/* e^y for y <= 0, relative error below 2e-7; exactly 1 at 0, 0 below the smallest normal number. y = k ln 2 +
 * r with |r| <= ln 2 / 2, and e^r by its Taylor series. */
static inline float exp_neg(float y) {
    float t = y > -87.0f ? y : -87.0f;
    float shifted = t * 1.44269504f + 12582912.0f; /* adding 1.5 * 2^23 rounds to an integer */
    float k = shifted - 12582912.0f;
    float r = t - k * 0.693359375f;
    r = r + k * 2.12194440e-4f;
    float p = 1.0f / 5040;
    p = p * r + 1.0f / 720;
    p = p * r + 1.0f / 120;
    p = p * r + 1.0f / 24;
    p = p * r + 1.0f / 6;
    p = p * r + 0.5f;
    p = p * r + 1.0f;
    p = p * r + 1.0f;
    union {
        int32_t i;
        float f;
    } scale = {.i = ((int32_t)k + 127) << 23};
    p *= scale.f;
    return y > -87.0f ? p : 0.0f;
}

/* What is kept of a row, and how an element weighs: exp((x - max) * inv_t). */
typedef struct cut {
    float max, inv_t;
    float least; /* elements below weigh nothing */
    float tie;   /* of the elements equal to tie only the first `ties` weigh; ties -1: all */
    int64_t ties;
} cut;

static inline float weigh(const cut *c, float v) {
    float w = exp_neg((v - c->max) * c->inv_t);
    return v >= c->least ? w : 0.0f;
}

/* Sum of the weights of a block (ties not looked at), in one fixed order. */
static double block_mass(const float *x, int64_t n, const cut *c) {
    float lane[LANES] = {0};
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES) {
        if (c->least > -INFINITY && !any_at_least(x + i, c->least)) continue; /* all would add 0 */
        for (int j = 0; j < LANES; j++) lane[j] += weigh(c, clean(x[i + j]));
    }
    double sum = 0;
    for (; i < n; i++) sum += weigh(c, clean(x[i]));
    for (int j = 0; j < LANES; j++) sum += lane[j];
    return sum;
}

static double row_mass(const float *x, int64_t n, const cut *c) {
    double sum = 0;
    for (int64_t i = 0; i < n; i += BLOCK) sum += block_mass(x + i, n - i < BLOCK ? n - i : BLOCK, c);
    return sum;
}

/* ---- selection: the value at which a count or a share is reached, going down from the greatest ---- */

/* Floats in the order of unsigned integers: the greater the float, the greater the key. -0 counts as 0. */
static inline uint32_t key_of(float v) {
    union {
        float f;
        uint32_t u;
    } b = {.f = v + 0.0f};
    return b.u ^ (-(b.u >> 31) | 0x80000000u);
}

static float value_of(uint32_t key) {
    union {
        uint32_t u;
        float f;
    } b = {.u = key & 0x80000000u ? key & 0x7fffffffu : ~key};
    return b.f;
}

typedef struct selection {
    float value;   /* the last value that is kept */
    int64_t above; /* how many are greater */
    double mass;   /* and their weight */
} selection;

typedef struct histogram {
    double mass[1 << RADIX_BITS];
    int64_t count[1 << RADIX_BITS];
} histogram;

/* Elements from c->least up to below `sure` whose key begins with `found` (under mask), by the key's bits from shift on. */
static void fill_histogram(histogram *h, const float *x, int64_t n, const cut *c, float sure, bool weights,
                           uint32_t found, uint32_t mask, int shift, int buckets) {
    memset(h->mass, 0, (size_t)buckets * sizeof *h->mass);
    memset(h->count, 0, (size_t)buckets * sizeof *h->count);
    for (int64_t i = 0; i < n; i += LANES) {
        float in[LANES];
        int m = 0, size = n - i < LANES ? (int)(n - i) : LANES;
        if (size == LANES && !any_at_least(x + i, c->least)) continue;
        for (int j = 0; j < size; j++) { /* no branch: which ones belong is as good as random */
            float v = clean(x[i + j]);
            in[m] = v;
            m += (v >= c->least) & (v < sure) & ((key_of(v) & mask) == found);
        }
        for (int j = 0; j < m; j++) {
            int b = (int)(key_of(in[j]) >> shift) & (buckets - 1);
            h->count[b]++;
            if (weights) h->mass[b] += exp_neg((in[j] - c->max) * c->inv_t);
        }
    }
}

/* The value where the count of elements from the greatest down reaches want_n, or (want_n 0) their weight reaches
 * want_mass, of which `above` belongs to those from `sure` up. Radix selection: the value's bits from the highest,
 * three passes whatever the row holds. False: rounding left nothing to select from. */
static bool select_down(const float *x, int64_t n, const cut *c, int64_t want_n, double want_mass, float sure,
                        double above, selection *out) {
    static const int width[] = {RADIX_BITS, RADIX_BITS, 32 - 2 * RADIX_BITS};
    histogram h;
    selection s = {.mass = above};
    uint32_t found = 0, mask = 0; /* the bits that are settled */
    int shift = 32;
    for (int pass = 0; pass < 3; pass++) {
        int buckets = 1 << width[pass];
        shift -= width[pass];
        fill_histogram(&h, x, n, c, sure, !want_n, found, mask, shift, buckets);
        int b = buckets - 1, last = -1;
        for (; b >= 0; b--) {
            if (!h.count[b]) continue;
            last = b;
            if (want_n ? s.above + h.count[b] >= want_n : s.mass + h.mass[b] >= want_mass) break;
            s.above += h.count[b];
            s.mass += h.mass[b];
        }
        if (last < 0) return false;
        if (b < 0) { /* sums of parts may round below the whole: the last bucket it is */
            s.above -= h.count[last];
            s.mass -= h.mass[last];
            b = last;
        }
        found |= (uint32_t)b << shift;
        mask |= (uint32_t)(buckets - 1) << shift;
    }
    s.value = value_of(found);
    *out = s;
    return true;
}

/* The k-th greatest value for a small k: one pass over a short sorted list that little enters. */
static float kth_small(const float *x, int64_t n, int k) {
    float best[SMALL_K] = {0};
    int have = 0;
    for (int64_t i = 0; i < n;) {
        int64_t stop = i + LANES < n ? i + LANES : n;
        if (have == k && stop - i == LANES && !any_at_least(x + i, best[k - 1])) i = stop;
        for (; i < stop; i++) {
            float v = clean(x[i]);
            if (have == k && !(v > best[k - 1])) continue;
            int at = have < k ? have++ : k - 1;
            for (; at > 0 && best[at - 1] < v; at--) best[at] = best[at - 1];
            best[at] = v;
        }
    }
    return best[k - 1];
}

static void cut_top_k(const float *x, int64_t n, int k, cut *c) {
    selection s;
    if (k <= 0 || k >= n) return;
    if (k <= SMALL_K)
        c->least = kth_small(x, n, k);
    else if (select_down(x, n, c, k, 0, INFINITY, 0, &s))
        c->least = s.value;
}

/* Bounds of the value at which the weight reaches `want`, by counting in steps of 1/16: what is *sure or more is kept,
 * what is below c->least is not. Only to leave most of the row out of the selection. */
static void bracket(const float *x, int64_t n, double want, cut *c, float *sure) {
    enum { STEPS = 512, PER_NAT = 16, OUT = STEPS + 1 };
    uint32_t count[2][STEPS + 2] = {0}; /* two, so that neighbours do not wait for each other's sum */
    float scale = PER_NAT * c->inv_t;
    for (int64_t i = 0; i < n; i++) {
        float v = clean(x[i]), d = (c->max - v) * scale;
        int b = d < STEPS ? (int)d : STEPS;
        count[i & 1][v < c->least ? OUT : b]++;
    }
    double low = 0, high = 0;
    int first_low = -1, first_high = STEPS;
    for (int j = 0; j <= STEPS && first_low < 0; j++) {
        double k = (double)count[0][j] + count[1][j];
        low += j < STEPS ? k * exp(-(j + 1.0) / PER_NAT) * (1 - 1e-5) : 0;
        high += k * exp(-(double)j / PER_NAT) * (1 + 1e-5);
        if (high >= want && first_high == STEPS) first_high = j;
        if (low >= want) first_low = j;
    }
    /* A step more on both sides for rounding at the edges. */
    *sure = first_high > 1 ? c->max - (float)(first_high - 1) / scale : INFINITY;
    float least = first_low >= 0 ? c->max - (float)(first_low + 2) / scale : -INFINITY;
    if (least > c->least) c->least = least;
}

static void cut_top_p(const float *x, int64_t n, float top_p, cut *c) {
    if (!(top_p < 1)) return;
    double want = (double)top_p * row_mass(x, n, c);
    if (!(want > 0)) want = DBL_MIN; /* top_p 0: the greatest alone */
    cut near = *c, kept = *c;
    bracket(x, n, want, &near, &kept.least);
    double above = kept.least < INFINITY ? row_mass(x, n, &kept) : 0;
    selection s;
    if (!select_down(x, n, &near, 0, want, kept.least, above, &s)) return;
    double each = exp_neg((s.value - c->max) * c->inv_t);
    double ties = each > 0 ? ceil((want - s.mass) / each) : 1;
    c->tie = c->least = s.value;
    c->ties = ties < 1 ? 1 : ties < (double)n ? (int64_t)ties : n;
}

static void cut_min_p(float min_p, cut *c) {
    if (!(min_p > 0)) return;
    double least = (double)c->max + log((double)min_p) / c->inv_t;
    float f = least < (double)c->max ? (float)least : c->max;
    if (f > c->least) c->least = f;
}

/* ---- the draw ---- */

static int64_t draw(const float *x, int64_t n, const cut *c, double u) {
    double total = 0;
    int64_t ties = c->ties, end = n; /* elements from end on equal to tie weigh nothing */
    if (ties >= 0)
        for (int64_t i = 0; i < n; i++) {
            while (i + LANES <= n && !any_equal(x + i, c->tie)) i += LANES;
            if (i < n && clean(x[i]) == c->tie && ties-- == 0) {
                end = i;
                break;
            }
        }
    cut strict = *c;
    if (end < n && c->tie >= c->least) strict.least = nextafterf(c->tie, INFINITY);
    /* Two stretches: up to end all of cut, from there without the ties. */
    const cut *part[2] = {c, &strict};
    int64_t from[3] = {0, end, n};
    for (int s = 0; s < 2; s++) total += row_mass(x + from[s], from[s + 1] - from[s], part[s]);
    double target = u * total, sum = 0;
    int64_t last = -1;
    for (int s = 0; s < 2; s++)
        for (int64_t i = from[s]; i < from[s + 1]; i += BLOCK) {
            int64_t m = from[s + 1] - i < BLOCK ? from[s + 1] - i : BLOCK;
            double mass = block_mass(x + i, m, part[s]);
            if (mass <= 0) continue;
            if (sum + mass <= target) {
                sum += mass;
                last = i;
                continue;
            }
            for (int64_t j = i; j < i + m; j++) {
                float w = weigh(part[s], clean(x[j]));
                if (w <= 0) continue;
                sum += w;
                last = j;
                if (sum > target) return j;
            }
        }
    return last; /* rounding at the very end of the sum */
}

/* ---- log-probs ---- */

static float logprob_of(float v, float max, double log_sum) {
    if (!(max > -INFINITY)) return LOGPROB_MIN;
    double lp = (double)v - (double)max - log_sum;
    return lp > (double)LOGPROB_MIN ? (float)lp : LOGPROB_MIN;
}

/* The best of the row into out, greatest first, ties by id. */
static void top_n(const float *x, int64_t n, int want, sample_result *out) {
    float best[20];
    int have = 0;
    for (int64_t i = 0; i < n;) {
        int64_t stop = i + LANES < n ? i + LANES : n;
        if (have == want && stop - i == LANES && !any_at_least(x + i, best[have - 1])) i = stop;
        for (; i < stop; i++) {
            float v = clean(x[i]);
            if (have == want && !(v > best[have - 1])) continue;
            int at = have < want ? have++ : have - 1;
            for (; at > 0 && best[at - 1] < v; at--) {
                best[at] = best[at - 1];
                out->top_id[at] = out->top_id[at - 1];
            }
            best[at] = v;
            out->top_id[at] = (int32_t)i;
        }
    }
    out->n_top = have;
    for (int i = 0; i < have; i++) out->top_logprob[i] = best[i];
}

/* ---- one row ---- */

static bool penalises(const sample_row *r) {
    return (r->repetition_penalty != 1 && r->n_prompt_seen + r->n_out_seen > 0) ||
           ((r->presence_penalty != 0 || r->frequency_penalty != 0) && r->n_out_seen > 0);
}

bool choose_adjusts(const sample_row *row) {
    return row->n_bias > 0 || penalises(row);
}

static inline void repeat(float *x, float penalty) {
    *x = *x > 0 ? *x / penalty : *x * penalty;
}

static void adjust(float *x, int64_t n, const sample_row *r) {
    for (int i = 0; i < r->n_bias; i++)
        if (r->bias_ids[i] >= 0 && r->bias_ids[i] < n) x[r->bias_ids[i]] += r->bias[i];
    if (!penalises(r)) return;
    if (r->repetition_penalty != 1)
        for (int i = 0; i < r->n_prompt_seen; i++)
            if (r->prompt_seen[i] >= 0 && r->prompt_seen[i] < n)
                repeat(&x[r->prompt_seen[i]], r->repetition_penalty);
    for (int i = 0; i < r->n_out_seen; i++) {
        int32_t id = r->out_seen[i];
        if (id < 0 || id >= n) continue;
        if (r->repetition_penalty != 1) repeat(&x[id], r->repetition_penalty);
        x[id] -= r->frequency_penalty * (float)r->out_count[i];
        x[id] -= r->presence_penalty;
    }
}

void choose_token(const float *x, int64_t n, const sample_row *row, float *work, sample_result *out) {
    const float *y = x;
    float max = row_max(x, n), chosen_max = max;
    if (choose_adjusts(row)) {
        for (int64_t i = 0; i < n; i++) work[i] = clean(x[i]);
        adjust(work, n, row);
        chosen_max = row_max(work, n);
        if (chosen_max > -INFINITY)
            y = work;
        else
            chosen_max = max; /* all banned */
    }
    int64_t id;
    if (!(chosen_max > -INFINITY) || !(row->temperature >= GREEDY_BELOW)) {
        id = first_of(y, n, chosen_max);
    } else {
        cut c = {.max = chosen_max, .inv_t = 1 / row->temperature, .least = -INFINITY, .ties = -1};
        cut_top_k(y, n, row->top_k, &c);
        cut_top_p(y, n, row->top_p, &c);
        cut_min_p(row->min_p, &c);
        id = draw(y, n, &c, uniform(row));
        if (id < 0) id = first_of(y, n, chosen_max);
    }
    out->id = (int32_t)id;
    out->logprob = 0;
    out->n_top = 0;
    if (row->top_logprobs < 0) return;
    cut raw = {.max = max, .inv_t = 1, .least = -INFINITY, .ties = -1};
    double log_sum = max > -INFINITY ? log(row_mass(x, n, &raw)) : 0;
    out->logprob = logprob_of(clean(x[id]), max, log_sum);
    if (row->top_logprobs == 0) return;
    int want = row->top_logprobs < 20 ? row->top_logprobs : 20;
    top_n(x, n, want < n ? want : (int)n, out);
    for (int i = 0; i < out->n_top; i++) out->top_logprob[i] = logprob_of(out->top_logprob[i], max, log_sum);
}
