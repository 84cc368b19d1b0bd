/* batch.c - see batch.h. The engine's thread. */
#include "engine/batch.h"

#include <string.h>

enum { ARRAYS = 11 };

static int round16(int n) {
    return (n + 15) / 16 * 16;
}

/* Where the arrays begin within the block; the device rounds each to 64 bytes as the host does. */
static size_t lay_out(const batch *b, size_t at[ARRAYS + 1]) {
    size_t rows = (size_t)b->max_rows, seqs = (size_t)b->max_seqs, blocks = (size_t)b->max_blocks;
    size_t n[ARRAYS] = {rows,
                        rows * (size_t)b->axes,
                        rows,
                        rows,
                        seqs + 1,
                        seqs,
                        seqs * (size_t)b->max_pages,
                        seqs,
                        b->spans ? rows : 0,
                        blocks * (size_t)round16(b->max_seqs + 1),
                        blocks * (size_t)round16(b->max_seqs)};
    at[0] = 0;
    for (int i = 0; i < ARRAYS; i++) at[i + 1] = at[i] + (n[i] + 15) / 16 * 16;
    return at[ARRAYS];
}

bool batch_init(batch *b, backend *be, int block_rows, int span_rows, int max_seqs, int max_pages, int axes,
                status *st) {
    *b = (batch){.block_rows = block_rows, .max_seqs = max_seqs, .max_pages = max_pages, .be = be};
    b->axes = axes > 1 ? axes : 1;
    b->spans = span_rows > 0;
    b->max_rows = block_rows + span_rows;
    b->max_blocks = b->spans ? (b->max_rows + block_rows - 1) / block_rows : 0;
    size_t at[ARRAYS + 1], count = lay_out(b, at);
    b->host = mem_calloc(count, sizeof(int32_t));
    b->splices = mem_calloc((size_t)b->max_rows, sizeof *b->splices);
    b->blocks = mem_calloc((size_t)b->max_blocks + 1, sizeof *b->blocks);
    if (be) b->dev = backend_alloc(be, count * sizeof(int32_t), st);
    if (!b->host || !b->splices || !b->blocks || (be && !b->dev)) {
        int rows = b->max_rows;
        batch_fini(b);
        return status_set(st, ST_NO_MEMORY, "no memory for a step of %d rows", rows);
    }
    int32_t **to[ARRAYS] = {&b->ids,   &b->pos,      &b->rope_len, &b->slots,       &b->q_start,  &b->kv_len,
                            &b->pages, &b->out_rows, &b->limit,    &b->block_start, &b->block_len};
    for (int i = 0; i < ARRAYS; i++) *to[i] = b->host + at[i];
    return true;
}

bool batch_init_cross(batch *b, int width, status *st) {
    return seen_runs_init(&b->cross, b->be, b->max_rows, width, st);
}

void batch_fini(batch *b) {
    seen_runs_fini(&b->cross);
    if (b->dev) backend_release(b->be, b->dev);
    mem_free(b->host);
    mem_free(b->splices);
    mem_free(b->blocks);
    *b = (batch){0};
}

void batch_clear(batch *b) {
    b->n_rows = b->n_seqs = b->n_out = b->n_splices = 0;
    b->q_start[0] = 0;
    b->cross.n = 0;
}

/* Rows [from, to) of the sequence that stand for a picture come from its encode instead of the embedding
 * table. */
static void splice(batch *b, const seq *s, int from, int to, int row0) {
    const prompt *p = s->prompt;
    for (int i = 0; i < p->n_rows; i++) {
        const prompt_rows *r = &p->rows[i];
        int lo = r->row > from ? r->row : from, hi = r->row + r->n < to ? r->row + r->n : to;
        if (lo >= hi) continue;
        for (int row = lo; row < hi; row++) b->ids[row0 + row - from] = -1;
        CHECK(b->n_splices < b->max_rows && seq_image_ready(s, r->image));
        tensor rows = encode_rows(s->images[r->image].pic->enc);
        b->splices[b->n_splices++] =
            (struct step_splice){row0 + lo - from, tensor_rows(rows, r->from + lo - r->row, hi - lo),
                                 s->images[r->image].pic->enc, r->from + lo - r->row};
    }
}

static void set_position(batch *b, const seq *s, int p, int row) {
    int32_t at[ROPE_MAX_AXES] = {p};
    if (b->axes > 1) prompt_position(s->prompt, p, at);
    for (int a = 0; a < b->axes; a++) b->pos[row * b->axes + a] = at[a];
}

/* Rows [from, to) of the sequence see to the end of their spans. */
static void set_limits(batch *b, const seq *s, int from, int to, int row0) {
    int begin, end;
    for (int row = from; row < to; row = end) {
        bool both = seq_span(s, row, &begin, &end);
        CHECK(!both || end <= to);
        if (!both && end > to) end = to;
        for (int i = row; i < end; i++) b->limit[row0 + i - from] = both ? end : 0;
    }
}

