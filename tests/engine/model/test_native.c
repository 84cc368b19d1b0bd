/* test_native.c - pictures at their own size, against numbers of the reference library (tests/golden/families/native, written by
 * make_qwen_vl.py): sizes, patches, windows, resampled positions; and what no reference promises: an encode in blocks of rows is
 * the same layers run whole, bit for bit, and a measured slice is the largest. */
#include <jansson.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

#include "engine/model/encode.h"
#include "tests/tools/folder.h"
#include "tests/tools/one_tile.h"
#include "tests/tools/random_weights.h"

#define GOLDEN "tests/golden/families/native/"

static json_t *load(const char *name) {
    char path[200];
    json_error_t e;
    snprintf(path, sizeof path, GOLDEN "%s", name);
    json_t *j = json_load_file(path, 0, &e);
    if (!j) fail_msg("%s: %s", path, e.text);
    return j;
}

static int at(const json_t *list, size_t i) {
    return (int)json_integer_value(json_array_get(list, i));
}
static int of(const json_t *object, const char *key) {
    return (int)json_integer_value(json_object_get(object, key));
}

/* ---- sizes ---------------------------------------------------------------------------------------------------------- */

static void test_sizes(void **state) {
    (void)state;
    json_t *all = load("sizes.json"), *row;
    size_t i, refused = 0;
    assert_true(json_array_size(all) >= 500);
    json_array_foreach(all, i, row) {
        prep_spec s = {
            .size = PREP_SIZE_PIXELS, .patch = at(row, 0), .merge = at(row, 1), .filter = RESAMPLE_BICUBIC};
        s.size_w = at(row, 2);
        s.size_h = at(row, 3);
        prep_plan p;
        status st = {0};
        image_limits lim = IMAGE_LIMITS_DEFAULT;
        lim.max_pixels = (int64_t)1 << 40;
        bool ok = prep_plan_one(&s, at(row, 4), at(row, 5), &lim, &p, &st);
        tile t = ok ? prep_plan_tile(&p, 0) : (tile){0};
        if (t.w != at(row, 6) || t.h != at(row, 7))
            fail_msg("%d x %d becomes %d x %d, the reference says %d x %d (%s)", at(row, 4), at(row, 5), t.w,
                     t.h, at(row, 6), at(row, 7), st.msg);
        refused += !ok;
        if (!ok) assert_non_null(strstr(st.msg, "200 times"));
    }
    assert_true(refused > 10);
    json_decref(all);
}

static const struct {
    const char *json, *says; /* says NULL: it is fine, and the numbers are those below */
    int least, most, patch, merge, frames;
} PREPS[] = {
    {"{}", NULL, 3136, 1003520, 14, 2, 2},
    {"{\"min_pixels\":100,\"max_pixels\":12845056}", NULL, 100, 12845056, 14, 2, 2},
    {"{\"size\":{\"shortest_edge\":65536,\"longest_edge\":16777216},\"patch_size\":16}", NULL, 65536,
     16777216, 16, 2, 2},
    {"{\"size\":{\"min_pixels\":7,\"max_pixels\":9},\"merge_size\":3,\"temporal_patch_size\":1}", NULL, 7, 9,
     14, 3, 1},
    {"{\"size\":{\"shortest_edge\":65536,\"longest_edge\":16777216},\"max_pixels\":70000}", NULL, 65536,
     70000, 14, 2, 2},
    {"{\"size\":null,\"min_pixels\":null}", NULL, 3136, 1003520, 14, 2, 2},
    {"{\"size\":{\"longest_edge\":16777216}}", "found no shortest_edge", 0, 0, 0, 0, 0},
    {"{\"size\":{\"height\":10,\"width\":10}}", "size.height is not supported", 0, 0, 0, 0, 0},
    {"{\"size\":448}", "size: expected an object", 0, 0, 0, 0, 0},
    {"{\"min_pixels\":0}", "min_pixels: expected a whole number", 0, 0, 0, 0, 0},
    {"{\"patch_size\":\"14\"}", "patch_size: expected a whole number", 0, 0, 0, 0, 0},
};

