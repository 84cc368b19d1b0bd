/* cpu.c - the CPU backend: which instruction set, memory, weights, work memory. See cpu.h.
 * Owner of everything: the backend, until backend_free. */
#include "kernels/cpu/cpu.h"

#include <cblas.h>
#if defined(__x86_64__)
#include <cpuid.h>
#endif
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static const simd *const all_simd[] = {
#if defined(__x86_64__)
    &simd_avx512, &simd_avx2,
#endif
    &simd_portable};

#if defined(__x86_64__)
/* Not every compiler's __builtin_cpu_supports knows the name. */
static bool has_f16c(void) {
    unsigned a, b, c, d;
    return __get_cpuid(1, &a, &b, &c, &d) && (c & bit_F16C);
}
#endif

static bool machine_has(const simd *s) {
#if defined(__x86_64__)
    __builtin_cpu_init();
    bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && has_f16c();
    if (s == &simd_avx2) return avx2;
    if (s == &simd_avx512)
        return avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
               __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
#endif
    return s == &simd_portable;
}

static const simd *choose_simd(const char *want, status *st) {
    bool known = false;
    for (size_t i = 0; i < ARRAY_LEN(all_simd); i++) {
        if (want && strcmp(want, all_simd[i]->name) != 0) continue;
        known = true;
        if (machine_has(all_simd[i])) return all_simd[i];
    }
    status_set(st, ST_UNSUPPORTED,
               known ? "this machine does not have the instruction set '%s'"
                     : "unknown instruction set '%s'; known are avx512, avx2, portable",
               want);
    return NULL;
}

static void cpu_free(backend *b) {
    cpu_backend *be = (cpu_backend *)b;
    pool_free(be->pool);
    mem_free(be->work);
    mem_free(be);
}

/* The system hands out large memory zeroed and gives it real pages when they are first written: a KV cache of
 * gigabytes costs nothing at start. The block's own address stands in front of the aligned one. */
static void *cpu_alloc(backend *be, size_t bytes, status *st) {
    (void)be;
    const size_t huge = (size_t)2 << 20;
    const bool large = bytes >= 2 * huge;
    const size_t align = large ? huge : 64;
    uint8_t *block = bytes < SIZE_MAX / 2 ? mem_calloc(1, bytes + align + sizeof(void *)) : NULL;
    if (!block) {
        status_set(st, ST_NO_MEMORY, "no memory for %zu bytes", bytes);
        return NULL;
    }
    uint8_t *p = (uint8_t *)(((uintptr_t)block + sizeof(void *) + align - 1) & ~(uintptr_t)(align - 1));
    memcpy(p - sizeof block, &block, sizeof block);
    /* Pages of keys are walked with long strides; a hint, may fail. */
    if (large) madvise(p, bytes & ~(huge - 1), MADV_HUGEPAGE);
    return p;
}

static void cpu_release(backend *be, void *p) {
    (void)be;
    if (!p) return;
    void *block;
    memcpy(&block, (uint8_t *)p - sizeof block, sizeof block);
    mem_free(block);
}

static bool cpu_weight_init(weight *w, const tensor *host, status *st) {
    w->data = host->data;
    if (!(w->use & WEIGHT_VECTOR)) return true;
    int64_t n = w->rows * w->cols;
    w->vec = mem_aligned(64, (size_t)n * sizeof(float));
    if (!w->vec)
        return status_set(st, ST_NO_MEMORY, "no memory for a parameter of %lld numbers", (long long)n);
    const uint8_t *src = host->data;
    size_t size = dtype_size(w->dt);
    for (int64_t r = 0; r < w->rows; r++)
        simd_portable.widen(w->vec + r * w->cols, src + (size_t)(r * w->ld) * size, w->dt, w->cols);
    if (w->use == WEIGHT_VECTOR) w->data = NULL;
    return true;
}

static void cpu_weight_fini(weight *w) {
    mem_free(w->vec);
}

static void cpu_upload(ctx *c, tensor dst, const void *src) {
    (void)c;
    memcpy(dst.data, src, (size_t)tensor_count(&dst) * dtype_size(dst.dt));
}

static void cpu_download(ctx *c, void *dst, tensor src) {
    (void)c;
    memcpy(dst, src.data, (size_t)tensor_count(&src) * dtype_size(src.dt));
}

