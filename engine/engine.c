/* engine.c - the glue behind engine.h: loads, plans memory, starts the threads, and passes jobs on.
 *
 * Threads: engine_new starts one engine thread (sched.c's turns) and the picture workers; the functions of
 * engine.h run on their callers' threads. Owner: the engine owns everything that it loads. */
#include "engine/engine.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "engine/claim.h"
#include "engine/embed_sched.h"
#include "engine/memplan.h"
#include "engine/params.h"
#include "engine/sched.h"

struct engine {
    backend *be;
    model *model;
    const model_spec *spec;
    promptkit kit;
    runner runner;
    inbox inbox;
    admission queue;
    piccache *pictures;
    workers *workers;
    sched *sched;
    embed_run embed_run; /* these two of a dual encoder; else runner and sched */
    embed_sched *embeds;
    pthread_t thread;
    bool has_kit, has_runner, has_embed_run, has_inbox, has_queue, has_thread, by_priority;
    int max_model_len, max_seqs, max_rows, n_pages;
    dtype kv_type;
    size_t kv_bytes;
    memplan_device device; /* total_bytes 0: none of its own */
    engine_info info;
    char summary[256];
};

/* ---- the plan ---- */

static int positive(int set, int otherwise) {
    return set > 0 ? set : otherwise;
}

/* All pictures, wherever they stand. */
static size_t image_room(const engine_options *o) {
    return o->image_bytes ? o->image_bytes : (size_t)1 << 30;
}

static bool takes_images(const model_spec *s) {
    return s->dual.on || s->fuse != FUSE_NONE;
}

static bool plan_lengths(engine *e, const engine_options *o, status *st) {
    int longest = e->spec->text.max_pos;
    e->max_model_len = positive(o->max_model_len, longest);
    if (e->max_model_len < 2 || e->max_model_len > longest)
        return status_set(st, ST_INVALID, "max-model-len is %d; this model takes 2 to %d", e->max_model_len,
                          longest);
    const bool own = backend_get_memory(e->be).total_bytes > 0; /* a GPU wants many rows */
    e->max_seqs = positive(o->max_num_seqs, own ? 128 : 16);
    e->max_rows = positive(o->max_num_batched_tokens, own ? 2048 : 512);
    if (e->max_seqs > 4096 || e->max_rows > 1 << 20)
        return status_set(st, ST_INVALID,
                          "max-num-seqs can be at most 4096 and max-num-batched-tokens at most %d", 1 << 20);
    return true;
}

/* Rows of a step of texts: any text fits. */
static int embed_rows(const engine *e) {
    return e->max_rows > e->spec->text.max_pos ? e->max_rows : e->spec->text.max_pos;
}

static runner_options steps_of(const engine *e, const engine_options *o, int n_pages) {
    return (runner_options){.max_rows = e->max_rows,
                            .max_seqs = e->max_seqs,
                            .max_len = e->max_model_len,
                            .n_pages = n_pages,
                            .kv_type = e->kv_type,
                            .no_graphs = o->enforce_eager};
}

/* As --kv-cache-dtype names them. */
static const char *const kv_names[] = {[DT_F32] = "float32", [DT_F16] = "float16", [DT_BF16] = "bfloat16"};

static bool kv_type_of(const char *name, dtype *t) {
    for (size_t i = 0; i < ARRAY_LEN(kv_names); i++)
        if (strcmp(name, kv_names[i]) == 0) {
            *t = (dtype)i;
            return true;
        }
    return false;
}

bool engine_check_kv_dtype(const char *name, status *st) {
    dtype t;
    return strcmp(name, "auto") == 0 || kv_type_of(name, &t) ||
           status_set(st, ST_INVALID,
                      "--kv-cache-dtype: expected auto, float32, bfloat16 or float16, found \"%.40s\"", name);
}

static bool plan_kv_type(engine *e, const engine_options *o, status *st) {
    const char *name = o->kv_cache_dtype ? o->kv_cache_dtype : "auto";
    if (!engine_check_kv_dtype(name, st)) return false;
    if (!kv_type_of(name, &e->kv_type)) e->kv_type = backend_kv_type(e->be, model_weight_dtype(e->model));
    return true;
}

