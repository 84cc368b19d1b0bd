/* inspect.c - the text of `vlmd inspect`: what was understood of a checkpoint, in words and numbers.
 *
 * Thread: the caller's. Reads the checkpoint's headers, makes no weights. */
#include <ctype.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/model/impl.h"

static const char *act_name(act a) {
    static const char *const names[] = {[ACT_NONE] = "no activation",
                                        [ACT_SILU] = "SiLU",
                                        [ACT_GELU] = "GELU",
                                        [ACT_GELU_TANH] = "GELU (tanh)",
                                        [ACT_QUICK_GELU] = "quick GELU",
                                        [ACT_RELU] = "ReLU"};
    return names[a];
}

static void put_bytes(buf *out, double n) {
    static const char *const unit[] = {"B", "KiB", "MiB", "GiB", "TiB"};
    int u = 0;
    for (; n >= 1024 && u < 4; u++) n /= 1024;
    buf_printf(out, u ? "%.1f %s" : "%.0f %s", n, unit[u]);
}

static void put_axes(buf *out, const rope_spec *r) {
    if (r->axes == 2) buf_puts(out, ", half of the pairs by line, half by column");
    if (r->axes == 3)
        buf_printf(out, ", pairs by picture, line and column %s %d, %d, %d",
                   r->deal == ROPE_INTERLEAVED ? "in turn, up to" : "in sections of", r->section[0],
                   r->section[1], r->section[2]);
}

static void put_rope(buf *out, const rope_spec *r, const char *of) {
    if (r->kind == ROPE_NONE) return;
    buf_printf(out, "  positions    rotary%s, base %g", of, (double)r->theta);
    if (r->kind == ROPE_LINEAR) buf_printf(out, ", stretched by %g", (double)r->factor);
    if (r->kind == ROPE_DYNAMIC)
        buf_printf(out, ", base grows beyond %d tokens (factor %g)", r->max_pos, (double)r->factor);
    if (r->kind == ROPE_LLAMA3)
        buf_printf(out, ", long waves stretched by %g from %d tokens (bands %g to %g)", (double)r->factor,
                   r->max_pos, (double)r->low_freq_factor, (double)r->high_freq_factor);
    if (r->kind == ROPE_YARN) {
        float unused, factor;
        float *f = mem_calloc((size_t)r->dims, sizeof unused);
        if (f) rope_frequencies(r, f, &factor);
        buf_printf(out, ", YaRN by %g from %d tokens", (double)r->factor, r->max_pos);
        if (f) buf_printf(out, ", attention factor %.4g", (double)factor);
        mem_free(f);
    }
    put_axes(out, r);
    buf_puts(out, "\n");
}

static void put_stack(buf *out, const stack_spec *s) {
    buf_printf(out, "  layers       %d, width %d\n", s->n_layers, s->width);
    buf_printf(out, "  attention    %d heads of %d", s->heads, s->head_dim);
    if (s->kv_heads != s->heads) buf_printf(out, ", %d key/value heads", s->kv_heads);
    if (s->qk_norm || s->qk_norm_full)
        buf_printf(out, ", RMS norm on queries and keys%s", s->qk_norm ? "" : ", all heads as one");
    if (s->attn_softcap > 0) buf_printf(out, ", scores capped at %g", (double)s->attn_softcap);
    const char *bias = s->o_bias && s->q_bias ? ", biases"
                       : s->o_bias            ? ", a bias on the output"
                       : s->q_bias            ? ", biases on q, k, v"
                                              : "";
    buf_printf(out, "%s%s\n", bias, s->causal ? ", causal" : ", both ways");
    int cross = 0;
    for (int i = 0; i < s->n_layers; i++) cross += s->cross[i];
    bool gates = false;
    for (int i = 0; i < s->n_layers; i++) gates = gates || (s->cross[i] && s->gated[i]);
    if (cross)
        buf_printf(out, "  pictures     %d of %d layers attend to them instead of to the text%s\n", cross,
                   s->n_layers, gates ? ", through tanh gates" : "");
    int beside = 0;
    for (int i = 0; i < s->n_layers; i++) beside += s->beside_width && s->beside[i];
    if (beside)
        buf_printf(out, "  beside       %d of %d layers then attend to other rows as well, %d wide\n", beside,
                   s->n_layers, s->beside_width);
    int windowed = 0, window = 0;
    for (int i = 0; i < s->n_layers; i++)
        if (s->window[i]) windowed++, window = s->window[i];
    if (windowed)
        buf_printf(out, "  window       %d tokens in %s%d of %d layers\n", window,
                   windowed == s->n_layers ? "all " : "", windowed, s->n_layers);
    if (s->ffn)
        buf_printf(out, "  feed-forward %s%s, %d wide%s\n", s->glu ? "gated " : "", act_name(s->activation),
                   s->ffn, s->mlp_bias ? ", biases" : "");
    buf_printf(out, "  norm         %s%s, eps %g", s->norm == NORM_RMS ? "RMS" : "layer",
               s->norm_plain ? " without parameters" : "", (double)s->norm_eps);
    if (s->norm_offset != 0) buf_printf(out, ", gains count from %g", (double)s->norm_offset);
    buf_puts(out, s->norm_after   ? ", behind the residual"
                  : s->post_norms ? ", before and behind each half"
                                  : "");
    if (s->layer_scale) buf_puts(out, "; each half is scaled by a vector");
    buf_puts(out, "\n");
}

