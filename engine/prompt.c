/* prompt.c - one chat becomes ids and pictures: probes the pictures, shapes the messages for the template, renders,
 * tokenises and expands the placeholders. See prompt.h for threads and owners. */
#include "engine/prompt.h"

#include <string.h>

#include "engine/model/model.h"
#include "engine/reads.h"
#include "engine/tmpl/find.h"

static bool no_memory(status *st) {
    return status_set(st, ST_NO_MEMORY, "no memory for the prompt");
}

/* ---- pictures, from their headers alone ---- */

/* Says which picture a fault is about, in the field and in the sentence. */
static bool blame_picture(const prompt_image *im, status *st) {
    status_prefix(st, "%s", im->param);
    return status_param(st, "%s", im->param);
}

static bool plan_image(const promptkit *k, prompt_image *im, int n_images, status *st) {
    if (!image_probe(&im->source, &k->limits, &im->info, st)) return false;
    image_ask ask = {im->info.w, im->info.h, n_images};
    prep_plan *plan = &im->pixels.plan;
    if (!spec_plan_image(k->spec, &ask, &k->limits, plan, st)) return false;
    return prompt_size_image(k, im, st);
}

bool prompt_size_image(const promptkit *k, prompt_image *im, status *st) {
    const prep_plan *plan = &im->pixels.plan;
    im->n_rows = k->spec->image_rows(k->spec, plan);
    if (im->n_rows > 0) {
        im->encode_bytes = encode_bytes(k->spec, plan);
        im->row_bytes = (size_t)im->n_rows * (size_t)spec_image_width(k->spec) * sizeof(float);
        return true;
    }
    tile first = prep_plan_tile(plan, 0);
    return status_set(st, ST_INVALID,
                      "the picture becomes %d x %d pixels, a size that the model's tower does not take",
                      first.w, first.h);
}

bool prompt_take_images(const promptkit *k, const engine_image *images, int n, prompt *p, status *st) {
    p->images = mem_calloc((size_t)n, sizeof *p->images);
    if (!p->images) return no_memory(st);
    for (int i = 0; i < n; i++) {
        prompt_image *im = &p->images[p->n_images++];
        im->source = (image_source){images[i].b64, images[i].n};
        im->param = mem_strdup(images[i].param ? images[i].param : "messages");
        if (!im->param) return no_memory(st);
        if (!plan_image(k, im, n, st)) return blame_picture(im, st);
    }
    return true;
}

static bool take_images(const promptkit *k, const engine_chat *c, prompt *p, status *st) {
    if (c->n_images == 0 && k->spec->needs_picture) {
        status_set(st, ST_INVALID, "this model was made for prompts with a picture; the messages hold none");
        return status_param(st, "messages");
    }
    if (c->n_images == 0) return true;
    int most = k->spec->max_pictures;
    if (most && c->n_images > most) {
        status_set(st, ST_INVALID, "this model takes at most %d picture%s in a prompt; the messages hold %d",
                   most, most == 1 ? "" : "s", c->n_images);
        return status_param(st, "%s", c->images[most].param ? c->images[most].param : "messages");
    }
    if (k->row_token || k->spec->no_place) return prompt_take_images(k, c->images, c->n_images, p, st);
    status_set(st, ST_INVALID, "this model does not take pictures; the messages hold %d", c->n_images);
    return status_param(st, "%s", c->images[0].param ? c->images[0].param : "messages");
}

/* ---- messages in the form that the template takes ---- */

/* A string of ours among the user's: the template's conditions see an ordinary string. */
static json_t *trusted(const char *text) {
    return json_pack("{s:[{s:s}]}", TMPL_MIXED, "trusted", text);
}

static const char *part_text(const json_t *part) {
    const char *type = json_string_value(json_object_get(part, "type"));
    return type && strcmp(type, "text") == 0 ? json_string_value(json_object_get(part, "text")) : NULL;
}

static bool is_image(const json_t *part) {
    const char *type = json_string_value(json_object_get(part, "type"));
    return type && strcmp(type, "image") == 0;
}

