/* embed.c - see embed.h. HTTP threads; embed_take and embed_next_text: the engine's. */
#include "engine/embed.h"

#include <math.h>
#include <string.h>

#include "engine/families/token_classes.h"

static bool no_memory(status *st) {
    return status_set(st, ST_NO_MEMORY, "no memory for the request");
}

/* ---- what the tokenizer's files say ---- */

static bool read_padding(promptkit *k, const json_t *config, status *st) {
    const char *side = json_string_value(json_object_get(config, "padding_side"));
    const char *class = json_string_value(json_object_get(config, "tokenizer_class"));
    const char *pad = json_string_value(json_object_get(k->template_vars, "pad_token"));
    k->embed.pad_left = side ? strcmp(side, "left") == 0 : class && token_class_pads_left(class);
    k->embed.pad_id = pad ? tok_find(k->tok, pad) : tok_pad_id(k->tok);
    if (k->embed.pad_id < 0) k->embed.pad_id = k->spec->dual.pad_id;
    if (k->embed.pad_id >= k->spec->text.vocab)
        return status_set(st, ST_INVALID, "the padding token is id %d, the text tower knows ids below %d",
                          (int)k->embed.pad_id, k->spec->text.vocab);
    size_t i;
    json_t *name;
    json_array_foreach(json_object_get(config, "model_input_names"), i, name) {
        const char *s = json_string_value(name);
        if (s && strcmp(s, "attention_mask") == 0)
            return status_set(
                st, ST_UNSUPPORTED,
                "tokenizer_config.json: model_input_names: attention_mask for a text tower whose "
                "padding is read as well is not implemented");
    }
    return true;
}

bool embed_rules_read(promptkit *k, const json_t *config, status *st) {
    const model_spec *s = k->spec;
    int longest = s->dual.pad_to ? s->dual.pad_to : s->text.max_pos;
    double own = json_number_value(json_object_get(config, "model_max_length"));
    if (!s->dual.pad_to && own >= 1 && own < longest) longest = (int)own;
    k->embed.pad_to = s->dual.pads ? longest : 0;
    k->embed.max_tok = k->max_model_len < longest ? k->max_model_len : longest;
    if (s->dual.pads && !read_padding(k, config, st)) return false;
    tok_ids ids = {0};
    bool ok = tok_encode_max(k->tok, "", 0, NULL, 0, true, (size_t)k->embed.max_tok, &ids, st);
    tok_ids_fini(&ids);
    return ok || status_prefix(st, "texts of at most %d tokens", k->embed.max_tok);
}

/* ---- texts ---- */

static bool too_long(const promptkit *k, size_t n, const char *param, status *st) {
    status_set(
        st, ST_INVALID,
        "%s: this model's maximum context length is %d tokens, but the text has %zu. Please shorten it, or "
        "set \"truncate\" to true.",
        param, k->embed.max_tok, n);
    return status_param(st, "%s", param);
}

/* Its ids, specials included, at most max_tok. */
static bool encode_text(const promptkit *k, const engine_embed_input *in, bool truncate, tok_ids *ids,
                        status *st) {
    const tok_span all = {0, in->n_text};
    size_t most = truncate ? (size_t)k->embed.max_tok : SIZE_MAX;
    if (!tok_encode_max(k->tok, in->text, in->n_text, &all, in->n_text > 0, true, most, ids, st))
        return status_param(st, "%s", in->param);
    return ids->n <= (size_t)k->embed.max_tok || too_long(k, ids->n, in->param, st);
}

static bool copy_ids(const promptkit *k, const engine_embed_input *in, bool truncate, tok_ids *ids,
                     status *st) {
    size_t n = in->n_ids, most = (size_t)k->embed.max_tok;
    if (n == 0) {
        status_set(st, ST_INVALID, "%s: an empty list of tokens", in->param);
        return status_param(st, "%s", in->param);
    }
    if (n > most && !truncate) return too_long(k, n, in->param, st);
    if (n > most) n = most;
    for (size_t i = 0; i < n; i++) {
        if (in->ids[i] < 0 || in->ids[i] >= k->spec->text.vocab) {
            status_set(st, ST_INVALID, "%s: token %zu is id %d; the model knows ids from 0 to %d", in->param,
                       i, (int)in->ids[i], k->spec->text.vocab - 1);
            return status_param(st, "%s", in->param);
        }
        if (!tok_ids_push(ids, in->ids[i])) return no_memory(st);
    }
    return true;
}

static int pick_row(const dual_spec *d, const int32_t *ids, int n) {
    int best = 0;
    if (d->pick == DUAL_PICK_LAST) return n - 1;
    for (int i = 0; i < n; i++) {
        if (d->pick == DUAL_PICK_ID && ids[i] == d->pick_id) return i;
        if (d->pick == DUAL_PICK_GREATEST && ids[i] > ids[best]) best = i;
    }
    return best;
}

static bool check_vocab(const promptkit *k, const tok_ids *ids, const char *param, status *st) {
    for (size_t i = 0; i < ids->n; i++)
        if (ids->v[i] < 0 || ids->v[i] >= k->spec->text.vocab) {
            status_set(st, ST_INVALID, "%s: the tokenizer gives id %d; the model knows ids below %d", param,
                       (int)ids->v[i], k->spec->text.vocab);
            return status_param(st, "%s", param);
        }
    return true;
}

