/* sched.c - see sched.h. The engine's thread. */
#include "engine/sched.h"

#include "engine/gather.h"
#include "engine/pace.h"
#include "engine/seen.h"
#include "engine/share.h"

#include <string.h>

typedef struct flight_seq { /* what a step under way holds of a sequence */
    seq *s;
    int from, n; /* rows */
    int out;     /* its result; -1: none */
} flight_seq;

typedef struct flight { /* a step under way */
    int slot;           /* the runner's; -1: it was not even launched, and why says so */
    status why;
    flight_seq *seqs; /* [max_seqs], n */
    int n, n_rows;
    bool plain;
    double launched;
} flight;

typedef struct beside { /* slices under way beside the steps, of a picture and those that go with it */
    picture *pic;       /* a reference to one of them; NULL: none are */
    int n_slices;
    bool last;
    double launched;
} beside;

struct sched {
    sched_options o;
    roster jobs; /* running is in the order of seq_before; "older" below means before in it */
    runner *r;
    int *rows;                       /* [max_running] of this step */
    flight flights[STEPS_AHEAD + 1]; /* the oldest first */
    int n_flights;
    double last_landed; /* when */
    beside beside;
    pace pace;
    int next; /* whose turn it is where prefill rows do not reach for all */
};

sched *sched_new(const sched_options *o, runner *r, inbox *in, workers *w, status *st) {
    const size_t n = (size_t)o->jobs.max_running;
    CHECK(o->max_rows >= 1);
    sched *sc = mem_calloc(1, sizeof *sc);
    bool ok = sc && roster_init(&sc->jobs, &o->jobs, in, w) && (sc->rows = mem_calloc(n, sizeof *sc->rows));
    for (int i = 0; i <= STEPS_AHEAD && ok; i++)
        ok = (sc->flights[i].seqs = mem_calloc(n, sizeof(flight_seq))) != NULL;
    if (!ok) {
        sched_free(sc);
        status_set(st, ST_NO_MEMORY, "no memory for a schedule of %d sequences", o->jobs.max_running);
        return NULL;
    }
    sc->o = *o;
    if (sc->o.max_chunk < 1) sc->o.max_chunk = o->max_rows;
    sc->r = r;
    return sc;
}

void sched_free(sched *sc) {
    if (!sc) return;
    CHECK(sc->n_flights == 0);
    picture_release(sc->beside.pic);
    for (int i = 0; i <= STEPS_AHEAD; i++) mem_free(sc->flights[i].seqs);
    roster_fini(&sc->jobs);
    mem_free(sc->rows);
    mem_free(sc);
}

/* ---- the end of a job ---- */

/* Nothing on the device is its any more. */
static void release(sched *sc, seq *s) {
    seq_drop_pages(s, &sc->r->kv);
    seen_drop(s, sc->r->be);
    seq_free(s);
}

/* s stands in no list any more. Where a step under way holds rows of it, it and its pages go with that step. */
static void end(sched *sc, seq *s, engine_finish finish) {
    roster_left(&sc->jobs, s, finish);
    seq_send_final(s, finish);
    s->over = true;
    if (s->n_steps == 0) release(sc, s);
}

/* Running jobs that have failed leave; the others close up. */
static void remove_failed(sched *sc) {
    int n = 0;
    for (int i = 0; i < sc->jobs.n_running; i++) {
        seq *s = sc->jobs.running[i];
        if (s->st.code == ST_OK)
            sc->jobs.running[n++] = s;
        else
            end(sc, s, FINISH_STOP);
    }
    sc->jobs.n_running = n;
}

/* ---- arrivals ---- */

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
                s, piccache_add(sc->jobs.o.pictures, NULL, im->key, &im->pixels, im->encode_bytes, &s->st)))
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
    seq_list gone = roster_take(&sc->jobs);
    for (seq *s; (s = seq_list_pop(&gone));) end(sc, s, FINISH_STOP);
    remove_failed(sc);
    for (seq *s; (s = roster_next_arrival(&sc->jobs));) {
        if (s->st.code != ST_OK || !fits_alone(sc, s) || !take_pictures(sc, s)) {
            end(sc, s, FINISH_STOP);
        } else {
            set_sharing(sc, s);
            roster_wait(&sc->jobs, s);
        }
    }
}

