/* rows.c - the ops that work row by row on the CPU: norm, elementwise, embedding, rotary positions, patches.
 * Thread: the ctx owner's; rows on the pool where it pays. Owns nothing. */
#include "kernels/cpu/cpu.h"

#include <math.h>
#include <string.h>

/* Rows a piece of the pool takes: about 16k numbers. */
static int64_t row_piece(int64_t width) {
    return max_i64(1, 16384 / max_i64(1, width));
}

static int64_t row_width(const tensor *t) {
    int64_t n = 1;
    for (int i = 1; i < t->nd; i++) n *= t->d[i];
    return n;
}

typedef struct rows_job {
    const simd *s;
    float *y;
    const float *x, *x2;
    int64_t y_ld, x_ld, x2_ld;
    int64_t n, width;
    act act;
    /* norm */
    const float *gain, *bias;
    int64_t heads;
    norm_kind kind;
    float eps, gain_offset;
    /* embed, gather */
    const uint8_t *table;
    int64_t table_ld_bytes;
    dtype dt;
    const int32_t *idx;
    float scale;
    bool add;
    /* mix */
    const float *by;
    int64_t taps;
} rows_job;

static rows_job job_of(ctx *c, const tensor *y, const tensor *x) {
    return (rows_job){.s = cpu_of(c)->simd,
                      .y = y->data,
                      .y_ld = y->ld,
                      .x = x ? x->data : NULL,
                      .x_ld = x ? x->ld : 0,
                      .n = y->d[0],
                      .width = row_width(y)};
}

static void run_rows(ctx *c, rows_job *j, double cost_each, cpu_range_fn fn) {
    cpu_for(cpu_of(c), j->n, row_piece(j->width), (double)j->n * (double)j->width * cost_each, fn, j);
}

static void norm_range(void *arg, int64_t from, int64_t to, int thread) {
    (void)thread;
    const rows_job *j = arg;
    for (int64_t i = from; i < to; i++)
        for (int64_t h = 0; h < j->heads; h++)
            j->s->norm(j->y + i * j->y_ld + h * j->width, j->x + i * j->x_ld + h * j->width, j->gain, j->bias,
                       j->width, j->kind, j->eps, j->gain_offset);
}

void cpu_norm(ctx *c, tensor y, tensor x, const weight *gain, const weight *bias, norm_kind kind, float eps,
              float gain_offset) {
    rows_job j = job_of(c, &y, &x);
    j.heads = y.d[1];
    j.width = y.d[2];
    j.gain = gain ? gain->vec : NULL;
    j.bias = bias ? bias->vec : NULL;
    j.kind = kind;
    j.eps = eps;
    j.gain_offset = gain_offset;
    cpu_for(cpu_of(c), j.n, row_piece(j.width * j.heads), (double)j.n * (double)(j.width * j.heads),
            norm_range, &j);
}

static void add_range(void *arg, int64_t from, int64_t to, int thread) {
    (void)thread;
    const rows_job *j = arg;
    for (int64_t i = from; i < to; i++) j->s->add(j->y + i * j->y_ld, j->x + i * j->x_ld, j->width);
}

static void scaled_row(float *y, const float *x, const float *gain, int64_t n) {
    for (int64_t k = 0; k < n; k++) y[k] += gain[k] * x[k];
}

static void add_scaled_range(void *arg, int64_t from, int64_t to, int thread) {
    (void)thread;
    const rows_job *j = arg;
    for (int64_t i = from; i < to; i++) scaled_row(j->y + i * j->y_ld, j->x + i * j->x_ld, j->gain, j->width);
}

void cpu_add(ctx *c, tensor y, tensor x, const weight *gain) {
    rows_job j = job_of(c, &y, &x);
    j.gain = gain ? gain->vec : NULL;
    run_rows(c, &j, 0.5, gain ? add_scaled_range : add_range);
}

typedef struct add_norm_job {
    const simd *s;
    tensor x, h, y;
    const norm_by *before, *after;
    const float *scale;
} add_norm_job;

static void norm_row(const simd *s, float *y, const float *x, int64_t n, const norm_by *a) {
    s->norm(y, x, a->gain ? a->gain->vec : NULL, a->bias ? a->bias->vec : NULL, n, a->kind, a->eps,
            a->gain_offset);
}