static void test_settings(void **state) {
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(PREPS); i++) {
        json_t *j = json_loads(PREPS[i].json, 0, NULL);
        json_object_set_new(j, "image_processor_type", json_string("Qwen2VLImageProcessorFast"));
        prep_spec s;
        status st = {0};
        bool ok = prep_spec_from_json(j, &s, &st);
        if (PREPS[i].says) {
            assert_false(ok);
            if (!strstr(st.msg, PREPS[i].says)) fail_msg("%s: %s", PREPS[i].json, st.msg);
        } else {
            if (!ok) fail_msg("%s: %s", PREPS[i].json, st.msg);
            assert_int_equal(s.size, PREP_SIZE_PIXELS);
            assert_int_equal(s.size_w, PREPS[i].least);
            assert_int_equal(s.size_h, PREPS[i].most);
            assert_int_equal(s.patch, PREPS[i].patch);
            assert_int_equal(s.merge, PREPS[i].merge);
            assert_int_equal(s.frames, PREPS[i].frames);
        }
        json_decref(j);
    }
}

/* ---- pixels ----------------------------------------------------------------------------------------------------------- */

static tiles read_picture(const char *name, const prep_spec *s) {
    char path[200];
    status st = {0};
    buf file = {0};
    image raw = {0};
    tiles t = {0};
    prep_plan p;
    snprintf(path, sizeof path, "tests/golden/families/pictures/%s", name);
    if (access(path, R_OK) != 0) snprintf(path, sizeof path, "tests/golden/models/pictures/%s", name);
    if (!buf_read_file(&file, path, 1 << 20, &st) ||
        !image_decode_bytes(file.data, file.len, &IMAGE_LIMITS_DEFAULT, &raw, &st) ||
        !prep_plan_one(s, raw.w, raw.h, &IMAGE_LIMITS_DEFAULT, &p, &st) || !tiles_make(&p, &raw, &t, &st))
        fail_msg("%s: %s", name, st.msg);
    image_fini(&raw);
    buf_fini(&file);
    return t;
}

/* Patches in the order of blocks, as the tower has them, are the image processor's. */
static void test_patches(void **state) {
    (void)state;
    json_t *all = load("patches.json"), *c;
    size_t i;
    json_array_foreach(all, i, c) {
        prep_spec s;
        status st = {0};
        if (!prep_spec_from_json(json_object_get(c, "config"), &s, &st)) fail_msg("%s", st.msg);
        tiles t = read_picture(json_string_value(json_object_get(c, "picture")), &s);
        tile one = prep_plan_tile(&t.plan, 0);
        grid g = {one.w / s.patch, one.h / s.patch};
        assert_int_equal(g.h, at(json_object_get(c, "grid"), 1));
        assert_int_equal(g.w, at(json_object_get(c, "grid"), 2));
        int k = s.merge, n = g.w * g.h, width = 3 * s.frames * s.patch * s.patch;
        int32_t *order = malloc((size_t)n * sizeof *order);
        float *got = malloc((size_t)n * (size_t)width * sizeof *got);
        assert_true(order && got);
        for (int r = 0; r < n; r++) {
            int cell = r / (k * k), in = r % (k * k);
            order[r] = (cell / (g.w / k) * k + in / k) * g.w + cell % (g.w / k) * k + in % k;
        }
        backend *be = backend_new(NULL, &st);
        ctx ops = {.be = be};
        patchify_args a = {
            .patch = s.patch, .frames = s.frames, .rescale = s.rescale, .order = tensor_1d(order, DT_I32, n)};
        memcpy(a.mean, s.mean, sizeof a.mean);
        memcpy(a.std, s.std, sizeof a.std);
        op_patchify(&ops, tensor_2d(got, DT_F32, n, width), tensor_3d(t.rgb, DT_U8, one.h, one.w, 3), &a);
        if (!ctx_ok(&ops)) fail_msg("%s", ops.st.msg);
        json_t *rows = json_object_get(c, "rows");
        assert_int_equal(json_array_size(rows), (n + 6) / 7);
        for (int r = 0; r < n; r += 7)
            for (int e = 0; e < width; e++) {
                double want =
                    json_number_value(json_array_get(json_array_get(rows, (size_t)r / 7), (size_t)e));
                if (!(fabs(got[r * width + e] - want) <= 2e-6))
                    fail_msg("%s: row %d, number %d: %.7f, the reference says %.7f",
                             json_string_value(json_object_get(c, "picture")), r, e,
                             (double)got[r * width + e], want);
            }
        backend_free(be);
        free(order);
        free(got);
        tiles_fini(&t);
    }
    json_decref(all);
}