static bool measure_steps(engine *e, const engine_options *o, size_t *bytes, status *st) {
    if (e->spec->dual.on) return embed_run_measure(e->be, e->model, embed_rows(e), bytes, st);
    runner_options ro = steps_of(e, o, 2);
    runner_needs needs;
    if (!runner_measure(e->be, e->model, &ro, &needs, st)) return false;
    *bytes = needs.activation_bytes + needs.step_bytes + needs.graph_bytes;
    return true;
}

/* On a device with memory of its own all parts are known before any is taken. */
static bool plan_memory(engine *e, const engine_options *o, status *st) {
    const backend_memory now = backend_get_memory(e->be);
    memplan_kv kv = {.page_bytes = kv_page_bytes(&e->spec->text.stack, e->kv_type),
                     .max_seqs = e->max_seqs,
                     .max_len = e->max_model_len,
                     .len_is_asked = o->max_model_len > 0,
                     .asked_bytes = o->kv_cache_bytes};
    memplan plan;
    if (now.total_bytes) {
        size_t steps;
        if (!measure_steps(e, o, &steps, st)) return false;
        const backend_memory work = backend_get_memory(e->be);
        e->device = (memplan_device){.free_bytes = now.free_bytes,
                                     .total_bytes = now.total_bytes,
                                     .utilization = o->gpu_memory_utilization,
                                     .weights = model_device_bytes(e->model),
                                     .activations = steps,
                                     .workspace = work.work_bytes,
                                     .taken = work.taken_bytes,
                                     .pictures = takes_images(e->spec) ? image_room(o) : 0};
    }
    if (e->spec->dual.on) return !now.total_bytes || memplan_without_kv(&e->device, st);
    if (!(now.total_bytes ? memplan_on_device(&kv, &e->device, &plan, st) : memplan_on_host(&kv, &plan, st)))
        return false;
    e->max_model_len = plan.max_len;
    e->n_pages = plan.n_pages;
    e->kv_bytes = (size_t)plan.n_pages * kv.page_bytes;
    return true;
}

static bool plan_waiting(engine *e, const engine_options *o, status *st) {
    int jobs = positive(o->max_queued_requests, 256);
    if (o->image_cache_bytes > image_room(o))
        return status_set(
            st, ST_INVALID,
            "image-cache-memory (%zu bytes) is a part of image-memory; found %zu bytes for that",
            o->image_cache_bytes, image_room(o));
    e->by_priority = o->by_priority;
    e->has_queue =
        admission_init(&e->queue, jobs, o->max_queued_tokens > 0 ? o->max_queued_tokens : 1000000, st);
    return e->has_queue;
}

/* ---- what it says about itself ---- */

/* Tokens that a picture of 1024 x 768 becomes. */
static int picture_tokens(const model_spec *spec, const image_limits *lim) {
    prep_plan plan;
    if (!takes_images(spec) || !spec_plan_image(spec, &(image_ask){1024, 768, 1}, lim, &plan, NULL)) return 0;
    return spec->image_rows(spec, &plan);
}

