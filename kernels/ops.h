/* ops.h - the op table: what a model's forward code is written in. Checks once here, then dispatches to a backend.
 *
 * Immediate mode. A ctx belongs to one thread (the engine's); its errors are sticky, so a layer reads as straight
 * lines and the end of a step asks ctx_ok once. In dry mode (ctx.dry) every op checks shapes and launches nothing,
 * and ctx_tensor counts bytes: the same forward code measures its own peak.
 *
 * Letters: N rows, D model width, H query heads, K kv heads, hd head size, F ffn width, V vocabulary, P pages.
 * Activations are f32, but for what op_linear_takes says; every sum is accumulated in f32. "Row-exact" ops give a row the same bits whatever other
 * rows are in the call: all but those marked BULK. Order of summation of a row-exact dot product over k: lane j of
 * 16 takes k = j, j+16, ... in rising order by fused multiply-add from 0; then lanes 8..15 are added to 0..7,
 * 4..7 to 0..3, 2..3 to 0..1, 1 to 0. It is the same in the portable, AVX2 and AVX-512 paths.
 * Every op is tested against tests/ref in double precision (tests/kernels/test_ops_*.c). */
#ifndef VLMD_KERNELS_OPS_H
#define VLMD_KERNELS_OPS_H

#include "kernels/tensor.h"

typedef struct backend backend; /* a device: memory, weights, kernels, worker threads */
typedef struct weight weight;   /* a parameter in the layout that the backend wants */

/* ---- backend ------------------------------------------------------------------------------------------- */

typedef struct backend_options {
    const char *device; /* "cpu", "cuda", "cuda:N"; "auto": cuda where it can be had, else cpu */
    int threads;        /* compute threads, the caller's included; 0: one per online core */
    const char *isa;    /* NULL: best of this machine; "portable", "avx2", "avx512" (tests, VLMD_ISA) */
    /* CUDA: op_linear is row-exact for any number of rows, not only among 1 to 8 and among 9 to 16, and op_attn of many rows
     * as of one; activations stay f32: several times slower with more than 16 */
    bool deterministic;
    bool
        allow_tf32; /* CUDA without deterministic: op_linear of many rows may round f32 factors to TF32, 10 bits; sums stay f32 */
    int encode_rows; /* for tests: backend_encode_rows; 0: what suits the device */
} backend_options;
/* Any thread may use it, one at a time. */
backend *backend_new(const backend_options *o, status *st);
void backend_free(backend *be);                  /* after all weights and device memory of it */
const char *backend_describe(const backend *be); /* "cpu avx512, 2 threads" */

/* Device memory, 64-byte aligned, zeroed. NULL with ST_NO_MEMORY. */
void *backend_alloc(backend *be, size_t bytes, status *st);
void backend_release(backend *be, void *p);
/* Host memory that the device copies to and from while the host goes on. NULL with ST_NO_MEMORY. */
void *backend_alloc_host(backend *be, size_t bytes, status *st);
void backend_release_host(backend *be, void *p);
/* Launches return before their work is done: it pays to prepare the next step meanwhile, and to capture one. */
bool backend_is_async(const backend *be);
/* Rows that long work which may be stopped in between is cut into: enough to keep the device busy, few enough not to hold up
 * what waits. Always the same of one backend. */
int backend_encode_rows(const backend *be);
/* What a KV cache's pages are made of, unless somebody asks for another type, where weights are of type t: t where the device
 * rounds to it anyway (attn_args.narrow), else f32. */
dtype backend_kv_type(const backend *be, dtype t);

/* Shapes of products that the device's library has been asked for a way of so far, each once: what is new takes a while. -1:
 * products need no plans. */
int backend_plans(const backend *be);