/* Parts as one string for a template that knows no parts: the placeholders, if any, in front, each on a line, then the
 * texts joined by newlines, as vLLM does. The placeholders are ours, the rest the user's. */
static json_t *parts_to_string(const promptkit *k, const json_t *parts) {
    json_t *out = json_array(), *part;
    size_t i;
    bool ok = out != NULL;
    size_t n_images = 0, n_texts = 0, texts = 0;
    json_array_foreach(parts, i, part) {
        n_images += is_image(part);
        n_texts += part_text(part) != NULL;
    }
    for (size_t n = 1; ok && k->placeholder && n <= n_images; n++) {
        const char *end = n < n_images || n_texts ? "\n" : "";
        ok = json_array_append_new(out, json_pack("{s:s+}", "trusted", k->placeholder, end)) == 0;
    }
    json_array_foreach(parts, i, part) {
        if (!ok || !part_text(part)) continue;
        if (texts++) ok = json_array_append_new(out, json_string("\n")) == 0;
        ok = ok && json_array_append(out, json_object_get(part, "text")) == 0;
    }
    if (ok) return json_pack("{s:o}", TMPL_MIXED, out);
    json_decref(out);
    return NULL;
}

/* A new reference, or NULL without memory. */
static json_t *shape_content(const promptkit *k, json_t *content) {
    if (json_is_string(content) && k->forms.takes_parts && !k->forms.takes_string)
        return json_pack("[{s:s, s:O}]", "type", "text", "text", content);
    if (json_is_array(content) && k->forms.takes_string && !k->forms.takes_parts)
        return parts_to_string(k, content);
    return json_incref(content);
}

static const char *known_role(const json_t *role) {
    static const char *const known[] = {"system", "user", "assistant", "tool", "developer", "function"};
    const char *s = json_string_value(role);
    for (size_t i = 0; s && i < ARRAY_LEN(known); i++)
        if (strcmp(s, known[i]) == 0) return known[i];
    return NULL;
}

/* Null fields are left out, as the reference does: many templates ask whether a field is there. A known role is a word
 * of the template's, so that one that builds '<|' + role + '|>' still gets its special token. */
static json_t *shape_message(const promptkit *k, json_t *m) {
    json_t *out = json_object(), *value;
    const char *key;
    bool ok = out != NULL;
    json_object_foreach(m, key, value) {
        if (!ok || json_is_null(value)) continue;
        json_t *v;
        if (strcmp(key, "content") == 0)
            v = shape_content(k, value);
        else if (strcmp(key, "role") == 0 && known_role(value))
            v = trusted(known_role(value));
        else
            v = json_incref(value);
        ok = json_object_set_new(out, key, v) == 0;
    }
    if (ok) return out;
    json_decref(out);
    return NULL;
}

static json_t *shape_messages(const promptkit *k, const json_t *messages) {
    json_t *out = json_array(), *m;
    size_t i;
    bool ok = out != NULL;
    json_array_foreach(messages, i, m) ok = ok && json_array_append_new(out, shape_message(k, m)) == 0;
    if (ok) return out;
    json_decref(out);
    return NULL;
}

/* ---- rendering ---- */

static json_t *user_vars(const promptkit *k, const engine_chat *c, status *st) {
    json_t *vars = json_object();
    bool ok = vars &&
              json_object_set_new(vars, "add_generation_prompt", json_boolean(!c->no_generation_prompt)) == 0;
    if (ok && c->template_kwargs) ok = json_object_update(vars, (json_t *)c->template_kwargs) == 0;
    ok = ok && json_object_set_new(vars, "messages", shape_messages(k, c->messages)) == 0;
    if (!ok) no_memory(st);
    if (ok && tmpl_complete_vars(vars, st)) return vars;
    json_decref(vars);
    return NULL;
}

