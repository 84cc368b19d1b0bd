/* cuk.h - the CUDA kernels behind the op table, as C functions that launch on a stream and return at once.
 *
 * Pointers are device memory unless a name says host; strides (ld) count elements; shapes were checked by ops.c. What the
 * front cannot check without waiting (an index that lies in device memory) the kernel checks: it reads and writes nothing
 * out of bounds and leaves a code in *fault, which the backend reads with the next result. Launch errors are
 * cudaGetLastError's, asked by the caller.
 * Row-exact means, as in ops.h, that a row's bits do not depend on the other rows of the call. The order of summation is the
 * GPU's own (stated at each file's top), not the CPU's.
 * Threads: the engine's. Owner: nothing. Tested by tests/kernels/test_ops_*.c under the emulator and on a GPU. */
#ifndef VLMD_KERNELS_CUDA_CUK_H
#define VLMD_KERNELS_CUDA_CUK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct CUstream_st *cuk_stream;
typedef enum cuk_type { CUK_F32, CUK_F16, CUK_BF16 } cuk_type;
/* The same numbers as ops.h: act. */
typedef enum cuk_act {
    CUK_ACT_NONE,
    CUK_ACT_SILU,
    CUK_ACT_GELU,
    CUK_ACT_GELU_TANH,
    CUK_ACT_QUICK_GELU,
    CUK_ACT_RELU
} cuk_act;
/* What *fault holds; 0: nothing happened. The first one stays. */
typedef enum cuk_fault {
    CUK_OK,
    CUK_BAD_ID,
    CUK_BAD_INDEX,
    CUK_BAD_SLOT,
    CUK_BAD_PAGE,
    CUK_BAD_LENGTH
} cuk_fault;

/* ---- load.cu ---- */

/* All kernels come to the current device, each allowed shared_bytes, the most that the device has for a block. cudaSuccess, or
 * the runtime's error: most likely there is no code for this device. */
int cuk_load(size_t shared_bytes);
/* Compute capabilities that there is code for, times 100, rising; for GPUs later than the last there is code, too. */
int cuk_archs(const int **list);

/* ---- rows.cu ---- */

/* As ops.h: norm_by; on: there is one. */
typedef struct cuk_norm_by {
    const float *gain, *bias; /* [d], either may be NULL */
    bool on, rms;
    float eps, gain_offset;
} cuk_norm_by;
/* x f32, y of type t [rows, heads, d]. y may be x. */
void cuk_norm(cuk_stream s, void *y, cuk_type t, int64_t y_ld, const float *x, int64_t x_ld, int64_t rows,
              int64_t heads, int64_t d, const cuk_norm_by *by);
/* y += x, y = x, y = a(y), y = a(gate) * up; all f32 [rows, d], but glu's y of type t */
void cuk_add(cuk_stream s, float *y, int64_t y_ld, const float *x, int64_t x_ld, const float *gain,
             int64_t rows, int64_t d); /* x times gain, where it is not NULL */
/* As op_add_norm, all f32 [rows, d] but y of type t; h is left as it was */
typedef struct cuk_add_norm {
    float *x;
    void *y; /* with after alone; may be x */
    cuk_type t;
    const float *h, *scale; /* scale NULL: 1 */
    int64_t x_ld, h_ld, y_ld, rows;
    int d;
    cuk_norm_by before, after;
} cuk_add_norm;
void cuk_residual(cuk_stream s, const cuk_add_norm *a);
void cuk_copy(cuk_stream s, float *y, int64_t y_ld, const float *x, int64_t x_ld, int64_t rows, int64_t d);
void cuk_act_rows(cuk_stream s, float *y, int64_t y_ld, int64_t rows, int64_t d, cuk_act a);
/* y = cap * tanh(y / cap) */
void cuk_softcap(cuk_stream s, float *y, int64_t y_ld, int64_t rows, int64_t d, float cap);
void cuk_glu(cuk_stream s, void *y, cuk_type t, int64_t y_ld, const float *gate, int64_t gate_ld,
             const float *up, int64_t up_ld, int64_t rows, int64_t d, cuk_act a);
/* y[i,:] (+)= scale * table[ids[i],:]; !add: rows with a negative id are left alone, and y[row + i,:] = x[i,:] for each of the
 * runs, whatever ids has there. ids NULL: runs alone. ids >= n_table (or < 0 with add): CUK_BAD_ID */
