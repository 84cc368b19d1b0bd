/* embed_sched.c - see embed_sched.h. The engine's thread. */
#include "engine/embed_sched.h"

#include <string.h>

#include "engine/gather.h"
#include "engine/pace.h"

struct embed_sched {
    roster jobs;
    int max_rows;
    embed_run *r;
    int next_text, next_picture; /* whose turn it is */
    struct place {
        seq *s;
        embed_item *it;
    } * places; /* [max_rows of the runner] texts of the step */
    float *row; /* [width] */
    pace pace;
};

embed_sched *embed_sched_new(const embed_sched_options *o, embed_run *r, inbox *in, workers *w, status *st) {
    CHECK(o->max_rows >= 1);
    embed_sched *sc = mem_calloc(1, sizeof *sc);
    if (!sc || !roster_init(&sc->jobs, &o->jobs, in, w) ||
        !(sc->places = mem_calloc((size_t)r->max_rows, sizeof *sc->places)) ||
        !(sc->row = mem_calloc((size_t)r->width, sizeof *sc->row))) {
        embed_sched_free(sc);
        status_set(st, ST_NO_MEMORY, "no memory for a schedule of %d jobs", o->jobs.max_running);
        return NULL;
    }
    sc->max_rows = o->max_rows;
    sc->r = r;
    return sc;
}

void embed_sched_free(embed_sched *sc) {
    if (!sc) return;
    roster_fini(&sc->jobs);
    mem_free(sc->places);
    mem_free(sc->row);
    mem_free(sc);
}

seq *embed_job_new(embed *x, engine_sink sink, void *user, status *st) {
    seq *s = mem_calloc(1, sizeof *s);
    seq_image *images = mem_calloc((size_t)x->prompt->n_images, sizeof *images);
    if (!s || !images) {
        mem_free(s);
        mem_free(images);
        embed_free(x);
        status_set(st, ST_NO_MEMORY, "no memory for a request");
        return NULL;
    }
    atomic_init(&s->cancelled, false);
    s->prompt = x->prompt;
    x->prompt = NULL;
    s->embed = x;
    s->images = images;
    s->n_choices = 1;
    s->n_prompt = x->n_tokens;
    s->sink = sink;
    s->user = user;
    s->t_submit = time_now_s();
    s->priority = x->priority;
    s->apart = true;
    for (int i = 0; i < s->prompt->n_images; i++)
        s->pixels += (int64_t)s->prompt->images[i].info.w * s->prompt->images[i].info.h;
    return s;
}

/* ---- the end of a job ---- */

static void send_done(seq *s) {
    double run = s->t_run > 0 ? s->t_run : s->t_submit;
    s->sink(s->user, &(engine_event){.kind = ENGINE_DONE,
                                     .n_choices = 1,
                                     .finish = FINISH_STOP,
                                     .prompt_tokens = s->n_prompt,
                                     .vectors = s->embed->vectors,
                                     .n_vectors = s->embed->n_items,
                                     .vector_width = s->embed->width,
                                     .queue_s = run - s->t_submit,
                                     .prefill_s = time_now_s() - run});
}

/* s stands in no list any more. */
static void end(embed_sched *sc, seq *s) {
    const bool ok = s->st.code == ST_OK;
    if (ok) {
        sc->jobs.stats.prompt_tokens += (uint64_t)s->n_prompt;
        sc->jobs.stats.embeddings += (uint64_t)s->embed->n_items;
    }
    roster_left(&sc->jobs, s, FINISH_STOP);
    if (ok)
        send_done(s);
    else
        seq_send_final(s, FINISH_STOP);
    seq_free(s);
}

/* Who has failed or has all vectors leaves; the others close up, and whose turn it was stays so. */
static void remove_ended(embed_sched *sc) {
    int n = 0, text = sc->next_text, shown = sc->next_picture;
    for (int i = 0; i < sc->jobs.n_running; i++) {
        seq *s = sc->jobs.running[i];
        if (s->st.code == ST_OK && s->embed->n_left > 0) {
            sc->jobs.running[n++] = s;
            continue;
        }
        sc->next_text -= i < text;
        sc->next_picture -= i < shown;
        end(sc, s);
    }
    sc->jobs.n_running = n;
}

/* ---- arrivals ---- */

