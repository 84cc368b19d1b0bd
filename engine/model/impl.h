/* impl.h - what the files of engine/model share: the plan of a load, the loaded model, one layer of a stack.
 *
 * Internal to engine/model. The plan borrows nothing and owns the checkpoint; the model takes the checkpoint over. */
#ifndef VLMD_ENGINE_MODEL_IMPL_H
#define VLMD_ENGINE_MODEL_IMPL_H

#include "engine/ckpt/bind.h"
#include "engine/model/model.h"
#include "engine/model/wanted.h"

/* A checkpoint understood and bound, before any weight is made: what `inspect` shows and what a load starts from. */
typedef struct plan_tensor {
    wanted as;
    tensor t;
} plan_tensor;
typedef struct plan {
    model_spec spec;
    const name_sheet *sheet;
    ckpt *ckpt;
    bind *bind;
    plan_tensor *all; /* [n], in the order of wanted_each */
    int n;
    size_t weight_bytes;
} plan;
bool plan_open(plan *p, const char *dir, status *st);
void plan_close(plan *p);
const tensor *plan_find(const plan *p, wanted_part part, int at, int which); /* nd 0: not wanted */

/* Shape of a parameter under a spec: dimensions into d, how it is used into use; 0 when the spec has no such one. */
int layer_slot_shape(const stack_spec *s, int layer, layer_slot slot, int64_t d[2], unsigned *use);
int join_slot_shape(const join_spec *j, slot which, int64_t d[TENSOR_MAX_DIMS], unsigned *use);
int slot_shape(const model_spec *s, slot which, int64_t d[TENSOR_MAX_DIMS], unsigned *use);

typedef struct layer_weights {
    weight *w[L_COUNT]; /* NULL: the mechanism is off */
} layer_weights;

typedef struct model_rope {
    weight *inv_freq, *axis; /* NULL: no rotary positions; a row has one */
    float *host;             /* their numbers, until the model is freed */
    rope_args args;
} model_rope;

struct model {
    model_spec spec;
    ckpt *ckpt;
    backend *be;
    weight *w[S_COUNT];
    layer_weights *tower, *join, *text;
    weight *(*deep)[JOIN_SLOTS]; /* [deep.n] */
    model_rope rope, rope_local, rope_tower;
    struct dual_part *dual; /* dual.h; NULL: there is a decoder */
    float tiled_scale[4];   /* tower_tiled.c's tables are multiplied by these */
    size_t weight_bytes, device_bytes;
    dtype weight_dtype;
    weight **all; /* each of the above once */
    int n_all;
    struct model_kept { /* bytes of ours that weights were made of stand behind each */
        struct model_kept *next;
        size_t pad; /* to 16 bytes */
    } * kept;
};

/* inv_freq[dims/2] and the attention factor of a rope spec (rope.c). */
void rope_frequencies(const rope_spec *r, float *inv_freq, float *attention_factor);
/* Which of a row's positions turns each pair, axis[dims/2]; false: a row has one. */
bool rope_axes(const rope_spec *r, float *axis);

/* Declares a weight of the model; model_upload brings its bytes to the device (load.c). */
bool model_declare(model *m, const tensor *t, unsigned use, weight **out, status *st);

/* ---- dual encoders (dual_bind.c, dual.c) ---- */

int dual_slot_shape(const model_spec *s, dual_slot which, int64_t d[4], unsigned *use);
bool dual_make(model *m, const plan *p, status *st); /* m->dual, but its weights */
void dual_free(model *m);

/* What a layer needs besides its weights and its rows. */
typedef struct layer_run {
    tensor cs;     /* rope table; nd 0: no rope */
    tensor kc, vc; /* the layer's page pools; nd 0: keys and values are the rows' own */
    tensor slots;
    attn_args attn; /* scale, causal and window are filled in from the spec */
} layer_run;
/* x[N, D] += layer i's attention to its own rows, with the norms around it; then through the whole layer. In place; scratch is
 * given back. */
void stack_attention(ctx *c, const stack_spec *s, const layer_weights *w, int i, tensor x,
                     const layer_run *run);
void stack_layer(ctx *c, const stack_spec *s, const layer_weights *w, int i, tensor x, const layer_run *run);
/* Layer i's part of a row that spec_image_width describes: keys, or values. */
tensor cross_part(const model_spec *s, tensor rows, int i, bool values);
/* Keys and values of x[N, join.out] for all layers that attend to them, into rows[N, spec_image_width]. */
void cross_keep(ctx *c, const model *m, tensor x, tensor rows);
/* x[N, D], the whole step's rows, through layer i, which attends to pictures: only rows that s->cross names change. */
void cross_layer(ctx *c, const model *m, int i, tensor x, const step *s);
/* The same of what layer i does behind the attention to its own rows, where it attends to pictures beside. */
void cross_beside(ctx *c, const model *m, int i, tensor x, const step *s);

/* Its parts, for who keeps q[N, H*hd], k and v[N, K*hd] itself and gives the rows in blocks: projections of x, where there
 * are pages with k and v written there, and then the k given is not what attention sees; x += attention, where k and v may
 * hold more rows than x and q (without pages: one sequence, all its keys; with pages they are not read); x += ffn; the latter
 * two as stack_rest, with the norm between them in one launch with what it follows. */
void stack_project(ctx *c, const stack_spec *s, const layer_weights *w, tensor x, tensor q, tensor k,
                   tensor v, const layer_run *run);
void stack_attend(ctx *c, const stack_spec *s, const layer_weights *w, int i, tensor x, tensor q, tensor k,
                  tensor v, const layer_run *run);
void stack_feed_forward(ctx *c, const stack_spec *s, const layer_weights *w, tensor x);
void stack_rest(ctx *c, const stack_spec *s, const layer_weights *w, int i, tensor x, tensor q, tensor k,
                tensor v, const layer_run *run);
/* For layers that attend to other rows: queries alone of x[N, D] into q[N, H*hd]; keys and values k, v[M, K*hd] of those rows
 * x[M, context]; x += the attention's y[N, H*hd], led back. Norms where the layer has them. */
void stack_query(ctx *c, const stack_spec *s, const layer_weights *w, tensor x, tensor q);
void stack_context(ctx *c, const stack_spec *s, const layer_weights *w, tensor x, tensor k, tensor v);
void stack_join_attention(ctx *c, const stack_spec *s, const layer_weights *w, tensor x, tensor y);

/* Layers that attend to other rows as well (stack_spec.beside): keys and values k, v[M, K*hd] of those rows y[M, beside_width];
 * x[N, D] += attention to them, with the norm where the stack has its norms. run: which rows are whose, and pages, if k and v
 * stand there. Source: transformers' modeling_blip_2.py (Blip2QFormerLayer), modeling_blip_text.py (BlipTextLayer). */
void stack_beside_keep(ctx *c, const layer_weights *w, tensor y, tensor k, tensor v);
void stack_beside_attend(ctx *c, const stack_spec *s, const layer_weights *w, tensor x, tensor k, tensor v,
                         const layer_run *run);
/* Its halves, for rows that attend to different others: queries of x into q[N, H*hd]; x += the attention's y[N, H*hd]. */
void stack_beside_query(ctx *c, const stack_spec *s, const layer_weights *w, tensor x, tensor q);
void stack_beside_join(ctx *c, const stack_spec *s, const layer_weights *w, tensor x, tensor y);

#endif
