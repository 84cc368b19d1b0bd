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

static bool measure_step(runner *r, ctx *dry, bool decodes, status *st) {
    step s;
    batch_describe_largest(&r->batch, decodes, &s);
    arena_reset(dry->scratch, 0);
    tensor logits = decoder_forward(dry, r->model, &r->kv.pool, &s);
    op_sample(dry, logits, NULL, NULL);
    return take_error(dry, st) || status_prefix(st, "a step of %d rows", s.n_rows);
}

static bool measure_encode(runner *r, ctx *dry, status *st) {
    if (model_get_spec(r->model)->tower.stack.n_layers == 0) return true;
    tiles none = {0};
    const image_ask ask = {1024, 768, 1}; /* how much scratch does not depend on it */
    if (!spec_plan_image(model_get_spec(r->model), &ask, &IMAGE_LIMITS_DEFAULT, &none.plan, st)) return false;
    encode *e = encode_new(r->model, r->be, &none, st);
    if (!e) return false;
    arena_reset(dry->scratch, 0);
    encode_run(dry, e, encode_slices(e));
    encode_free(e);
    return take_error(dry, st) || status_prefix(st, "a picture's encode");
}

/* Bytes of scratch; 0: it failed. */
static size_t measure(runner *r, status *st) {
    arena counting = {0};
    ctx dry = {.be = r->be, .scratch = &counting, .dry = true};
    if (!measure_step(r, &dry, false, st) || !measure_step(r, &dry, true, st) || !measure_encode(r, &dry, st))
        return 0;
    return counting.peak_bytes + 64;
}

static int rope_axes_of(const model *m) {
    return model_get_spec(m)->text.stack.rope.axes;
}

bool runner_measure(backend *be, const model *m, const runner_options *o, runner_needs *out, status *st) {
    runner r = {.be = be, .model = m, .kv = {.n_pages = o->n_pages}};
    bool ok =
        batch_init(&r.batch, NULL, o->max_rows, o->max_seqs, kv_pages_of(o->max_len), rope_axes_of(m), st) &&
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
    ok = ok &&
         batch_init(&r->batch, be, o->max_rows, o->max_seqs, kv_pages_of(o->max_len), rope_axes_of(m), st) &&
         kv_init(&r->kv, o->n_pages, st) && kv_alloc_pool(&r->kv, be, &model_get_spec(m)->text.stack, st) &&
         plan_scratch(r, st);
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

bool runner_encode(runner *r, encode *e, status *st) {
    arena_reset(&r->scratch, 0);
    bool ready = encode_run(&r->c, e, 1);
    return take_error(&r->c, st) && ready;
}
