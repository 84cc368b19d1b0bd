/* pos.cu - rotary positions, key-value pages' writes, pictures to patches. See cuk.h.
 *
 * Every number stands alone: no sums, one thread a pair or number, the CPU's arithmetic step by step (sine and cosine are
 * the device's own). Threads: the engine's launch. Owner: nothing.
 * Tested by tests/kernels/test_ops_rope.c, test_ops_rows.c, test_ops_attn.c. */
#include "kernels/cuda/vecs.cuh"

struct table_op {
    cuk_table a;
    template <int N> __device__ void at(int64_t i, int64_t p) const {
        float inv = a.inv_freq[p];
        if (a.dyn > 0 && a.len && a.len[i] > a.max_pos) {
            const double f = static_cast<double>(a.dyn), rot = 2.0 * static_cast<double>(a.half);
            const double base = static_cast<double>(a.theta) *
                                pow(f * static_cast<double>(a.len[i]) / static_cast<double>(a.max_pos) - (f - 1.0), rot / (rot - 2.0));
            const float power = static_cast<float>(2.0 * static_cast<double>(p) / rot);
            inv = 1.0f / static_cast<float>(pow(base, static_cast<double>(power)));
        }
        const int64_t axis = a.axis ? static_cast<int64_t>(a.axis[p]) : 0;
        if (axis < 0 || axis >= a.axes) {
            cu_raise(a.fault, CUK_BAD_INDEX);
            return;
        }
        const float angle = __fmul_rn(static_cast<float>(a.pos[i * a.pos_ld + axis]), inv);
        float *to = a.cs + i * a.cs_ld + 2 * p;
        to[0] = __fmul_rn(cosf(angle), a.factor);
        to[1] = __fmul_rn(sinf(angle), a.factor);
    }
};

void cuk_rope_table(cuk_stream s, const cuk_table *t) {
    cu_each_row(s, table_op{*t}, t->rows, t->half, false);
}

/* a, b: N neighbouring pairs, turned by N of a row's cs from t on. */
template <int N> static __device__ __forceinline__ void turn(cu_vec<N> &a, cu_vec<N> &b, const float *t) {
    for (int k = 0; k < N; k++) {
        const float cosine = t[2 * k], sine = t[2 * k + 1], u = a.v[k], v = b.v[k];
        a.v[k] = __fadd_rn(__fmul_rn(u, cosine), -__fmul_rn(v, sine));
        b.v[k] = __fadd_rn(__fmul_rn(v, cosine), __fmul_rn(u, sine));
    }
}

/* Column c of a row: pair c % half of head c / half. */
struct rope_op {
    float *x;
    const float *cs;
    int64_t x_ld, hd, cs_ld, half;
    template <int N> __device__ void at(int64_t i, int64_t c) const {
        const int64_t p = c % half;
        float *lo = x + i * x_ld + c / half * hd + p, *hi = lo + half;
        cu_vec<N> a = cu_load<N>(lo), b = cu_load<N>(hi);
        turn<N>(a, b, cs + i * cs_ld + 2 * p);
        cu_store<N>(lo, a);
        cu_store<N>(hi, b);
    }
};

void cuk_rope(cuk_stream s, float *x, int64_t x_ld, int64_t rows, int64_t heads, int64_t hd, const float *cs, int64_t cs_ld,
              int64_t half) {
    const bool wide = cu_wide(x, x_ld) && hd % 4 == 0 && half % 4 == 0;
    cu_each_row(s, rope_op{x, cs, x_ld, hd, cs_ld, half}, rows, heads * half, wide);
}

/* Column c of a row: number c % hd of head c / hd. Dummy rows may have a slot in common: any of them may stay there. */
struct kv_op {
    float *kc, *vc;
    const float *k, *v;
    const int32_t *slots;
    int32_t *fault;
    int64_t k_ld, v_ld, n_slots, kv_heads, hd, page_tok;
    template <int N> __device__ void at(int64_t i, int64_t c) const {
        const int32_t slot = slots[i];
        if (slot < -1 || slot >= n_slots) {
            if (c == 0) cu_raise(fault, CUK_BAD_SLOT);
            return;
        }
        if (slot < 0) return;
        const int64_t head = slot / page_tok * kv_heads + c / hd, to = (head * page_tok + slot % page_tok) * hd + c % hd;
        cu_store<N>(kc + to, cu_load<N>(k + i * k_ld + c));
        cu_store<N>(vc + to, cu_load<N>(v + i * v_ld + c));
    }
};

