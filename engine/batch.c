/* batch.c - see batch.h. The engine's thread. */
#include "engine/batch.h"

#include <string.h>

/* ---- where the arrays lie ---- */

enum {
    IDS,
    POS,
    ROPE_LEN,
    SLOTS,
    FROM,
    Q_START,
    KV_LEN,
    PAGES,
    OUT_ROWS,
    LIMIT,
    BLOCKS,
    RULES,
    END,
    N_HOST = BLOCKS
};

typedef struct layout { /* in words */
    size_t at[END + 1], n[END];
} layout;

static size_t round16(int n) {
    return (size_t)(n + 15) / 16 * 16;
}

static int count_blocks(const batch *b, int n_rows) {
    return n_rows > b->block_rows ? (n_rows + b->block_rows - 1) / b->block_rows : 0;
}

/* What describes one block of rows: where each sequence begins in it, and the place behind its last row there. */
static size_t block_words(int n_seqs) {
    return round16(n_seqs + 1) + round16(n_seqs);
}

/* Each begins at 64 bytes, as the device's memory does. */
static layout lay_out(const batch *b, int n_rows, int n_seqs, int n_out, size_t list_words) {
    const size_t rows = (size_t)n_rows, seqs = (size_t)n_seqs, out = (size_t)n_out;
    layout l = {.n = {[IDS] = rows,
                      [POS] = rows * (size_t)b->axes,
                      [ROPE_LEN] = rows,
                      [SLOTS] = rows,
                      [FROM] = rows,
                      [Q_START] = seqs + 1,
                      [KV_LEN] = seqs,
                      [PAGES] = seqs * (size_t)b->max_pages,
                      [OUT_ROWS] = out,
                      [LIMIT] = b->spans ? rows : 0,
                      [BLOCKS] = (size_t)count_blocks(b, n_rows) * block_words(n_seqs),
                      [RULES] = out * SAMPLE_RULE_WORDS + list_words}};
    for (int i = 0; i < END; i++) l.at[i + 1] = l.at[i] + (l.n[i] + 15) / 16 * 16;
    return l;
}

static layout largest(const batch *b) {
    return lay_out(b, b->max_rows, b->max_seqs, b->max_seqs, b->max_list_words);
}

size_t batch_bytes(const batch *b) {
    return largest(b).at[END] * sizeof(int32_t);
}

bool batch_init(batch *b, backend *be, int block_rows, int span_rows, int max_seqs, int max_pages, int axes,
                size_t max_list_words, status *st) {
    *b = (batch){.block_rows = block_rows,
                 .max_rows = block_rows + span_rows,
                 .spans = span_rows > 0,
                 .max_seqs = max_seqs,
                 .max_pages = max_pages,
                 .axes = axes > 1 ? axes : 1,
                 .max_list_words = max_list_words,
                 .be = be};
    b->max_blocks = count_blocks(b, b->max_rows);
    const layout l = largest(b);
    b->host = mem_calloc(l.at[BLOCKS], sizeof(int32_t));
    b->rules = mem_calloc((size_t)max_seqs, sizeof *b->rules);
    b->splices = mem_calloc((size_t)b->max_rows, sizeof *b->splices);
    b->sources = mem_calloc((size_t)b->max_rows, sizeof *b->sources);
    b->blocks = mem_calloc((size_t)b->max_blocks + 1, sizeof *b->blocks);
    if (be) b->dev = backend_alloc(be, batch_bytes(b), st);
    if (!b->host || !b->rules || !b->splices || !b->sources || !b->blocks || (be && !b->dev)) {
        int rows = b->max_rows;
        batch_fini(b);
        return status_set(st, ST_NO_MEMORY, "no memory for a step of %d rows", rows);
    }
    int32_t **to[N_HOST] = {&b->ids,     &b->pos,    &b->rope_len, &b->slots,    &b->from,
                            &b->q_start, &b->kv_len, &b->pages,    &b->out_rows, &b->limit};
    for (int i = 0; i < N_HOST; i++) *to[i] = b->host + l.at[i];
    return true;
}

bool batch_init_cross(batch *b, int width, status *st) {
    return seen_runs_init(&b->cross, b->be, b->max_rows, width, st);
}

