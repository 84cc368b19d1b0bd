/* sched.c - see sched.h. The engine's thread; stats have a lock of their own. */
#include "engine/sched.h"

#include "engine/pace.h"
#include "engine/seen.h"
#include "engine/share.h"

#include <string.h>

struct sched {
    sched_options o;
    runner *r;
    inbox *in;
    workers *w;
    seq_list waiting; /* in the order of seq_before */
    seq **running;    /* [max_seqs], likewise; "older" below means before in it */
    int *rows;        /* [max_seqs] of this step */
    int n_running;
    pace pace;
    int next; /* whose turn it is where prefill rows do not reach for all */
    uint64_t n_arrived;
    status lost; /* the device failed for good */
    engine_stats stats;
    pthread_mutex_t mu; /* of published */
    engine_stats published;
};

sched *sched_new(const sched_options *o, runner *r, inbox *in, workers *w, status *st) {
    CHECK(o->max_seqs >= 1 && o->max_rows >= 1);
    sched *sc = mem_calloc(1, sizeof *sc);
    if (sc && pthread_mutex_init(&sc->mu, NULL) != 0) {
        mem_free(sc);
        sc = NULL;
    }
    if (sc) {
        sc->running = mem_calloc((size_t)o->max_seqs, sizeof(seq *));
        sc->rows = mem_calloc((size_t)o->max_seqs, sizeof *sc->rows);
    }
    if (!sc || !sc->running || !sc->rows) {
        sched_free(sc);
        status_set(st, ST_NO_MEMORY, "no memory for a schedule of %d sequences", o->max_seqs);
        return NULL;
    }
    sc->o = *o;
    if (sc->o.max_chunk < 1) sc->o.max_chunk = o->max_rows;
    sc->r = r;
    sc->in = in;
    sc->w = w;
    return sc;
}

void sched_free(sched *sc) {
    if (!sc) return;
    CHECK(sc->n_running == 0 && !sc->waiting.head);
    pthread_mutex_destroy(&sc->mu);
    mem_free(sc->running);
    mem_free(sc->rows);
    mem_free(sc);
}

/* ---- the end of a job ---- */

/* s stands in no list any more. */
static void end(sched *sc, seq *s, engine_finish finish) {
    engine_stats *t = &sc->stats;
    uint64_t n = (uint64_t)s->n_choices;
    if (s->st.code == ST_CANCELLED)
        t->finished_abort += n;
    else if (s->st.code != ST_OK)
        t->finished_error += n;
    else if (finish == FINISH_STOP)
        t->finished_stop += n;
    else
        t->finished_length += n;
    seq_drop_pages(s, &sc->r->kv);
    seen_drop(s, sc->r->be);
    if (s->queued) admission_left(sc->o.queue, s->n_prompt);
    s->queued = false;
    inbox_leave(sc->in, s);
    seq_send_final(s, finish);
    seq_free(s);
}

static void end_cancelled(sched *sc, seq *s) {
    s->st = (status){0};
    status_set(&s->st, ST_CANCELLED, "the request was cancelled");
    end(sc, s, FINISH_STOP);
}

/* Running jobs that have failed leave; the others close up. */
static void remove_failed(sched *sc) {
    int n = 0;
    for (int i = 0; i < sc->n_running; i++) {
        seq *s = sc->running[i];
        if (s->st.code == ST_OK)
            sc->running[n++] = s;
        else
            end(sc, s, FINISH_STOP);
    }
    sc->n_running = n;
}

/* ---- a device that is lost ---- */

static bool note_loss(sched *sc, const status *why) {
    if (why->code != ST_LOST) return false;
    if (sc->lost.code == ST_OK) {
        status_set(&sc->lost, ST_LOST, "the device failed: %.300s", why->msg);
        log_error("%s; nothing can run any more", sc->lost.msg);
        if (sc->o.lost) sc->o.lost(sc->o.user, &sc->lost);
    }
    return true;
}

static void end_lost(sched *sc, seq *s) {
    s->st = sc->lost;
    end(sc, s, FINISH_STOP);
}

