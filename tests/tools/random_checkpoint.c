/* random_checkpoint.c - fills a folder that holds a config.json with random weights: any shape, any dtype.
 *
 *   make build/tests/tools/random_checkpoint
 *   build/tests/tools/random_checkpoint [--preset NAME] [--dtype f32|f16|bf16] [--seed N] [--like FOLDER] DIR
 *
 * --preset writes config.json (and the picture settings) first; --like copies a tokenizer and a chat template, so that
 * the folder can be served: presets with pictures name the picture's token as models/vlmd-tiny has it. Thread: main. */
#include <stdlib.h>
#include <sys/stat.h>

#include "tests/tools/random_weights.h"

#define CLIP_L_PREP                                                                                          \
    "{\"image_processor_type\":\"CLIPImageProcessor\",\"size\":{\"shortest_edge\":336},\"crop_size\":{"      \
    "\"height\":336,"                                                                                        \
    "\"width\":336},\"do_center_crop\":true,\"do_resize\":true,\"do_normalize\":true,\"do_rescale\":true,"   \
    "\"resample\":3,\"image_mean\":[0.48145466,0.4578275,0.40821073],"                                       \
    "\"image_std\":[0.26862954,0.26130258,0.27577711]}\n"
/* What the reference library's processor wants besides, and vLLM's, which is that one. */
#define LLAVA_PROCESSOR                                                                                      \
    "{\"processor_class\":\"LlavaProcessor\",\"image_token\":\"<image>\",\"patch_size\":14,"                 \
    "\"num_additional_image_tokens\":1,\"vision_feature_select_strategy\":\"default\"}\n"
/* The keys of LLaVA-1.5's config.json; where others name no class, these do: vLLM goes by it. */
#define LLAVA(vision, text)                                                                                  \
    "{\"architectures\":[\"LlavaForConditionalGeneration\"],\"model_type\":\"llava\",\"ignore_index\":-100," \
    "\"image_token_index\":4,\"image_seq_length\":576,\"projector_hidden_act\":\"gelu\","                    \
    "\"vision_feature_layer\":-2,\"vision_feature_select_strategy\":\"default\","                            \
    "\"tie_word_embeddings\":false,\"vision_config\":{\"model_type\":\"clip_vision_model\","                 \
    "\"image_size\":336,\"patch_size\":14," vision "},"                                                      \
    "\"text_config\":{\"architectures\":[\"LlamaForCausalLM\"]," text "}}\n"
#define CLIP_L                                                                                               \
    "\"hidden_size\":1024,\"intermediate_size\":4096,\"num_attention_heads\":16,\"num_hidden_layers\":24,"   \
    "\"projection_dim\":768"
#define CLIP_TINY                                                                                            \
    "\"hidden_size\":64,\"intermediate_size\":128,\"num_attention_heads\":4,\"num_hidden_layers\":3,"        \
    "\"projection_dim\":64"
#define LLAMA_1B                                                                                             \
    "\"model_type\":\"llama\",\"hidden_size\":2048,\"intermediate_size\":5632,\"num_hidden_layers\":22,"     \
    "\"num_attention_heads\":32,\"num_key_value_heads\":4,\"vocab_size\":32064,\"max_position_embeddings\":" \
    "4096"
#define LLAMA_7B                                                                                             \
    "\"model_type\":\"llama\",\"hidden_size\":4096,\"intermediate_size\":11008,\"num_hidden_layers\":32,"    \
    "\"num_attention_heads\":32,\"num_key_value_heads\":32,\"vocab_size\":32064,"                            \
    "\"max_position_embeddings\":4096,\"rms_norm_eps\":1e-5"
#define LLAMA_TINY                                                                                           \
    "\"model_type\":\"llama\",\"hidden_size\":128,\"intermediate_size\":256,\"num_hidden_layers\":2,"        \
    "\"num_attention_heads\":4,\"num_key_value_heads\":2,\"vocab_size\":2112,"                               \
    "\"max_position_embeddings\":4096"

#define QWEN_TEXT                                                                                            \
    "\"vocab_size\":151936,\"hidden_size\":2048,\"num_attention_heads\":16,\"rms_norm_eps\":1e-6,"           \
    "\"tie_word_embeddings\":true,"
#define QWEN_PREP(patch, least, most)                                                                        \
    "{\"image_processor_type\":\"Qwen2VLImageProcessor\",\"patch_size\":" patch                              \
    ",\"size\":{\"shortest_edge\":" least ",\"longest_edge\":" most "}}\n"