enum { CUK_EMBED_RUNS = 64 };
typedef struct cuk_embed_run {
    int64_t row, n;
    const float *x;
    int64_t x_ld;
} cuk_embed_run;
typedef struct cuk_embed_rows {
    float *y;
    const void *table;
    cuk_type t;
    int64_t y_ld, table_ld, n_table;
    const int32_t *ids;
    int64_t rows, d;
    float scale;
    bool add;
    int32_t *fault;
    int n;
    cuk_embed_run run[CUK_EMBED_RUNS];
} cuk_embed_rows;
void cuk_embed(cuk_stream s, const cuk_embed_rows *e);
/* y[i,:] = x[idx[i],:]; CUK_BAD_INDEX */
void cuk_gather(cuk_stream s, float *y, int64_t y_ld, const float *x, int64_t x_ld, int64_t n_x,
                const int32_t *idx, int64_t rows, int64_t d, int32_t *fault);
/* y = (add: y +) sum over k of by[i,k] * x[from[i,k],:]; x of any type, by NULL: all 1; negative from left out; CUK_BAD_INDEX */
void cuk_mix(cuk_stream s, float *y, int64_t y_ld, const void *x, cuk_type t, int64_t x_ld, int64_t n_x,
             const int32_t *from, const float *by, int64_t taps, int64_t rows, int64_t d, bool add,
             int32_t *fault);
/* y 16-bit [rows, d] packed = x f32, rounded to nearest even. t: CUK_F16 or CUK_BF16 */
void cuk_narrow(cuk_stream s, uint16_t *y, cuk_type t, const float *x, int64_t x_ld, int64_t rows, int64_t d);
/* y f32 packed = x of type t, 16 bits */
void cuk_widen(cuk_stream s, float *y, const void *x, cuk_type t, int64_t x_ld, int64_t rows, int64_t d);
/* y[rows, d] (+)= act(x + bias): what a GEMM without epilogue leaves to do. x may be y without add. y: of type t, with add f32 */
void cuk_epilogue(cuk_stream s, void *y, cuk_type t, int64_t y_ld, const float *x, int64_t x_ld,
                  const float *bias, int64_t rows, int64_t d, cuk_act a, bool add);

/* ---- pos.cu: rotary positions, pictures to patches ---- */

/* As op_rope_table: cs f32 [rows, half, 2]; pos i32 [rows, axes], axis NULL: the first of them; len may be NULL; dyn 0: off.
 * Angles are computed as the CPU does, in f32 with the stretched base in double. CUK_BAD_INDEX */
typedef struct cuk_table {
    float *cs;
    const int32_t *pos, *len;
    const float *inv_freq, *axis;
    int64_t cs_ld, pos_ld, axes, rows, half;
    float factor, theta, dyn;
    int max_pos;
    int32_t *fault;
} cuk_table;
void cuk_rope_table(cuk_stream s, const cuk_table *t);
void cuk_rope(cuk_stream s, float *x, int64_t x_ld, int64_t rows, int64_t heads, int64_t hd, const float *cs,
              int64_t cs_ld, int64_t half);
/* pixels u8 [h, w, 3] with ld bytes a row; as ops.h: patchify_args; order NULL: all in turn. CUK_BAD_INDEX */
typedef struct cuk_patches {
    float *x;
    const uint8_t *pixels;
    const int32_t *order;
    int64_t x_ld, pixels_ld, rows, across, patches; /* patches: of the picture */
    int patch, frames;
    bool channels_last;
    float rescale, mean[3], std[3];
    int32_t *fault;
} cuk_patches;
void cuk_patchify(cuk_stream s, const cuk_patches *p);

/* ---- attn.cu, attn_mma.cu, attn_split.cu ---- */

/* How rows of sequences that bring more than one are computed (one alone: in f32). EXACT: in f32, one with the bits of a row
 * alone. The others on tensor cores, in f32 but for factors: THREE takes a number as two of bf16 and leaves out the
 * smallest of four products, BF16 and F16 round it to that type. docs/gpu.md has the bounds. */
typedef enum cuk_precision { CUK_ATTN_EXACT, CUK_ATTN_THREE, CUK_ATTN_BF16, CUK_ATTN_F16 } cuk_precision;