void cuk_kv_write(cuk_stream s, float *kc, float *vc, int64_t n_pages, const float *k, int64_t k_ld, const float *v, int64_t v_ld,
                  const int32_t *slots, int64_t rows, int64_t kv_heads, int64_t hd, int64_t page_tok, int32_t *fault) {
    const bool wide = cu_wide(kc, hd) && cu_wide(vc, hd) && cu_wide(k, k_ld) && cu_wide(v, v_ld);
    cu_each_row(s, kv_op{kc, vc, k, v, slots, fault, k_ld, v_ld, n_pages * page_tok, kv_heads, hd, page_tok}, rows, kv_heads * hd,
                wide);
}

/* Columns of a row: a pair of each query head, as above; then those of each kv head: its pairs, and what lies behind them. Who
 * brings a number of k into the pages brings that of v, too. */
struct rope_kv_op {
    cuk_rope_kv a;
    template <int N> __device__ void at(int64_t i, int64_t c) const {
        if (c < a.heads * a.half) {
            rope_op{a.q, a.cs, a.q_ld, a.hd, a.cs_ld, a.half}.at<N>(i, c);
            return;
        }
        c -= a.heads * a.half;
        const int32_t slot = a.slots[i];
        if (slot < -1 || slot >= a.n_pages * a.page_tok) {
            if (c == 0) cu_raise(a.fault, CUK_BAD_SLOT);
            return;
        }
        if (slot < 0) return;
        const int64_t each = a.hd - a.half, head = c / each, p = c % each;
        const int64_t to = ((slot / a.page_tok * a.kv_heads + head) * a.page_tok + slot % a.page_tok) * a.hd;
        const float *k = a.k + i * a.k_ld + head * a.hd, *v = a.v + i * a.v_ld + head * a.hd;
        if (p < a.half) {
            cu_vec<N> lo = cu_load<N>(k + p), hi = cu_load<N>(k + p + a.half);
            turn<N>(lo, hi, a.cs + i * a.cs_ld + 2 * p);
            cu_store<N>(a.kc + to + p, lo);
            cu_store<N>(a.kc + to + p + a.half, hi);
            cu_store<N>(a.vc + to + p, cu_load<N>(v + p));
        } else {
            cu_store<N>(a.kc + to + p + a.half, cu_load<N>(k + p + a.half));
        }
        cu_store<N>(a.vc + to + p + a.half, cu_load<N>(v + p + a.half));
    }
};

void cuk_rope_kv_write(cuk_stream s, const cuk_rope_kv *a) {
    const bool wide = a->hd % 4 == 0 && a->half % 4 == 0 && cu_wide(a->q, a->q_ld) && cu_wide(a->k, a->k_ld) &&
                      cu_wide(a->v, a->v_ld) && cu_wide(a->kc, 0) && cu_wide(a->vc, 0);
    cu_each_row(s, rope_kv_op{*a}, a->rows, a->heads * a->half + a->kv_heads * (a->hd - a->half), wide);
}

struct patch_op {
    cuk_patches a;
    template <int N> __device__ void at(int64_t i, int64_t e) const {
        const int p = a.patch, in = static_cast<int>(e);
        const int plane = a.channels_last ? in % 3 : in / (p * p), ch = plane / a.frames;
        const int r = a.channels_last ? in / (3 * p) : in / p % p, k = a.channels_last ? in / 3 % p : in % p;
        const int64_t patch = a.order ? a.order[i] : i;
        if (patch < 0 || patch >= a.patches) {
            if (e == 0) cu_raise(a.fault, CUK_BAD_INDEX);
            return;
        }
        const uint8_t *src = a.pixels + (patch / a.across * p + r) * a.pixels_ld + (patch % a.across * p + k) * 3 + ch;
        const float m = ch == 0 ? a.mean[0] : ch == 1 ? a.mean[1] : a.mean[2];
        const float d = ch == 0 ? a.std[0] : ch == 1 ? a.std[1] : a.std[2];
        a.x[i * a.x_ld + e] = __fadd_rn(__fmul_rn(static_cast<float>(*src), a.rescale), -m) / d;
    }
};

void cuk_patchify(cuk_stream s, const cuk_patches *p) {
    cu_each_row(s, patch_op{*p}, p->rows, 3LL * p->frames * p->patch * p->patch, false);
}
