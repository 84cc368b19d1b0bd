/* ops.c - the op table's front: every check of types and shapes, once, then the backend. See ops.h.
 *
 * A mismatch is a bug of ours or a checkpoint that binding should have refused: ST_INTERNAL, with what was
 * expected and found, and no work done. Thread: the ctx owner's. Owns nothing but what backend_new and
 * weight_new return. */
#include "kernels/backend.h"

#include <stdio.h>
#include <string.h>

/* ---- backend and weights ---- */

backend *backend_new(const backend_options *o, status *st) {
    static const backend_options defaults = {.device = "cpu"};
    if (!o) o = &defaults;
    const char *name = o->device ? o->device : "cpu";
    if (strcmp(name, "cpu") == 0) return cpu_backend_new(o, st);
    const bool choose = strcmp(name, "auto") == 0;
    if (!choose && strncmp(name, "cuda", 4) != 0) {
        status_set(st, ST_INVALID, "expected the device auto, cpu, cuda or cuda:N, found \"%.40s\"", name);
        return NULL;
    }
#ifdef VLMD_CUDA
    backend_options cuda = *o;
    status why = {0};
    if (choose) cuda.device = "cuda";
    backend *be = cuda_backend_new(&cuda, choose ? &why : st);
    if (be || !choose) return be;
    log_info("computing on the CPU: %s", why.msg);
#else
    if (!choose) {
        status_set(st, ST_UNSUPPORTED, "the device %s: this program was built without CUDA", name);
        return NULL;
    }
    log_info("computing on the CPU: this program was built without CUDA");
#endif
    return cpu_backend_new(o, st);
}

void backend_free(backend *be) {
    if (be) be->ops->free(be);
}

const char *backend_describe(const backend *be) {
    return be->about;
}

void *backend_alloc(backend *be, size_t bytes, status *st) {
    return be->ops->alloc(be, bytes, st);
}

void backend_release(backend *be, void *p) {
    if (p) be->ops->release(be, p);
}

void *backend_alloc_host(backend *be, size_t bytes, status *st) {
    if (be->ops->alloc_host) return be->ops->alloc_host(be, bytes, st);
    void *p = mem_aligned(64, bytes ? bytes : 1);
    if (!p) status_set(st, ST_NO_MEMORY, "no memory for %zu bytes", bytes);
    return p;
}

void backend_release_host(backend *be, void *p) {
    if (p && be->ops->release_host)
        be->ops->release_host(be, p);
    else
        mem_free(p);
}

bool backend_is_async(const backend *be) {
    return be->ops->capture_begin != NULL;
}

static bool is_float(dtype t) {
    return t == DT_F32 || t == DT_F16 || t == DT_BF16;
}

dtype backend_kv_type(const backend *be, dtype t) {
    return be->narrows && is_float(t) ? t : DT_F32;
}

int backend_encode_rows(const backend *be) {
    return be->encode_rows;
}

bool backend_reserve(backend *be, status *st) {
    return !be->ops->reserve || be->ops->reserve(be, st);
}

backend_memory backend_get_memory(backend *be) {
    return be->ops->get_memory ? be->ops->get_memory(be) : (backend_memory){0};
}

int backend_plans(const backend *be) {
    return be->ops->plans ? be->ops->plans(be) : -1;
}

bool backend_seal(backend *be, size_t pool_bytes, status *st) {
    return !be->ops->seal || be->ops->seal(be, pool_bytes, st);
}

weight *weight_new(backend *be, const tensor *host, unsigned use, status *st) {
    weight *w = weight_declare(be, host, use, st);
    if (!w || weights_load(be, &w, 1, st)) return w;
    weight_free(w);
    return NULL;
}

size_t weights_bytes(backend *be, weight *const *w, int n) {
    return be->ops->weights_bytes ? be->ops->weights_bytes(be, w, n) : 0;
}

bool weights_load(backend *be, weight *const *w, int n, status *st) {
    return !be->ops->weights_load || be->ops->weights_load(be, w, n, st);
}

