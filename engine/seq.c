/* seq.c - see seq.h. */
#include "engine/seq.h"

#include <string.h>
#include <sys/random.h>

#include "engine/claim.h"

/* ---- lists ---- */

void seq_list_push(seq_list *l, seq *s) {
    s->next = NULL;
    *(l->tail ? &l->tail->next : &l->head) = s;
    l->tail = s;
}

bool seq_before(const seq *a, const seq *b) {
    if (a->priority != b->priority) return a->priority < b->priority;
    return a->order != b->order ? a->order < b->order : a->choice < b->choice;
}

void seq_list_insert(seq_list *l, seq *s) {
    if (!l->tail || !seq_before(s, l->tail)) { /* mostly */
        seq_list_push(l, s);
        return;
    }
    seq **at = &l->head;
    while (!seq_before(s, *at)) at = &(*at)->next;
    s->next = *at;
    *at = s;
}

seq *seq_list_pop(seq_list *l) {
    seq *s = l->head;
    if (!s) return NULL;
    l->head = s->next;
    if (!l->head) l->tail = NULL;
    s->next = NULL;
    return s;
}

void seq_list_take_cancelled(seq_list *l, seq_list *to) {
    seq_list keep = {0};
    for (seq *s; (s = seq_list_pop(l));) seq_list_push(atomic_load(&s->cancelled) ? to : &keep, s);
    *l = keep;
}

/* ---- life ---- */

/* An id outside the embedding table would fail the whole step, its neighbours included. Picture rows are
 * never looked up. */
static bool check_ids(const prompt *p, int vocab, status *st) {
    int next = 0;
    for (size_t i = 0; i < p->ids.n; i++) {
        while (next < p->n_rows && (size_t)(p->rows[next].row + p->rows[next].n) <= i) next++;
        if (next < p->n_rows && (size_t)p->rows[next].row <= i) continue;
        if (p->ids.v[i] < 0 || p->ids.v[i] >= vocab)
            return status_set(st, ST_INVALID, "token %d of the prompt is id %d; the model knows ids below %d",
                              (int)i, (int)p->ids.v[i], vocab);
    }
    return true;
}

/* A request that brings no seed still keeps one of its own through preemptions. */
static uint64_t fresh_seed(void) {
    uint64_t seed;
    if (getrandom(&seed, sizeof seed, GRND_NONBLOCK) == sizeof seed) return seed;
    return (uint64_t)(time_now_s() * 1e9) * 0x9E3779B97F4A7C15u;
}

static int answer_limit(const engine_params *params, const model_spec *spec) {
    if (params->max_tokens >= 0) return params->max_tokens;
    return spec->max_new_tokens > 0 ? spec->max_new_tokens : INT32_MAX;
}

/* Keys and values of a rope that stretches with the prompt's length belong to that length: rows that see it
 * stretched (batch.c: rope_len) are nobody else's. */
static int share_limit(const model_spec *spec, int n_prompt) {
    const rope_spec *rope = &spec->text.stack.rope;
    int most = rope->max_pos - spec->text.rope_from;
    if (rope->kind != ROPE_DYNAMIC) return INT_MAX;
    return n_prompt > most ? 0 : most;
}

/* seed: of this choice. */
static bool init(seq *s, const engine_params *params, const promptkit *kit, int max_model_len, uint64_t seed,
                 status *st) {
    const prompt *p = s->prompt;
    engine_params own = *params;
    own.has_seed = true;
    own.seed = seed;
    s->n_prompt = (int)p->ids.n;
    if (s->n_prompt < 1 || s->n_prompt >= max_model_len)
        return status_set(st, ST_INVALID, "the prompt has %d tokens; the model takes 1 to %d", s->n_prompt,
                          max_model_len - 1);
    int limit = answer_limit(params, kit->spec), room = max_model_len - s->n_prompt;
    s->max_len = s->n_prompt + (limit < room ? limit : room);
    s->min_tokens = params->min_tokens;
    s->both_ways = kit->spec->both_ways;
    s->share_max = share_limit(kit->spec, s->n_prompt);
    s->apart = kit->spec->fuse == FUSE_CROSS && p->n_images > 0;
    s->wait_row = INT_MAX;
    prefix_root(&s->root, params->cache_salt, params->cache_salt ? strlen(params->cache_salt) : 0);
    s->pages = mem_calloc((size_t)kv_pages_of(s->max_len), sizeof *s->pages);
    s->images = mem_calloc((size_t)p->n_images, sizeof *s->images);
    if (!s->pages || !s->images) return status_set(st, ST_NO_MEMORY, "no memory for a request");
    return check_ids(p, text_embed_rows(&kit->spec->text), st) &&
           sampler_init(&s->sampler, &own, kit->spec, p->ids.v, p->ids.n, seed, st) &&
           textout_init(&s->textout, kit->tok, params, st);
}

