/* runner.c - see runner.h. */
#include "engine/runner.h"

/* Errors of a context stick; the next step begins with a clean one. */
static bool take_error(ctx *c, status *st) {
    bool ok = ctx_ok(c);
    if (!ok && st->code == ST_OK) *st = c->st;
    c->st = (status){0};
    return ok;
}

/* ---- shapes ---- */

/* Any list of seen ids, and of biases (engine/params.c: none is longer than twice the vocabulary), finds room; of those of
 * many sequences at once up to 16 MiB. */
static size_t list_words(const model *m, const runner_options *o) {
    const size_t vocab = (size_t)model_get_spec(m)->text.vocab;
    const size_t listed = 2 * ((size_t)o->max_len < vocab ? (size_t)o->max_len : vocab);
    size_t others = listed * (size_t)(o->max_seqs - 1);
    if (others > (size_t)4 << 20) others = (size_t)4 << 20;
    return 4 * vocab + listed + others;
}

/* Steps of decode rows come in buckets of sequence counts: the one behind n. */
static int bucket_after(int n) {
    return n < 8 ? n * 2 : n < 64 ? n + 8 : n < 256 ? n + 16 : n + 64;
}

static int largest_bucket(const runner_options *o) {
    return o->max_seqs < o->max_rows ? o->max_seqs : o->max_rows;
}

static int count_buckets(const runner_options *o) {
    int count = 1;
    for (int n = 1; n < largest_bucket(o); n = bucket_after(n)) count++;
    return count;
}

/* The smallest that n sequences fit into. */
static int bucket_of(const runner *r, int n) {
    const int most = r->batch.max_seqs < r->batch.block_rows ? r->batch.max_seqs : r->batch.block_rows;
    int b = 1;
    while (b < n) b = bucket_after(b);
    return b < most ? b : most;
}

/* ---- a step's launches ---- */

static tensor results_of(const runner *r, int n) {
    return tensor_2d(r->results, DT_I32, n, SAMPLE_RESULT_WORDS);
}

/* What eager and captured steps have in common; in dry mode it measures. */
static void forward(const runner *r, ctx *c, const batch_step *b) {
    arena_reset(c->scratch, 0);
    op_next_ids(c, b->s.ids, b->from, results_of(r, r->batch.max_seqs));
    tensor logits = decoder_forward(c, r->model, &r->kv.pool, &b->s);
    if (b->s.n_out) op_sample(c, logits, b->rules, results_of(r, b->s.n_out));
}

/* ---- how much memory: the same forward code, run dry ---- */

static bool measure_step(runner *r, ctx *dry, batch_kind kind, status *st) {
    batch_step b;
    batch_describe_largest(&r->batch, kind, &b);
    forward(r, dry, &b);
    return take_error(dry, st) || status_prefix(st, "a step of %d rows", b.s.n_rows);
}

/* Sizes among which each tower meets its largest blocks. */
static const int SIZES[][2] = {{1024, 768},  {768, 1024},  {16, 16},    {64, 64},    {336, 336},
                               {2048, 2048}, {4096, 4096}, {4096, 256}, {256, 4096}, {1500, 500},
                               {500, 1500},  {3000, 1000}, {100, 20}};

static bool measure_one(runner *r, ctx *dry, const image_ask *ask, status *st) {
    tiles none = {0};
    status small = {0}; /* a size that this model refuses is none to measure */
    if (!spec_plan_image(model_get_spec(r->model), ask, &IMAGE_LIMITS_DEFAULT, &none.plan, &small))
        return true;
    if (model_get_spec(r->model)->image_rows(model_get_spec(r->model), &none.plan) < 1) return true;
    encode *e = encode_new(r->model, r->be, &none, st);
    if (!e) return false;
    arena_reset(dry->scratch, 0);
    encode_run(dry, e, encode_slices(e));
    encode_free(e);
    return take_error(dry, st) || status_prefix(st, "a picture's encode");
}