/* Appends the ids, padded, to those of all texts. */
static bool append_text(const promptkit *k, embed *x, embed_item *it, const tok_ids *ids, status *st) {
    tok_ids *all = &x->prompt->ids;
    size_t pads = (size_t)k->embed.pad_to > ids->n ? (size_t)k->embed.pad_to - ids->n : 0;
    bool ok = true;
    it->image = -1;
    it->from = (int)all->n;
    for (size_t i = 0; i < pads && k->embed.pad_left; i++) ok = ok && tok_ids_push(all, k->embed.pad_id);
    for (size_t i = 0; i < ids->n; i++) ok = ok && tok_ids_push(all, ids->v[i]);
    for (size_t i = 0; i < pads && !k->embed.pad_left; i++) ok = ok && tok_ids_push(all, k->embed.pad_id);
    it->n = (int)all->n - it->from;
    if (!ok) return no_memory(st);
    it->pick = pick_row(&k->spec->dual, all->v + it->from, it->n);
    x->n_tokens += (int)ids->n;
    return true;
}

static bool take_text(const promptkit *k, embed *x, embed_item *it, const engine_embed_input *in,
                      bool truncate, status *st) {
    tok_ids ids = {0};
    bool ok = (in->text ? encode_text(k, in, truncate, &ids, st) : copy_ids(k, in, truncate, &ids, st));
    if (ok && ids.n == 0) {
        status_set(st, ST_INVALID, "%s: the text gives no token", in->param);
        ok = status_param(st, "%s", in->param);
    }
    ok = ok && check_vocab(k, &ids, in->param, st) && append_text(k, x, it, &ids, st);
    tok_ids_fini(&ids);
    return ok;
}

/* ---- pictures ---- */

static bool take_pictures(const promptkit *k, embed *x, const engine_embed_input *in, int n, status *st) {
    int n_images = 0;
    for (int i = 0; i < n; i++) n_images += in[i].image != NULL;
    engine_image *images = mem_calloc((size_t)n_images, sizeof *images);
    if (!images) return no_memory(st);
    for (int i = 0, at = 0; i < n; i++) {
        if (!in[i].image) continue;
        x->items[i].image = at;
        images[at++] = *in[i].image;
    }
    bool ok = prompt_take_images(k, images, n_images, x->prompt, st);
    mem_free(images);
    for (int i = 0; ok && i < n_images; i++) {
        tile t = prep_plan_tile(&x->prompt->images[i].pixels.plan, 0);
        const tower_spec *tower = &k->spec->tower;
        x->n_tokens += tower_features_rows(tower, t.w / tower->patch, t.h / tower->patch);
    }
    return ok;
}

/* ---- life ---- */

static bool fill(const promptkit *k, embed *x, const engine_embed_input *in, int n, bool truncate,
                 status *st) {
    x->prompt = mem_calloc(1, sizeof *x->prompt);
    x->items = mem_calloc((size_t)n, sizeof *x->items);
    if (!x->prompt || !x->items) return no_memory(st);
    if (!take_pictures(k, x, in, n, st)) return false;
    for (int i = 0; i < n; i++)
        if (!in[i].image && !take_text(k, x, &x->items[i], &in[i], truncate, st)) return false;
    x->vectors = mem_calloc((size_t)n * (size_t)x->width, sizeof *x->vectors);
    return x->vectors || no_memory(st);
}

embed *embed_new(const promptkit *k, const engine_embed_input *in, int n, const engine_embed_options *o,
                 status *st) {
    CHECK(n > 0);
    embed *x = mem_calloc(1, sizeof *x);
    if (!x) {
        no_memory(st);
        return NULL;
    }
    x->n_items = x->n_left = n;
    x->width = k->spec->dual.width;
    x->raw = o->raw;
    x->priority = o->priority;
    if (fill(k, x, in, n, o->truncate, st)) return x;
    embed_free(x);
    return NULL;
}

void embed_free(embed *x) {
    if (!x) return;
    prompt_free(x->prompt);
    mem_free(x->items);
    mem_free(x->vectors);
    mem_free(x);
}

int embed_tokens(const embed *x) {
    return x->n_tokens;
}

/* ---- vectors ---- */

embed_item *embed_next_text(embed *x) {
    for (; x->next < x->n_items; x->next++)
        if (x->items[x->next].image < 0 && !x->items[x->next].have) return &x->items[x->next];
    return NULL;
}

static double length_of(const float *v, int n) {
    double sum = 0;
    for (int i = 0; i < n; i++) sum += (double)v[i] * v[i];
    return sqrt(sum);
}

bool embed_take(embed *x, embed_item *it, const float *vector) {
    float *to = x->vectors + (size_t)(it - x->items) * (size_t)x->width;
    double length = length_of(vector, x->width);
    if (!isfinite(length)) return false;
    CHECK(!it->have);
    for (int i = 0; i < x->width; i++)
        to[i] = x->raw || length == 0 ? vector[i] : (float)(vector[i] / length);
    it->have = true;
    x->n_left--;
    return true;
}

void engine_judge(const engine_rule *r, int width, const float *vectors, int n_labels, double *logits,
                  double *probabilities) {
    double picture = length_of(vectors, width), best = -INFINITY, sum = 0;
    for (int i = 0; i < n_labels; i++) {
        const float *v = vectors + (size_t)(i + 1) * (size_t)width;
        double dot = 0, lengths = picture * length_of(v, width);
        for (int k = 0; k < width; k++) dot += (double)vectors[k] * v[k];
        logits[i] = r->scale * (lengths > 0 ? dot / lengths : 0) + r->bias;
        if (logits[i] > best) best = logits[i];
    }
    for (int i = 0; i < n_labels; i++) {
        probabilities[i] = r->sigmoid ? 1 / (1 + exp(-logits[i])) : exp(logits[i] - best);
        sum += probabilities[i];
    }
    for (int i = 0; i < n_labels && !r->sigmoid; i++) probabilities[i] /= sum;
}
