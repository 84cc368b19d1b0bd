/* test_tower.c - an encode in blocks of rows, on a tower large enough to have several: stopping after every slice, and
 * one thread or two, blocks of any size, change no bit; and the rows are those of the same layers run whole, bit for bit. Likewise
 * a join whose queries attend to the tower's rows, both of several blocks, and one whose queries read a text of several as well. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "engine/model/encode.h"
#include "tests/tools/folder.h"
#include "tests/tools/one_tile.h"
#include "tests/tools/random_weights.h"

/* 17 x 17 patches and, in the first, CLS: three blocks, the last one shorter; patches in three slices. */
#define TEXT                                                                                                 \
    "\"text_config\":{\"model_type\":\"llama\",\"hidden_size\":48,\"intermediate_size\":64,"                 \
    "\"num_hidden_layers\":1,\"num_attention_heads\":4,\"vocab_size\":64}"
#define TOWER                                                                                                \
    "\"hidden_size\":48,\"intermediate_size\":80,\"num_hidden_layers\":4,\"num_attention_heads\":3,"         \
    "\"image_size\":102,\"patch_size\":6"
static const char *const CONFIGS[] = {
    "{\"model_type\":\"llava\"," TEXT ",\"vision_config\":{\"model_type\":\"clip_vision_model\"," TOWER
    "}}\n",
    "{\"model_type\":\"llava\"," TEXT
    ",\"vision_feature_select_strategy\":\"full\",\"vision_feature_layer\":[1,-1],"
    "\"vision_config\":{\"model_type\":\"siglip_vision_model\"," TOWER "}}\n",
    "{\"model_type\":\"blip-2\",\"image_token_index\":3,\"num_query_tokens\":150," TEXT
    ",\"qformer_config\":{\"hidden_size\":40,\"intermediate_size\":72,\"num_hidden_layers\":3,"
    "\"num_attention_heads\":5},\"vision_config\":{" TOWER "}}\n",
    "{\"model_type\":\"instructblip\",\"image_token_index\":3,\"num_query_tokens\":150," TEXT
    ",\"qformer_config\":{\"hidden_size\":40,\"intermediate_size\":72,\"num_hidden_layers\":3,"
    "\"num_attention_heads\":5,\"vocab_size\":70,\"max_position_embeddings\":140},"
    "\"vision_config\":{" TOWER "}}\n",
};
enum { TEXT_IDS = 133 }; /* of a text that is read with the picture: two blocks */
static const char PREP[] =
    "{\"image_processor_type\":\"CLIPImageProcessor\",\"size\":{\"shortest_edge\":102},"
    "\"crop_size\":{\"height\":102,\"width\":102}}\n";

typedef struct rig {
    backend *be;
    model *m;
    arena scratch;
    ctx c;
    tiles pixels;
} rig;

static void rig_open(rig *r, const char *dir, int threads, int encode_rows) {
    status st = {0};
    backend_options o = {.device = "cpu", .threads = threads, .encode_rows = encode_rows};
    *r = (rig){.be = backend_new(&o, &st)};
    assert_non_null(r->be);
    r->m = model_load(dir, r->be, &st);
    if (!r->m) fail_msg("%s", st.msg);
    assert_true(arena_init(&r->scratch, 16 << 20, &st));
    r->c = (ctx){.be = r->be, .scratch = &r->scratch};
    int side = model_get_spec(r->m)->tower.image_size;
    r->pixels = one_tile(side, side, NULL);
    assert_non_null(r->pixels.rgb);
    for (int i = 0; i < side * side * 3; i++) r->pixels.rgb[i] = (uint8_t)(i * 2654435761u >> 13);
    int vocab = model_get_spec(r->m)->join.read_vocab;
    if (!vocab) return;
    r->pixels.plan.n_text = TEXT_IDS;
    r->pixels.text = mem_alloc(TEXT_IDS * sizeof *r->pixels.text);
    assert_non_null(r->pixels.text);
    for (int i = 0; i < TEXT_IDS; i++) r->pixels.text[i] = i * 31 % vocab;
}

static void rig_close(rig *r) {
    tiles_fini(&r->pixels);
    arena_fini(&r->scratch);
    model_free(r->m);
    backend_free(r->be);
}