weight *weight_declare(backend *be, const tensor *host, unsigned use, status *st) {
    const unsigned matrix = WEIGHT_TABLE | WEIGHT_LINEAR;
    if (use == 0 || (use & ~(WEIGHT_VECTOR | matrix))) {
        status_set(st, ST_INTERNAL, "weight: expected a known use, found %u", use);
        return NULL;
    }
    if (!is_float(host->dt)) {
        status_set(st, ST_UNSUPPORTED, "expected a parameter of type f32, f16 or bf16, found %s",
                   dtype_name(host->dt));
        return NULL;
    }
    if (host->nd < ((use & matrix) ? 2 : 1) || host->nd > TENSOR_MAX_DIMS ||
        (!host->data && tensor_count(host) > 0)) {
        status_set(st, ST_INTERNAL, "weight: expected a %s, found %d dimensions",
                   (use & matrix) ? "matrix" : "vector", host->nd);
        return NULL;
    }
    weight *w = mem_calloc(1, sizeof *w);
    if (!w) {
        status_set(st, ST_NO_MEMORY, "no memory for a parameter");
        return NULL;
    }
    w->be = be;
    w->host = *host;
    w->use = use;
    w->dt = host->dt;
    w->nd = host->nd;
    w->rows = host->nd == 1 ? 1 : host->d[0];
    w->cols = host->nd == 1 ? host->d[0] : 1;
    w->ld = host->nd == 1 ? host->d[0] : host->ld;
    for (int i = 0; i < host->nd; i++) {
        w->d[i] = host->d[i];
        if (i) w->cols *= host->d[i];
    }
    if (use == WEIGHT_VECTOR) {
        w->d[0] = w->rows * w->cols;
        w->nd = 1;
    }
    if (!be->ops->weight_init(w, host, st)) {
        mem_free(w);
        return NULL;
    }
    return w;
}

void weight_free(weight *w) {
    if (!w) return;
    w->be->ops->weight_fini(w);
    mem_free(w);
}

int64_t weight_dim(const weight *w, int i) {
    return i >= 0 && i < w->nd ? w->d[i] : 1;
}

dtype weight_type(const weight *w) {
    return w->dt;
}

/* ---- context ---- */

tensor ctx_tensor(ctx *c, dtype dt, int nd, const int64_t *d) {
    tensor t = tensor_of(NULL, dt, nd, d);
    size_t bytes = dtype_size(dt);
    bool ok = true;
    for (int i = 0; i < nd; i++) ok = ok && d[i] >= 0 && !__builtin_mul_overflow(bytes, (size_t)d[i], &bytes);
    if (!ok || bytes > SIZE_MAX / 4) {
        status_set(&c->st, ST_INTERNAL, "expected an activation that fits in memory, found %lld x ...",
                   (long long)d[0]);
        return t;
    }
    void *p = arena_alloc(c->scratch, bytes);
    if (c->dry) return t;
    if (!p)
        status_set(&c->st, ST_NO_MEMORY, "the work area is full: %zu bytes wanted, %zu of %zu used", bytes,
                   c->scratch->used_bytes, c->scratch->cap_bytes);
    t.data = p;
    return t;
}

/* ---- checks ---- */

/* "[3,4] f32" */
typedef struct shape_text {
    char s[96];
} shape_text;

static shape_text describe(const tensor *t) {
    shape_text r;
    int n = snprintf(r.s, sizeof r.s, "[");
    for (int i = 0; i < t->nd && i < TENSOR_MAX_DIMS; i++)
        n += snprintf(r.s + n, sizeof r.s - (size_t)n, "%s%lld", i ? "," : "", (long long)t->d[i]);
    snprintf(r.s + n, sizeof r.s - (size_t)n, "] %s", dtype_name(t->dt));
    return r;
}

/* t has type dt, nd dimensions, those of want[] that are >= 0, a stride that covers a row, and data unless
 * dry. */
