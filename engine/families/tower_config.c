/* tower_config.c - the vision_config of the ViTs whose hidden states other models read.
 *
 * Source: transformers' CLIPVisionConfig, SiglipVisionConfig and their modules. Thread: the loader's. */
#include <string.h>

#include "engine/families/family.h"

typedef struct tower_kind {
    const char *name;
    stack_defaults stack;
    int image, patch;                           /* the class's defaults, too */
    bool patch_bias, cls, pre_norm, own_family; /* own_family: only for the family that asks for it */
    bool grids;                                 /* num_patches, a table for any grid, instead of image_size */
} tower_kind;

/* clang-format off */
static const tower_kind KINDS[] = {
    {"clip_vision_model", {12, 768, 3072, 12, 1e-5, "quick_gelu"}, 224, 32, false, true, true, false, false},
    {"siglip_vision_model", {12, 768, 3072, 12, 1e-6, "gelu_pytorch_tanh"}, 224, 16, true, false, false, false, false},
    {"internvl_vision", {24, 1024, 4096, 16, 1e-6, "gelu"}, 448, 14, true, true, false, true, false},
    {"idefics2_vision", {12, 768, 3072, 12, 1e-6, "gelu_pytorch_tanh"}, 224, 32, true, false, false, true, false},
    {"idefics3_vision", {12, 1152, 3072, 16, 1e-6, "gelu_pytorch_tanh"}, 224, 32, true, false, false, true, false},
    {"blip_2_vision_model", {39, 1408, 6144, 16, 1e-6, "gelu"}, 224, 14, true, true, false, true, false},
    {"blip_vision_model", {12, 768, 3072, 12, 1e-5, "gelu"}, 384, 16, true, true, false, true, false},
    {"siglip2_vision_model", {12, 768, 3072, 12, 1e-6, "gelu_pytorch_tanh"}, 0, 16, true, false, false, true, true},
};
/* clang-format on */

static const tower_kind *find(const char *name) {
    for (size_t i = 0; i < ARRAY_LEN(KINDS); i++)
        if (strcmp(KINDS[i].name, name) == 0) return &KINDS[i];
    return NULL;
}

/* A square table of positions. How many patches a picture may have is the processor's to say. */
static void read_table(config *c, tower_spec *t) {
    t->max_patches = (int)config_int(c, "num_patches", 256, 1, 1 << 16);
    while ((t->pos_side + 1) * (t->pos_side + 1) <= t->max_patches) t->pos_side++;
    if (t->pos_side * t->pos_side != t->max_patches)
        config_fail(c, ST_INVALID, "num_patches", "expected a square number, found %d", t->max_patches);
    t->image_size = t->pos_side * t->patch;
}

static bool read_kind(config *c, const tower_kind *k, tower_spec *t) {
    if (!stack_config_read(c, &k->stack, &t->stack)) return false;
    t->patch = config_square(c, "patch_size", k->patch);
    if (k->grids)
        read_table(c, t);
    else
        t->image_size = config_square(c, "image_size", k->image);
    if (t->patch > t->image_size)
        return config_fail(c, ST_INVALID, "patch_size", "%d is larger than image_size %d", t->patch,
                           t->image_size);
    config_only_int(c, "num_channels", 3);
    config_get(c, "vision_use_head");
    t->patch_bias = k->patch_bias;
    t->cls = k->cls;
    t->pre_norm = k->pre_norm;
    config_warn_unknown(c);
    return c->st->code == ST_OK;
}

bool tower_config_read_as(config *c, const char *kind, tower_spec *t) {
    const tower_kind *k = find(kind);
    CHECK(k);
    return read_kind(c, k, t);
}

bool tower_config_read(config *c, const char *def, tower_spec *t) {
    const char *type = config_str(c, "model_type", def);
    const tower_kind *k = find(type);
    if (k && (!k->own_family || strcmp(type, def) == 0)) return read_kind(c, k, t);
    return config_fail(c, ST_UNSUPPORTED, "model_type",
                       "tower \"%.60s\" is not implemented; known are clip_vision_model, siglip_vision_model",
                       type);
}

const char *const NAMES_TOWER_LAYER[L_COUNT] = {
    [L_NORM1_G] = "encoder.layers.%d.layer_norm1.weight",
    [L_NORM1_B] = "encoder.layers.%d.layer_norm1.bias",
    [L_Q_W] = "encoder.layers.%d.self_attn.q_proj.weight",
    [L_Q_B] = "encoder.layers.%d.self_attn.q_proj.bias",
    [L_K_W] = "encoder.layers.%d.self_attn.k_proj.weight",
    [L_K_B] = "encoder.layers.%d.self_attn.k_proj.bias",
    [L_V_W] = "encoder.layers.%d.self_attn.v_proj.weight",
    [L_V_B] = "encoder.layers.%d.self_attn.v_proj.bias",
    [L_O_W] = "encoder.layers.%d.self_attn.out_proj.weight",
    [L_O_B] = "encoder.layers.%d.self_attn.out_proj.bias",
    [L_NORM2_G] = "encoder.layers.%d.layer_norm2.weight",
    [L_NORM2_B] = "encoder.layers.%d.layer_norm2.bias",
    [L_UP_W] = "encoder.layers.%d.mlp.fc1.weight",
    [L_UP_B] = "encoder.layers.%d.mlp.fc1.bias",
    [L_DOWN_W] = "encoder.layers.%d.mlp.fc2.weight",
    [L_DOWN_B] = "encoder.layers.%d.mlp.fc2.bias",
};

/* Queries, keys and values in one tensor. */
const char *const NAMES_TOWER_LAYER_FUSED[L_COUNT] = {
    [L_NORM1_G] = "encoder.layers.%d.layer_norm1.weight",
    [L_NORM1_B] = "encoder.layers.%d.layer_norm1.bias",
    [L_Q_W] = "encoder.layers.%d.self_attn.qkv.weight#0/3",
    [L_K_W] = "encoder.layers.%d.self_attn.qkv.weight#1/3",
    [L_V_W] = "encoder.layers.%d.self_attn.qkv.weight#2/3",
    [L_Q_B] = "encoder.layers.%d.self_attn.qkv.bias#0/3",
    [L_K_B] = "encoder.layers.%d.self_attn.qkv.bias#1/3",
    [L_V_B] = "encoder.layers.%d.self_attn.qkv.bias#2/3",
    [L_O_W] = "encoder.layers.%d.self_attn.projection.weight",
    [L_O_B] = "encoder.layers.%d.self_attn.projection.bias",
    [L_NORM2_G] = "encoder.layers.%d.layer_norm2.weight",
    [L_NORM2_B] = "encoder.layers.%d.layer_norm2.bias",
    [L_UP_W] = "encoder.layers.%d.mlp.fc1.weight",
    [L_UP_B] = "encoder.layers.%d.mlp.fc1.bias",
    [L_DOWN_W] = "encoder.layers.%d.mlp.fc2.weight",
    [L_DOWN_B] = "encoder.layers.%d.mlp.fc2.bias",
};
