/* test_dual.c - dual encoders: vectors against goldens of the reference library (tests/golden/dual), and the promises that
 * no reference makes: a text's bits do not depend on its company, a picture's not on where its encode stops, a dry run
 * measures what a run takes. Checkpoints that must not load, and what is said about them. */
#include <dirent.h>
#include <jansson.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "engine/model/dual.h"
#include "tests/tools/folder.h"

#define GOLDEN "tests/golden/dual"
enum { ROOM = 32 << 20, MAX_ROWS = 1024 };
static const char *const NAMES[] = {"clip_base", "clip_old", "siglip_base", "siglip2_naflex",
                                    "siglip2_large_grid"};

typedef struct rig {
    backend *be;
    model *m;
    arena scratch;
    ctx c;
    char *ints;
} rig;

/* VLMD_DEVICE=cuda: on a GPU, or on the emulated one. */
static const char *device(void) {
    const char *name = getenv("VLMD_DEVICE");
    return name ? name : "cpu";
}

static bool rig_open(rig *r, const char *dir, const char *isa) {
    status st = {0};
    memset(r, 0, sizeof *r);
    if (isa && strcmp(device(), "cpu") != 0 && strcmp(isa, "portable") != 0) return false;
    backend_options o = {.device = device(), .threads = 2, .isa = isa, .deterministic = true};
    if (!(r->be = backend_new(&o, &st))) return false;
    if (!(r->m = model_load(dir, r->be, &st))) fail_msg("%s", st.msg);
    r->scratch = (arena){.base = backend_alloc(r->be, ROOM, &st), .cap_bytes = ROOM};
    r->ints = backend_alloc(r->be, 5 * (MAX_ROWS + 16) * sizeof(int32_t), &st);
    assert_true(r->scratch.base && r->ints);
    r->c = (ctx){.be = r->be, .scratch = &r->scratch};
    return true;
}

static void rig_close(rig *r) {
    backend_release(r->be, r->scratch.base);
    backend_release(r->be, r->ints);
    model_free(r->m);
    backend_free(r->be);
}

static void rig_ok(const rig *r) {
    if (!ctx_ok(&r->c)) fail_msg("%s", r->c.st.msg);
}

static json_t *golden_of(const char *name) {
    char path[256];
    snprintf(path, sizeof path, GOLDEN "/%s/golden.json", name);
    json_t *j = json_load_file(path, 0, NULL);
    assert_non_null(j);
    return j;
}

static void near(const char *what, const char *name, const float *got, const json_t *want, size_t n) {
    double length = 0;
    assert_int_equal(json_array_size(want), n);
    for (size_t i = 0; i < n; i++) length += pow(json_number_value(json_array_get(want, i)), 2);
    for (size_t i = 0; i < n; i++) {
        double w = json_number_value(json_array_get(want, i));
        if (!(fabs(got[i] - w) <= 1e-4 * sqrt(length)))
            fail_msg("%s %s: number %zu: expected %.7g, found %.7g", what, name, i, w, (double)got[i]);
    }
}

/* ---- texts ---- */

typedef struct text {
    int32_t ids[128];
    int n, pick;
} text;

static int pick_of(const dual_spec *d, const text *t) {
    int best = 0;
    if (d->pick == DUAL_PICK_LAST) return t->n - 1;
    for (int i = 0; i < t->n; i++) {
        if (d->pick == DUAL_PICK_ID && t->ids[i] == d->pick_id) return i;
        if (t->ids[i] > t->ids[best]) best = i;
    }
    return best;
}

static text text_of(const rig *r, const json_t *c) {
    text t = {0};
    size_t i;
    json_t *id;
    json_array_foreach(json_object_get(c, "ids"), i, id) t.ids[t.n++] = (int32_t)json_integer_value(id);
    assert_in_range(t.n, 1, 128);
    t.pick = pick_of(&model_get_spec(r->m)->dual, &t);
    return t;
}

static tensor upload(rig *r, int at, const int32_t *v, int n) {
    tensor t = tensor_1d(r->ints + (size_t)at * (MAX_ROWS + 16) * sizeof *v, DT_I32, n);
    ctx_upload(&r->c, t, v);
    return t;
}