void batch_fini(batch *b) {
    seen_runs_fini(&b->cross);
    if (b->dev) backend_release(b->be, b->dev);
    mem_free(b->host);
    mem_free(b->rules);
    mem_free(b->splices);
    mem_free(b->sources);
    mem_free(b->blocks);
    *b = (batch){0};
}

/* ---- filling it ---- */

void batch_clear(batch *b) {
    b->n_rows = b->n_seqs = b->n_out = b->n_splices = 0;
    b->n_list_words = 0;
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
        const encode *enc = s->images[r->image].pic->enc;
        int at = r->from + lo - r->row;
        b->splices[b->n_splices] = (row_run){row0 + lo - from, tensor_rows(encode_rows(enc), at, hi - lo)};
        b->sources[b->n_splices++] = (struct step_source){enc, at};
    }
}

static void set_position(batch *b, const seq *s, int p, int row) {
    int32_t at[ROPE_MAX_AXES] = {p};
    if (b->axes > 1) prompt_position(s->prompt, p, at);
    for (int a = 0; a < b->axes; a++) b->pos[row * b->axes + a] = at[a];
}

static void add_row(batch *b, const seq *s, int p) {
    int row = b->n_rows++;
    bool known = p < seq_len(s);
    b->ids[row] = known ? s->prompt->ids.v[p] : 0;
    b->from[row] = known ? -1 : s->last_result;
    set_position(b, s, p, row);
    /* The reference runs the whole prompt at once and then one row at a time: so it is also where an
     * answer's rows are computed again after a preemption. */
    b->rope_len[row] = b->rope_from + (p + 1 > s->n_prompt ? p + 1 : s->n_prompt);
    b->slots[row] = s->pages[p / KV_PAGE_TOK] * KV_PAGE_TOK + p % KV_PAGE_TOK;
}