/* ---- windows and positions ---------------------------------------------------------------------------------------------- */

static void check_windows(const json_t *c, const tower_spec *t, grid g, int k) {
    json_t *order = json_object_get(c, "order"), *ends = json_object_get(c, "ends");
    int cells = g.w / k * (g.h / k), row = 0;
    int32_t *got = malloc((size_t)cells * sizeof *got),
            *ids = malloc((size_t)blocks_ids(t, g, 1) * sizeof *ids);
    assert_true(got && ids);
    blocks_order(t, k, g, got);
    assert_int_equal(json_array_size(order), cells);
    for (int i = 0; i < cells; i++) assert_int_equal(got[i], at(order, (size_t)i));
    blocks_fill(t, g, 1, ids);
    size_t window = 0;
    for (int i = 0; i < blocks_count(t, g, 1); i++) {
        tower_block b = blocks_at(t, g, 1, i);
        assert_int_equal(b.from, row);
        assert_true(b.n > 0 && b.n <= t->block_rows);
        tower_seqs all = blocks_seqs(&b, false), some = blocks_seqs(&b, true);
        assert_int_equal(all.n, 1);
        assert_int_equal(ids[all.start], 0);
        assert_int_equal(ids[all.start + 1], b.n);
        assert_int_equal(ids[all.len], g.w * g.h);
        const int32_t *start = ids + some.start, *len = ids + some.len;
        assert_int_equal(some.n, b.n_windows);
        assert_int_equal(start[0], 0);
        assert_int_equal(start[b.n_windows], b.n);
        if (b.n == b.see) { /* whole windows */
            assert_int_equal(b.see_from, b.from);
            for (int w = 0; w < b.n_windows; w++, window++) {
                assert_int_equal(b.from + start[w], at(ends, window));
                assert_int_equal(b.from + start[w] + len[w], at(ends, window + 1));
            }
        } else { /* a part of one */
            assert_int_equal(b.n_windows, 1);
            assert_int_equal(b.see_from, at(ends, window));
            assert_int_equal(b.see_from + b.see, at(ends, window + 1));
            assert_int_equal(len[0], b.see);
            if (b.from + b.n == b.see_from + b.see) window++;
        }
        row += b.n;
    }
    assert_int_equal(row, g.w * g.h);
    assert_int_equal(window + 1, json_array_size(ends));
    free(got);
    free(ids);
}

static void check_taps(const json_t *c, grid g, int k) {
    json_t *rows = json_object_get(c, "rows"), *row;
    size_t i;
    json_array_foreach(rows, i, row) {
        int r = (int)json_integer_value(row), cell = r / (k * k), in = r % (k * k);
        int32_t from[CORNER_TAPS];
        float by[CORNER_TAPS];
        corners_taps(of(c, "side"), g, cell % (g.w / k) * k + in % k, cell / (g.w / k) * k + in / k, from,
                     by);
        for (size_t t = 0; t < CORNER_TAPS; t++) {
            assert_int_equal(from[t], at(json_array_get(json_object_get(c, "taps"), i), t));
            double want = json_number_value(json_array_get(json_array_get(json_object_get(c, "by"), i), t));
            assert_true(fabs(by[t] - want) < 1e-7);
        }
    }
}

static void test_windows(void **state) {
    (void)state;
    json_t *all = load("windows.json"), *c;
    size_t i, parts = 0;
    json_array_foreach(all, i, c) {
        int k = of(c, "merge"), patch = of(c, "patch");
        tower_spec t = {.patch = patch, .window = of(c, "window_size") / k / patch * k, .block_rows = 128};
        grid g = {of(c, "w"), of(c, "h")};
        parts += t.window * t.window > t.block_rows;
        check_windows(c, &t, g, k);
        check_taps(c, g, k);
    }
    assert_true(parts > 3);
    json_decref(all);
}

/* ---- blocks change no bit ---------------------------------------------------------------------------------------------- */

#define TEXT                                                                                                 \
    "\"vocab_size\":300,\"hidden_size\":32,\"intermediate_size\":40,\"num_hidden_layers\":2,"                \
    "\"num_attention_heads\":4,\"num_key_value_heads\":2,\"image_token_id\":8,\"video_token_id\":9,"
