/* rows.cu - norm, elementwise work, rows picked by index, narrowing. See cuk.h.
 *
 * Elementwise kernels round as the CPU's do up to exp, so a row's bits depend on the row alone. A norm's order of summation:
 * thread t of T (32 up to a width of 512, else 256) takes groups of four t, t + T, ..., in rising order, each as
 * (a + b) + (c + d); then the butterfly of cu_warp_sum; then the warps in rising order. Mean first, then squares of what is
 * left of it. How wide the loads are does not matter.
 * Threads: the engine's launch. Owner: nothing. Tested by tests/kernels/test_ops_rows.c. */
#include "kernels/cuda/act.cuh"
#include "kernels/cuda/vecs.cuh"

/* ---- elementwise ---- */

struct add_op {
    float *y;
    const float *x, *gain; /* gain NULL: 1 */
    int64_t y_ld, x_ld;
    template <int N> __device__ void at(int64_t i, int64_t c) const {
        cu_vec<N> a = cu_load<N>(y + i * y_ld + c), b = cu_load<N>(x + i * x_ld + c);
        if (gain) {
            const cu_vec<N> g = cu_load<N>(gain + c);
            for (int k = 0; k < N; k++) b.v[k] = __fmul_rn(g.v[k], b.v[k]);
        }
        for (int k = 0; k < N; k++) a.v[k] = __fadd_rn(a.v[k], b.v[k]);
        cu_store<N>(y + i * y_ld + c, a);
    }
};

void cuk_add(cuk_stream s, float *y, int64_t y_ld, const float *x, int64_t x_ld, const float *gain, int64_t rows, int64_t d) {
    cu_each_row(s, add_op{y, x, gain, y_ld, x_ld}, rows, d, cu_wide(y, y_ld) && cu_wide(x, x_ld) && cu_wide(gain, 0));
}

struct copy_op {
    float *y;
    const float *x;
    int64_t y_ld, x_ld;
    template <int N> __device__ void at(int64_t i, int64_t c) const {
        cu_store<N>(y + i * y_ld + c, cu_load<N>(x + i * x_ld + c));
    }
};

void cuk_copy(cuk_stream s, float *y, int64_t y_ld, const float *x, int64_t x_ld, int64_t rows, int64_t d) {
    cu_each_row(s, copy_op{y, x, y_ld, x_ld}, rows, d, cu_wide(y, y_ld) && cu_wide(x, x_ld));
}

/* y = act(gate) * up */
template <int A> struct glu_op {
    void *y;
    cuk_type t;
    const float *gate, *up;
    int64_t y_ld, gate_ld, up_ld;
    template <int N> __device__ void at(int64_t i, int64_t c) const {
        cu_vec<N> g = cu_load<N>(gate + i * gate_ld + c);
        const cu_vec<N> u = cu_load<N>(up + i * up_ld + c);
        for (int k = 0; k < N; k++) g.v[k] = __fmul_rn(cu_act<A>(g.v[k]), u.v[k]);
        cu_store_any<N>(y, t, i * y_ld + c, g);
    }
};

/* OP<a>{fields..} over rows of d. */
template <template <int> class OP, class... F>
static void act_each_row(cuk_stream s, cuk_act a, int64_t rows, int64_t d, bool wide, F... fields) {
    switch (a) {
    case CUK_ACT_NONE: return cu_each_row(s, OP<CUK_ACT_NONE>{fields...}, rows, d, wide);
    case CUK_ACT_SILU: return cu_each_row(s, OP<CUK_ACT_SILU>{fields...}, rows, d, wide);
    case CUK_ACT_GELU: return cu_each_row(s, OP<CUK_ACT_GELU>{fields...}, rows, d, wide);
    case CUK_ACT_GELU_TANH: return cu_each_row(s, OP<CUK_ACT_GELU_TANH>{fields...}, rows, d, wide);
    case CUK_ACT_QUICK_GELU: return cu_each_row(s, OP<CUK_ACT_QUICK_GELU>{fields...}, rows, d, wide);
    case CUK_ACT_RELU: return cu_each_row(s, OP<CUK_ACT_RELU>{fields...}, rows, d, wide);
    }
}

