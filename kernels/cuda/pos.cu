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

/* Where the numbers of head `head` of row i stand in the pages; -1: nowhere. c 0 says when the slot cannot be. Dummy rows may
 * have a slot in common: any of them may stay there. */
static __device__ __forceinline__ int64_t place_of(const cuk_rope_kv &a, int64_t i, int64_t head, int64_t c) {
    const int32_t slot = a.slots[i];
    if (slot < -1 || slot >= a.n_pages * a.page_tok) {
        if (c == 0) cu_raise(a.fault, CUK_BAD_SLOT);
        return -1;
    }
    if (slot < 0) return -1;
    return ((slot / a.page_tok * a.kv_heads + head) * a.page_tok + slot % a.page_tok) * a.hd;
}

/* Column c of a row: number c % hd of head c / hd. */
template <class T> struct kv_op {
    cuk_rope_kv a;
    template <int N> __device__ void at(int64_t i, int64_t c) const {
        const int64_t to = place_of(a, i, c / a.hd, c);
        if (to < 0) return;
        typename T::bits *const kc = static_cast<typename T::bits *>(a.kc) + to, *const vc = static_cast<typename T::bits *>(a.vc) + to;
        cu_store_as<T, N>(kc + c % a.hd, cu_load<N>(a.k + i * a.k_ld + c));
        cu_store_as<T, N>(vc + c % a.hd, cu_load<N>(a.v + i * a.v_ld + c));
    }
};

/* Columns of a row: a pair of each query head, as above; then those of each kv head: its pairs, and what lies behind them. Who
 * brings a number of k into the pages brings that of v, too. */
template <class T> struct rope_kv_op {
    cuk_rope_kv a;
    template <int N> __device__ void at(int64_t i, int64_t c) const {
        if (c < a.heads * a.half) {
            rope_op{a.q, a.cs, a.q_ld, a.hd, a.cs_ld, a.half}.at<N>(i, c);
            return;
        }
        c -= a.heads * a.half;
        const int64_t each = a.hd - a.half, head = c / each, p = c % each, to = place_of(a, i, head, c);
        if (to < 0) return;
        typename T::bits *const kc = static_cast<typename T::bits *>(a.kc) + to, *const vc = static_cast<typename T::bits *>(a.vc) + to;
        const float *k = a.k + i * a.k_ld + head * a.hd, *v = a.v + i * a.v_ld + head * a.hd;
        if (p < a.half) {
            cu_vec<N> lo = cu_load<N>(k + p), hi = cu_load<N>(k + p + a.half);
            turn<N>(lo, hi, a.cs + i * a.cs_ld + 2 * p);
            cu_store_as<T, N>(kc + p, lo);
            cu_store_as<T, N>(kc + p + a.half, hi);
            cu_store_as<T, N>(vc + p, cu_load<N>(v + p));
        } else {
            cu_store_as<T, N>(kc + p + a.half, cu_load<N>(k + p + a.half));
        }
        cu_store_as<T, N>(vc + p + a.half, cu_load<N>(v + p + a.half));
    }
};

static bool kv_wide(const cuk_rope_kv &a) {
    const size_t size = a.kept == CUK_F32 ? 4 : 2;
    return a.hd % 4 == 0 && cu_wide(a.k, a.k_ld) && cu_wide(a.v, a.v_ld) && cu_wide(a.kc, 0, size) && cu_wide(a.vc, 0, size);
}

template <class T> static void write_as(cuk_stream s, const cuk_rope_kv &a, bool roped) {
    if (roped)
        cu_each_row(s, rope_kv_op<T>{a}, a.rows, a.heads * a.half + a.kv_heads * (a.hd - a.half),
                    a.half % 4 == 0 && cu_wide(a.q, a.q_ld) && kv_wide(a));
    else
        cu_each_row(s, kv_op<T>{a}, a.rows, a.kv_heads * a.hd, kv_wide(a));
}

static void write_pages(cuk_stream s, const cuk_rope_kv &a, bool roped) {
    if (a.kept == CUK_BF16)
        write_as<cu_bf16>(s, a, roped);
    else if (a.kept == CUK_F16)
        write_as<cu_f16>(s, a, roped);
    else
        write_as<cu_f32>(s, a, roped);
}

void cuk_kv_write(cuk_stream s, const cuk_rope_kv *a) {
    write_pages(s, *a, false);
}
void cuk_rope_kv_write(cuk_stream s, const cuk_rope_kv *a) {
    write_pages(s, *a, true);
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