static bool render(const promptkit *k, const engine_chat *c, tmpl_out *out, status *st) {
    if (!k->tmpl)
        return status_set(
            st, ST_INVALID,
            "this model has no chat template (none in chat_template.jinja, chat_template.json or "
            "tokenizer_config.json, and no --chat-template), so it cannot take chat messages");
    /* Marks of mixed origin are made here alone: a request that brings one would forge trusted text. */
    if (tmpl_json_has_mixed(c->messages) || tmpl_json_has_mixed(c->template_kwargs)) {
        status_set(st, ST_INVALID, "a key of an object must not begin with the control character U+0001");
        return status_param(st, "messages");
    }
    json_t *vars = user_vars(k, c, st);
    if (!vars) return false;
    bool ok = tmpl_render(k->tmpl, k->template_vars, vars, &TMPL_LIMITS_DEFAULT, out, st);
    json_decref(vars);
    return ok || status_param(st, "messages");
}

/* ---- ids ---- */

/* The text begins with BOS, and it was not the user who typed it. */
static bool begins_with_bos(const promptkit *k, const tmpl_out *text) {
    const char *bos = json_string_value(json_object_get(k->template_vars, "bos_token"));
    size_t n = bos ? strlen(bos) : 0;
    if (n == 0 || text->text.len < n || memcmp(text->text.data, bos, n) != 0) return false;
    return text->n_user == 0 || text->user[0].begin >= n;
}

static bool encode_text(const promptkit *k, const tmpl_out *text, tok_ids *ids, status *st) {
    tok_span *spans = mem_alloc(text->n_user * sizeof *spans);
    if (!spans) return no_memory(st);
    for (size_t i = 0; i < text->n_user; i++) spans[i] = (tok_span){text->user[i].begin, text->user[i].end};
    bool adds = k->spec->prompt_adds_special && !begins_with_bos(k, text);
    bool ok = tok_encode(k->tok, text->text.data ? text->text.data : "", text->text.len, spans, text->n_user,
                         adds, ids, st);
    mem_free(spans);
    return ok;
}

/* Room for at least one token of the answer. */
static bool check_length(const promptkit *k, size_t n, status *st) {
    if (n < (size_t)k->max_model_len) return true;
    status_set(
        st, ST_INVALID,
        "This model's maximum context length is %d tokens. However, your messages resulted in %zu tokens%s. "
        "Please reduce the length of the messages.",
        k->max_model_len, n, n == (size_t)k->max_model_len ? ", which leaves no room for an answer" : "");
    return status_param(st, "messages");
}

static bool count_placeholders(const prompt *p, int found, status *st) {
    if (found == p->n_images) return true;
    status_set(
        st, ST_INVALID,
        "the messages hold %d picture%s, but the model's chat template made %d placeholder%s of them: it %s "
        "pictures in these places",
        p->n_images, p->n_images == 1 ? "" : "s", found, found == 1 ? "" : "s",
        found < p->n_images ? "drops" : "adds");
    return status_param(st, "messages");
}

static bool is_space(const char *p, size_t n) {
    uint32_t c;
    if (!utf8_decode(p, n, &c)) return false;
    return (c >= 9 && c <= 13) || (c >= 28 && c <= 32) || c == 0x85 || c == 0xa0 || c == 0x1680 ||
           (c >= 0x2000 && c <= 0x200a) || c == 0x2028 || c == 0x2029 || c == 0x202f || c == 0x205f ||
           c == 0x3000;
}

/* Before more of the prompt's text: a space where a picture's text is to be set off from it. */
static void set_off(image_text *out, const char *p, size_t n) {
    if (n == 0) return;
    if (out->set_off && *p != '<' && !is_space(p, n)) image_text_puts(out, " ");
    out->set_off = false;
}

static void put_text(image_text *out, const char *p, size_t n) {
    set_off(out, p, n);
    if (!buf_append(out->text, p, n)) out->failed = true;
}

