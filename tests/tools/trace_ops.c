/* trace_ops.c - where the time of a decode step, a prefill and an encode goes, op by op, on the device that serves: each op lies
 * between two stamps of the device's clock (on a CPU, where an op is done when it returns, of the host's).
 *
 *   build/tests/tools/trace_ops FOLDER [--device NAME] [--deterministic] [--decode N] [--past N] [--prefill N] [--encode N]
 *
 * --decode: a step of so many sequences, --past keys (1024) behind each; --prefill: so many rows of one sequence; --encode: so
 * many pictures at once. Steps are launched op by op, behind another that keeps the device busy meanwhile, so that what is seen
 * of an op is what it takes there; a stamp takes about a microsecond, which counts as between ops. The server replays decode
 * steps as graphs, without it. The folder may be one of random weights (tests/tools/random_checkpoint). Sizes are a line's last
 * words: of a linear rows x in -> out. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/runner.h"
#include "kernels/backend.h"

static void die(const char *what, const status *st) {
    fprintf(stderr, "trace_ops: %s: %s\n", what, st->msg);
    exit(1);
}

/* ---- ops between stamps ---- */

enum { MOST_CALLS = 1 << 14, MOST_KINDS = 256 };

typedef struct call {
    int kind;
    backend_stamp *from, *to;
    double begin, end; /* without a clock */
} call;

typedef struct kind {
    char name[96];
    int n;
    double seconds, bytes, flop; /* bytes of weights; of all calls */
} kind;

static const backend_ops *g_real;
static backend_ops g_traced;
static backend *g_be;
static call g_calls[MOST_CALLS];
static kind g_kinds[MOST_KINDS];
static int g_n_calls, g_n_kinds;
static bool g_on;

static kind *kind_of(const char *name) {
    int i = 0;
    while (i < g_n_kinds && strcmp(g_kinds[i].name, name) != 0) i++;
    if (i == g_n_kinds) {
        CHECK(g_n_kinds < MOST_KINDS);
        snprintf(g_kinds[g_n_kinds++].name, sizeof g_kinds[0].name, "%s", name);
    }
    return &g_kinds[i];
}

static void take_stamp(ctx *c, backend_stamp **s, double *host) {
    status st = {0};
    if (!backend_has_clock(g_be)) {
        *host = time_now_s();
        return;
    }
    if (!*s && !(*s = stamp_new(g_be, &st))) die("stamp", &st);
    ctx_stamp(c, *s);
}

/* NULL: this call is not to be seen. */
static call *begin(ctx *c, const char *name, double bytes, double flop) {
    if (!g_on || c->dry) return NULL;
    CHECK(g_n_calls < MOST_CALLS);
    call *x = &g_calls[g_n_calls++];
    kind *k = kind_of(name);
    k->bytes += bytes;
    k->flop += flop;
    x->kind = (int)(k - g_kinds);
    take_stamp(c, &x->from, &x->begin);
    return x;
}

static void end(ctx *c, call *x) {
    if (x) take_stamp(c, &x->to, &x->end);
}

#define TRACED(op, params, ...)                                                                              \
    static void traced_##op params {                                                                         \
        call *x = begin(c, #op, 0, 0);                                                                       \
        g_real->op(__VA_ARGS__);                                                                             \
        end(c, x);                                                                                           \
    }
TRACED(norm,
       (ctx * c, tensor y, tensor a, const weight *g, const weight *b, norm_kind how, float eps, float o), c,
       y, a, g, b, how, eps, o)
TRACED(add, (ctx * c, tensor y, tensor a, const weight *g), c, y, a, g)
TRACED(copy, (ctx * c, tensor y, tensor a), c, y, a)
TRACED(act, (ctx * c, tensor y, act a), c, y, a)
TRACED(softcap, (ctx * c, tensor y, float cap), c, y, cap)
TRACED(glu, (ctx * c, tensor y, tensor gate, tensor up, act a), c, y, gate, up, a)
TRACED(add_norm,
       (ctx * c, tensor a, tensor h, const norm_by *before, const weight *scale, tensor y,
        const norm_by *after),
       c, a, h, before, scale, y, after)