static bool measure_encode(runner *r, ctx *dry, status *st) {
    if (model_get_spec(r->model)->tower.stack.n_layers == 0) return true;
    for (size_t i = 0; i < ARRAY_LEN(SIZES); i++)
        for (int n = 1; n <= 2; n++)
            if (!measure_one(r, dry, &(image_ask){SIZES[i][0], SIZES[i][1], n}, st)) return false;
    return true;
}

typedef struct scratch_needs { /* bytes */
    size_t steps, pictures;    /* pictures 0: they use that of the steps */
} scratch_needs;

/* Pictures that are encoded beside the steps have scratch of their own. */
static bool measure(runner *r, scratch_needs *out, status *st) {
    arena counting = {0}, beside = {0};
    ctx steps = {.be = r->be, .scratch = &counting, .dry = true, .lane = LANE_STEP};
    ctx pictures = {.be = r->be, .scratch = &beside, .dry = true, .lane = LANE_PICTURES};
    bool async = backend_is_async(r->be);
    if (!async) pictures.scratch = &counting;
    if (!measure_step(r, &steps, BATCH_ONE_PASS, st) || !measure_step(r, &steps, BATCH_DECODES, st) ||
        (r->batch.spans && !measure_step(r, &steps, BATCH_BLOCKS, st)) || !measure_encode(r, &pictures, st))
        return false;
    *out = (scratch_needs){counting.peak_bytes + 64, async ? beside.peak_bytes + 64 : 0};
    return true;
}

static int longest_span(const model *m, int max_len) {
    const model_spec *s = model_get_spec(m);
    if (s->both_ways == BOTH_NONE) return 0;
    return s->span_rows > 0 && s->span_rows < max_len ? s->span_rows : max_len;
}

static size_t result_bytes(const runner *r) {
    return (size_t)r->batch.max_seqs * sizeof(sample_result);
}

/* What graphs of so many launches take is the driver's; about this much, and what it was the log says. */
enum { GRAPH_BYTES_PER_LAUNCH = 2048 };

static size_t graph_bytes(const runner *r, const runner_options *o) {
    const size_t launches = 20 * ((size_t)model_get_spec(r->model)->text.stack.n_layers + 1);
    return (size_t)count_buckets(o) * launches * GRAPH_BYTES_PER_LAUNCH;
}

static bool init_batch(runner *r, backend *be, const model *m, const runner_options *o, status *st) {
    const model_spec *s = model_get_spec(m);
    bool ok = batch_init(&r->batch, be, o->max_rows, longest_span(m, o->max_len), o->max_seqs,
                         kv_pages_of(o->max_len), s->text.stack.rope.axes, list_words(m, o), st);
    r->batch.rope_from = s->text.rope_from;
    return ok && (s->fuse != FUSE_CROSS || batch_init_cross(&r->batch, spec_image_width(s), st));
}

bool runner_measure(backend *be, const model *m, const runner_options *o, runner_needs *out, status *st) {
    runner r = {.be = be, .model = m, .kv = {.n_pages = o->n_pages}};
    scratch_needs needs;
    bool ok = init_batch(&r, NULL, m, o, st) &&
              kv_describe_pool(&r.kv, &model_get_spec(m)->text.stack, o->kv_type, st) &&
              measure(&r, &needs, st);
    if (ok)
        *out = (runner_needs){.activation_bytes = needs.steps + needs.pictures,
                              .step_bytes = batch_bytes(&r.batch) + result_bytes(&r),
                              .graph_bytes = backend_is_async(be) && !o->no_graphs ? graph_bytes(&r, o) : 0};
    runner_fini(&r);
    return ok;
}

static bool take_scratch(runner *r, size_t bytes, arena *out, status *st) {
    *out = (arena){.base = backend_alloc(r->be, bytes, st), .cap_bytes = bytes};
    r->device_bytes += bytes;
    return out->base || status_prefix(st, "activations of %.1f MiB", (double)bytes / (1 << 20));
}