/* text[0, n) to out, with the pictures' own text in place of their placeholders, counted in *found. */
static void put_trusted(const promptkit *k, const prompt *p, const char *text, size_t n, image_text *out,
                        int *found) {
    size_t len = k->placeholder ? strlen(k->placeholder) : 0;
    const char *at;
    while (len && (at = memmem(text, n, k->placeholder, len))) {
        put_text(out, text, (size_t)(at - text));
        out->image = (*found)++;
        if (out->image < p->n_images) spec_write_image(k->spec, &p->images[out->image].pixels.plan, out);
        if (k->spec->bos_behind_pictures && out->image == p->n_images - 1)
            image_text_puts(out, json_string_value(json_object_get(k->template_vars, "bos_token")));
        n -= (size_t)(at - text) + len;
        text = at + len;
    }
    put_text(out, text, n);
}

static const char *spell(const void *of, int32_t id) {
    return tok_id_string(of, id);
}

/* The rendered text with what the pictures say in it. Placeholders that users type are text like any other. */
static bool write_pictures(const promptkit *k, const prompt *p, tmpl_out *text, image_text *out, status *st) {
    buf all = {0};
    size_t at = 0;
    int found = 0;
    out->text = &all;
    out->row_token = k->row_token;
    out->names = k->template_vars;
    out->spell = spell;
    out->of = k->tok;
    for (size_t i = 0; i < text->n_user; i++) {
        size_t begin = text->user[i].begin, end = text->user[i].end;
        put_trusted(k, p, text->text.data + at, begin - at, out, &found);
        set_off(out, text->text.data + begin, end - begin);
        text->user[i].begin = all.len;
        if (!buf_append(&all, text->text.data + begin, end - begin)) out->failed = true;
        text->user[i].end = all.len;
        at = end;
    }
    if (text->text.len > at) put_trusted(k, p, text->text.data + at, text->text.len - at, out, &found);
    if (k->spec->prompt_end) image_text_puts(out, k->spec->prompt_end);
    out->text = NULL;
    out->names = NULL;
    buf_fini(&text->text);
    text->text = all;
    if (out->failed) return no_memory(st);
    return k->spec->pictures_in_front || count_placeholders(p, found, st);
}

/* Rows of pictures that stand before all text: an id for each run. */
static bool put_in_front(const promptkit *k, const prompt *p, image_text *out, tok_ids *ids, status *st) {
    buf unread = {0};
    if (!k->spec->pictures_in_front) return true;
    out->text = &unread;
    for (out->image = 0; out->image < p->n_images; out->image++)
        image_text_rows(out, p->images[out->image].n_rows);
    out->text = NULL;
    buf_fini(&unread);
    for (int i = 0; i < out->n_runs && !out->failed; i++) out->failed = !tok_ids_push(ids, k->image_token);
    return !out->failed || no_memory(st);
}

int prompt_run_behind(const prompt *p, int row) {
    int lo = 0, hi = p->n_rows;
    while (lo < hi) {
        int mid = lo + (hi - lo) / 2;
        if (p->rows[mid].row + p->rows[mid].n > row)
            hi = mid;
        else
            lo = mid + 1;
    }
    return lo;
}

void prompt_position(const prompt *p, int row, int32_t at[ROPE_MAX_AXES]) {
    int i = prompt_run_behind(p, row);
    if (i < p->n_rows && p->rows[i].row <= row) {
        const prompt_place *in = &p->places[i];
        int k = row - p->rows[i].row;
        at[0] = in->first;
        at[1] = in->first + k / in->across;
        at[2] = in->first + k % in->across;
    } else {
        const prompt_rows *last = i > 0 ? &p->rows[i - 1] : NULL;
        at[0] = at[1] = at[2] = last ? p->places[i - 1].next + row - last->row - last->n : row;
    }
}

void prompt_place_last(prompt *p, int across, int down) {
    int last = p->n_rows - 1;
    int32_t at[ROPE_MAX_AXES];
    p->n_rows--; /* where it would stand as text */
    prompt_position(p, p->rows[last].row, at);
    p->n_rows++;
    p->places[last] = (prompt_place){across, at[0], at[0] + (across > down ? across : down)};
}