static const struct preset {
    const char *name, *config, *prep, *processor; /* the last two: NULL for none */
} PRESETS[] = {
    {"llama-1.1b", "{" LLAMA_1B "}\n", NULL, NULL},
    {"llava-tiny", LLAVA(CLIP_TINY, LLAMA_TINY), CLIP_L_PREP, LLAVA_PROCESSOR},
    {"llava-1.1b", LLAVA(CLIP_L, LLAMA_1B), CLIP_L_PREP, LLAVA_PROCESSOR},
    {"llava-1.5-7b", LLAVA(CLIP_L, LLAMA_7B), CLIP_L_PREP, LLAVA_PROCESSOR},
    {"qwen2-vl-2b",
     "{\"model_type\":\"qwen2_vl\",\"vocab_size\":151936,\"hidden_size\":1536,\"intermediate_size\":8960,"
     "\"num_hidden_layers\":28,\"num_attention_heads\":12,\"num_key_value_heads\":2,\"rms_norm_eps\":1e-6,"
     "\"tie_word_embeddings\":true,\"rope_theta\":1e6,\"rope_scaling\":{\"type\":\"mrope\",\"mrope_section\":"
     "[16,24,24]},\"vision_config\":{\"hidden_size\":1536}}\n",
     QWEN_PREP("14", "3136", "12845056"), NULL},
    {"qwen2.5-vl-3b",
     "{\"model_type\":\"qwen2_5_vl\"," QWEN_TEXT "\"intermediate_size\":11008,\"num_hidden_layers\":36,"
     "\"num_key_value_heads\":2,\"rope_theta\":1e6,\"rope_scaling\":{\"type\":\"mrope\",\"mrope_section\":"
     "[16,24,24]},\"vision_config\":{\"hidden_size\":1280,\"out_hidden_size\":2048}}\n",
     QWEN_PREP("14", "3136", "12845056"), NULL},
    {"qwen3-vl-2b",
     "{\"model_type\":\"qwen3_vl\",\"tie_word_embeddings\":true,\"text_config\":{\"model_type\":\"qwen3_vl_"
     "text\"," QWEN_TEXT
     "\"intermediate_size\":6144,\"num_hidden_layers\":28,\"num_key_value_heads\":8,\"rope_theta\":5e6,"
     "\"rope_scaling\":{\"rope_type\":\"default\",\"mrope_section\":[24,20,20],\"mrope_interleaved\":true}},"
     "\"vision_config\":{\"depth\":24,\"hidden_size\":1024,\"intermediate_size\":4096,\"out_hidden_size\":"
     "2048,"
     "\"deepstack_visual_indexes\":[5,11,17]}}\n",
     QWEN_PREP("16", "65536", "16777216"), NULL},
    {"blip-vqa-base",
     "{\"model_type\":\"blip\",\"text_config\":{\"num_attention_heads\":12},\"vision_config\":{}}\n",
     "{\"image_processor_type\":\"BlipImageProcessor\"}\n", NULL},
    {"clip-b32", "{\"model_type\":\"clip\",\"text_config\":{},\"vision_config\":{}}\n",
     "{\"image_processor_type\":\"CLIPImageProcessor\"}\n", NULL},
    {"clip-l14-336",
     "{\"model_type\":\"clip\",\"projection_dim\":768,\"text_config\":{\"hidden_size\":768,\"intermediate_"
     "size\":3072,"
     "\"num_attention_heads\":12},\"vision_config\":{\"hidden_size\":1024,\"intermediate_size\":4096,"
     "\"num_hidden_layers\":24,\"num_attention_heads\":16,\"image_size\":336,\"patch_size\":14}}\n",
     CLIP_L_PREP, NULL},
    {"siglip-b16", "{\"model_type\":\"siglip\",\"text_config\":{},\"vision_config\":{}}\n",
     "{\"image_processor_type\":\"SiglipImageProcessor\"}\n", NULL},
    {"siglip2-b16-naflex",
     "{\"model_type\":\"siglip2\",\"text_config\":{\"vocab_size\":256000},\"vision_config\":{}}\n",
     "{\"image_processor_type\":\"Siglip2ImageProcessor\"}\n", NULL},
};

