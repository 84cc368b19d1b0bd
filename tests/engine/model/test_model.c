/* test_model.c - whole forward passes against goldens of the reference library (tests/golden/models and, of families whose
 * pictures stand among the text's rows, tests/golden/families), and the promises
 * that no reference makes: a row's bits do not depend on chunks or company, a dry run measures what a run takes. */
#include <dirent.h>
#include <jansson.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "engine/model/model.h"

#define GOLDEN   "tests/golden/models"
#define FAMILIES "tests/golden/families"
enum { MAX_TOK = 640, MAX_SEQS = 3, PAGES_A_SEQ = MAX_TOK / KV_PAGE_TOK };

/* ---- a rig: one model, a small KV pool with its pages in no order ------------------------------------------------ */

typedef struct rig {
    backend *be;
    model *m;
    arena scratch;
    ctx c;
    kv_pool kv;
    char *pools;
    int32_t *ints;
    int n_ints, used;
} rig;

/* VLMD_DEVICE=cuda: the goldens on a GPU, or on the emulated one. */
static const char *device(void) {
    const char *name = getenv("VLMD_DEVICE");
    return name ? name : "cpu";
}
static bool on_gpu(void) {
    return strncmp(device(), "cuda", 4) == 0;
}

/* VLMD_SHORT: prompts and two steps of the small ones, for where a step takes seconds. */
static int short_of(int steps) {
    return getenv("VLMD_SHORT") && steps > 2 ? 2 : steps;
}

static void rig_open(rig *r, const char *dir, const char *isa) {
    status st = {0};
    memset(r, 0, sizeof *r);
    backend_options o = {.device = device(), .threads = 2, .isa = isa, .deterministic = true};
    r->be = backend_new(&o, &st);
    if (!r->be) fail_msg("%s", st.msg);
    r->m = model_load(dir, r->be, &st);
    if (!r->m) fail_msg("%s", st.msg);
    const stack_spec *s = &model_get_spec(r->m)->text.stack;
    int pages = MAX_SEQS * PAGES_A_SEQ + 1;
    size_t one = (size_t)pages * (size_t)s->kv_heads * KV_PAGE_TOK * (size_t)s->head_dim * sizeof(float);
    r->pools = backend_alloc(r->be, one * 2 * (size_t)s->n_layers, &st);
    r->n_ints = 16384;
    r->ints = backend_alloc(r->be, (size_t)r->n_ints * sizeof(int32_t), &st);
    assert_non_null(r->pools);
    r->kv = (kv_pool){.n_layers = s->n_layers, .n_pages = pages};
    r->kv.k = test_calloc((size_t)s->n_layers, sizeof(tensor));
    r->kv.v = test_calloc((size_t)s->n_layers, sizeof(tensor));
    for (int i = 0; i < s->n_layers; i++)
        for (int k = 0; k < 2; k++) {
            int64_t d[] = {pages, s->kv_heads, KV_PAGE_TOK, s->head_dim};
            (k ? r->kv.v : r->kv.k)[i] = tensor_of(r->pools + one * (size_t)(2 * i + k), DT_F32, 4, d);
        }
    const size_t room = 64u << 20;
    r->scratch = (arena){.base = backend_alloc(r->be, room, &st), .cap_bytes = room};
    assert_non_null(r->scratch.base);
    r->c = (ctx){.be = r->be, .scratch = &r->scratch};
}

static void rig_close(rig *r) {
    backend_release(r->be, r->scratch.base);
    test_free(r->kv.k);
    test_free(r->kv.v);
    backend_release(r->be, r->pools);
    backend_release(r->be, r->ints);
    model_free(r->m);
    backend_free(r->be);
}

static int page_of(int seq, int k) {
    return 1 + (PAGES_A_SEQ - 1 - k) * MAX_SEQS + seq;
}

typedef struct part { /* rows [from, to) of a sequence's ids; -1 where a picture's row stands */
    int seq, from, to, prompt_len;
    const int32_t *ids;
    encode **pics;
} part;

static tensor upload(rig *r, const int32_t *v, int n) {
    assert_true(r->used + n <= r->n_ints);
    tensor t = tensor_1d(r->ints + r->used, DT_I32, n);
    ctx_upload(&r->c, t, v);
    r->used += (n + 15) & ~15;
    return t;
}