static bool expect(ctx *c, const char *op, const char *name, const tensor *t, dtype dt, int nd,
                   const int64_t *want) {
    if (!ctx_ok(c)) return false;
    bool ok = t->nd == nd && t->dt == dt;
    int64_t row = 1;
    for (int i = 0; ok && i < nd; i++) {
        ok = t->d[i] >= 0 && (want[i] < 0 || t->d[i] == want[i]);
        if (i) row *= t->d[i];
    }
    if (!ok) {
        tensor e = {.dt = dt, .nd = nd};
        for (int i = 0; i < nd; i++) e.d[i] = want[i];
        return status_set(&c->st, ST_INTERNAL, "%s: %s: expected %s (-1: any), found %s", op, name,
                          describe(&e).s, describe(t).s);
    }
    if (t->d[0] > 1 && t->ld < row)
        return status_set(&c->st, ST_INTERNAL, "%s: %s: expected a stride of at least %lld, found %lld", op,
                          name, (long long)row, (long long)t->ld);
    if (!c->dry && !t->data && tensor_count(t) > 0)
        return status_set(&c->st, ST_INTERNAL, "%s: %s: expected data, found none", op, name);
    return true;
}
#define EXPECT(name, t, dt, ...)                                                                             \
    expect(c, op, name, &(t), dt, (int)ARRAY_LEN(((int64_t[]){__VA_ARGS__})), (int64_t[]){__VA_ARGS__})

static bool expect_packed(ctx *c, const char *op, const char *name, const tensor *t) {
    int64_t row = 1;
    for (int i = 1; i < t->nd; i++) row *= t->d[i];
    if (t->d[0] > 1 && t->ld != row)
        return status_set(&c->st, ST_INTERNAL,
                          "%s: %s: expected packed rows, found a stride of %lld for %lld", op, name,
                          (long long)t->ld, (long long)row);
    return true;
}

/* A weight of this backend that serves `use`; vectors have n numbers, matrices n columns (n < 0: any). */
static bool expect_weight(ctx *c, const char *op, const char *name, const weight *w, unsigned use,
                          int64_t n) {
    if (!ctx_ok(c)) return false;
    if (!w || w->be != c->be || !(w->use & use))
        return status_set(&c->st, ST_INTERNAL,
                          "%s: %s: expected a parameter of this backend and use %u, found %s", op, name, use,
                          w ? "another" : "none");
    int64_t have = use == WEIGHT_VECTOR ? w->rows * w->cols : w->cols;
    if (n >= 0 && have != n)
        return status_set(&c->st, ST_INTERNAL, "%s: %s: expected %lld numbers%s, found %lld", op, name,
                          (long long)n, use == WEIGHT_VECTOR ? "" : " a row", (long long)have);
    return true;
}

static bool expect_that(ctx *c, bool ok, const char *op, const char *what) {
    return ctx_ok(c) && (ok || status_set(&c->st, ST_INTERNAL, "%s: expected %s", op, what));
}

/* After the checks: is there anything to launch? */
static bool launch(const ctx *c, const tensor *t) {
    return ctx_ok(c) && !c->dry && tensor_count(t) > 0;
}

/* The same of an op that may want work memory. */
static bool launch_or_ask(const ctx *c, const tensor *t) {
    return ctx_ok(c) && (!c->dry || c->be->ops->get_memory) && tensor_count(t) > 0;
}

/* ---- transfers ---- */

void ctx_upload(ctx *c, tensor dst, const void *src) {
    const char *op = "upload";
    if (ctx_ok(c) && expect_packed(c, op, "destination", &dst) &&
        expect_that(c, c->dry || dst.data || tensor_count(&dst) == 0, op, "a destination") && launch(c, &dst))
        c->be->ops->upload(c, dst, src);
}

void ctx_download(ctx *c, void *dst, tensor src) {
    const char *op = "download";
    if (ctx_ok(c) && expect_packed(c, op, "source", &src) &&
        expect_that(c, c->dry || src.data || tensor_count(&src) == 0, op, "a source") && launch(c, &src))
        c->be->ops->download(c, dst, src);
}

void ctx_fetch(ctx *c, void *dst, tensor src) {
    const char *op = "fetch";
    if (!ctx_ok(c) || !expect_packed(c, op, "source", &src) ||
        !expect_that(c, c->dry || src.data || tensor_count(&src) == 0, op, "a source") || !launch(c, &src))
        return;
    (c->be->ops->fetch ? c->be->ops->fetch : c->be->ops->download)(c, dst, src);
}

void ctx_sync(ctx *c) {
    if (ctx_ok(c) && !c->dry) c->be->ops->sync(c);
}

