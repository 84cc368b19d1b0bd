/* test_bad.c - checkpoints that must not load, and what is said about them: file, tensor or key, expected and found.
 * Each starts from a golden checkpoint and is spoilt in one place. */
#include <jansson.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "engine/ckpt/ckpt.h"
#include "engine/families/registry.h"
#include "engine/model/model.h"

static char g_dir[64];

static const char *in_dir(const char *name) {
    static char path[4][256];
    static int k;
    k = (k + 1) % 4;
    snprintf(path[k], sizeof path[k], "%s/%s", g_dir, name);
    return path[k];
}

static void copy(const char *from, const char *to) {
    char block[65536];
    FILE *a = fopen(from, "rb");
    if (!a) return;
    FILE *b = fopen(to, "wb");
    assert_non_null(b);
    size_t k;
    while ((k = fread(block, 1, sizeof block, a)) > 0) assert_int_equal(fwrite(block, 1, k, b), k);
    fclose(a);
    assert_int_equal(fclose(b), 0);
}

static const char *const FILES[] = {"config.json",
                                    "generation_config.json",
                                    "model.safetensors",
                                    "processor_config.json",
                                    "preprocessor_config.json",
                                    "model.safetensors.index.json",
                                    "model-00001-of-00002.safetensors",
                                    "model-00002-of-00002.safetensors"};

static const char *const FOLDERS[] = {"models", "families"};

static void fresh(const char *golden) {
    for (size_t i = 0; i < ARRAY_LEN(FILES); i++) {
        char from[256];
        unlink(in_dir(FILES[i]));
        for (size_t k = 0; k < ARRAY_LEN(FOLDERS); k++) {
            snprintf(from, sizeof from, "tests/golden/%s/%s/%s", FOLDERS[k], golden, FILES[i]);
            copy(from, in_dir(FILES[i]));
        }
    }
}

/* Merges patch into j; the string "-" deletes a key. */
static void merge(json_t *j, json_t *patch) {
    const char *key;
    json_t *v;
    json_object_foreach(patch, key, v) {
        json_t *was = json_object_get(j, key);
        if (json_is_object(v) && json_is_object(was))
            merge(was, v);
        else if (json_is_string(v) && strcmp(json_string_value(v), "-") == 0)
            json_object_del(j, key);
        else
            json_object_set(j, key, v);
    }
}

static void patch_file(const char *name, const char *patch) {
    json_error_t e;
    json_t *j = json_load_file(in_dir(name), 0, &e), *p = json_loads(patch, 0, &e);
    if (!j || !p) fail_msg("%s: %s", patch, e.text);
    merge(j, p);
    assert_int_equal(json_dump_file(j, in_dir(name), 0), 0);
    json_decref(j);
    json_decref(p);
}

static void write_text(const char *name, const char *text) {
    FILE *f = fopen(in_dir(name), "wb");
    assert_non_null(f);
    fputs(text, f);
    fclose(f);
}

static void expect(const char *what, const char *w1, const char *w2, const char *w3) {
    status st = {0};
    buf out = {0};
    if (model_inspect(g_dir, &out, &st)) fail_msg("%s: accepted", what);
    const char *words[] = {w1, w2, w3};
    for (int i = 0; i < 3; i++)
        if (words[i] && !strstr(st.msg, words[i]))
            fail_msg("%s: said \"%s\", expected \"%s\" in it", what, st.msg, words[i]);
    buf_fini(&out);
}

static void accept(const char *what) {
    status st = {0};
    buf out = {0};
    if (!model_inspect(g_dir, &out, &st)) fail_msg("%s: %s", what, st.msg);
    buf_fini(&out);
}

/* ---- config values --------------------------------------------------------------------------------------------------- */

static void bad_config(const char *golden, const char *patch, const char *key, const char *found) {
    fresh(golden);
    patch_file("config.json", patch);
    expect(patch, "config.json", key, found);
}