static void drain(embed_sched *sc) {
    seq_list gone = roster_take(&sc->jobs);
    for (seq *s; (s = seq_list_pop(&gone));) end(sc, s);
    remove_ended(sc);
    for (seq *s; (s = roster_next_arrival(&sc->jobs));) {
        if (s->st.code != ST_OK)
            end(sc, s);
        else
            roster_wait(&sc->jobs, s);
    }
}

static void admit(embed_sched *sc) {
    while (sc->jobs.waiting.head && sc->jobs.n_running < sc->jobs.o.max_running) {
        seq *s = seq_list_pop(&sc->jobs.waiting);
        roster_begun(&sc->jobs, s);
        sc->jobs.running[sc->jobs.n_running++] = s;
    }
}

/* ---- pictures ---- */

/* With pic, of running[first], go others that are wanted: one of each job in turn, then the next of each. */
static bool begin_encode(embed_sched *sc, picture *pic, int first, status *st) {
    gather g;
    gather_begin(&g, sc->r->model, pic);
    for (int k = 0, left = 1; left && g.room > 0; k++) {
        left = 0;
        for (int i = 0; i < sc->jobs.n_running; i++) {
            const seq *s = sc->jobs.running[(first + i) % sc->jobs.n_running];
            if (k >= s->prompt->n_images || s->st.code != ST_OK) continue;
            left = 1;
            gather_offer(&g, s->images[k].pic);
        }
    }
    return gather_start(&g, sc->r->be, st);
}

/* One slice of picture i of running[at], for all that show it or go with it. True: it is ready, or the encode has failed. */
static bool encode_slice(embed_sched *sc, int at, int i) {
    seq *s = sc->jobs.running[at];
    picture *pic = s->images[i].pic;
    status st = {0};
    if ((pic->enc || begin_encode(sc, pic, at, &st)) && embed_run_slice(sc->r, pic->enc, &st)) {
        sc->jobs.stats.images += (uint64_t)picture_ready(pic);
        return true;
    }
    if (st.code == ST_OK) return false;
    roster_encode_failed(&sc->jobs, s, pic, &st);
    return true;
}

/* The next job in turn that has a picture to encode, or NULL: running[next_picture]; *at says which. */
static seq *find_picture(embed_sched *sc, int *at) {
    for (int k = 0; k < sc->jobs.n_running; k++) {
        int i = (sc->next_picture + k) % sc->jobs.n_running;
        seq *s = sc->jobs.running[i];
        if (s->st.code != ST_OK) continue;
        if ((*at = seq_next_image(s)) < 0) continue;
        sc->next_picture = i;
        return s;
    }
    return NULL;
}

/* Vectors of pictures that are ready, whoever encoded them. */
static void collect_pictures(embed_sched *sc, seq *s) {
    embed *x = s->embed;
    for (int i = 0; i < x->n_items && s->st.code == ST_OK; i++) {
        embed_item *it = &x->items[i];
        if (it->image < 0 || it->have || !seq_image_ready(s, it->image)) continue;
        if (embed_run_row(sc->r, s->images[it->image].pic->enc, sc->row, &s->st) &&
            !embed_take(x, it, sc->row))
            status_set(&s->st, ST_INTERNAL, "the model made a vector of numbers that are not finite");
        roster_check_loss(&sc->jobs, s);
    }
    if (s->pixels > 0 && seq_images_ready(s)) inbox_encoded(sc->jobs.in, s);
}

/* Slice by slice until the turn's time for it is spent. True: some are left. */
static bool encode_some(embed_sched *sc) {
    double begin = time_now_s(), now = begin;
    int at = -1;
    seq *s = find_picture(sc, &at);
    while (s && sc->jobs.lost.code == ST_OK && pace_may_encode(&sc->pace)) {
        double before = now;
        if (encode_slice(sc, sc->next_picture, at)) sc->next_picture++;
        now = time_now_s();
        pace_slice_took(&sc->pace, now - before);
        s = find_picture(sc, &at);
    }
    sc->jobs.stats.image_encode_seconds += now - begin;
    for (int i = 0; i < sc->jobs.n_running; i++)
        if (sc->jobs.running[i]->prompt->n_images) collect_pictures(sc, sc->jobs.running[i]);
    return s != NULL;
}

/* ---- texts ---- */