/* ---- order of work ---- */

backend_mark *mark_new(backend *be, status *st) {
    backend_mark *m = mem_calloc(1, sizeof *m);
    if (!m) {
        status_set(st, ST_NO_MEMORY, "no memory for a mark");
        return NULL;
    }
    m->be = be;
    if (!be->ops->mark_init || be->ops->mark_init(m, st)) return m;
    mem_free(m);
    return NULL;
}

void mark_free(backend_mark *m) {
    if (m && m->be->ops->mark_fini) m->be->ops->mark_fini(m);
    mem_free(m);
}

void ctx_mark(ctx *c, backend_mark *m) {
    if (!ctx_ok(c) || c->dry || !c->be->ops->mark) return;
    c->be->ops->mark(c, m);
    m->set = ctx_ok(c);
}

bool mark_reached(const backend_mark *m) {
    return !m->set || m->be->ops->reached(m);
}

void ctx_wait(ctx *c, backend_mark *m) {
    if (ctx_ok(c) && m->set) c->be->ops->wait(c, m);
}

bool backend_has_clock(const backend *be) {
    return be->ops->stamp != NULL;
}

backend_stamp *stamp_new(backend *be, status *st) {
    CHECK(backend_has_clock(be));
    backend_stamp *s = mem_calloc(1, sizeof *s);
    if (!s) {
        status_set(st, ST_NO_MEMORY, "no memory for a stamp");
        return NULL;
    }
    s->be = be;
    if (be->ops->stamp_init(s, st)) return s;
    mem_free(s);
    return NULL;
}

void stamp_free(backend_stamp *s) {
    if (s) s->be->ops->stamp_fini(s);
    mem_free(s);
}

void ctx_stamp(ctx *c, backend_stamp *s) {
    if (ctx_ok(c) && !c->dry) c->be->ops->stamp(c, s);
}

double stamp_seconds(const backend_stamp *from, const backend_stamp *to) {
    return from->be->ops->stamp_seconds(from, to);
}

void ctx_capture_begin(ctx *c) {
    CHECK(backend_is_async(c->be) && !c->dry);
    if (ctx_ok(c)) c->be->ops->capture_begin(c);
}

backend_graph *ctx_capture_end(ctx *c) {
    backend_graph *g = mem_calloc(1, sizeof *g);
    if (!g) status_set(&c->st, ST_NO_MEMORY, "no memory for a graph");
    backend_graph none = {.be = c->be};
    if (g) *g = none;
    c->be->ops->capture_end(c, g ? g : &none); /* the lane stops capturing in any case */
    if (ctx_ok(c)) return g;
    backend_graph_free(g);
    return NULL;
}

void ctx_replay(ctx *c, const backend_graph *g) {
    CHECK(c->lane == g->lane);
    if (ctx_ok(c)) c->be->ops->replay(c, g);
}

size_t backend_graph_bytes(const backend_graph *g) {
    return g->bytes;
}

void backend_graph_free(backend_graph *g) {
    if (g) g->be->ops->graph_fini(g);
    mem_free(g);
}

/* ---- ops ---- */

/* The type that is expected of y: its own, where ops write 16-bit numbers at all. */
static dtype rounded(const ctx *c, const tensor *y) {
    return c->be->narrows && is_float(y->dt) ? y->dt : DT_F32;
}

static bool linear_rounds(const ctx *c, int64_t rows) {
    return c->be->rounds_from && rows >= c->be->rounds_from;
}

dtype op_linear_takes(const ctx *c, int64_t rows, const weight *w) {
    return w && linear_rounds(c, rows) ? w->dt : DT_F32;
}

tensor ctx_factor(ctx *c, dtype t, int64_t rows, int64_t width) {
    if (t == DT_F32) return ctx_2d(c, DT_F32, rows, width);
    const int64_t wide = c->be->rounds_from - 1, half = (rows + 1) / 2; /* rows of f32 */
    tensor f = ctx_2d(c, DT_F32, half > wide ? half : wide, width);
    return tensor_2d(f.data, t, rows, width);
}