static float *rows_of(rig *r, int slices, int *calls) {
    status st = {0};
    encode *e = encode_new(r->m, r->be, &r->pixels, &st);
    assert_non_null(e);
    for (*calls = 1; !encode_run(&r->c, e, slices); ++*calls) {
        if (!ctx_ok(&r->c)) fail_msg("%s", r->c.st.msg);
        memset(r->scratch.base, 0xFF,
               r->scratch.cap_bytes); /* NaN: nothing of a slice may live on in scratch */
    }
    if (slices == 1) assert_int_equal(*calls, encode_slices(e));
    tensor t = encode_rows(e);
    float *out = malloc((size_t)tensor_count(&t) * sizeof *out);
    assert_non_null(out);
    ctx_download(&r->c, out, t);
    encode_free(e);
    return out;
}

/* The queries' layers, each over all rows at once; with a text behind them, in the last layer too. */
static tensor queries_whole(rig *r, tensor features) {
    const model *m = r->m;
    const join_spec *j = &m->spec.join;
    const stack_spec *k = &j->stack;
    ctx *c = &r->c;
    int n = j->latents, text = r->pixels.plan.n_text, all = n + text, width = k->heads * k->head_dim;
    int32_t iota[512], start[] = {0, all}, start_beside[] = {0, n}, own = all, len = (int)features.d[0];
    assert_true(all <= 512);
    for (int i = 0; i < all; i++) iota[i] = i;
    tensor x = ctx_2d(c, DT_F32, all, k->width), y = ctx_2d(c, DT_F32, n, j->out),
           kb = ctx_2d(c, DT_F32, len, width), vb = ctx_2d(c, DT_F32, len, width),
           queries = tensor_rows(x, 0, n), words = tensor_rows(x, n, text);
    op_embed(c, queries, m->w[S_LATENTS], tensor_1d(iota, DT_I32, n), 1);
    if (text) {
        op_embed(c, words, m->w[S_READ_EMBED], tensor_1d(r->pixels.text, DT_I32, text), 1);
        op_embed_add(c, words, m->w[S_READ_POS], tensor_1d(iota, DT_I32, text));
    }
    op_norm(c, x, x, m->w[S_JOIN_G], m->w[S_JOIN_B], k->norm, k->norm_eps, 0);
    layer_run run = {.attn = {.n_seqs = 1,
                              .q_start = tensor_1d(start, DT_I32, 2),
                              .kv_len = tensor_1d(&own, DT_I32, 1)}},
              beside = run;
    beside.attn.q_start = tensor_1d(start_beside, DT_I32, 2);
    beside.attn.kv_len = tensor_1d(&len, DT_I32, 1);
    for (int i = 0; i < k->n_layers; i++) {
        const layer_weights *w = &m->join[i];
        tensor q = ctx_2d(c, DT_F32, all, width), kt = ctx_2d(c, DT_F32, all, width),
               vt = ctx_2d(c, DT_F32, all, width);
        stack_project(c, k, w, x, q, kt, vt, &run);
        stack_attend(c, k, w, i, x, q, kt, vt, &run);
        if (k->beside[i]) {
            stack_beside_keep(c, w, features, kb, vb);
            stack_beside_attend(c, k, w, queries, kb, vb, &beside);
        }
        stack_feed_forward(c, k, w, queries);
        if (text && i + 1 < k->n_layers) {
            layer_weights of_text = *w;
            for (int s = 0; s < 2; s++) {
                of_text.w[L_UP_W + s] = w->w[L_TEXT_UP_W + s];
                of_text.w[L_DOWN_W + s] = w->w[L_TEXT_DOWN_W + s];
                of_text.w[L_NORM2_G + s] = w->w[L_TEXT_NORM_G + s];
            }
            stack_feed_forward(c, k, &of_text, words);
        }
    }
    op_linear(c, y, queries, m->w[S_FC1_W], m->w[S_FC1_B], ACT_NONE, 0);
    return y;
}