void cuk_glu(cuk_stream s, void *y, cuk_type t, int64_t y_ld, const float *gate, int64_t gate_ld, const float *up, int64_t up_ld,
             int64_t rows, int64_t d, cuk_act a) {
    const bool wide = cu_wide(y, y_ld, cu_size(t)) && cu_wide(gate, gate_ld) && cu_wide(up, up_ld);
    act_each_row<glu_op>(s, a, rows, d, wide, y, t, gate, up, y_ld, gate_ld, up_ld);
}

/* y (+)= act(x + bias); which of the three there are is uniform over a launch */
template <int A> struct epilogue_op {
    void *y;
    cuk_type t;
    const float *x, *bias;
    int64_t y_ld, x_ld;
    bool add;
    template <int N> __device__ void at(int64_t i, int64_t c) const {
        cu_vec<N> v = cu_load<N>(x + i * x_ld + c);
        if (bias) {
            const cu_vec<N> b = cu_load<N>(bias + c);
            for (int k = 0; k < N; k++) v.v[k] = __fadd_rn(v.v[k], b.v[k]);
        }
        for (int k = 0; k < N; k++) v.v[k] = cu_act<A>(v.v[k]);
        if (add) {
            const cu_vec<N> o = cu_load<N>(static_cast<float *>(y) + i * y_ld + c);
            for (int k = 0; k < N; k++) v.v[k] = __fadd_rn(o.v[k], v.v[k]);
        }
        cu_store_any<N>(y, t, i * y_ld + c, v);
    }
};

void cuk_epilogue(cuk_stream s, void *y, cuk_type t, int64_t y_ld, const float *x, int64_t x_ld, const float *bias, int64_t rows,
                  int64_t d, cuk_act a, bool add) {
    const bool wide = cu_wide(y, y_ld, cu_size(t)) && cu_wide(x, x_ld) && cu_wide(bias, 0);
    act_each_row<epilogue_op>(s, a, rows, d, wide, y, t, x, bias, y_ld, x_ld, add);
}

void cuk_act_rows(cuk_stream s, float *y, int64_t y_ld, int64_t rows, int64_t d, cuk_act a) {
    if (a != CUK_ACT_NONE) cuk_epilogue(s, y, CUK_F32, y_ld, y, y_ld, NULL, rows, d, a, false);
}

struct softcap_op {
    float *y;
    int64_t y_ld;
    float cap;
    template <int N> __device__ void at(int64_t i, int64_t c) const {
        cu_vec<N> v = cu_load<N>(y + i * y_ld + c);
        for (int k = 0; k < N; k++) v.v[k] = cu_softcap(v.v[k], cap);
        cu_store<N>(y + i * y_ld + c, v);
    }
};

void cuk_softcap(cuk_stream s, float *y, int64_t y_ld, int64_t rows, int64_t d, float cap) {
    cu_each_row(s, softcap_op{y, y_ld, cap}, rows, d, cu_wide(y, y_ld));
}

template <bool BF16> struct narrow_op {
    uint16_t *y;
    const float *x;
    int64_t y_ld, x_ld;
    template <int N> __device__ void at(int64_t i, int64_t c) const {
        const cu_vec<N> v = cu_load<N>(x + i * x_ld + c);
        uint16_t h[4] = {};
        for (int k = 0; k < N; k++) h[k] = BF16 ? cu_to_bf16(v.v[k]) : cu_to_f16(v.v[k]);
        uint16_t *to = y + i * y_ld + c;
        if (N == 4)
            *reinterpret_cast<uint2 *>(to) = make_uint2(h[0] | static_cast<unsigned>(h[1]) << 16,
                                                        h[2] | static_cast<unsigned>(h[3]) << 16);
        else
            *to = h[0];
    }
};