static void end_all_lost(sched *sc) {
    while (sc->n_running) end_lost(sc, sc->running[--sc->n_running]);
    for (seq *s; (s = seq_list_pop(&sc->waiting));) end_lost(sc, s);
}

/* ---- arrivals and cancels ---- */

static void sweep_cancelled(sched *sc) {
    seq_list gone = {0};
    if (sc->w) workers_take_cancelled(sc->w, &gone);
    seq_list_take_cancelled(&sc->waiting, &gone);
    int n = 0;
    for (int i = 0; i < sc->n_running; i++) {
        seq *s = sc->running[i];
        if (atomic_load(&s->cancelled))
            seq_list_push(&gone, s);
        else
            sc->running[n++] = s;
    }
    sc->n_running = n;
    for (seq *s; (s = seq_list_pop(&gone));) end_cancelled(sc, s);
}

/* Everything but the very last token needs room in the cache. */
static bool fits_alone(const sched *sc, seq *s) {
    int need = kv_pages_of(s->max_len - 1), have = sc->r->kv.n_pages - 1;
    if (need <= have) return true;
    return status_set(&s->st, ST_TOO_LARGE, "prompt and answer of %d tokens need %d KV pages; there are %d",
                      s->max_len, need, have);
}

/* Pictures that nobody has taken to the cache yet. */
static bool take_pictures(sched *sc, seq *s) {
    while (s->n_taken < s->prompt->n_images) {
        prompt_image *im = &s->prompt->images[s->n_taken];
        if (!seq_take_picture(
                s, piccache_add(sc->o.pictures, NULL, im->key, &im->pixels, im->encode_bytes, &s->st)))
            return false;
    }
    return true;
}

/* What may not be shared with others is still shared by the choices of one job: their prompts have one length. */
static void set_sharing(const sched *sc, seq *s) {
    share_root(s);
    if (sc->o.no_prefix_caching) s->share_max = 0;
    if (s->n_choices > 1 && s->share_max == 0) share_within_job(s);
}

static void drain(sched *sc) {
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
        } else if (s->st.code != ST_OK || !fits_alone(sc, s) || !take_pictures(sc, s)) {
            end(sc, s, FINISH_STOP);
        } else {
            seq_send_input_done(s);
            set_sharing(sc, s);
            s->order = ++sc->n_arrived;
            seq_list_insert(&sc->waiting, s);
        }
    }
}

/* ---- who runs ---- */

static void run_in_order(sched *sc, seq *s) {
    int i = sc->n_running++;
    for (; i > 0 && seq_before(s, sc->running[i - 1]); i--) sc->running[i] = sc->running[i - 1];
    sc->running[i] = s;
}

/* The first of the queue joins while its whole prompt has pages and every running sequence could still take
 * one more: what joins should not have to leave at once. */
static void admit(sched *sc) {
    kv_cache *kv = &sc->r->kv;
    while (sc->waiting.head && sc->n_running < sc->o.max_seqs) {
        seq *s = sc->waiting.head;
        if (!share_admit(s, kv, sc->n_running)) break;
        seq_list_pop(&sc->waiting);
        if (s->t_run == 0) {
            s->t_run = time_now_s();
            if (s->queued) admission_begun(sc->o.queue, s->n_prompt);
            s->queued = false;
            if (s->share_max > 0 && !s->job_only && s->choice == 0)
                sc->stats.prefix_cache_queries += (uint64_t)s->n_prompt;
        }
        run_in_order(sc, s);
    }
}

/* The youngest of the least urgent goes back to its place in the queue; what it knows of its answer stays. */
static void preempt_youngest(sched *sc) {
    seq *s = sc->running[--sc->n_running];
    seq_drop_pages(s, &sc->r->kv);
    s->preempted = true;
    seq_list_insert(&sc->waiting, s);
    sc->stats.preemptions++;
}

/* ---- pages that others have ---- */

/* After a failed step its sequences run one at a time until each has shown that it was not the cause. */
static seq *first_suspect(const sched *sc) {
    for (int i = 0; i < sc->n_running; i++)
        if (sc->running[i]->suspect) return sc->running[i];
    return NULL;
}

