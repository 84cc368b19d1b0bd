/* stack.c - one transformer layer as options of a stack_spec: the tower's and the decoder's are the same lines.
 *
 * Thread: the engine's. Activations live in the ctx's scratch and are given back before return. */
#include "engine/model/impl.h"

static norm_by norm_of(const stack_spec *s, const layer_weights *w, layer_slot gain) {
    return (norm_by){.gain = w->w[gain],
                     .bias = w->w[gain + 1],
                     .kind = s->norm,
                     .eps = s->norm_eps,
                     .gain_offset = s->norm_plain ? 1 : s->norm_offset};
}

static void norm(ctx *c, const stack_spec *s, const layer_weights *w, layer_slot gain, tensor y, tensor x) {
    const norm_by n = norm_of(s, w, gain);
    op_norm(c, y, x, n.gain, n.bias, n.kind, n.eps, n.gain_offset);
}

/* Rows that only w reads, and where it is given w2 and w3: of the type that they are multiplied in. */
static tensor factor(ctx *c, int64_t rows, int64_t width, const weight *w, const weight *w2,
                     const weight *w3) {
    dtype t = op_linear_takes(c, rows, w);
    if ((w2 && op_linear_takes(c, rows, w2) != t) || (w3 && op_linear_takes(c, rows, w3) != t)) t = DT_F32;
    return ctx_factor(c, t, rows, width);
}

/* What goes into the query's projection, or those of all three. */
static tensor normed(ctx *c, const stack_spec *s, const layer_weights *w, layer_slot gain, tensor x,
                     const weight *q, const weight *k, const weight *v) {
    if (s->norm_after) return x;
    tensor h = factor(c, x.d[0], s->width, q, k, v);
    norm(c, s, w, gain, h, x);
    return h;
}

/* Room for what goes into the feed-forward; nd 0: x itself does. */
static tensor room_for_next(ctx *c, const stack_spec *s, const layer_weights *w, tensor x) {
    if (s->norm_after) return (tensor){0};
    return factor(c, x.d[0], s->width, w->w[L_UP_W], s->glu ? w->w[L_GATE_W] : NULL, NULL);
}

/* Queries alone of rows that attend to others: x[N, D] to q[N, H*hd]. */
void stack_query(ctx *c, const stack_spec *s, const layer_weights *w, tensor x, tensor q) {
    size_t mark = arena_mark(c->scratch);
    tensor qh = tensor_heads(q, s->heads, s->head_dim);
    tensor h = normed(c, s, w, L_NORM1_G, x, w->w[L_Q_W], NULL, NULL);
    op_linear(c, q, h, w->w[L_Q_W], w->w[L_Q_B], ACT_NONE, 0);
    if (w->w[L_QNORM_G]) op_norm(c, qh, qh, w->w[L_QNORM_G], NULL, NORM_RMS, s->norm_eps, s->norm_offset);
    arena_reset(c->scratch, mark);
}

void stack_context(ctx *c, const stack_spec *s, const layer_weights *w, tensor x, tensor k, tensor v) {
    size_t mark = arena_mark(c->scratch);
    tensor h = x, kh = tensor_heads(k, s->kv_heads, s->head_dim);
    if (w->w[L_CONTEXT_G]) {
        h = factor(c, x.d[0], x.d[1], w->w[L_K_W], w->w[L_V_W], NULL);
        norm(c, s, w, L_CONTEXT_G, h, x);
    }
    op_linears(c, h, (linear_to[]){{k, w->w[L_K_W], w->w[L_K_B]}, {v, w->w[L_V_W], w->w[L_V_B]}}, 2);
    if (w->w[L_KNORM_G]) op_norm(c, kh, kh, w->w[L_KNORM_G], NULL, NORM_RMS, s->norm_eps, s->norm_offset);
    arena_reset(c->scratch, mark);
}

/* One of a layer's two halves on its way back into x: x += y m + b, with the norms around it, and where h is given
 * h = norm(x) for what comes next. */
typedef struct way_back {
    const weight *m, *b;
    layer_slot norm, post, scale; /* of this half */
    tensor h;                     /* nd 0: none */
    layer_slot next;
} way_back;

static void join(ctx *c, const stack_spec *s, const layer_weights *w, tensor x, tensor y, const way_back *j) {
    tensor to = s->norm_after ? x : j->h;
    const layer_slot behind = s->norm_after ? j->norm : j->next;
    if (s->post_norms || w->w[j->scale]) {
        tensor h = ctx_2d(c, DT_F32, x.d[0], s->width);
        op_linear(c, h, y, j->m, j->b, ACT_NONE, 0);
        const norm_by before = norm_of(s, w, j->post), after = norm_of(s, w, behind);
        op_add_norm(c, x, h, s->post_norms ? &before : NULL, w->w[j->scale], to, to.nd ? &after : NULL);
    } else {
        op_linear(c, x, y, j->m, j->b, ACT_NONE, LINEAR_ADD);
        if (to.nd) norm(c, s, w, behind, to, x);
    }
}