static void linears(ctx *c, const char *op, tensor x, const linear_to *to, int n, act a, unsigned flags) {
    linear_to some[LINEARS]; /* those with work to do */
    int n_some = 0;
    if (!ctx_ok(c) || !expect_that(c, n >= 1 && n <= LINEARS, op, "one to three")) return;
    for (int i = 0; i < n; i++) {
        const linear_to *t = &to[i];
        if (!EXPECT("x", x, x.dt == DT_F32 ? DT_F32 : op_linear_takes(c, x.d[0], t->w), -1, -1) ||
            !expect_weight(c, op, "w", t->w, WEIGHT_LINEAR, x.d[1]) ||
            !EXPECT("y", t->y, (flags & LINEAR_ADD) || !linear_rounds(c, x.d[0]) ? DT_F32 : rounded(c, &t->y),
                    x.d[0], t->w->rows) ||
            (t->b && !expect_weight(c, op, "bias", t->b, WEIGHT_VECTOR, t->w->rows)))
            return;
        if (launch_or_ask(c, &t->y)) some[n_some++] = *t;
    }
    if (n_some > 0) c->be->ops->linear(c, x, some, n_some, a, flags);
}

void op_linear(ctx *c, tensor y, tensor x, const weight *w, const weight *b, act a, unsigned flags) {
    linears(c, "linear", x, &(linear_to){y, w, b}, 1, a, flags);
}

void op_linears(ctx *c, tensor x, const linear_to *to, int n) {
    linears(c, "linears", x, to, n, ACT_NONE, 0);
}

void op_norm(ctx *c, tensor y, tensor x, const weight *gain, const weight *bias, norm_kind kind, float eps,
             float gain_offset) {
    const char *op = "norm";
    if (!ctx_ok(c)) return;
    if (x.nd == 2 && y.nd == 2) { /* [N,D] as [N,1,D] */
        x.nd = y.nd = 3;
        x.d[2] = x.d[1];
        y.d[2] = y.d[1];
        x.d[1] = y.d[1] = 1;
    }
    if (!EXPECT("x", x, DT_F32, -1, -1, -1) || !EXPECT("y", y, rounded(c, &y), x.d[0], x.d[1], x.d[2]) ||
        (gain && !expect_weight(c, op, "gain", gain, WEIGHT_VECTOR, x.d[2])) ||
        (bias && !expect_weight(c, op, "bias", bias, WEIGHT_VECTOR, x.d[2])))
        return;
    if (launch(c, &y)) c->be->ops->norm(c, y, x, gain, bias, kind, eps, gain_offset);
}

void op_add(ctx *c, tensor y, tensor x) {
    const char *op = "add";
    if (EXPECT("y", y, DT_F32, -1, -1) && EXPECT("x", x, DT_F32, y.d[0], y.d[1]) && launch(c, &y))
        c->be->ops->add(c, y, x, NULL);
}

void op_add_scaled(ctx *c, tensor y, tensor x, const weight *gain) {
    const char *op = "add_scaled";
    if (EXPECT("y", y, DT_F32, -1, -1) && EXPECT("x", x, DT_F32, y.d[0], y.d[1]) &&
        expect_weight(c, op, "gain", gain, WEIGHT_VECTOR, y.d[1]) && launch(c, &y))
        c->be->ops->add(c, y, x, gain);
}

static bool norm_fits(ctx *c, const char *op, const norm_by *n, int64_t width) {
    return !n || ((!n->gain || expect_weight(c, op, "gain", n->gain, WEIGHT_VECTOR, width)) &&
                  (!n->bias || expect_weight(c, op, "bias", n->bias, WEIGHT_VECTOR, width)));
}

void op_add_norm(ctx *c, tensor x, tensor h, const norm_by *before, const weight *scale, tensor y,
                 const norm_by *after) {
    const char *op = "add_norm";
    if (EXPECT("x", x, DT_F32, -1, -1) && EXPECT("h", h, DT_F32, x.d[0], x.d[1]) &&
        (!after || EXPECT("y", y, rounded(c, &y), x.d[0], x.d[1])) && norm_fits(c, op, before, x.d[1]) &&
        norm_fits(c, op, after, x.d[1]) &&
        (!scale || expect_weight(c, op, "scale", scale, WEIGHT_VECTOR, x.d[1])) && launch(c, &x))
        c->be->ops->add_norm(c, x, h, before, scale, y, after);
}