/* The keys that row t sees where it attends both ways: its prompt's, or those of the run of picture rows around it. */
static int32_t limit_of(const rig *r, const part *p, int t) {
    both_ways kind = model_get_spec(r->m)->both_ways;
    if (kind == BOTH_PROMPT) return t < p->prompt_len ? p->prompt_len : 0;
    if (kind == BOTH_NONE || p->ids[t] >= 0) return 0;
    while (t < p->prompt_len && p->ids[t] < 0) t++;
    return t;
}

/* Where row t stands for a rope of picture, line and column: text by one number, a picture's rows by its grid, and what comes
 * behind it goes on from its longer side. */
static void place_of(const rig *r, const part *p, int t, int32_t at[ROPE_MAX_AXES]) {
    const model_spec *s = model_get_spec(r->m);
    int side = s->tower.patch * s->join.merge, next = 0;
    encode **pic = p->pics;
    for (int i = 0; i < t || p->ids[i] < 0;) {
        if (p->ids[i] >= 0) {
            next++, i++;
            continue;
        }
        tile one = prep_plan_tile(encode_plan(*pic), 0);
        int w = one.w / side, h = one.h / side, k = t - i;
        if (k < w * h) {
            at[0] = next, at[1] = next + k / w, at[2] = next + k % w;
            return;
        }
        next += w > h ? w : h;
        i += w * h;
        pic++;
    }
    at[0] = at[1] = at[2] = next;
}

/* One step over parts; the logits of each part's last row into out[n][vocab]. */
static void rig_step(rig *r, const part *parts, int n, float *out) {
    static int32_t ids[4096], pos[4096 * ROPE_MAX_AXES], len[4096], slots[4096], limits[4096];
    int32_t start[MAX_SEQS + 1] = {0}, kv_len[MAX_SEQS], outs[MAX_SEQS], pages[MAX_SEQS * PAGES_A_SEQ];
    row_run splices[256];
    struct step_source sources[256];
    step s = {.n_seqs = n, .n_out = n, .splices = splices, .sources = sources};
    int axes = model_get_spec(r->m)->text.stack.rope.axes > 1 ? ROPE_MAX_AXES : 1;
    for (int i = 0; i < n; i++) {
        const part *p = &parts[i];
        int pic_row = 0;
        for (int t = 0; t < p->from; t++) pic_row += p->ids[t] < 0;
        for (int t = p->from; t < p->to; t++, s.n_rows++) {
            ids[s.n_rows] = p->ids[t];
            pos[s.n_rows * axes] = t;
            if (axes > 1) place_of(r, p, t, pos + s.n_rows * axes);
            len[s.n_rows] = t + 1 > p->prompt_len ? t + 1 : p->prompt_len;
            slots[s.n_rows] = page_of(p->seq, t / KV_PAGE_TOK) * KV_PAGE_TOK + t % KV_PAGE_TOK;
            limits[s.n_rows] = limit_of(r, p, t);
            if (p->ids[t] >= 0) continue;
            encode **pic = p->pics;
            int row = pic_row++;
            for (; row >= (int)encode_rows(*pic).d[0]; pic++) row -= (int)encode_rows(*pic).d[0];
            tensor one = tensor_rows(encode_rows(*pic), row, 1);
            row_run *last = s.n_splices ? &splices[s.n_splices - 1] : NULL;
            if (last && row && last->row + last->rows.d[0] == s.n_rows) {
                last->rows.d[0]++;
            } else {
                splices[s.n_splices] = (row_run){s.n_rows, one};
                sources[s.n_splices++] = (struct step_source){*pic, row};
            }
            assert_true(s.n_splices < (int)ARRAY_LEN(splices));
        }
        start[i + 1] = s.n_rows;
        kv_len[i] = p->to;
        outs[i] = s.n_rows - 1;
        for (int k = 0; k < PAGES_A_SEQ; k++) pages[i * PAGES_A_SEQ + k] = page_of(p->seq, k);
    }
    r->used = 0;
    s.ids = upload(r, ids, s.n_rows);
    s.pos = upload(r, pos, s.n_rows * axes);
    if (axes > 1) s.pos = tensor_2d(s.pos.data, DT_I32, s.n_rows, axes);
    s.rope_len = upload(r, len, s.n_rows);
    s.slots = upload(r, slots, s.n_rows);
    if (model_get_spec(r->m)->both_ways) s.limit = upload(r, limits, s.n_rows);
    s.q_start = upload(r, start, n + 1);
    s.kv_len = upload(r, kv_len, n);
    s.out_rows = upload(r, outs, n);
    tensor p = upload(r, pages, n * PAGES_A_SEQ);
    s.pages = tensor_2d(p.data, DT_I32, n, PAGES_A_SEQ);
    size_t mark = arena_mark(&r->scratch);
    tensor logits = decoder_forward(&r->c, r->m, &r->kv, &s);
    if (!ctx_ok(&r->c)) fail_msg("%s", r->c.st.msg);
    ctx_download(&r->c, out, logits);
    arena_reset(&r->scratch, mark);
}