static void test_config(void **state) {
    (void)state;
    bad_config("clip_llama", "{\"model_type\":\"mamba\"}", "model_type", "mamba");
    bad_config("clip_llama", "{\"model_type\":\"-\"}", "model_type", "missing");
    bad_config("clip_llama", "{\"architectures\":[\"LlavaLlamaForCausalLM\"]}", "architectures",
               "LlavaLlamaForCausalLM");
    bad_config("clip_llama", "{\"quantization_config\":{\"bits\":4}}", "quantization_config",
               "not implemented");
    bad_config("clip_llama", "{\"text_config\":{\"model_type\":\"bloom\"}}", "text_config.model_type",
               "bloom");
    bad_config("clip_llama", "{\"text_config\":{\"model_type\":\"llava\"}}", "text_config.model_type",
               "llava");
    bad_config("clip_llama", "{\"text_config\":[1]}", "text_config", "object");
    bad_config("clip_llama", "{\"text_config\":{\"hidden_act\":\"mish\"}}", "text_config.hidden_act", "mish");
    bad_config("clip_llama", "{\"text_config\":{\"hidden_size\":\"48\"}}", "text_config.hidden_size",
               "\"48\"");
    bad_config("clip_llama", "{\"text_config\":{\"hidden_size\":-48}}", "text_config.hidden_size", "-48");
    bad_config("clip_llama", "{\"text_config\":{\"hidden_size\":1e30}}", "text_config.hidden_size", "1e30");
    bad_config("clip_llama", "{\"text_config\":{\"num_hidden_layers\":100000}}", "num_hidden_layers",
               "100000");
    bad_config("clip_llama", "{\"text_config\":{\"num_key_value_heads\":4}}", "num_key_value_heads",
               "divisor");
    bad_config("clip_llama", "{\"text_config\":{\"head_dim\":9}}", "head_dim", "even");
    bad_config("clip_llama", "{\"text_config\":{\"num_attention_heads\":0}}", "num_attention_heads",
               "found 0");
    bad_config("clip_llama", "{\"text_config\":{\"rms_norm_eps\":\"x\"}}", "rms_norm_eps", "x");
    bad_config("clip_llama", "{\"text_config\":{\"is_encoder_decoder\":true}}", "is_encoder_decoder",
               "only false");
    bad_config("clip_llama", "{\"text_config\":{\"rope_scaling\":{\"type\":\"longrope\",\"factor\":2}}}",
               "rope_type", "longrope");
    bad_config("clip_llama", "{\"text_config\":{\"rope_scaling\":{\"type\":\"linear\"}}}", "factor",
               "missing");
    bad_config("clip_llama", "{\"text_config\":{\"rope_scaling\":{\"rope_type\":\"llama3\",\"factor\":8}}}",
               "low_freq_factor", NULL);
    bad_config("clip_llama",
               "{\"text_config\":{\"partial_rotary_factor\":0.5,\"rope_scaling\":{\"type\":\"linear\","
               "\"factor\":2}}}",
               "partial_rotary_factor", "0.5");
    bad_config("clip_llama", "{\"vision_config\":{\"model_type\":\"pixtral\"}}", "vision_config.model_type",
               "pixtral");
    bad_config("clip_llama", "{\"vision_config\":{\"num_channels\":1}}", "num_channels", "found 1");
    bad_config("clip_llama", "{\"vision_config\":{\"image_size\":[28,56]}}", "image_size", "square");
    bad_config("clip_llama", "{\"vision_config\":{\"patch_size\":64}}", "patch_size", "larger");
    bad_config("clip_llama", "{\"vision_config\":{\"hidden_act\":\"gelu_10\"}}", "hidden_act", "gelu_10");
    bad_config("clip_llama", "{\"vision_config\":{\"num_attention_heads\":7}}", "hidden_size", "multiple");
    bad_config("clip_llama", "{\"vision_feature_layer\":5}", "vision_feature_layer", "found 5");
    bad_config("clip_llama", "{\"vision_feature_layer\":-6}", "vision_feature_layer", "found -6");
    bad_config("clip_llama", "{\"vision_feature_layer\":[]}", "vision_feature_layer", "at least one");
    bad_config("clip_llama", "{\"vision_feature_layer\":\"last\"}", "vision_feature_layer", "last");
    bad_config("clip_llama", "{\"vision_feature_select_strategy\":\"cls\"}", "vision_feature_select_strategy",
               "cls");
    bad_config("clip_llama", "{\"projector_hidden_act\":\"tanh\"}", "projector_hidden_act", "tanh");
    bad_config("clip_llama", "{\"mm_projector_type\":\"mlp3x_gelu\"}", "mm_projector_type", "mlp3x_gelu");
    bad_config("clip_llama", "{\"multimodal_projector_bias\":\"yes\"}", "multimodal_projector_bias", "yes");
    bad_config("text_qwen2", "{\"layer_types\":[\"full_attention\"]}", "layer_types", "3");
    bad_config("text_gemma", "{\"use_bidirectional_attention\":true}", "use_bidirectional_attention",
               "false");
    bad_config("text_gemma2", "{\"use_bidirectional_attention\":true}", "use_bidirectional_attention",
               "false");
    bad_config("text_gemma2", "{\"sliding_window\":null}", "layer_types", "no window");
    bad_config("text_gemma2", "{\"attn_logit_softcapping\":0}", "attn_logit_softcapping", "found 0");
    bad_config("text_gemma2", "{\"query_pre_attn_scalar\":\"x\"}", "query_pre_attn_scalar", "x");
    bad_config("text_gemma3", "{\"sliding_window_pattern\":0}", "sliding_window_pattern", "found 0");
    bad_config("text_gemma3", "{\"rope_scaling\":{\"rope_type\":\"longrope\"}}", "rope_scaling.rope_type",
               "longrope");
    bad_config("text_opt", "{\"activation_function\":\"mish\"}", "activation_function", "mish");
    bad_config("text_opt", "{\"num_attention_heads\":5}", "hidden_size", "multiple");
    bad_config("both_ways_gemma3", "{\"mm_tokens_per_image\":5}", "mm_tokens_per_image", "4 x 4");
    bad_config("both_ways_gemma3", "{\"vision_config\":\"-\"}", "vision_config", "missing");
    bad_config("both_ways_gemma3", "{\"text_config\":{\"use_bidirectional_attention\":true}}",
               "text_config.use_bidirectional_attention", "false");
    bad_config("both_ways_paligemma", "{\"projection_dim\":40}", "projection_dim", "found 40");
    bad_config("both_ways_paligemma", "{\"text_config\":\"-\"}", "projection_dim",
               "expected text_config.hidden_size 2048");
    bad_config("text_qwen2",
               "{\"layer_types\":[\"chunked_attention\",\"full_attention\",\"full_attention\"]}",
               "layer_types", "chunked_attention");
    bad_config("text_qwen2",
               "{\"use_sliding_window\":false,\"layer_types\":[\"sliding_attention\",\"full_attention\","
               "\"full_attention\"]}",
               "layer_types", "no window");
}