/* One step of n texts into out[n][width]. */
static void run_texts(rig *r, const text *texts, int n, float *out) {
    static int32_t ids[MAX_ROWS], pos[MAX_ROWS], start[MAX_ROWS], len[MAX_ROWS], picks[MAX_ROWS];
    step s = {.n_seqs = n, .n_out = n};
    for (int i = 0; i < n; i++) {
        picks[i] = s.n_rows + texts[i].pick;
        len[i] = texts[i].n;
        for (int k = 0; k < texts[i].n; k++, s.n_rows++) ids[s.n_rows] = texts[i].ids[k], pos[s.n_rows] = k;
        start[i + 1] = s.n_rows;
        assert_true(s.n_rows + 128 <= MAX_ROWS);
    }
    s.ids = upload(r, 0, ids, s.n_rows);
    s.pos = upload(r, 1, pos, s.n_rows);
    s.q_start = upload(r, 2, start, n + 1);
    s.kv_len = upload(r, 3, len, n);
    s.out_rows = upload(r, 4, picks, n);
    r->scratch.peak_bytes = 0;
    arena_reset(&r->scratch, 0);
    tensor v = dual_text(&r->c, r->m, &s);
    ctx_download(&r->c, out, v);
    rig_ok(r);
    arena counting = {0};
    ctx dry = {.be = r->be, .scratch = &counting, .dry = true};
    dual_text(&dry, r->m, &s);
    assert_true(ctx_ok(&dry));
    assert_int_equal(counting.peak_bytes, r->scratch.peak_bytes);
}

static void check_texts(rig *r, const char *name, const json_t *golden) {
    const json_t *cases = json_object_get(golden, "texts");
    int n = (int)json_array_size(cases), width = model_get_spec(r->m)->dual.width;
    text texts[12];
    static float all[12 * 512], one[512];
    assert_in_range(n, 8, 12);
    for (int i = 0; i < n; i++) texts[i] = text_of(r, json_array_get(cases, (size_t)i));
    run_texts(r, texts, n, all);
    for (int i = 0; i < n; i++) {
        const json_t *c = json_array_get(cases, (size_t)i);
        near(name, json_string_value(json_object_get(c, "name")), all + i * width,
             json_object_get(c, "vector"), (size_t)width);
        run_texts(r, &texts[i], 1, one);
        assert_memory_equal(one, all + i * width, (size_t)width * sizeof *one);
    }
}

/* ---- pictures ---- */

static tiles tiles_of(const rig *r, const char *file) {
    char path[256];
    buf bytes = {0};
    image im = {0};
    tiles t = {0};
    status st = {0};
    snprintf(path, sizeof path, GOLDEN "/pictures/%s", file);
    assert_true(buf_read_file(&bytes, path, 1 << 20, &st));
    assert_true(image_decode_bytes(bytes.data, bytes.len, &IMAGE_LIMITS_DEFAULT, &im, &st));
    prep_plan plan;
    image_ask ask = {im.w, im.h, 1};
    if (!spec_plan_image(model_get_spec(r->m), &ask, &IMAGE_LIMITS_DEFAULT, &plan, &st))
        fail_msg("%s", st.msg);
    assert_true(tiles_make(&plan, &im, &t, &st));
    buf_fini(&bytes);
    image_fini(&im);
    return t;
}

static void run_picture(rig *r, const tiles *t, int slices, float *out) {
    status st = {0};
    encode *e = encode_new(r->m, r->be, t, &st);
    if (!e) fail_msg("%s", st.msg);
    int calls = 1;
    arena_reset(&r->scratch, 0);
    for (; !encode_run(&r->c, e, slices); calls++) {
        rig_ok(r);
        /* NaN: nothing of a slice may live on in scratch */
        if (strcmp(device(), "cpu") == 0) memset(r->scratch.base, 0xFF, 1 << 20);
    }
    if (slices == 1) assert_int_equal(calls, encode_slices(e));
    assert_int_equal(encode_rows(e).d[0], 1);
    ctx_download(&r->c, out, encode_rows(e));
    rig_ok(r);
    encode_free(e);
}

