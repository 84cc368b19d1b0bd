/* seen.c - see seen.h. */
#include "engine/seen.h"

seen seen_by(const prompt *p, const seq_image *images, int row) {
    seen v = {0};
    int last = -1;
    if (p->n_rows == 0) { /* they have no place among the rows */
        for (int i = 0; i < p->n_images; i++) v.n += images[i].hold;
        v.past = p->n_images > 0;
        return v;
    }
    while (last + 1 < p->n_rows && p->rows[last + 1].row <= row) last++;
    if (last < 0) {
        for (int i = 0; i < p->n_images; i++) v.n += images[i].all;
        return v;
    }
    int first = last;
    while (first > 0 && p->rows[first - 1].row + 1 == p->rows[first].row) first--;
    for (int i = 0; i < first; i++) v.from += images[p->rows[i].image].hold;
    for (int i = first; i <= last; i++) v.n += images[p->rows[i].image].hold;
    v.past = true;
    return v;
}

/* ---- a sequence's copy ---- */

void seen_prepare(ctx *c, const model_spec *spec, seq *s) {
    int n = s->prompt->n_images, total = 0, held = 0;
    int64_t width = spec_image_width(spec);
    for (int i = 0; i < n; i++) {
        s->images[i].all = (int)encode_rows(s->images[i].pic->enc).d[0];
        s->images[i].hold = spec_image_seen(spec, encode_plan(s->images[i].pic->enc));
        total += s->images[i].all;
        held += s->images[i].hold;
    }
    s->seen_ready = true;
    if (n < 2) return;
    s->seen_rows = backend_alloc(c->be, (size_t)total * (size_t)width * sizeof(float), &c->st);
    if (!s->seen_rows) {
        s->seen_ready = false;
        return;
    }
    tensor out = tensor_2d(s->seen_rows, DT_F32, total, width);
    for (int i = 0, at = 0, rest = held; i < n; i++) {
        tensor rows = encode_rows(s->images[i].pic->enc);
        int hold = s->images[i].hold, pads = s->images[i].all - hold;
        op_copy(c, tensor_rows(out, at, hold), tensor_rows(rows, 0, hold));
        if (pads) op_copy(c, tensor_rows(out, rest, pads), tensor_rows(rows, hold, pads));
        at += hold;
        rest += pads;
    }
}

void seen_drop(seq *s, backend *be) {
    if (s->seen_rows) backend_release(be, s->seen_rows);
    s->seen_rows = NULL;
    s->seen_ready = false;
}

/* ---- runs ---- */

enum { RUN_INTS = 16 }; /* 64 bytes: each run's numbers begin where device memory is aligned */

bool seen_runs_init(seen_runs *r, backend *be, int max_rows, int width, status *st) {
    *r = (seen_runs){.max_rows = max_rows, .width = width, .be = be};
    size_t bytes = (size_t)max_rows * RUN_INTS * sizeof *r->host;
    r->v = mem_calloc((size_t)max_rows, sizeof *r->v);
    r->host = mem_calloc(1, bytes);
    if (be) r->dev = backend_alloc(be, bytes, st);
    if (r->v && r->host && (r->dev || !be)) return true;
    seen_runs_fini(r);
    return status_set(st, ST_NO_MEMORY, "no memory for a step of %d rows", max_rows);
}

void seen_runs_fini(seen_runs *r) {
    if (r->dev) backend_release(r->be, r->dev);
    mem_free(r->v);
    mem_free(r->host);
    *r = (seen_runs){0};
}

/* n rows from `row` on see these. */
static void put_run(seen_runs *r, tensor rows, int row, int n, bool past) {
    int32_t *host = r->host + (size_t)r->n * RUN_INTS, *dev = r->dev ? r->dev + (host - r->host) : NULL;
    CHECK(r->n < r->max_rows);
    host[0] = 0;
    host[1] = n;
    host[2] = (int32_t)rows.d[0];
    r->v[r->n++] = (struct step_cross){.row = row,
                                       .n = n,
                                       .rows = rows,
                                       .q_start = tensor_1d(dev, DT_I32, 2),
                                       .kv_len = tensor_1d(dev ? dev + 2 : NULL, DT_I32, 1),
                                       .past = past};
}

static void add_run(seen_runs *r, const seq *s, seen v, int row, int n) {
    int total = 0;
    for (int i = 0; i < s->prompt->n_images; i++) total += s->images[i].all;
    tensor one = encode_rows(s->images[0].pic->enc);
    tensor all = s->seen_rows ? tensor_2d(s->seen_rows, DT_F32, total, one.d[1]) : one;
    CHECK(s->seen_ready);
    put_run(r, tensor_rows(all, v.from, v.n), row, n, v.past);
}

void seen_runs_add_blank(seen_runs *r, tensor rows, int n) {
    put_run(r, rows, 0, n, true);
}

void seen_runs_add(seen_runs *r, const seq *s, int from, int to, int row0) {
    if (s->prompt->n_images == 0) return;
    for (int row = from, next; row < to; row = next) {
        seen v = seen_by(s->prompt, s->images, row), w = v;
        for (next = row + 1; next < to; next++) {
            w = seen_by(s->prompt, s->images, next);
            if (w.from != v.from || w.n != v.n || w.past != v.past) break;
        }
        add_run(r, s, v, row0 + row - from, next - row);
    }
}

void seen_runs_upload(seen_runs *r, ctx *c) {
    if (r->n) ctx_upload(c, tensor_1d(r->dev, DT_I32, (int64_t)r->n * RUN_INTS), r->host);
}

void seen_runs_describe(seen_runs *r, int rows) {
    r->n = 1;
    r->v[0] = (struct step_cross){.n = rows,
                                  .rows = tensor_2d(NULL, DT_F32, 1, r->width),
                                  .q_start = tensor_1d(NULL, DT_I32, 2),
                                  .kv_len = tensor_1d(NULL, DT_I32, 1),
                                  .past = true};
}