/* ---- who runs ---- */

static void run_in_order(sched *sc, seq *s) {
    int i = sc->jobs.n_running++;
    for (; i > 0 && seq_before(s, sc->jobs.running[i - 1]); i--)
        sc->jobs.running[i] = sc->jobs.running[i - 1];
    sc->jobs.running[i] = s;
}

/* The first of the queue joins while its whole prompt has pages and every running sequence could still take
 * one more: what joins should not have to leave at once. */
static void admit(sched *sc) {
    kv_cache *kv = &sc->r->kv;
    while (sc->jobs.waiting.head && sc->jobs.n_running < sc->jobs.o.max_running) {
        seq *s = sc->jobs.waiting.head;
        if (!share_admit(s, kv, sc->jobs.n_running)) break;
        seq_list_pop(&sc->jobs.waiting);
        if (s->t_run == 0) {
            roster_begun(&sc->jobs, s);
            if (s->share_max > 0 && !s->job_only && s->choice == 0)
                sc->jobs.stats.prefix_cache_queries += (uint64_t)s->n_prompt;
        }
        run_in_order(sc, s);
    }
}

/* The youngest of the least urgent goes back to its place in the queue; what it knows of its answer stays. */
static void preempt_youngest(sched *sc) {
    seq *s = sc->jobs.running[--sc->jobs.n_running];
    CHECK(s->n_steps == 0);
    seq_drop_pages(s, &sc->r->kv);
    s->preempted = true;
    seq_list_insert(&sc->jobs.waiting, s);
    sc->jobs.stats.preemptions++;
}

/* ---- pages that others have ---- */

/* After a failed step its sequences run one at a time until each has shown that it was not the cause. */
static seq *first_suspect(const sched *sc) {
    for (int i = 0; i < sc->jobs.n_running; i++)
        if (sc->jobs.running[i]->suspect) return sc->jobs.running[i];
    return NULL;
}

/* The oldest first, so that it computes what several want. A suspect runs alone: it waits for nobody. */
static void look_around(sched *sc) {
    bool alone = first_suspect(sc) != NULL;
    for (int i = 0; i < sc->jobs.n_running; i++) share_follow(sc->jobs.running[i], &sc->r->kv, alone);
}

/* ---- pictures ---- */

/* With pic go others that those who run wait for. */
static bool begin_encode(sched *sc, picture *pic, status *st) {
    gather g;
    gather_begin(&g, sc->r->model, pic);
    for (int i = 0; i < sc->jobs.n_running && g.room > 0; i++) {
        const seq *s = sc->jobs.running[i];
        if (s->st.code != ST_OK || seq_next_image(s) < 0) continue;
        for (int k = 0; k < s->prompt->n_images; k++)
            if (seq_wants_image(s, k)) gather_offer(&g, s->images[k].pic);
    }
    return gather_start(&g, sc->r->be, st);
}

/* Picture i of s as an encode, begun or not. What goes wrong is this job's alone: others try again. */
static encode *encode_of(sched *sc, seq *s, int i) {
    picture *pic = s->images[i].pic;
    if (!pic->enc && !begin_encode(sc, pic, &s->st)) return NULL;
    int64_t rows = encode_rows(pic->enc).d[0];
    if (rows == s->prompt->images[i].n_rows) return pic->enc;
    status_set(&s->st, ST_INTERNAL, "picture %d became %d rows instead of %d", i, (int)rows,
               s->prompt->images[i].n_rows);
    return NULL;
}

static void encode_ended(sched *sc, picture *pic) {
    sc->jobs.stats.images += (uint64_t)picture_ready(pic);
}