static void add_norm_range(void *arg, int64_t from, int64_t to, int thread) {
    (void)thread;
    const add_norm_job *j = arg;
    const int64_t n = j->x.d[1];
    for (int64_t i = from; i < to; i++) {
        float *x = (float *)j->x.data + i * j->x.ld, *h = (float *)j->h.data + i * j->h.ld;
        if (j->before) norm_row(j->s, h, h, n, j->before);
        if (j->scale)
            scaled_row(x, h, j->scale, n);
        else
            j->s->add(x, h, n);
        if (j->after) norm_row(j->s, (float *)j->y.data + i * j->y.ld, x, n, j->after);
    }
}

void cpu_add_norm(ctx *c, tensor x, tensor h, const norm_by *before, const weight *scale, tensor y,
                  const norm_by *after) {
    add_norm_job j = {.s = cpu_of(c)->simd,
                      .x = x,
                      .h = h,
                      .y = y,
                      .before = before,
                      .after = after,
                      .scale = scale ? scale->vec : NULL};
    cpu_for(cpu_of(c), x.d[0], row_piece(x.d[1]), 2 * (double)x.d[0] * (double)x.d[1], add_norm_range, &j);
}

static void copy_range(void *arg, int64_t from, int64_t to, int thread) {
    (void)thread;
    const rows_job *j = arg;
    for (int64_t i = from; i < to; i++)
        memmove(j->y + i * j->y_ld, j->x + (j->idx ? j->idx[i] : i) * j->x_ld,
                (size_t)j->width * sizeof(float));
}

void cpu_copy(ctx *c, tensor y, tensor x) {
    rows_job j = job_of(c, &y, &x);
    run_rows(c, &j, 0.25, copy_range);
}

void cpu_gather(ctx *c, tensor y, tensor x, tensor idx) {
    rows_job j = job_of(c, &y, &x);
    j.idx = idx.data;
    for (int64_t i = 0; i < j.n; i++)
        if (j.idx[i] < 0 || j.idx[i] >= x.d[0]) {
            status_set(&c->st, ST_INTERNAL, "gather: expected row indices from 0 to %lld, found %d",
                       (long long)x.d[0] - 1, (int)j.idx[i]);
            return;
        }
    run_rows(c, &j, 0.25, copy_range);
}

static void act_range(void *arg, int64_t from, int64_t to, int thread) {
    (void)thread;
    const rows_job *j = arg;
    for (int64_t i = from; i < to; i++) {
        float *y = j->y + i * j->y_ld;
        j->s->epilogue(y, y, NULL, j->width, j->act, false);
    }
}

void cpu_act(ctx *c, tensor y, act a) {
    rows_job j = job_of(c, &y, NULL);
    j.act = a;
    run_rows(c, &j, 2, act_range);
}

static void softcap_range(void *arg, int64_t from, int64_t to, int thread) {
    (void)thread;
    const rows_job *j = arg;
    for (int64_t i = from; i < to; i++) j->s->softcap(j->y + i * j->y_ld, j->width, j->scale);
}

void cpu_softcap(ctx *c, tensor y, float cap) {
    rows_job j = job_of(c, &y, NULL);
    j.scale = cap;
    run_rows(c, &j, 2, softcap_range);
}

static void glu_range(void *arg, int64_t from, int64_t to, int thread) {
    (void)thread;
    const rows_job *j = arg;
    for (int64_t i = from; i < to; i++)
        j->s->glu(j->y + i * j->y_ld, j->x + i * j->x_ld, j->x2 + i * j->x2_ld, j->width, j->act);
}

void cpu_glu(ctx *c, tensor y, tensor gate, tensor up, act a) {
    rows_job j = job_of(c, &y, &gate);
    j.x2 = up.data;
    j.x2_ld = up.ld;
    j.act = a;
    run_rows(c, &j, 2, glu_range);
}

