/* cpu.h - the CPU backend's inside: worker pool, work memory, the table of inner loops, and its ops.
 *
 * One thread (the owner of the ctx) calls the ops; they spread tiles over the pool. Which tile a number is
 * computed in never depends on the number of threads. */
#ifndef VLMD_KERNELS_CPU_CPU_H
#define VLMD_KERNELS_CPU_CPU_H

#include "kernels/backend.h"
#include "kernels/cpu/pool.h"
#include "kernels/cpu/simd.h"

typedef struct cpu_backend {
    backend base;
    pool *pool;
    const simd *simd;
    int threads;
    /* Work memory: a shared part and one part per thread; grows rarely, lives until cpu_free. */
    uint8_t *work;
    size_t work_cap, thread_off, thread_bytes;
} cpu_backend;

static inline cpu_backend *cpu_of(const ctx *c) {
    return (cpu_backend *)c->be;
}

/* Makes room for `shared` bytes and `each` bytes per thread; false with ST_NO_MEMORY in c->st. What was there
 * is lost. */
bool cpu_work(ctx *c, size_t shared, size_t each);
static inline void *cpu_work_shared(const cpu_backend *be) {
    return be->work;
}
static inline void *cpu_work_thread(const cpu_backend *be, int thread) {
    return be->work + be->thread_off + (size_t)thread * be->thread_bytes;
}

/* fn(arg, from, to, thread) over [0, n) in pieces of `piece`, on the caller alone when `cost` (about one per
 * multiplication or element) is too small to share. */
typedef void (*cpu_range_fn)(void *arg, int64_t from, int64_t to, int thread);
void cpu_for(cpu_backend *be, int64_t n, int64_t piece, double cost, cpu_range_fn fn, void *arg);

static inline int64_t ceil_div(int64_t a, int64_t b) {
    return (a + b - 1) / b;
}
static inline int64_t min_i64(int64_t a, int64_t b) {
    return a < b ? a : b;
}
static inline int64_t max_i64(int64_t a, int64_t b) {
    return a > b ? a : b;
}

/* linear.c */
void cpu_linear(ctx *c, tensor x, const linear_to *to, int n, act a, unsigned flags);
/* attn.c */
void cpu_kv_write(ctx *c, tensor kc, tensor vc, tensor k, tensor v, tensor slots);
void cpu_rope_kv_write(ctx *c, tensor q, tensor k, tensor v, tensor cs, tensor kc, tensor vc, tensor slots);
void cpu_attn(ctx *c, tensor y, tensor q, tensor k, tensor v, const attn_args *a);
/* rows.c */
void cpu_norm(ctx *c, tensor y, tensor x, const weight *gain, const weight *bias, norm_kind kind, float eps,
              float gain_offset);
void cpu_add_norm(ctx *c, tensor x, tensor h, const norm_by *before, const weight *scale, tensor y,
                  const norm_by *after);
void cpu_add(ctx *c, tensor y, tensor x, const weight *gain);
void cpu_copy(ctx *c, tensor y, tensor x);
void cpu_act(ctx *c, tensor y, act a);
void cpu_softcap(ctx *c, tensor y, float cap);
void cpu_glu(ctx *c, tensor y, tensor gate, tensor up, act a);
void cpu_embed(ctx *c, tensor y, const weight *table, tensor ids, float scale, bool add, const row_run *runs,
               int n);
void cpu_gather(ctx *c, tensor y, tensor x, tensor idx);
void cpu_mix(ctx *c, tensor y, tensor x, const weight *table, tensor from, tensor by);
void cpu_rope_table(ctx *c, tensor cs, tensor pos, tensor len, const rope_args *a);
void cpu_rope(ctx *c, tensor x, tensor cs);
void cpu_patchify(ctx *c, tensor x, tensor pixels, const patchify_args *a);
/* loss.c */
void cpu_pair_loss(ctx *c, tensor loss, tensor terms, tensor logits, bool sigmoid);
/* sample.c */
void cpu_sample(ctx *c, tensor logits, tensor rules, tensor results);
void cpu_next_ids(ctx *c, tensor ids, tensor from, tensor results);

#endif