/* What a device with memory of its own has; all 0 where ops run in the machine's. */
typedef struct backend_memory {
    size_t free_bytes, total_bytes;
    size_t work_bytes;  /* for the backend's own use, by what ops asked for in dry mode so far */
    size_t taken_bytes; /* of it, taken already: not within free_bytes */
} backend_memory;
backend_memory backend_get_memory(backend *be);
/* The plan is made: takes the backend's work memory, and pool_bytes that every later backend_alloc gets its part of. What
 * does not fit there is taken from the device, with a warning. In the machine's memory nothing changes. */
bool backend_seal(backend *be, size_t pool_bytes, status *st);

typedef enum weight_use {
    WEIGHT_VECTOR = 1, /* bias, norm gain: any float dtype, kept as f32 (small) */
    WEIGHT_TABLE = 2,  /* rows picked by index: embedding tables */
    WEIGHT_LINEAR = 4  /* [out, in] matrix of op_linear */
} weight_use;
/* A handle on a host tensor (f32, f16 or bf16; any alignment). On the CPU matrices and tables stay where they are:
 * the bytes must outlive the handle and are never copied to f32. use: WEIGHT_* or-ed (tied embeddings: both). */
weight *weight_new(backend *be, const tensor *host, unsigned use, status *st);
void weight_free(weight *w); /* NULL is fine */
/* weight_new in two steps: a declared weight has its shape, which does for dry mode; a device with memory of its own gets
 * the bytes by weights_load, of any number of weights at once, in the order they lie in the host's memory. */
weight *weight_declare(backend *be, const tensor *host, unsigned use, status *st);
size_t weights_bytes(backend *be, weight *const *w, int n); /* of that memory */
bool weights_load(backend *be, weight *const *w, int n, status *st);
int64_t weight_dim(const weight *w, int i); /* d[i]; a vector has d[0] only */
dtype weight_type(const weight *w);         /* as stored */

/* ---- context -------------------------------------------------------------------------------------------- */

/* What is launched on one lane runs in that order; lanes run beside each other. A CPU has one, whatever is asked for. */
enum {
    LANE_STEP,     /* the decoder */
    LANE_PICTURES, /* gives way to it */
    LANE_LOAD,     /* uploads: what it gets comes before all that another lane gets later */
    CTX_LANES
};
typedef struct ctx {
    backend *be;
    arena *scratch; /* activations of this step, device memory; arena_mark/arena_reset around a layer */
    bool dry;
    int lane;
    status st;
} ctx;
static inline bool ctx_ok(const ctx *c) {
    return c->st.code == ST_OK;
}
/* An uninitialised activation in scratch; in dry mode data is NULL. */
tensor ctx_tensor(ctx *c, dtype dt, int nd, const int64_t *d);
static inline tensor ctx_2d(ctx *c, dtype dt, int64_t a, int64_t b) {
    return ctx_tensor(c, dt, 2, (int64_t[]){a, b});
}
/* Host to device and back, packed tensors; download waits for the device. Upload takes what src holds along and returns (only
 * when some MiB before it are still under way does it wait for those), so src may change then; what lies in
 * backend_alloc_host's memory is read from there, so it may change once the device is past it. */
void ctx_upload(ctx *c, tensor dst, const void *src);
void ctx_download(ctx *c, void *dst, tensor src);
/* As download, without waiting. dst: backend_alloc_host's, not to be touched before a mark behind it is reached. */
void ctx_fetch(ctx *c, void *dst, tensor src);
void ctx_sync(ctx *c); /* waits for the lane; what went wrong there is in c->st now */

/* The work memory that ops have asked for in dry mode so far is taken, and never grows again, so that what is captured stays
 * valid. Without it an op makes room when it first needs it. */
bool backend_reserve(backend *be, status *st);

/* A place in a lane's work. */
typedef struct backend_mark backend_mark;
backend_mark *mark_new(backend *be, status *st);
void mark_free(backend_mark *m);          /* NULL is fine; before its backend */
void ctx_mark(ctx *c, backend_mark *m);   /* behind all that c's lane has so far */
bool mark_reached(const backend_mark *m); /* without waiting; one that was never set is */
void ctx_wait(ctx *c, backend_mark *m);   /* the host waits; what went wrong before it is in c->st now */

