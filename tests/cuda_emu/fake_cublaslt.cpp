/* fake_cublaslt.cpp - libcublasLt.so for the emulator: what kernels/cuda/blas.c loads there in the place of NVIDIA's library.
 *
 * A call that the documentation of cuBLASLt (NVIDIA, cuBLAS 13.0, "Using the cuBLASLt API") does not allow gets the status
 * that it names, and is counted as invalid; an allowed one waits on its stream like a kernel. Types: the rows of
 * cublasLtMatmul's table for f32 sums of real matrices. Epilogues: none, and the bias. An algorithm splits k where the
 * workspace has room for it: one half of the sums comes by way of there. A bias with an odd number of rows of D gets none: what
 * a library offers is its own affair, and callers must live with it.
 * Thread: one, the caller's. Owner: the caller, of all handles. The emulator is in the program that loads this. */
#include <cmath>
#include <cstdarg>
#include <cstdio>
#include <cstring>
#include <new>
#include <utility>
#include <vector>

#include <cublasLt.h>
#include <cuda_runtime.h>

#include "tests/cuda_emu/fake_cublaslt.h"

extern "C" {
fake_cublaslt fake_cublaslt_state;
}
static fake_cublaslt &state = fake_cublaslt_state;

__attribute__((format(printf, 1, 2))) static cublasStatus_t invalid(const char *fmt, ...) {
    va_list args;
    va_start(args, fmt);
    vsnprintf(state.invalid, sizeof state.invalid, fmt, args);
    va_end(args);
    state.n_invalid++;
    return CUBLAS_STATUS_INVALID_VALUE;
}

/* ---- what handles stand for ---- */

enum { CONTEXT = 0x1c0de, OP, LAYOUT, PREFERENCE, ALGORITHM }; /* the first word of each */

struct context {
    uint64_t tag;
};
struct op_desc {
    uint64_t tag;
    int32_t compute, scale, pointer_mode, trans[3], bias_type;
    uint32_t epilogue;
    const void *bias;
};
struct layout {
    uint64_t tag;
    uint32_t type;
    int32_t order;
    uint64_t rows, cols;
    int64_t ld;
};
struct preference {
    uint64_t tag, workspace;
    uint32_t search, align[4];
};
struct algorithm { /* copied about by its owner */
    uint64_t tag, of, cols, workspace;
    uint32_t align[4];
};
static_assert(sizeof(op_desc) <= sizeof(cublasLtMatmulDescOpaque_t) && sizeof(layout) <= sizeof(cublasLtMatrixLayoutOpaque_t) &&
                  sizeof(preference) <= sizeof(cublasLtMatmulPreferenceOpaque_t) && sizeof(algorithm) <= sizeof(cublasLtMatmulAlgo_t),
              "they fit into NVIDIA's");

template <class T, class H> static T *as(H h, uint64_t tag) {
    T *p = reinterpret_cast<T *>(h);
    return p && p->tag == tag ? p : nullptr;
}

template <class T, class H> static cublasStatus_t create(H *out, const T &value) {
    if (!out) return invalid("nowhere to create it");
    T *p = new (std::nothrow) T(value);
    if (!p) return CUBLAS_STATUS_ALLOC_FAILED;
    state.n_alive++;
    *out = reinterpret_cast<H>(p);
    return CUBLAS_STATUS_SUCCESS;
}

template <class T, class H> static cublasStatus_t destroy(H h, uint64_t tag) {
    T *p = as<T>(h, tag);
    if (!p) return invalid("destroying what is not there");
    p->tag = 0;
    delete p;
    state.n_alive--;
    return CUBLAS_STATUS_SUCCESS;
}

template <class T> static cublasStatus_t set(T *to, const void *value, size_t bytes) {
    if (!value || bytes != sizeof *to) return invalid("an attribute of %zu bytes, given %zu", sizeof *to, bytes);
    memcpy(to, value, bytes);
    return CUBLAS_STATUS_SUCCESS;
}

