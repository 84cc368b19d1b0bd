/* embed_sched.c - see embed_sched.h. The engine's thread; stats have a lock of their own. */
#include "engine/embed_sched.h"

#include <string.h>

#include "engine/gather.h"
#include "engine/pace.h"

struct embed_sched {
    embed_sched_options o;
    embed_run *r;
    inbox *in;
    workers *w;
    seq_list waiting;
    seq **running; /* [max_jobs] */
    int n_running;
    int next_text, next_picture; /* whose turn it is */
    struct place {
        seq *s;
        embed_item *it;
    } * places; /* [max_rows of the runner] texts of the step */
    float *row; /* [width] */
    pace pace;
    uint64_t n_arrived;
    status lost; /* the device failed for good */
    engine_stats stats;
    pthread_mutex_t mu; /* of published */
    engine_stats published;
};

embed_sched *embed_sched_new(const embed_sched_options *o, embed_run *r, inbox *in, workers *w, status *st) {
    CHECK(o->max_jobs >= 1 && o->max_rows >= 1);
    embed_sched *sc = mem_calloc(1, sizeof *sc);
    if (sc && pthread_mutex_init(&sc->mu, NULL) != 0) {
        mem_free(sc);
        sc = NULL;
    }
    if (sc) {
        sc->running = mem_calloc((size_t)o->max_jobs, sizeof(seq *));
        sc->places = mem_calloc((size_t)r->max_rows, sizeof *sc->places);
        sc->row = mem_calloc((size_t)r->width, sizeof *sc->row);
    }
    if (!sc || !sc->running || !sc->places || !sc->row) {
        embed_sched_free(sc);
        status_set(st, ST_NO_MEMORY, "no memory for a schedule of %d jobs", o->max_jobs);
        return NULL;
    }
    sc->o = *o;
    sc->r = r;
    sc->in = in;
    sc->w = w;
    return sc;
}

void embed_sched_free(embed_sched *sc) {
    if (!sc) return;
    CHECK(sc->n_running == 0 && !sc->waiting.head);
    pthread_mutex_destroy(&sc->mu);
    mem_free(sc->running);
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
    for (int i = 0; i < s->prompt->n_images; i++)
        s->pixels += (int64_t)s->prompt->images[i].info.w * s->prompt->images[i].info.h;
    return s;
}