void op_copy(ctx *c, tensor y, tensor x) {
    const char *op = "copy";
    if (EXPECT("y", y, DT_F32, -1, -1) && EXPECT("x", x, DT_F32, y.d[0], y.d[1]) && launch(c, &y))
        c->be->ops->copy(c, y, x);
}

void op_act(ctx *c, tensor y, act a) {
    const char *op = "act";
    if (EXPECT("y", y, DT_F32, -1, -1) && launch(c, &y)) c->be->ops->act(c, y, a);
}

void op_softcap(ctx *c, tensor y, float cap) {
    const char *op = "softcap";
    if (EXPECT("y", y, DT_F32, -1, -1) && expect_that(c, cap > 0, op, "a cap over 0") && launch(c, &y))
        c->be->ops->softcap(c, y, cap);
}

void op_glu(ctx *c, tensor y, tensor gate, tensor up, act a) {
    const char *op = "glu";
    if (EXPECT("y", y, rounded(c, &y), -1, -1) && EXPECT("gate", gate, DT_F32, y.d[0], y.d[1]) &&
        EXPECT("up", up, DT_F32, y.d[0], y.d[1]) && launch(c, &y))
        c->be->ops->glu(c, y, gate, up, a);
}

void op_embed_splice(ctx *c, tensor y, const weight *table, tensor ids, float scale, const row_run *runs,
                     int n) {
    const char *op = "embed";
    if (!EXPECT("y", y, DT_F32, -1, -1) || !EXPECT("ids", ids, DT_I32, y.d[0]) ||
        !expect_weight(c, op, "table", table, WEIGHT_TABLE, y.d[1]))
        return;
    for (int64_t i = 0, end = 0; i < n; end = runs[i].row + runs[i].rows.d[0], i++)
        if (!EXPECT("run", runs[i].rows, DT_F32, -1, y.d[1]) ||
            !expect_that(c, runs[i].row >= end && runs[i].row + runs[i].rows.d[0] <= y.d[0], op,
                         "runs within the rows, rising"))
            return;
    if (launch(c, &y)) c->be->ops->embed(c, y, table, ids, scale, false, runs, n);
}

void op_embed(ctx *c, tensor y, const weight *table, tensor ids, float scale) {
    op_embed_splice(c, y, table, ids, scale, NULL, 0);
}

void op_embed_add(ctx *c, tensor y, const weight *table, tensor ids) {
    const char *op = "embed_add";
    if (EXPECT("y", y, DT_F32, -1, -1) && EXPECT("ids", ids, DT_I32, y.d[0]) &&
        expect_weight(c, op, "table", table, WEIGHT_TABLE, y.d[1]) && launch(c, &y))
        c->be->ops->embed(c, y, table, ids, 1.0f, true, NULL, 0);
}

void op_gather(ctx *c, tensor y, tensor x, tensor idx) {
    const char *op = "gather";
    if (EXPECT("y", y, DT_F32, -1, -1) && EXPECT("x", x, DT_F32, -1, y.d[1]) &&
        EXPECT("idx", idx, DT_I32, y.d[0]) && launch(c, &y))
        c->be->ops->gather(c, y, x, idx);
}

static bool mix_fits(ctx *c, const char *op, tensor y, tensor from, tensor by) {
    return EXPECT("y", y, DT_F32, -1, -1) && EXPECT("from", from, DT_I32, y.d[0], -1) &&
           (by.nd == 0 || EXPECT("by", by, DT_F32, y.d[0], from.d[1])) &&
           expect_that(c, from.ld == from.d[1] && (by.nd == 0 || by.ld == by.d[1]), op, "packed taps");
}

void op_mix(ctx *c, tensor y, tensor x, tensor from, tensor by) {
    const char *op = "mix";
    if (mix_fits(c, op, y, from, by) && EXPECT("x", x, DT_F32, -1, y.d[1]) && launch(c, &y))
        c->be->ops->mix(c, y, x, NULL, from, by);
}

