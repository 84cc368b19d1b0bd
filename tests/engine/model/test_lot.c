/* test_lot.c - pictures that go through tower and join together, on the small checkpoints of the reference's tests: whoever is in
 * the lot, however large a block of rows is and wherever a slice ends, each picture's rows are those of the picture alone in
 * blocks of 128 rows, bit for bit; a lot takes no more memory than its pictures alone, and no more scratch than was measured; and
 * where a block has room for all of them, no more launches than for one. After blank pictures of every kind, pictures need no
 * plan of a product that there is none of yet.
 * VLMD_DEVICE chooses the device, whose bits are then promised ones. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "engine/model/encode.h"
#include "kernels/backend.h"
#include "tests/tools/folder.h"
#include "tests/tools/random_weights.h"

enum { SCRATCH = 96 << 20, MOST = 6 };
static const char *const MODELS[] = {
    "models/clip_llama",         "models/linear_join",
    "models/both_ways_gemma3",   "dual/clip_base",
    "dual/siglip_base",          "dual/siglip2_naflex",
    "dual/siglip2_large_grid",   "families/llava_next_clip",
    "families/llava_next_qwen2", "families/llava_onevision",
    "families/internvl_qwen2",   "families/idefics2",
    "families/smolvlm",          "families/mllama",
    "families/qwen2_vl",         "families/qwen2_5_vl",
    "families/qwen3_vl",         "families/blip2",
    "families/blip_vqa",         "families/coca",
    "families/instructblip",
};
static const char *const SHORT[] = {"models/clip_llama", "families/llava_next_clip",
                                    "families/qwen2_5_vl"}; /* VLMD_SHORT */
static const int SIZES[MOST][2] = {{90, 70}, {90, 70}, {200, 60}, {40, 40}, {40, 40}, {64, 150}};

static const char *device(void) {
    const char *d = getenv("VLMD_DEVICE");
    return d && d[0] ? d : "cpu";
}

typedef struct rig {
    backend *be;
    model *m;
    arena scratch;
    ctx c;
} rig;

static void rig_open_as(rig *r, const char *dir, int encode_rows, bool deterministic) {
    status st = {0};
    backend_options o = {
        .device = device(), .threads = 2, .encode_rows = encode_rows, .deterministic = deterministic};
    *r = (rig){.be = backend_new(&o, &st)};
    if (r->be) r->m = model_load(dir, r->be, &st);
    if (!r->m) fail_msg("%s", st.msg);
    r->scratch = (arena){.base = backend_alloc(r->be, SCRATCH, &st), .cap_bytes = SCRATCH};
    if (!r->scratch.base) fail_msg("%s", st.msg);
    r->c = (ctx){.be = r->be, .scratch = &r->scratch};
}

static void rig_open(rig *r, const char *dir, int encode_rows) {
    rig_open_as(r, dir, encode_rows, true);
}

static void rig_close(rig *r) {
    backend_release(r->be, r->scratch.base);
    model_free(r->m);
    backend_free(r->be);
}

/* False: the model does not take a picture of this size. */
static bool make_tiles(const rig *r, int i, tiles *out) {
    const model_spec *s = model_get_spec(r->m);
    status st = {0};
    prep_plan made;
    image im = {SIZES[i][0], SIZES[i][1], NULL};
    if (!spec_plan_image(s, &(image_ask){im.w, im.h, 1}, &IMAGE_LIMITS_DEFAULT, &made, &st)) return false;
    im.rgb = malloc((size_t)im.w * (size_t)im.h * 3);
    assert_non_null(im.rgb);
    for (int k = 0; k < im.w * im.h * 3; k++)
        im.rgb[k] = (uint8_t)((uint32_t)(k + 7 * i) * 2654435761u >> 13);
    if (!tiles_make(&made, &im, out, &st)) fail_msg("%s", st.msg);
    free(im.rgb);
    if (s->reads.what != READS_NOTHING) { /* as engine/reads.c leaves it: a text of its own length */
        out->plan.n_text = 3 + i * i * s->reads.max_tok / 30;
        out->text = mem_calloc((size_t)out->plan.n_text, sizeof *out->text);
        for (int k = 0; k < out->plan.n_text; k++) out->text[k] = (7 * k + i) % s->reads.vocab;
    }
    return true;
}