static void describe(engine *e, const engine_options *o) {
    const model_spec *s = e->spec;
    const stack_spec *d = &s->text.stack, *t = &s->tower.stack;
    static const char *const joins[] = {
        [JOIN_NONE] = "none",        [JOIN_LINEAR] = "linear",       [JOIN_MLP] = "MLP",
        [JOIN_POOL] = "pool",        [JOIN_PERCEIVER] = "perceiver", [JOIN_ATTEND] = "attention pool",
        [JOIN_QFORMER] = "Q-Former", [JOIN_READER] = "text reader"};
    char tower[96] = "";
    char size[32] = "any size";
    if (s->tower.image_size) snprintf(size, sizeof size, "%d px", s->tower.image_size);
    if (t->n_layers)
        snprintf(tower, sizeof tower, "tower %dx%d at %s, join %s, ", t->n_layers, t->width, size,
                 joins[s->join.kind]);
    if (s->dual.on)
        snprintf(e->summary, sizeof e->summary,
                 "two towers: pictures %dx%d at %s%d px, texts %dx%d up to %d tokens, vectors of %d, weights "
                 "of %.1f MiB, %s",
                 t->n_layers, t->width, s->tower.pos_side ? "patches of " : "",
                 s->tower.pos_side ? s->tower.patch : s->tower.image_size, d->n_layers, d->width,
                 e->kit.embed.max_tok, s->dual.width, (double)model_weight_bytes(e->model) / (1 << 20),
                 backend_describe(e->be));
    else
        snprintf(e->summary, sizeof e->summary,
                 "%sdecoder %dx%d, %d/%d heads, vocabulary %d, %s weights of %.1f MiB, %s", tower,
                 d->n_layers, d->width, d->heads, d->kv_heads, s->text.vocab,
                 dtype_name(model_weight_dtype(e->model)), (double)model_weight_bytes(e->model) / (1 << 20),
                 backend_describe(e->be));
    e->info = (engine_info){
        .family = s->family,
        .summary = e->summary,
        .takes_images = takes_images(s),
        .max_model_len = s->dual.on ? e->kit.embed.max_tok : e->max_model_len,
        .vocab_size = s->text.vocab,
        .weight_bytes = model_weight_bytes(e->model),
        .kv_bytes = e->kv_bytes,
        .kv_bytes_per_token = s->dual.on ? 0 : kv_page_bytes(d, e->kv_type) / KV_PAGE_TOK,
        .kv_dtype = kv_names[e->kv_type],
        .kv_pages = e->n_pages,
        .kv_page_tokens = KV_PAGE_TOK,
        .activation_bytes = s->dual.on ? e->embed_run.scratch.cap_bytes : e->runner.device_bytes,
        .image_bytes = takes_images(s) ? image_room(o) : 0,
        .image_cache_bytes = takes_images(s) ? o->image_cache_bytes : 0,
        .embed_width = s->dual.on ? s->dual.width : 0,
        .image_tokens = picture_tokens(s, &e->kit.limits),
        .device_bytes = e->device.total_bytes,
        .device_planned_bytes = e->device.total_bytes ? memplan_budget(&e->device) : 0,
        .workspace_bytes = e->device.workspace,
    };
    if (!s->dual.on) return;
    const dual_rule *r = dual_rule_of(e->model);
    e->info.rule = (engine_rule){r->scale, r->bias, r->sigmoid};
}

/* ---- life ---- */

static void *run(void *arg) {
    engine *e = arg;
    while (inbox_wait(&e->inbox))
        while (e->embeds ? embed_sched_turn(e->embeds) : sched_turn(e->sched)) continue;
    return NULL;
}

static bool new_sched(engine *e, const engine_options *o, status *st) {
    roster_options jobs = {e->max_seqs, e->pictures, &e->queue, o->lost, o->lost_user};
    sched_options so = {.jobs = jobs,
                        .max_rows = e->max_rows,
                        .async = backend_is_async(e->be),
                        .no_prefix_caching = o->no_prefix_caching};
    embed_sched_options eo = {jobs, e->max_rows};
    if (e->spec->dual.on)
        e->embeds = embed_sched_new(&eo, &e->embed_run, &e->inbox, e->workers, st);
    else
        e->sched = sched_new(&so, &e->runner, &e->inbox, e->workers, st);
    return e->embeds || e->sched;
}

static bool start_threads(engine *e, const engine_options *o, status *st) {
    if (!(e->has_inbox = inbox_init(&e->inbox, st))) return false;
    /* Signals are the server's: no thread of ours may take one. */
    sigset_t all, old;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    e->workers = workers_new(positive(o->image_workers, 2), &e->kit, e->pictures, &e->inbox, st);
    if (e->workers && new_sched(e, o, st)) {
        e->has_thread = pthread_create(&e->thread, NULL, run, e) == 0;
        if (!e->has_thread) status_set(st, ST_NO_MEMORY, "the system refused the engine's thread");
    }
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    return e->has_thread;
}