TRACED(embed,
       (ctx * c, tensor y, const weight *t, tensor ids, float scale, bool add, const row_run *runs, int n), c,
       y, t, ids, scale, add, runs, n)
TRACED(gather, (ctx * c, tensor y, tensor a, tensor idx), c, y, a, idx)
TRACED(mix, (ctx * c, tensor y, tensor a, const weight *t, tensor from, tensor by), c, y, a, t, from, by)
TRACED(rope_table, (ctx * c, tensor cs, tensor pos, tensor len, const rope_args *a), c, cs, pos, len, a)
TRACED(rope, (ctx * c, tensor a, tensor cs), c, a, cs)
TRACED(kv_write, (ctx * c, tensor kc, tensor vc, tensor k, tensor v, tensor slots), c, kc, vc, k, v, slots)
TRACED(rope_kv_write, (ctx * c, tensor q, tensor k, tensor v, tensor cs, tensor kc, tensor vc, tensor slots),
       c, q, k, v, cs, kc, vc, slots)
TRACED(patchify, (ctx * c, tensor a, tensor pixels, const patchify_args *p), c, a, pixels, p)
TRACED(sample, (ctx * c, tensor logits, tensor rules, tensor results), c, logits, rules, results)
TRACED(next_ids, (ctx * c, tensor ids, tensor from, tensor results), c, ids, from, results)
TRACED(upload, (ctx * c, tensor dst, const void *src), c, dst, src)

static void traced_linear(ctx *c, tensor a, const linear_to *to, int n, act after, unsigned flags) {
    char name[96];
    int at = snprintf(name, sizeof name, "linear %d x %d ->", (int)a.d[0], (int)a.d[1]);
    double weights = 0, bytes = 0;
    for (int i = 0; i < n; i++) {
        double w = (double)weight_dim(to[i].w, 0) * (double)a.d[1];
        at += snprintf(name + at, sizeof name - (size_t)at, " %d", (int)weight_dim(to[i].w, 0));
        weights += w;
        bytes += w * (double)dtype_size(weight_type(to[i].w));
    }
    call *x = begin(c, name, bytes, 2 * weights * (double)a.d[0]);
    g_real->linear(c, a, to, n, after, flags);
    end(c, x);
}

static void traced_attn(ctx *c, tensor y, tensor q, tensor k, tensor v, const attn_args *a) {
    char name[96];
    snprintf(name, sizeof name, "attn %d rows of %d, %d heads", (int)q.d[0], a->n_seqs, (int)q.d[1]);
    call *x = begin(c, name, 0, 0);
    g_real->attn(c, y, q, k, v, a);
    end(c, x);
}

static void trace(backend *be) {
    g_be = be;
    g_real = be->ops;
    g_traced = *g_real;
#define PUT(op) g_traced.op = traced_##op
    PUT(linear), PUT(norm), PUT(add), PUT(copy), PUT(act), PUT(softcap), PUT(glu), PUT(embed), PUT(gather);
    PUT(add_norm), PUT(mix), PUT(rope_table), PUT(rope), PUT(kv_write), PUT(rope_kv_write), PUT(attn),
        PUT(patchify);
    PUT(sample), PUT(next_ids), PUT(upload);
#undef PUT
    be->ops = &g_traced;
}

static void watch(bool on) {
    g_on = on;
    if (!on) return;
    g_n_calls = g_n_kinds = 0;
    memset(g_kinds, 0, sizeof g_kinds);
}

static int by_time(const void *a, const void *b) {
    double x = ((const kind *)a)->seconds, y = ((const kind *)b)->seconds;
    return (x < y) - (x > y);
}