bool batch_add(batch *b, const seq *s, int n) {
    const int32_t *ids = s->prompt->ids.v;
    int from = s->n_done, to = from + n, row0 = b->n_rows;
    CHECK(n > 0 && to <= seq_len(s) && row0 + n <= b->max_rows && b->n_seqs < b->max_seqs);
    CHECK(s->n_pages <= b->max_pages && kv_pages_of(to) <= s->n_pages);
    for (int p = from; p < to; p++) {
        int row = b->n_rows++;
        b->ids[row] = ids[p];
        set_position(b, s, p, row);
        /* The reference runs the whole prompt at once and then one row at a time: so it is also where an
         * answer's rows are computed again after a preemption. */
        b->rope_len[row] = p + 1 > s->n_prompt ? p + 1 : s->n_prompt;
        b->slots[row] = s->pages[p / KV_PAGE_TOK] * KV_PAGE_TOK + p % KV_PAGE_TOK;
    }
    if (s->apart)
        seen_runs_add(&b->cross, s, from, to, row0);
    else
        splice(b, s, from, to, row0);
    if (b->spans) set_limits(b, s, from, to, row0);
    int32_t *table = b->pages + (size_t)b->n_seqs * (size_t)b->max_pages;
    memcpy(table, s->pages, (size_t)s->n_pages * sizeof *table);
    memset(table + s->n_pages, 0, (size_t)(b->max_pages - s->n_pages) * sizeof *table);
    b->kv_len[b->n_seqs++] = to;
    b->q_start[b->n_seqs] = b->n_rows;
    if (to < seq_len(s)) return false;
    b->out_rows[b->n_out++] = b->n_rows - 1;
    return true;
}

static tensor array(const batch *b, bool data, const int32_t *host, int64_t n) {
    return tensor_1d(data && b->dev ? b->dev + (host - b->host) : NULL, DT_I32, n);
}

static void describe(const batch *b, bool data, int rows, int seqs, int outs, step *s) {
    *s = (step){.n_rows = rows, .n_seqs = seqs, .n_out = outs};
    s->ids = array(b, data, b->ids, rows);
    s->pos = array(b, data, b->pos, rows);
    if (b->axes > 1) s->pos = tensor_2d(s->pos.data, DT_I32, rows, b->axes);
    s->rope_len = array(b, data, b->rope_len, rows);
    s->slots = array(b, data, b->slots, rows);
    s->q_start = array(b, data, b->q_start, seqs + 1);
    s->kv_len = array(b, data, b->kv_len, seqs);
    s->pages = tensor_2d(array(b, data, b->pages, 0).data, DT_I32, seqs, b->max_pages);
    s->out_rows = array(b, data, b->out_rows, outs);
    if (b->spans) s->limit = array(b, data, b->limit, rows);
    if (rows <= b->block_rows) return;
    s->block_rows = b->block_rows;
    s->n_blocks = (rows + b->block_rows - 1) / b->block_rows;
    s->blocks = b->blocks;
    for (int i = 0; i < s->n_blocks; i++) {
        b->blocks[i].q_start =
            array(b, data, b->block_start + (size_t)i * (size_t)round16(b->max_seqs + 1), seqs + 1);
        b->blocks[i].kv_len = array(b, data, b->block_len + (size_t)i * (size_t)round16(b->max_seqs), seqs);
    }
}

/* Block i of the rows: where each sequence's begin in it, and the place behind its last one there (0: it has none). */
static void fill_block(batch *b, int i, int32_t *start, int32_t *len) {
    int from = i * b->block_rows, to = from + b->block_rows < b->n_rows ? from + b->block_rows : b->n_rows;
    start[0] = 0;
    for (int s = 0; s < b->n_seqs; s++) {
        int end = b->q_start[s + 1] < to ? b->q_start[s + 1] : to;
        start[s + 1] = end > from ? end - from : 0;
        len[s] = start[s + 1] > start[s] ? b->kv_len[s] - (b->q_start[s + 1] - end) : 0;
    }
}

static void upload_blocks(batch *b, ctx *c, const step *s) {
    for (int i = 0; i < s->n_blocks; i++) {
        int32_t *start = b->block_start + (size_t)i * (size_t)round16(b->max_seqs + 1);
        int32_t *len = b->block_len + (size_t)i * (size_t)round16(b->max_seqs);
        fill_block(b, i, start, len);
        ctx_upload(c, s->blocks[i].q_start, start);
        ctx_upload(c, s->blocks[i].kv_len, len);
    }
}

void batch_upload(batch *b, ctx *c, step *out) {
    describe(b, true, b->n_rows, b->n_seqs, b->n_out, out);
    out->n_splices = b->n_splices;
    out->splices = b->splices;
    out->n_cross = b->cross.n;
    out->cross = b->cross.v;
    seen_runs_upload(&b->cross, c);
    ctx_upload(c, out->ids, b->ids);
    ctx_upload(c, out->pos, b->pos);
    ctx_upload(c, out->rope_len, b->rope_len);
    ctx_upload(c, out->slots, b->slots);
    ctx_upload(c, out->q_start, b->q_start);
    ctx_upload(c, out->kv_len, b->kv_len);
    ctx_upload(c, out->pages, b->pages);
    if (b->spans) ctx_upload(c, out->limit, b->limit);
    upload_blocks(b, c, out);
    if (b->n_out) ctx_upload(c, out->out_rows, b->out_rows);
}

void batch_describe_largest(batch *b, batch_kind kind, step *out) {
    int rows = kind == BATCH_BLOCKS ? b->max_rows : b->block_rows,
        seqs = b->max_seqs < rows ? b->max_seqs : rows;
    if (kind == BATCH_DECODES) rows = seqs;
    describe(b, false, rows, seqs, seqs, out);
    if (!b->cross.width) return;
    seen_runs_describe(&b->cross, rows);
    out->n_cross = b->cross.n;
    out->cross = b->cross.v;
}

size_t batch_bytes(const batch *b) {
    size_t at[ARRAYS + 1];
    return lay_out(b, at) * sizeof(int32_t);
}