/* Pictures at their own size: what the config and the image processor's file say has to fit together. */
static void test_native(void **state) {
    (void)state;
    static const struct {
        const char *golden, *patch, *key, *part;
    } bad[] = {
        {"qwen2_vl", "{\"rope_scaling\":{\"mrope_section\":[1,2,3]}}", "mrope_section",
         "half a head's 5, found 6"},
        {"qwen2_vl", "{\"rope_scaling\":{\"mrope_section\":[5]}}", "mrope_section", "3 sections, found 1"},
        {"qwen2_vl", "{\"rope_scaling\":{\"mrope_interleaved\":true}}", "mrope_interleaved", "false"},
        {"qwen2_vl", "{\"rope_scaling\":{\"type\":\"dynamic\",\"factor\":2}}", "rope_type", "dynamic"},
        {"qwen2_vl", "{\"rope_scaling\":{\"type\":\"longrope\"}}", "rope_type", "longrope"},
        {"qwen2_vl", "{\"head_dim\":12,\"rope_scaling\":{\"mrope_section\":[2,2,2]}}", "head_dim",
         "expected hidden_size"},
        {"qwen2_vl", "{\"vision_config\":{\"hidden_size\":61}}", "hidden_size",
         "decoder's width 60, found 61"},
        {"qwen2_vl", "{\"vision_config\":{\"num_heads\":2}}", "embed_dim", "multiple of 4"},
        {"qwen2_vl", "{\"vision_config\":{\"in_chans\":1}}", "in_chans", "found 1"},
        {"qwen2_vl", "{\"vision_config\":{\"model_type\":\"qwen3_vl\"}}", "model_type",
         "qwen2_vl_vision, found qwen3_vl"},
        {"qwen2_vl", "{\"vision_config\":{\"patch_size\":14}}", "vision_config", "patch_size is 7"},
        {"qwen2_vl", "{\"vision_config\":{\"rope_parameters\":{\"rope_type\":\"yarn\"}}}", "rope_type",
         "axial"},
        {"qwen2_vl_new", "{\"text_config\":{\"model_type\":\"qwen2\"}}", "text_config.model_type",
         "qwen2_vl_text"},
        {"qwen2_5_vl", "{\"vision_config\":{\"window_size\":13}}", "window_size", "merged cell of 14"},
        {"qwen2_5_vl", "{\"vision_config\":{\"fullatt_block_indexes\":\"all\"}}", "fullatt_block_indexes",
         "all"},
        {"qwen3_vl", "{\"vision_config\":{\"deepstack_visual_indexes\":[1,1]}}", "deepstack_visual_indexes",
         "twice"},
        {"qwen3_vl", "{\"vision_config\":{\"deepstack_visual_indexes\":[3]}}", "deepstack_visual_indexes",
         "0 to 2"},
        {"qwen3_vl", "{\"vision_config\":{\"deepstack_visual_indexes\":[0,1,2,3]}}",
         "deepstack_visual_indexes", "at most"},
        {"qwen3_vl", "{\"text_config\":{\"rope_scaling\":{\"mrope_interleaved\":false}}}",
         "mrope_interleaved", "true"},
        {"qwen3_vl", "{\"text_config\":{\"use_sliding_window\":true}}", "use_sliding_window", "false"},
    };
    for (size_t i = 0; i < ARRAY_LEN(bad); i++)
        bad_config(bad[i].golden, bad[i].patch, bad[i].key, bad[i].part);
    fresh("qwen2_vl");
    patch_file("preprocessor_config.json",
               "{\"image_processor_type\":\"CLIPImageProcessor\",\"size\":{\"shortest_edge\":9}}");
    expect("another class", "vision_config", "its class has none", NULL);
    fresh("qwen2_vl");
    patch_file("preprocessor_config.json", "{\"temporal_patch_size\":1}");
    expect("other frames", "vision_config", "temporal_patch_size 1", NULL);
    fresh("qwen3_vl");
    patch_file("config.json", "{\"vision_config\":{\"deepstack_visual_indexes\":[0]}}");
    expect("one deep layer less", "deepstack_merger_list.1", "no place", NULL);
    fresh("qwen3_vl");
    patch_file("config.json", "{\"vision_config\":{\"num_position_embeddings\":49}}");
    expect("a smaller table", "pos_embed", "[49, 24]", NULL);
}