static const struct {
    const char *config, *prep;
    int sizes[3][2];
} TOWERS[] = {
    /* windows of 6 x 6 patches: three to a block, those of the edges smaller */
    {"{\"model_type\":\"qwen2_5_vl\"," TEXT
     "\"rope_scaling\":{\"mrope_section\":[1,1,2]},\"vision_config\":{\"depth\":3,"
     "\"hidden_size\":24,\"intermediate_size\":28,\"num_heads\":2,\"out_hidden_size\":32,\"patch_size\":4,"
     "\"window_size\":27,\"fullatt_block_indexes\":[1]}}\n",
     "{\"image_processor_type\":\"Qwen2VLImageProcessor\",\"patch_size\":4,\"min_pixels\":64,\"max_pixels\":"
     "30000}\n",
     {{88, 104}, {8, 8}, {240, 16}}},
    /* windows of 26 x 26: several blocks each */
    {"{\"model_type\":\"qwen2_5_vl\"," TEXT
     "\"rope_scaling\":{\"mrope_section\":[1,1,2]},\"vision_config\":{\"depth\":2,"
     "\"hidden_size\":24,\"intermediate_size\":28,\"num_heads\":2,\"out_hidden_size\":32,\"patch_size\":4,"
     "\"window_size\":104,\"fullatt_block_indexes\":[]}}\n",
     "{\"image_processor_type\":\"Qwen2VLImageProcessor\",\"patch_size\":4,\"min_pixels\":64,\"max_pixels\":"
     "30000}\n",
     {{128, 152}, {104, 104}, {240, 48}}},
    /* two layers go deep, a resampled table */
    {"{\"model_type\":\"qwen3_vl\",\"image_token_id\":8,\"video_token_id\":9,\"text_config\":{\"head_dim\":"
     "8," TEXT
     "\"rope_scaling\":{\"mrope_section\":[2,1,1]}},\"vision_config\":{\"depth\":3,\"hidden_size\":24,"
     "\"intermediate_size\":28,\"num_heads\":2,\"out_hidden_size\":32,\"patch_size\":4,\"num_position_"
     "embeddings\":49,"
     "\"deepstack_visual_indexes\":[1,0]}}\n",
     "{\"image_processor_type\":\"Qwen2VLImageProcessor\",\"patch_size\":4,\"min_pixels\":64,\"max_pixels\":"
     "30000}\n",
     {{88, 104}, {8, 8}, {240, 16}}},
};

typedef struct rig {
    backend *be;
    model *m;
    arena scratch;
    ctx c;
} rig;

/* All sets of rows. */
static float *encoded(rig *r, const tiles *t, int slices) {
    status st = {0};
    encode *e = encode_new(r->m, r->be, t, &st);
    if (!e) fail_msg("%s", st.msg);
    int calls = 1;
    for (; !encode_run(&r->c, e, slices); calls++) {
        if (!ctx_ok(&r->c)) fail_msg("%s", r->c.st.msg);
        memset(r->scratch.base, 0xFF,
               r->scratch.cap_bytes); /* NaN: nothing of a slice may live on in scratch */
    }
    if (slices == 1) assert_int_equal(calls, encode_slices(e));
    float *out = malloc(encode_kept_bytes(e));
    assert_non_null(out);
    ctx_download(&r->c, out, e->sets);
    encode_free(e);
    return out;
}

static tensor merge_all(ctx *c, const join_spec *j, weight *const *w, tensor x) {
    int64_t k = j->merge * j->merge, rows = x.d[0] / k;
    tensor n = ctx_2d(c, DT_F32, x.d[0], x.d[1]), side = tensor_2d(n.data, DT_F32, rows, x.d[1] * k);
    tensor h = ctx_2d(c, DT_F32, rows, j->hidden), y = ctx_2d(c, DT_F32, rows, j->out);
    const weight *g = w[S_JOIN_G - S_FIRST_JOIN], *b = w[S_JOIN_B - S_FIRST_JOIN];
    if (j->normed == JOIN_NORM_ROW)
        op_norm(c, n, x, g, b, j->norm, j->norm_eps, 0);
    else
        op_norm(c, side, tensor_2d(x.data, DT_F32, rows, x.d[1] * k), g, b, j->norm, j->norm_eps, 0);
    op_linear(c, h, side, w[S_FC1_W - S_FIRST_JOIN], w[S_FC1_B - S_FIRST_JOIN], j->activation, 0);
    op_linear(c, y, h, w[S_FC2_W - S_FIRST_JOIN], w[S_FC2_B - S_FIRST_JOIN], ACT_NONE, 0);
    return y;
}