static void publish(embed_sched *sc) {
    sc->stats.running = sc->n_running;
    pthread_mutex_lock(&sc->mu);
    sc->published = sc->stats;
    pthread_mutex_unlock(&sc->mu);
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

/* s stands in no list any more. Who hears of its end finds it counted. */
static void end(embed_sched *sc, seq *s) {
    engine_stats *t = &sc->stats;
    *(s->st.code == ST_CANCELLED ? &t->finished_abort
      : s->st.code != ST_OK      ? &t->finished_error
                                 : &t->finished_stop) += 1;
    if (s->queued) admission_left(sc->o.queue, s->n_prompt);
    s->queued = false;
    inbox_leave(sc->in, s);
    if (s->st.code == ST_OK) {
        t->prompt_tokens += (uint64_t)s->n_prompt;
        t->embeddings += (uint64_t)s->embed->n_items;
    }
    publish(sc);
    if (s->st.code == ST_OK)
        send_done(s);
    else
        s->sink(s->user, &(engine_event){.kind = ENGINE_ERROR, .n_choices = 1, .error = &s->st});
    seq_free(s);
}

static void end_cancelled(embed_sched *sc, seq *s) {
    s->st = (status){0};
    status_set(&s->st, ST_CANCELLED, "the request was cancelled");
    end(sc, s);
}

/* Who has failed or has all vectors leaves; the others close up, and whose turn it was stays so. */
static void remove_ended(embed_sched *sc) {
    int n = 0, text = sc->next_text, shown = sc->next_picture;
    for (int i = 0; i < sc->n_running; i++) {
        seq *s = sc->running[i];
        if (s->st.code == ST_OK && s->embed->n_left > 0) {
            sc->running[n++] = s;
            continue;
        }
        sc->next_text -= i < text;
        sc->next_picture -= i < shown;
        if (s->st.code == ST_LOST) s->st = sc->lost;
        end(sc, s);
    }
    sc->n_running = n;
}

/* ---- a device that is lost ---- */

static void note_loss(embed_sched *sc, const status *why) {
    if (why->code != ST_LOST || sc->lost.code != ST_OK) return;
    status_set(&sc->lost, ST_LOST, "the device failed: %.300s", why->msg);
    log_error("%s; nothing can run any more", sc->lost.msg);
    if (sc->o.lost) sc->o.lost(sc->o.user, &sc->lost);
}

static void end_lost(embed_sched *sc, seq *s) {
    s->st = sc->lost;
    end(sc, s);
}

static void end_all_lost(embed_sched *sc) {
    while (sc->n_running) end_lost(sc, sc->running[--sc->n_running]);
    for (seq *s; (s = seq_list_pop(&sc->waiting));) end_lost(sc, s);
}

/* ---- arrivals and cancels ---- */

static void sweep_cancelled(embed_sched *sc) {
    seq_list gone = {0};
    workers_take_cancelled(sc->w, &gone);
    seq_list_take_cancelled(&sc->waiting, &gone);
    for (seq *s; (s = seq_list_pop(&gone));) end_cancelled(sc, s);
    for (int i = 0; i < sc->n_running; i++)
        if (atomic_load(&sc->running[i]->cancelled)) {
            sc->running[i]->st = (status){0};
            status_set(&sc->running[i]->st, ST_CANCELLED, "the request was cancelled");
        }
    remove_ended(sc);
}

static void drain(embed_sched *sc) {
    bool cancels;
    seq_list arrived = inbox_take(sc->in, &cancels);
    if (cancels) sweep_cancelled(sc);
    piccache_collect(sc->o.pictures); /* after the take: what arrived may count on it */
    for (seq *s; (s = seq_list_pop(&arrived));) {
        if (atomic_load(&s->cancelled)) {
            end_cancelled(sc, s);
        } else if (sc->lost.code != ST_OK) {
            end_lost(sc, s);
        } else if (s->awaits_room) {
            s->awaits_room = false;
            workers_add(sc->w, s);
        } else if (s->st.code != ST_OK) {
            end(sc, s);
        } else {
            seq_send_input_done(s);
            s->order = ++sc->n_arrived;
            seq_list_insert(&sc->waiting, s);
        }
    }
}

static void admit(embed_sched *sc) {
    while (sc->waiting.head && sc->n_running < sc->o.max_jobs) {
        seq *s = seq_list_pop(&sc->waiting);
        s->t_run = time_now_s();
        if (s->queued) admission_begun(sc->o.queue, s->n_prompt);
        s->queued = false;
        sc->running[sc->n_running++] = s;
    }
}

/* ---- pictures ---- */

static int next_picture_of(const seq *s) {
    for (int i = 0; i < s->prompt->n_images; i++)
        if (!seq_image_ready(s, i)) return i;
    return -1;
}

/* With pic, of running[first], go others that are wanted: one of each job in turn, then the next of each. */
static bool begin_encode(embed_sched *sc, picture *pic, int first, status *st) {
    gather g;
    gather_begin(&g, sc->r->model, pic);
    for (int k = 0, left = 1; left && g.room > 0; k++) {
        left = 0;
        for (int i = 0; i < sc->n_running; i++) {
            const seq *s = sc->running[(first + i) % sc->n_running];
            if (k >= s->prompt->n_images || s->st.code != ST_OK) continue;
            left = 1;
            gather_offer(&g, s->images[k].pic);
        }
    }
    return gather_start(&g, sc->r->be, st);
}

/* One slice of picture i of running[at], for all that show it or go with it. What goes wrong is this job's alone: others try
 * again, and of several, each alone. True: the picture is ready, or the encode has failed. */
static bool encode_slice(embed_sched *sc, int at, int i) {
    seq *s = sc->running[at];
    picture *pic = s->images[i].pic;
    if (!pic->enc && !begin_encode(sc, pic, at, &s->st)) return true;
    status st = {0};
    if (embed_run_slice(sc->r, pic->enc, &st)) {
        sc->stats.images += (uint64_t)picture_ready(pic);
        return true;
    }
    if (st.code == ST_OK) return false;
    note_loss(sc, &st);
    bool several = picture_reset(pic);
    if (several) log_error("an encode of several pictures failed: %s", st.msg);
    if (!several || st.code == ST_LOST) s->st = st;
    return true;
}

/* The next job in turn that has a picture to encode, or NULL: running[next_picture]; *at says which. */
static seq *find_picture(embed_sched *sc, int *at) {
    for (int k = 0; k < sc->n_running; k++) {
        int i = (sc->next_picture + k) % sc->n_running;
        seq *s = sc->running[i];
        if (s->st.code != ST_OK) continue;
        if ((*at = next_picture_of(s)) < 0) continue;
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
        note_loss(sc, &s->st);
    }
    if (s->pixels > 0 && seq_images_ready(s)) inbox_encoded(sc->in, s);
}

/* Slice by slice until the turn's time for it is spent. True: some are left. */
static bool encode_some(embed_sched *sc) {
    double begin = time_now_s(), now = begin;
    int at = -1;
    seq *s = find_picture(sc, &at);
    while (s && sc->lost.code == ST_OK && pace_may_encode(&sc->pace)) {
        double before = now;
        if (encode_slice(sc, sc->next_picture, at)) sc->next_picture++;
        now = time_now_s();
        pace_slice_took(&sc->pace, now - before);
        s = find_picture(sc, &at);
    }
    sc->stats.image_encode_seconds += now - begin;
    for (int i = 0; i < sc->n_running; i++)
        if (sc->running[i]->prompt->n_images) collect_pictures(sc, sc->running[i]);
    return s != NULL;
}

/* ---- texts ---- */

/* After a failed step its jobs run one at a time until each has shown that it was not the cause. */
static seq *first_suspect(const embed_sched *sc) {
    for (int i = 0; i < sc->n_running; i++)
        if (sc->running[i]->suspect && sc->running[i]->st.code == ST_OK &&
            embed_next_text(sc->running[i]->embed))
            return sc->running[i];
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
    for (int idle = 0; idle < sc->n_running;) {
        int i = sc->next_text % sc->n_running;
        seq *s = sc->running[i];
        embed_item *it = s->st.code == ST_OK && (!only || s == only) ? embed_next_text(s->embed) : NULL;
        idle = it ? 0 : idle + 1;
        if (it && !place(sc, s, it, max_rows)) break;
        sc->next_text = (i + 1) % sc->n_running;
    }
}

static void step_failed(embed_sched *sc, const status *why) {
    const embed_run *r = sc->r;
    note_loss(sc, why);
    bool alone = true;
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

static void count_step(embed_sched *sc, int rows) {
    int i = 0;
    while (i < ENGINE_ROW_BUCKETS - 1 && rows > engine_row_bound(i)) i++;
    sc->stats.steps++;
    sc->stats.rows += (uint64_t)rows;
    sc->stats.steps_by_rows[i]++;
}

static void run_texts(embed_sched *sc, int max_rows) {
    status st = {0};
    pack(sc, max_rows);
    if (sc->r->n_texts == 0) return;
    double begin = time_now_s();
    bool ok = embed_run_step(sc->r, &st);
    pace_step_took(&sc->pace, sc->r->n_rows, pace_is_plain(&sc->pace, sc->r->n_rows), time_now_s() - begin);
    count_step(sc, sc->r->n_rows);
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
    for (int i = 0; i < sc->n_running && !texts; i++) texts = embed_next_text(sc->running[i]->embed) != NULL;
    pace_begin(&sc->pace, 0, texts);
    bool left = encode_some(sc);
    if (sc->lost.code == ST_OK) run_texts(sc, pace_prefill_rows(&sc->pace, sc->o.max_rows, left));
    remove_ended(sc);
    if (sc->lost.code != ST_OK) end_all_lost(sc);
    publish(sc);
    return sc->n_running > 0 || sc->waiting.head;
}

void embed_sched_get_stats(embed_sched *sc, engine_stats *out) {
    pthread_mutex_lock(&sc->mu);
    *out = sc->published;
    pthread_mutex_unlock(&sc->mu);
}