/* The oldest first, so that it computes what several want. A suspect runs alone: it waits for nobody. */
static void look_around(sched *sc) {
    bool alone = first_suspect(sc) != NULL;
    for (int i = 0; i < sc->n_running; i++) share_follow(sc->running[i], &sc->r->kv, alone);
}

/* ---- pictures ---- */

/* One slice of picture i of s, for all that show it. What goes wrong is this job's alone: others try again. */
static void encode_slice(sched *sc, seq *s, int i) {
    picture *pic = s->images[i].pic;
    if (!pic->enc && !(pic->enc = encode_new(sc->r->model, sc->r->be, &pic->pixels, &s->st))) {
        note_loss(sc, &s->st);
        return;
    }
    if (runner_encode(sc->r, pic->enc, &s->st)) {
        int64_t rows = encode_rows(pic->enc).d[0];
        if (rows == s->prompt->images[i].n_rows) {
            picture_ready(pic);
            sc->stats.images++;
            return;
        }
        status_set(&s->st, ST_INTERNAL, "picture %d became %d rows instead of %d", i, (int)rows,
                   s->prompt->images[i].n_rows);
    }
    note_loss(sc, &s->st);
    if (s->st.code != ST_OK) picture_reset(pic);
}

/* The first of the running that has a picture to encode, from i on; *at says which. */
static int find_picture(sched *sc, int i, int *at) {
    for (; i < sc->n_running; i++) {
        seq *s = sc->running[i];
        if (s->st.code != ST_OK) continue;
        if ((*at = seq_next_image(s)) >= 0) break;
        if (s->pixels > 0 && seq_images_ready(s)) inbox_encoded(sc->in, s);
    }
    return i;
}

static void begin_turn(sched *sc) {
    int n_decode = 0;
    bool prefill = false;
    for (int i = 0; i < sc->n_running; i++) {
        if (seq_decodes(sc->running[i]))
            n_decode++;
        else
            prefill = prefill || seq_rows_ready(sc->running[i]) > 0;
    }
    pace_begin(&sc->pace, n_decode, prefill);
}

/* Sequences whose pictures stand apart and are all there. */
static void prepare_seen(sched *sc) {
    for (int i = 0; i < sc->n_running; i++) {
        seq *s = sc->running[i];
        if (s->apart && !s->seen_ready && s->st.code == ST_OK && seq_images_ready(s))
            runner_prepare_seen(sc->r, s, &s->st);
    }
}

/* Pictures of those who run, the oldest's first, slice by slice until the turn's time for it is spent. True: some are
 * left. */
static bool encode_some(sched *sc) {
    double begin = time_now_s(), now = begin;
    int at = -1, i = find_picture(sc, 0, &at);
    while (i < sc->n_running && sc->lost.code == ST_OK && pace_may_encode(&sc->pace)) {
        double before = now;
        encode_slice(sc, sc->running[i], at);
        now = time_now_s();
        pace_slice_took(&sc->pace, now - before);
        i = find_picture(sc, i, &at);
    }
    bool left = i < sc->n_running;
    prepare_seen(sc);
    sc->stats.image_encode_seconds += now - begin;
    remove_failed(sc);
    return left;
}

/* ---- one step ---- */

/* Rows that s could run now in one step; none while another is under suspicion. A span is no chunk too long. */
static int rows_wanted(const sched *sc, const seq *s, const seq *only) {
    int n = only && s != only ? 0 : seq_rows_ready(s);
    if (n <= sc->o.max_chunk) return n;
    int cut = seq_cut(s, sc->o.max_chunk);
    return cut > 0 ? cut : seq_unit(s);
}

static bool wants_prefill(const sched *sc, int i, const seq *only) {
    return !seq_decodes(sc->running[i]) && rows_wanted(sc, sc->running[i], only) > sc->rows[i];
}

/* One round: at most `each` rows more for everybody who prefills, beginning with running[from]. What is left. */
static int prefill_round(sched *sc, int from, int each, int left, const seq *only) {
    for (int k = 0; k < sc->n_running && left > 0; k++) {
        int i = (from + k) % sc->n_running;
        if (seq_decodes(sc->running[i])) continue;
        int n = rows_wanted(sc, sc->running[i], only) - sc->rows[i];
        if (n > each) n = each;
        if (n > left) n = left;
        n = seq_cut(sc->running[i], sc->rows[i] + n) - sc->rows[i];
        if (n <= 0) continue;
        sc->rows[i] += n;
        left -= n;
        sc->next = i + 1;
    }
    return left;
}