/* How to choose behind the last row; false: its lists find no room. */
static bool add_rule(batch *b, const seq *s) {
    sample_row *r = &b->rules[b->n_out];
    sampler_row(&s->sampler, (uint32_t)(seq_answer_len(s) + s->n_ahead), s->n_ahead, r);
    size_t words = sample_list_words(r);
    if (b->n_list_words + words > b->max_list_words) return false;
    b->n_list_words += words;
    return true;
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

bool batch_add(batch *b, const seq *s, int n, bool *fits) {
    int from = s->n_done, to = from + n, row0 = b->n_rows;
    bool wanted = to == seq_len_ahead(s);
    CHECK(n > 0 && to <= seq_len_ahead(s) && row0 + n <= b->max_rows && b->n_seqs < b->max_seqs);
    CHECK(s->n_pages <= b->max_pages && kv_pages_of(to) <= s->n_pages);
    *fits = !wanted || add_rule(b, s);
    if (!*fits) return false;
    for (int p = from; p < to; p++) add_row(b, s, p);
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
    if (wanted) b->out_rows[b->n_out++] = b->n_rows - 1;
    return wanted;
}

void batch_pad(batch *b, int n_seqs, int each) {
    CHECK(n_seqs <= b->max_seqs && b->n_rows + (n_seqs - b->n_seqs) * each <= b->max_rows);
    for (; b->n_seqs < n_seqs; b->q_start[b->n_seqs] = b->n_rows) {
        for (int i = 0; i < each; i++) {
            int row = b->n_rows++;
            b->ids[row] = 0;
            for (int a = 0; a < b->axes; a++) b->pos[row * b->axes + a] = 0;
            b->rope_len[row] = 1;
            b->slots[row] = b->from[row] = -1;
            if (b->spans) b->limit[row] = 0;
        }
        memset(b->pages + (size_t)b->n_seqs * (size_t)b->max_pages, 0,
               (size_t)b->max_pages * sizeof *b->pages);
        b->kv_len[b->n_seqs++] = each;
        b->rules[b->n_out] = (sample_row){.top_logprobs = -1};
        b->out_rows[b->n_out++] = b->n_rows - 1;
    }
}

/* ---- sending it ---- */

/* Block i of the rows: where each sequence's begin in it, and the place behind its last one there (0: it has none). */
static void fill_block(const batch *b, int i, int32_t *start, int32_t *len) {
    int from = i * b->block_rows, to = from + b->block_rows < b->n_rows ? from + b->block_rows : b->n_rows;
    start[0] = 0;
    for (int s = 0; s < b->n_seqs; s++) {
        int end = b->q_start[s + 1] < to ? b->q_start[s + 1] : to;
        start[s + 1] = end > from ? end - from : 0;
        len[s] = start[s + 1] > start[s] ? b->kv_len[s] - (b->q_start[s + 1] - end) : 0;
    }
}

size_t batch_pack(const batch *b, int32_t *to) {
    const layout l = lay_out(b, b->n_rows, b->n_seqs, b->n_out, 0);
    const int32_t *const from[N_HOST] = {b->ids,     b->pos,    b->rope_len, b->slots,    b->from,
                                         b->q_start, b->kv_len, b->pages,    b->out_rows, b->limit};
    for (int i = 0; i < N_HOST; i++) memcpy(to + l.at[i], from[i], l.n[i] * sizeof *to);
    for (int i = 0; i < count_blocks(b, b->n_rows); i++) {
        int32_t *block = to + l.at[BLOCKS] + (size_t)i * block_words(b->n_seqs);
        fill_block(b, i, block, block + round16(b->n_seqs + 1));
    }
    return (l.at[RULES] + sample_pack(to + l.at[RULES], b->rules, b->n_out)) * sizeof *to;
}

static tensor array(const batch *b, const layout *l, bool data, int which) {
    return tensor_1d(data && b->dev ? b->dev + l->at[which] : NULL, DT_I32, (int64_t)l->n[which]);
}

static void describe(const batch *b, bool data, int rows, int seqs, int outs, batch_step *out) {
    /* A captured step has the room of all lists: what it reads there the rules say. */
    const layout l = lay_out(b, rows, seqs, outs, b->max_list_words);
    *out = (batch_step){.s = {.n_rows = rows, .n_seqs = seqs, .n_out = outs}};
    step *s = &out->s;
    s->ids = array(b, &l, data, IDS);
    s->pos = array(b, &l, data, POS);
    if (b->axes > 1) s->pos = tensor_2d(s->pos.data, DT_I32, rows, b->axes);
    s->rope_len = array(b, &l, data, ROPE_LEN);
    s->slots = array(b, &l, data, SLOTS);
    s->q_start = array(b, &l, data, Q_START);
    s->kv_len = array(b, &l, data, KV_LEN);
    s->pages = tensor_2d(array(b, &l, data, PAGES).data, DT_I32, seqs, b->max_pages);
    s->out_rows = array(b, &l, data, OUT_ROWS);
    out->from = array(b, &l, data, FROM);
    out->rules = array(b, &l, data, RULES);
    if (b->spans) s->limit = array(b, &l, data, LIMIT);
    s->n_blocks = count_blocks(b, rows);
    s->block_rows = s->n_blocks ? b->block_rows : 0;
    s->blocks = b->blocks;
    for (int i = 0; i < s->n_blocks; i++) {
        int32_t *at = data && b->dev ? b->dev + l.at[BLOCKS] + (size_t)i * block_words(seqs) : NULL;
        b->blocks[i].q_start = tensor_1d(at, DT_I32, seqs + 1);
        b->blocks[i].kv_len = tensor_1d(at ? at + round16(seqs + 1) : NULL, DT_I32, seqs);
    }
}

void batch_upload_cross(batch *b, ctx *c) {
    seen_runs_upload(&b->cross, c);
}

void batch_describe(const batch *b, batch_step *out) {
    describe(b, true, b->n_rows, b->n_seqs, b->n_out, out);
    out->s.n_splices = b->n_splices;
    out->s.splices = b->splices;
    out->s.sources = b->sources;
    out->s.n_cross = b->cross.n;
    out->s.cross = b->cross.v;
}

void batch_describe_largest(batch *b, batch_kind kind, batch_step *out) {
    int rows = kind == BATCH_BLOCKS ? b->max_rows : b->block_rows,
        seqs = b->max_seqs < rows ? b->max_seqs : rows;
    if (kind == BATCH_DECODES) rows = seqs;
    describe(b, false, rows, seqs, seqs, out);
    if (!b->cross.width) return;
    seen_runs_describe(&b->cross, rows);
    out->s.n_cross = b->cross.n;
    out->s.cross = b->cross.v;
}
