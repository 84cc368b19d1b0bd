/* spec.c - see spec.h: what every family's pictures have in common. Pure; threads: any. */
#include "engine/model/spec.h"

void image_text_puts(image_text *t, const char *s) {
    if (!buf_puts(t->text, s)) t->failed = true;
}

void image_text_named(image_text *t, const char *name, const char *otherwise) {
    const char *s = json_string_value(json_object_get(t->names, name));
    image_text_puts(t, s ? s : otherwise);
}

void image_text_id(image_text *t, int32_t id) {
    const char *s = t->spell(t->of, id);
    if (s) image_text_puts(t, s);
}

void image_text_rows(image_text *t, int n) {
    CHECK(n > 0);
    if (t->n_runs == t->cap_runs) {
        int cap = t->cap_runs ? t->cap_runs * 2 : 16;
        struct image_text_run *runs = mem_realloc(t->runs, (size_t)cap * sizeof *runs);
        if (!runs) {
            t->failed = true;
            return;
        }
        t->runs = runs;
        t->cap_runs = cap;
    }
    t->runs[t->n_runs++] = (struct image_text_run){t->image, n};
    image_text_puts(t, t->row_token);
}

void image_text_fini(image_text *t) {
    mem_free(t->runs);
    t->runs = NULL;
}

bool spec_plan_image(const model_spec *s, const image_ask *a, const image_limits *lim, prep_plan *out,
                     status *st) {
    bool ok =
        s->plan_image ? s->plan_image(s, a, lim, out, st) : prep_plan_cut(&s->prep, a->w, a->h, lim, out, st);
    if (ok) out->n_text = s->reads.what == READS_NOTHING ? 0 : s->reads.max_tok;
    return ok;
}

void spec_write_image(const model_spec *s, const prep_plan *p, image_text *out) {
    if (s->write_image)
        s->write_image(s, p, out);
    else
        image_text_rows(out, s->fuse == FUSE_CROSS ? 1 : s->image_rows(s, p));
}

int spec_image_width(const model_spec *s) {
    int n = 0;
    if (s->fuse != FUSE_CROSS) return s->join.out;
    const stack_spec *k = &s->text.stack;
    for (int i = 0; i < k->n_layers; i++) n += stack_sees(k, i);
    return n * 2 * k->kv_heads * k->head_dim;
}

int spec_image_seen(const model_spec *s, const prep_plan *p) {
    int all = s->image_rows(s, p);
    return tower_together(&s->tower) ? all / s->tower.max_tiles * p->n_tiles : all;
}

int spec_rows_of_square(const model_spec *s, const prep_plan *p) {
    const tower_spec *t = &s->tower;
    tile one = prep_plan_tile(p, 0);
    if (p->n_tiles != 1 || one.w != t->image_size || one.h != t->image_size) return 0;
    return spec_rows_of_tile(s, &one);
}

int spec_rows_of_tile(const model_spec *s, const tile *at) {
    const tower_spec *t = &s->tower;
    int w = at->w / t->patch, h = at->h / t->patch, k = s->join.merge;
    if (w < 1 || h < 1) return 0;
    if (t->image_size == 0 ? at->w % t->patch || at->h % t->patch
                           : !t->pos_buckets && (at->w != t->image_size || at->h != t->image_size))
        return 0;
    if (s->join.latents) return s->join.latents;
    if (k <= 1) return tower_features_rows(t, w, h);
    return w % k || h % k ? 0 : w * h / (k * k);
}

int spec_rows_of_tiles(const model_spec *s, const prep_plan *p) {
    int n = 0;
    for (int i = 0; i < p->n_tiles; i++) {
        tile at = prep_plan_tile(p, i);
        int rows = spec_rows_of_tile(s, &at);
        if (!rows) return 0;
        n += rows;
    }
    return n;
}