static bool plan_scratch(runner *r, status *st) {
    scratch_needs needs;
    r->c = (ctx){.be = r->be, .scratch = &r->scratch, .lane = LANE_STEP};
    r->pictures = (ctx){.be = r->be, .scratch = &r->scratch, .lane = LANE_PICTURES};
    if (!measure(r, &needs, st) || !take_scratch(r, needs.steps, &r->scratch, st)) return false;
    if (needs.pictures) {
        r->pictures.scratch = &r->picture_scratch;
        if (!take_scratch(r, needs.pictures, &r->picture_scratch, st)) return false;
    }
    return backend_reserve(r->be, st);
}

static bool make_slots(runner *r, status *st) {
    const size_t bytes = batch_bytes(&r->batch), results = (size_t)r->batch.max_seqs * sizeof(sample_result);
    r->results = backend_alloc(r->be, results, st);
    r->encoded = r->results ? mark_new(r->be, st) : NULL;
    bool ok = r->encoded != NULL;
    for (int i = 0; ok && i <= STEPS_AHEAD; i++) {
        runner_slot *s = &r->slots[i];
        ok = (s->staging = backend_alloc_host(r->be, bytes, st)) &&
             (s->results = backend_alloc_host(r->be, results, st)) && (s->done = mark_new(r->be, st));
    }
    r->device_bytes += bytes + results;
    return ok && idle_init(&r->idle, &r->c, st);
}

/* ---- captured steps ---- */

static bool run_dummies(runner *r, int n_seqs, status *st) {
    batch_clear(&r->batch);
    batch_pad(&r->batch, n_seqs, 1);
    runner_rest(r); /* what a start takes between them is no standstill */
    int slot = runner_launch(r, st);
    return slot >= 0 && runner_results(r, slot, st);
}

/* Once op by op, so that kernels are loaded and plans are made; then captured. */
static bool capture(runner *r, int n_seqs, status *st) {
    batch_step b;
    if (!run_dummies(r, n_seqs, st)) return status_prefix(st, "a first step of %d sequences", n_seqs);
    batch_describe(&r->batch, &b);
    ctx_capture_begin(&r->c);
    forward(r, &r->c, &b);
    backend_graph *g = ctx_capture_end(&r->c);
    if (!take_error(&r->c, st)) {
        backend_graph_free(g);
        return status_prefix(st, "capturing a step of %d sequences", n_seqs);
    }
    r->graphs[r->n_graphs++] = (runner_graph){n_seqs, g};
    return true;
}

static bool capture_all(runner *r, const runner_options *o, status *st) {
    if (!backend_is_async(r->be) || o->no_graphs) return true;
    const int most = largest_bucket(o);
    const double begin = time_now_s();
    size_t taken = 0;
    r->graphs = mem_calloc((size_t)count_buckets(o), sizeof *r->graphs);
    if (!r->graphs) return status_set(st, ST_NO_MEMORY, "no memory for %d graphs", count_buckets(o));
    for (int n = 1; n < most; n = bucket_after(n))
        if (!capture(r, n, st)) return false;
    if (!capture(r, most, st)) return false;
    for (int i = 0; i < r->n_graphs; i++) taken += backend_graph_bytes(r->graphs[i].graph);
    r->device_bytes += graph_bytes(r, o); /* as planned */
    log_info("captured steps of 1 to %d sequences in %d graphs of %.1f MiB (planned %.1f), %.2f s", most,
             r->n_graphs, (double)taken / (1 << 20), (double)graph_bytes(r, o) / (1 << 20),
             time_now_s() - begin);
    return true;
}

static const backend_graph *graph_of(const runner *r, int n_seqs) {
    for (int i = 0; i < r->n_graphs; i++)
        if (r->graphs[i].n_seqs == n_seqs) return r->graphs[i].graph;
    return NULL;
}

/* ---- life ---- */

bool runner_init(runner *r, backend *be, const model *m, const runner_options *o, status *st) {
    *r = (runner){.be = be, .model = m};
    bool ok = init_batch(r, be, m, o, st) && kv_init(&r->kv, o->n_pages, st) &&
              kv_alloc_pool(&r->kv, be, &model_get_spec(m)->text.stack, o->kv_type, st) &&
              plan_scratch(r, st) && make_slots(r, st) && capture_all(r, o, st);
    if (ok)
        batch_clear(&r->batch);
    else
        runner_fini(r);
    return ok;
}