/* ---- what can be multiplied ---- */

static size_t size_of(uint32_t type) { return type == CUDA_R_32F ? 4 : 2; }

/* The table's rows: A and B, C and D (and what a bias is, with this D). */
static bool types_go_together(const op_desc &op, uint32_t a, uint32_t b, uint32_t c, uint32_t d) {
    if (op.scale != CUDA_R_32F || a != b || c != d) return false;
    switch (op.compute) {
    case CUBLAS_COMPUTE_32F:
    case CUBLAS_COMPUTE_32F_PEDANTIC:
        return a == CUDA_R_32F ? c == CUDA_R_32F : (a == CUDA_R_16F || a == CUDA_R_16BF) && (c == a || c == CUDA_R_32F);
    case CUBLAS_COMPUTE_32F_FAST_16F:
    case CUBLAS_COMPUTE_32F_FAST_16BF:
    case CUBLAS_COMPUTE_32F_FAST_TF32: return a == CUDA_R_32F && c == CUDA_R_32F;
    default: return false;
    }
}

struct problem {
    op_desc op;
    layout a, b, c, d;
    uint64_t m, n, k;
};

static bool ld_is_enough(const layout &l) {
    const uint64_t least = l.order == CUBLASLT_ORDER_COL ? l.rows : l.cols;
    return l.ld > 0 && (uint64_t)l.ld >= least;
}

static bool same(const layout &x, const layout &y) {
    return x.type == y.type && x.order == y.order && x.rows == y.rows && x.cols == y.cols && x.ld == y.ld;
}

static cublasStatus_t describe(cublasLtHandle_t h, cublasLtMatmulDesc_t op, cublasLtMatrixLayout_t a, cublasLtMatrixLayout_t b,
                               cublasLtMatrixLayout_t c, cublasLtMatrixLayout_t d, problem *out) {
    if (!as<context>(h, CONTEXT)) return CUBLAS_STATUS_NOT_INITIALIZED;
    const op_desc *o = as<op_desc>(op, OP);
    const layout *l[4] = {as<layout>(a, LAYOUT), as<layout>(b, LAYOUT), as<layout>(c, LAYOUT), as<layout>(d, LAYOUT)};
    if (!o || !l[0] || !l[1] || !l[2] || !l[3]) return invalid("a descriptor that is none");
    *out = problem{*o, *l[0], *l[1], *l[2], *l[3], 0, 0, 0};
    problem &p = *out;
    const bool ta = o->trans[0] != CUBLAS_OP_N, tb = o->trans[1] != CUBLAS_OP_N;
    p.m = ta ? p.a.cols : p.a.rows;
    p.k = ta ? p.a.rows : p.a.cols;
    p.n = tb ? p.b.rows : p.b.cols;
    if (p.m < 1 || p.n < 1 || p.k < 1) return invalid("an empty matrix");
    if ((tb ? p.b.cols : p.b.rows) != p.k || p.d.rows != p.m || p.d.cols != p.n || p.c.rows != p.m || p.c.cols != p.n)
        return invalid("shapes that do not go together: %llu x %llu x %llu", (unsigned long long)p.m, (unsigned long long)p.n,
                       (unsigned long long)p.k);
    for (const layout *x : l)
        if (!ld_is_enough(*x))
            return invalid("a leading dimension of %lld with %llu rows and %llu columns", (long long)x->ld, (unsigned long long)x->rows,
                           (unsigned long long)x->cols);
    if (o->epilogue == CUBLASLT_EPILOGUE_BIAS && o->bias_type != -1 && (uint32_t)o->bias_type != p.d.type)
        return invalid("a bias of another type than D");
    if (!types_go_together(*o, p.a.type, p.b.type, p.c.type, p.d.type) || o->trans[2] != CUBLAS_OP_N || p.c.order != p.d.order ||
        o->pointer_mode != CUBLASLT_POINTER_MODE_HOST || (o->epilogue != CUBLASLT_EPILOGUE_DEFAULT && o->epilogue != CUBLASLT_EPILOGUE_BIAS))
        return CUBLAS_STATUS_NOT_SUPPORTED;
    return CUBLAS_STATUS_SUCCESS;
}