/* Without a prompt: the clone that was to be it failed. */
static seq *make(prompt *p, int choice, const engine_params *params, const promptkit *kit, int max_model_len,
                 uint64_t seed, status *st) {
    seq *s = p ? mem_calloc(1, sizeof *s) : NULL;
    if (!s) {
        if (p) status_set(st, ST_NO_MEMORY, "no memory for a request");
        prompt_free(p);
        return NULL;
    }
    s->prompt = p;
    s->choice = choice;
    s->n_choices = 1;
    atomic_init(&s->cancelled, false);
    if (init(s, params, kit, max_model_len, seed + (uint64_t)choice, st)) return s;
    seq_free(s);
    return NULL;
}

seq *seq_new(prompt *p, const engine_params *params, const promptkit *kit, int max_model_len,
             engine_sink sink, void *user, status *st) {
    uint64_t seed = params->has_seed ? params->seed : fresh_seed();
    double now = time_now_s();
    seq *s = make(p, 0, params, kit, max_model_len, seed, st);
    for (int i = 1; s && i < params->n; i++) {
        seq *fork = make(prompt_clone(p, st), i, params, kit, max_model_len, seed, st);
        if (!fork) {
            seq_free(s);
            return NULL;
        }
        fork->sink = sink;
        fork->user = user;
        fork->t_submit = now;
        seq_list_push(&s->forks, fork);
        s->n_choices++;
    }
    if (!s) return NULL;
    s->sink = sink;
    s->user = user;
    s->t_submit = now;
    s->priority = params->priority;
    for (int i = 0; i < p->n_images; i++) s->pixels += (int64_t)p->images[i].info.w * p->images[i].info.h;
    return s;
}

void seq_free(seq *s) {
    if (!s) return;
    CHECK(s->n_pages == 0 && s->n_steps == 0 && !s->seen_rows);
    for (seq *fork; (fork = seq_list_pop(&s->forks));) seq_free(fork);
    piccache_unclaim(&s->claim);
    piccache_unclaim(&s->seen_claim);
    for (int i = 0; s->images && i < s->prompt->n_images; i++) picture_release(s->images[i].pic);
    sampler_fini(&s->sampler);
    textout_fini(&s->textout);
    embed_free(s->embed);
    prompt_free(s->prompt);
    mem_free(s->pages);
    mem_free(s->keys);
    mem_free(s->images);
    mem_free(s);
}

seq_list seq_part(seq *s) {
    seq_list forks = s->forks;
    for (seq *f = forks.head; f; f = f->next) {
        for (int i = 0; i < s->n_taken; i++) seq_take_picture(f, piccache_fork(s->images[i].pic));
        f->priority = s->priority;
        f->order = s->order;
        f->root = s->root;
        f->share_max = s->share_max;
        f->job_only = s->job_only;
        f->input_done = true;
    }
    s->forks = (seq_list){0};
    s->n_choices = 1;
    return forks;
}

/* ---- where it stands ---- */

/* The first picture rows still to be computed that are not encoded, or NULL. Those in shared pages never need to
 * be. */
static const prompt_rows *first_missing(const seq *s) {
    if (s->apart && s->seen_ready) return NULL;
    for (int i = 0; i < s->prompt->n_rows; i++) {
        const prompt_rows *r = &s->prompt->rows[i];
        if (r->row + r->n > s->n_done && !seq_image_ready(s, r->image)) return r;
    }
    return NULL;
}

int seq_next_image(const seq *s) {
    if (s->apart) { /* every row needs all of them, also those whose keys and values others have computed */
        for (int i = 0; i < s->prompt->n_images; i++)
            if (!seq_image_ready(s, i)) return i;
        return -1;
    }
    const prompt_rows *r = first_missing(s);
    return r && r->row < s->wait_row ? r->image : -1;
}

bool seq_wants_image(const seq *s, int i) {
    bool wants = s->apart;
    for (int k = 0; k < s->prompt->n_rows && !wants; k++) {
        const prompt_rows *r = &s->prompt->rows[k];
        wants = r->image == i && r->row + r->n > s->n_done && r->row < s->wait_row;
    }
    return wants && !seq_image_ready(s, i);
}

bool seq_images_ready(const seq *s) {
    for (int i = 0; i < s->prompt->n_images; i++)
        if (!seq_image_ready(s, i)) return false;
    return true;
}

bool seq_take_picture(seq *s, picture *pic) {
    if (!pic) return false;
    CHECK(s->n_taken < s->prompt->n_images);
    prompt_image *im = &s->prompt->images[s->n_taken];
    im->source = (image_source){0};
    memcpy(im->key, pic->key, sizeof im->key);
    s->images[s->n_taken++].pic = pic;
    claim_taken(s);
    return true;
}