/* One slice of picture i of s, for all that show it or go with it. */
static void encode_slice(sched *sc, seq *s, int i) {
    picture *pic = s->images[i].pic;
    encode *e = encode_of(sc, s, i);
    status st = s->st;
    if (e && runner_encode(sc->r, e, &st)) encode_ended(sc, pic);
    if (st.code != ST_OK) roster_encode_failed(&sc->jobs, s, pic, &st);
}

/* The first of the running that has a picture to encode, from i on; *at says which. */
static int find_picture(sched *sc, int i, int *at) {
    for (; i < sc->jobs.n_running; i++) {
        seq *s = sc->jobs.running[i];
        if (s->st.code != ST_OK) continue;
        if ((*at = seq_next_image(s)) >= 0) break;
        if (s->pixels > 0 && seq_images_ready(s)) inbox_encoded(sc->jobs.in, s);
    }
    return i;
}

static void begin_turn(sched *sc) {
    int n_decode = 0;
    bool prefill = false;
    for (int i = 0; i < sc->jobs.n_running; i++) {
        if (seq_rows_ready(sc->jobs.running[i]) == 0) continue;
        if (seq_decodes(sc->jobs.running[i]))
            n_decode++;
        else
            prefill = true;
    }
    pace_begin(&sc->pace, n_decode, prefill);
}

/* Sequences whose pictures stand apart and are all there. */
static void prepare_seen(sched *sc) {
    for (int i = 0; i < sc->jobs.n_running; i++) {
        seq *s = sc->jobs.running[i];
        if (s->apart && !s->seen_ready && s->st.code == ST_OK && seq_images_ready(s))
            if (!runner_prepare_seen(sc->r, s, &s->st)) roster_check_loss(&sc->jobs, s);
    }
}

/* Slices between the steps until the turn's time for them is spent. */
static void encode_between(sched *sc) {
    double begin = time_now_s(), now = begin;
    int at = -1, i = find_picture(sc, 0, &at);
    while (i < sc->jobs.n_running && sc->jobs.lost.code == ST_OK && pace_may_encode(&sc->pace)) {
        double before = now;
        encode_slice(sc, sc->jobs.running[i], at);
        now = time_now_s();
        pace_slice_took(&sc->pace, now - before);
        i = find_picture(sc, i, &at);
    }
    sc->jobs.stats.image_encode_seconds += now - begin;
}

/* Who is to know that the encode of pic failed: the first that waits for it. */
static seq *waits_for(sched *sc, const picture *pic) {
    int at;
    for (int i = find_picture(sc, 0, &at); i < sc->jobs.n_running; i = find_picture(sc, i + 1, &at))
        if (sc->jobs.running[i]->images[at].pic == pic) return sc->jobs.running[i];
    return NULL;
}

/* What is under way beside the steps, if it is done or to be waited for. */
static void take_encoded(sched *sc, bool wait) {
    beside *b = &sc->beside;
    if (!b->pic || (!wait && !runner_encodes_reached(sc->r))) return;
    status st = {0};
    bool ok = runner_wait_encodes(sc->r, &st);
    double seconds = time_now_s() - b->launched;
    pace_slices_took(&sc->pace, b->n_slices, seconds);
    sc->jobs.stats.image_encode_seconds += seconds;
    if (!ok) {
        roster_encode_failed(&sc->jobs, waits_for(sc, b->pic), b->pic, &st);
    } else if (b->last) {
        encode_ended(sc, b->pic);
    }
    picture_release(b->pic);
    *b = (beside){0};
}

/* Slices of picture i of s, as many as the turn has time for by what the last ones took; the next when these are done. */
static void launch_slices(sched *sc, seq *s, int i) {
    beside *b = &sc->beside;
    encode *e = encode_of(sc, s, i);
    status st = s->st;
    *b = (beside){.launched = time_now_s()};
    while (e && st.code == ST_OK && !b->last && pace_may_encode(&sc->pace)) {
        b->last = runner_encode(sc->r, e, &st);
        b->n_slices++;
        pace_slice_launched(&sc->pace);
        if (sc->pace.slice_s <= 0) break;
    }
    if (b->n_slices && st.code == ST_OK) runner_mark_encodes(sc->r, &st);
    if (st.code != ST_OK)
        roster_encode_failed(&sc->jobs, s, s->images[i].pic, &st);
    else if (b->n_slices)
        b->pic = piccache_fork(s->images[i].pic);
}