/* The same without blocks: each layer over all rows, which stand in the same order, and a row's window is gathered from them by
 * its place in the picture. */
static float *whole(rig *r, const tiles *t) {
    const model *m = r->m;
    const model_spec *s = &m->spec;
    const tower_spec *w = &s->tower;
    ctx *c = &r->c;
    arena_reset(&r->scratch, 0);
    tile one = prep_plan_tile(&t->plan, 0);
    grid g = tower_grid(w, &one);
    int k = s->join.merge, n = g.w * g.h, rows = n / (k * k), d = w->stack.width;
    int32_t *order = calloc((size_t)n, 4), *turns = calloc((size_t)n, 8), *taps = calloc((size_t)n, 16),
            *mine = calloc((size_t)n, 4);
    float *by = calloc((size_t)n, 16);
    int32_t *cells = calloc((size_t)rows, 4);
    assert_true(order && turns && taps && mine && by && cells);
    blocks_order(w, k, g, cells);
    for (int i = 0; i < n; i++) {
        int cell = cells[i / (k * k)], in = i % (k * k), x = cell % (g.w / k) * k + in % k,
            y = cell / (g.w / k) * k + in / k;
        order[i] = y * g.w + x;
        turns[2 * i] = y, turns[2 * i + 1] = x;
        if (w->window) mine[i] = y / w->window * 1000 + x / w->window;
        if (w->pos_corners) corners_taps(w->pos_corners, g, x, y, taps + 4 * i, by + 4 * i);
    }
    patchify_args a = {.patch = w->patch,
                       .frames = w->frames,
                       .rescale = s->prep.rescale,
                       .order = tensor_1d(order, DT_I32, n)};
    memcpy(a.mean, s->prep.mean, sizeof a.mean);
    memcpy(a.std, s->prep.std, sizeof a.std);
    tensor patches = ctx_2d(c, DT_F32, n, 3 * w->frames * w->patch * w->patch), x = ctx_2d(c, DT_F32, n, d);
    op_patchify(c, patches, tensor_3d(t->rgb, DT_U8, one.h, one.w, 3), &a);
    op_linear(c, x, patches, m->w[S_PATCH_W], m->w[S_PATCH_B], ACT_NONE, 0);
    if (w->pos_corners)
        op_embed_mix(c, x, m->w[S_POS], tensor_2d(taps, DT_I32, n, 4), tensor_2d(by, DT_F32, n, 4));
    tensor cs = ctx_tensor(c, DT_F32, 3, (int64_t[]){n, w->stack.head_dim / 2, 2});
    op_rope_table(c, cs, tensor_2d(turns, DT_I32, n, 2), (tensor){0}, &m->rope_tower.args);
    float *out = malloc((size_t)(1 + s->deep.n) * (size_t)rows * (size_t)s->join.out * sizeof *out);
    assert_non_null(out);
    for (int i = 0; i < w->run_layers; i++) {
        size_t mark = arena_mark(c->scratch);
        layer_run run = {.cs = cs};
        tensor q = ctx_2d(c, DT_F32, n, d), kk = ctx_2d(c, DT_F32, n, d), v = ctx_2d(c, DT_F32, n, d);
        stack_project(c, &w->stack, &m->tower[i], x, q, kk, v, &run);
        for (int window = 0; window < n; window++) { /* named by its first row */
            int32_t in[1 << 12], len = 0, start[2] = {0};
            bool all = !w->window || w->sees_all[i];
            for (int j = 0; j < n; j++)
                if (all || mine[j] == mine[window]) in[len++] = j;
            if (in[0] != window) continue;
            size_t here = arena_mark(c->scratch);
            tensor idx = tensor_1d(in, DT_I32, len), p[4], from[4] = {x, q, kk, v};
            for (int f = 0; f < 4; f++) {
                p[f] = ctx_2d(c, DT_F32, len, d);
                op_gather(c, p[f], from[f], idx);
            }
            start[1] = len;
            run.attn = (attn_args){.n_seqs = 1,
                                   .q_start = tensor_1d(start, DT_I32, 2),
                                   .kv_len = tensor_1d(&start[1], DT_I32, 1)};
            stack_attend(c, &w->stack, &m->tower[i], i, p[0], p[1], p[2], p[3], &run);
            stack_feed_forward(c, &w->stack, &m->tower[i], p[0]);
            for (int j = 0; j < len; j++) op_copy(c, tensor_rows(x, in[j], 1), tensor_rows(p[0], j, 1));
            arena_reset(c->scratch, here);
        }
        for (int set = 0; set < s->deep.n; set++)
            if (s->deep.state[set] == i + 1)
                ctx_download(c, out + (size_t)(1 + set) * (size_t)rows * (size_t)s->join.out,
                             merge_all(c, &s->deep.join, m->deep[set], x));
        arena_reset(c->scratch, mark);
    }
    tensor y = merge_all(c, &s->join, m->w + S_FIRST_JOIN, x);
    for (int i = 0; i < rows; i++) ctx_download(c, out + cells[i] * s->join.out, tensor_rows(y, i, 1));
    if (!ctx_ok(c)) fail_msg("%s", c->st.msg);
    free(order), free(turns), free(taps), free(mine), free(by), free(cells);
    return out;
}