typedef struct cuk_attn {
    void *y; /* of type left: with BF16 and F16 of that type or, as always with the others, f32 */
    cuk_type left;
    const float *q;
    const void *k, *v; /* f32; pages: of type kept */
    cuk_type kept;
    int64_t y_ld, q_ld, k_ld, v_ld; /* k_ld, v_ld: dense only */
    int n_rows, heads, kv_heads, hd;
    int n_seqs, n_pages, pages_ld; /* n_pages: of the pool */
    int64_t n_keys;                /* dense: rows of k and v */
    const int32_t *q_start, *kv_len,
        *pages; /* pages NULL: dense, sequence s has key rows q_start[s] .. + kv_len[s] */
    float scale;
    bool causal, limit_spares, uniform; /* uniform: as attn_args.uniform; wants no scratch */
    int window;
    float softcap;
    cuk_precision precision;
    const int32_t *limit; /* [n_rows] or NULL; as attn_args.limit */
    int32_t *fault;       /* CUK_BAD_PAGE, CUK_BAD_LENGTH */
    /* Partial results of splits of keys, for rows alone in their sequence; fewer than cuk_attn_scratch bytes: slower there,
     * the same bits */
    void *scratch;
    size_t scratch_bytes;
} cuk_attn;
/* How many: from shapes alone, so the same for every step of one shape. */
size_t cuk_attn_scratch(const cuk_attn *a);
/* One online softmax a row and head, keys in blocks fixed by position. EXACT: row-exact, whatever the batch; else among rows
 * that are alone in their sequence (pages) or call (dense), and among the others. hd 1 .. 256; y may not be q, k or v. */
void cuk_attention(cuk_stream s, const cuk_attn *a);
/* As op_kv_write and op_rope_kv_write: q rotated in place, k only on its way into the pages, which are of type kept. half may
 * be 0. cuk_kv_write looks at nothing of q and cs. CUK_BAD_SLOT */
typedef struct cuk_rope_kv {
    float *q;
    void *kc, *vc;
    cuk_type kept;
    const float *k, *v, *cs; /* cs [rows, half, 2] */
    const int32_t *slots;
    int64_t q_ld, k_ld, v_ld, cs_ld;
    int64_t rows, heads, kv_heads, hd, half, n_pages, page_tok;
    int32_t *fault;
} cuk_rope_kv;
void cuk_kv_write(cuk_stream s, const cuk_rope_kv *a);
void cuk_rope_kv_write(cuk_stream s, const cuk_rope_kv *a);

/* ---- linear.cu, linear_mma.cu ---- */

/* y[rows, out] = x w^T + bias */
typedef struct cuk_linear_to {
    float *y;
    const void *w;     /* [out, k], w_ld elements a row */
    const float *bias; /* or NULL */
    int64_t y_ld, w_ld, out;
} cuk_linear_to;
/* One launch over the outputs of n weights of one type, each with the bits it has alone. */
enum { CUK_LINEARS = 3 };
typedef struct cuk_linear {
    const float *x;
    int64_t x_ld, rows, k;
    cuk_type t;
    cuk_act act;
    bool add; /* y += act(..) */
    int n;
    cuk_linear_to to[CUK_LINEARS];
} cuk_linear;
/* 1 to 16 rows, up to 8 of them bound by reading w once: row-exact among 1..16 rows. */
void cuk_linear_few(cuk_stream s, const cuk_linear *l);
/* Any number of rows, in the same order of summation as cuk_linear_few: row-exact for every row count. */
void cuk_linear_exact(cuk_stream s, const cuk_linear *l);
/* 9 to 16 rows with 16-bit weights, bound by reading w once, on tensor cores: row-exact among themselves. k, w_ld and x_ld below 2^25. */
void cuk_linear_mma(cuk_stream s, const cuk_linear *l);

/* ---- loss.cu ---- */

/* logits f32 [n, n]; terms [n], their mean in *loss. sigmoid: each pair on its own, else InfoNCE both ways. n >= 1 */
void cuk_pair_loss(cuk_stream s, float *loss, float *terms, const float *logits, int64_t ld, int64_t n,
                   bool sigmoid);

/* ---- sample.cu ---- */

/* As ops.h: sample_rule; offsets count words of the block that begins with the rules. */
typedef struct cuk_choice {
    float temperature, top_p, min_p, repetition, presence, frequency;
    int32_t top_k, top_logprobs;
    uint32_t seed_lo, seed_hi, choice, position;
    int32_t bias_at, n_bias, prompt_at, n_prompt, out_at, n_out;
} cuk_choice;
typedef struct cuk_chosen { /* as ops.h: sample_result */
    int32_t id;
    float logprob;
    int32_t n_top, top_id[20];
    float top_logprob[20];
} cuk_chosen;
/* logits f32 [rows, V]; rules: the block. work f32 [rows, V]. The same rules in the same order as kernels/cpu/choose.h;
 * one block a row. */
void cuk_sample(cuk_stream s, const float *logits, int64_t ld, int64_t rows, int64_t vocab,
                const int32_t *rules, float *work, cuk_chosen *out);
/* ids[i] = chosen[from[i]].id where from[i] >= 0; CUK_BAD_INDEX */
void cuk_next_ids(cuk_stream s, int32_t *ids, const int32_t *from, int64_t rows, const cuk_chosen *chosen,
                  int64_t n_chosen, int32_t *fault);

#ifdef __cplusplus
}
#endif
#endif