static void test_queries(void **state) {
    (void)state;
    static const struct {
        const char *golden, *patch, *key, *found;
    } bad[] = {
        {"blip2", "{\"qformer_config\":{\"num_attention_heads\":4}}", "qformer_config.hidden_size",
         "multiple of num_attention_heads 4, found 30"},
        {"blip2", "{\"qformer_config\":{\"cross_attention_frequency\":0}}", "cross_attention_frequency", "0"},
        {"blip2", "{\"qformer_config\":{\"position_embedding_type\":\"relative_key\"}}",
         "position_embedding_type", "absolute"},
        {"blip2", "{\"qformer_config\":{\"hidden_act\":\"mish\"}}", "qformer_config.hidden_act", "mish"},
        {"blip2", "{\"num_query_tokens\":0}", "num_query_tokens", "0"},
        {"blip2", "{\"image_token_index\":350}", "image_token_index", "found 350"},
        {"blip2", "{\"text_config\":{\"word_embed_proj_dim\":28}}", "text_config.word_embed_proj_dim",
         "found 28"},
        {"blip2", "{\"text_config\":{\"model_type\":\"t5\"}}", "text_config.model_type", "t5"},
        {"instructblip", "{\"text_config\":{\"model_type\":\"t5\"}}", "text_config.model_type", "t5"},
        {"instructblip", "{\"qformer_config\":{\"vocab_size\":0}}", "qformer_config.vocab_size", "0"},
        {"instructblip", "{\"qformer_config\":{\"max_position_embeddings\":0}}",
         "qformer_config.max_position_embeddings", "0"},
        {"instructblip", "{\"qformer_config\":{\"num_attention_heads\":4}}", "qformer_config.hidden_size",
         "multiple of num_attention_heads 4, found 30"},
        {"instructblip", "{\"num_query_tokens\":-1}", "num_query_tokens", "-1"},
        {"instructblip", "{\"image_token_index\":350}", "image_token_index", "found 350"},
    };
    for (size_t i = 0; i < ARRAY_LEN(bad); i++)
        bad_config(bad[i].golden, bad[i].patch, bad[i].key, bad[i].found);
    /* The tensors of layers that attend to the picture say which those are. */
    fresh("blip2");
    patch_file("config.json", "{\"qformer_config\":{\"cross_attention_frequency\":1}}");
    expect("a cross-attention that is not there", "layer.1.crossattention", "is missing", "[30]");
    fresh("blip2");
    patch_file("config.json", "{\"num_query_tokens\":8}");
    expect("queries", "query_tokens", "[8, 30]", "[1, 7, 30]");
    fresh("instructblip");
    patch_file("config.json", "{\"qformer_config\":{\"vocab_size\":140}}");
    expect("a text's words", "word_embeddings", "[140, 30]", "[141, 30]");
    fresh("instructblip");
    patch_file("config.json", "{\"qformer_config\":{\"max_position_embeddings\":231}}");
    expect("a text's positions", "position_embeddings", "[231, 30]", "[230, 30]");
}

static void test_config_files(void **state) {
    (void)state;
    fresh("clip_llama");
    unlink(in_dir("config.json"));
    expect("no config", "config.json", "No such file", NULL);
    write_text("config.json", "{\"a\": 1,\n \"a\" 2}");
    expect("a colon is missing", "config.json", "line 2", NULL);
    write_text("config.json",
               "{\"model_type\": \"llava\", \"model_type\": \"mamba\"}"); /* the last wins, as in Python */
    expect("twice", "model_type", "mamba", NULL);
    write_text("config.json", "[]");
    expect("a list", "config.json", "object", NULL);
    write_text("config.json", "");
    expect("empty", "config.json", "not valid JSON", NULL);
    fresh("clip_llama");
    unlink(in_dir("processor_config.json"));
    expect("no preprocessor", "preprocessor_config.json", "No such file", NULL);
    fresh("clip_llama");
    patch_file("processor_config.json", "{\"image_processor\":{\"crop_size\":{\"height\":42,\"width\":42}}}");
    expect("another size", "processor_config.json", "42 x 42", "28");
    fresh("clip_llama");
    patch_file("generation_config.json", "{\"eos_token_id\":[\"x\"]}");
    expect("eos", "generation_config.json", "eos_token_id", "x");
    fresh("clip_llama");
    patch_file("config.json", "{\"an_unknown_key\":1,\"text_config\":{\"another\":{}}}");
    accept("unknown keys are warnings");
}