/* ---- goldens ---------------------------------------------------------------------------------------------------- */

typedef struct prompt_case {
    int32_t ids[MAX_TOK];
    int n, n_pics;
    encode *pics[8];
} prompt_case;

/* What stands in either folder; *path holds it until the next call. */
static const char *found(const char *name) {
    static char path[512];
    snprintf(path, sizeof path, GOLDEN "/%s", name);
    FILE *f = fopen(path, "r");
    if (!f) snprintf(path, sizeof path, FAMILIES "/%s", name);
    if (f) fclose(f);
    return path;
}

static void read_file(const char *path, buf *out) {
    FILE *f = fopen(path, "rb");
    if (!f) fail_msg("%s is missing", path);
    char block[4096];
    size_t k;
    while ((k = fread(block, 1, sizeof block, f)) > 0) buf_append(out, block, k);
    fclose(f);
}

static encode *encode_picture(rig *r, const char *name, int n_images, int slices) {
    status st = {0};
    char path[128];
    buf file = {0};
    image raw = {0};
    prep_plan plan;
    tiles ready = {0};
    snprintf(path, sizeof path, "pictures/%s", name);
    read_file(found(path), &file);
    const model_spec *s = model_get_spec(r->m);
    if (!image_decode_bytes(file.data, file.len, &IMAGE_LIMITS_DEFAULT, &raw, &st) ||
        !spec_plan_image(s, &(image_ask){raw.w, raw.h, n_images}, &IMAGE_LIMITS_DEFAULT, &plan, &st) ||
        !tiles_make(&plan, &raw, &ready, &st))
        fail_msg("%s: %s", name, st.msg);
    encode *e = encode_new(r->m, r->be, &ready, &st);
    if (!e) fail_msg("%s", st.msg);
    int calls = 0;
    while (!encode_run(&r->c, e, slices)) {
        if (!ctx_ok(&r->c)) fail_msg("%s", r->c.st.msg);
        assert_true(++calls < 1000);
    }
    encode_shrink(e);
    image_fini(&raw);
    tiles_fini(&ready);
    buf_fini(&file);
    return e;
}

static void prepare(rig *r, const json_t *c, int slices, prompt_case *p) {
    const model_spec *s = model_get_spec(r->m);
    const json_t *ids = json_object_get(c, "prompt_ids"), *messages = json_object_get(c, "messages");
    memset(p, 0, sizeof *p);
    p->n = (int)json_array_size(ids);
    assert_true(p->n + 32 < MAX_TOK);
    int32_t token = s->image_token;
    if (s->pictures_in_front) token = (int32_t)json_integer_value(json_array_get(ids, 0));
    int rows = 0;
    for (int i = 0; i < p->n; i++) {
        p->ids[i] = (int32_t)json_integer_value(json_array_get(ids, (size_t)i));
        if (p->ids[i] == token) p->ids[i] = -1, rows++;
    }
    const char *paths[8];
    size_t i, k;
    json_t *m, *piece;
    json_array_foreach((json_t *)(uintptr_t)messages, i, m) {
        json_array_foreach(json_object_get(m, "content"), k, piece) {
            const char *path = json_string_value(json_object_get(piece, "path"));
            if (path) paths[p->n_pics++] = path;
        }
    }
    for (int pic = 0; pic < p->n_pics; pic++) p->pics[pic] = encode_picture(r, paths[pic], p->n_pics, slices);
    for (int pic = 0; pic < p->n_pics; pic++) rows -= (int)encode_rows(p->pics[pic]).d[0];
    assert_int_equal(rows, 0);
}