static float *result_of(rig *r, const encode *e, size_t *n) {
    *n = (size_t)tensor_count(&e->sets);
    float *out = malloc(*n * sizeof *out);
    assert_non_null(out);
    ctx_download(&r->c, out, e->sets);
    if (!ctx_ok(&r->c)) fail_msg("%s", r->c.st.msg);
    return out;
}

static void run(rig *r, encode *e, int slices) {
    int calls = 1;
    for (arena_reset(&r->scratch, 0); !encode_run(&r->c, e, slices); calls++) {
        if (!ctx_ok(&r->c)) fail_msg("%s", r->c.st.msg);
        if (strcmp(device(), "cpu") == 0) memset(r->scratch.base, 0xFF, r->scratch.peak_bytes); /* NaN */
    }
    if (slices == 1) assert_int_equal(calls, encode_slices(e));
}

/* Scratch for any lot, by one of its pictures with the longest text that may be read. */
static size_t measured(rig *r, const tiles *pixels) {
    arena counting = {0};
    ctx dry = {.be = r->be, .scratch = &counting, .dry = true};
    tiles unread = {.plan = pixels->plan};
    status st = {0};
    unread.plan.n_text = r->m->spec.reads.max_tok;
    encode *e = encode_new(r->m, r->be, &unread, &st);
    if (!e) fail_msg("%s", st.msg);
    assert_true(encode_run(&dry, e, encode_slices(e)));
    encode_free(e);
    return counting.peak_bytes;
}

/* What the pictures of a lot may take, as each claims it, and what they do. */
static void check_memory(rig *r, encode *const *all, int n) {
    size_t claimed = 0, shared = lot_bytes(all[0]->lot), alone = 0;
    for (int i = 0; i < n; i++) {
        encode *one = all[i];
        claimed += encode_bytes(&r->m->spec, &one->plan);
        alone += lot_bytes(&(encode_lot){.s = &r->m->spec, .all = &one, .n = 1});
    }
    assert_true(shared > 0 && shared <= alone && alone < claimed);
}

/* From `from` on, n of them. Returns how many tiles did not need a pass of their own. */
static int check_lot(rig *r, const tiles *pixels, int from, int n, int slices, float *const *want) {
    const tiles *some[MOST] = {0};
    encode *all[MOST];
    status st = {0};
    for (int i = 0; i < n; i++) some[i] = &pixels[from + i];
    if (!encode_new_many(r->m, r->be, some, n, all, &st)) fail_msg("%s", st.msg);
    check_memory(r, all, n);
    run(r, all[n / 2], slices);
    int saved = 0;
    for (pass p = {0}; pass_next(all[0]->lot, &p);) saved += p.n - 1;
    for (int i = 0; i < n; i++) {
        size_t count;
        if (i % 2) encode_shrink(all[i]);
        float *got = result_of(r, all[i], &count);
        assert_memory_equal(got, want[from + i], count * sizeof *got);
        free(got);
        encode_free(all[i]);
    }
    return saved;
}

static void check_model(const char *dir, bool brief) {
    static const int block_rows[] = {128, 24, 300, 4096};
    tiles pixels[MOST] = {0};
    float *want[MOST];
    int n = 0, saved = 0;
    for (size_t b = 0; b < ARRAY_LEN(block_rows); b += brief ? 3 : 1) {
        rig r;
        rig_open(&r, dir, block_rows[b]);
        for (int i = 0; b == 0 && i < (brief ? 3 : MOST); i++) {
            if (!make_tiles(&r, i, &pixels[n])) continue;
            encode *e = encode_new(r.m, r.be, &pixels[n], NULL);
            assert_non_null(e);
            size_t count;
            run(&r, e, 1 << 20);
            want[n++] = result_of(&r, e, &count);
            encode_free(e);
        }
        assert_true(n >= 3);
        r.scratch.peak_bytes = 0;
        for (int i = 0; i < n && !brief; i++) check_lot(&r, pixels, i, 1, 3, want);
        saved += check_lot(&r, pixels, 0, n, 1, want);
        if (!brief) check_lot(&r, pixels, 1, 2, 1 << 20, want);
        size_t most = 0;
        for (int i = 0; i < n; i++) {
            size_t scratch = measured(&r, &pixels[i]);
            if (scratch > most) most = scratch;
            if (!tower_together(&r.m->spec.tower)) assert_true(r.scratch.peak_bytes <= scratch);
        }
        assert_true(r.scratch.peak_bytes <= most);
        rig_close(&r);
    }
    if (!strstr(dir, "mllama")) assert_true(saved > 0); /* some did go together */
    for (int i = 0; i < n; i++) {
        tiles_fini(&pixels[i]);
        free(want[i]);
    }
}