static void check_pictures(rig *r, const char *name, const json_t *golden) {
    size_t i;
    json_t *c;
    int width = model_get_spec(r->m)->dual.width;
    static float a[512], b[512];
    json_array_foreach(json_object_get(golden, "pictures"), i, c) {
        const char *file = json_string_value(json_object_get(c, "path"));
        tiles t = tiles_of(r, file);
        const json_t *grid = json_object_get(c, "grid");
        if (json_is_array(grid)) { /* [height, width] in patches */
            tile one = prep_plan_tile(&t.plan, 0);
            int patch = model_get_spec(r->m)->tower.patch;
            assert_int_equal(one.h, patch * json_integer_value(json_array_get(grid, 0)));
            assert_int_equal(one.w, patch * json_integer_value(json_array_get(grid, 1)));
        }
        run_picture(r, &t, 1 << 20, a);
        near(name, file, a, json_object_get(c, "vector"), (size_t)width);
        run_picture(r, &t, 1, b);
        assert_memory_equal(a, b, (size_t)width * sizeof *a);
        tiles_fini(&t);
        if (getenv("VLMD_SHORT") && i == 2) break;
    }
    assert_true(i > 1);
}

static void test_goldens(void **state) {
    (void)state;
    static const char *const isas[] = {"portable", "avx2", "avx512"};
    log_set_level(LOG_ERROR);
    for (size_t k = 0; k < ARRAY_LEN(NAMES); k++) {
        char dir[128];
        json_t *golden = golden_of(NAMES[k]);
        snprintf(dir, sizeof dir, GOLDEN "/%s", NAMES[k]);
        int n = 0;
        for (size_t i = 0; i < ARRAY_LEN(isas); i++) {
            rig r;
            if (!rig_open(&r, dir, isas[i])) continue;
            check_texts(&r, NAMES[k], golden);
            check_pictures(&r, NAMES[k], golden);
            rig_close(&r);
            n++;
        }
        assert_true(n > 0);
        json_decref(golden);
    }
}

static void test_rule(void **state) {
    (void)state;
    static const struct {
        const char *name;
        double scale, bias;
        bool sigmoid;
    } want[] = {
        {"clip_base", 2.9, 0, false}, {"clip_old", 1.5, 0, false}, {"siglip2_naflex", 2.1, -2.2, true}};
    for (size_t i = 0; i < ARRAY_LEN(want); i++) {
        char dir[128];
        rig r;
        snprintf(dir, sizeof dir, GOLDEN "/%s", want[i].name);
        assert_true(rig_open(&r, dir, NULL));
        const dual_rule *d = dual_rule_of(r.m);
        assert_true(fabs(d->scale - exp(want[i].scale)) < 1e-5 && fabs(d->bias - want[i].bias) < 1e-6);
        assert_int_equal(d->sigmoid, want[i].sigmoid);
        rig_close(&r);
    }
}

/* ---- checkpoints that must not load ---- */

/* Merges patch into the file; null deletes nothing but is written. */
static void patch(const char *name, const char *with) {
    json_t *j = json_load_file(folder_at(name), 0, NULL), *p = json_loads(with, 0, NULL), *v;
    const char *key;
    assert_true(j && p);
    json_object_foreach(p, key, v) {
        json_t *was = json_object_get(j, key);
        if (json_is_object(v) && json_is_object(was))
            json_object_update(was, v);
        else
            json_object_set(j, key, v);
    }
    folder_put_json(name, j);
    json_decref(j);
    json_decref(p);
}

static void bad(const char *golden, const char *file, const char *with, const char *says, const char *too) {
    static const char *const files[] = {"config.json", "model.safetensors", "preprocessor_config.json"};
    char from[256];
    snprintf(from, sizeof from, GOLDEN "/%s", golden);
    for (size_t i = 0; i < ARRAY_LEN(files); i++) assert_true(folder_copy(from, files[i]));
    patch(file, with);
    status st = {0};
    buf out = {0};
    if (model_inspect(folder, &out, &st)) fail_msg("%s: accepted", with);
    if (!strstr(st.msg, says) || !strstr(st.msg, too)) fail_msg("%s: said \"%s\"", with, st.msg);
    buf_fini(&out);
}