static void prompt_done(prompt_case *p) {
    for (int i = 0; i < p->n_pics; i++) encode_free(p->pics[i]);
}

static json_t *load_golden(const char *path) {
    json_error_t e;
    json_t *j = json_load_file(path, 0, &e);
    if (!j) fail_msg("%s: %s", path, e.text);
    return j;
}

static double log_sum(const float *x, int n) {
    double max = x[0], sum = 0;
    for (int i = 1; i < n; i++) max = x[i] > max ? x[i] : max;
    for (int i = 0; i < n; i++) sum += exp(x[i] - max);
    return max + log(sum);
}

static double g_worst;

static void compare_step(const char *what, const json_t *c, int step_no, const float *logits, int vocab) {
    const json_t *top = json_array_get(json_object_get(c, "top"), (size_t)step_no);
    int best = 0;
    for (int i = 1; i < vocab; i++) best = logits[i] > logits[best] ? i : best;
    double lse = log_sum(logits, vocab);
    size_t k;
    json_t *pair;
    json_array_foreach((json_t *)(uintptr_t)top, k, pair) {
        int id = (int)json_integer_value(json_array_get(pair, 0));
        double want = json_real_value(json_array_get(pair, 1)), diff = fabs(logits[id] - lse - want);
        if (diff > g_worst) g_worst = diff;
        if (!(diff <= 1e-3))
            fail_msg("%s: %s: step %d: log-prob of %d is %.5f, the reference says %.5f", what,
                     json_string_value(json_object_get(c, "name")), step_no, id, logits[id] - lse, want);
    }
    assert_int_equal(best, json_integer_value(json_array_get(json_object_get(c, "tokens"), (size_t)step_no)));
}

static void run_golden(const char *name, const char *dir, const char *golden, const char *isa) {
    rig r;
    rig_open(&r, dir, isa);
    json_t *g = load_golden(golden), *c;
    int vocab = model_get_spec(r.m)->text.vocab;
    float *logits = test_malloc((size_t)vocab * sizeof(float));
    size_t i;
    g_worst = 0;
    json_array_foreach(json_object_get(g, "cases"), i, c) {
        prompt_case p;
        if (getenv("VLMD_SHORT") && strncmp(dir, FAMILIES, strlen(FAMILIES)) == 0 && i % 4 != 3) continue;
        prepare(&r, c, 1 << 20, &p);
        const json_t *tokens = json_object_get(c, "tokens");
        int steps = short_of((int)json_array_size(tokens));
        part one = {.seq = 0, .from = 0, .to = p.n, .prompt_len = p.n, .ids = p.ids, .pics = p.pics};
        for (int t = 0; t < steps; t++) {
            rig_step(&r, &one, 1, logits);
            compare_step(name, c, t, logits, vocab);
            p.ids[one.to] = (int32_t)json_integer_value(json_array_get(tokens, (size_t)t));
            one.from = one.to++;
        }
        prompt_done(&p);
    }
    print_message("%s: worst log-prob difference %.1e\n", name, g_worst);
    json_decref(g);
    test_free(logits);
    rig_close(&r);
}

static int no_dots(const struct dirent *d) {
    return d->d_name[0] != '.';
}

/* Rows of pictures among the text's are all that the rig knows. */
static bool is_spliced(const char *dir) {
    buf text = {0};
    bool ok = model_inspect(dir, &text, NULL) && strstr(text.data, "in place of the placeholder");
    buf_fini(&text);
    return ok;
}

static int run_folder(const char *folder, bool spliced) {
    struct dirent **list;
    int n = scandir(folder, &list, no_dots, alphasort), ran = 0;
    for (int i = 0; i < n; i++) {
        char dir[400], golden[500];
        snprintf(dir, sizeof dir, "%s/%s", folder, list[i]->d_name);
        snprintf(golden, sizeof golden, "%s/golden.json", dir);
        FILE *f = fopen(golden, "r");
        if (f) fclose(f);
        if (f && (!spliced || is_spliced(dir))) {
            run_golden(list[i]->d_name, dir, golden, NULL);
            ran++;
        }
        free(list[i]);
    }
    if (n >= 0) free(list);
    return ran;
}

static void test_goldens(void **state) {
    (void)state;
    assert_true(run_folder(GOLDEN, false) >= 8);
}