/* Everything that was launched is over. */
static void print_calls(const char *what) {
    const call *first = &g_calls[0], *last = &g_calls[g_n_calls - 1];
    bool clock = backend_has_clock(g_be);
    double all = clock ? stamp_seconds(first->from, last->to) : last->end - first->begin, in_ops = 0;
    for (int i = 0; i < g_n_calls; i++) {
        const call *x = &g_calls[i];
        double s = clock ? stamp_seconds(x->from, x->to) : x->end - x->begin;
        g_kinds[x->kind].seconds += s;
        g_kinds[x->kind].n++;
        in_ops += s;
    }
    qsort(g_kinds, (size_t)g_n_kinds, sizeof g_kinds[0], by_time);
    printf("%s: %.3f ms, %d ops; between them %.3f ms\n", what, all * 1e3, g_n_calls, (all - in_ops) * 1e3);
    printf("%10s %6s %6s  %s\n", "ms", "share", "calls", "op");
    for (int i = 0; i < g_n_kinds; i++) {
        const kind *k = &g_kinds[i];
        printf("%10.3f %5.1f%% %6d  %s", k->seconds * 1e3, 100 * k->seconds / all, k->n, k->name);
        if (k->flop > 0)
            printf("  (%.0f GB/s of weights, %.1f TFLOP/s)", k->bytes / k->seconds / 1e9,
                   k->flop / k->seconds / 1e12);
        printf("\n");
    }
    printf("\n");
}

/* ---- steps and pictures ---- */

typedef struct sizes {
    int decode, past, prefill, encode;
} sizes;

/* n sequences of `rows` rows behind `past` keys each, all on pages of their own as far as there are any. */
static void fill(runner *r, int n, int rows, int past) {
    batch *b = &r->batch;
    const int pages = kv_pages_of(past + rows), have = r->kv.n_pages - 1;
    batch_clear(b);
    batch_pad(b, n, rows);
    for (int s = 0; s < n; s++) {
        b->kv_len[s] = past + rows;
        for (int k = 0; k < pages; k++) b->pages[s * b->max_pages + k] = 1 + (s * pages + k) % have;
        for (int i = b->q_start[s]; i < b->q_start[s + 1]; i++) {
            int pos = past + i - b->q_start[s];
            b->ids[i] = pos % 1000;
            for (int a = 0; a < b->axes; a++) b->pos[i * b->axes + a] = pos;
            b->rope_len[i] = past + rows;
            b->slots[i] = b->pages[s * b->max_pages + pos / KV_PAGE_TOK] * KV_PAGE_TOK + pos % KV_PAGE_TOK;
        }
    }
}

/* Twice: the first time kernels are loaded and products get their plans. */
static void run_step(runner *r, const char *what, int n, int rows, int past) {
    status st = {0};
    for (int round = 0; round < 2; round++) {
        int slots[2];
        fill(r, 1, r->batch.block_rows < 512 ? r->batch.block_rows : 512, 0);
        if ((slots[0] = runner_launch(r, &st)) < 0) die("a step before", &st);
        watch(round == 1);
        fill(r, n, rows, past);
        if ((slots[1] = runner_launch(r, &st)) < 0) die(what, &st);
        watch(false);
        for (int i = 0; i < 2; i++)
            if (!runner_results(r, slots[i], &st)) die(what, &st);
    }
    print_calls(what);
}