/* Of all that an algorithm was chosen for but the columns of B. */
static uint64_t mark_of(const problem &p) {
    const uint64_t words[] = {(uint64_t)p.op.compute, p.op.epilogue, (uint64_t)p.op.trans[0], (uint64_t)p.op.trans[1], p.a.type, p.b.type,
                              p.d.type, (uint64_t)p.a.order, (uint64_t)p.b.order, (uint64_t)p.d.order, p.m, p.k, (uint64_t)p.a.ld, (uint64_t)p.b.ld,
                              (uint64_t)p.c.ld, (uint64_t)p.d.ld};
    uint64_t h = 14695981039346656037u;
    for (uint64_t w : words) h = (h ^ w) * 1099511628211u;
    return h;
}

/* ---- the product ---- */

static float wide(const void *p, uint32_t type, int64_t i) {
    if (type == CUDA_R_32F) return static_cast<const float *>(p)[i];
    uint16_t bits = static_cast<const uint16_t *>(p)[i];
    if (type == CUDA_R_16BF) {
        const uint32_t high = (uint32_t)bits << 16;
        float f;
        memcpy(&f, &high, sizeof f);
        return f;
    }
    const int exponent = bits >> 10 & 31, part = bits & 1023;
    const float size = exponent == 31 ? (part ? NAN : INFINITY)
                       : exponent     ? ldexpf((float)(1024 + part), exponent - 25)
                                      : ldexpf((float)part, -24);
    return bits >> 15 ? -size : size;
}

/* To 10 bits behind the point, ties to even: what TF32 leaves of a factor. */
static float tf32(float f) {
    uint32_t bits;
    memcpy(&bits, &f, sizeof bits);
    if ((bits >> 23 & 255) == 255) return f;
    bits += 0xfff + (bits >> 13 & 1);
    bits &= ~0x1fffu;
    memcpy(&f, &bits, sizeof f);
    return f;
}

struct task {
    problem p;
    float alpha, beta;
    const void *a, *b, *c, *bias;
    void *d;
    float *partial; /* [m * n] of the workspace, or NULL */
};

/* Steps of op(l)'s rows and columns. */
static void steps(const layout &l, bool turned, int64_t *row, int64_t *col) {
    *row = l.order == CUBLASLT_ORDER_COL ? 1 : l.ld;
    *col = l.order == CUBLASLT_ORDER_COL ? l.ld : 1;
    if (turned) std::swap(*row, *col);
}

/* Rows of op(A), or columns of op(B), as they are multiplied: n of k floats. */
static std::vector<float> factors(const task &t, const void *from, uint32_t type, int64_t n, int64_t k, int64_t step, int64_t along) {
    std::vector<float> out((size_t)(n * k));
    const bool rounds = t.p.op.compute == CUBLAS_COMPUTE_32F_FAST_TF32;
    for (int64_t i = 0; i < n; i++)
        for (int64_t l = 0; l < k; l++) {
            const float x = wide(from, type, i * step + l * along);
            out[(size_t)(i * k + l)] = rounds ? tf32(x) : x;
        }
    return out;
}

/* Eight sums side by side, then what is left. */
static float dot(const float *x, const float *y, int64_t n) {
    typedef float eight __attribute__((vector_size(32)));
    eight sums = {}, a, b;
    int64_t l = 0;
    for (; l + 8 <= n; l += 8) {
        memcpy(&a, x + l, sizeof a);
        memcpy(&b, y + l, sizeof b);
        sums += a * b;
    }
    float sum = 0;
    for (int i = 0; i < 8; i++) sum += sums[i];
    for (; l < n; l++) sum += x[l] * y[l];
    return sum;
}