static void put_text(buf *out, const text_spec *t) {
    bool local = t->rope_local.kind != ROPE_NONE;
    put_rope(out, &t->stack.rope, local ? " without a window" : "");
    put_rope(out, &t->rope_local, " with a window");
    if (t->learned_pos) buf_printf(out, "  positions    a table of %d\n", t->learned_pos);
    if (t->embed_norm) buf_puts(out, "  embeddings   layer-normed, positions included\n");
    if (t->head_transform)
        buf_printf(out, "  head         behind a matrix, %s and a layer norm%s\n",
                   act_name(t->stack.activation), t->head_bias ? "; a bias" : "");
    if (t->embed_scale != 1) buf_printf(out, "  embeddings   times %g\n", (double)t->embed_scale);
    if (t->embed_width)
        buf_printf(out, "  embeddings   %d wide, a matrix leads in and out\n", t->embed_width);
    if (t->logit_softcap > 0) buf_printf(out, "  logits       capped at %g\n", (double)t->logit_softcap);
}

/* Where company changes what becomes of a picture. */
static void put_company(buf *out, const model_spec *s) {
    prep_plan alone, with;
    image_ask ask = {1024, 768, 1};
    bool ok = spec_plan_image(s, &ask, &IMAGE_LIMITS_DEFAULT, &alone, NULL);
    ask.n_images = 2;
    if (!ok || !spec_plan_image(s, &ask, &IMAGE_LIMITS_DEFAULT, &with, NULL)) return;
    if (with.n_tiles == alone.n_tiles) return;
    buf_printf(out, "; with others in a prompt %d each, in %d tile%s", s->image_rows(s, &with), with.n_tiles,
               with.n_tiles == 1 ? " padded to a square" : "s");
}

