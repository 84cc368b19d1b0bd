/* cross.c - layers that attend to pictures instead of to the text's past, or beside it, and the keys and values they read.
 *
 * A row of a picture holds for each such layer its keys, then its values, all layers side by side. Each run of rows attends
 * by itself, so that a row's bits depend on what it sees alone.
 * Thread: the engine's. Source: transformers' modeling_mllama.py (MllamaCrossAttentionDecoderLayer), modeling_blip_text.py
 * (BlipTextLayer); open_clip's transformer.py (ResidualAttentionBlock with is_cross_attention). */
#include "engine/model/impl.h"

tensor cross_part(const model_spec *s, tensor rows, int i, bool values) {
    const stack_spec *k = &s->text.stack;
    int before = 0;
    for (int l = 0; l < i; l++) before += stack_sees(k, l);
    int64_t width = (int64_t)k->kv_heads * k->head_dim;
    return tensor_cols(rows, (2 * before + (values ? 1 : 0)) * width, width);
}

void cross_keep(ctx *c, const model *m, tensor x, tensor rows) {
    const stack_spec *k = &m->spec.text.stack;
    for (int i = 0; i < k->n_layers; i++) {
        if (!stack_sees(k, i)) continue;
        tensor keys = cross_part(&m->spec, rows, i, false), values = cross_part(&m->spec, rows, i, true);
        if (k->beside[i])
            stack_beside_keep(c, &m->text[i], x, keys, values);
        else
            stack_context(c, k, &m->text[i], x, keys, values);
    }
}

/* Runs [from, to), whose rows lie next to each other. */
static void attend(ctx *c, const model *m, int i, tensor x, const struct step_cross *from,
                   const struct step_cross *to) {
    const stack_spec *k = &m->spec.text.stack;
    const layer_weights *w = &m->text[i];
    size_t mark = arena_mark(c->scratch);
    tensor q = ctx_2d(c, DT_F32, x.d[0], (int64_t)k->heads * k->head_dim),
           y = ctx_2d(c, DT_F32, q.d[0], q.d[1]);
    if (k->beside[i])
        stack_beside_query(c, k, w, x, q);
    else
        stack_query(c, k, w, x, q);
    for (const struct step_cross *r = from; r < to; r++) {
        attn_args a = {.scale = k->attn_scale,
                       .narrow = weight_type(w->w[L_O_W]),
                       .n_seqs = 1,
                       .q_start = r->q_start,
                       .kv_len = r->kv_len};
        tensor keys = cross_part(&m->spec, r->rows, i, false),
               values = cross_part(&m->spec, r->rows, i, true);
        op_attn(c, tensor_heads(tensor_rows(y, r->row - from->row, r->n), k->heads, k->head_dim),
                tensor_heads(tensor_rows(q, r->row - from->row, r->n), k->heads, k->head_dim),
                tensor_heads(keys, k->kv_heads, k->head_dim), tensor_heads(values, k->kv_heads, k->head_dim),
                &a);
    }
    if (k->beside[i])
        stack_beside_join(c, k, w, x, y);
    else
        stack_join_attention(c, k, w, x, y);
    arena_reset(c->scratch, mark);
}

/* Those from r on whose rows lie next to each other attend; returns the first behind them. */
static int attend_from(ctx *c, const model *m, int i, tensor x, const step *s, int r) {
    int end = s->cross[r].row + s->cross[r].n, next = r + 1;
    for (; next < s->n_cross && s->cross[next].row == end; next++) end += s->cross[next].n;
    attend(c, m, i, tensor_rows(x, s->cross[r].row, end - s->cross[r].row), s->cross + r, s->cross + next);
    return next;
}

void cross_beside(ctx *c, const model *m, int i, tensor x, const step *s) {
    for (int r = 0; r < s->n_cross;) r = attend_from(c, m, i, x, s, r);
}

void cross_layer(ctx *c, const model *m, int i, tensor x, const step *s) {
    for (int r = 0, next; r < s->n_cross; r = next) {
        next = attend_from(c, m, i, x, s, r);
        for (int a = r, b; a < next; a = b) {
            int row = s->cross[a].row, n = 0;
            for (b = a; b < next && s->cross[b].past == s->cross[a].past; b++) n += s->cross[b].n;
            if (s->cross[a].past)
                stack_feed_forward(c, &m->spec.text.stack, &m->text[i], tensor_rows(x, row, n));
        }
    }
}