/* After a failed step its jobs run one at a time until each has shown that it was not the cause. */
static seq *first_suspect(const embed_sched *sc) {
    for (int i = 0; i < sc->jobs.n_running; i++)
        if (sc->jobs.running[i]->suspect && sc->jobs.running[i]->st.code == ST_OK &&
            embed_next_text(sc->jobs.running[i]->embed))
            return sc->jobs.running[i];
    return NULL;
}

static bool place(embed_sched *sc, seq *s, embed_item *it, int max_rows) {
    embed_run *r = sc->r;
    if ((r->n_texts > 0 && r->n_rows + it->n > max_rows) ||
        !embed_run_add(r, it, s->prompt->ids.v + it->from))
        return false;
    sc->places[r->n_texts - 1] = (struct place){s, it};
    s->embed->next = (int)(it - s->embed->items) + 1;
    return true;
}

/* One text of each job in turn, as many as fit. The one that does not fit is the first of the next turn. */
static void pack(embed_sched *sc, int max_rows) {
    const seq *only = first_suspect(sc);
    embed_run_clear(sc->r);
    for (int idle = 0; idle < sc->jobs.n_running;) {
        int i = sc->next_text % sc->jobs.n_running;
        seq *s = sc->jobs.running[i];
        embed_item *it = s->st.code == ST_OK && (!only || s == only) ? embed_next_text(s->embed) : NULL;
        idle = it ? 0 : idle + 1;
        if (it && !place(sc, s, it, max_rows)) break;
        sc->next_text = (i + 1) % sc->jobs.n_running;
    }
}

static void step_failed(embed_sched *sc, const status *why) {
    const embed_run *r = sc->r;
    bool alone = true;
    if (roster_note_loss(&sc->jobs, why)) return;
    for (int i = 1; i < r->n_texts; i++) alone = alone && sc->places[i].s == sc->places[0].s;
    log_error("a step of %d rows of %d texts failed: %s", r->n_rows, r->n_texts, why->msg);
    for (int i = 0; i < r->n_texts; i++) {
        seq *s = sc->places[i].s;
        int at = (int)(sc->places[i].it - s->embed->items);
        if (at < s->embed->next) s->embed->next = at;
        s->suspect = true;
        if (alone) status_set(&s->st, why->code == ST_NO_MEMORY ? ST_NO_MEMORY : ST_INTERNAL, "%s", why->msg);
    }
}

static void collect_texts(embed_sched *sc) {
    const embed_run *r = sc->r;
    for (int i = 0; i < r->n_texts; i++) {
        seq *s = sc->places[i].s;
        s->suspect = false;
        if (!embed_take(s->embed, sc->places[i].it, r->vectors + (size_t)i * (size_t)r->width))
            status_set(&s->st, ST_INTERNAL, "the model made a vector of numbers that are not finite");
    }
}

static void run_texts(embed_sched *sc, int max_rows) {
    status st = {0};
    pack(sc, max_rows);
    if (sc->r->n_texts == 0) return;
    double begin = time_now_s();
    bool ok = embed_run_step(sc->r, &st);
    pace_step_took(&sc->pace, sc->r->n_rows, pace_is_plain(&sc->pace, sc->r->n_rows), time_now_s() - begin);
    roster_count_step(&sc->jobs, sc->r->n_rows);
    if (ok)
        collect_texts(sc);
    else
        step_failed(sc, &st);
}

/* ---- a turn ---- */

bool embed_sched_turn(embed_sched *sc) {
    drain(sc);
    admit(sc);
    bool texts = false;
    for (int i = 0; i < sc->jobs.n_running && !texts; i++)
        texts = embed_next_text(sc->jobs.running[i]->embed) != NULL;
    pace_begin(&sc->pace, 0, texts);
    bool left = encode_some(sc);
    if (sc->jobs.lost.code == ST_OK) run_texts(sc, pace_prefill_rows(&sc->pace, sc->max_rows, left));
    remove_ended(sc);
    for (seq *s; (s = roster_next_lost(&sc->jobs));) end(sc, s);
    roster_publish(&sc->jobs);
    return sc->jobs.n_running > 0 || sc->jobs.waiting.head;
}

void embed_sched_get_stats(embed_sched *sc, engine_stats *out) {
    roster_get_stats(&sc->jobs, out);
}