static size_t measured(rig *r) {
    arena none = {0};
    ctx dry = {.be = r->be, .scratch = &none, .dry = true};
    tiles unread = {0};
    const model_spec *s = model_get_spec(r->m);
    status st = {0};
    assert_true(spec_plan_image(s, &(image_ask){20, 20, 1}, &IMAGE_LIMITS_DEFAULT, &unread.plan, &st));
    encode *e = encode_new(r->m, r->be, &unread, &st);
    assert_non_null(e);
    assert_true(encode_run(&dry, e, encode_slices(e)));
    encode_free(e);
    return none.peak_bytes;
}

static void check_tower(size_t i, int threads, int encode_rows) {
    status st = {0};
    folder_new();
    folder_put("config.json", TOWERS[i].config);
    folder_put("preprocessor_config.json", TOWERS[i].prep);
    if (!random_weights(folder, DT_F32, 5 + i, &st)) fail_msg("%s", st.msg);
    rig r = {.be = backend_new(
                 &(backend_options){.device = "cpu", .threads = threads, .encode_rows = encode_rows}, &st)};
    r.m = model_load(folder, r.be, &st);
    if (!r.m) fail_msg("%s", st.msg);
    assert_true(arena_init(&r.scratch, 64 << 20, &st));
    r.c = (ctx){.be = r.be, .scratch = &r.scratch};
    size_t most = measured(&r);
    const model_spec *s = model_get_spec(r.m);
    for (size_t k = 0; k < ARRAY_LEN(TOWERS[i].sizes); k++) {
        int w = TOWERS[i].sizes[k][0], h = TOWERS[i].sizes[k][1];
        tiles t = one_tile(w, h, NULL);
        for (int p = 0; p < w * h * 3; p++) t.rgb[p] = (uint8_t)((uint32_t)p * 2654435761u >> 13);
        int rows = s->image_rows(s, &t.plan);
        assert_int_equal(rows, w / 8 * (h / 8));
        size_t bytes = (size_t)(1 + s->deep.n) * (size_t)rows * (size_t)s->join.out * sizeof(float);
        float *want = whole(&r, &t);
        static const int stops[] = {1 << 20, 1, 3};
        for (size_t n = 0; n < ARRAY_LEN(stops); n++) {
            arena_reset(&r.scratch, 0);
            r.scratch.peak_bytes = 0;
            float *got = encoded(&r, &t, stops[n]);
            assert_true(r.scratch.peak_bytes <= most);
            assert_memory_equal(got, want, bytes);
            free(got);
        }
        free(want);
        tiles_fini(&t);
    }
    arena_fini(&r.scratch);
    model_free(r.m);
    backend_free(r.be);
    folder_free();
}

static void test_blocks(void **state) {
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(TOWERS); i++)
        for (int threads = 1; threads <= 2; threads++)
            for (int k = 0; k < 3; k++) check_tower(i, threads, (const int[]){0, 48, 1024}[k]);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sizes),   cmocka_unit_test(test_settings), cmocka_unit_test(test_patches),
        cmocka_unit_test(test_windows), cmocka_unit_test(test_blocks),
    };
    log_set_level(LOG_ERROR);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