static void join_attention(ctx *c, const stack_spec *s, const layer_weights *w, tensor x, tensor y,
                           tensor h) {
    join(c, s, w, x, y, &(way_back){w->w[L_O_W], w->w[L_O_B], L_NORM1_G, L_POST1_G, L_SCALE1, h, L_NORM2_G});
}

/* Norm, projections and what the spec does to queries and keys before they meet: rows x to q, k, v, or to q and the pages. */
void stack_project(ctx *c, const stack_spec *s, const layer_weights *w, tensor x, tensor q, tensor k,
                   tensor v, const layer_run *run) {
    size_t mark = arena_mark(c->scratch);
    tensor h = normed(c, s, w, L_NORM1_G, x, w->w[L_Q_W], w->w[L_K_W], w->w[L_V_W]);
    const linear_to qkv[] = {
        {q, w->w[L_Q_W], w->w[L_Q_B]}, {k, w->w[L_K_W], w->w[L_K_B]}, {v, w->w[L_V_W], w->w[L_V_B]}};
    op_linears(c, h, qkv, 3);
    tensor qh = tensor_heads(q, s->heads, s->head_dim), kh = tensor_heads(k, s->kv_heads, s->head_dim);
    if (s->qk_norm || s->qk_norm_full) {
        float eps = s->qk_norm_eps > 0 ? s->qk_norm_eps : s->norm_eps;
        tensor qn = s->qk_norm ? qh : q, kn = s->qk_norm ? kh : k;
        op_norm(c, qn, qn, w->w[L_QNORM_G], NULL, NORM_RMS, eps, s->norm_offset);
        op_norm(c, kn, kn, w->w[L_KNORM_G], NULL, NORM_RMS, eps, s->norm_offset);
    }
    tensor vh = tensor_heads(v, s->kv_heads, s->head_dim);
    if (run->kc.nd && run->cs.nd) {
        op_rope_kv_write(c, qh, kh, vh, run->cs, run->kc, run->vc, run->slots);
    } else if (run->kc.nd) {
        op_kv_write(c, run->kc, run->vc, kh, vh, run->slots);
    } else if (run->cs.nd) {
        op_rope(c, qh, run->cs);
        op_rope(c, kh, run->cs);
    }
    arena_reset(c->scratch, mark);
}

/* y[N, H*hd] = attention of q[N, H*hd] to the run's pages or, without any, to k and v. */
static void attend(ctx *c, const stack_spec *s, tensor y, tensor q, tensor k, tensor v, const layer_run *run,
                   const attn_args *a) {
    bool paged = run->kc.nd;
    op_attn(c, tensor_heads(y, s->heads, s->head_dim), tensor_heads(q, s->heads, s->head_dim),
            paged ? run->kc : tensor_heads(k, s->kv_heads, s->head_dim),
            paged ? run->vc : tensor_heads(v, s->kv_heads, s->head_dim), a);
}

/* h: as way_back's. */
static void attend_own(ctx *c, const stack_spec *s, const layer_weights *w, int i, tensor x, tensor q,
                       tensor k, tensor v, const layer_run *run, tensor h) {
    size_t mark = arena_mark(c->scratch);
    tensor y = factor(c, x.d[0], (int64_t)s->heads * s->head_dim, w->w[L_O_W], NULL, NULL);
    attn_args a = run->attn;
    a.scale = s->attn_scale;
    a.softcap = s->attn_softcap;
    a.causal = s->causal;
    a.window = s->window[i];
    a.narrow = weight_type(w->w[L_O_W]);
    attend(c, s, y, q, k, v, run, &a);
    join_attention(c, s, w, x, y, h);
    arena_reset(c->scratch, mark);
}

void stack_attend(ctx *c, const stack_spec *s, const layer_weights *w, int i, tensor x, tensor q, tensor k,
                  tensor v, const layer_run *run) {
    attend_own(c, s, w, i, x, q, k, v, run, (tensor){0});
}

void stack_join_attention(ctx *c, const stack_spec *s, const layer_weights *w, tensor x, tensor y) {
    size_t mark = arena_mark(c->scratch);
    join_attention(c, s, w, x, y, (tensor){0});
    arena_reset(c->scratch, mark);
}

void stack_beside_keep(ctx *c, const layer_weights *w, tensor y, tensor k, tensor v) {
    const linear_to kv[] = {{k, w->w[L_BESIDE_K_W], w->w[L_BESIDE_K_B]},
                            {v, w->w[L_BESIDE_V_W], w->w[L_BESIDE_V_B]}};
    op_linears(c, y, kv, 2);
}

