/* backend.h - what a device implements behind ops.h. Internal to kernels/: ops.c checks, a backend computes.
 *
 * Each function gets tensors whose types, shapes and strides ops.c has checked, with at least one element of
 * work and ctx_ok; what it finds wrong with their contents (an index out of range) goes into c->st. Threads:
 * as ops.h. */
#ifndef VLMD_KERNELS_BACKEND_H
#define VLMD_KERNELS_BACKEND_H

#include "kernels/ops.h"

typedef struct backend_ops {
    void (*free)(backend *be);
    void *(*alloc)(backend *be, size_t bytes, status *st);
    void (*release)(backend *be, void *p);
    bool (*weight_init)(weight *w, const tensor *host, status *st); /* shape and use are set already */
    void (*weight_fini)(weight *w);
    /* These four: NULL where ops run in the machine's memory; else weight_init takes nothing of the device yet. */
    size_t (*weights_bytes)(backend *be, weight *const *w, int n);
    bool (*weights_load)(backend *be, weight *const *w, int n, status *st);
    backend_memory (*get_memory)(backend *be);
    bool (*seal)(backend *be, size_t pool_bytes, status *st);
    void (*upload)(ctx *c, tensor dst, const void *src);
    void (*download)(ctx *c, void *dst, tensor src);
    void (*sync)(ctx *c);
    /* With get_memory, linear, attn and sample are called in dry mode too, to say what work memory they want. */
    void (*linear)(ctx *c, tensor x, const linear_to *to, int n, act a, unsigned flags); /* n >= 1 */
    /* y, x: [rows, H, D] */
    void (*norm)(ctx *c, tensor y, tensor x, const weight *gain, const weight *bias, norm_kind kind,
                 float eps, float gain_offset);
    void (*add)(ctx *c, tensor y, tensor x, const weight *gain); /* gain may be NULL */
    void (*add_norm)(ctx *c, tensor x, tensor h, const norm_by *before, const weight *scale, tensor y,
                     const norm_by *after);
    void (*copy)(ctx *c, tensor y, tensor x);
    void (*act)(ctx *c, tensor y, act a);
    void (*softcap)(ctx *c, tensor y, float cap);
    void (*glu)(ctx *c, tensor y, tensor gate, tensor up, act a);
    void (*embed)(ctx *c, tensor y, const weight *table, tensor ids, float scale, bool add,
                  const row_run *runs, int n); /* n > 0: not with add */
    void (*gather)(ctx *c, tensor y, tensor x, tensor idx);
    /* of x, or (table not NULL) of a table's rows, which are added to y; by.nd 0: all 1 */
    void (*mix)(ctx *c, tensor y, tensor x, const weight *table, tensor from, tensor by);
    void (*rope_table)(ctx *c, tensor cs, tensor pos, tensor len, const rope_args *a);
    void (*rope)(ctx *c, tensor x, tensor cs);
    void (*kv_write)(ctx *c, tensor kc, tensor vc, tensor k, tensor v, tensor slots);
    void (*rope_kv_write)(ctx *c, tensor q, tensor k, tensor v, tensor cs, tensor kc, tensor vc,
                          tensor slots); /* cs may have a width of 0 */
    void (*attn)(ctx *c, tensor y, tensor q, tensor k, tensor v, const attn_args *a);
    void (*patchify)(ctx *c, tensor x, tensor pixels, const patchify_args *a);
    void (*pair_loss)(ctx *c, tensor loss, tensor terms, tensor logits, bool sigmoid);
    void (*sample)(ctx *c, tensor logits, tensor rules, tensor results);
    void (*next_ids)(ctx *c, tensor ids, tensor from, tensor results);

    bool (*reserve)(backend *be, status *st);
    int (*plans)(const backend *be);

    /* A backend whose launches do their work before they return has none of these. */
    void *(*alloc_host)(backend *be, size_t bytes, status *st);
    void (*release_host)(backend *be, void *p);
    void (*fetch)(ctx *c, void *dst, tensor src);
    bool (*mark_init)(backend_mark *m, status *st);
    void (*mark_fini)(backend_mark *m);
    void (*mark)(ctx *c, backend_mark *m);
    bool (*reached)(const backend_mark *m);
    void (*wait)(ctx *c, backend_mark *m);
    /* These four: NULL without a clock of its own. */
    bool (*stamp_init)(backend_stamp *s, status *st);
    void (*stamp_fini)(backend_stamp *s);
    void (*stamp)(ctx *c, backend_stamp *s);
    double (*stamp_seconds)(const backend_stamp *from, const backend_stamp *to);
    void (*capture_begin)(ctx *c);
    void (*capture_end)(ctx *c, backend_graph *g);
    void (*replay)(ctx *c, const backend_graph *g);
    void (*graph_fini)(backend_graph *g);
} backend_ops;

struct backend {
    const backend_ops *ops;
    int encode_rows;
    bool narrows;    /* as attn_args.narrow allows; ops write y of 16 bits */
    int rounds_from; /* linear of so many rows rounds x to the weights' 16-bit type; 0: never */
    char about[64];
};

struct backend_mark {
    backend *be;
    void *event; /* the backend's own */
    int32_t *fault;
    bool set;
};

struct backend_stamp {
    backend *be;
    void *event; /* the backend's own */
};

struct backend_graph {
    backend *be;
    void *exec; /* the backend's own */
    size_t bytes;
    int lane;
};

struct weight {
    backend *be;
    unsigned use;
    dtype dt; /* as stored */
    int nd;
    int64_t d[TENSOR_MAX_DIMS];
    int64_t rows,
        cols;   /* d[0] and the product of the rest: what a linear or a table sees; a vector: 1, count */
    int64_t ld; /* elements from row to row */
    const uint8_t *data; /* matrices and tables: on the CPU the caller's bytes */
    float *vec;          /* vectors, when used as such: own f32 copy in device memory */
    tensor host;         /* where weights_load finds the bytes */
    void *memory;        /* the backend's, that they are in then */
};

backend *cpu_backend_new(const backend_options *o, status *st);
#ifdef VLMD_CUDA
backend *cuda_backend_new(const backend_options *o, status *st);
#endif

#endif