/* Rows by size, where they differ. */
static void put_image_costs(buf *out, const model_spec *s) {
    if (s->reads.what == READS_QUESTION) {
        buf_printf(out,
                   "fuse: the answer's decoder attends to the question's rows, %zu bytes of keys and values "
                   "each; a picture takes no tokens of its context, which begins with id %d alone\n"
                   "takes: one user message of one picture and one text, at most %d tokens\n",
                   (size_t)spec_image_width(s) * sizeof(float), (int)s->bos, s->reads.max_tok);
        return;
    }
    static const int sizes[][2] = {{336, 336}, {1024, 768}, {768, 1024}, {1920, 1080}, {200, 1600}};
    int first = 0;
    buf_puts(out, "fuse: a picture costs ");
    for (size_t i = 0; i < ARRAY_LEN(sizes); i++) {
        prep_plan p;
        image_ask ask = {sizes[i][0], sizes[i][1], 1};
        int n = spec_plan_image(s, &ask, &IMAGE_LIMITS_DEFAULT, &p, NULL) ? s->image_rows(s, &p) : 0;
        if (i == 0) {
            first = n;
            buf_printf(out, "%d tokens", n);
        } else if (n != first) {
            buf_printf(out, ", of %d x %d pixels %d", ask.w, ask.h, n);
            if (p.n_tiles > 1) buf_printf(out, " in %d tiles", p.n_tiles);
        }
    }
    if (s->fuse == FUSE_CROSS)
        buf_printf(out, " of keys and values apart from the text's, %zu bytes each",
                   (size_t)spec_image_width(s) * sizeof(float));
    if (s->fuse == FUSE_CROSS && s->no_place)
        buf_puts(out, ", and no token in the prompt");
    else if (s->fuse == FUSE_CROSS)
        buf_printf(out, ", and one token in the prompt, id %d", (int)s->image_token);
    else
        buf_puts(out, s->pictures_in_front ? " before all text" : " in place of the placeholder");
    if (s->fuse != FUSE_CROSS && s->image_token >= 0) buf_printf(out, ", id %d", (int)s->image_token);
    if (s->max_pictures) buf_printf(out, "; at most %d in a prompt", s->max_pictures);
    if (s->reads.what == READS_PROMPT)
        buf_printf(out, "; the prompt's text, at most %d tokens of %s, is read with it", s->reads.max_tok,
                   s->reads.tokenizer ? s->reads.tokenizer : "the tokenizer");
    put_company(out, s);
    buf_puts(out, "\n");
}

static void put_queries(buf *out, const join_spec *j) {
    buf_printf(out, "a Q-Former: %d learned queries, normed", j->latents);
    if (j->read_vocab)
        buf_printf(
            out,
            ", and behind them the text that is read with the picture, up to %d tokens of a vocabulary "
            "of %d",
            j->read_pos, j->read_vocab);
    buf_printf(out, "; behind %s layers linear, %d to %d%s\n", j->read_vocab ? "the queries'" : "their",
               j->in, j->out, j->bias ? ", bias" : "");
}

static void put_join(buf *out, const join_spec *j) {
    if (j->merge > 1) buf_printf(out, "blocks of %d x %d rows side by side, ", j->merge, j->merge);
    if (j->normed != JOIN_NORM_NONE)
        buf_printf(out, "%s norm%s, ", j->norm == NORM_RMS ? "RMS" : "layer",
                   j->normed == JOIN_NORM_ROW && j->merge > 1 ? " of each before" : "");
    if (j->kind == JOIN_LINEAR)
        buf_printf(out, "linear, %d to %d%s\n", j->in, j->out, j->bias ? ", bias" : "");
    else if (j->kind == JOIN_PERCEIVER)
        buf_printf(
            out,
            "a perceiver: a gated feed-forward, %d to %d, then %d learned latents attend to each tile and to "
            "themselves\n",
            j->in, j->out, j->latents);
    else if (j->kind == JOIN_QFORMER)
        put_queries(out, j);
    else if (j->kind == JOIN_READER)
        buf_printf(out,
                   "a text encoder: the text that is read with the picture, up to %d tokens of a vocabulary "
                   "of %d, attends to itself and to the picture's rows\n",
                   j->read_pos, j->read_vocab);
    else if (j->kind == JOIN_ATTEND)
        buf_printf(out, "%d learned latents attend once to the features, %d to %d, layer norm%s\n",
                   j->latents, j->in, j->out, j->drop_first ? ", the first is dropped" : "");
    else if (j->kind == JOIN_NONE)
        buf_printf(out, "none, the features are the rows, %d wide\n", j->in);
    else if (j->kind == JOIN_POOL)
        buf_printf(out, "mean of %d x %d patches, RMS norm, linear, %d to %d\n", j->pool, j->pool, j->in,
                   j->out);
    else
        buf_printf(out, "two-layer MLP, %d to %d to %d, %s%s\n", j->in, j->hidden, j->out,
                   act_name(j->activation), j->bias ? ", biases" : "");
}