/* ---- tensors ------------------------------------------------------------------------------------------------------------ */

typedef struct edit { /* what happens to one tensor of the copy; the whole file follows */
    const char *name, *rename;
    bool drop, twice, as_int;
    int64_t cut; /* rows of the first dimension that go */
} edit;

static void rewrite(const char *file, edit e) {
    status st = {0};
    buf head = {0}, data = {0};
    st_file *f = st_open(in_dir(file), &st);
    if (!f) fail_msg("%s", st.msg);
    buf_puts(&head, "{\"__metadata__\":{\"format\":\"pt\"}");
    bool hit = e.name == NULL;
    for (size_t i = 0; i < st_count(f); i++)
        for (int again = 0; again < 2; again++) {
            const st_tensor *t = st_at(f, i);
            bool mine = e.name && strcmp(t->name, e.name) == 0;
            hit |= mine;
            if ((mine && e.drop) || (again && !(mine && e.twice))) continue;
            int64_t cut = mine ? e.cut : 0;
            size_t bytes = t->bytes - (cut ? t->bytes / (size_t)t->d[0] * (size_t)cut : 0);
            const char *name = mine && e.rename && (again || !e.twice) ? e.rename : t->name;
            buf_printf(&head, ",\"%s\":{\"dtype\":\"%s\",\"shape\":[", name,
                       mine && e.as_int ? "I32" : t->dt->name);
            for (int k = 0; k < t->nd; k++)
                buf_printf(&head, "%s%lld", k ? "," : "", (long long)(t->d[k] - (k ? 0 : cut)));
            buf_printf(&head, "],\"data_offsets\":[%zu,%zu]}", data.len, data.len + bytes);
            buf_append(&data, t->data, bytes);
        }
    assert_true(hit);
    buf_puts(&head, "}");
    st_close(f);
    FILE *out = fopen(in_dir(file), "wb");
    assert_non_null(out);
    for (int i = 0; i < 8; i++) fputc((int)((uint64_t)head.len >> (8 * i) & 255), out);
    fwrite(head.data, 1, head.len, out);
    fwrite(data.data, 1, data.len, out);
    fclose(out);
    buf_fini(&head);
    buf_fini(&data);
}

static void bad_tensor(edit e, const char *w1, const char *w2, const char *w3) {
    fresh("clip_llama");
    rewrite("model.safetensors", e);
    expect(e.name, w1, w2, w3);
}

#define Q1 "language_model.model.layers.1.self_attn.q_proj.weight"

static void test_tensors(void **state) {
    (void)state;
    fresh("clip_llama");
    rewrite("model.safetensors", (edit){0});
    accept("a faithful copy");
    bad_tensor((edit){.name = Q1, .drop = true}, "layers.1.self_attn.q_proj.weight", "missing", "[60, 48]");
    bad_tensor((edit){.name = Q1, .rename = "model.elsewhere.weight"}, "layers.1.self_attn.q_proj.weight",
               "missing", NULL);
    bad_tensor((edit){.name = Q1, .cut = 1}, Q1, "expected shape [60, 48]", "F32 [59, 48]");
    bad_tensor((edit){.name = Q1, .as_int = true}, Q1, "expected F32, F16 or BF16", "I32 [60, 48]");
    bad_tensor(
        (edit){.name = Q1, .twice = true, .rename = "model.language_model.layers.1.self_attn.q_proj.weight"},
        "both", Q1, NULL);
    bad_tensor((edit){.name = Q1, .twice = true, .rename = "model.extra.weight"}, "model.safetensors",
               "model.extra.weight", "no place");
    bad_tensor(
        (edit){.name = Q1, .twice = true, .rename = "language_model.model.layers.3.self_attn.q_proj.weight"},
        "layers.3.self_attn.q_proj.weight", "no place", NULL);
    bad_tensor((edit){.name = "language_model.lm_head.weight", .drop = true}, "lm_head.weight", "missing",
               NULL);
    bad_tensor((edit){.name = "multi_modal_projector.linear_1.bias", .cut = 2}, "linear_1.bias", "[48]",
               "[46]");
    bad_tensor((edit){.name = "vision_tower.embeddings.position_embedding.weight", .cut = 1},
               "position_embedding.weight", "[17, 30]", "[16, 30]");
    /* A join of one matrix goes by several names. */
    static const char *const names[] = {"multi_modal_projector.weight", "mm_projector.weight",
                                        "model.multi_modal_projector.linear.weight"};
    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        fresh("linear_join");
        rewrite("model.safetensors",
                (edit){.name = "multi_modal_projector.linear_1.weight", .rename = names[i]});
        accept(names[i]);
    }
    /* The picture's token has a row in the embedding, but none in the head. */
    fresh("mllama");
    patch_file("config.json", "{\"text_config\":{\"tie_word_embeddings\":true}}");
    accept("the head is there all the same");
    rewrite("model.safetensors", (edit){.name = "language_model.lm_head.weight", .drop = true});
    expect("a head within the embedding", "tie_word_embeddings", "330", "338");
    /* Behind the features, and so ignored: the tower's last layer may be missing or have any shape. */
    fresh("clip_llama");
    rewrite("model.safetensors", (edit){.name = "vision_tower.encoder.layers.3.mlp.fc1.bias", .drop = true});
    accept("a tensor that is not needed is missing");
}