/* The last run of rows, in the grid of its picture's merged patches. */
static void place_run(const promptkit *k, prompt *p) {
    const prompt_rows *r = &p->rows[p->n_rows - 1];
    if (!p->places) return;
    CHECK(r->from == 0 && r->n == p->images[r->image].n_rows);
    tile one = prep_plan_tile(&p->images[r->image].pixels.plan, 0);
    int side = k->spec->tower.patch * k->spec->join.merge;
    CHECK(r->n == one.w / side * (one.h / side));
    prompt_place_last(p, one.w / side, one.h / side);
}

/* ids with one id for a run of rows to p->ids with all of them. Lengths are added up before anything grows. */
static bool expand(const promptkit *k, prompt *p, const tok_ids *ids, const image_text *t, status *st) {
    size_t total = ids->n;
    int seen = 0, from = 0;
    for (size_t i = 0; k->row_token && i < ids->n; i++) seen += ids->v[i] == k->image_token;
    if (seen != t->n_runs) {
        status_set(st, ST_INVALID, "the model's chat template writes %s, which stands for rows of a picture",
                   k->row_token);
        return status_param(st, "messages");
    }
    for (size_t i = 0; k->spec->video_token > 0 && i < ids->n; i++)
        if (ids->v[i] == k->spec->video_token) {
            status_set(st, ST_INVALID,
                       "the model's chat template writes a video's placeholder; this server takes "
                       "pictures, but no videos");
            return status_param(st, "messages");
        }
    for (size_t i = 0; k->spec->barred_id >= 0 && i < ids->n; i++)
        if (ids->v[i] == k->spec->barred_id) {
            status_set(st, ST_UNSUPPORTED,
                       "the prompt's text holds the token with id %d, which this model takes for padding; "
                       "prompts with it are not implemented",
                       (int)k->spec->barred_id);
            return status_param(st, "messages");
        }
    for (int r = 0; r < t->n_runs; r++) total += (size_t)t->runs[r].n - 1;
    if (!check_length(k, total, st)) return false;
    p->rows = mem_alloc((size_t)t->n_runs * sizeof *p->rows);
    if (k->spec->text.stack.rope.axes > 1) p->places = mem_calloc((size_t)t->n_runs, sizeof *p->places);
    if (!p->rows || (k->spec->text.stack.rope.axes > 1 && !p->places)) return no_memory(st);
    for (size_t i = 0; i < ids->n; i++) {
        int n = 1;
        if (k->row_token && ids->v[i] == k->image_token) {
            const struct image_text_run *r = &t->runs[p->n_rows];
            if (p->n_rows == 0 || r[-1].image != r->image) from = 0;
            n = r->n;
            p->rows[p->n_rows++] = (prompt_rows){(int)p->ids.n, n, r->image, from};
            place_run(k, p);
            from += n;
            CHECK(from <= p->images[r->image].n_rows);
        }
        for (; n > 0; n--)
            if (!tok_ids_push(&p->ids, ids->v[i])) return no_memory(st);
    }
    if (p->ids.n > 0) return true;
    status_set(st, ST_INVALID, "the messages and the model's chat template give an empty prompt");
    return status_param(st, "messages");
}

static bool fill(const promptkit *k, const engine_chat *c, prompt *p, status *st) {
    if (k->spec->reads.what == READS_QUESTION) return reads_question(k, c, p, st);
    tmpl_out text = {0};
    image_text pictures = {0};
    tok_ids ids = {0};
    bool ok = take_images(k, c, p, st) && render(k, c, &text, st) && reads_rendered(k, &text, p, st) &&
              write_pictures(k, p, &text, &pictures, st) && put_in_front(k, p, &pictures, &ids, st) &&
              encode_text(k, &text, &ids, st) && expand(k, p, &ids, &pictures, st);
    image_text_fini(&pictures);
    tmpl_out_fini(&text);
    tok_ids_fini(&ids);
    return ok;
}

/* ---- the prompt ---- */