int seq_rows_ready(const seq *s) {
    if (s->n_ahead > 0 && (seq_len_ahead(s) >= s->max_len || sampler_needs_last(&s->sampler))) return 0;
    if (s->apart && !s->seen_ready) return 0;
    const prompt_rows *r = first_missing(s);
    int end = seq_len_ahead(s);
    if (r && r->row < end) end = r->row;
    if (s->wait_row < end) end = s->wait_row;
    return end > s->n_done ? seq_cut(s, end - s->n_done) : 0;
}

/* ---- rows that see each other ---- */

bool seq_span(const seq *s, int row, int *begin, int *end) {
    *begin = row;
    *end = INT_MAX;
    if (s->both_ways == BOTH_PROMPT && row < s->n_prompt) {
        *begin = 0;
        *end = s->n_prompt;
        return true;
    }
    if (s->both_ways != BOTH_PICTURE) return false;
    const prompt *p = s->prompt;
    int i = prompt_run_behind(p, row);
    if (i == p->n_rows) return false;
    const prompt_rows *r = &p->rows[i];
    bool in = r->row <= row;
    *begin = in ? r->row : row;
    *end = in ? r->row + r->n : r->row;
    return in;
}

int seq_cut(const seq *s, int n) {
    int begin, end, to = s->n_done + n;
    if (n <= 0) return 0;
    if (seq_span(s, to - 1, &begin, &end) && end > to) to = begin > s->n_done ? begin : s->n_done;
    return to - s->n_done;
}

int seq_unit(const seq *s) {
    int begin, end;
    return seq_span(s, s->n_done, &begin, &end) ? end - s->n_done : 1;
}

/* ---- pages ---- */

bool seq_grow(seq *s, kv_cache *kv, int n_tok) {
    int need = kv_pages_of(n_tok);
    CHECK(need <= kv_pages_of(s->max_len));
    if (need - s->n_pages > kv_available(kv)) return false;
    while (s->n_pages < need) s->pages[s->n_pages++] = kv_take(kv);
    return true;
}

void seq_drop_pages(seq *s, kv_cache *kv) {
    /* the last one first: of a prefix the end is to be forgotten before its beginning */
    while (s->n_pages > 0) kv_give_back(kv, s->pages[--s->n_pages]);
    s->n_done = s->n_claimed = 0;
}

/* ---- events ---- */

void seq_send_input_done(seq *s) {
    if (s->input_done) return;
    s->input_done = true;
    s->sink(s->user, &(engine_event){.kind = ENGINE_INPUT_DONE});
}

static void send_piece(seq *s, const textout_piece *piece) {
    if (piece->n_text == 0 && piece->n_tokens == 0) return;
    s->sink(s->user, &(engine_event){.kind = ENGINE_TOKENS,
                                     .choice = s->choice,
                                     .text = piece->text,
                                     .n_text = piece->n_text,
                                     .tokens = piece->tokens,
                                     .n_tokens = piece->n_tokens});
}

bool seq_accept(seq *s, const sample_result *r, engine_finish *finish) {
    textout_piece piece;
    if (s->t_first == 0) s->t_first = time_now_s();
    if (!tok_ids_push(&s->prompt->ids, r->id) || !sampler_accept(&s->sampler, r->id)) goto no_memory;
    bool stop = seq_answer_len(s) >= s->min_tokens && sampler_is_stop(&s->sampler, r->id);
    if (!textout_push(&s->textout, r, stop, &piece)) goto no_memory;
    send_piece(s, &piece);
    *finish = stop || piece.stopped ? FINISH_STOP : FINISH_LENGTH;
    if (piece.stopped) return true;
    if (!stop && seq_len(s) < s->max_len) return false;
    if (!textout_end(&s->textout, &piece)) goto no_memory;
    if (piece.stopped) *finish = FINISH_STOP;
    send_piece(s, &piece);
    return true;
no_memory:
    status_set(&s->st, ST_NO_MEMORY, "no memory to keep an answer of %d tokens", seq_answer_len(s));
    return true;
}

void seq_send_final(seq *s, engine_finish finish) {
    if (s->st.code != ST_OK) {
        s->sink(s->user,
                &(engine_event){
                    .kind = ENGINE_ERROR, .choice = s->choice, .n_choices = s->n_choices, .error = &s->st});
        return;
    }
    double run = s->t_run > 0 ? s->t_run : s->t_submit, first = s->t_first > 0 ? s->t_first : run;
    s->sink(s->user, &(engine_event){.kind = ENGINE_DONE,
                                     .choice = s->choice,
                                     .n_choices = s->n_choices,
                                     .finish = finish,
                                     .prompt_tokens = seq_told(s),
                                     .cached_tokens = s->n_cached,
                                     .completion_tokens = seq_answer_len(s),
                                     .queue_s = run - s->t_submit,
                                     .prefill_s = first - run,
                                     .decode_s = time_now_s() - first});
}