void cuk_narrow(cuk_stream s, uint16_t *y, cuk_type t, const float *x, int64_t x_ld, int64_t rows, int64_t d) {
    const bool wide = cu_wide(y, d, sizeof *y) && cu_wide(x, x_ld);
    if (t == CUK_BF16)
        cu_each_row(s, narrow_op<true>{y, x, d, x_ld}, rows, d, wide);
    else
        cu_each_row(s, narrow_op<false>{y, x, d, x_ld}, rows, d, wide);
}

template <class T> struct widen_op {
    float *y;
    const uint16_t *x;
    int64_t y_ld, x_ld;
    template <int N> __device__ void at(int64_t i, int64_t c) const {
        cu_store<N>(y + i * y_ld + c, cu_load_as<T, N>(x + i * x_ld + c));
    }
};

void cuk_widen(cuk_stream s, float *y, const void *x, cuk_type t, int64_t x_ld, int64_t rows, int64_t d) {
    const uint16_t *from = static_cast<const uint16_t *>(x);
    const bool wide = cu_wide(y, d) && cu_wide(x, x_ld, sizeof *from);
    if (t == CUK_BF16)
        cu_each_row(s, widen_op<cu_bf16>{y, from, d, x_ld}, rows, d, wide);
    else
        cu_each_row(s, widen_op<cu_f16>{y, from, d, x_ld}, rows, d, wide);
}

/* ---- rows by index ---- */

template <class T, bool ADD> struct embed_op {
    float *y;
    const typename T::bits *table;
    const int32_t *ids;
    int32_t *fault;
    int64_t y_ld, table_ld, n_table;
    float scale;
    template <int N> __device__ void at(int64_t i, int64_t c) const {
        const int32_t id = ids[i];
        if (id >= n_table || (ADD && id < 0)) {
            if (c == 0) cu_raise(fault, CUK_BAD_ID);
            return;
        }
        if (id < 0) return;
        cu_vec<N> v = cu_load_as<T, N>(table + id * table_ld + c);
        for (int k = 0; k < N; k++) v.v[k] = __fmul_rn(v.v[k], scale);
        if (ADD) {
            const cu_vec<N> o = cu_load<N>(y + i * y_ld + c);
            for (int k = 0; k < N; k++) v.v[k] = __fadd_rn(o.v[k], v.v[k]);
        }
        cu_store<N>(y + i * y_ld + c, v);
    }
};

/* Rows from elsewhere, and what embed_op does with the others. */
template <class T> struct splice_op {
    embed_op<T, false> embed; /* ids NULL: nothing */
    int n;
    cuk_embed_run run[CUK_EMBED_RUNS];
    template <int N> __device__ void at(int64_t i, int64_t c) const {
        for (int k = 0; k < n; k++)
            if (i >= run[k].row && i < run[k].row + run[k].n) {
                cu_store<N>(embed.y + i * embed.y_ld + c, cu_load<N>(run[k].x + (i - run[k].row) * run[k].x_ld + c));
                return;
            }
        if (embed.ids) embed.template at<N>(i, c);
    }
};

template <class T> static void embed_as(cuk_stream s, const cuk_embed_rows &e) {
    typedef typename T::bits bits;
    const bits *t = static_cast<const bits *>(e.table);
    bool wide = cu_wide(e.y, e.y_ld) && cu_wide(t, e.table_ld, sizeof *t);
    if (e.add)
        return cu_each_row(s, embed_op<T, true>{e.y, t, e.ids, e.fault, e.y_ld, e.table_ld, e.n_table, e.scale}, e.rows, e.d, wide);
    const embed_op<T, false> embed = {e.y, t, e.ids, e.fault, e.y_ld, e.table_ld, e.n_table, e.scale};
    if (e.n == 0) return cu_each_row(s, embed, e.rows, e.d, wide);
    splice_op<T> both = {embed, e.n, {}};
    for (int i = 0; i < e.n; i++) {
        both.run[i] = e.run[i];
        wide = wide && cu_wide(e.run[i].x, e.run[i].x_ld);
    }
    cu_each_row(s, both, e.rows, e.d, wide);
}