static bool init_runner(engine *e, const engine_options *o, status *st) {
    if (e->spec->dual.on)
        return e->has_embed_run = embed_run_init(&e->embed_run, e->be, e->model, embed_rows(e), st);
    runner_options ro = steps_of(e, o, e->n_pages);
    return e->has_runner = runner_init(&e->runner, e->be, e->model, &ro, st);
}

static bool start(engine *e, const engine_options *o, status *st) {
    backend_options bo = {.device = o->device ? o->device : "cpu",
                          .threads = o->threads,
                          .isa = o->isa,
                          .deterministic = o->deterministic};
    if (!(e->be = backend_new(&bo, st))) return false;
    if (!(e->model = model_open(o->model_dir, e->be, st))) return false;
    e->spec = model_get_spec(e->model);
    if (!plan_kv_type(e, o, st) || !plan_lengths(e, o, st) || !plan_memory(e, o, st) ||
        !plan_waiting(e, o, st))
        return false;
    image_limits lim = IMAGE_LIMITS_DEFAULT;
    if (o->max_image_pixels > 0) lim.max_pixels = o->max_image_pixels;
    if (!(e->has_kit =
              promptkit_load(&e->kit, o->model_dir, o->chat_template, e->spec, e->max_model_len, &lim, st)))
        return false;
    if (!model_upload(e->model, st)) return false;
    if (!init_runner(e, o, st)) return false;
    if (!backend_seal(e->be, e->device.pictures, st)) return false;
    describe(e, o);
    if (!(e->pictures = piccache_new(o->image_cache_bytes, st))) return false;
    piccache_set_room(e->pictures, image_room(o), positive(o->image_workers, 2));
    return start_threads(e, o, st);
}

engine *engine_new(const engine_options *o, status *st) {
    engine *e = mem_calloc(1, sizeof *e);
    if (!e) {
        status_set(st, ST_NO_MEMORY, "no memory for the engine");
        return NULL;
    }
    if (start(e, o, st)) return e;
    engine_free(e);
    return NULL;
}

void engine_free(engine *e) {
    if (!e) return;
    if (e->workers) workers_stop(e->workers); /* its jobs lie in the inbox now */
    if (e->has_thread) {
        inbox_stop(&e->inbox);
        pthread_join(e->thread, NULL);
    }
    sched_free(e->sched);
    embed_sched_free(e->embeds);
    workers_free(e->workers);
    piccache_free(e->pictures);
    if (e->has_inbox) inbox_fini(&e->inbox);
    if (e->has_queue) admission_fini(&e->queue);
    if (e->has_runner) runner_fini(&e->runner);
    if (e->has_embed_run) embed_run_fini(&e->embed_run);
    if (e->has_kit) promptkit_fini(&e->kit);
    model_free(e->model);
    backend_free(e->be);
    mem_free(e);
}

const engine_info *engine_get_info(const engine *e) {
    return &e->info;
}

/* ---- prompts and jobs ---- */

prompt *engine_prompt_chat(engine *e, const engine_chat *c, status *st) {
    if (!e->spec->dual.on) return prompt_new_chat(&e->kit, c, st);
    status_set(st, ST_UNSUPPORTED, "this model makes embeddings and takes no chat; use /v1/embeddings");
    return NULL;
}

void engine_default_params(const engine *e, engine_params *out) {
    params_default(e->spec, out);
}

static bool check_priority(const engine *e, int priority, status *st) {
    if (priority == 0 || e->by_priority) return true;
    status_set(st, ST_INVALID,
               "priority is %d, but this server runs requests in the order they come "
               "(--scheduling-policy priority would mind it)",
               priority);
    return status_param(st, "priority");
}

bool engine_check_params(const engine *e, const engine_params *p, const prompt *pr, status *st) {
    if (!check_priority(e, p->priority, st)) return false;
    return params_check(p, e->spec, pr ? (int)pr->ids.n : -1, e->max_model_len, st);
}

/* The job may wait, and there is room for its pictures; else it is freed. May be given none. */
static bool take_in(engine *e, seq *s, int tokens, status *st) {
    if (s && claim_pictures(s, e->pictures, st)) return s->queued = true;
    seq_free(s);
    admission_left(&e->queue, tokens);
    return false;
}