/* How a picture becomes tiles, and what stands between their rows. */
static void put_cut(buf *out, const model_spec *s) {
    const prep_cut *c = &s->prep.cut;
    switch (c->kind) {
    case PREP_CUT_NONE: return;
    case PREP_CUT_POINTS:
        buf_printf(
            out,
            "tiles: of %d x %d pixels: the whole picture in one, then the best of %d sizes, black around "
            "it\n",
            c->side, c->side, c->n_points);
        break;
    case PREP_CUT_RATIO:
        if (c->max_tiles > 1)
            buf_printf(
                out,
                "tiles: of %d x %d pixels in the grid of the nearest ratio, %d to %d of them; the whole "
                "picture in one behind several\n",
                c->side, c->side, c->min_tiles, c->max_tiles);
        break;
    case PREP_CUT_QUARTERS:
        buf_puts(out, c->whole_only ? "tiles: the whole picture, at its own ratio\n"
                                    : "tiles: four quarters and the whole picture, each at its own ratio\n");
        break;
    case PREP_CUT_EDGE:
        buf_puts(out, "tiles: ");
        if (s->prep.size == PREP_SIZE_LONGEST)
            buf_printf(out, "scaled to a longest edge of %d, ", s->prep.size_w);
        if (s->prep.size == PREP_SIZE_EXACT)
            buf_printf(out, "scaled to %d x %d, ", s->prep.size_w, s->prep.size_h);
        buf_printf(out,
                   c->whole_only ? "squashed to %d x %d pixels\n"
                                 : "sides raised to tiles of %d x %d pixels; the whole picture in one behind "
                                   "several\n",
                   c->side, c->side);
        break;
    }
    if (s->newline)
        buf_puts(out, "  newline      a row of its own behind each line of rows, without the black\n");
    if (s->pack_limit)
        buf_printf(out, "  limit        resampled to about the rows of %d tiles where they are more\n",
                   s->pack_limit);
}

/* A tower that takes a picture as large as it is. */
static void put_native(buf *out, const model_spec *s) {
    const tower_spec *t = &s->tower;
    const prep_spec *p = &s->prep;
    buf_printf(out, "\ntower: a ViT on pictures at about their own size");
    if (p->size == PREP_SIZE_PIXELS) buf_printf(out, ", %d to %d pixels in all", p->size_w, p->size_h);
    buf_printf(out, ", patches of %d", t->patch);
    if (t->frames > 1) buf_printf(out, ", each %d times as a still among frames", t->frames);
    buf_puts(out, "\n");
    if (t->pos_corners)
        buf_printf(out, "  positions    a table of %d x %d, resampled to the picture's grid\n",
                   t->pos_corners, t->pos_corners);
}

static void put_tower_windows(buf *out, const tower_spec *t) {
    int all = 0;
    for (int i = 0; i < t->run_layers; i++) all += !t->window || t->sees_all[i];
    if (t->window)
        buf_printf(out, "  windows      %d x %d patches in %d of %d layers\n", t->window, t->window,
                   t->run_layers - all, t->run_layers);
}

static void put_deep(buf *out, const deep_spec *d) {
    for (int i = 0; i < d->n; i++) {
        buf_printf(out, "  deep         hidden state %d is added behind the decoder's layer %d, through ",
                   d->state[i], i);
        put_join(out, &d->join);
    }
}

static void put_pick(buf *out, const dual_spec *d) {
    if (d->pick == DUAL_PICK_ID) buf_printf(out, "the first row of id %d", (int)d->pick_id);
    if (d->pick == DUAL_PICK_GREATEST) buf_puts(out, "the first row of the greatest id");
    if (d->pick == DUAL_PICK_LAST) buf_puts(out, "the last row");
}

