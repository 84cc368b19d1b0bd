/* blas.c - see blas.h. cuBLASLt by dlopen, so that the program starts on machines without it.
 *
 * What a shape needs (descriptors and the algorithm that the library's heuristic names) is kept for the next time. The
 * workspace has its size from the beginning: nothing is allocated while a stream is being captured. The library works
 * column by column, so y^T [out, rows] = w^T' x^T: w is its transposed first factor, and a bias runs along its rows.
 * Thread: the ctx owner's. Owner: cuda_blas of all it makes. */
#include "kernels/cuda/blas.h"

#include <cuda_runtime_api.h>

#include "kernels/ops.h"

#ifndef VLMD_CUDA_EMU /* tests/cuda_emu has its own */
#if defined(__has_include) && __has_include(<cublasLt.h>)
#include <cublasLt.h>
#include <dlfcn.h>
#include <glob.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { PLANS = 256 };
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
    int64_t y_ld, x_ld, w_ld, rows, k, out;
    uint32_t y_align, x_align, w_align, bias_align; /* 0: no bias */
    int32_t t, add;
} plan_key;

typedef struct plan {
    plan_key key;
    bool used, works;
    cublasLtMatmulDesc_t op;
    cublasLtMatrixLayout_t w, x, y;
    cublasLtMatmulAlgo_t algo;
} plan;

struct cuda_blas {
    void *library;
    lt_functions lt;
    cublasLtHandle_t handle;
    void *workspace[LANE_LOAD]; /* of the lanes that compute */
    plan plans[PLANS];
    int next; /* the plan that makes way */
    bool warned;
};

/* ---- finding the library ---- */

static bool open_one(cuda_blas *b, const char *path, char *found, size_t size) {
    b->library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (b->library) snprintf(found, size, "%s", path);
    return b->library != NULL;
}

static bool open_matching(cuda_blas *b, const char *pattern, char *found, size_t size) {
    glob_t g;
    bool ok = false;
    if (glob(pattern, 0, NULL, &g) != 0) return false;
    for (size_t i = g.gl_pathc; i > 0 && !ok; i--)
        ok = open_one(b, g.gl_pathv[i - 1], found, size); /* the newest first */
    globfree(&g);
    return ok;
}

/* As the loader finds it, else with the toolkit, else as Python's wheels bring it. */
static bool open_library(cuda_blas *b, char *found, size_t size) {
    static const char *const patterns[] = {
        "/usr/local/cuda/lib64/libcublasLt.so.1[23]",
        "/usr/local/cuda-*/lib64/libcublasLt.so.1[23]",
        "/usr/local/lib/python3*/*-packages/nvidia/cu*/lib/libcublasLt.so.1[23]",
        "/usr/lib/python3*/*-packages/nvidia/cu*/lib/libcublasLt.so.1[23]",
        "/opt/venv/lib/python3*/site-packages/nvidia/cu*/lib/libcublasLt.so.1[23]",
    };
    const char *asked = getenv("VLMD_CUBLASLT"), *venv = getenv("VIRTUAL_ENV"), *home = getenv("CUDA_HOME");
    if (asked && *asked) return open_one(b, asked, found, size);
    if (open_one(b, "libcublasLt.so.13", found, size) || open_one(b, "libcublasLt.so.12", found, size))
        return true;
    char path[600];
    snprintf(path, sizeof path, "%s/lib64/libcublasLt.so.1[23]", home ? home : "");
    if (home && open_matching(b, path, found, size)) return true;
    snprintf(path, sizeof path, "%s/lib/python3*/site-packages/nvidia/cu*/lib/libcublasLt.so.1[23]",
             venv ? venv : "");
    if (venv && open_matching(b, path, found, size)) return true;
    for (size_t i = 0; i < ARRAY_LEN(patterns); i++)
        if (open_matching(b, patterns[i], found, size)) return true;
    return false;
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
    char path[600] = "";
    const char *asked = getenv("VLMD_CUBLASLT"), *missing = NULL;
    if (!open_library(b, path, sizeof path)) {
        log_warn("many rows go without cuBLASLt, which was not found: %s%s",
                 asked && *asked ? "VLMD_CUBLASLT=" : "",
                 asked && *asked ? asked
                                 : "libcublasLt.so.13 and .12 as the loader looks, under CUDA_HOME, "
                                   "VIRTUAL_ENV, /usr/local/cuda* and "
                                   "Python's nvidia packages; VLMD_CUBLASLT=PATH names another");
        return false;
    }
    if ((missing = missing_function(b))) {
        log_warn("many rows go without cuBLASLt: %s has no %s", path, missing);
        return false;
    }
    cublasStatus_t e = b->lt.Create(&b->handle);
    if (e != CUBLAS_STATUS_SUCCESS) {
        b->handle = NULL;
        log_warn("many rows go without cuBLASLt: %s does not start (status %d)", path, (int)e);
        return false;
    }
    for (int i = 0; i < LANE_LOAD; i++)
        if (cudaMalloc(&b->workspace[i], WORKSPACE) != cudaSuccess) {
            cudaGetLastError();
            log_warn("many rows go without cuBLASLt: no memory for its workspaces of %zu MiB",
                     WORKSPACE >> 20);
            return false;
        }
    log_info("cuBLASLt %zu from %s", b->lt.GetVersion(), path);
    return true;
}

cuda_blas *cuda_blas_new(void) {
    cuda_blas *b = mem_calloc(1, sizeof *b);
    if (b && set_up(b)) return b;
    cuda_blas_free(b);
    return NULL;
}

/* ---- plans ---- */