void runner_fini(runner *r) {
    for (int i = 0; i < r->n_graphs; i++) backend_graph_free(r->graphs[i].graph);
    mem_free(r->graphs);
    for (int i = 0; i <= STEPS_AHEAD; i++) {
        backend_release_host(r->be, r->slots[i].staging);
        backend_release_host(r->be, r->slots[i].results);
        mark_free(r->slots[i].done);
    }
    mark_free(r->encoded);
    idle_fini(&r->idle);
    backend_release(r->be, r->results);
    backend_release(r->be, r->scratch.base);
    backend_release(r->be, r->picture_scratch.base);
    kv_fini(&r->kv);
    batch_fini(&r->batch);
    *r = (runner){0};
}

/* ---- steps ---- */

int runner_launch(runner *r, status *st) {
    const int at = r->next_slot, n_out = r->batch.n_out;
    runner_slot *slot = &r->slots[at];
    batch_step b;
    if (backend_is_async(r->be) && batch_only_decodes(&r->batch))
        batch_pad(&r->batch, bucket_of(r, r->batch.n_seqs), 1);
    batch_describe(&r->batch, &b);
    batch_upload_cross(&r->batch, &r->c);
    size_t bytes = batch_pack(&r->batch, slot->staging);
    ctx_upload(&r->c, tensor_1d(r->batch.dev, DT_I32, (int64_t)(bytes / sizeof(int32_t))), slot->staging);
    slot->work = idle_begin(&r->idle, &r->c);
    const backend_graph *g = batch_only_decodes(&r->batch) ? graph_of(r, r->batch.n_seqs) : NULL;
    if (g)
        ctx_replay(&r->c, g);
    else
        forward(r, &r->c, &b);
    if (n_out) ctx_fetch(&r->c, slot->results, results_of(r, n_out));
    idle_end(&r->idle, &r->c, slot->work);
    ctx_mark(&r->c, slot->done);
    r->next_slot = (at + 1) % (STEPS_AHEAD + 1);
    bool ok = take_error(&r->c, st);
    if (!ok) idle_landed(&r->idle, slot->work, false);
    return ok ? at : -1;
}

const sample_result *runner_results(runner *r, int slot, status *st) {
    ctx_wait(&r->c, r->slots[slot].done);
    bool ok = take_error(&r->c, st);
    idle_landed(&r->idle, r->slots[slot].work, ok);
    return ok ? r->slots[slot].results : NULL;
}

/* ---- pictures ---- */

bool runner_prepare_seen(runner *r, seq *s, status *st) {
    seen_prepare(&r->c, model_get_spec(r->model), s);
    return take_error(&r->c, st);
}

static void encodes_landed(runner *r, bool ok) {
    idle_landed(&r->idle, r->encode_work, ok);
    r->encoding = false;
}

bool runner_encode(runner *r, encode *e, status *st) {
    arena_reset(r->pictures.scratch, 0);
    if (!r->encoding) r->encode_work = idle_begin(&r->idle, &r->pictures);
    r->encoding = true;
    bool ready = encode_run(&r->pictures, e, 1);
    bool ok = take_error(&r->pictures, st);
    if (!ok) encodes_landed(r, false);
    return ok && ready;
}

void runner_mark_encodes(runner *r, status *st) {
    idle_end(&r->idle, &r->pictures, r->encode_work);
    ctx_mark(&r->pictures, r->encoded);
    if (!take_error(&r->pictures, st)) encodes_landed(r, false);
}

bool runner_encodes_reached(const runner *r) {
    return mark_reached(r->encoded);
}

bool runner_wait_encodes(runner *r, status *st) {
    ctx_wait(&r->pictures, r->encoded);
    bool ok = take_error(&r->pictures, st);
    encodes_landed(r, ok);
    return ok;
}

void runner_rest(runner *r) {
    idle_rest(&r->idle);
}