/* A moment on the device's clock. */
typedef struct backend_stamp backend_stamp;
bool backend_has_clock(const backend *be); /* else there are no stamps */
backend_stamp *stamp_new(backend *be, status *st);
void stamp_free(backend_stamp *s);        /* NULL is fine; before its backend */
void ctx_stamp(ctx *c, backend_stamp *s); /* when all that c's lane has so far is done */
/* Seconds between two that are known to be past, whatever their lanes; NAN: the device does not say. To 0.5 us, or to the
 * 24 bits of a float where that is more. */
double stamp_seconds(const backend_stamp *from, const backend_stamp *to);

/* A captured stretch of launches, with the addresses and shapes that it had: what they read may have changed at the next
 * replay. Between begin and end of a capture nothing runs, and neither uploads, download, sync, marks nor memory are allowed.
 * Only where backend_is_async. */
typedef struct backend_graph backend_graph;
void ctx_capture_begin(ctx *c);
backend_graph *ctx_capture_end(ctx *c); /* NULL: c->st says why */
void ctx_replay(ctx *c, const backend_graph *g);
size_t backend_graph_bytes(const backend_graph *g); /* of device memory, as far as the device says */
void backend_graph_free(backend_graph *g);          /* NULL is fine; nothing of it may be under way */

/* ---- linear ---------------------------------------------------------------------------------------------- */

typedef enum act {
    ACT_NONE,
    ACT_SILU,
    ACT_GELU /* erf */,
    ACT_GELU_TANH,
    ACT_QUICK_GELU /* x*sigmoid(1.702x) */,
    ACT_RELU
} act;
enum {
    /* y += act(x w^T + b) instead of = */
    LINEAR_ADD = 1,
    /* The caller always brings the same N for this work (a picture's rows): BLAS on tiles fixed by shape may be used;
     * bits then depend on N, not on other pictures or threads. */
    LINEAR_BULK = 2
};
/* y[N,out] = act(x[N,in] w[out,in]^T + b[out]); b may be NULL. y and x may not overlap. */
void op_linear(ctx *c, tensor y, tensor x, const weight *w, const weight *b, act a, unsigned flags);
/* Up to LINEARS of the same x, y = x w^T + b each: the bits of op_linear without activation and flags. A device goes through
 * the weights of a few rows in one launch. */
enum { LINEARS = 3 };
typedef struct linear_to {
    tensor y;            /* as op_linear's */
    const weight *w, *b; /* b may be NULL */
} linear_to;
void op_linears(ctx *c, tensor x, const linear_to *to, int n);
/* What op_linear and op_linears of so many rows multiply w by: f32, or (CUDA without deterministic, many rows) w's 16-bit type,
 * to which they round what is f32. So x may be of that type already. On such a device op_norm, op_add_norm, op_glu, op_attn (of
 * the type that it narrows to), and op_linear of as many rows without LINEAR_ADD write a y of 16 bits, rounded to the nearest:
 * the bits that rounding on the way gives, for fewer passes. (Where the device's library has no way for a product, an f32 x is
 * not rounded.) Everything else wants f32. */
dtype op_linear_takes(const ctx *c, int64_t rows, const weight *w);
/* An uninitialised activation of such a type; never of fewer bytes than one of fewer rows, so that what the most rows take does
 * for all. */
tensor ctx_factor(ctx *c, dtype t, int64_t rows, int64_t width);

/* ---- rows ------------------------------------------------------------------------------------------------- */

typedef enum norm_kind { NORM_LAYER, NORM_RMS } norm_kind;
/* y[N,D] = norm(x[N,D]) * (gain_offset + gain[D]) + bias[D]; bias may be NULL, and gain: a norm without parameters,
 * times gain_offset alone; y may be x. Also per head: pass [N*H, hd]. HF's *RMSNorm (f32 inside) and torch LayerNorm. 3-d x [N,H,hd] normalises each [hd]. */