static void test_families(void **state) {
    (void)state;
    assert_true(run_folder(FAMILIES, true) >= 19);
}

static void test_bundled(void **state) {
    (void)state;
    if (getenv("VLMD_SHORT")) skip();
    run_golden("vlmd-tiny", "models/vlmd-tiny", GOLDEN "/vlmd_tiny.json", NULL);
}

static void test_portable_path(void **state) {
    (void)state;
    if (on_gpu()) skip();
    run_golden("clip_llama (portable)", GOLDEN "/clip_llama", GOLDEN "/clip_llama/golden.json", "portable");
    run_golden("siglip_qwen3_layers (portable)", GOLDEN "/siglip_qwen3_layers",
               GOLDEN "/siglip_qwen3_layers/golden.json", "portable");
}

/* ---- promises ------------------------------------------------------------------------------------------------------ */

/* Chunks of any size, company in the batch, and a tower stopped at every slice change no bit. */
static void invariance(const char *name) {
    char path[256];
    rig r;
    rig_open(&r, found(name), NULL);
    snprintf(path, sizeof path, "%s/golden.json", name);
    json_t *g = load_golden(found(path)), *cases = json_object_get(g, "cases");
    int vocab = model_get_spec(r.m)->text.vocab;
    size_t bytes = (size_t)vocab * sizeof(float), n_cases = json_array_size(cases);
    float *alone = test_malloc(bytes), *got = test_malloc(3 * bytes);
    prompt_case a, b, other;
    prepare(&r, json_array_get(cases, n_cases - 1), 1 << 20, &a);
    prepare(&r, json_array_get(cases, n_cases - 1), 1, &b);
    prepare(&r, json_array_get(cases, 0), 1 << 20, &other);
    part whole = {.seq = 0, .to = a.n, .prompt_len = a.n, .ids = a.ids, .pics = a.pics};
    rig_step(&r, &whole, 1, alone);
    for (int chunk = 1; chunk <= 19; chunk += 6) {
        part p = {.seq = 1, .prompt_len = b.n, .ids = b.ids, .pics = b.pics};
        part company[3] = {
            {.seq = 0, .to = other.n, .prompt_len = other.n, .ids = other.ids, .pics = other.pics}};
        company[2] = company[0];
        company[2].seq = 2;
        while (p.to < b.n) {
            p.from = p.to;
            p.to = p.from + chunk < b.n ? p.from + chunk : b.n;
            company[1] = p;
            rig_step(&r, company, 3, got);
        }
        assert_memory_equal(got + vocab, alone, bytes);
    }
    prompt_done(&a);
    prompt_done(&b);
    prompt_done(&other);
    test_free(alone);
    test_free(got);
    json_decref(g);
    rig_close(&r);
}

static void test_invariance(void **state) {
    (void)state;
    if (getenv("VLMD_SHORT")) skip();
    invariance("clip_llama");
    invariance("siglip_qwen2_full");
    invariance("clip_mistral_window");
    invariance("dynamic_rope");
    invariance("text_qwen2");
    invariance("qwen2_5_vl");
    invariance("qwen3_vl");
    invariance("text_gemma3");
    invariance("text_opt_after");
    invariance("llava_onevision");
    invariance("internvl_llama");
    invariance("idefics3");
}