static bool write_text(const char *dir, const char *name, const char *text, size_t n) {
    char path[1024];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    FILE *f = fopen(path, "wb");
    bool ok = f && fwrite(text, 1, n, f) == n;
    if (f && fclose(f) != 0) ok = false;
    if (!ok) fprintf(stderr, "cannot write %s\n", path);
    return ok;
}

static bool read_all(const char *path, buf *b) {
    FILE *f = fopen(path, "rb");
    if (!f) return false;
    while (buf_reserve(b, 65536)) {
        size_t k = fread(b->data + b->len, 1, 65536, f);
        if (k == 0) break;
        b->len += k;
    }
    fclose(f);
    return true;
}

/* Version 4 of the reference library, which vLLM may come with, does not know what version 5 calls this class. */
static bool write_tokenizer_config(const char *dir, const char *name, const buf *b) {
    static const char in_5[] = "\"TokenizersBackend\"", in_both[] = "\"PreTrainedTokenizerFast\"";
    const char *at = memmem(b->data, b->len, in_5, sizeof in_5 - 1);
    buf out = {0};
    buf_append(&out, b->data, at ? (size_t)(at - b->data) : b->len);
    if (at) {
        buf_puts(&out, in_both);
        at += sizeof in_5 - 1;
        buf_append(&out, at, (size_t)(b->data + b->len - at));
    }
    bool ok = !out.failed && write_text(dir, name, out.data, out.len);
    buf_fini(&out);
    return ok;
}

static bool copy_like(const char *from, const char *dir) {
    static const char *const files[] = {"tokenizer.json", "tokenizer_config.json", "chat_template.jinja",
                                        "generation_config.json"};
    for (size_t i = 0; i < ARRAY_LEN(files); i++) {
        char path[1024];
        buf b = {0};
        snprintf(path, sizeof path, "%s/%s", from, files[i]);
        bool ok = !read_all(path, &b) ||
                  (strcmp(files[i], "tokenizer_config.json") == 0 ? write_tokenizer_config(dir, files[i], &b)
                                                                  : write_text(dir, files[i], b.data, b.len));
        buf_fini(&b);
        if (!ok) return false;
    }
    return true;
}

static int usage(void) {
    fprintf(stderr,
            "usage: random_checkpoint [--preset NAME] [--dtype f32|f16|bf16] [--seed N] [--like FOLDER] DIR\n"
            "presets:");
    for (size_t i = 0; i < ARRAY_LEN(PRESETS); i++) fprintf(stderr, " %s", PRESETS[i].name);
    fprintf(stderr, "\n");
    return 2;
}

int main(int argc, char **argv) {
    const char *dir = NULL, *like = NULL, *type = "bf16";
    const struct preset *p = NULL;
    uint64_t seed = 1;
    for (int i = 1; i < argc; i++) {
        const char *a = argv[i], *v = i + 1 < argc ? argv[i + 1] : NULL;
        if (a[0] != '-') {
            if (dir) return usage();
            dir = a;
            continue;
        }
        if (!v) return usage();
        i++;
        if (strcmp(a, "--preset") == 0) {
            for (size_t k = 0; k < ARRAY_LEN(PRESETS); k++)
                if (strcmp(PRESETS[k].name, v) == 0) p = &PRESETS[k];
            if (!p) return usage();
        } else if (strcmp(a, "--dtype") == 0) {
            type = v;
        } else if (strcmp(a, "--seed") == 0) {
            seed = strtoull(v, NULL, 10);
        } else if (strcmp(a, "--like") == 0) {
            like = v;
        } else {
            return usage();
        }
    }
    dtype dt = strcmp(type, "f32") == 0 ? DT_F32 : strcmp(type, "f16") == 0 ? DT_F16 : DT_BF16;
    if (!dir || (dt == DT_BF16 && strcmp(type, "bf16") != 0)) return usage();
    mkdir(dir, 0777);
    if (p && !write_text(dir, "config.json", p->config, strlen(p->config))) return 1;
    if (p && p->prep && !write_text(dir, "preprocessor_config.json", p->prep, strlen(p->prep))) return 1;
    if (p && p->processor && !write_text(dir, "processor_config.json", p->processor, strlen(p->processor)))
        return 1;
    if (like && !copy_like(like, dir)) return 1;
    status st = {0};
    if (!random_weights(dir, dt, seed, &st)) {
        fprintf(stderr, "random_checkpoint: %s\n", st.msg);
        return 1;
    }
    return 0;
}