void op_norm(ctx *c, tensor y, tensor x, const weight *gain, const weight *bias, norm_kind kind, float eps,
             float gain_offset);
void op_add(ctx *c, tensor y, tensor x); /* y[N,D] += x[N,D] */
/* A residual and the norms around it: x[N,D] += scale[D] * norm(h[N,D]), then y[N,D] = norm(x), with the bits of op_norm,
 * op_add_scaled or op_add, and op_norm one behind the other; one launch. before NULL: h as it is; scale NULL: 1; after NULL:
 * no y. What h holds afterwards is left open; y may be x, if it is f32, and not h. (Without norm or scale in between the linear adds: LINEAR_ADD.) */
typedef struct norm_by {
    const weight *gain, *bias; /* as op_norm's */
    norm_kind kind;
    float eps, gain_offset;
} norm_by;
void op_add_norm(ctx *c, tensor x, tensor h, const norm_by *before, const weight *scale, tensor y,
                 const norm_by *after);
/* y[N,D] += gain[D] * x[N,D], product and sum rounded each: layer scale, gates */
void op_add_scaled(ctx *c, tensor y, tensor x, const weight *gain);
void op_copy(ctx *c, tensor y, tensor x);                     /* y[N,D] = x[N,D] */
void op_act(ctx *c, tensor y, act a);                         /* y = a(y) */
void op_softcap(ctx *c, tensor y, float cap);                 /* y = cap * tanh(y / cap), cap > 0 */
void op_glu(ctx *c, tensor y, tensor gate, tensor up, act a); /* y[N,F] = a(gate) * up; y may be gate */
/* y[i,:] = scale * table[ids[i],:] for ids[i] >= 0; rows with a negative id are left alone. ids i32 [N]. */
void op_embed(ctx *c, tensor y, const weight *table, tensor ids, float scale);
/* The same, and y[row + i,:] = rows[i,:] of n runs of rows from elsewhere, pictures' among text's; what ids says there does not
 * matter as long as it is none that is refused. Runs rise and do not overlap. */
typedef struct row_run {
    int64_t row;
    tensor rows; /* f32 [n,D] */
} row_run;
void op_embed_splice(ctx *c, tensor y, const weight *table, tensor ids, float scale, const row_run *runs,
                     int n);
/* y[i,:] += table[ids[i],:]: learned positions. ids i32 [N]. */
void op_embed_add(ctx *c, tensor y, const weight *table, tensor ids);
/* y[i,:] = x[idx[i],:]. idx i32 [M]. */
void op_gather(ctx *c, tensor y, tensor x, tensor idx);
/* y[i,:] = sum over k of by[i,k] * x[from[i,k],:], added up in the order of k in f32, product and sum rounded each; a
 * negative from is left out. from i32 [M,K]; by f32 [M,K], or nd 0: all 1. */
void op_mix(ctx *c, tensor y, tensor x, tensor from, tensor by);
/* y[i,:] += the same of a table's rows: resampled positions. */
void op_embed_mix(ctx *c, tensor y, const weight *table, tensor from, tensor by);

/* ---- rotary positions (HF modeling_rope_utils) ------------------------------------------------------------ */

typedef struct rope_args {
    const weight *inv_freq; /* f32 vector [rot/2], attention factor not included */
    float factor;           /* multiplies cos and sin (yarn's attention_factor) */
    /* dynamic NTK: when a row's len exceeds max_pos its frequencies come from a larger base
     * theta * ((dyn_factor*len/max_pos) - (dyn_factor-1))^(rot/(rot-2)); dyn_factor 0: off */
    float theta, dyn_factor;
    int max_pos;
    const weight
        *axis; /* f32 vector [rot/2]: which of its row's positions turns each pair; NULL: a row has one */
} rope_args;
/* cs[N, rot/2, 2] = (cos, sin) * factor of pos[i] * inv_freq. pos i32 [N], or [N, axes] with axis; len i32 [N] (the row's
 * sequence length as the reference sees it, for dyn_factor) or data NULL. Computed once a step for all layers. */
