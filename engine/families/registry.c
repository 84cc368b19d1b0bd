/* registry.c - the families, one row each, and the reading of a checkpoint folder's config files.
 *
 * Thread: the loader's. Owns nothing after it returns. */
#include <stdio.h>
#include <string.h>

#include "engine/ckpt/ckpt.h"
#include "engine/families/family.h"
#include "kernels/json.h"

static const family *const FAMILIES[] = {
    /* clang-format off */
    &FAMILY_LLAVA,
    &FAMILY_LLAVA_NEXT,
    &FAMILY_LLAVA_ONEVISION,
    &FAMILY_INTERNVL,
    &FAMILY_IDEFICS2,
    &FAMILY_IDEFICS3,
    &FAMILY_SMOLVLM,
    &FAMILY_BLIP2,
    &FAMILY_INSTRUCTBLIP,
    &FAMILY_QWEN2_VL,
    &FAMILY_QWEN2_5_VL,
    &FAMILY_QWEN3_VL,
    &FAMILY_GEMMA3,
    &FAMILY_PALIGEMMA,
    &FAMILY_BLIP_VQA,
    &FAMILY_MLLAMA,
    &FAMILY_MLLAMA_TEXT,
    &FAMILY_COCA,
    &FAMILY_LLAMA,
    &FAMILY_MISTRAL,
    &FAMILY_QWEN2,
    &FAMILY_QWEN3,
    &FAMILY_GEMMA,
    &FAMILY_GEMMA2,
    &FAMILY_GEMMA3_TEXT,
    &FAMILY_OPT,
    &FAMILY_CLIP,
    &FAMILY_SIGLIP,
    &FAMILY_SIGLIP2,
    /* clang-format on */
};

const char *family_name(int i) {
    return i >= 0 && i < (int)ARRAY_LEN(FAMILIES) ? FAMILIES[i]->name : NULL;
}

bool family_table(buf *out) {
    buf_puts(out, "| `model_type` | class | |\n|---|---|---|\n");
    for (size_t i = 0; i < ARRAY_LEN(FAMILIES); i++)
        buf_printf(out, "| `%s` | `%s` | %s |\n", FAMILIES[i]->name, FAMILIES[i]->architecture,
                   FAMILIES[i]->does);
    return !out->failed;
}

const family *family_find(const char *model_type) {
    for (size_t i = 0; i < ARRAY_LEN(FAMILIES); i++)
        if (strcmp(FAMILIES[i]->name, model_type) == 0) return FAMILIES[i];
    return NULL;
}

static bool unknown(config *c, const char *what, const char *type, bool text) {
    char list[512];
    size_t at = 0;
    for (size_t i = 0; i < ARRAY_LEN(FAMILIES) && at < sizeof list; i++)
        if (!text || FAMILIES[i]->read_text)
            at += (size_t)snprintf(list + at, sizeof list - at, "%s%s", at ? ", " : "", FAMILIES[i]->name);
    return config_fail(c, ST_UNSUPPORTED, "model_type", "%s \"%.60s\" is not implemented; known are %s", what,
                       type, list);
}

bool family_read_text(config *c, const char *def, text_spec *out) {
    const char *type = config_str(c, "model_type", def ? def : "");
    const family *f = family_find(type);
    if (c->st->code != ST_OK) return false;
    if (!f || !f->read_text) return unknown(c, "decoder", type, true);
    return f->read_text(c, out);
}

bool family_read_part(config *c, const char *def, text_spec *out) {
    if (!family_read_text(c, def, out)) return false;
    out->logit_softcap = 0;
    return true;
}

/* What stands for the parts that config.json leaves out. */
static bool fill_parts(json_t *j, const family *f, status *st) {
    for (int i = 0; f->parts && f->parts[i][0]; i++) {
        const json_t *v = json_object_get(j, f->parts[i][0]);
        json_t *part = v && !json_is_null(v) ? NULL : json_literal(f->parts[i][1]);
        if ((!v || json_is_null(v)) && (!part || json_object_set_new(j, f->parts[i][0], part) != 0))
            return status_set(st, ST_NO_MEMORY, "no memory for config.json");
    }
    return true;
}

/* A file that names no class is of the one that the reference has for the model_type. */
static bool name_class(json_t *obj, const char *class, status *st) {
    bool named = json_is_string(json_object_get(obj, "image_processor_type")) ||
                 json_is_string(json_object_get(obj, "feature_extractor_type"));
    return named || !class || json_object_set_new(obj, "image_processor_type", json_string(class)) == 0 ||
           status_set(st, ST_NO_MEMORY, "no memory for the image processor's settings");
}