static uint64_t send_off(engine *e, seq *s) {
    uint64_t job = inbox_enter(&e->inbox, s);
    if (s->prompt->n_images && !s->awaits_room)
        workers_add(e->workers, s);
    else
        inbox_post(&e->inbox, s);
    return job;
}

uint64_t engine_submit(engine *e, prompt *p, const engine_params *params, engine_sink sink, void *user,
                       status *st) {
    int tokens = (int)p->ids.n;
    if (!engine_check_params(e, params, p, st) || !admission_enter(&e->queue, tokens, st)) {
        prompt_free(p);
        return 0;
    }
    seq *s = seq_new(p, params, &e->kit, e->max_model_len, sink, user, st);
    return take_in(e, s, tokens, st) ? send_off(e, s) : 0;
}

embed *engine_embed_new(engine *e, const engine_embed_input *in, int n, const engine_embed_options *o,
                        status *st) {
    if (!e->spec->dual.on)
        status_set(st, ST_UNSUPPORTED,
                   "this model generates text and makes no embeddings; use /v1/chat/completions");
    else if (check_priority(e, o->priority, st))
        return embed_new(&e->kit, in, n, o, st);
    return NULL;
}

uint64_t engine_embed_submit(engine *e, embed *x, engine_sink sink, void *user, status *st) {
    int tokens = x->n_tokens;
    if (!admission_enter(&e->queue, tokens, st)) {
        embed_free(x);
        return 0;
    }
    seq *s = embed_job_new(x, sink, user, st);
    return take_in(e, s, tokens, st) ? send_off(e, s) : 0;
}

void engine_cancel(engine *e, uint64_t job) {
    inbox_cancel(&e->inbox, job);
}

bool engine_has_room(engine *e, status *st) {
    return admission_has_room(&e->queue, st);
}

int engine_retry_after_s(engine *e) {
    return admission_retry_after_s(&e->queue);
}

void engine_get_stats(engine *e, engine_stats *out) {
    if (e->embeds)
        embed_sched_get_stats(e->embeds, out);
    else
        sched_get_stats(e->sched, out);
    int waiting = inbox_live(&e->inbox) - out->running;
    out->waiting = waiting > 0 ? waiting : 0; /* two snapshots: a job may have ended between them */
    out->pixels_in_flight = inbox_pixels(&e->inbox);
    workers_get_stats(e->workers, &out->image_decodes, &out->image_decode_seconds,
                      &out->image_resize_seconds);
    piccache_stats pictures;
    piccache_get_stats(e->pictures, &pictures);
    out->mm_cache_queries = pictures.queries;
    out->mm_cache_hits = pictures.hits;
    out->image_cache_bytes = pictures.bytes;
    out->image_bytes = pictures.used;
    admission_get(&e->queue, &out->queued, &out->queued_tokens);
}

/* ---- tokens as a service ---- */

bool engine_tokenize(engine *e, const char *text, size_t n, bool add_special, int32_t **ids, size_t *n_ids,
                     status *st) {
    tok_ids out = {0};
    if (!tok_encode(e->kit.tok, text, n, NULL, 0, add_special, &out, st)) {
        tok_ids_fini(&out);
        return false;
    }
    *ids = out.v;
    *n_ids = out.n;
    return true;
}

bool engine_detokenize(engine *e, const int32_t *ids, size_t n, buf *out, status *st) {
    for (size_t i = 0; i < n; i++)
        if (ids[i] < 0 || (size_t)ids[i] >= tok_size(e->kit.tok)) {
            status_set(st, ST_INVALID, "token ids lie from 0 to %zu; found %d", tok_size(e->kit.tok) - 1,
                       (int)ids[i]);
            return status_param(st, "tokens");
        }
    return tok_decode(e->kit.tok, ids, n, false, out, st);
}

bool engine_token_string(engine *e, int32_t id, buf *out) {
    const char *s = tok_id_string(e->kit.tok, id);
    return s && buf_puts(out, s);
}
