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
    {"LlavaImageProcessor",          RESAMPLE_BICUBIC,  CLIP_MEAN, CLIP_STD, 1 / 255.0,  224,   0,   0,  224,  true,  false, true},
    {"MobileNetV1ImageProcessor",    RESAMPLE_BILINEAR, HALF,      HALF,     1 / 255.0,  256,   0,   0,  224,  true,  false, false},
    {"OwlViTImageProcessor",         RESAMPLE_BICUBIC,  CLIP_MEAN, CLIP_STD, 1 / 255.0,    0, 768, 768,  768,  false, true,  false},
    {"PvtImageProcessor",            RESAMPLE_BICUBIC,  {0.485, 0.456, 0.406}, {0.229, 0.224, 0.225}, 1 / 255.0, 0, 224, 224, 0, false, true, false},
    {"Qwen2VLImageProcessor",        RESAMPLE_BICUBIC,  CLIP_MEAN, CLIP_STD, 1 / 255.0,    0,   0,   0,    0,  false, false, false},
    {"Qwen2_5_VLImageProcessor",     RESAMPLE_BICUBIC,  CLIP_MEAN, CLIP_STD, 1 / 255.0,    0,   0,   0,    0,  false, false, false},
    {"SiglipImageProcessor",         RESAMPLE_BICUBIC,  HALF,      HALF,     1 / 255.0,    0, 224, 224,    0,  false, false, false},
    {"ViTImageProcessor",            RESAMPLE_BILINEAR, HALF,      HALF,     1 / 255.0,    0, 224, 224,    0,  false, true,  false},
};
/* clang-format on */

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