static void put_dual(buf *out, const model_spec *s) {
    const tower_spec *t = &s->tower;
    const dual_spec *d = &s->dual;
    int side = t->image_size / t->patch;
    buf_printf(out, "\nmakes vectors of %d numbers from texts and pictures, and no text: a dual encoder\n",
               d->width);
    if (t->pos_side)
        buf_printf(out,
                   "\npictures: a ViT on up to %d patches of %d x %d pixels in the picture's own aspect "
                   "ratio, positions "
                   "resampled from a table of %d x %d\n",
                   t->max_patches, t->patch, t->patch, t->pos_side, t->pos_side);
    else
        buf_printf(out, "\npictures: a ViT on %d x %d pixels, %d x %d patches of %d%s\n", t->image_size,
                   t->image_size, side, side, t->patch, t->cls ? " and a CLS row" : "");
    put_stack(out, &t->stack);
    if (d->head == DUAL_HEAD_FIRST)
        buf_printf(out, "  vector       the first row, normed and projected, %d to %d\n", t->stack.width,
                   d->width);
    else
        buf_puts(
            out,
            "  vector       what a learned query attends to in all rows, then a feed-forward of its own\n");
    buf_printf(out, "\ntexts: vocabulary of %d, up to %d learned positions%s\n", s->text.vocab,
               s->text.max_pos, d->pads ? ", padded, and the padding is read" : "");
    put_stack(out, &s->text.stack);
    buf_puts(out, "  vector       ");
    put_pick(out, d);
    buf_printf(out, ", normed and projected, %d to %d%s\n", s->text.stack.width, d->width,
               d->text_bias ? ", bias" : "");
    buf_printf(out, "\npairs: %s\n",
               d->sigmoid ? "each on its own, sigmoid(scale * cosine + bias)"
                          : "a picture's labels against each other, softmax(scale * cosine)");
}

static void put_words(buf *out, const model_spec *s) {
    const tower_spec *t = &s->tower;
    buf_printf(out, "family %s\n", s->family);
    if (s->dual.on) {
        put_dual(out, s);
        return;
    }
    if (t->stack.n_layers) {
        int side = t->image_size / t->patch;
        if (t->image_size)
            buf_printf(out, "\ntower: a ViT on %d x %d pixels, %d x %d patches of %d%s\n", t->image_size,
                       t->image_size, side, side, t->patch, t->cls ? " and a CLS row" : "");
        else
            put_native(out, s);
        put_stack(out, &t->stack);
        if (tower_together(t))
            buf_printf(out,
                       "  tiles        up to %d attend to each other, in %d arrangements with positions of "
                       "their own; "
                       "%d gated layers behind a norm\n",
                       t->max_tiles, t->arrangements, t->stack.n_layers - t->tail_from);
        put_rope(out, &t->stack.rope, "");
        put_tower_windows(out, t);
        if (t->pos_buckets)
            buf_puts(out, "  positions    by the fraction of the side, a tile's grid may differ\n");
        buf_printf(out, "  features     hidden state%s", t->n_features > 1 ? "s" : "");
        for (int i = 0; i < t->n_features; i++) buf_printf(out, "%s %d", i ? "," : "", t->features[i]);
        buf_printf(out, " of 0..%d%s%s%s", t->stack.n_layers, t->n_features > 1 ? " side by side" : "",
                   t->post_norm ? ", layer norm behind the last" : "",
                   t->drop_first ? ", first row dropped" : "");
        if (side) buf_printf(out, ", %d rows", tower_features_rows(t, side, side));
        buf_puts(out, "\n\njoin: ");
        put_join(out, &s->join);
        put_deep(out, &s->deep);
        if (s->join.stack.n_layers) put_stack(out, &s->join.stack);
        put_cut(out, s);
        put_image_costs(out, s);
    }
    buf_printf(out, "\ndecoder: vocabulary of %d, up to %d positions, %s\n", s->text.vocab, s->text.max_pos,
               s->text.tied ? "head tied to the embedding" : "its own head");
    put_stack(out, &s->text.stack);
    put_text(out, &s->text);
    if (s->both_ways == BOTH_PICTURE) buf_puts(out, "  both ways    a picture's tokens see each other\n");
    if (s->both_ways == BOTH_PROMPT)
        buf_puts(out, "  both ways    a prompt's tokens see each other, an answer's do not\n");
    buf_puts(out, "  stops at    ");
    for (int i = 0; i < s->n_eos; i++) buf_printf(out, "%s id %d", i ? "," : "", (int)s->eos[i]);
    buf_puts(out, s->n_eos ? "\n" : " no id of its own\n");
}

/* ---- tensors: one line for all layers that look alike ------------------------------------------------------------ */