void op_rope_table(ctx *c, tensor cs, tensor pos, tensor len, const rope_args *a);
/* Rotates x[N,H,hd] in place, rotate-half pairing (i, i + rot/2) over the first rot = 2*cs.d[1] of each head. */
void op_rope(ctx *c, tensor x, tensor cs);

/* ---- attention ---------------------------------------------------------------------------------------------- */

enum { KV_PAGE_TOK = 16 }; /* tokens a page */
/* Writes k[N,K,hd], v[N,K,hd] into pages kc, vc [P, K, KV_PAGE_TOK, hd] at slots i32 [N] =
 * page*KV_PAGE_TOK + offset; slot -1 is skipped. Page 0 is reserved for dummies. Pages are f32, f16 or bf16, both of one
 * type; what is written is rounded to it, nearest even. */
void op_kv_write(ctx *c, tensor kc, tensor vc, tensor k, tensor v, tensor slots);
/* op_rope of q[N,H,hd] and of k, then op_kv_write, with the same bits. q is rotated in place, in rows with slot -1 too; k is left
 * as it was: its rotated rows stand in the pages alone. */
void op_rope_kv_write(ctx *c, tensor q, tensor k, tensor v, tensor cs, tensor kc, tensor vc, tensor slots);

typedef struct attn_args {
    float scale;
    bool causal;       /* row at position p sees keys 0..p; otherwise all kv_len keys */
    int window;        /* > 0: only keys with p - window < j; 0: no limit */
    float softcap;     /* > 0: a score s becomes softcap * tanh(s / softcap) before it is masked */
    bool limit_spares; /* rows with a limit see beyond the window */
    /* The type of the weights around it. With 16 bits a device may round q, k, v and softmax's weights to it where a sequence
     * brings several rows, as it rounds what goes into op_linear (CUDA without deterministic); sums stay f32. */
    dtype narrow;
    /* No sequence is one that decodes: CUDA computes a row that is alone in its sequence as it does several, and wants no work
     * memory, however many sequences and keys there are. */
    bool uniform;
    int n_seqs;
    /* Rows of sequence s are q_start[s] .. q_start[s+1]-1; its last row sits at position kv_len[s]-1. Host memory
     * would force a sync: device i32 tensors. */
    tensor q_start; /* i32 [n_seqs+1] */
    /* i32 [N], or nd 0: none. limit[i] > 0: row i sees keys before limit[i], whatever its position: rows that attend
     * both ways. They may lie behind kv_len where they were written before. 0: as if there were no limits. */
    tensor limit;
    tensor kv_len; /* i32 [n_seqs], the rows' own keys included */
    /* i32 [n_seqs, max pages]: k, v are the page pools, of any float type. data NULL and nd 0: k, v are dense f32 [M,K,hd] rows,
     * M = N, and sequence s owns rows q_start[s] .. (self-attention without a cache); of one sequence alone M may differ, and
     * keys are rows 0 .. kv_len-1 (a block of its rows over all its keys) */
    tensor pages;
} attn_args;
/* y[N,H,hd] = softmax(q k^T * scale, masked) v, H a multiple of K. Keys are walked in blocks fixed by position, one
 * online softmax per row and head. CUDA without deterministic: row-exact among rows that are alone in their sequence, as in
 * decoding, and among the others. */
void op_attn(ctx *c, tensor y, tensor q, tensor k, tensor v, const attn_args *a);

/* ---- pictures ------------------------------------------------------------------------------------------------- */

typedef struct patchify_args {
    int patch;
    float rescale, mean[3], std[3]; /* (u8 * rescale - mean) / std */
    int frames; /* each channel stands so many times in a row: a still among a conv's frames; 0 is 1 */
    bool channels_last; /* a row is [patch, patch, 3] instead of [3, frames, patch, patch] */
    tensor order;       /* i32 [N]: row i is this patch, counted row by row; nd 0: all of them in turn */
} patchify_args;
/* x[N, 3*frames*patch*patch] in the order of a conv weight [D,3,(frames,)patch,patch], from pixels u8 [h, w, 3]; h and w
 * are floored to whole patches. */