static void multiply(const task &t) {
    const problem &p = t.p;
    int64_t ar, ac, br, bc, cr, cc, dr, dc;
    steps(p.a, p.op.trans[0] != CUBLAS_OP_N, &ar, &ac);
    steps(p.b, p.op.trans[1] != CUBLAS_OP_N, &br, &bc);
    steps(p.c, false, &cr, &cc);
    steps(p.d, false, &dr, &dc);
    const int64_t m = (int64_t)p.m, n = (int64_t)p.n, k = (int64_t)p.k, half = t.partial ? k / 2 : 0;
    const std::vector<float> a = factors(t, t.a, p.a.type, m, k, ar, ac), b = factors(t, t.b, p.b.type, n, k, bc, br);
    for (int64_t j = 0; t.partial && j < n; j++)
        for (int64_t i = 0; i < m; i++) t.partial[j * m + i] = dot(&a[(size_t)(i * k)], &b[(size_t)(j * k)], half);
    for (int64_t j = 0; j < n; j++)
        for (int64_t i = 0; i < m; i++) {
            float sum = dot(&a[(size_t)(i * k + half)], &b[(size_t)(j * k + half)], k - half);
            if (t.partial) sum += t.partial[j * m + i];
            sum *= t.alpha;
            if (t.beta != 0) sum += t.beta * static_cast<const float *>(t.c)[i * cr + j * cc];
            if (t.bias) sum += static_cast<const float *>(t.bias)[i];
            static_cast<float *>(t.d)[i * dr + j * dc] = sum;
        }
}

static bool lies_on(const void *p, uint32_t align) { return reinterpret_cast<uintptr_t>(p) % align == 0; }

/* ---- the interface ---- */