void op_embed_mix(ctx *c, tensor y, const weight *table, tensor from, tensor by) {
    const char *op = "embed_mix";
    if (mix_fits(c, op, y, from, by) && expect_weight(c, op, "table", table, WEIGHT_TABLE, y.d[1]) &&
        launch(c, &y))
        c->be->ops->mix(c, y, (tensor){0}, table, from, by);
}

void op_rope_table(ctx *c, tensor cs, tensor pos, tensor len, const rope_args *a) {
    const char *op = "rope_table";
    if (!EXPECT("cs", cs, DT_F32, -1, -1, 2) ||
        !expect_weight(c, op, "inv_freq", a->inv_freq, WEIGHT_VECTOR, cs.d[1]))
        return;
    if (!a->axis ? !EXPECT("pos", pos, DT_I32, cs.d[0])
                 : !EXPECT("pos", pos, DT_I32, cs.d[0], -1) ||
                       !expect_weight(c, op, "axis", a->axis, WEIGHT_VECTOR, cs.d[1]))
        return;
    if (a->dyn_factor > 0) {
        if (!expect_that(c, a->max_pos > 0 && a->theta > 0 && cs.d[1] > 1, op,
                         "max_pos, theta and a width over 2") ||
            ((len.data || c->dry) && len.nd && !EXPECT("len", len, DT_I32, cs.d[0])))
            return;
    }
    if (launch(c, &cs)) c->be->ops->rope_table(c, cs, pos, len, a);
}

void op_rope(ctx *c, tensor x, tensor cs) {
    const char *op = "rope";
    if (EXPECT("x", x, DT_F32, -1, -1, -1) && EXPECT("cs", cs, DT_F32, x.d[0], -1, 2) &&
        expect_that(c, 2 * cs.d[1] <= x.d[2], op, "a table no wider than a head") && launch(c, &x) &&
        launch(c, &cs))
        c->be->ops->rope(c, x, cs);
}

/* Pages for kv heads of hd numbers each; kv_heads -1: any. */
static bool pages_fit(ctx *c, const char *op, tensor kc, tensor vc, int64_t kv_heads, int64_t hd) {
    const dtype t = is_float(kc.dt) ? kc.dt : DT_F32;
    return EXPECT("k pages", kc, t, -1, kv_heads, KV_PAGE_TOK, hd) &&
           EXPECT("v pages", vc, t, kc.d[0], kc.d[1], KV_PAGE_TOK, hd) &&
           expect_packed(c, op, "k pages", &kc) && expect_packed(c, op, "v pages", &vc);
}

static bool kv_fits(ctx *c, const char *op, tensor kc, tensor vc, tensor k, tensor v, tensor slots) {
    return EXPECT("k", k, DT_F32, -1, -1, -1) && EXPECT("v", v, DT_F32, k.d[0], k.d[1], k.d[2]) &&
           pages_fit(c, op, kc, vc, k.d[1], k.d[2]) && EXPECT("slots", slots, DT_I32, k.d[0]);
}

void op_kv_write(ctx *c, tensor kc, tensor vc, tensor k, tensor v, tensor slots) {
    if (kv_fits(c, "kv_write", kc, vc, k, v, slots) && launch(c, &k))
        c->be->ops->kv_write(c, kc, vc, k, v, slots);
}

void op_rope_kv_write(ctx *c, tensor q, tensor k, tensor v, tensor cs, tensor kc, tensor vc, tensor slots) {
    const char *op = "rope_kv_write";
    if (kv_fits(c, op, kc, vc, k, v, slots) && EXPECT("q", q, DT_F32, k.d[0], -1, k.d[2]) &&
        EXPECT("cs", cs, DT_F32, k.d[0], -1, 2) &&
        expect_that(c, 2 * cs.d[1] <= k.d[2], op, "a table no wider than a head") && launch(c, &k))
        c->be->ops->rope_kv_write(c, q, k, v, cs, kc, vc, slots);
}