/* The tower without blocks: each layer over all rows at once, row-exact. */
static float *rows_whole(rig *r) {
    const model *m = r->m;
    const tower_spec *t = &m->spec.tower;
    ctx *c = &r->c;
    int side = t->image_size / t->patch, all = tower_rows(t, (grid){side, side});
    int64_t cls = t->cls, d = t->stack.width, out_rows = tower_features_rows(t, side, side);
    int32_t iota[512];
    assert_true(all <= 512);
    for (int i = 0; i < all; i++) iota[i] = i;
    tensor x = ctx_2d(c, DT_F32, all, d),
           patches = ctx_2d(c, DT_F32, all - cls, (int64_t)3 * t->patch * t->patch);
    tensor pixels = ctx_tensor(c, DT_U8, 3, (int64_t[]){t->image_size, t->image_size, 3});
    tensor features = ctx_2d(c, DT_F32, out_rows, d * t->n_features), ids = tensor_1d(iota, DT_I32, all);
    ctx_upload(c, pixels, r->pixels.rgb);
    patchify_args a = {.patch = t->patch, .rescale = m->spec.prep.rescale};
    memcpy(a.mean, m->spec.prep.mean, sizeof a.mean);
    memcpy(a.std, m->spec.prep.std, sizeof a.std);
    op_patchify(c, patches, pixels, &a);
    op_linear(c, tensor_rows(x, cls, all - cls), patches, m->w[S_PATCH_W], m->w[S_PATCH_B], ACT_NONE, 0);
    if (cls) op_embed(c, tensor_rows(x, 0, 1), m->w[S_CLASS], tensor_1d(ids.data, DT_I32, 1), 1);
    op_embed_add(c, x, m->w[S_POS], ids);
    if (t->pre_norm) op_norm(c, x, x, m->w[S_PRE_G], m->w[S_PRE_B], t->stack.norm, t->stack.norm_eps, 0);
    int32_t start[] = {0, all}, len = all;
    layer_run run = {
        .attn = {.n_seqs = 1, .q_start = tensor_1d(start, DT_I32, 2), .kv_len = tensor_1d(&len, DT_I32, 1)}};
    for (int i = 0; i <= t->run_layers; i++) {
        if (i) stack_layer(c, &t->stack, &m->tower[i - 1], i - 1, x, &run);
        for (int f = 0; f < t->n_features; f++)
            if (t->features[f] == i)
                op_copy(c, tensor_cols(features, f * d, d), tensor_rows(x, all - out_rows, out_rows));
    }
    tensor y;
    if (t->post_norm)
        op_norm(c, features, features, m->w[S_POST_G], m->w[S_POST_B], t->stack.norm, t->stack.norm_eps, 0);
    if (m->spec.join.latents) {
        y = queries_whole(r, features);
    } else {
        tensor h = ctx_2d(c, DT_F32, out_rows, m->spec.join.hidden);
        y = ctx_2d(c, DT_F32, out_rows, m->spec.join.out);
        op_linear(c, h, features, m->w[S_FC1_W], m->w[S_FC1_B], m->spec.join.activation, 0);
        op_linear(c, y, h, m->w[S_FC2_W], m->w[S_FC2_B], ACT_NONE, 0);
    }
    if (!ctx_ok(c)) fail_msg("%s", c->st.msg);
    float *out = malloc((size_t)tensor_count(&y) * sizeof *out);
    assert_non_null(out);
    ctx_download(c, out, y);
    return out;
}

static void check(const char *config) {
    status st = {0};
    folder_new();
    folder_put("config.json", config);
    folder_put("preprocessor_config.json", PREP);
    if (!random_weights(folder, DT_F32, 5, &st)) fail_msg("%s", st.msg);
    float *first = NULL;
    static const int block_rows[] = {0, 128, 40, 290, 4096}; /* 0: the CPU's own 128 */
    for (size_t b = 0; b < ARRAY_LEN(block_rows); b++) {
        rig r;
        rig_open(&r, folder, b ? 2 : 1, block_rows[b]);
        const model_spec *s = model_get_spec(r.m);
        grid g = {s->tower.image_size / s->tower.patch, s->tower.image_size / s->tower.patch};
        int blocks = (tower_rows(&s->tower, g) + s->tower.block_rows - 1) / s->tower.block_rows;
        assert_int_equal(s->tower.block_rows, b ? block_rows[b] : 128);
        if (b < 2) assert_int_equal(blocks, 3);
        assert_int_equal(tower_slices(&s->tower, g, 1),
                         blocks_even(&s->tower, 17 * 17) + s->tower.run_layers * 2 * blocks);
        size_t n = (size_t)join_rows(s, g, 0) * (size_t)s->join.out;
        static const int stops[] = {1 << 20, 1, 4};
        for (size_t i = 0; i < ARRAY_LEN(stops); i++) {
            int calls;
            float *got = rows_of(&r, stops[i], &calls);
            if (first)
                assert_memory_equal(got, first, n * sizeof *got);
            else
                first = got;
            if (got != first) free(got);
        }
        float *whole = rows_whole(&r);
        assert_memory_equal(first, whole, n * sizeof *whole);
        free(whole);
        rig_close(&r);
    }
    free(first);
    folder_free();
}

static void test_blocks(void **state) {
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(CONFIGS); i++) check(CONFIGS[i]);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_blocks)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
