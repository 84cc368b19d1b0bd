/* stack.c - one transformer layer as options of a stack_spec: the tower's and the decoder's are the same lines.
 *
 * Thread: the engine's. Activations live in the ctx's scratch and are given back before return. */
#include "engine/model/impl.h"

/* Norm, projections and what the spec does to queries and keys before they meet: rows x to q, k, v. */
void stack_project(ctx *c, const stack_spec *s, const layer_weights *w, tensor x, tensor q, tensor k,
                   tensor v, const layer_run *run) {
    size_t mark = arena_mark(c->scratch);
    tensor h = ctx_2d(c, DT_F32, x.d[0], s->width);
    op_norm(c, h, x, w->w[L_NORM1_G], w->w[L_NORM1_B], s->norm, s->norm_eps, 0);
    op_linear(c, q, h, w->w[L_Q_W], w->w[L_Q_B], ACT_NONE, 0);
    op_linear(c, k, h, w->w[L_K_W], w->w[L_K_B], ACT_NONE, 0);
    op_linear(c, v, h, w->w[L_V_W], w->w[L_V_B], ACT_NONE, 0);
    tensor qh = tensor_heads(q, s->heads, s->head_dim), kh = tensor_heads(k, s->kv_heads, s->head_dim);
    if (s->qk_norm) {
        op_norm(c, qh, qh, w->w[L_QNORM_G], NULL, NORM_RMS, s->norm_eps, 0);
        op_norm(c, kh, kh, w->w[L_KNORM_G], NULL, NORM_RMS, s->norm_eps, 0);
    }
    if (run->cs.nd) {
        op_rope(c, qh, run->cs);
        op_rope(c, kh, run->cs);
    }
    arena_reset(c->scratch, mark);
}

void stack_attend(ctx *c, const stack_spec *s, const layer_weights *w, int i, tensor x, tensor q, tensor k,
                  tensor v, const layer_run *run) {
    size_t mark = arena_mark(c->scratch);
    tensor y = ctx_2d(c, DT_F32, x.d[0], (int64_t)s->heads * s->head_dim);
    tensor qh = tensor_heads(q, s->heads, s->head_dim), yh = tensor_heads(y, s->heads, s->head_dim);
    tensor kh = tensor_heads(k, s->kv_heads, s->head_dim), vh = tensor_heads(v, s->kv_heads, s->head_dim);
    attn_args a = run->attn;
    a.scale = s->attn_scale;
    a.causal = s->causal;
    a.window = s->window[i];
    if (run->kc.nd) {
        op_kv_write(c, run->kc, run->vc, kh, vh, run->slots);
        op_attn(c, yh, qh, run->kc, run->vc, &a);
    } else {
        op_attn(c, yh, qh, kh, vh, &a);
    }
    op_linear(c, x, y, w->w[L_O_W], w->w[L_O_B], ACT_NONE, LINEAR_ADD);
    arena_reset(c->scratch, mark);
}

void stack_feed_forward(ctx *c, const stack_spec *s, const layer_weights *w, tensor x) {
    size_t mark = arena_mark(c->scratch);
    tensor h = ctx_2d(c, DT_F32, x.d[0], s->width), up = ctx_2d(c, DT_F32, x.d[0], s->ffn);
    op_norm(c, h, x, w->w[L_NORM2_G], w->w[L_NORM2_B], s->norm, s->norm_eps, 0);
    if (s->glu) {
        tensor gate = ctx_2d(c, DT_F32, x.d[0], s->ffn);
        op_linear(c, gate, h, w->w[L_GATE_W], w->w[L_GATE_B], ACT_NONE, 0);
        op_linear(c, up, h, w->w[L_UP_W], w->w[L_UP_B], ACT_NONE, 0);
        op_glu(c, gate, gate, up, s->activation);
        op_linear(c, x, gate, w->w[L_DOWN_W], w->w[L_DOWN_B], ACT_NONE, LINEAR_ADD);
    } else {
        op_linear(c, up, h, w->w[L_UP_W], w->w[L_UP_B], s->activation, 0);
        op_linear(c, x, up, w->w[L_DOWN_W], w->w[L_DOWN_B], ACT_NONE, LINEAR_ADD);
    }
    arena_reset(c->scratch, mark);
}

void stack_layer(ctx *c, const stack_spec *s, const layer_weights *w, int i, tensor x, const layer_run *run) {
    int64_t n = x.d[0], qd = (int64_t)s->heads * s->head_dim, kd = (int64_t)s->kv_heads * s->head_dim;
    size_t mark = arena_mark(c->scratch);
    tensor q = ctx_2d(c, DT_F32, n, qd), k = ctx_2d(c, DT_F32, n, kd), v = ctx_2d(c, DT_F32, n, kd);
    stack_project(c, s, w, x, q, k, v, run);
    stack_attend(c, s, w, i, x, q, k, v, run);
    arena_reset(c->scratch, mark);
    stack_feed_forward(c, s, w, x);
}