static void test_text_of_queries(void **state) {
    (void)state;
    /* A text's feed-forward is needed where its rows go on, not behind the last layer. */
    fresh("instructblip");
    rewrite("model.safetensors",
            (edit){.name = "qformer.encoder.layer.1.output.LayerNorm.bias", .drop = true});
    expect("a text's norm", "layer.1.output.LayerNorm.bias", "is missing", "[30]");
    fresh("instructblip");
    rewrite("model.safetensors",
            (edit){.name = "qformer.encoder.layer.2.output.LayerNorm.bias", .drop = true});
    accept("the last layer's is not read");
}

/* One text config for what reads and what answers, and two names for the head's bias. */
static void test_question(void **state) {
    (void)state;
    bad_config("blip_vqa", "{\"text_config\":{\"hidden_size\":28}}", "text_config.hidden_size",
               "vision_config.hidden_size 24, found 28");
    bad_config("blip_vqa", "{\"text_config\":{\"num_attention_heads\":5}}", "text_config.hidden_size",
               "multiple of num_attention_heads 5");
    bad_config("blip_vqa", "{\"text_config\":{\"is_decoder\":false}}", "text_config.is_decoder", "only true");
    bad_config("blip_vqa", "{\"text_config\":{\"bos_token_id\":140}}", "text_config.bos_token_id", "140");
    bad_config("blip_vqa", "{\"text_config\":{\"sep_token_id\":-1}}", "text_config.sep_token_id", "-1");
    bad_config("blip_vqa", "{\"architectures\":[\"BlipForConditionalGeneration\"]}", "architectures",
               "BlipForConditionalGeneration");
    fresh("blip_vqa");
    patch_file("config.json", "{\"text_config\":{\"max_position_embeddings\":151}}");
    expect("more positions", "position_embeddings", "[151, 24]", "[150, 24]");
    fresh("blip_vqa");
    patch_file("config.json",
               "{\"tie_word_embeddings\":false,\"text_config\":{\"tie_word_embeddings\":false}}");
    expect("a head of its own", "decoder.weight", "missing", NULL);
    static const char *const bias = "text_decoder.cls.predictions.decoder.bias";
    fresh("blip_vqa_old");
    rewrite("model.safetensors", (edit){.name = bias, .drop = true});
    accept("the bias's other name");
    patch_file("config.json",
               "{\"tie_word_embeddings\":false,\"text_config\":{\"tie_word_embeddings\":false}}");
    expect("a bias of its own", bias, "missing", NULL);
    fresh("blip_vqa_old");
    rewrite("model.safetensors", (edit){.name = "text_decoder.cls.predictions.bias", .drop = true});
    accept("one bias alone");
}

static void test_truncated(void **state) {
    (void)state;
    fresh("clip_llama");
    struct stat sb;
    assert_int_equal(stat(in_dir("model.safetensors"), &sb), 0);
    long long sizes[] = {0, 5, 8, 1000, sb.st_size / 2, sb.st_size - 1};
    for (size_t i = 0; i < ARRAY_LEN(sizes); i++) {
        fresh("clip_llama");
        assert_int_equal(truncate(in_dir("model.safetensors"), sizes[i]), 0);
        expect("cut off", "model.safetensors", NULL, NULL);
    }
    unlink(in_dir("model.safetensors"));
    expect("no weights", "model.safetensors", "model.safetensors.index.json", NULL);
    assert_int_equal(mkdir(in_dir("model.safetensors"), 0700), 0);
    expect("a folder", "model.safetensors", "regular file", NULL);
    rmdir(in_dir("model.safetensors"));
}

