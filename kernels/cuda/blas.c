/* blas.c - see blas.h. cuBLASLt by dlopen, so that the program starts on machines without it.
 *
 * What a product needs is kept for the next time as a plan: descriptors, and the algorithm that the library's heuristic names for
 * a bucket of rows (32, 64, 128, ...), which all row counts in it use. Where the library refuses it for some count, it is asked
 * for that one, once. The workspace has its size from the beginning: nothing is allocated while a stream is being captured. The
 * library works column by column, so y^T [out, rows] = w^T' x^T: w is its transposed first factor, a bias runs along its rows,
 * and rows are columns of its second factor and its result.
 * Thread: the ctx owner's. Owner: cuda_blas of all it makes. */
#include "kernels/cuda/blas.h"

#include <cuda_runtime_api.h>

#include "kernels/ops.h"

#if defined(__has_include) && __has_include(<cublasLt.h>)
#include <cublasLt.h>
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SLOTS = 512, LEAST_ROWS = 32, ALIGNED = 16 };
#define WORKSPACE ((size_t)32 << 20)

#define FUNCTIONS(X)                                                                                         \
    X(Create)                                                                                                \
    X(Destroy)                                                                                               \
    X(GetVersion)                                                                                            \
    X(Matmul)                                                                                                \
    X(MatmulDescCreate)                                                                                      \
    X(MatmulDescDestroy)                                                                                     \
    X(MatmulDescSetAttribute)                                                                                \
    X(MatrixLayoutCreate)                                                                                    \
    X(MatrixLayoutDestroy)                                                                                   \
    X(MatrixLayoutSetAttribute)                                                                              \
    X(MatmulPreferenceCreate)                                                                                \
    X(MatmulPreferenceDestroy)                                                                               \
    X(MatmulPreferenceSetAttribute)                                                                          \
    X(MatmulAlgoGetHeuristic)

typedef struct lt_functions {
#define MEMBER(name) __typeof__(&cublasLt##name) name;
    FUNCTIONS(MEMBER)
#undef MEMBER
} lt_functions;

/* All of it is compared as bytes: zeroed before it is filled. */
typedef struct plan_key {
    int64_t y_ld, x_ld, w_ld, bucket, k, out;
    uint32_t y_align, x_align, w_align, bias_align; /* 0: no bias */
    int32_t t;
} plan_key;

typedef struct way { /* an algorithm, for a bucket or for one count of rows in it */
    int64_t rows;
    bool works;
    cublasLtMatmulAlgo_t algo;
    struct way *next;
} way;

typedef struct plan {
    plan_key key;
    cublasLtMatmulDesc_t op;
    cublasLtMatrixLayout_t w, x, y; /* x and y of as many rows as were last asked for */
    way bucket;                     /* its next: those of exact rows */
    struct plan *next;              /* in its slot */
} plan;

struct cuda_blas {
    void *library;
    lt_functions lt;
    cublasLtHandle_t handle;
    bool tf32;
    void *workspace[LANE_LOAD]; /* of the lanes that compute */
    plan *slots[SLOTS];         /* by a hash of the key */
    int n_plans;
    bool warned;
};

/* ---- the library ---- */

typedef struct found {
    void *library;
    char path[600];
} found;

static bool open_one(void *user, const char *path) {
    found *f = user;
    f->library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (f->library) snprintf(f->path, sizeof f->path, "%s", path);
    return f->library != NULL;
}