extern "C" {

cublasStatus_t cublasLtCreate(cublasLtHandle_t *h) { return create(h, context{CONTEXT}); }
cublasStatus_t cublasLtDestroy(cublasLtHandle_t h) { return destroy<context>(h, CONTEXT); }
size_t cublasLtGetVersion(void) { return 130000; }

cublasStatus_t cublasLtMatmulDescCreate(cublasLtMatmulDesc_t *op, cublasComputeType_t compute, cudaDataType_t scale) {
    return create(op, op_desc{OP, compute, scale, CUBLASLT_POINTER_MODE_HOST, {}, -1, CUBLASLT_EPILOGUE_DEFAULT, nullptr});
}
cublasStatus_t cublasLtMatmulDescDestroy(cublasLtMatmulDesc_t op) { return destroy<op_desc>(op, OP); }
cublasStatus_t cublasLtMatmulDescSetAttribute(cublasLtMatmulDesc_t op, cublasLtMatmulDescAttributes_t what, const void *value, size_t bytes) {
    op_desc *o = as<op_desc>(op, OP);
    if (!o) return invalid("a descriptor that is none");
    switch (what) {
    case CUBLASLT_MATMUL_DESC_COMPUTE_TYPE: return set(&o->compute, value, bytes);
    case CUBLASLT_MATMUL_DESC_SCALE_TYPE: return set(&o->scale, value, bytes);
    case CUBLASLT_MATMUL_DESC_POINTER_MODE: return set(&o->pointer_mode, value, bytes);
    case CUBLASLT_MATMUL_DESC_TRANSA: return set(&o->trans[0], value, bytes);
    case CUBLASLT_MATMUL_DESC_TRANSB: return set(&o->trans[1], value, bytes);
    case CUBLASLT_MATMUL_DESC_TRANSC: return set(&o->trans[2], value, bytes);
    case CUBLASLT_MATMUL_DESC_EPILOGUE: return set(&o->epilogue, value, bytes);
    case CUBLASLT_MATMUL_DESC_BIAS_POINTER: return set(&o->bias, value, bytes);
    case CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE: return set(&o->bias_type, value, bytes);
    }
    return invalid("attribute %d of a product", (int)what);
}

cublasStatus_t cublasLtMatrixLayoutCreate(cublasLtMatrixLayout_t *l, cudaDataType_t type, uint64_t rows, uint64_t cols, int64_t ld) {
    return create(l, layout{LAYOUT, (uint32_t)type, CUBLASLT_ORDER_COL, rows, cols, ld});
}
cublasStatus_t cublasLtMatrixLayoutDestroy(cublasLtMatrixLayout_t l) { return destroy<layout>(l, LAYOUT); }
cublasStatus_t cublasLtMatrixLayoutSetAttribute(cublasLtMatrixLayout_t h, cublasLtMatrixLayoutAttribute_t what, const void *value, size_t bytes) {
    layout *l = as<layout>(h, LAYOUT);
    if (!l) return invalid("a layout that is none");
    switch (what) {
    case CUBLASLT_MATRIX_LAYOUT_TYPE: return set(&l->type, value, bytes);
    case CUBLASLT_MATRIX_LAYOUT_ORDER: return set(&l->order, value, bytes);
    case CUBLASLT_MATRIX_LAYOUT_ROWS: return set(&l->rows, value, bytes);
    case CUBLASLT_MATRIX_LAYOUT_COLS: return set(&l->cols, value, bytes);
    case CUBLASLT_MATRIX_LAYOUT_LD: return set(&l->ld, value, bytes);
    }
    return invalid("attribute %d of a layout", (int)what);
}

cublasStatus_t cublasLtMatmulPreferenceCreate(cublasLtMatmulPreference_t *p) {
    return create(p, preference{PREFERENCE, 0, 0, {256, 256, 256, 256}});
}
cublasStatus_t cublasLtMatmulPreferenceDestroy(cublasLtMatmulPreference_t p) { return destroy<preference>(p, PREFERENCE); }
cublasStatus_t cublasLtMatmulPreferenceSetAttribute(cublasLtMatmulPreference_t h, cublasLtMatmulPreferenceAttributes_t what,
                                                    const void *value, size_t bytes) {
    preference *p = as<preference>(h, PREFERENCE);
    if (!p) return invalid("a preference that is none");
    switch (what) {
    case CUBLASLT_MATMUL_PREF_SEARCH_MODE: return set(&p->search, value, bytes);
    case CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES: return set(&p->workspace, value, bytes);
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES: return set(&p->align[0], value, bytes);
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES: return set(&p->align[1], value, bytes);
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES: return set(&p->align[2], value, bytes);
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES: return set(&p->align[3], value, bytes);
    }
    return invalid("attribute %d of a preference", (int)what);
}

cublasStatus_t cublasLtMatmulAlgoGetHeuristic(cublasLtHandle_t h, cublasLtMatmulDesc_t op, cublasLtMatrixLayout_t a, cublasLtMatrixLayout_t b,
                                              cublasLtMatrixLayout_t c, cublasLtMatrixLayout_t d, cublasLtMatmulPreference_t pref,
                                              int n_wanted, cublasLtMatmulHeuristicResult_t *results, int *n) {
    problem p;
    state.n_heuristics++;
    const cublasStatus_t e = describe(h, op, a, b, c, d, &p);
    if (e != CUBLAS_STATUS_SUCCESS) return e;
    const preference *want = as<preference>(pref, PREFERENCE);
    if (!want || n_wanted < 1 || !results || !n) return invalid("a question without room for its answer");
    state.heuristic_cols = p.n;
    const layout *l[4] = {&p.a, &p.b, &p.c, &p.d};
    for (int i = 0; i < 4; i++) {
        if (!want->align[i] || (want->align[i] & (want->align[i] - 1))) return invalid("an alignment of %u", want->align[i]);
        if (want->align[i] < size_of(l[i]->type)) return CUBLAS_STATUS_NOT_SUPPORTED;
    }
    const bool bias = p.op.epilogue == CUBLASLT_EPILOGUE_BIAS;
    if (bias && !lies_on(p.op.bias, sizeof(float))) return CUBLAS_STATUS_NOT_SUPPORTED;
    *n = 0;
    if (state.no_algorithm || (bias && (state.no_bias || p.m % 2))) return CUBLAS_STATUS_NOT_SUPPORTED;
    uint64_t room = p.m * p.n * sizeof(float);
    if (room > want->workspace || p.k < 2) room = 0;
    const algorithm best = {ALGORITHM, mark_of(p), p.n, room, {want->align[0], want->align[1], want->align[2], want->align[3]}};
    memset(&results[0], 0, sizeof results[0]);
    memcpy(&results[0].algo, &best, sizeof best);
    results[0].workspaceSize = best.workspace;
    results[0].state = CUBLAS_STATUS_SUCCESS;
    results[0].wavesCount = 1;
    *n = 1;
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmul(cublasLtHandle_t h, cublasLtMatmulDesc_t op, const void *alpha, const void *a, cublasLtMatrixLayout_t a_layout,
                              const void *b, cublasLtMatrixLayout_t b_layout, const void *beta, const void *c,
                              cublasLtMatrixLayout_t c_layout, void *d, cublasLtMatrixLayout_t d_layout, const cublasLtMatmulAlgo_t *algo,
                              void *workspace, size_t workspace_bytes, cudaStream_t stream) {
    task t = {};
    const cublasStatus_t e = describe(h, op, a_layout, b_layout, c_layout, d_layout, &t.p);
    if (e != CUBLAS_STATUS_SUCCESS) return e;
    if (!alpha || !beta || !a || !b || !d) return invalid("a pointer that is not there");
    memcpy(&t.alpha, alpha, sizeof t.alpha);
    memcpy(&t.beta, beta, sizeof t.beta);
    if (t.beta != 0 && !c) return invalid("beta, and no C");
    if (c == d && !same(t.p.c, t.p.d)) return invalid("C in the place of D, laid out another way");
    algorithm how;
    if (!algo) return CUBLAS_STATUS_NOT_SUPPORTED; /* allowed, but then the library asks its heuristic in every call */
    memcpy(&how, algo, sizeof how);
    if (how.tag != ALGORITHM) return invalid("an algorithm that is none");
    if (how.of != mark_of(t.p)) return invalid("an algorithm for another product");
    if (state.exact_only && how.cols != t.p.n) return CUBLAS_STATUS_NOT_SUPPORTED;
    const uint64_t room = how.workspace ? t.p.m * t.p.n * sizeof(float) : 0;
    if (room > workspace_bytes || (room && !workspace)) return invalid("a workspace of %zu bytes in the place of %zu", workspace_bytes, (size_t)room);
    if (workspace && !lies_on(workspace, 256)) return invalid("a workspace that is not aligned to 256 bytes");
    const void *all[4] = {a, b, c, d};
    for (int i = 0; i < 4; i++)
        if (!lies_on(all[i], how.align[i])) return invalid("matrix %c is not aligned to %u bytes as promised", "ABCD"[i], how.align[i]);
    const bool bias = t.p.op.epilogue == CUBLASLT_EPILOGUE_BIAS;
    if (bias && !t.p.op.bias) return invalid("a bias that is nowhere");
    if (t.p.d.type != CUDA_R_32F) return CUBLAS_STATUS_NOT_SUPPORTED; /* by this library */
    t.a = a, t.b = b, t.c = c, t.d = d;
    t.bias = bias ? t.p.op.bias : nullptr;
    t.partial = room ? static_cast<float *>(workspace) : nullptr;
    state.n_matmuls++;
    state.compute = t.p.op.compute;
    return emu_launch(nullptr, dim3(1), dim3(1), 0, stream, [t] { multiply(t); }) == cudaSuccess
               ? CUBLAS_STATUS_SUCCESS
               : CUBLAS_STATUS_EXECUTION_FAILED;
}

} /* extern "C" */
