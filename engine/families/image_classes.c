/* image_classes.c - the image processor classes by name, behind engine/image/prep_classes.h: what a checkpoint's file
 * means when it leaves a key out. Names here are values found in files, as data.
 *
 * Thread: any; constant. */
#include "engine/image/prep_classes.h"

#include <string.h>

#define CLIP_MEAN                                                                                            \
    { 0.48145466, 0.4578275, 0.40821073 }
#define CLIP_STD                                                                                             \
    { 0.26862954, 0.26130258, 0.27577711 }
#define HALF                                                                                                 \
    { 0.5, 0.5, 0.5 }
#define ONE                                                                                                  \
    { 1.0, 1.0, 1.0 }

/* clang-format off */
static const prep_class classes[] = {
    /* name                          filter             mean       std       rescale     short  h    w   crop  crops  sq     pads */
    {"",                             RESAMPLE_BICUBIC,  CLIP_MEAN, CLIP_STD, 1 / 255.0,  224,   0,   0,  224,  true,  false, true},
    {"BitImageProcessor",            RESAMPLE_BICUBIC,  CLIP_MEAN, CLIP_STD, 1 / 255.0,  224,   0,   0,  224,  true,  false, false},
    {"BlipImageProcessor",           RESAMPLE_BICUBIC,  CLIP_MEAN, CLIP_STD, 1 / 255.0,    0, 384, 384,    0,  false, true,  false},
    {"ChameleonImageProcessor",      RESAMPLE_LANCZOS,  ONE,       ONE,      0.0078,     512,   0,   0,  512,  true,  false, false},
    {"ChineseCLIPImageProcessor",    RESAMPLE_BICUBIC,  CLIP_MEAN, CLIP_STD, 1 / 255.0,  224,   0,   0,  224,  true,  false, false},
    {"CLIPImageProcessor",           RESAMPLE_BICUBIC,  CLIP_MEAN, CLIP_STD, 1 / 255.0,  224,   0,   0,  224,  true,  false, false},
    {"DeiTImageProcessor",           RESAMPLE_BICUBIC,  HALF,      HALF,     1 / 255.0,    0, 256, 256,  224,  true,  true,  false},
    {"GotOcr2ImageProcessor",        RESAMPLE_BICUBIC,  CLIP_MEAN, CLIP_STD, 1 / 255.0,    0, 384, 384,    0,  false, true,  false},
    {"Idefics2ImageProcessor",       RESAMPLE_BILINEAR, HALF,      HALF,     1 / 255.0,  378,   0,   0,    0,  false, false, false},
    {"Idefics3ImageProcessor",       RESAMPLE_LANCZOS,  HALF,      HALF,     1 / 255.0,    0,   0,   0,    0,  false, false, false},
    {"Gemma3ImageProcessor",         RESAMPLE_BILINEAR, HALF,      HALF,     1 / 255.0,    0, 224, 224,    0,  false, true,  false},
    {"LlavaImageProcessor",          RESAMPLE_BICUBIC,  CLIP_MEAN, CLIP_STD, 1 / 255.0,  224,   0,   0,  224,  true,  false, true},
    {"MllamaImageProcessor",         RESAMPLE_BILINEAR, HALF,      HALF,     1 / 255.0,    0, 224, 224,    0,  false, true,  false},
    {"LlavaNextImageProcessor",      RESAMPLE_BICUBIC,  CLIP_MEAN, CLIP_STD, 1 / 255.0,  224,   0,   0,  224,  true,  false, false},
    {"LlavaOnevisionImageProcessor", RESAMPLE_BICUBIC,  CLIP_MEAN, CLIP_STD, 1 / 255.0,    0, 384, 384,    0,  false, false, false},
    {"MobileNetV1ImageProcessor",    RESAMPLE_BILINEAR, HALF,      HALF,     1 / 255.0,  256,   0,   0,  224,  true,  false, false},
    {"OwlViTImageProcessor",         RESAMPLE_BICUBIC,  CLIP_MEAN, CLIP_STD, 1 / 255.0,    0, 768, 768,  768,  false, true,  false},
    {"PvtImageProcessor",            RESAMPLE_BICUBIC,  {0.485, 0.456, 0.406}, {0.229, 0.224, 0.225}, 1 / 255.0, 0, 224, 224, 0, false, true, false},
    {"Qwen2VLImageProcessor",        RESAMPLE_BICUBIC,  CLIP_MEAN, CLIP_STD, 1 / 255.0,    0,   0,   0,    0,  false, false, false},
    {"Qwen2_5_VLImageProcessor",     RESAMPLE_BICUBIC,  CLIP_MEAN, CLIP_STD, 1 / 255.0,    0,   0,   0,    0,  false, false, false},
    {"Siglip2ImageProcessor",     RESAMPLE_BILINEAR, HALF,      HALF,     1 / 255.0,    0,   0,   0,    0,  false, false, false},
    {"SiglipImageProcessor",         RESAMPLE_BICUBIC,  HALF,      HALF,     1 / 255.0,    0, 224, 224,    0,  false, false, false},
    {"SmolVLMImageProcessor",        RESAMPLE_LANCZOS,  HALF,      HALF,     1 / 255.0,    0,   0,   0,    0,  false, false, false},
    {"ViTImageProcessor",            RESAMPLE_BILINEAR, HALF,      HALF,     1 / 255.0,    0, 224, 224,    0,  false, true,  false},
};
/* clang-format on */