static int give_span(sched *sc, int i, int left) {
    sc->rows[i] = seq_unit(sc->running[i]);
    sc->running[i]->saved = 0;
    return left - sc->rows[i];
}

/* A span cannot be shared out. The oldest gets its span at once, who else stands before one that is longer than its
 * share once its shares together pay for it (deficit round robin: Shreedhar and Varghese, SIGCOMM 1995). May leave less
 * than nothing: later turns make up for it. */
static int give_spans(sched *sc, int left, int each, const seq *only) {
    bool oldest = true;
    for (int i = 0; i < sc->n_running && left > 0; i++) {
        if (!wants_prefill(sc, i, only)) continue;
        seq *s = sc->running[i];
        int unit = seq_unit(s);
        if (unit > each) {
            s->saved += each;
            if (oldest || s->saved >= unit) left = give_span(sc, i, left);
        }
        oldest = false;
    }
    return left;
}

/* The first whose span fits into what nobody else can use. */
static int give_fitting_span(sched *sc, int left, const seq *only) {
    for (int i = 0; i < sc->n_running; i++)
        if (wants_prefill(sc, i, only) && sc->rows[i] == 0 && seq_unit(sc->running[i]) <= left)
            return give_span(sc, i, left);
    return left;
}

/* Prefill rows in equal shares; what one cannot use is shared among the others, and what does not divide goes to the
 * oldest. So a long prompt delays a short one no more than that delays it. Where there is not even a row for each, a
 * turn goes on where the last one ended. Returns what is left, less than nothing where a span took more. */
static int share_prefill(sched *sc, int left, const seq *only) {
    for (bool first = true; left > 0; first = false) {
        int hungry = 0;
        for (int i = 0; i < sc->n_running; i++) hungry += wants_prefill(sc, i, only);
        if (hungry == 0) break;
        int each = left / hungry, from = first && each == 0 ? sc->next % sc->n_running : 0, before = left;
        if (first) left = give_spans(sc, left, each ? each : 1, only);
        if (left > 0) left = prefill_round(sc, from, each ? each : 1, left, only);
        if (left == before) left = give_fitting_span(sc, left, only);
        if (left == before) break;
    }
    return left;
}

/* Rows of each for this step: one for everybody who decodes, then prefill with what is left and what the turn's time
 * allows. */
static void share_rows(sched *sc, bool encode_waits) {
    int left = sc->o.max_rows;
    const seq *only = first_suspect(sc);
    for (int i = 0; i < sc->n_running; i++) {
        sc->rows[i] = 0;
        if (!seq_decodes(sc->running[i])) continue;
        int n = rows_wanted(sc, sc->running[i], only);
        sc->rows[i] = n < left ? n : left;
        left -= sc->rows[i];
    }
    left = share_prefill(sc, pace_prefill_rows(&sc->pace, left, encode_waits), only);
    if (left < 0) pace_overdrawn(&sc->pace, -left);
}

/* Pages for those rows, the oldest first; who finds none takes the youngest's, be it its own. */
static void share_pages(sched *sc) {
    for (int i = 0; i < sc->n_running; i++)
        while (i < sc->n_running &&
               !seq_grow(sc->running[i], &sc->r->kv, sc->running[i]->n_done + sc->rows[i]))
            preempt_youngest(sc);
}

/* Fills the runner's batch; returns how many rows. */
static int pack(sched *sc) {
    runner *r = sc->r;
    batch_clear(&r->batch);
    for (int i = 0; i < sc->n_running; i++) {
        seq *s = sc->running[i];
        if (sc->rows[i] == 0 || !batch_add(&r->batch, s, sc->rows[i])) continue;
        sampler_row(&s->sampler, (uint32_t)seq_answer_len(s), &r->rows[r->batch.n_out - 1]);
    }
    return r->batch.n_rows;
}