static void test_dry_run_measures(void **state) {
    (void)state;
    rig r;
    rig_open(&r, GOLDEN "/clip_llama", NULL);
    const model_spec *s = model_get_spec(r.m);
    arena none = {0};
    ctx dry = {.be = r.be, .scratch = &none, .dry = true};
    kv_pool kv = r.kv;
    enum { N = 37 };
    step st = {.n_rows = N, .n_seqs = 1, .n_out = 2};
    st.ids = st.pos = st.rope_len = st.slots = tensor_1d(NULL, DT_I32, N);
    st.q_start = tensor_1d(NULL, DT_I32, 2);
    st.kv_len = tensor_1d(NULL, DT_I32, 1);
    st.pages = tensor_2d(NULL, DT_I32, 1, PAGES_A_SEQ);
    st.out_rows = tensor_1d(NULL, DT_I32, 2);
    decoder_forward(&dry, r.m, &kv, &st);
    if (!ctx_ok(&dry)) fail_msg("%s", dry.st.msg);
    assert_true(none.peak_bytes > (size_t)N * (size_t)s->text.stack.width * sizeof(float));
    tiles unread = {0};
    assert_true(spec_plan_image(s, &(image_ask){90, 70, 1}, &IMAGE_LIMITS_DEFAULT, &unread.plan, NULL));
    encode *e = encode_new(r.m, r.be, &unread, NULL);
    assert_non_null(e);
    assert_true(encode_run(&dry, e, encode_slices(e)));
    encode_free(e);
    /* The same numbers suffice for the real run. */
    size_t peak = none.peak_bytes;
    r.scratch.peak_bytes = 0;
    prompt_case p;
    json_t *g = load_golden(GOLDEN "/clip_llama/golden.json");
    prepare(&r, json_array_get(json_object_get(g, "cases"), 3), 1, &p);
    assert_true(r.scratch.peak_bytes <= peak);
    part one = {.to = N < p.n ? N : p.n, .prompt_len = p.n, .ids = p.ids, .pics = p.pics};
    float *logits = test_malloc((size_t)s->text.vocab * sizeof(float));
    rig_step(&r, &one, 1, logits);
    assert_true(r.scratch.peak_bytes <= peak);
    test_free(logits);
    prompt_done(&p);
    json_decref(g);
    rig_close(&r);
}

/* What vlmd understood of a checkpoint, in words. */
static void says(const char *dir, const char *const *words) {
    status st = {0};
    buf out = {0};
    if (!model_inspect(dir, &out, &st)) fail_msg("%s: %s", dir, st.msg);
    for (; *words; words++)
        if (!strstr(out.data, *words)) fail_msg("%s: \"%s\" is not in\n%s", dir, *words, out.data);
    buf_fini(&out);
}

static void test_inspect(void **state) {
    (void)state;
    says("models/vlmd-tiny", (const char *const[]){"36 tokens", "post_layernorm", "[2048, 192]", NULL});
    says(FAMILIES "/qwen2_vl",
         (const char *const[]){"784 to 7840 pixels in all", "each 2 times as a still among frames",
                               "half of the pairs by line, half by column", "in sections of 1, 2, 2",
                               "blocks of 2 x 2 rows side by side, layer norm of each before",
                               "of 200 x 1600 pixels 34", NULL});
    says(FAMILIES "/qwen2_5_vl",
         (const char *const[]){"6 x 6 patches in 2 of 3 layers", "RMS norm of each before", NULL});
    says(FAMILIES "/blip2_old",
         (const char *const[]){"a Q-Former: 131 learned queries", "linear, 30 to 36, bias",
                               "1 of 2 layers then attend to other rows as well, 33 wide",
                               "131 tokens before all text; at most 1 in a prompt", NULL});
    says(FAMILIES "/instructblip_old",
         (const char *const[]){
             "131 learned queries, normed, and behind them the text that is read with the picture, up to 140 "
             "tokens of a vocabulary of 141",
             "behind the queries' layers linear, 30 to 36, bias",
             "at most 140 tokens of qformer_tokenizer, is read with it", "stops at     id 1, id 2\n",
             "position_ids", "behind the last layer only the queries are read", NULL});
    says(FAMILIES "/blip_vqa",
         (const char *const[]){
             "join: a text encoder: the text that is read with the picture, up to 150 tokens",
             "2 of 2 layers then attend to other rows as well, 24 wide",
             "attends to the question's rows, 384 bytes of keys and values each", "begins with id 138 alone",
             "one user message of one picture and one text", "layer-normed, positions included",
             "and a layer norm; a bias", "stops at     id 3\n", "head tied to the embedding", NULL});
    says(FAMILIES "/blip_vqa_old",
         (const char *const[]){"the other bias counts", "its own head", "197 rows", "a plain count", NULL});
    says(FAMILIES "/qwen3_vl",
         (const char *const[]){"a table of 7 x 7, resampled", "in turn, up to 4, 3, 3",
                               "hidden state 1 is added behind the decoder's layer 0",
                               "through blocks of 2 x 2 rows side by side, layer norm, two-layer", NULL});
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bundled),    cmocka_unit_test(test_goldens),
        cmocka_unit_test(test_families),   cmocka_unit_test(test_portable_path),
        cmocka_unit_test(test_invariance), cmocka_unit_test(test_dry_run_measures),
        cmocka_unit_test(test_inspect),
    };
    log_set_level(LOG_ERROR);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