void stack_beside_query(ctx *c, const stack_spec *s, const layer_weights *w, tensor x, tensor q) {
    size_t mark = arena_mark(c->scratch);
    tensor h = normed(c, s, w, L_BESIDE_NORM_G, x, w->w[L_BESIDE_Q_W], NULL, NULL);
    op_linear(c, q, h, w->w[L_BESIDE_Q_W], w->w[L_BESIDE_Q_B], ACT_NONE, 0);
    arena_reset(c->scratch, mark);
}

void stack_beside_join(ctx *c, const stack_spec *s, const layer_weights *w, tensor x, tensor y) {
    op_linear(c, x, y, w->w[L_BESIDE_O_W], w->w[L_BESIDE_O_B], ACT_NONE, LINEAR_ADD);
    if (s->norm_after) norm(c, s, w, L_BESIDE_NORM_G, x, x);
}

void stack_beside_attend(ctx *c, const stack_spec *s, const layer_weights *w, tensor x, tensor k, tensor v,
                         const layer_run *run) {
    size_t mark = arena_mark(c->scratch);
    tensor q = ctx_2d(c, DT_F32, x.d[0], (int64_t)s->heads * s->head_dim),
           y = factor(c, q.d[0], q.d[1], w->w[L_BESIDE_O_W], NULL, NULL);
    stack_beside_query(c, s, w, x, q);
    attn_args a = run->attn;
    a.scale = s->attn_scale;
    a.narrow = weight_type(w->w[L_BESIDE_O_W]);
    attend(c, s, y, q, k, v, run, &a);
    stack_beside_join(c, s, w, x, y);
    arena_reset(c->scratch, mark);
}

/* h: x with its norm, or x where the norms come after. */
static void feed_forward(ctx *c, const stack_spec *s, const layer_weights *w, tensor x, tensor h) {
    size_t mark = arena_mark(c->scratch);
    tensor y = factor(c, x.d[0], s->ffn, w->w[L_DOWN_W], NULL, NULL);
    if (s->glu) {
        tensor up = ctx_2d(c, DT_F32, x.d[0], s->ffn), gate = y;
        if (y.dt != DT_F32) gate = ctx_2d(c, DT_F32, x.d[0], s->ffn);
        const linear_to both[] = {{gate, w->w[L_GATE_W], w->w[L_GATE_B]}, {up, w->w[L_UP_W], w->w[L_UP_B]}};
        op_linears(c, h, both, 2);
        op_glu(c, y, gate, up, s->activation);
    } else {
        op_linear(c, y, h, w->w[L_UP_W], w->w[L_UP_B], s->activation, 0);
    }
    join(c, s, w, x, y,
         &(way_back){.m = w->w[L_DOWN_W],
                     .b = w->w[L_DOWN_B],
                     .norm = L_NORM2_G,
                     .post = L_POST2_G,
                     .scale = L_SCALE2});
    arena_reset(c->scratch, mark);
}

void stack_feed_forward(ctx *c, const stack_spec *s, const layer_weights *w, tensor x) {
    size_t mark = arena_mark(c->scratch);
    tensor h = room_for_next(c, s, w, x);
    if (h.nd) norm(c, s, w, L_NORM2_G, h, x);
    feed_forward(c, s, w, x, h.nd ? h : x);
    arena_reset(c->scratch, mark);
}

void stack_rest(ctx *c, const stack_spec *s, const layer_weights *w, int i, tensor x, tensor q, tensor k,
                tensor v, const layer_run *run) {
    size_t mark = arena_mark(c->scratch);
    tensor h = room_for_next(c, s, w, x);
    attend_own(c, s, w, i, x, q, k, v, run, h);
    feed_forward(c, s, w, x, h.nd ? h : x);
    arena_reset(c->scratch, mark);
}

static void attention(ctx *c, const stack_spec *s, const layer_weights *w, int i, tensor x,
                      const layer_run *run, tensor h) {
    int64_t n = x.d[0], qd = (int64_t)s->heads * s->head_dim, kd = (int64_t)s->kv_heads * s->head_dim;
    size_t mark = arena_mark(c->scratch);
    tensor q = ctx_2d(c, DT_F32, n, qd), k = ctx_2d(c, DT_F32, n, kd), v = ctx_2d(c, DT_F32, n, kd);
    stack_project(c, s, w, x, q, k, v, run);
    attend_own(c, s, w, i, x, q, k, v, run, h);
    arena_reset(c->scratch, mark);
}

void stack_attention(ctx *c, const stack_spec *s, const layer_weights *w, int i, tensor x,
                     const layer_run *run) {
    attention(c, s, w, i, x, run, (tensor){0});
}

void stack_layer(ctx *c, const stack_spec *s, const layer_weights *w, int i, tensor x, const layer_run *run) {
    size_t mark = arena_mark(c->scratch);
    tensor h = room_for_next(c, s, w, x);
    attention(c, s, w, i, x, run, h);
    feed_forward(c, s, w, x, h.nd ? h : x);
    arena_reset(c->scratch, mark);
}