static void test_index(void **state) {
    (void)state;
    static const char index_name[] = "model.safetensors.index.json";
    static const struct {
        const char *text, *w1, *w2;
    } bad[] = {
        {"{}", "weight_map", NULL},
        {"{\"weight_map\":{}}", "weight_map", NULL},
        {"{\"weight_map\":[1]}", "weight_map", NULL},
        {"{\"weight_map\":{\"a\":\"../secret.safetensors\"}}", "in this folder", "../secret"},
        {"{\"weight_map\":{\"a\":\"/etc/passwd\"}}", "in this folder", "/etc/passwd"},
        {"{\"weight_map\":{\"a\":\"..\"}}", "in this folder", NULL},
        {"{\"weight_map\":{\"a\":\".safetensors\"}}", "in this folder", NULL},
        {"{\"weight_map\":{\"a\":\"weights.bin\"}}", "in this folder", "weights.bin"},
        {"{\"weight_map\":{\"a\":7}}", "in this folder", NULL},
        {"{\"weight_map\":{\"a\":\"none.safetensors\"}}", "none.safetensors", "No such file"},
        {"{\"weight_map\":{\"a\":\"model-00001-of-00002.safetensors\"}}", "does not", NULL},
    };
    fresh("siglip_qwen3_layers");
    accept("shards as written");
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        fresh("siglip_qwen3_layers");
        write_text(index_name, bad[i].text);
        expect(bad[i].text, index_name, bad[i].w1, bad[i].w2);
    }
    /* A tensor in two shards is the one the index names. */
    fresh("siglip_qwen3_layers");
    status st = {0};
    st_file *f = st_open(in_dir("model-00001-of-00002.safetensors"), &st);
    st_file *g = st_open(in_dir("model-00002-of-00002.safetensors"), &st);
    char first[128], other[128];
    snprintf(first, sizeof first, "%s", st_at(f, 0)->name);
    snprintf(other, sizeof other, "%s", st_at(g, 0)->name);
    st_close(f);
    st_close(g);
    rewrite("model-00001-of-00002.safetensors", (edit){.name = first, .twice = true, .rename = other});
    accept("a second copy in another shard");
    fresh("siglip_qwen3_layers");
    unlink(in_dir("model-00002-of-00002.safetensors"));
    expect("missing shard", "model-00002-of-00002.safetensors", "No such file", NULL);
}

/* ---- readings that no golden shows --------------------------------------------------------------------------------------- */

static model_spec read_spec(const char *golden, const char *patch, const char *generation) {
    status st = {0};
    model_spec s;
    const name_sheet *sheet;
    fresh(golden);
    patch_file("config.json", patch);
    if (generation) write_text("generation_config.json", generation);
    if (!family_read(g_dir, &s, &sheet, &st)) fail_msg("%s: %s", patch, st.msg);
    return s;
}

static void test_defaults(void **state) {
    (void)state;
    /* transformers' defaults of LlavaConfig, CLIPVisionConfig, LlamaConfig. */
    fresh("clip_llama");
    unlink(in_dir("generation_config.json"));
    write_text("config.json", "{\"model_type\":\"llava\",\"text_config\":{\"model_type\":\"llama\"}}");
    patch_file("processor_config.json",
               "{\"image_processor\":{\"crop_size\":{\"height\":336,\"width\":336}}}");
    status st = {0};
    model_spec s;
    const name_sheet *sheet;
    if (!family_read(g_dir, &s, &sheet, &st)) fail_msg("%s", st.msg);
    assert_int_equal(s.tower.stack.width, 1024);
    assert_int_equal(s.tower.stack.n_layers, 24);
    assert_int_equal(s.tower.run_layers, 23);
    prep_plan square;
    assert_true(prep_plan_one(&(prep_spec){.size = PREP_SIZE_EXACT, .size_w = 336, .size_h = 336}, 9, 9,
                              &IMAGE_LIMITS_DEFAULT, &square, NULL));
    assert_int_equal(s.image_rows(&s, &square), 576);
    assert_int_equal(s.text.stack.ffn, 11008);
    assert_int_equal(s.text.stack.kv_heads, 32);
    assert_int_equal(s.text.stack.head_dim, 128);
    assert_int_equal(s.text.max_pos, 2048);
    assert_int_equal(s.image_token, 32000);
    assert_int_equal(s.n_eos, 1);
    assert_int_equal(s.eos[0], 2);
    assert_int_equal(s.bos, 1);
    assert_true(s.join.bias && s.join.activation == ACT_GELU && s.join.kind == JOIN_MLP);

    s = read_spec("text_mistral",
                  "{\"num_key_value_heads\":\"-\",\"num_attention_heads\":16,\"sliding_window\":\"-\"}",
                  NULL);
    assert_int_equal(s.text.stack.kv_heads, 8);
    assert_int_equal(s.text.stack.window[0], 4096);
    s = read_spec("text_mistral",
                  "{\"num_key_value_heads\":null,\"num_attention_heads\":16,\"sliding_window\":null}", NULL);
    assert_int_equal(s.text.stack.kv_heads, 16);
    assert_int_equal(s.text.stack.window[0], 0);
    s = read_spec("text_qwen3", "{\"head_dim\":\"-\"}", NULL);
    assert_int_equal(s.text.stack.head_dim, 128);
    s = read_spec("text_llama", "{\"head_dim\":null}", NULL);
    assert_int_equal(s.text.stack.head_dim, 8);
    s = read_spec("text_qwen2", "{\"use_sliding_window\":false}", NULL);
    assert_int_equal(s.text.stack.window[2], 0);
    s = read_spec("text_llama",
                  "{\"partial_rotary_factor\":0.5,\"rope_parameters\":{\"rope_type\":\"default\"}}", NULL);
    assert_int_equal(s.text.stack.rope.dims, s.text.stack.head_dim);
    s = read_spec("text_gemma3",
                  "{\"rope_scaling\":{\"rope_type\":\"yarn\",\"factor\":2,\"truncate\":false,"
                  "\"original_max_position_embeddings\":64}}",
                  NULL);
    assert_true(s.text.stack.rope.kind == ROPE_YARN && s.text.stack.rope.truncate);
    s = read_spec("text_gemma3", "{\"rope_scaling\":{\"rope_type\":\"-\",\"type\":\"linear\",\"factor\":2}}",
                  NULL);
    assert_int_equal(s.text.stack.rope.kind, ROPE_DEFAULT);
    s = read_spec(
        "text_gemma3",
        "{\"rope_scaling\":{\"rope_type\":\"-\",\"factor\":2},\"rope_parameters\":{\"full_attention\":"
        "{\"rope_type\":\"linear\",\"rope_theta\":77,\"factor\":3}}}",
        NULL);
    assert_true(s.text.stack.rope.kind == ROPE_LINEAR && s.text.stack.rope.factor == 2 &&
                s.text.stack.rope.theta == 77);
    s = read_spec("clip_llama", "{\"tie_word_embeddings\":true}", NULL);
    assert_true(s.text.tied);
    s = read_spec("clip_llama", "{\"text_config\":{\"tie_word_embeddings\":true}}", NULL);
    assert_true(s.text.tied);
    s = read_spec("clip_llama", "{\"image_token_index\":\"-\",\"image_token_id\":77}", NULL);
    assert_int_equal(s.image_token, 77);
}

