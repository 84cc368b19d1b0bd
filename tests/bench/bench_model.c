/* bench_model.c - whole passes as ratios to bounds measured in the same run: a picture through ViT-L/14-336 against
 * sgemm, decode of a 1.1B bf16 decoder against the memory's read bandwidth, its prefill against sgemm.
 *
 * The checkpoints are random and written once to build/bench. Thread: main, and the backend's. */
#include <cblas.h>
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/tools/one_tile.h"
#include "tests/tools/random_weights.h"

static const char VIT_CONFIG[] = "{\"model_type\":\"llava\",\"text_config\":{\"model_type\":\"llama\","
                                 "\"hidden_size\":1024,\"intermediate_size\":64,"
                                 "\"num_hidden_layers\":1,\"num_attention_heads\":8,\"vocab_size\":64}}\n";
static const char VIT_PREP[] =
    "{\"image_processor_type\":\"CLIPImageProcessor\",\"size\":{\"shortest_edge\":336},"
    "\"crop_size\":{\"height\":336,\"width\":336}}\n";
static const char TEXT_CONFIG[] =
    "{\"model_type\":\"llama\",\"hidden_size\":2048,\"intermediate_size\":5632,\"num_hidden_layers\":22,"
    "\"num_attention_heads\":32,\"num_key_value_heads\":4,\"vocab_size\":32000,\"max_position_embeddings\":"
    "2048}\n";

static int g_threads;

static void die(const char *what, const status *st) {
    fprintf(stderr, "bench_model: %s: %s\n", what, st ? st->msg : strerror(errno));
    _Exit(1);
}

static void write_file(const char *dir, const char *name, const char *text) {
    char path[256];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    FILE *f = fopen(path, "w");
    if (!f || fputs(text, f) < 0 || fclose(f) != 0) die(path, NULL);
}

/* Written once; a later run finds it. */
static void checkpoint(const char *dir, const char *config, const char *prep) {
    status st = {0};
    char path[256], done[256];
    snprintf(path, sizeof path, "%s/model.safetensors", dir);
    snprintf(done, sizeof done, "%s/done", dir);
    if (access(done, F_OK) == 0) return;
    mkdir("build", 0777);
    mkdir("build/bench", 0777);
    mkdir(dir, 0777);
    write_file(dir, "config.json", config);
    if (prep) write_file(dir, "preprocessor_config.json", prep);
    if (!random_weights(dir, DT_BF16, 7, &st)) die(dir, &st);
    write_file(dir, "done", "1\n");
}

/* ---- bounds ---------------------------------------------------------------------------------------------------------- */

typedef struct reader {
    const uint64_t *p;
    size_t n;
    uint64_t sum;
} reader;

static void *read_all(void *arg) {
    reader *r = arg;
    uint64_t s[8] = {0};
    for (size_t i = 0; i + 8 <= r->n; i += 8)
        for (int k = 0; k < 8; k++) s[k] += r->p[i + (size_t)k];
    for (int k = 0; k < 8; k++) r->sum += s[k];
    return NULL;
}

/* Bytes a second that all cores together read. */
static double read_bandwidth(void) {
    size_t n = (size_t)512 << 20;
    uint64_t *p = mem_aligned(4096, n);
    if (!p) die("memory", NULL);
    memset(p, 1, n);
    double best = 0;
    uint64_t sum = 0;
    for (int run = 0; run < 5; run++) {
        reader r[64];
        pthread_t t[64];
        double from = time_now_s();
        for (int i = 0; i < g_threads; i++) {
            r[i] = (reader){.p = p + n / 8 / (size_t)g_threads * (size_t)i, .n = n / 8 / (size_t)g_threads};
            pthread_create(&t[i], NULL, read_all, &r[i]);
        }
        for (int i = 0; i < g_threads; i++) {
            pthread_join(t[i], NULL);
            sum += r[i].sum;
        }
        double rate = (double)n / (time_now_s() - from);
        if (rate > best) best = rate;
    }
    if (sum == 1) puts("");
    mem_free(p);
    return best;
}

