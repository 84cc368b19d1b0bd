/* runner.c - see runner.h. */
#include "engine/runner.h"

/* Errors of a context stick; the next step begins with a clean one. */
static bool take_error(ctx *c, status *st) {
    bool ok = ctx_ok(c);
    if (!ok && st->code == ST_OK) *st = c->st;
    c->st = (status){0};
    return ok;
}

/* ---- how much scratch: the same forward code, run dry ---- */

static bool measure_step(runner *r, ctx *dry, batch_kind kind, status *st) {
    step s;
    batch_describe_largest(&r->batch, kind, &s);
    arena_reset(dry->scratch, 0);
    tensor logits = decoder_forward(dry, r->model, &r->kv.pool, &s);
    op_sample(dry, logits, NULL, NULL);
    return take_error(dry, st) || status_prefix(st, "a step of %d rows", s.n_rows);
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

/* Bytes of scratch; 0: it failed. */
static size_t measure(runner *r, status *st) {
    arena counting = {0};
    ctx dry = {.be = r->be, .scratch = &counting, .dry = true};
    bool ok = measure_step(r, &dry, BATCH_ONE_PASS, st) && measure_step(r, &dry, BATCH_DECODES, st) &&
              (!r->batch.spans || measure_step(r, &dry, BATCH_BLOCKS, st)) && measure_encode(r, &dry, st);
    return ok ? counting.peak_bytes + 64 : 0;
}

static int longest_span(const model *m, int max_len) {
    const model_spec *s = model_get_spec(m);
    if (s->both_ways == BOTH_NONE) return 0;
    return s->span_rows > 0 && s->span_rows < max_len ? s->span_rows : max_len;
}

static bool init_batch(runner *r, backend *be, const runner_options *o, status *st) {
    return batch_init(&r->batch, be, o->max_rows, longest_span(r->model, o->max_len), o->max_seqs,
                      kv_pages_of(o->max_len), model_get_spec(r->model)->text.stack.rope.axes, st);
}

static bool init_cross(batch *b, const model *m, status *st) {
    const model_spec *s = model_get_spec(m);
    return s->fuse != FUSE_CROSS || batch_init_cross(b, spec_image_width(s), st);
}

bool runner_measure(backend *be, const model *m, const runner_options *o, runner_needs *out, status *st) {
    runner r = {.be = be, .model = m, .kv = {.n_pages = o->n_pages}};
    bool ok = init_batch(&r, NULL, o, st) && init_cross(&r.batch, m, st) &&
              kv_describe_pool(&r.kv, &model_get_spec(m)->text.stack, st);
    if (ok) {
        out->step_bytes = batch_bytes(&r.batch);
        out->activation_bytes = measure(&r, st);
        ok = out->activation_bytes != 0;
    }
    runner_fini(&r);
    return ok;
}

static bool plan_scratch(runner *r, status *st) {
    size_t bytes = measure(r, st);
    if (!bytes) return false;
    r->scratch = (arena){.base = backend_alloc(r->be, bytes, st), .cap_bytes = bytes};
    return r->scratch.base || status_prefix(st, "activations of %.1f MiB", (double)bytes / (1 << 20));
}

bool runner_init(runner *r, backend *be, const model *m, const runner_options *o, status *st) {
    *r = (runner){.be = be, .model = m};
    r->c = (ctx){.be = be, .scratch = &r->scratch};
    r->rows = mem_calloc((size_t)o->max_seqs, sizeof *r->rows);
    r->results = mem_calloc((size_t)o->max_seqs, sizeof *r->results);
    bool ok = r->rows && r->results;
    if (!ok) status_set(st, ST_NO_MEMORY, "no memory for %d sequences", o->max_seqs);
    ok = ok && init_batch(r, be, o, st) && init_cross(&r->batch, m, st) && kv_init(&r->kv, o->n_pages, st) &&
         kv_alloc_pool(&r->kv, be, &model_get_spec(m)->text.stack, st) && plan_scratch(r, st);
    if (!ok) runner_fini(r);
    return ok;
}

void runner_fini(runner *r) {
    if (r->scratch.base) backend_release(r->be, r->scratch.base);
    kv_fini(&r->kv);
    batch_fini(&r->batch);
    mem_free(r->rows);
    mem_free(r->results);
    *r = (runner){0};
}

bool runner_step(runner *r, status *st) {
    step s;
    arena_reset(&r->scratch, 0);
    batch_upload(&r->batch, &r->c, &s);
    tensor logits = decoder_forward(&r->c, r->model, &r->kv.pool, &s);
    if (s.n_out && ctx_ok(&r->c)) op_sample(&r->c, logits, r->rows, r->results);
    return take_error(&r->c, st);
}

bool runner_prepare_seen(runner *r, seq *s, status *st) {
    seen_prepare(&r->c, model_get_spec(r->model), s);
    return take_error(&r->c, st);
}

bool runner_encode(runner *r, encode *e, status *st) {
    arena_reset(&r->scratch, 0);
    bool ready = encode_run(&r->c, e, 1);
    return take_error(&r->c, st) && ready;
}