static void test_bad(void **state) {
    (void)state;
    folder_new();
    static const char *const c = "config.json", *const p = "preprocessor_config.json";
    bad("clip_base", c, "{\"architectures\":[\"CLIPTextModelWithProjection\"]}", "architectures",
        "CLIPModel");
    bad("clip_base", c, "{\"text_config\":{\"hidden_act\":\"mish\"}}", "text_config.hidden_act", "mish");
    bad("clip_base", c, "{\"text_config\":{\"num_attention_heads\":5}}", "text_config.hidden_size",
        "multiple");
    bad("clip_base", c, "{\"text_config\":{\"eos_token_id\":\"x\"}}", "text_config.eos_token_id", "x");
    bad("clip_base", c, "{\"text_config\":{\"eos_token_id\":[1,2]}}", "text_config.eos_token_id", "[1,2]");
    bad("clip_base", c, "{\"text_config\":{\"max_position_embeddings\":20}}", "[20, 36]", "[19, 36]");
    bad("clip_base", c, "{\"text_config\":{\"num_hidden_layers\":2}}", "layers.2.", "no place");
    bad("clip_base", c, "{\"text_config\":{\"num_hidden_layers\":4}}", "layers.3.", "missing");
    bad("clip_base", c, "{\"projection_dim\":22}", "projection.weight", "[22, 36]");
    bad("clip_base", c, "{\"vision_config\":{\"model_type\":\"siglip2_vision_model\"}}",
        "vision_config.model_type", "siglip2_vision_model");
    bad("clip_base", p, "{\"crop_size\":{\"height\":30,\"width\":30}}", "30 x 30", "image_size is 28");
    bad("siglip_base", c, "{\"vision_config\":{\"vision_use_head\":false}}", "vision_use_head", "only true");
    bad("siglip_base", c, "{\"text_config\":{\"projection_size\":33}}", "projection_size", "39");
    bad("siglip_base", c, "{\"model_type\":\"clip\",\"architectures\":null}", "tensor", "missing");
    bad("siglip2_naflex", c, "{\"vision_config\":{\"num_patches\":26}}", "num_patches", "square");
    bad("siglip2_naflex", c, "{\"vision_config\":{\"num_patches\":36}}", "[36, 32]", "[25, 32]");
    bad("siglip2_naflex", p, "{\"patch_size\":7}", "patches of 7", "does not take");
    bad("siglip2_naflex", p, "{\"max_num_patches\":0}", "max_num_patches", "0");
    bad("siglip_base", p, "{\"image_processor_type\":\"Siglip2ImageProcessor\",\"patch_size\":14}",
        "patches of 14", "does not take");
    folder_free();
}

static void test_inspect(void **state) {
    (void)state;
    static const struct {
        const char *name, *says[4];
    } want[] = {
        {"clip_base", {"dual encoder", "CLS", "first row of id 623", "softmax"}},
        {"clip_old", {"greatest id", "position_ids", "44 to 24", "softmax"}},
        {"siglip_base", {"last row", "learned query", "padded", "sigmoid"}},
        {"siglip2_naflex", {"up to 37 patches", "5 x 5", "aspect ratio", "sigmoid"}},
    };
    for (size_t i = 0; i < ARRAY_LEN(want); i++) {
        char dir[128];
        buf out = {0};
        status st = {0};
        snprintf(dir, sizeof dir, GOLDEN "/%s", want[i].name);
        assert_true(model_inspect(dir, &out, &st));
        for (int k = 0; k < 4; k++)
            if (!strstr(out.data, want[i].says[k]))
                fail_msg("%s: \"%s\" in %s", dir, want[i].says[k], out.data);
        assert_null(strstr(out.data, "KV cache"));
        buf_fini(&out);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_goldens), cmocka_unit_test(test_rule),
                                       cmocka_unit_test(test_bad), cmocka_unit_test(test_inspect)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