/* Flop a second of OpenBLAS on all cores, x[n,k] w[m,k]^T. */
static double sgemm_rate(int n, int m, int k) {
    float *x = mem_aligned(64, (size_t)n * (size_t)k * 4), *w = mem_aligned(64, (size_t)m * (size_t)k * 4);
    float *y = mem_aligned(64, (size_t)n * (size_t)m * 4);
    if (!x || !w || !y) die("memory", NULL);
    for (size_t i = 0; i < (size_t)n * (size_t)k; i++) x[i] = (float)(i % 7) - 3;
    for (size_t i = 0; i < (size_t)m * (size_t)k; i++) w[i] = (float)(i % 5) - 2;
    double best = 0;
    openblas_set_num_threads(g_threads); /* the backend keeps it at one thread a call */
    for (int run = 0; run < 4; run++) {
        double from = time_now_s();
        cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, n, m, k, 1, x, k, w, k, 0, y, m);
        double rate = 2.0 * n * m * k / (time_now_s() - from);
        if (rate > best) best = rate;
    }
    openblas_set_num_threads(1);
    mem_free(x);
    mem_free(w);
    mem_free(y);
    return best;
}

/* ---- passes ------------------------------------------------------------------------------------------------------------ */

static void bench_tower(backend *be, arena *scratch) {
    status st = {0};
    checkpoint("build/bench/vit-l", VIT_CONFIG, VIT_PREP);
    model *m = model_load("build/bench/vit-l", be, &st);
    if (!m) die("load", &st);
    const tower_spec *t = &model_get_spec(m)->tower;
    tiles im = one_tile(t->image_size, t->image_size, NULL);
    if (!im.rgb) die("memory", NULL);
    for (size_t i = 0; i < im.plan.bytes; i++) im.rgb[i] = (uint8_t)(i * 31);
    double best = 1e9;
    for (int run = 0; run < 3 && (run == 0 || best < 4); run++) {
        ctx c = {.be = be, .scratch = scratch};
        encode *e = encode_new(m, be, &im, &st);
        if (!e) die("encode", &st);
        double from = time_now_s();
        encode_run(&c, e, encode_slices(e));
        double took = time_now_s() - from;
        if (!ctx_ok(&c)) die("encode", &c.st);
        if (took < best) best = took;
        encode_free(e);
    }
    tiles_fini(&im);
    double side = t->image_size / t->patch, n = side * side + (t->cls ? 1 : 0), d = t->stack.width,
           f = t->stack.ffn, p = 3.0 * t->patch * t->patch;
    double square = sgemm_rate((int)n, (int)d, (int)d), wide = sgemm_rate((int)n, (int)f, (int)d);
    double narrow = sgemm_rate((int)n, (int)d, (int)f);
    double bound =
        2 * n * p * d / square + t->run_layers * (2 * n * 4 * d * d / square + 4 * n * n * d / square +
                                                  2 * n * d * f / wide + 2 * n * d * f / narrow);
    printf(
        "tower ViT-L/14-336: %.0f ms a picture; sgemm bound %.0f ms (%.0f, %.0f, %.0f GFLOP/s): ratio %.2f\n",
        best * 1e3, bound * 1e3, square / 1e9, wide / 1e9, narrow / 1e9, bound / best);
    model_free(m);
}

typedef struct table {
    int32_t *host, *dev;
    int n;
    ctx *c;
} table;

static tensor put(table *t, const int32_t *v, int n) {
    tensor r = tensor_1d(t->dev + t->n, DT_I32, n);
    ctx_upload(t->c, r, v);
    t->n += (n + 15) & ~15;
    return r;
}

/* One step of rows [from, to) for n_seqs sequences alike; returns seconds. */
static double one_step(ctx *c, const model *m, const kv_pool *kv, table *t, int n_seqs, int pages_a_seq,
                       int from, int to) {
    static int32_t ids[2048], pos[2048], slots[2048], start[65], len[64], outs[64], pages[8192];
    int n = 0;
    for (int s = 0; s < n_seqs; s++) {
        for (int i = from; i < to; i++, n++) {
            ids[n] = (i * 37 + s) % 32000;
            pos[n] = i;
            slots[n] = (1 + s * pages_a_seq + i / KV_PAGE_TOK) * KV_PAGE_TOK + i % KV_PAGE_TOK;
        }
        start[s + 1] = n;
        len[s] = to;
        outs[s] = n - 1;
        for (int k = 0; k < pages_a_seq; k++) pages[s * pages_a_seq + k] = 1 + s * pages_a_seq + k;
    }
    t->n = 0;
    step st = {.n_rows = n, .n_seqs = n_seqs, .n_out = n_seqs};
    st.ids = put(t, ids, n);
    st.pos = put(t, pos, n);
    st.rope_len = st.pos;
    st.slots = put(t, slots, n);
    st.q_start = put(t, start, n_seqs + 1);
    st.kv_len = put(t, len, n_seqs);
    st.out_rows = put(t, outs, n_seqs);
    tensor p = put(t, pages, n_seqs * pages_a_seq);
    st.pages = tensor_2d(p.data, DT_I32, n_seqs, pages_a_seq);
    arena_reset(c->scratch, 0);
    double begin = time_now_s();
    decoder_forward(c, m, kv, &st);
    if (!ctx_ok(c)) die("forward", &c->st);
    return time_now_s() - begin;
}