static const char *missing_function(cuda_blas *b) {
#define LOOK_UP(name)                                                                                        \
    *(void **)&b->lt.name = dlsym(b->library, "cublasLt" #name);                                             \
    if (!b->lt.name) return "cublasLt" #name;
    FUNCTIONS(LOOK_UP)
#undef LOOK_UP
    return NULL;
}

static bool set_up(cuda_blas *b) {
    found f = {0};
    const char *asked = getenv("VLMD_CUBLASLT"), *missing = NULL;
    if (!cuda_blas_find(open_one, &f)) {
        if (asked && *asked)
            log_warn("many rows go without cuBLASLt: VLMD_CUBLASLT=%s cannot be loaded", asked);
        else
            log_warn(
                "many rows go without cuBLASLt, which was not found: libcublasLt.so.13 and .12 as the loader "
                "looks, under CUDA_HOME, VIRTUAL_ENV, CONDA_PREFIX, /usr/local/cuda* and Python's nvidia "
                "packages; VLMD_CUBLASLT=PATH names another");
        return false;
    }
    b->library = f.library;
    if ((missing = missing_function(b))) {
        log_warn("many rows go without cuBLASLt: %s has no %s; VLMD_CUBLASLT=PATH names another", f.path,
                 missing);
        return false;
    }
    cublasStatus_t e = b->lt.Create(&b->handle);
    if (e != CUBLAS_STATUS_SUCCESS) {
        b->handle = NULL;
        log_warn("many rows go without cuBLASLt: %s does not start (status %d)", f.path, (int)e);
        return false;
    }
    for (int i = 0; i < LANE_LOAD; i++)
        if (cudaMalloc(&b->workspace[i], WORKSPACE) != cudaSuccess) {
            cudaGetLastError();
            log_warn("many rows go without cuBLASLt: no memory for its workspaces of %zu MiB",
                     WORKSPACE >> 20);
            return false;
        }
    log_info("cuBLASLt %zu from %s%s", b->lt.GetVersion(), f.path,
             b->tf32 ? "; products of f32 weights in TF32" : "");
    return true;
}

cuda_blas *cuda_blas_new(bool tf32) {
    cuda_blas *b = mem_calloc(1, sizeof *b);
    if (b) b->tf32 = tf32;
    if (b && set_up(b)) return b;
    cuda_blas_free(b);
    return NULL;
}

static void drop(cuda_blas *b, plan *p) {
    for (way *w = p->bucket.next, *next; w; w = next) {
        next = w->next;
        mem_free(w);
    }
    if (p->op) b->lt.MatmulDescDestroy(p->op);
    if (p->w) b->lt.MatrixLayoutDestroy(p->w);
    if (p->x) b->lt.MatrixLayoutDestroy(p->x);
    if (p->y) b->lt.MatrixLayoutDestroy(p->y);
    mem_free(p);
}

void cuda_blas_free(cuda_blas *b) {
    if (!b) return;
    for (int i = 0; i < SLOTS; i++)
        for (plan *p = b->slots[i], *next; p; p = next) {
            next = p->next;
            drop(b, p);
        }
    if (b->handle) b->lt.Destroy(b->handle);
    for (int i = 0; i < LANE_LOAD; i++) cudaFree(b->workspace[i]);
    if (b->library) dlclose(b->library);
    mem_free(b);
}

int cuda_blas_plans(const cuda_blas *b) {
    return b->n_plans;
}

/* ---- plans ---- */

/* The largest power of two that a pointer lies on, up to 16: a thread loads no more at once, and the units that copy blocks ask
 * for no more. Beyond that it is where a step's shape happens to put its rows that would make plans. */
static uint32_t align_of(const void *p) {
    uintptr_t bits = (uintptr_t)p | ALIGNED;
    return (uint32_t)(bits & -bits);
}

static int64_t bucket_of(int64_t rows) {
    int64_t bucket = LEAST_ROWS;
    while (bucket < rows) bucket *= 2;
    return bucket;
}

static plan_key key_of(const blas_gemm *g) {
    plan_key k;
    memset(&k, 0, sizeof k);
    k.y_ld = g->y_ld, k.x_ld = g->x_ld, k.w_ld = g->w_ld;
    k.bucket = bucket_of(g->rows), k.k = g->k, k.out = g->out;
    k.y_align = align_of(g->y), k.x_align = align_of(g->x), k.w_align = align_of(g->w);
    k.bias_align = g->bias ? align_of(g->bias) : 0;
    k.t = g->t;
    return k;
}

static size_t slot_of(const plan_key *k) {
    const uint8_t *at = (const uint8_t *)k;
    uint32_t h = 2166136261u;
    for (size_t i = 0; i < sizeof *k; i++) h = (h ^ at[i]) * 16777619u;
    return h % SLOTS;
}

static bool ok(cublasStatus_t e) {
    return e == CUBLAS_STATUS_SUCCESS;
}

static bool point_at_bias(cuda_blas *b, plan *p, const float *bias) {
    return ok(b->lt.MatmulDescSetAttribute(p->op, CUBLASLT_MATMUL_DESC_BIAS_POINTER, &bias, sizeof bias));
}

static bool describe(cuda_blas *b, plan *p, const blas_gemm *g) {
    const cudaDataType_t type = g->t == CUK_F32 ? CUDA_R_32F : g->t == CUK_F16 ? CUDA_R_16F : CUDA_R_16BF;
    const cublasComputeType_t compute =
        b->tf32 && g->t == CUK_F32 ? CUBLAS_COMPUTE_32F_FAST_TF32 : CUBLAS_COMPUTE_32F;
    const cublasOperation_t turned = CUBLAS_OP_T;
    const cublasLtEpilogue_t with_bias = CUBLASLT_EPILOGUE_BIAS;
    const lt_functions *lt = &b->lt;
    const uint64_t rows = (uint64_t)p->key.bucket;
    return ok(lt->MatmulDescCreate(&p->op, compute, CUDA_R_32F)) &&
           ok(lt->MatmulDescSetAttribute(p->op, CUBLASLT_MATMUL_DESC_TRANSA, &turned, sizeof turned)) &&
           (!g->bias || (ok(lt->MatmulDescSetAttribute(p->op, CUBLASLT_MATMUL_DESC_EPILOGUE, &with_bias,
                                                       sizeof with_bias)) &&
                         point_at_bias(b, p, g->bias))) &&
           ok(lt->MatrixLayoutCreate(&p->w, type, (uint64_t)g->k, (uint64_t)g->out, g->w_ld)) &&
           ok(lt->MatrixLayoutCreate(&p->x, type, (uint64_t)g->k, rows, g->x_ld)) &&
           ok(lt->MatrixLayoutCreate(&p->y, CUDA_R_32F, (uint64_t)g->out, rows, g->y_ld));
}

static bool set_rows(cuda_blas *b, plan *p, int64_t rows) {
    const uint64_t n = (uint64_t)rows;
    return ok(b->lt.MatrixLayoutSetAttribute(p->x, CUBLASLT_MATRIX_LAYOUT_COLS, &n, sizeof n)) &&
           ok(b->lt.MatrixLayoutSetAttribute(p->y, CUBLASLT_MATRIX_LAYOUT_COLS, &n, sizeof n));
}

static bool find_algorithm(cuda_blas *b, plan *p, way *to) {
    const struct {
        cublasLtMatmulPreferenceAttributes_t what;
        uint32_t bytes;
    } align[] = {{CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, p->key.w_align},
                 {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, p->key.x_align},
                 {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, p->key.y_align},
                 {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, p->key.y_align}};
    const size_t workspace = WORKSPACE;
    const lt_functions *lt = &b->lt;
    cublasLtMatmulPreference_t want;
    cublasLtMatmulHeuristicResult_t best;
    int n = 0;
    if (!set_rows(b, p, to->rows) || !ok(lt->MatmulPreferenceCreate(&want))) return false;
    bool good = ok(lt->MatmulPreferenceSetAttribute(want, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES,
                                                    &workspace, sizeof workspace));
    for (size_t i = 0; i < ARRAY_LEN(align) && good; i++)
        good =
            ok(lt->MatmulPreferenceSetAttribute(want, align[i].what, &align[i].bytes, sizeof align[i].bytes));
    good = good &&
           ok(lt->MatmulAlgoGetHeuristic(b->handle, p->op, p->w, p->x, p->y, p->y, want, 1, &best, &n)) &&
           n > 0 && ok(best.state);
    if (good) to->algo = best.algo;
    lt->MatmulPreferenceDestroy(want);
    return good;
}

static bool is_aligned(const plan_key *k) {
    return k->y_align == ALIGNED && k->x_align == ALIGNED && k->w_align == ALIGNED &&
           (k->bias_align == ALIGNED || !k->bias_align);
}

/* NULL: there is no memory. */
static plan *plan_for(cuda_blas *b, const blas_gemm *g) {
    const plan_key key = key_of(g);
    plan **slot = &b->slots[slot_of(&key)];
    for (plan *p = *slot; p; p = p->next)
        if (memcmp(&p->key, &key, sizeof key) == 0) return p;
    plan *p = mem_calloc(1, sizeof *p);
    if (!p) return NULL;
    p->key = key;
    p->next = *slot;
    *slot = p;
    b->n_plans += is_aligned(&key);
    p->bucket.rows = key.bucket;
    p->bucket.works = describe(b, p, g) && find_algorithm(b, p, &p->bucket);
    return p;
}

/* That of these rows alone, which is looked for when `make` is set. */
static way *exact_way(cuda_blas *b, plan *p, int64_t rows, bool make) {
    way *w = p->bucket.next;
    while (w && w->rows != rows) w = w->next;
    if (w || !make || !(w = mem_calloc(1, sizeof *w))) return w;
    w->rows = rows;
    w->next = p->bucket.next;
    p->bucket.next = w;
    w->works = find_algorithm(b, p, w);
    return w;
}

/* ---- products ---- */

static cublasStatus_t multiply(cuda_blas *b, plan *p, const way *w, cuk_stream s, const blas_gemm *g) {
    const float one = 1, beta = g->add ? 1 : 0;
    if (!set_rows(b, p, g->rows) || (g->bias && !point_at_bias(b, p, g->bias)))
        return CUBLAS_STATUS_INVALID_VALUE;
    return b->lt.Matmul(b->handle, p->op, &one, g->w, p->w, g->x, p->x, &beta, g->y, p->y, g->y, p->y,
                        &w->algo, b->workspace[g->lane], WORKSPACE, s);
}

/* By w or, where the library refuses that for these rows, by a way of their own. */
static bool by_plan(cuda_blas *b, plan *p, cuk_stream s, const blas_gemm *g) {
    way *w = exact_way(b, p, g->rows, false);
    if (!w) {
        if (!p->bucket.works) return false;
        const cublasStatus_t e = multiply(b, p, &p->bucket, s, g);
        if (ok(e)) return true;
        cudaGetLastError();
        if (e != CUBLAS_STATUS_NOT_SUPPORTED && e != CUBLAS_STATUS_INVALID_VALUE) return false;
        w = exact_way(b, p, g->rows, true);
    }
    if (!w || !w->works) return false;
    w->works = ok(multiply(b, p, w, s, g));
    if (!w->works) cudaGetLastError();
    return w->works;
}

bool cuda_blas_gemm(cuda_blas *b, cuk_stream s, const blas_gemm *g) {
    plan *p = plan_for(b, g);
    if (p && by_plan(b, p, s, g)) return true;
    if (!b->warned)
        log_warn("cuBLASLt has nothing for %lld x %lld x %lld%s; such products go without it",
                 (long long)g->rows, (long long)g->k, (long long)g->out, g->bias ? " with a bias" : "");
    b->warned = true;
    return false;
}

#else /* built without the toolkit's header */

cuda_blas *cuda_blas_new(bool tf32) {
    (void)tf32;
    log_warn("many rows go without cuBLASLt: this program was built without it");
    return NULL;
}

void cuda_blas_free(cuda_blas *b) {
    (void)b;
}

bool cuda_blas_gemm(cuda_blas *b, cuk_stream s, const blas_gemm *g) {
    (void)b, (void)s, (void)g;
    return false;
}

int cuda_blas_plans(const cuda_blas *b) {
    (void)b;
    return 0;
}

#endif