void op_patchify(ctx *c, tensor x, tensor pixels, const patchify_args *a);

/* ---- what a batch of pairs loses ------------------------------------------------------------------------------- */

/* logits f32 [N,N]: row i is text i against every picture, the pairs stand on the diagonal. terms f32 [N]: each pair's part;
 * loss f32 [1]: their mean. Sums in the order of a dot product; terms[i] depends on row i, and with op_info_nce on column i,
 * alone. N >= 1.
 * op_info_nce: the mean of the cross-entropies of row and column i (van den Oord et al. 2018, as in CLIP).
 * op_sigmoid_loss: -sum over j of log sigmoid(z * logits[i,j]), z = 1 for the pair and -1 else (Zhai et al. 2023). */
void op_info_nce(ctx *c, tensor loss, tensor terms, tensor logits);
void op_sigmoid_loss(ctx *c, tensor loss, tensor terms, tensor logits);

/* ---- choosing a token --------------------------------------------------------------------------------------------- */

/* One row of logits and how to choose from it. Order: logit bias, penalties, min_tokens bans, temperature, top-k,
 * top-p, min-p, then one draw. */
typedef struct sample_row {
    float temperature;                                             /* 0: greedy, lowest id wins a tie */
    float top_p, min_p;                                            /* 1 and 0: off */
    int top_k;                                                     /* 0: off */
    float repetition_penalty, presence_penalty, frequency_penalty; /* 1, 0, 0: off */
    uint64_t seed; /* counter-based generator keyed by (seed, choice, position) */
    uint32_t choice, position;
    const int32_t *bias_ids; /* sparse bias; -INFINITY bans */
    const float *bias;
    int n_bias;
    /* ids seen so far with counts, for penalties: the prompt's (repetition only) and the answer's. Host memory. No id
     * stands twice, neither within a list nor in both (one that is in both belongs to the answer's). */
    const int32_t *prompt_seen;
    int n_prompt_seen;
    const int32_t *out_seen, *out_count;
    int n_out_seen;
    int top_logprobs; /* -1: no log-probs; else how many of the best, 0..20 */
} sample_row;
typedef struct sample_result {
    int32_t id;
    float logprob; /* log softmax of the raw logits (before bias, penalties, temperature) at id */
    int32_t n_top;
    int32_t top_id[20];
    float top_logprob[20]; /* best first; ties by id */
} sample_result;
enum { SAMPLE_RESULT_WORDS = sizeof(sample_result) / sizeof(int32_t) };

/* Rows of rules as the device reads them: i32 words, a sample_rule for each row, then their lists, each at a word of its own
 * offset: ids, then as many biases (bits of f32) or counts. */
typedef struct sample_rule {
    float temperature, top_p, min_p, repetition, presence, frequency;
    int32_t top_k, top_logprobs;
    uint32_t seed_lo, seed_hi, choice, position;
    int32_t bias_at, n_bias, prompt_at, n_prompt, out_at, n_out;
} sample_rule;
enum { SAMPLE_RULE_WORDS = sizeof(sample_rule) / sizeof(int32_t) };
size_t sample_list_words(const sample_row *row);                /* of one row's lists */
size_t sample_pack(int32_t *to, const sample_row *rows, int n); /* returns how many words it wrote */

/* results i32 [N, SAMPLE_RESULT_WORDS]: a sample_result for each row of logits f32 [N,V]. rules i32 [words]: at least N
 * packed rows and their lists. */
void op_sample(ctx *c, tensor logits, tensor rules, tensor results);
/* ids[i] = results[from[i]].id for from[i] >= 0; the others are left alone. ids, from i32 [N], results i32 [M,
 * SAMPLE_RESULT_WORDS]: what was chosen goes on without passing through the host. */
void op_next_ids(ctx *c, tensor ids, tensor from, tensor results);

#endif