static void encode_beside(sched *sc) {
    int at = -1;
    take_encoded(sc, false);
    int i = find_picture(sc, 0, &at);
    if (!sc->beside.pic && i < sc->jobs.n_running && sc->jobs.lost.code == ST_OK)
        launch_slices(sc, sc->jobs.running[i], at);
}

/* Pictures of those who run, the oldest's first. True: some are left. */
static bool encode_some(sched *sc) {
    int at = -1;
    if (sc->o.async)
        encode_beside(sc);
    else
        encode_between(sc);
    prepare_seen(sc);
    remove_failed(sc);
    return find_picture(sc, 0, &at) < sc->jobs.n_running;
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
    return !seq_decodes(sc->jobs.running[i]) && rows_wanted(sc, sc->jobs.running[i], only) > sc->rows[i];
}

/* One round: at most `each` rows more for everybody who prefills, beginning with running[from]. What is left. */
static int prefill_round(sched *sc, int from, int each, int left, const seq *only) {
    for (int k = 0; k < sc->jobs.n_running && left > 0; k++) {
        int i = (from + k) % sc->jobs.n_running;
        if (seq_decodes(sc->jobs.running[i])) continue;
        int n = rows_wanted(sc, sc->jobs.running[i], only) - sc->rows[i];
        if (n > each) n = each;
        if (n > left) n = left;
        n = seq_cut(sc->jobs.running[i], sc->rows[i] + n) - sc->rows[i];
        if (n <= 0) continue;
        sc->rows[i] += n;
        left -= n;
        sc->next = i + 1;
    }
    return left;
}

static int give_span(sched *sc, int i, int left) {
    sc->rows[i] = seq_unit(sc->jobs.running[i]);
    sc->jobs.running[i]->saved = 0;
    return left - sc->rows[i];
}

/* A span cannot be shared out. The oldest gets its span at once, who else stands before one that is longer than its
 * share once its shares together pay for it (deficit round robin: Shreedhar and Varghese, SIGCOMM 1995). May leave less
 * than nothing: later turns make up for it. */