void cuk_embed(cuk_stream s, const cuk_embed_rows *e) {
    switch (e->t) {
    case CUK_F32: return embed_as<cu_f32>(s, *e);
    case CUK_F16: return embed_as<cu_f16>(s, *e);
    case CUK_BF16: return embed_as<cu_bf16>(s, *e);
    }
}

struct gather_op {
    float *y;
    const float *x;
    const int32_t *idx;
    int32_t *fault;
    int64_t y_ld, x_ld, n_x;
    template <int N> __device__ void at(int64_t i, int64_t c) const {
        const int32_t from = idx[i];
        if (from < 0 || from >= n_x) {
            if (c == 0) cu_raise(fault, CUK_BAD_INDEX);
            return;
        }
        cu_store<N>(y + i * y_ld + c, cu_load<N>(x + from * x_ld + c));
    }
};

void cuk_gather(cuk_stream s, float *y, int64_t y_ld, const float *x, int64_t x_ld, int64_t n_x, const int32_t *idx, int64_t rows,
                int64_t d, int32_t *fault) {
    cu_each_row(s, gather_op{y, x, idx, fault, y_ld, x_ld, n_x}, rows, d, cu_wide(y, y_ld) && cu_wide(x, x_ld));
}

template <class T> struct mix_op {
    float *y;
    const typename T::bits *x;
    const int32_t *from;
    const float *by;
    int32_t *fault;
    int64_t y_ld, x_ld, n_x, taps;
    bool add;
    template <int N> __device__ void at(int64_t i, int64_t c) const {
        cu_vec<N> sum;
        if (add)
            sum = cu_load<N>(y + i * y_ld + c);
        else
            for (int k = 0; k < N; k++) sum.v[k] = 0;
        for (int64_t t = i * taps; t < (i + 1) * taps; t++) {
            const int32_t row = from[t];
            if (row >= n_x) {
                if (c == 0) cu_raise(fault, CUK_BAD_INDEX);
                return;
            }
            if (row < 0) continue;
            const cu_vec<N> v = cu_load_as<T, N>(x + row * x_ld + c);
            const float w = by ? by[t] : 1.0f;
            for (int k = 0; k < N; k++) sum.v[k] = __fadd_rn(sum.v[k], __fmul_rn(v.v[k], w));
        }
        cu_store<N>(y + i * y_ld + c, sum);
    }
};

template <class T>
static void mix_as(cuk_stream s, float *y, int64_t y_ld, const void *x, int64_t x_ld, int64_t n_x, const int32_t *from,
                   const float *by, int64_t taps, int64_t rows, int64_t d, bool add, int32_t *fault) {
    const typename T::bits *t = static_cast<const typename T::bits *>(x);
    cu_each_row(s, mix_op<T>{y, t, from, by, fault, y_ld, x_ld, n_x, taps, add}, rows, d,
                cu_wide(y, y_ld) && cu_wide(t, x_ld, sizeof *t));
}

void cuk_mix(cuk_stream s, float *y, int64_t y_ld, const void *x, cuk_type t, int64_t x_ld, int64_t n_x, const int32_t *from,
             const float *by, int64_t taps, int64_t rows, int64_t d, bool add, int32_t *fault) {
    switch (t) {
    case CUK_F32: return mix_as<cu_f32>(s, y, y_ld, x, x_ld, n_x, from, by, taps, rows, d, add, fault);
    case CUK_F16: return mix_as<cu_f16>(s, y, y_ld, x, x_ld, n_x, from, by, taps, rows, d, add, fault);
    case CUK_BF16: return mix_as<cu_bf16>(s, y, y_ld, x, x_ld, n_x, from, by, taps, rows, d, add, fault);
    }
}

/* ---- norm ---- */