prompt *prompt_new_chat(const promptkit *k, const engine_chat *c, status *st) {
    prompt *p = mem_calloc(1, sizeof *p);
    if (!p) {
        no_memory(st);
        return NULL;
    }
    if (fill(k, c, p, st)) return p;
    prompt_free(p);
    return NULL;
}

void prompt_free(prompt *p) {
    if (!p) return;
    for (int i = 0; i < p->n_images; i++) {
        mem_free(p->images[i].param);
        tiles_fini(&p->images[i].pixels);
    }
    mem_free(p->images);
    mem_free(p->rows);
    mem_free(p->places);
    tok_ids_fini(&p->ids);
    tok_ids_fini(&p->told);
    mem_free(p);
}

static bool copy_image(prompt_image *to, const prompt_image *from) {
    *to = *from;
    to->source = (image_source){0};
    to->pixels.rgb = NULL;
    to->pixels.text = NULL;
    to->param = mem_strdup(from->param);
    return to->param != NULL;
}

static bool copy_ids(tok_ids *to, const tok_ids *from) {
    to->v = mem_alloc((from->n + 1) * sizeof *to->v);
    if (!to->v) return false;
    if (from->n) memcpy(to->v, from->v, from->n * sizeof *to->v);
    to->n = from->n;
    to->cap = from->n + 1;
    return true;
}

static bool copy(prompt *to, const prompt *from) {
    to->images = mem_alloc((size_t)from->n_images * sizeof *to->images);
    to->rows = mem_alloc((size_t)from->n_rows * sizeof *to->rows);
    if (from->places) to->places = mem_alloc((size_t)from->n_rows * sizeof *to->places);
    if (!to->images || !to->rows || !to->places != !from->places) return false;
    if (!copy_ids(&to->ids, &from->ids) || (from->told.n && !copy_ids(&to->told, &from->told))) return false;
    to->n_rows = from->n_rows;
    if (from->n_rows) memcpy(to->rows, from->rows, (size_t)from->n_rows * sizeof *to->rows);
    if (from->places) memcpy(to->places, from->places, (size_t)from->n_rows * sizeof *to->places);
    while (to->n_images < from->n_images) {
        int i = to->n_images++; /* prompt_free takes what is there */
        if (!copy_image(&to->images[i], &from->images[i])) return false;
    }
    return true;
}

prompt *prompt_clone(const prompt *p, status *st) {
    prompt *q = mem_calloc(1, sizeof *q);
    if (q && copy(q, p)) return q;
    prompt_free(q);
    no_memory(st);
    return NULL;
}

const int32_t *prompt_ids(const prompt *p, size_t *n) {
    const tok_ids *ids = p->told.n ? &p->told : &p->ids;
    *n = ids->n;
    return ids->v;
}

static bool decode_image(const promptkit *k, prompt_image *im, const atomic_bool *cancelled, double *resize_s,
                         status *st) {
    image raw = {0};
    image_limits limits = k->limits;
    limits.cancelled = cancelled;
    if (!image_decode(&im->source, &limits, &raw, st)) return false;
    if (raw.w != im->info.w || raw.h != im->info.h) {
        status_set(st, ST_INVALID, "the picture's header promises %dx%d pixels; its data hold another size",
                   im->info.w, im->info.h);
        image_fini(&raw);
        return false;
    }
    double begin = time_now_s();
    tiles made;
    bool ok = tiles_make(&im->pixels.plan, &raw, &made, st);
    *resize_s += time_now_s() - begin;
    image_fini(&raw);
    if (!ok) return false;
    im->pixels.rgb = made.rgb;
    im->source = (image_source){0};
    image_key(&im->pixels, im->info.w, im->info.h, &k->spec->prep, im->key);
    return true;
}

bool prompt_decode_image(const promptkit *k, prompt *p, int i, const atomic_bool *cancelled, status *st) {
    return decode_image(k, &p->images[i], cancelled, &p->resize_s, st);
}

bool prompt_blame_image(const prompt *p, int i, status *st) {
    return blame_picture(&p->images[i], st);
}