static void alone_equals_together(void **state) {
    (void)state;
    bool brief = getenv("VLMD_SHORT");
    const char *const *names = brief ? SHORT : MODELS;
    for (size_t i = 0; i < (brief ? ARRAY_LEN(SHORT) : ARRAY_LEN(MODELS)); i++) {
        char dir[200];
        print_message("%s\n", names[i]);
        snprintf(dir, sizeof dir, "tests/golden/%s", names[i]);
        check_model(dir, brief);
    }
}

/* ---- a tile that becomes more rows than it has, so that those of several fill more blocks than its own ---- */

static void more_rows_than_tiles(void **state) {
    (void)state;
    static const struct {
        const char *like, *part, *key; /* its config with another number of latents */
        int latents;
    } cases[] = {{"families/instructblip", NULL, "num_query_tokens", 200},
                 {"families/idefics2", "perceiver_config", "resampler_n_latents", 50},
                 {"families/blip_vqa", NULL, NULL, 0}};
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        char from[100];
        status st = {0};
        folder_new();
        snprintf(from, sizeof from, "tests/golden/%s", cases[i].like);
        assert_true(folder_copy(from, "config.json") && folder_copy(from, "processor_config.json"));
        json_t *config = json_load_file(folder_at("config.json"), 0, NULL),
               *part = cases[i].part ? json_object_get(config, cases[i].part) : config;
        if (cases[i].key) json_object_set_new(part, cases[i].key, json_integer(cases[i].latents));
        folder_put_json("config.json", config);
        json_decref(config);
        if (!random_weights(folder, DT_F32, 7, &st)) fail_msg("%s", st.msg);
        print_message("like %s\n", cases[i].like);
        check_model(folder, getenv("VLMD_SHORT"));
        folder_free();
    }
}

/* ---- launches ---- */

static const backend_ops *g_whole; /* of the backend whose ops a test has put its own in front of */
static int g_linears, g_attns;
static void counted_linear(ctx *c, tensor x, const linear_to *to, int n, act a, unsigned flags) {
    g_linears += !c->dry;
    g_whole->linear(c, x, to, n, a, flags);
}
static void counted_attn(ctx *c, tensor y, tensor q, tensor k, tensor v, const attn_args *a) {
    g_attns += !c->dry;
    g_whole->attn(c, y, q, k, v, a);
}

/* Of a lot of n pictures: passes, and launches but for a linear of each tile's patches. */
typedef struct launches {
    int passes, linears, attns;
} launches;
static launches launches_of(rig *r, const tiles *pixels, int n) {
    const tiles *some[MOST];
    encode *all[MOST];
    status st = {0};
    launches l = {0};
    for (int i = 0; i < n; i++) {
        some[i] = &pixels[i];
        l.linears -= pixels[i].plan.n_tiles;
    }
    if (!encode_new_many(r->m, r->be, some, n, all, &st)) fail_msg("%s", st.msg);
    for (pass p = {0}; pass_next(all[0]->lot, &p);) l.passes++;
    g_linears = g_attns = 0;
    run(r, all[0], 1 << 20);
    l.linears += g_linears;
    l.attns = g_attns;
    for (int i = 0; i < n; i++) encode_free(all[i]);
    return l;
}

static void one_launch_for_all(void **state) {
    (void)state;
    if (getenv("VLMD_SHORT")) skip(); /* they are the same on every device */
    static const struct {
        const char *name;
        bool linears, attns; /* those that are not counted are made for each picture */
    } cases[] = {{"models/clip_llama", true, true}, {"models/both_ways_gemma3", true, true},
                 {"families/blip2", true, true},    {"families/instructblip", true, true},
                 {"families/idefics2", true, true}, {"families/blip_vqa", false, true},
                 {"families/coca", false, true},    {"dual/clip_base", true, true},
                 {"dual/siglip_base", true, false}};
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        rig r;
        char dir[200];
        tiles pixels[2] = {0};
        snprintf(dir, sizeof dir, "tests/golden/%s", cases[i].name);
        rig_open(&r, dir, 4096);
        g_whole = r.be->ops;
        backend_ops counted = *g_whole;
        counted.linear = counted_linear;
        counted.attn = counted_attn;
        r.be->ops = &counted;
        for (int k = 0; k < 2; k++) assert_true(make_tiles(&r, k, &pixels[k]));
        launches one = launches_of(&r, pixels, 1), both = launches_of(&r, pixels, 2);
        int tiles_each = pixels[0].plan.n_tiles;
        assert_true(one.linears > 0 && one.attns > 0);
        if (tiles_each == 1) assert_int_equal(both.passes, 1);
        if (cases[i].linears) assert_int_equal(both.linears * one.passes, one.linears * both.passes);
        if (cases[i].attns) assert_int_equal(both.attns * one.passes, one.attns * both.passes);
        for (int k = 0; k < 2; k++) tiles_fini(&pixels[k]);
        r.be->ops = g_whole;
        rig_close(&r);
    }
}