static int give_spans(sched *sc, int left, int each, const seq *only) {
    bool oldest = true;
    for (int i = 0; i < sc->jobs.n_running && left > 0; i++) {
        if (!wants_prefill(sc, i, only)) continue;
        seq *s = sc->jobs.running[i];
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
    for (int i = 0; i < sc->jobs.n_running; i++)
        if (wants_prefill(sc, i, only) && sc->rows[i] == 0 && seq_unit(sc->jobs.running[i]) <= left)
            return give_span(sc, i, left);
    return left;
}

/* Prefill rows in equal shares; what one cannot use is shared among the others, and what does not divide goes to the
 * oldest. So a long prompt delays a short one no more than that delays it. Where there is not even a row for each, a
 * turn goes on where the last one ended. Returns what is left, less than nothing where a span took more. */
static int share_prefill(sched *sc, int left, const seq *only) {
    for (bool first = true; left > 0; first = false) {
        int hungry = 0;
        for (int i = 0; i < sc->jobs.n_running; i++) hungry += wants_prefill(sc, i, only);
        if (hungry == 0) break;
        int each = left / hungry, from = first && each == 0 ? sc->next % sc->jobs.n_running : 0,
            before = left;
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
    for (int i = 0; i < sc->jobs.n_running; i++) {
        sc->rows[i] = 0;
        if (!seq_decodes(sc->jobs.running[i])) continue;
        int n = rows_wanted(sc, sc->jobs.running[i], only);
        sc->rows[i] = n < left ? n : left;
        left -= sc->rows[i];
    }
    left = share_prefill(sc, pace_prefill_rows(&sc->pace, left, encode_waits), only);
    if (left < 0) pace_overdrawn(&sc->pace, -left);
}

/* Pages for those rows, the oldest first; who finds none takes the youngest's, be it its own. False: steps are under way,
 * and they have to be over before anybody's pages are taken. */
static bool share_pages(sched *sc) {
    for (int i = 0; i < sc->jobs.n_running; i++)
        while (i < sc->jobs.n_running &&
               !seq_grow(sc->jobs.running[i], &sc->r->kv, sc->jobs.running[i]->n_done + sc->rows[i])) {
            if (sc->n_flights > 0) return false;
            preempt_youngest(sc);
        }
    return true;
}

/* Fills the runner's batch and f with it. */
static void pack(sched *sc, flight *f) {
    batch *b = &sc->r->batch;
    batch_clear(b);
    f->n = 0;
    for (int i = 0; i < sc->jobs.n_running; i++) {
        seq *s = sc->jobs.running[i];
        bool fits;
        if (sc->rows[i] == 0) continue;
        bool wanted = batch_add(b, s, sc->rows[i], &fits);
        if (!fits) continue; /* in a later step: the first one always does */
        f->seqs[f->n++] = (flight_seq){s, s->n_done, sc->rows[i], wanted ? b->n_out - 1 : -1};
    }
    f->n_rows = b->n_rows;
}

/* From here on its sequences stand where they will be when it is over. */
static void take_off(flight *f) {
    for (int i = 0; i < f->n; i++) {
        const flight_seq *q = &f->seqs[i];
        q->s->n_done += q->n;
        q->s->n_steps++;
        if (q->out < 0) continue;
        q->s->n_ahead++;
        q->s->last_result = q->out;
    }
}

/* False: there is nothing to run. */
static bool launch(sched *sc) {
    flight *f = &sc->flights[sc->n_flights];
    pack(sc, f);
    if (f->n == 0) return false;
    f->why = (status){0};
    f->plain = pace_is_plain(&sc->pace, f->n_rows);
    f->launched = time_now_s();
    f->slot = runner_launch(sc->r, &f->why);
    take_off(f);
    sc->n_flights++;
    roster_count_step(&sc->jobs, f->n_rows);
    return true;
}

/* ---- its end ---- */

static void leave_running(sched *sc, const seq *s) {
    int i = 0;
    while (sc->jobs.running[i] != s) CHECK(++i < sc->jobs.n_running);
    memmove(&sc->jobs.running[i], &sc->jobs.running[i + 1],
            (size_t)(--sc->jobs.n_running - i) * sizeof(seq *));
}

/* One step less holds rows of s; false: s was over, and may be gone. */
static bool touch_down(sched *sc, seq *s) {
    s->n_steps--;
    if (!s->over) return true;
    if (s->n_steps == 0) release(sc, s);
    return false;
}

/* A step under way goes for nothing: s is where it was before. */
static void turn_back(seq *s, int n_done) {
    if (n_done < s->n_done) s->n_done = n_done;
    s->n_ahead = 0;
    s->preempted = true; /* what it found is counted */
}

/* All steps under way go for nothing: the first failed, and what comes after it may rest on what it did not do. The
 * sequences of the failed one run one by one then, unless it was one's alone. */
static void step_failed(sched *sc, const status *why) {
    const flight *first = &sc->flights[0];
    bool lost = roster_note_loss(&sc->jobs, why);
    if (!lost) log_error("a step of %d rows of %d sequences failed: %s", first->n_rows, first->n, why->msg);
    for (int k = 0; k < sc->n_flights; k++) {
        const flight *f = &sc->flights[k];
        status ignored = {0};
        if (k > 0 && f->slot >= 0) runner_results(sc->r, f->slot, &ignored);
        for (int i = 0; i < f->n; i++) {
            seq *s = f->seqs[i].s;
            if (!touch_down(sc, s)) continue;
            turn_back(s, f->seqs[i].from);
            if (k > 0 || lost) continue;
            s->suspect = first->n > 1;
            if (first->n == 1)
                status_set(&s->st, why->code == ST_NO_MEMORY ? ST_NO_MEMORY : ST_INTERNAL, "%s", why->msg);
        }
    }
    sc->n_flights = 0;
    remove_failed(sc);
}

static void count_prompt(sched *sc, seq *s) {
    sc->jobs.stats.prompt_tokens += (uint64_t)seq_told(s);
    sc->jobs.stats.prefix_cache_hits += (uint64_t)s->n_cached;
    for (int i = 0; i < s->prompt->n_rows; i++) sc->jobs.stats.image_tokens += (uint64_t)s->prompt->rows[i].n;
    inbox_encoded(sc->jobs.in, s); /* those in shared pages never will be */
}

/* The prompt of s is computed: its other choices join the queue in its place, where they find its pages. */
static void part(sched *sc, seq *s) {
    inbox_part(sc->jobs.in, s);
    seq_list forks = seq_part(s);
    for (seq *f; (f = seq_list_pop(&forks));) seq_list_insert(&sc->jobs.waiting, f);
}

/* A token of s is known now. */
static void accept(sched *sc, seq *s, const sample_result *r) {
    engine_finish finish = FINISH_STOP;
    s->n_ahead--;
    if (seq_answer_len(s) == 0 && s->choice == 0) {
        count_prompt(sc, s);
        part(sc, s);
    }
    sc->jobs.stats.generation_tokens++;
    if (!seq_accept(s, r, &finish)) return;
    leave_running(sc, s);
    end(sc, s, finish);
}

/* The oldest step is over: its rows are in the cache, and who had its last row in it has a new token. */
static void collect(sched *sc) {
    flight f = sc->flights[0];
    status st = f.why;
    const sample_result *results = f.slot >= 0 ? runner_results(sc->r, f.slot, &st) : NULL;
    double now = time_now_s();
    pace_step_took(&sc->pace, f.n_rows, f.plain,
                   now - (f.launched > sc->last_landed ? f.launched : sc->last_landed));
    sc->last_landed = now;
    if (!results) {
        step_failed(sc, &st);
        return;
    }
    for (int i = 0; i < f.n; i++) {
        const flight_seq *q = &f.seqs[i];
        if (!touch_down(sc, q->s)) continue;
        share_filled(q->s, &sc->r->kv, q->from, q->from + q->n);
        q->s->suspect = false;
        if (q->out >= 0) accept(sc, q->s, &results[q->out]);
    }
    memmove(&sc->flights[0], &sc->flights[1], (size_t)--sc->n_flights * sizeof f);
    sc->flights[sc->n_flights].seqs = f.seqs;
}

static void publish(sched *sc) {
    const kv_cache *kv = &sc->r->kv;
    sc->jobs.stats.kv_usage = 1.0 - (double)kv_available(kv) / (kv->n_pages - 1);
    sc->jobs.stats.device_idle_seconds = sc->r->idle.seconds;
    roster_publish(&sc->jobs);
}

bool sched_turn(sched *sc) {
    drain(sc);
    admit(sc);
    look_around(sc);
    begin_turn(sc);
    share_rows(sc, encode_some(sc));
    bool failed = sc->n_flights > 0 && sc->flights[sc->n_flights - 1].slot < 0;
    bool launched = !failed && sc->jobs.lost.code == ST_OK && share_pages(sc) && launch(sc);
    if (sc->n_flights > (launched && sc->o.async ? STEPS_AHEAD : 0))
        collect(sc);
    else if (!launched)
        take_encoded(sc, true);
    remove_failed(sc);
    for (seq *s; (s = roster_next_lost(&sc->jobs));) end(sc, s, FINISH_STOP);
    publish(sc);
    bool more = sc->jobs.n_running > 0 || sc->jobs.waiting.head || sc->n_flights > 0 || sc->beside.pic;
    if (!more) runner_rest(sc->r);
    return more;
}

void sched_get_stats(sched *sc, engine_stats *out) {
    roster_get_stats(&sc->jobs, out);
}