#define ACROSS(h)                                                                                            \
    {h, 384}, {h, 768}, {h, 1152}, {h, 1536}, {h, 1920}, {                                                   \
        h, 2304                                                                                              \
    }
static const int16_t POINTS_5[][2] = {{336, 672}, {672, 336}, {672, 672}, {1008, 336}, {336, 1008}};
static const int16_t POINTS_36[][2] = {ACROSS(384),  ACROSS(768),  ACROSS(1152),
                                       ACROSS(1536), ACROSS(1920), ACROSS(2304)};

static const prep_cut_class cuts[] = {
    {.name = "GotOcr2ImageProcessor", .kind = PREP_CUT_RATIO, .min_tiles = 1, .max_tiles = 12},
    {.name = "Idefics2ImageProcessor", .kind = PREP_CUT_QUARTERS, .longest = 980},
    {.name = "Idefics3ImageProcessor", .kind = PREP_CUT_EDGE, .longest = 4 * 364, .side = 364, .split = true},
    {.name = "SmolVLMImageProcessor", .kind = PREP_CUT_EDGE, .longest = 4 * 364, .side = 364, .split = true},
    {.name = "LlavaNextImageProcessor",
     .kind = PREP_CUT_POINTS,
     .points = POINTS_5,
     .n_points = ARRAY_LEN(POINTS_5)},
    {.name = "LlavaOnevisionImageProcessor",
     .kind = PREP_CUT_POINTS,
     .points = POINTS_36,
     .n_points = ARRAY_LEN(POINTS_36)},
};

const prep_cut_class *prep_class_cut(const char *name) {
    for (size_t i = 0; i < ARRAY_LEN(cuts); i++)
        if (strcmp(cuts[i].name, name) == 0) return &cuts[i];
    return NULL;
}

const prep_class *prep_class_find(const char *name, size_t n) {
    for (size_t i = 0; i < ARRAY_LEN(classes); i++)
        if (strlen(classes[i].name) == n && memcmp(classes[i].name, name, n) == 0) return &classes[i];
    return NULL;
}

/* The second name is what the first files of Qwen2.5-VL said. */
static const struct {
    const char *name;
    prep_native v;
} natives[] = {
    {"Qwen2VLImageProcessor", {56 * 56, 28 * 28 * 1280, 14, 2, 2}},
    {"Qwen2_5_VLImageProcessor", {56 * 56, 28 * 28 * 1280, 14, 2, 2}},
};

const prep_native *prep_class_native(const prep_class *c) {
    for (size_t i = 0; i < ARRAY_LEN(natives); i++)
        if (strcmp(natives[i].name, c->name) == 0) return &natives[i].v;
    return NULL;
}

bool prep_class_grid(const prep_class *c, int *max_patches, int *patch) {
    if (strcmp(c->name, "Siglip2ImageProcessor") != 0) return false;
    *max_patches = 256;
    *patch = 16;
    return true;
}