/* processor_config.json's image_processor where it has one, else preprocessor_config.json. */
static bool read_prep(const char *dir, const char *class, model_spec *out, status *st) {
    const char *name = "processor_config.json";
    json_t *j = ckpt_json(dir, name, true, st);
    json_t *obj = j ? json_object_get(j, "image_processor") : NULL;
    if (st->code == ST_OK && !json_is_object(obj)) {
        json_decref(j);
        name = "preprocessor_config.json";
        obj = j = ckpt_json(dir, name, false, st);
    }
    bool ok = obj && st->code == ST_OK;
    if (ok && !json_is_object(obj)) ok = status_set(st, ST_INVALID, "expected an object");
    if (ok) ok = name_class(obj, class, st) && prep_spec_from_json(obj, &out->prep, st);
    if (!ok && st->code != ST_OK && st->code != ST_NOT_FOUND) status_prefix(st, "%s/%s", dir, name);
    json_decref(j);
    if (!ok) return false;
    const prep_spec *p = &out->prep;
    if (p->size == PREP_SIZE_PATCHES) {
        if (!out->tower.pos_side || p->size_h != out->tower.patch)
            return status_set(
                st, ST_INVALID,
                "%s/%s: pictures become grids of patches of %d pixels, which the tower does not take", dir,
                name, p->size_h);
        out->tower.max_patches = p->size_w;
    }
    /* Each picture's own size is looked at when it comes. */
    if (out->tower.pos_side || out->tower.image_size == 0) return true;
    /* A picture of the tower's own size must become what the tower was made for. */
    prep_plan plan;
    image_ask ask = {out->tower.image_size, out->tower.image_size, 1};
    if (!spec_plan_image(out, &ask, &IMAGE_LIMITS_DEFAULT, &plan, st))
        return status_prefix(st, "%s/%s", dir, name);
    tile one = prep_plan_tile(&plan, 0);
    if (out->image_rows(out, &plan) < 1)
        return status_set(st, ST_INVALID,
                          "%s/%s: pictures become %d x %d, but config.json: vision_config.image_size is %d",
                          dir, name, one.w, one.h, out->tower.image_size);
    return true;
}

static const family *choose(config *c) {
    const char *type = config_str(c, "model_type", "");
    const family *f = family_find(type);
    if (c->st->code != ST_OK) return NULL;
    if (!f || !f->read) {
        if (*type)
            unknown(c, "model", type, false);
        else
            config_fail(c, ST_INVALID, "model_type", "missing; it says which kind of model this is");
        return NULL;
    }
    const json_t *list = config_get(c, "architectures"), *first = json_array_get(list, 0);
    if (json_is_string(first) && strcmp(json_string_value(first), f->architecture) != 0) {
        config_fail(c, ST_UNSUPPORTED, "architectures", "model_type %s is served as %s, found %.80s", type,
                    f->architecture, json_string_value(first));
        return NULL;
    }
    if (config_has(c, "quantization_config")) {
        config_fail(c, ST_UNSUPPORTED, "quantization_config", "quantised checkpoints are not implemented");
        return NULL;
    }
    return f;
}

/* Formats of other libraries, whose config has a name of its own and says nothing of a model_type. */
static const struct {
    const char *file, *path, *model_type;
} FORMATS[] = {{"config.json", "config.json: ", NULL},
               {"open_clip_config.json", "open_clip_config.json: ", "coca"}};

/* path: what its keys stand under. */
static json_t *read_config(const char *dir, const char **path, status *st) {
    json_t *j = NULL;
    for (size_t i = 0; i < ARRAY_LEN(FORMATS) && !j && st->code == ST_OK; i++) {
        j = ckpt_json(dir, FORMATS[i].file, true, st);
        *path = FORMATS[i].path;
        if (!json_is_object(j) || !FORMATS[i].model_type) continue;
        if (json_object_set_new(j, "model_type", json_string(FORMATS[i].model_type)) == 0) continue;
        status_set(st, ST_NO_MEMORY, "no memory for %s", FORMATS[i].file);
    }
    if (!j && st->code == ST_OK) j = ckpt_json(dir, FORMATS[0].file, false, st);
    return j;
}

const char *family_format(const char *dir) {
    for (size_t i = 0; i < ARRAY_LEN(FORMATS); i++) {
        status st = {0};
        json_t *j = ckpt_json(dir, FORMATS[i].file, true, &st);
        bool is = j || st.code != ST_OK;
        json_decref(j);
        if (is) return FORMATS[i].model_type;
    }
    return NULL;
}

bool family_read(const char *dir, model_spec *out, const name_sheet **sheet, status *st) {
    memset(out, 0, sizeof *out);
    out->image_token = out->barred_id = -1;
    const char *path = FORMATS[0].path;
    json_t *j = read_config(dir, &path, st);
    if (!j) return false;
    json_t *g = ckpt_json(dir, "generation_config.json", true, st);
    config c = config_of(j, path, st), gen = config_of(g, "generation_config.json: ", st);
    const family *f = st->code == ST_OK ? choose(&c) : NULL;
    if (f && fill_parts(j, f, st) && f->read(&c, out)) {
        config text = config_sub(&c, "text_config");
        out->family = f->name;
        *sheet = f->sheet_of ? f->sheet_of(out) : f->sheet;
        if (out->text.both_ways && !out->both_ways)
            config_fail(&c, ST_UNSUPPORTED, "use_bidirectional_attention", "only false is implemented");
        generation_read(&gen, &c, &text, out);
        if (st->code == ST_OK && out->tower.stack.n_layers &&
            (f->own_prep || read_prep(dir, f->image_class, out, st)) && f->check)
            f->check(&c, out);
    } else {
        status_set(st, ST_INVALID, "config.json cannot be read");
    }
    json_decref(g);
    json_decref(j);
    return st->code == ST_OK || status_prefix(st, "%s", dir);
}