typedef struct line {
    char pattern[256], shape[160];
    const char *why;
    int n, first, last;
} line;

/* "a.layers.12.b" to "a.layers.*.b"; returns the number, or -1. */
static int pattern_of(const char *name, char *out, size_t n) {
    static const char *const lists[] = {"layers.", "layer.", "resblocks.", "cross_attn."};
    const char *p = NULL;
    for (size_t i = 0; i < ARRAY_LEN(lists) && !p; i++)
        if ((p = strstr(name, lists[i]))) p += strlen(lists[i]);
    if (!p || !isdigit((unsigned char)*p)) {
        snprintf(out, n, "%s", name);
        return -1;
    }
    char *end;
    long k = strtol(p, &end, 10);
    snprintf(out, n, "%.*s*%s", (int)(p - name), name, end);
    return k < 0 || k > 1 << 20 ? -1 : (int)k;
}

static bool put_tensors(buf *out, const plan *p, bool ignored) {
    size_t n = ckpt_count(p->ckpt), n_lines = 0;
    line *lines = mem_calloc(n + 1, sizeof *lines);
    if (!lines) return false;
    for (size_t i = 0; i < n; i++) {
        if ((bind_state_of(p->bind, i) == BIND_IGNORED) != ignored) continue;
        line l = {.n = 1, .why = ignored ? bind_why(p->bind, i) : NULL};
        l.first = l.last = pattern_of(ckpt_at(p->ckpt, i)->name, l.pattern, sizeof l.pattern);
        st_describe(ckpt_at(p->ckpt, i), l.shape, sizeof l.shape);
        size_t k = n_lines > 256 ? n_lines - 256 : 0; /* names are sorted: its like stands near */
        while (k < n_lines &&
               (strcmp(lines[k].pattern, l.pattern) != 0 || strcmp(lines[k].shape, l.shape) != 0))
            k++;
        if (k == n_lines) {
            lines[n_lines++] = l;
        } else {
            lines[k].n++;
            if (l.first < lines[k].first) lines[k].first = l.first;
            if (l.last > lines[k].last) lines[k].last = l.last;
        }
    }
    for (size_t k = 0; k < n_lines; k++) {
        const line *l = &lines[k];
        buf_printf(out, "  %-70s %-22s", l->pattern, l->shape);
        if (l->n > 1) buf_printf(out, " x %d (%d..%d)", l->n, l->first, l->last);
        if (l->why) buf_printf(out, "  %s", l->why);
        while (out->len && out->data[out->len - 1] == ' ') out->data[--out->len] = 0;
        buf_puts(out, "\n");
    }
    if (!n_lines) buf_puts(out, "  none\n");
    mem_free(lines);
    return true;
}

bool model_inspect(const char *dir, buf *out, status *st) {
    status local = {0};
    if (!st) st = &local;
    plan p;
    if (!plan_open(&p, dir, st)) return false;
    const stack_spec *k = &p.spec.text.stack;
    put_words(out, &p.spec);
    int kept = 0;
    for (int i = 0; i < k->n_layers; i++) kept += !k->cross[i];
    double per_tok = 2.0 * kept * k->kv_heads * k->head_dim * (double)sizeof(float);
    buf_puts(out, "\nmemory: weights ");
    put_bytes(out, (double)p.weight_bytes);
    buf_printf(out, " in %d file%s", ckpt_n_files(p.ckpt), ckpt_n_files(p.ckpt) > 1 ? "s" : "");
    if (!p.spec.dual.on) {
        buf_puts(out, ", KV cache ");
        put_bytes(out, per_tok);
        buf_puts(out, " a token, ");
        put_bytes(out, per_tok * p.spec.text.max_pos);
        buf_printf(out, " for %d tokens", p.spec.text.max_pos);
    }
    buf_puts(out, "\n");
    buf_puts(out, "\ntensors\n");
    bool ok = put_tensors(out, &p, false);
    buf_puts(out, "\nignored\n");
    ok = ok && put_tensors(out, &p, true);
    plan_close(&p);
    return (ok && !out->failed) || status_set(st, ST_NO_MEMORY, "no memory for the description");
}