static void step_failed(sched *sc, const status *why) {
    if (note_loss(sc, why)) return;
    bool alone = sc->r->batch.n_seqs == 1;
    log_error("a step of %d rows of %d sequences failed: %s", sc->r->batch.n_rows, sc->r->batch.n_seqs,
              why->msg);
    for (int i = 0; i < sc->n_running; i++) {
        seq *s = sc->running[i];
        if (sc->rows[i] == 0) continue;
        if (alone) status_set(&s->st, why->code == ST_NO_MEMORY ? ST_NO_MEMORY : ST_INTERNAL, "%s", why->msg);
        s->suspect = !alone;
    }
    remove_failed(sc);
}

static void count_prompt(sched *sc, seq *s) {
    sc->stats.prompt_tokens += (uint64_t)s->n_prompt;
    sc->stats.prefix_cache_hits += (uint64_t)s->n_cached;
    for (int i = 0; i < s->prompt->n_rows; i++) sc->stats.image_tokens += (uint64_t)s->prompt->rows[i].n;
    inbox_encoded(sc->in, s); /* those in shared pages never will be */
}

/* The prompt of s is computed: its other choices join the queue in its place, where they find its pages. */
static void part(sched *sc, seq *s) {
    inbox_part(sc->in, s);
    seq_list forks = seq_part(s);
    for (seq *f; (f = seq_list_pop(&forks));) seq_list_insert(&sc->waiting, f);
}

static void count_step(sched *sc, int rows) {
    int i = 0;
    while (i < ENGINE_ROW_BUCKETS - 1 && rows > engine_row_bound(i)) i++;
    sc->stats.steps++;
    sc->stats.rows += (uint64_t)rows;
    sc->stats.steps_by_rows[i]++;
}

/* The step ran: rows are in the cache, and who had its last row in it has a new token. */
static void collect(sched *sc) {
    int out = 0, n = 0;
    for (int i = 0; i < sc->n_running; i++) {
        seq *s = sc->running[i];
        engine_finish finish = FINISH_STOP;
        bool over = false;
        int before = s->n_done;
        s->n_done += sc->rows[i];
        if (sc->rows[i] > 0) share_filled(s, &sc->r->kv, before);
        if (sc->rows[i] > 0) s->suspect = false;
        if (sc->rows[i] > 0 && s->n_done == seq_len(s)) {
            if (seq_answer_len(s) == 0 && s->choice == 0) {
                count_prompt(sc, s);
                part(sc, s);
            }
            sc->stats.generation_tokens++;
            over = seq_accept(s, &sc->r->results[out++], &finish);
        }
        if (over)
            end(sc, s, finish);
        else
            sc->running[n++] = s;
    }
    sc->n_running = n;
}

static void publish(sched *sc) {
    const kv_cache *kv = &sc->r->kv;
    sc->stats.running = sc->n_running;
    sc->stats.kv_usage = 1.0 - (double)kv_available(kv) / (kv->n_pages - 1);
    pthread_mutex_lock(&sc->mu);
    sc->published = sc->stats;
    pthread_mutex_unlock(&sc->mu);
}

static void run_step(sched *sc, int rows) {
    status st = {0};
    double begin = time_now_s();
    bool ok = runner_step(sc->r, &st);
    pace_step_took(&sc->pace, rows, time_now_s() - begin);
    count_step(sc, rows);
    if (ok)
        collect(sc);
    else
        step_failed(sc, &st);
}

bool sched_turn(sched *sc) {
    drain(sc);
    admit(sc);
    look_around(sc);
    begin_turn(sc);
    share_rows(sc, encode_some(sc));
    share_pages(sc);
    int rows = pack(sc);
    if (rows > 0 && sc->lost.code == ST_OK) run_step(sc, rows);
    if (sc->lost.code != ST_OK) end_all_lost(sc);
    publish(sc);
    return sc->n_running > 0 || sc->waiting.head;
}

void sched_get_stats(sched *sc, engine_stats *out) {
    pthread_mutex_lock(&sc->mu);
    *out = sc->published;
    pthread_mutex_unlock(&sc->mu);
}