static void drop(cuda_blas *b, plan *p) {
    if (p->op) b->lt.MatmulDescDestroy(p->op);
    if (p->w) b->lt.MatrixLayoutDestroy(p->w);
    if (p->x) b->lt.MatrixLayoutDestroy(p->x);
    if (p->y) b->lt.MatrixLayoutDestroy(p->y);
    memset(p, 0, sizeof *p);
}

void cuda_blas_free(cuda_blas *b) {
    if (!b) return;
    for (int i = 0; i < PLANS; i++) drop(b, &b->plans[i]);
    if (b->handle) b->lt.Destroy(b->handle);
    for (int i = 0; i < LANE_LOAD; i++) cudaFree(b->workspace[i]);
    if (b->library) dlclose(b->library);
    mem_free(b);
}

/* The largest power of two, up to 256, that a pointer lies on. */
static uint32_t align_of(const void *p) {
    uintptr_t bits = (uintptr_t)p | 256;
    return (uint32_t)(bits & -bits);
}

static plan_key key_of(const blas_gemm *g) {
    plan_key k;
    memset(&k, 0, sizeof k);
    k.y_ld = g->y_ld, k.x_ld = g->x_ld, k.w_ld = g->w_ld;
    k.rows = g->rows, k.k = g->k, k.out = g->out;
    k.y_align = align_of(g->y), k.x_align = align_of(g->x), k.w_align = align_of(g->w);
    k.bias_align = g->bias ? align_of(g->bias) : 0;
    k.t = g->t, k.add = g->add;
    return k;
}

static bool ok(cublasStatus_t e) {
    return e == CUBLAS_STATUS_SUCCESS;
}

static bool point_at_bias(cuda_blas *b, plan *p, const float *bias) {
    return ok(b->lt.MatmulDescSetAttribute(p->op, CUBLASLT_MATMUL_DESC_BIAS_POINTER, &bias, sizeof bias));
}

static bool describe(cuda_blas *b, plan *p, const blas_gemm *g) {
    const cudaDataType_t type = g->t == CUK_F32 ? CUDA_R_32F : g->t == CUK_F16 ? CUDA_R_16F : CUDA_R_16BF;
    const cublasOperation_t turned = CUBLAS_OP_T;
    const cublasLtEpilogue_t with_bias = CUBLASLT_EPILOGUE_BIAS;
    const lt_functions *lt = &b->lt;
    return ok(lt->MatmulDescCreate(&p->op, CUBLAS_COMPUTE_32F, CUDA_R_32F)) &&
           ok(lt->MatmulDescSetAttribute(p->op, CUBLASLT_MATMUL_DESC_TRANSA, &turned, sizeof turned)) &&
           (!g->bias || (ok(lt->MatmulDescSetAttribute(p->op, CUBLASLT_MATMUL_DESC_EPILOGUE, &with_bias,
                                                       sizeof with_bias)) &&
                         point_at_bias(b, p, g->bias))) &&
           ok(lt->MatrixLayoutCreate(&p->w, type, (uint64_t)g->k, (uint64_t)g->out, g->w_ld)) &&
           ok(lt->MatrixLayoutCreate(&p->x, type, (uint64_t)g->k, (uint64_t)g->rows, g->x_ld)) &&
           ok(lt->MatrixLayoutCreate(&p->y, CUDA_R_32F, (uint64_t)g->out, (uint64_t)g->rows, g->y_ld));
}

static bool find_algorithm(cuda_blas *b, plan *p) {
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
    if (!ok(lt->MatmulPreferenceCreate(&want))) return false;
    bool good = ok(lt->MatmulPreferenceSetAttribute(want, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES,
                                                    &workspace, sizeof workspace));
    for (size_t i = 0; i < ARRAY_LEN(align) && good; i++)
        good =
            ok(lt->MatmulPreferenceSetAttribute(want, align[i].what, &align[i].bytes, sizeof align[i].bytes));
    good = good &&
           ok(lt->MatmulAlgoGetHeuristic(b->handle, p->op, p->w, p->x, p->y, p->y, want, 1, &best, &n)) &&
           n > 0 && ok(best.state);
    if (good) p->algo = best.algo;
    lt->MatmulPreferenceDestroy(want);
    return good;
}

static plan *plan_for(cuda_blas *b, const blas_gemm *g) {
    const plan_key key = key_of(g);
    for (int i = 0; i < PLANS && b->plans[i].used; i++)
        if (memcmp(&b->plans[i].key, &key, sizeof key) == 0) return &b->plans[i];
    plan *p = &b->plans[b->next];
    b->next = (b->next + 1) % PLANS;
    drop(b, p);
    p->key = key;
    p->used = true;
    p->works = describe(b, p, g) && find_algorithm(b, p);
    return p;
}

bool cuda_blas_gemm(cuda_blas *b, cuk_stream s, const blas_gemm *g) {
    const float one = 1, beta = g->add ? 1 : 0;
    plan *p = plan_for(b, g);
    bool done = p->works && (!g->bias || point_at_bias(b, p, g->bias)) &&
                ok(b->lt.Matmul(b->handle, p->op, &one, g->w, p->w, g->x, p->x, &beta, g->y, p->y, g->y, p->y,
                                &p->algo, b->workspace[g->lane], WORKSPACE, s));
    if (done) return true;
    p->works = false;
    cudaGetLastError();
    if (!b->warned)
        log_warn("cuBLASLt has nothing for %lld x %lld x %lld%s; such products go without it",
                 (long long)g->rows, (long long)g->k, (long long)g->out, g->bias ? " with a bias" : "");
    b->warned = true;
    return false;
}

#else /* built without the toolkit's header */

cuda_blas *cuda_blas_new(void) {
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

#endif
#endif