static void run_encode(runner *r, const model *m, int n) {
    status st = {0};
    const tower_spec *t = &model_get_spec(m)->tower;
    tiles all = {0};
    char what[64];
    if (!spec_plan_image(model_get_spec(m), &(image_ask){t->image_size, t->image_size, 1},
                         &IMAGE_LIMITS_DEFAULT, &all.plan, &st))
        die("plan", &st);
    image in = {t->image_size, t->image_size, mem_calloc((size_t)t->image_size * (size_t)t->image_size, 3)};
    if (!in.rgb || !tiles_make(&all.plan, &in, &all, &st)) die("pixels", &st);
    const tiles **pixels = mem_calloc((size_t)n, sizeof *pixels);
    encode **made = mem_calloc((size_t)n, sizeof *made);
    CHECK(pixels && made);
    for (int i = 0; i < n; i++) pixels[i] = &all;
    snprintf(what, sizeof what, "encode of %d pictures", n);
    for (int round = 0; round < 2; round++) {
        if (!encode_new_many(m, g_be, pixels, n, made, &st)) die("encode", &st);
        watch(round == 1);
        while (!runner_encode(r, made[0], &st))
            if (st.code != ST_OK) die("encode", &st);
        watch(false);
        runner_mark_encodes(r, &st);
        if (!runner_wait_encodes(r, &st)) die("encode", &st);
        for (int i = 0; i < n; i++) encode_free(made[i]);
    }
    print_calls(what);
    mem_free(pixels);
    mem_free(made);
    tiles_fini(&all);
    image_fini(&in);
}

static void run(backend *be, const char *dir, const sizes *z) {
    status st = {0};
    char what[64];
    runner r;
    model *m = model_load(dir, be, &st);
    if (!m) die("load", &st);
    int rows = z->prefill > 512 ? z->prefill : 512, seqs = z->decode > 1 ? z->decode : 1;
    int len = z->past + 1 > rows ? z->past + 1 : rows;
    runner_options o = {.max_rows = rows > seqs ? rows : seqs,
                        .max_seqs = seqs,
                        .max_len = len,
                        .n_pages = 1 + seqs * kv_pages_of(z->past + 1) + kv_pages_of(rows),
                        .kv_type = backend_kv_type(be, model_weight_dtype(m)),
                        .no_graphs = true};
    trace(be);
    if (!runner_init(&r, be, m, &o, &st)) die("start", &st);
    printf("%s, %s\n\n", backend_describe(be), dir);
    snprintf(what, sizeof what, "decode step of %d sequences, %d keys each", z->decode, z->past);
    if (z->decode) run_step(&r, what, z->decode, 1, z->past);
    snprintf(what, sizeof what, "prefill of %d rows", z->prefill);
    if (z->prefill) run_step(&r, what, 1, z->prefill, 0);
    if (z->encode) run_encode(&r, m, z->encode);
    for (int i = 0; i < MOST_CALLS; i++) {
        stamp_free(g_calls[i].from);
        stamp_free(g_calls[i].to);
    }
    runner_fini(&r);
    model_free(m);
}

int main(int argc, char **argv) {
    status st = {0};
    sizes z = {.past = 1024};
    backend_options o = {.device = "auto"};
    const char *dir = NULL;
    for (int i = 1; i < argc; i++) {
        const struct {
            const char *name;
            int *to;
        } numbers[] = {
            {"--decode", &z.decode}, {"--past", &z.past}, {"--prefill", &z.prefill}, {"--encode", &z.encode}};
        bool found = false;
        for (size_t k = 0; k < ARRAY_LEN(numbers) && i + 1 < argc && !found; k++)
            if ((found = strcmp(argv[i], numbers[k].name) == 0)) *numbers[k].to = atoi(argv[++i]);
        if (found) continue;
        if (strcmp(argv[i], "--device") == 0 && i + 1 < argc)
            o.device = argv[++i];
        else if (strcmp(argv[i], "--deterministic") == 0)
            o.deterministic = true;
        else if (argv[i][0] != '-')
            dir = argv[i];
        else
            dir = NULL, argc = 0;
    }
    if (!dir || z.decode < 0 || z.past < 0 || z.prefill < 0 || z.encode < 0 ||
        z.decode + z.prefill + z.encode == 0) {
        fprintf(stderr, "usage: trace_ops FOLDER [--device NAME] [--deterministic] [--decode N] [--past N] "
                        "[--prefill N] "
                        "[--encode N]\n");
        return 2;
    }
    backend *be = backend_new(&o, &st);
    if (!be) die("backend", &st);
    run(be, dir, &z);
    backend_free(be);
    return 0;
}