/* A picture that a model does not take, or no memory: nothing is there, and nothing is left. */
static void all_or_nothing(void **state) {
    (void)state;
    rig r;
    rig_open(&r, "tests/golden/models/clip_llama", 0);
    tiles good = {0}, bad = {0};
    assert_true(make_tiles(&r, 0, &good));
    bad = good;
    bad.plan.steps[0].tw -= 1;
    const tiles *both[] = {&good, &bad};
    encode *out[2];
    status st = {0};
    assert_false(encode_new_many(r.m, r.be, both, 2, out, &st));
    assert_int_equal(st.code, ST_INVALID);
    assert_null(out[0]);
    assert_null(out[1]);
    tiles_fini(&good);
    rig_close(&r);
}

/* A device whose memory ends after so many pieces. */
static int g_pieces_left, g_pieces;
static void *scarce_alloc(backend *be, size_t bytes, status *st) {
    if (g_pieces_left-- <= 0) {
        status_set(st, ST_NO_MEMORY, "no memory for %zu bytes", bytes);
        return NULL;
    }
    g_pieces++;
    return g_whole->alloc(be, bytes, st);
}
static void scarce_release(backend *be, void *p) {
    g_pieces--;
    g_whole->release(be, p);
}

static void memory_ends_anywhere(void **state) {
    (void)state;
    rig r;
    rig_open(&r, "tests/golden/families/llava_next_clip", 0);
    tiles t[3] = {0};
    const tiles *all[3];
    encode *out[3];
    for (int i = 0; i < 3; i++) {
        assert_true(make_tiles(&r, i, &t[i]));
        all[i] = &t[i];
    }
    g_whole = r.be->ops;
    backend_ops scarce = *r.be->ops;
    scarce.alloc = scarce_alloc;
    scarce.release = scarce_release;
    r.be->ops = &scarce;
    for (int most = 0;; most++) {
        status st = {0};
        g_pieces_left = most;
        bool ok = encode_new_many(r.m, r.be, all, 3, out, &st);
        if (ok) {
            assert_int_equal(most, 2 * 3 + 1);
            break;
        }
        assert_int_equal(st.code, ST_NO_MEMORY);
        assert_int_equal(g_pieces, 0);
        for (int i = 0; i < 3; i++) assert_null(out[i]);
    }
    encode_free(out[0]); /* in the middle, too, nothing is left behind */
    encode_free(out[2]);
    assert_true(g_pieces > 0);
    encode_free(out[1]);
    assert_int_equal(g_pieces, 0);
    r.be->ops = g_whole;
    for (int i = 0; i < 3; i++) tiles_fini(&t[i]);
    rig_close(&r);
}

/* ---- blank pictures before the first ---- */

static size_t g_bytes, g_most_bytes; /* that pieces have, and ever had */
static void *counted_alloc(backend *be, size_t bytes, status *st) {
    g_pieces++;
    g_bytes += bytes;
    if (g_bytes > g_most_bytes) g_most_bytes = g_bytes;
    return g_whole->alloc(be, bytes, st);
}
static void counted_release(backend *be, void *p) {
    if (--g_pieces == 0) g_bytes = 0; /* a lot is given back as a whole */
    g_whole->release(be, p);
}

/* Returns how many pictures ran. */
static int warmed(rig *r, size_t room, bool once) {
    g_whole = r->be->ops;
    backend_ops counted = *g_whole;
    counted.alloc = counted_alloc;
    counted.release = counted_release;
    r->be->ops = &counted;
    g_pieces = 0;
    g_bytes = g_most_bytes = 0;
    int n = encode_warm(&r->c, r->m, room, once);
    r->be->ops = g_whole;
    if (!ctx_ok(&r->c)) fail_msg("%s", r->c.st.msg);
    assert_int_equal(g_pieces, 0);
    assert_true(g_most_bytes <= room);
    return n;
}