/* Group g of four of a row of d; past its end what `otherwise` says, which the sums do not see. */
static __device__ __forceinline__ void norm_group(float v[4], const float *x, int g, int d, bool wide, float otherwise) {
    if (wide && g * 4 + 4 <= d) {
        const cu_vec<4> r = cu_load<4>(x + g * 4);
        for (int k = 0; k < 4; k++) v[k] = r.v[k];
    } else {
        for (int k = 0; k < 4; k++) v[k] = g * 4 + k < d ? x[g * 4 + k] : otherwise;
    }
}
/* y: `at` is where the row begins. */
static __device__ __forceinline__ void norm_keep(void *y, cuk_type t, int64_t at, int g, int d, bool wide, const float v[4]) {
    if (wide && g * 4 + 4 <= d)
        cu_store_any<4>(y, t, at + g * 4, cu_vec<4>{{v[0], v[1], v[2], v[3]}});
    else
        for (int k = 0; k < 4 && g * 4 + k < d; k++) cu_store_any<1>(y, t, at + g * 4 + k, cu_vec<1>{{v[k]}});
}

/* Over the T threads of a unit. room: a float a warp; WARPS > 1 waits for the whole block. */
template <int WARPS> static __device__ __forceinline__ float norm_total(float x, float *room) {
    x = cu_warp_sum(x);
    if (WARPS == 1) return x;
    __syncthreads(); /* the last total has been read */
    if (threadIdx.x % 32 == 0) room[threadIdx.x / 32] = x;
    __syncthreads();
    x = room[0];
    for (int w = 1; w < WARPS; w++) x = __fadd_rn(x, room[w]);
    return x;
}

/* What a row of d is normalised by. Each thread reads the groups that it alone writes before and behind. */
struct norm_stats {
    float mean, inv;
};
template <int WARPS>
static __device__ __forceinline__ norm_stats norm_measure(const float *x, int d, bool wide, const cuk_norm_by &by, float *room) {
    const int T = WARPS * 32, t = static_cast<int>(threadIdx.x) % T;
    float v[4], sum = 0;
    norm_stats s = {0, 0};
    if (!by.rms) {
        for (int g = t; g * 4 < d; g += T) {
            norm_group(v, x, g, d, wide, 0);
            sum = __fadd_rn(sum, __fadd_rn(__fadd_rn(v[0], v[1]), __fadd_rn(v[2], v[3])));
        }
        s.mean = norm_total<WARPS>(sum, room) / static_cast<float>(d);
        sum = 0;
    }
    for (int g = t; g * 4 < d; g += T) {
        norm_group(v, x, g, d, wide, s.mean);
        for (int k = 0; k < 4; k++) v[k] = __fadd_rn(v[k], -s.mean);
        const float ab = fmaf(v[1], v[1], __fmul_rn(v[0], v[0])), cd = fmaf(v[3], v[3], __fmul_rn(v[2], v[2]));
        sum = __fadd_rn(sum, __fadd_rn(ab, cd));
    }
    s.inv = 1.0f / sqrtf(norm_total<WARPS>(sum, room) / static_cast<float>(d) + by.eps);
    return s;
}
static __device__ __forceinline__ void norm_apply(float v[4], int g, int d, const cuk_norm_by &by, norm_stats s) {
    for (int k = 0; k < 4; k++) {
        const int c = g * 4 + k;
        if (c >= d) break;
        const float n = __fmul_rn(__fadd_rn(v[k], -s.mean), s.inv),
                    gain = by.gain ? __fadd_rn(by.gain_offset, by.gain[c]) : by.gain_offset;
        v[k] = by.bias ? fmaf(n, gain, by.bias[c]) : __fmul_rn(n, gain);
    }
}

struct norm_args {
    void *y;
    cuk_type t;
    const float *x;
    int64_t y_ld, x_ld, units, heads; /* a unit: one head of one row */
    int d;
    bool wide;
    cuk_norm_by by;
};