void op_attn(ctx *c, tensor y, tensor q, tensor k, tensor v, const attn_args *a) {
    const char *op = "attn";
    const bool paged = a->pages.nd != 0;
    if (!EXPECT("q", q, DT_F32, -1, -1, -1) || !EXPECT("y", y, rounded(c, &y), q.d[0], q.d[1], q.d[2]))
        return;
    if (paged) {
        if (!pages_fit(c, op, k, v, -1, q.d[2]) || !EXPECT("pages", a->pages, DT_I32, a->n_seqs, -1)) return;
    } else if (!EXPECT("k", k, DT_F32, a->n_seqs == 1 ? -1 : q.d[0], -1, q.d[2]) ||
               !EXPECT("v", v, DT_F32, k.d[0], k.d[1], q.d[2])) {
        return;
    }
    if (!expect_that(c, a->n_seqs >= 0, op, "a number of sequences") ||
        !expect_that(c, is_float(a->narrow), op, "a float type to narrow to") ||
        !expect_that(c, y.dt == DT_F32 || y.dt == a->narrow, op, "y of f32 or of the type to narrow to") ||
        !EXPECT("q_start", a->q_start, DT_I32, (int64_t)a->n_seqs + 1) ||
        !EXPECT("kv_len", a->kv_len, DT_I32, a->n_seqs) ||
        (a->limit.nd && !EXPECT("limit", a->limit, DT_I32, q.d[0])) ||
        !expect_that(c, k.d[1] > 0 ? q.d[1] % k.d[1] == 0 : q.d[1] == 0, op,
                     "query heads a multiple of kv heads"))
        return;
    if (launch_or_ask(c, &y) && a->n_seqs > 0) c->be->ops->attn(c, y, q, k, v, a);
}

void op_patchify(ctx *c, tensor x, tensor pixels, const patchify_args *a) {
    const char *op = "patchify";
    if (!EXPECT("pixels", pixels, DT_U8, -1, -1, 3) || !expect_that(c, a->patch > 0, op, "a patch size"))
        return;
    int64_t p = a->patch, n = (pixels.d[0] / p) * (pixels.d[1] / p), frames = a->frames > 1 ? a->frames : 1;
    if (a->order.nd && !EXPECT("order", a->order, DT_I32, x.d[0])) return;
    if (EXPECT("x", x, DT_F32, a->order.nd ? -1 : n, 3 * frames * p * p) &&
        expect_that(c, !a->channels_last || frames == 1, op, "one frame with channels last") && launch(c, &x))
        c->be->ops->patchify(c, x, pixels, a);
}

static void pair_loss(ctx *c, const char *op, tensor loss, tensor terms, tensor logits, bool sigmoid) {
    int64_t n = logits.d[0];
    if (EXPECT("logits", logits, DT_F32, n, n) && EXPECT("terms", terms, DT_F32, n) &&
        EXPECT("loss", loss, DT_F32, 1) && launch(c, &logits))
        c->be->ops->pair_loss(c, loss, terms, logits, sigmoid);
}

void op_info_nce(ctx *c, tensor loss, tensor terms, tensor logits) {
    pair_loss(c, "info_nce", loss, terms, logits, false);
}

void op_sigmoid_loss(ctx *c, tensor loss, tensor terms, tensor logits) {
    pair_loss(c, "sigmoid_loss", loss, terms, logits, true);
}

void op_sample(ctx *c, tensor logits, tensor rules, tensor results) {
    const char *op = "sample";
    if (!EXPECT("logits", logits, DT_F32, -1, -1) || !EXPECT("rules", rules, DT_I32, -1) ||
        !EXPECT("results", results, DT_I32, logits.d[0], SAMPLE_RESULT_WORDS) ||
        !expect_packed(c, op, "results", &results) ||
        !expect_that(c, logits.d[0] == 0 || logits.d[1] > 0, op, "a vocabulary") ||
        !expect_that(c, rules.d[0] >= logits.d[0] * SAMPLE_RULE_WORDS, op, "a rule for each row"))
        return;
    if (launch_or_ask(c, &logits)) c->be->ops->sample(c, logits, rules, results);
}

void op_next_ids(ctx *c, tensor ids, tensor from, tensor results) {
    const char *op = "next_ids";
    if (EXPECT("ids", ids, DT_I32, -1) && EXPECT("from", from, DT_I32, ids.d[0]) &&
        EXPECT("results", results, DT_I32, -1, SAMPLE_RESULT_WORDS) &&
        expect_packed(c, op, "results", &results) && launch(c, &ids))
        c->be->ops->next_ids(c, ids, from, results);
}
