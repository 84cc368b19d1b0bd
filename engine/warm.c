/* warm.c - see warm.h. */
#include "engine/warm.h"

#include "engine/embed_run.h"

enum { LEAST_ROWS = 32 };

/* Buckets double; where products have no plans, the largest step does. */
static int first_rows(const backend *be, int most) {
    return backend_plans(be) < 0 || most < LEAST_ROWS ? most : LEAST_ROWS;
}

static int rows_after(int rows, int most) {
    return rows < most && 2 * rows > most ? most : 2 * rows;
}

static void report(const backend *be, int steps, int encodes, double begin) {
    const int plans = backend_plans(be);
    log_info("ran %d steps and %d blank pictures before the first request: %d plans of products, %.2f s",
             steps, encodes, plans > 0 ? plans : 0, time_now_s() - begin);
}

static bool take_error(ctx *c, status *st) {
    const bool ok = ctx_ok(c);
    if (!ok) *st = c->st;
    c->st = (status){0};
    return ok || status_prefix(st, "blank pictures");
}

static bool warm_pictures(ctx *c, const model *m, size_t room, int *n, status *st) {
    *n = room ? encode_warm(c, m, room, backend_plans(c->be) < 0) : 0;
    return take_error(c, st);
}

/* ---- a decoder ---- */

/* Of sequences as many and as short as may be, so that as many results are wanted as can be. */
static bool run_step(runner *r, int rows, tensor shown, status *st) {
    const int seqs = rows < r->batch.max_seqs ? rows : r->batch.max_seqs;
    batch_clear(&r->batch);
    batch_pad(&r->batch, rows % seqs, rows / seqs + 1);
    batch_pad(&r->batch, seqs, rows / seqs);
    if (shown.nd) seen_runs_add_blank(&r->batch.cross, shown, rows);
    runner_rest(r);
    const int at = runner_launch(r, st);
    const bool ok = at >= 0 && runner_results(r, at, st);
    batch_clear(&r->batch);
    return ok || status_prefix(st, "a first step of %d rows", rows);
}

static int most_rows(const runner *r) {
    const int64_t all = (int64_t)r->batch.max_seqs * r->batch.max_pages * KV_PAGE_TOK;
    return all < r->batch.block_rows ? (int)all : r->batch.block_rows;
}

bool warm_runner(runner *r, size_t image_bytes, status *st) {
    if (!backend_is_async(r->be)) return true;
    const double begin = time_now_s();
    const int most = most_rows(r), width = r->batch.cross.width;
    const size_t shown_bytes = (size_t)width * sizeof(float);
    int steps = 0, encodes = 0;
    tensor shown = {0};
    if (width && shown_bytes <= image_bytes) {
        shown = tensor_2d(backend_alloc(r->be, shown_bytes, st), DT_F32, 1, width);
        if (!shown.data) return false;
    }
    bool ok = true;
    for (int rows = first_rows(r->be, most); ok && rows <= most; rows = rows_after(rows, most), steps++)
        ok = run_step(r, rows, shown, st);
    if (shown.data) backend_release(r->be, shown.data);
    ok = ok && warm_pictures(&r->pictures, r->model, image_bytes, &encodes, st);
    if (ok) report(r->be, steps, encodes, begin);
    return ok;
}

/* ---- a dual encoder ---- */

/* Texts of `each` rows; the last one has what is left. */
static bool run_texts(embed_run *r, int rows, int each, const int32_t *ids, status *st) {
    embed_run_clear(r);
    for (int n; rows > 0; rows -= n) {
        n = rows < each ? rows : each;
        CHECK(embed_run_add(r, &(embed_item){.n = n, .pick = n - 1}, ids));
    }
    const bool ok = embed_run_step(r, st);
    embed_run_clear(r);
    return ok || status_prefix(st, "first texts");
}

bool warm_embed_run(embed_run *r, size_t image_bytes, status *st) {
    if (!backend_is_async(r->be)) return true;
    const double begin = time_now_s();
    const int longest = model_get_spec(r->model)->text.max_pos;
    int steps = 0, encodes = 0;
    int32_t *ids = mem_calloc((size_t)longest, sizeof *ids);
    bool ok = ids != NULL || status_set(st, ST_NO_MEMORY, "no memory for a text");
    for (int rows = first_rows(r->be, r->max_rows); ok && rows <= r->max_rows;
         rows = rows_after(rows, r->max_rows), steps += 2)
        ok = run_texts(r, rows, 1, ids, st) && run_texts(r, rows, longest, ids, st);
    mem_free(ids);
    ok = ok && warm_pictures(&r->c, r->model, image_bytes, &encodes, st);
    if (ok) report(r->be, steps, encodes, begin);
    return ok;
}