/* WARPS: of a unit; with one, a block does eight units. */
template <int WARPS> static __global__ void __launch_bounds__(256) norm_kernel(norm_args a) {
    SHARED(float, room);
    const int T = WARPS * 32;
    const int64_t unit = static_cast<int64_t>(blockIdx.x) * (blockDim.x / T) + threadIdx.x / T;
    if (unit >= a.units) return; /* a whole warp */
    const int64_t row = unit / a.heads, at = unit % a.heads * a.d;
    const float *x = a.x + row * a.x_ld + at;
    float v[4];
    const norm_stats s = norm_measure<WARPS>(x, a.d, a.wide, a.by, room);
    for (int g = static_cast<int>(threadIdx.x) % T; g * 4 < a.d; g += T) {
        norm_group(v, x, g, a.d, a.wide, 0);
        norm_apply(v, g, a.d, a.by, s);
        norm_keep(a.y, a.t, row * a.y_ld + at, g, a.d, a.wide, v);
    }
}

template <int WARPS> static __global__ void __launch_bounds__(256) add_norm_kernel(cuk_add_norm a, bool wide) {
    SHARED(float, room);
    const int T = WARPS * 32, t = static_cast<int>(threadIdx.x) % T;
    const int64_t row = static_cast<int64_t>(blockIdx.x) * (blockDim.x / T) + threadIdx.x / T;
    if (row >= a.rows) return; /* a whole warp */
    const float *h = a.h + row * a.h_ld;
    float *x = a.x + row * a.x_ld, v[4], o[4];
    norm_stats s = {0, 0};
    if (a.before.on) s = norm_measure<WARPS>(h, a.d, wide, a.before, room);
    for (int g = t; g * 4 < a.d; g += T) {
        norm_group(v, h, g, a.d, wide, 0);
        norm_group(o, x, g, a.d, wide, 0);
        if (a.before.on) norm_apply(v, g, a.d, a.before, s);
        for (int k = 0; k < 4; k++) {
            if (a.scale && g * 4 + k < a.d) v[k] = __fmul_rn(a.scale[g * 4 + k], v[k]);
            o[k] = __fadd_rn(o[k], v[k]);
        }
        norm_keep(x, CUK_F32, 0, g, a.d, wide, o);
    }
    if (!a.after.on) return;
    s = norm_measure<WARPS>(x, a.d, wide, a.after, room);
    for (int g = t; g * 4 < a.d; g += T) {
        norm_group(v, x, g, a.d, wide, 0);
        norm_apply(v, g, a.d, a.after, s);
        norm_keep(a.y, a.t, row * a.y_ld, g, a.d, wide, v);
    }
}

void cuk_norm(cuk_stream s, void *y, cuk_type t, int64_t y_ld, const float *x, int64_t x_ld, int64_t rows, int64_t heads,
              int64_t d, const cuk_norm_by *by) {
    if (rows <= 0 || heads <= 0 || d <= 0) return;
    const bool wide = cu_wide(y, y_ld, cu_size(t)) && cu_wide(x, x_ld) && (heads == 1 || d % 4 == 0);
    const norm_args a = {y, t, x, y_ld, x_ld, rows * heads, heads, static_cast<int>(d), wide, *by};
    if (d <= 512)
        cu_launch<norm_kernel<1>>(dim3(cu_blocks(a.units, 8)), dim3(256), 0, s, a);
    else
        cu_launch<norm_kernel<8>>(dim3(cu_blocks(a.units, 1)), dim3(256), 8 * sizeof(float), s, a);
}

void cuk_residual(cuk_stream s, const cuk_add_norm *a) {
    if (a->rows <= 0 || a->d <= 0) return;
    const bool wide = cu_wide(a->x, a->x_ld) && cu_wide(a->h, a->h_ld) && (!a->after.on || cu_wide(a->y, a->y_ld, cu_size(a->t)));
    if (a->d <= 512)
        cu_launch<add_norm_kernel<1>>(dim3(cu_blocks(a->rows, 8)), dim3(256), 0, s, *a, wide);
    else
        cu_launch<add_norm_kernel<8>>(dim3(cu_blocks(a->rows, 1)), dim3(256), 8 * sizeof(float), s, *a, wide);
}