static void embed_range(void *arg, int64_t from, int64_t to, int thread) {
    (void)thread;
    const rows_job *j = arg;
    for (int64_t i = from; i < to; i++)
        if (j->idx[i] >= 0)
            j->s->embed(j->y + i * j->y_ld, j->table + j->idx[i] * j->table_ld_bytes, j->dt, j->width,
                        j->scale, j->add);
}

void cpu_embed(ctx *c, tensor y, const weight *table, tensor ids, float scale, bool add, const row_run *runs,
               int n) {
    rows_job j = job_of(c, &y, NULL);
    j.idx = ids.data;
    j.table = table->data;
    j.table_ld_bytes = table->ld * (int64_t)dtype_size(table->dt);
    j.dt = table->dt;
    j.scale = scale;
    j.add = add;
    for (int64_t i = 0; i < j.n; i++)
        if (j.idx[i] >= table->rows || (add && j.idx[i] < 0)) {
            status_set(&c->st, ST_INTERNAL, "embed: expected ids below %lld, found %d",
                       (long long)table->rows, (int)j.idx[i]);
            return;
        }
    run_rows(c, &j, 0.5, embed_range);
    for (int i = 0; i < n; i++) cpu_copy(c, tensor_rows(y, runs[i].row, runs[i].rows.d[0]), runs[i].rows);
}

static void mix_range(void *arg, int64_t from, int64_t to, int thread) {
    (void)thread;
    const rows_job *j = arg;
    for (int64_t i = from; i < to; i++) {
        float *y = j->y + i * j->y_ld;
        if (!j->add) memset(y, 0, (size_t)j->width * sizeof *y);
        for (int64_t k = i * j->taps; k < (i + 1) * j->taps; k++)
            if (j->idx[k] >= 0)
                j->s->embed(y, j->table + j->idx[k] * j->table_ld_bytes, j->dt, j->width,
                            j->by ? j->by[k] : 1.0f, true);
    }
}

void cpu_mix(ctx *c, tensor y, tensor x, const weight *table, tensor from, tensor by) {
    rows_job j = job_of(c, &y, NULL);
    int64_t rows = table ? table->rows : x.d[0];
    j.idx = from.data;
    j.by = by.nd ? by.data : NULL;
    j.taps = from.d[1];
    j.add = table != NULL;
    j.dt = table ? table->dt : DT_F32;
    j.table = table ? table->data : x.data;
    j.table_ld_bytes = (table ? table->ld : x.ld) * (int64_t)dtype_size(j.dt);
    for (int64_t i = 0; i < j.n * j.taps; i++)
        if (j.idx[i] >= rows) {
            status_set(&c->st, ST_INTERNAL, "mix: expected row indices below %lld, found %d", (long long)rows,
                       (int)j.idx[i]);
            return;
        }
    run_rows(c, &j, 0.5 * (double)j.taps, mix_range);
}

/* ---- rotary positions ---- */

typedef struct rope_job {
    const simd *s;
    float *x;
    float *cs;
    int64_t ld, cs_ld, n, heads, hd, half, pos_ld;
    const int32_t *pos, *len;
    const rope_args *a;
} rope_job;

static void rope_table_range(void *arg, int64_t from, int64_t to, int thread) {
    (void)thread;
    const rope_job *j = arg;
    const rope_args *a = j->a;
    for (int64_t i = from; i < to; i++) {
        float *cs = j->cs + i * j->cs_ld;
        const bool stretched = a->dyn_factor > 0 && j->len && j->len[i] > a->max_pos;
        double base = 0, rot = 2.0 * (double)j->half;
        if (stretched) {
            double f = a->dyn_factor;
            base = a->theta * pow(f * j->len[i] / a->max_pos - (f - 1), rot / (rot - 2));
        }
        for (int64_t p = 0; p < j->half; p++) {
            float inv = stretched ? 1.0f / (float)pow(base, (double)(float)(2.0 * (double)p / rot))
                                  : a->inv_freq->vec[p];
            int64_t axis = a->axis ? (int64_t)a->axis->vec[p] : 0;
            float angle = (float)j->pos[i * j->pos_ld + axis] * inv;
            cs[2 * p] = cosf(angle) * a->factor;
            cs[2 * p + 1] = sinf(angle) * a->factor;
        }
    }
}