static void bench_decoder(backend *be, arena *scratch) {
    status st = {0};
    checkpoint("build/bench/text-1.1b", TEXT_CONFIG, NULL);
    model *m = model_load("build/bench/text-1.1b", be, &st);
    if (!m) die("load", &st);
    enum { SEQS = 8, PAGES_A_SEQ = 32, PREFILL = 256 };
    const text_spec *t = &model_get_spec(m)->text;
    const stack_spec *k = &t->stack;
    tensor pools[2][SPEC_MAX_LAYERS];
    int64_t d[] = {SEQS * PAGES_A_SEQ + 1, k->kv_heads, KV_PAGE_TOK, k->head_dim};
    for (int i = 0; i < 2 * k->n_layers; i++) {
        void *p = backend_alloc(be, (size_t)(d[0] * d[1] * d[2] * d[3]) * 4, &st);
        if (!p) die("pools", &st);
        pools[i % 2][i / 2] = tensor_of(p, DT_F32, 4, d);
    }
    kv_pool kv = {k->n_layers, (int)d[0], pools[0], pools[1]};
    ctx c = {.be = be, .scratch = scratch};
    table ints = {.dev = backend_alloc(be, 65536 * sizeof(int32_t), &st), .c = &c};
    if (!ints.dev) die("ints", &st);
    one_step(&c, m, &kv, &ints, 1, PAGES_A_SEQ, 0, 8); /* pages the weights in */

    double linear = 0; /* parameters of all matrices but the embedding, which is looked up */
    for (int i = 0; i < L_COUNT; i++) {
        int64_t s[2];
        unsigned use;
        if (layer_slot_shape(k, 0, (layer_slot)i, s, &use) == 2)
            linear += (double)s[0] * (double)s[1] * k->n_layers;
    }
    double head = (double)t->vocab * k->width,
           bytes = (linear + head) * (double)dtype_size(model_weight_dtype(m));
    double best = 1e9;
    for (int i = 0; i < 3 && (i == 0 || best < 4); i++) {
        double took = one_step(&c, m, &kv, &ints, 1, PAGES_A_SEQ, 0, PREFILL);
        if (took < best) best = took;
    }
    double rate = sgemm_rate(PREFILL, k->ffn, k->width), bound = 2 * linear * PREFILL / rate;
    printf("prefill 1.1B bf16, %d rows: %.0f tok/s; sgemm bound %.0f tok/s (%.0f GFLOP/s f32): ratio %.2f\n",
           PREFILL, PREFILL / best, PREFILL / bound, rate / 1e9, bound / best);
    double bandwidth = read_bandwidth();
    for (int seqs = 1; seqs <= SEQS; seqs *= 8) {
        best = 1e9;
        for (int i = 0; i < 12; i++) {
            double took = one_step(&c, m, &kv, &ints, seqs, PAGES_A_SEQ, PREFILL + i, PREFILL + i + 1);
            if (took < best) best = took;
        }
        /* Whichever is slower: reading the weights once, or multiplying them with every sequence's row. */
        double read_s = bytes / bandwidth, multiply_s = 2 * (linear + head) * seqs / rate;
        double least = read_s > multiply_s ? read_s : multiply_s;
        printf("decode 1.1B bf16, %d sequence%s: %.1f tok/s; %s bound %.1f tok/s (%.1f GB/s, %.0f GFLOP/s): "
               "ratio %.2f\n",
               seqs, seqs > 1 ? "s" : "", seqs / best, least == read_s ? "read" : "sgemm", seqs / least,
               bandwidth / 1e9, rate / 1e9, least / best);
    }
    for (int i = 0; i < 2 * k->n_layers; i++) backend_release(be, pools[i % 2][i / 2].data);
    backend_release(be, ints.dev);
    model_free(m);
}

int main(void) {
    status st = {0};
    arena scratch;
    backend_options o = {.device = "cpu"};
    backend *be = backend_new(&o, &st);
    if (!be || !arena_init(&scratch, (size_t)256 << 20, &st)) die("start", &st);
    g_threads = (int)sysconf(_SC_NPROCESSORS_ONLN);
    if (g_threads > 64) g_threads = 64;
    log_set_level(LOG_ERROR);
    printf("bench_model: %s\n", backend_describe(be));
    bench_tower(be, &scratch);
    bench_decoder(be, &scratch);
    arena_fini(&scratch);
    backend_free(be);
    return 0;
}