static void check_warmed(const char *dir) {
    enum { ROOM = 64 << 20 };
    tiles pixels[MOST] = {0};
    const tiles *all[MOST];
    encode *e[MOST];
    status st = {0};
    size_t scratch = 0;
    rig r;
    int n = 0;
    rig_open_as(&r, dir, 128, false);
    assert_int_equal(warmed(&r, 100, false), 0);
    const int few = warmed(&r, ROOM, true), many = warmed(&r, ROOM, false), plans = backend_plans(r.be);
    assert_true(few == 1 && many >= few);
    assert_true(strncmp(device(), "cuda", 4) == 0 ? plans > 0 : plans == -1);
    for (int i = 0; i < MOST; i++) {
        if (!make_tiles(&r, i, &pixels[n])) continue;
        const size_t want = measured(&r, &pixels[n]);
        if (want > scratch) scratch = want;
        all[n] = &pixels[n];
        n++;
    }
    if (!tower_together(&r.m->spec.tower)) assert_true(r.scratch.peak_bytes <= scratch);
    for (int i = 0; i <= n; i++) { /* each alone, then all of them */
        const bool alone = i < n;
        if (!encode_new_many(r.m, r.be, alone ? &all[i] : all, alone ? 1 : n, e, &st)) fail_msg("%s", st.msg);
        run(&r, e[0], 1 << 20);
        for (int k = 0; k < (alone ? 1 : n); k++) encode_free(e[k]);
        if (backend_plans(r.be) != plans)
            fail_msg("%s: %d plans, then %d after picture %d", dir, plans, backend_plans(r.be), i);
    }
    for (int i = 0; i < n; i++) tiles_fini(&pixels[i]);
    rig_close(&r);
}

static void no_plan_is_new(void **state) {
    (void)state;
    bool brief = getenv("VLMD_SHORT");
    const char *const *names = brief ? SHORT : MODELS;
    for (size_t i = 0; i < (brief ? ARRAY_LEN(SHORT) : ARRAY_LEN(MODELS)); i++) {
        char dir[200];
        snprintf(dir, sizeof dir, "tests/golden/%s", names[i]);
        check_warmed(dir);
    }
}

/* Who may go beside whom. */
static void room_beside(void **state) {
    (void)state;
    rig r;
    rig_open(&r, "tests/golden/families/llava_next_clip", 128);
    const model_spec *s = model_get_spec(r.m);
    tiles t[MOST] = {0};
    for (int i = 0; i < MOST; i++) {
        assert_true(make_tiles(&r, i, &t[i]));
        int rows = tower_rows(&s->tower,
                              tower_grid(&s->tower, &(tile){s->tower.image_size, s->tower.image_size, 0}));
        int spare = 128 / rows - t[i].plan.n_tiles;
        assert_int_equal(encode_room_beside(s, &t[i].plan), spare > 0 ? spare : 0);
        assert_true(encode_goes_beside(s, &t[0].plan, &t[i].plan)); /* tiles are of one grid */
    }
    for (int i = 0; i < MOST; i++) tiles_fini(&t[i]);
    rig_close(&r);
    rig_open(&r, "tests/golden/families/qwen2_vl", 4096);
    s = model_get_spec(r.m);
    tiles a = {0}, b = {0}, same = {0};
    assert_true(make_tiles(&r, 0, &a) && make_tiles(&r, 2, &b) && make_tiles(&r, 1, &same));
    assert_true(encode_room_beside(s, &a.plan) > 0);
    assert_true(encode_goes_beside(s, &a.plan, &same.plan));
    assert_false(encode_goes_beside(s, &a.plan, &b.plan));
    tiles_fini(&a), tiles_fini(&b), tiles_fini(&same);
    rig_close(&r);
    rig_open(&r, "tests/golden/families/mllama", 4096);
    assert_true(make_tiles(&r, 0, &a));
    assert_int_equal(encode_room_beside(model_get_spec(r.m), &a.plan), 0);
    tiles_fini(&a);
    rig_close(&r);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(alone_equals_together), cmocka_unit_test(more_rows_than_tiles),
        cmocka_unit_test(one_launch_for_all),    cmocka_unit_test(all_or_nothing),
        cmocka_unit_test(memory_ends_anywhere),  cmocka_unit_test(room_beside),
        cmocka_unit_test(no_plan_is_new),
    };
    log_set_level(LOG_ERROR);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