static void cpu_sync(ctx *c) {
    (void)c;
}

bool cpu_work(ctx *c, size_t shared, size_t each) {
    cpu_backend *be = cpu_of(c);
    /* A page apart, so that threads share no cache line and no prefetch. */
    shared = (shared + 4095) & ~(size_t)4095;
    each = (each + 4096 + 4095) & ~(size_t)4095;
    size_t need = shared + each * (size_t)be->threads;
    if (need > be->work_cap) {
        mem_free(be->work);
        be->work_cap = 0;
        be->work = mem_aligned(4096, need);
        if (!be->work) return status_set(&c->st, ST_NO_MEMORY, "no work memory of %zu bytes", need);
        be->work_cap = need;
    }
    be->thread_off = shared;
    be->thread_bytes = each;
    return true;
}

typedef struct range_job {
    cpu_range_fn fn;
    void *arg;
    int64_t n, piece;
} range_job;

static void range_tile(void *arg, int64_t tile, int thread) {
    const range_job *j = arg;
    int64_t from = tile * j->piece;
    j->fn(j->arg, from, min_i64(from + j->piece, j->n), thread);
}

void cpu_for(cpu_backend *be, int64_t n, int64_t piece, double cost, cpu_range_fn fn, void *arg) {
    if (n <= 0) return;
    if (piece >= n || be->threads == 1 || cost < 16384) { /* a few microseconds of work */
        fn(arg, 0, n, 0);
        return;
    }
    range_job j = {fn, arg, n, piece};
    pool_run(be->pool, ceil_div(n, piece), range_tile, &j);
}

static const backend_ops cpu_ops = {
    .free = cpu_free,
    .alloc = cpu_alloc,
    .release = cpu_release,
    .weight_init = cpu_weight_init,
    .weight_fini = cpu_weight_fini,
    .upload = cpu_upload,
    .download = cpu_download,
    .sync = cpu_sync,
    .linear = cpu_linear,
    .norm = cpu_norm,
    .add_norm = cpu_add_norm,
    .add = cpu_add,
    .copy = cpu_copy,
    .act = cpu_act,
    .softcap = cpu_softcap,
    .glu = cpu_glu,
    .embed = cpu_embed,
    .gather = cpu_gather,
    .mix = cpu_mix,
    .rope_table = cpu_rope_table,
    .rope = cpu_rope,
    .kv_write = cpu_kv_write,
    .rope_kv_write = cpu_rope_kv_write,
    .attn = cpu_attn,
    .patchify = cpu_patchify,
    .pair_loss = cpu_pair_loss,
    .sample = cpu_sample,
    .next_ids = cpu_next_ids,
};

/* A linear op packs its weights once for 128 rows; smaller blocks cost a tower 5 (96) and 10 (64) per cent. */
enum { ENCODE_ROWS = 128 };

backend *cpu_backend_new(const backend_options *o, status *st) {
    const char *isa = o->isa ? o->isa : getenv("VLMD_ISA");
    if (isa && !isa[0]) isa = NULL;
    const simd *s = choose_simd(isa, st);
    if (!s) return NULL;
    long online = sysconf(_SC_NPROCESSORS_ONLN);
    int threads = o->threads > 0 ? o->threads : online > 0 ? (int)online : 1;
    if (threads > 1024) {
        status_set(st, ST_INVALID, "expected at most 1024 threads, found %d", threads);
        return NULL;
    }
    cpu_backend *be = mem_calloc(1, sizeof *be);
    if (!be) {
        status_set(st, ST_NO_MEMORY, "no memory for the backend");
        return NULL;
    }
    be->base.ops = &cpu_ops;
    be->base.encode_rows = o->encode_rows > 0 ? o->encode_rows : ENCODE_ROWS;
    be->simd = s;
    be->threads = threads;
    be->pool = pool_new(threads, st);
    if (!be->pool) {
        mem_free(be);
        return NULL;
    }
    openblas_set_num_threads(1); /* tiles are spread by our pool, or bits would depend on the thread count */
    snprintf(be->base.about, sizeof be->base.about, "cpu %s, %d thread%s", s->name, threads,
             threads == 1 ? "" : "s");
    return &be->base;
}