/* The order in which a config names the arrangements of tiles says nothing; which ones does. */
static void test_arrangements(void **state) {
    (void)state;
    model_spec s =
        read_spec("mllama_old",
                  "{\"vision_config\":{\"supported_aspect_ratios\":[[3,1],[1,2],[1,1],[2,1],[1,3]]}}", NULL);
    assert_int_equal(s.tower.arrangements, 5);
    status st = {0};
    const name_sheet *sheet;
    patch_file("config.json",
               "{\"vision_config\":{\"supported_aspect_ratios\":[[3,1],[1,2],[1,1],[2,2],[1,3]]}}");
    assert_false(family_read(g_dir, &s, &sheet, &st));
    assert_non_null(strstr(st.msg, "all 5 arrangements"));
}

static void test_generation_config(void **state) {
    (void)state;
    model_spec s = read_spec(
        "text_llama", "{}",
        "{\"eos_token_id\":[5,6,7],\"temperature\":0.6,\"top_p\":0.9,\"top_k\":20,\"do_sample\":true,"
        "\"repetition_penalty\":1.1,\"max_new_tokens\":99}");
    assert_int_equal(s.n_eos, 3);
    assert_int_equal(s.eos[2], 7);
    assert_int_equal(s.top_k, 20);
    assert_int_equal(s.max_new_tokens, 99);
    assert_true(s.temperature == 0.6f && s.top_p == 0.9f && s.repetition_penalty == 1.1f);
    assert_true(s.min_p != s.min_p);
    s = read_spec("text_llama", "{\"eos_token_id\":[8,9]}", "{}");
    assert_int_equal(s.n_eos, 2);
    assert_true(s.temperature != s.temperature);
    assert_int_equal(s.top_k, -1);
}

static int setup(void **state) {
    (void)state;
    snprintf(g_dir, sizeof g_dir, "/tmp/vlmd-bad-XXXXXX");
    return mkdtemp(g_dir) ? 0 : -1;
}

static int teardown(void **state) {
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(FILES); i++) unlink(in_dir(FILES[i]));
    return rmdir(g_dir);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_config),       cmocka_unit_test(test_queries),
        cmocka_unit_test(test_native),       cmocka_unit_test(test_config_files),
        cmocka_unit_test(test_tensors),      cmocka_unit_test(test_text_of_queries),
        cmocka_unit_test(test_question),     cmocka_unit_test(test_truncated),
        cmocka_unit_test(test_index),        cmocka_unit_test(test_defaults),
        cmocka_unit_test(test_arrangements), cmocka_unit_test(test_generation_config),
    };
    log_set_level(LOG_ERROR);
    return cmocka_run_group_tests(tests, setup, teardown);
}