void cpu_rope_table(ctx *c, tensor cs, tensor pos, tensor len, const rope_args *a) {
    for (int64_t p = 0; a->axis && p < cs.d[1]; p++)
        CHECK(a->axis->vec[p] >= 0 && a->axis->vec[p] < (float)pos.d[1]);
    rope_job j = {.cs = cs.data,
                  .cs_ld = cs.ld,
                  .n = cs.d[0],
                  .half = cs.d[1],
                  .pos = pos.data,
                  .pos_ld = pos.ld,
                  .len = len.data,
                  .a = a};
    cpu_for(cpu_of(c), j.n, row_piece(j.half * 64), (double)j.n * (double)j.half * 64, rope_table_range, &j);
}

static void rope_range(void *arg, int64_t from, int64_t to, int thread) {
    (void)thread;
    const rope_job *j = arg;
    for (int64_t i = from; i < to; i++)
        for (int64_t h = 0; h < j->heads; h++)
            j->s->rope(j->x + i * j->ld + h * j->hd, j->cs + i * j->cs_ld, j->half);
}

void cpu_rope(ctx *c, tensor x, tensor cs) {
    rope_job j = {.s = cpu_of(c)->simd,
                  .x = x.data,
                  .ld = x.ld,
                  .n = x.d[0],
                  .heads = x.d[1],
                  .hd = x.d[2],
                  .cs = cs.data,
                  .cs_ld = cs.ld,
                  .half = cs.d[1]};
    int64_t width = j.heads * j.half * 2;
    cpu_for(cpu_of(c), j.n, row_piece(width), (double)j.n * (double)width, rope_range, &j);
}

/* ---- pictures ---- */

typedef struct patch_job {
    float *x;
    int64_t ld;
    const uint8_t *pixels;
    int64_t pixels_ld; /* bytes from row to row */
    int64_t across;    /* patches in a row */
    int patch, frames;
    bool channels_last;
    const int32_t *order; /* or NULL */
    float value[3][256];  /* every value a byte can become */
} patch_job;

static void patch_range(void *arg, int64_t from, int64_t to, int thread) {
    (void)thread;
    const patch_job *j = arg;
    const int p = j->patch;
    for (int64_t i = from; i < to; i++) {
        float *x = j->x + i * j->ld;
        const int64_t at = j->order ? j->order[i] : i;
        const uint8_t *src = j->pixels + at / j->across * p * j->pixels_ld + at % j->across * p * 3;
        if (j->channels_last) {
            for (int r = 0; r < p; r++)
                for (int k = 0; k < 3 * p; k++) *x++ = j->value[k % 3][src[r * j->pixels_ld + k]];
            continue;
        }
        for (int plane = 0; plane < 3 * j->frames; plane++) {
            const int ch = plane / j->frames;
            for (int r = 0; r < p; r++)
                for (int k = 0; k < p; k++) *x++ = j->value[ch][src[r * j->pixels_ld + k * 3 + ch]];
        }
    }
}

void cpu_patchify(ctx *c, tensor x, tensor pixels, const patchify_args *a) {
    patch_job j = {.x = x.data,
                   .ld = x.ld,
                   .pixels = pixels.data,
                   .pixels_ld = pixels.ld,
                   .across = pixels.d[1] / a->patch,
                   .patch = a->patch,
                   .frames = a->frames > 1 ? a->frames : 1,
                   .channels_last = a->channels_last,
                   .order = a->order.nd ? a->order.data : NULL};
    int64_t patches = pixels.d[0] / a->patch * j.across;
    for (int64_t i = 0; j.order && i < x.d[0]; i++)
        if (j.order[i] < 0 || j.order[i] >= patches) {
            status_set(&c->st, ST_INTERNAL, "patchify: expected row indices from 0 to %lld, found %d",
                       (long long)patches - 1, (int)j.order[i]);
            return;
        }
    for (int ch = 0; ch < 3; ch++)
        for (int v = 0; v < 256; v++) j.value[ch][v] = ((float)v * a->rescale - a->mean[ch]) / a->std[ch];
    cpu_for(cpu_of(c), x.d[0], row_piece(x.d[1]), (double)tensor_count(&x), patch_range, &j);
}
