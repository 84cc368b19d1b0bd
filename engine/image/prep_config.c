/* prep_config.c - an image processor's JSON to a prep_spec.
 *
 * Thread: whoever loads a model. Owner of memory: nothing is kept; config stays the caller's.
 * A key with the value null is not the same as one left out: null switches a step off, or takes away what a
 * step needs, as in the library. Known keys whose value asks for something that vlmd does not do are errors;
 * unknown keys are warned about once a file. Source: transformers 5.23 image_processing_utils.py and the
 * Pillow classes. Tested by tests/engine/image/test_prep.c. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "engine/image/prep_classes.h"

enum { MAX_EDGE = 65536 };

static const json_t *get(const json_t *config, const char *key) {
    const json_t *v = json_object_get(config, key);
    return json_is_null(v) ? NULL : v;
}

static bool is_null(const json_t *config, const char *key) {
    return json_is_null(json_object_get(config, key));
}

/* For what a step that is switched on cannot do without. */
static bool not_null(const json_t *config, const char *key, const char *step, status *st) {
    if (!is_null(config, key)) return true;
    return status_set(st, ST_INVALID, "%s: expected a value for %s, found null", key, step);
}

static const char *kind_of(const json_t *v) {
    switch (json_typeof(v)) {
    case JSON_OBJECT: return "an object";
    case JSON_ARRAY: return "a list";
    case JSON_STRING: return "a string";
    case JSON_INTEGER: return "an integer";
    case JSON_REAL: return "a number with a fraction";
    case JSON_TRUE: return "true";
    case JSON_FALSE: return "false";
    default: return "null";
    }
}

static bool get_bool(const json_t *config, const char *key, bool otherwise, bool *out, status *st) {
    const json_t *v = get(config, key);
    *out = otherwise && !is_null(config, key);
    if (!v) return true;
    if (json_is_boolean(v))
        *out = json_is_true(v);
    else if (json_is_integer(v))
        *out = json_integer_value(v) != 0;
    else
        return status_set(st, ST_INVALID, "%s: expected true or false, found %s", key, kind_of(v));
    return true;
}

static bool edge(const json_t *v, const char *key, int *out, status *st) {
    if (!json_is_integer(v))
        return status_set(st, ST_INVALID, "%s: expected an integer, found %s", key, kind_of(v));
    json_int_t n = json_integer_value(v);
    if (n < 1 || n > MAX_EDGE)
        return status_set(st, ST_INVALID, "%s: expected 1 to %d pixels, found %lld", key, (int)MAX_EDGE,
                          (long long)n);
    *out = (int)n;
    return true;
}

/* Three numbers, or one that stands for three. */
static bool triple(const json_t *config, const char *key, const double otherwise[3], double out[3],
                   status *st) {
    const json_t *v = get(config, key);
    for (int c = 0; c < 3; c++) out[c] = otherwise[c];
    if (!v) return true;
    if (json_is_number(v)) {
        for (int c = 0; c < 3; c++) out[c] = json_number_value(v);
    } else {
        if (!json_is_array(v) || json_array_size(v) != 3)
            return status_set(st, ST_INVALID, "%s: expected a number or a list of 3, found %s of %zu", key,
                              kind_of(v), json_is_array(v) ? json_array_size(v) : (size_t)1);
        for (size_t c = 0; c < 3; c++) {
            const json_t *e = json_array_get(v, c);
            if (!json_is_number(e))
                return status_set(st, ST_INVALID, "%s[%zu]: expected a number, found %s", key, c, kind_of(e));
            out[c] = json_number_value(e);
        }
    }
    return true;
}

typedef struct size_value {
    int shortest, longest, height, width, max_height, max_width;
} size_value;

/* An int (square: height and width, else the short side), a list [height, width], or an object with one of
 * the sets of keys the library knows. */
static bool read_size(const json_t *v, const char *key, bool square, size_value *out, status *st) {
    memset(out, 0, sizeof *out);
    if (json_is_integer(v)) {
        if (!edge(v, key, square ? &out->height : &out->shortest, st)) return false;
        out->width = out->height;
        return true;
    }
    if (json_is_array(v)) {
        if (json_array_size(v) != 2)
            return status_set(st, ST_INVALID, "%s: expected [height, width], found a list of %zu", key,
                              json_array_size(v));
        return edge(json_array_get(v, 0), key, &out->height, st) &&
               edge(json_array_get(v, 1), key, &out->width, st);
    }
    if (!json_is_object(v))
        return status_set(st, ST_INVALID, "%s: expected an integer or an object, found %s", key, kind_of(v));
    const struct {
        const char *name;
        int *to;
    } parts[] = {{"shortest_edge", &out->shortest}, {"longest_edge", &out->longest},
                 {"height", &out->height},          {"width", &out->width},
                 {"max_height", &out->max_height},  {"max_width", &out->max_width}};
    const char *name;
    json_t *e;
    json_object_foreach((json_t *)v, name, e) {
        char path[96];
        snprintf(path, sizeof path, "%s.%.60s", key, name);
        size_t i = 0;
        while (i < ARRAY_LEN(parts) && strcmp(parts[i].name, name) != 0) i++;
        if (i == ARRAY_LEN(parts))
            return status_set(
                st, ST_UNSUPPORTED,
                "%s is not supported; expected shortest_edge, longest_edge, height and width, or "
                "max_height and max_width",
                path);
        if (!json_is_null(e) && !edge(e, path, parts[i].to, st)) return false;
    }
    bool edges = out->shortest || out->longest, exact = out->height || out->width;
    bool within = out->max_height || out->max_width;
    if (edges + exact + within != 1 || !out->height != !out->width || !out->max_height != !out->max_width)
        return status_set(
            st, ST_INVALID,
            "%s: expected shortest_edge and/or longest_edge, or both height and width, or both max_height "
            "and max_width",
            key);
    return true;
}

static void put_size(const size_value *s, prep_spec *out) {
    if (s->shortest)
        out->size = PREP_SIZE_SHORTEST, out->size_w = s->shortest, out->size_h = s->longest;
    else if (s->longest)
        out->size = PREP_SIZE_LONGEST, out->size_w = s->longest;
    else if (s->max_height)
        out->size = PREP_SIZE_WITHIN, out->size_w = s->max_width, out->size_h = s->max_height;
    else
        out->size = PREP_SIZE_EXACT, out->size_w = s->width, out->size_h = s->height;
}

static bool whole(const json_t *config, const char *key, const char *path, int64_t most, int *out,
                  status *st) {
    const json_t *v = get(config, key);
    if (!v) return true;
    if (!json_is_integer(v) || json_integer_value(v) < 1 || json_integer_value(v) > most)
        return status_set(st, ST_INVALID, "%s%s: expected a whole number from 1 to %lld, found %s", path, key,
                          (long long)most, json_is_integer(v) ? "another number" : kind_of(v));
    *out = (int)json_integer_value(v);
    return true;
}

/* ---- pictures at their own size ---- */

/* Numbers of pixels in all: in size under the names of edges, as the library has it now, or under their own, which also
 * stand beside it and win there. */
static bool read_pixels(const json_t *config, const prep_native *d, prep_spec *out, status *st) {
    static const char *const names[2][2] = {{"shortest_edge", "min_pixels"}, {"longest_edge", "max_pixels"}};
    const json_t *size = get(config, "size");
    int *const to[2] = {&out->size_w, &out->size_h};
    const char *key;
    json_t *e;
    if (size && !json_is_object(size))
        return status_set(st, ST_INVALID,
                          "size: expected an object with shortest_edge and longest_edge, found %s",
                          kind_of(size));
    json_object_foreach(
        (json_t *)size, key,
        e) if (strcmp(key, names[0][0]) && strcmp(key, names[0][1]) && strcmp(key, names[1][0]) &&
               strcmp(key, names[1][1])) return status_set(st, ST_UNSUPPORTED,
                                                           "size.%.60s is not supported; expected "
                                                           "shortest_edge and longest_edge",
                                                           key);
    for (int i = 0; i < 2; i++) {
        if (!size) *to[i] = i ? d->max_pixels : d->min_pixels;
        for (int k = 0; k < 2; k++)
            if (!whole(size, names[i][k], "size.", INT32_MAX, to[i], st)) return false;
        if (!whole(config, names[i][1], "", INT32_MAX, to[i], st)) return false;
        if (*to[i] == 0)
            return status_set(st, ST_INVALID, "size: expected shortest_edge and longest_edge, found no %s",
                              names[i][0]);
    }
    out->size = PREP_SIZE_PIXELS;
    return true;
}

static bool read_native(const json_t *config, const prep_native *d, prep_spec *out, status *st) {
    out->patch = d->patch;
    out->merge = d->merge;
    out->frames = d->frames;
    return whole(config, "patch_size", "", 1024, &out->patch, st) &&
           whole(config, "merge_size", "", 64, &out->merge, st) &&
           whole(config, "temporal_patch_size", "", 64, &out->frames, st);
}

/* ---- tiles ---- */

static bool count(const json_t *config, const char *key, int otherwise, int *out, status *st) {
    const json_t *v = get(config, key);
    *out = otherwise;
    if (!v) return true;
    if (!json_is_integer(v) || json_integer_value(v) < 1 || json_integer_value(v) > 1000)
        return status_set(st, ST_INVALID, "%s: expected 1 to 1000, found %s", key,
                          json_is_integer(v) ? "another number" : kind_of(v));
    *out = (int)json_integer_value(v);
    return true;
}

static bool read_points(const json_t *config, const prep_cut_class *class, prep_cut *out, status *st) {
    static const char key[] = "image_grid_pinpoints";
    const json_t *v = get(config, key);
    if (!not_null(config, key, "tiles", st)) return false;
    size_t n = v ? json_array_size(v) : (size_t) class->n_points;
    if (n < 1 || n > PREP_MAX_POINTS)
        return status_set(st, ST_INVALID, "%s: expected a list of 1 to %d [height, width], found %zu", key,
                          (int)PREP_MAX_POINTS, n);
    out->n_points = (int)n;
    for (size_t i = 0; i < n; i++) {
        int h = v ? 0 : class->points[i][0], w = v ? 0 : class->points[i][1];
        const json_t *e = json_array_get(v, i);
        if (v && (json_array_size(e) != 2 || !edge(json_array_get(e, 0), key, &h, st) ||
                  !edge(json_array_get(e, 1), key, &w, st)))
            return status_set(st, ST_INVALID, "%s[%zu]: expected [height, width]", key, i);
        if (h % out->side || w % out->side)
            return status_set(
                st, ST_UNSUPPORTED,
                "%s[%zu]: only multiples of the tile's %d pixels are implemented, found [%d, %d]", key, i,
                out->side, h, w);
        out->points[i] = (struct prep_point){h, w};
    }
    return true;
}

/* Side of the tiles of a class whose size is that of a tile. One whose class has a crop_size is cut by that, be it
 * cropped or not. */
static bool read_tile(const json_t *config, bool do_resize, int crop, prep_spec *out, status *st) {
    int w = out->size_w, h = out->size == PREP_SIZE_EXACT ? out->size_h : w;
    bool square = (out->size == PREP_SIZE_SHORTEST && !out->size_h) || out->size == PREP_SIZE_EXACT;
    if (!do_resize) return status_set(st, ST_UNSUPPORTED, "do_resize: only true is implemented for tiles");
    if (!square || w != h)
        return status_set(st, ST_UNSUPPORTED, "size: only a square is implemented for tiles");
    size_value cut = {.height = crop, .width = crop};
    const json_t *v = get(config, "crop_size");
    if (crop && v && !read_size(v, "crop_size", true, &cut, st)) return false;
    if (crop && (!is_null(config, "crop_size") || out->crop) && (cut.height != w || cut.width != w))
        return status_set(st, ST_UNSUPPORTED,
                          "crop_size: only that of size, %d x %d, is implemented for tiles, found %d x %d", w,
                          w, cut.width, cut.height);
    out->cut.side = w;
    return true;
}

static bool read_edge(const json_t *config, const prep_cut_class *class, bool do_resize, prep_spec *out,
                      status *st) {
    size_value v = {.longest = class->side};
    const json_t *tile = get(config, "max_image_size");
    bool split;
    if (!not_null(config, "max_image_size", "tiles", st) ||
        (tile && !read_size(tile, "max_image_size", false, &v, st)) ||
        !get_bool(config, "do_image_splitting", class->split, &split, st))
        return false;
    if (!v.longest) return status_set(st, ST_INVALID, "max_image_size: expected longest_edge");
    if (do_resize && out->size != PREP_SIZE_LONGEST && out->size != PREP_SIZE_EXACT)
        return status_set(st, ST_INVALID, "size: expected longest_edge, or height and width");
    out->cut.side = v.longest;
    out->cut.whole_only = !split;
    return true;
}

static bool read_quarters(const json_t *config, const prep_cut_class *class, bool do_resize, prep_spec *out,
                          status *st) {
    bool split;
    if (!get_bool(config, "do_image_splitting", class->split, &split, st)) return false;
    if (do_resize && !(out->size == PREP_SIZE_SHORTEST && out->size_h) && out->size != PREP_SIZE_EXACT)
        return status_set(st, ST_INVALID,
                          "size: expected shortest_edge and longest_edge, or height and width");
    out->cut.whole_only = !split;
    return true;
}

static bool read_cut(const json_t *config, const prep_cut_class *class, int crop, bool do_resize,
                     const double mean[3], prep_spec *out, status *st) {
    out->cut.kind = class->kind;
    if (class->kind == PREP_CUT_EDGE) return read_edge(config, class, do_resize, out, st);
    if (class->kind == PREP_CUT_QUARTERS) return read_quarters(config, class, do_resize, out, st);
    /* Used where a picture is not cut but stands in a square. */
    for (int c = 0; c < 3; c++) {
        bool is = mean[c] > -1 / 255.0 && mean[c] * 255 < 256;
        out->no_pad_rgb |= !is;
        out->pad_rgb[c] = is ? (uint8_t)(mean[c] * 255) : 0;
    }
    if (!read_tile(config, do_resize, crop, out, st)) return false;
    if (class->kind == PREP_CUT_POINTS) return read_points(config, class, &out->cut, st);
    return count(config, "min_patches", class->min_tiles, &out->cut.min_tiles, st) &&
           count(config, "max_patches", class->max_tiles, &out->cut.max_tiles, st);
}

/* The class's name without Fast or Pil; *n is 0 when the file names none. */
static const char *class_name(const json_t *config, char *room, size_t cap, size_t *n) {
    const char *name = json_string_value(get(config, "image_processor_type"));
    if (!name) {
        static const char old[] = "FeatureExtractor", now[] = "ImageProcessor";
        name = json_string_value(get(config, "feature_extractor_type"));
        size_t len = name ? strlen(name) : 0;
        if (len > sizeof old - 1 && strcmp(name + len - (sizeof old - 1), old) == 0) {
            snprintf(room, cap, "%.*s%s", (int)(len - (sizeof old - 1) < 60 ? len - (sizeof old - 1) : 60),
                     name, now);
            name = room;
        }
    }
    if (!name) name = "";
    *n = strlen(name);
    if (*n > 4 && strcmp(name + *n - 4, "Fast") == 0)
        *n -= 4;
    else if (*n > 3 && strcmp(name + *n - 3, "Pil") == 0)
        *n -= 3;
    return name;
}

static void warn_unknown(const json_t *config) {
    static const char *const known[] = {"aspect_ratio_setting", /* the reference goes by its class alone */
                                        "auto_map",
                                        "crop_size",
                                        "data_format",
                                        "default_to_square",
                                        "device",
                                        "disable_grouping",
                                        "do_center_crop",
                                        "do_convert_rgb",
                                        "do_normalize",
                                        "do_pad",
                                        "do_rescale",
                                        "do_resize",
                                        "feature_extractor_type",
                                        "image_mean",
                                        "image_processor_type",
                                        "image_seq_length",
                                        "image_std",
                                        "input_data_format",
                                        "max_image_tiles",
                                        "pad_size",
                                        "processor_class",
                                        "resample",
                                        "rescale_factor",
                                        "return_tensors",
                                        "size",
                                        "use_square_size",
                                        "_valid_processor_keys",
                                        "do_flip_channel_order",
                                        "do_image_splitting",
                                        "min_pixels",
                                        "max_pixels",
                                        "patch_size",
                                        "merge_size",
                                        "temporal_patch_size",
                                        "max_num_patches",
                                        "max_image_size",
                                        "return_row_col_info",
                                        "video_sampling",
                                        "image_grid_pinpoints",
                                        "crop_to_patches", /* the processor overrules it */
                                        "min_patches",
                                        "max_patches",
                                        "do_pan_and_scan",
                                        "pan_and_scan_max_num_crops",
                                        "pan_and_scan_min_crop_size",
                                        "pan_and_scan_min_ratio_to_activate"};
    const char *key;
    json_t *v;
    json_object_foreach((json_t *)config, key, v) {
        size_t i = 0;
        while (i < ARRAY_LEN(known) && strcmp(known[i], key) != 0) i++;
        if (i == ARRAY_LEN(known)) log_warn("image processor: key \"%.60s\" is unknown and ignored", key);
    }
}

static bool get_filter(const json_t *config, prep_spec *out, status *st) {
    const json_t *filter = get(config, "resample");
    if (!filter) return true;
    if (!json_is_integer(filter) || json_integer_value(filter) < 0 || json_integer_value(filter) > 5)
        return status_set(st, ST_INVALID, "resample: expected 0 to 5 (Pillow's filters), found %s",
                          json_is_integer(filter) ? "another number" : kind_of(filter));
    out->filter = (resample)json_integer_value(filter);
    return true;
}

/* A number from lo to hi under key. */
static bool get_num(const json_t *config, const char *key, double def, double lo, double hi, double *out,
                    status *st) {
    const json_t *v = get(config, key);
    *out = v && !json_is_null(v) ? json_number_value(v) : def;
    if ((!v || json_is_null(v) || json_is_number(v)) && *out >= lo && *out <= hi) return true;
    return status_set(st, ST_INVALID, "%s: expected a number from %g to %g", key, lo, hi);
}

static bool read_pan(const json_t *config, prep_spec *out, status *st) {
    bool on;
    double crops, side;
    if (!get_bool(config, "do_pan_and_scan", false, &on, st)) return false;
    if (!on) return true;
    if (!get_num(config, "pan_and_scan_max_num_crops", 4, 1, 16, &crops, st) ||
        !get_num(config, "pan_and_scan_min_crop_size", 256, 1, 1 << 20, &side, st) ||
        !get_num(config, "pan_and_scan_min_ratio_to_activate", 1.2, 0, 1e6, &out->pan_min_ratio, st))
        return false;
    out->pan_crops = (int)crops;
    out->pan_min_side = (int)side;
    if (out->size == PREP_SIZE_EXACT) return true;
    return status_set(st, ST_UNSUPPORTED,
                      "do_pan_and_scan without a size of height and width is not supported");
}

bool prep_spec_from_json(const json_t *config, prep_spec *out, status *st) {
    memset(out, 0, sizeof *out);
    if (json_is_object(json_object_get(config, "image_processor")))
        config = json_object_get(config, "image_processor");
    if (!json_is_object(config)) return status_set(st, ST_INVALID, "image processor: expected an object");
    char room[96];
    size_t n;
    const char *name = class_name(config, room, sizeof room, &n);
    const prep_class *class = prep_class_find(name, n);
    if (!class)
        return status_set(st, ST_UNSUPPORTED, "image_processor_type \"%.80s\" is not supported", name);

    bool do_resize, do_crop, do_rescale, do_normalize, do_pad, square, flip, split, square_size;
    if (!get_bool(config, "do_resize", true, &do_resize, st) ||
        !get_bool(config, "do_center_crop", class->center_crop, &do_crop, st) ||
        !get_bool(config, "do_rescale", true, &do_rescale, st) ||
        !get_bool(config, "do_normalize", true, &do_normalize, st) ||
        !get_bool(config, "do_pad", false, &do_pad, st) ||
        !get_bool(config, "default_to_square", false, &square, st) ||
        !get_bool(config, "do_flip_channel_order", false, &flip, st) ||
        !get_bool(config, "do_image_splitting", false, &split, st) ||
        !get_bool(config, "use_square_size", false, &square_size, st))
        return false;
    if (!get(config, "default_to_square")) square = class->square;
    if (flip) return status_set(st, ST_UNSUPPORTED, "do_flip_channel_order: true is not supported");
    const prep_cut_class *cut = prep_class_cut(class->name);
    if (split && !(cut && (cut->kind == PREP_CUT_EDGE || cut->kind == PREP_CUT_QUARTERS)))
        return status_set(st, ST_UNSUPPORTED, "do_image_splitting: true is not supported");
    if (do_pad && !class->pads_square && get(config, "pad_size"))
        return status_set(st, ST_UNSUPPORTED, "do_pad with a pad_size is not supported");

    const prep_native *native = prep_class_native(class);
    if (native && !read_native(config, native, out, st)) return false;
    if (do_resize || cut) {
        out->filter = (resample) class->filter;
        if (!get_filter(config, out, st)) return false;
    }
    if (do_resize && prep_class_grid(class, &out->size_w, &out->size_h)) {
        out->size = PREP_SIZE_PATCHES;
        const json_t *most = get(config, "max_num_patches"), *patch = get(config, "patch_size");
        if ((most && !edge(most, "max_num_patches", &out->size_w, st)) ||
            (patch && !edge(patch, "patch_size", &out->size_h, st)))
            return false;
    } else if (do_resize) {
        if ((!native && !not_null(config, "size", "do_resize", st)) ||
            !not_null(config, "resample", "do_resize", st))
            return false;
        const json_t *v = get(config, "size");
        size_value size = {.shortest = class->shortest,
                           .longest = cut ? cut->longest : 0,
                           .height = class->height,
                           .width = class->width};
        if (native) {
            if (!read_pixels(config, native, out, st)) return false;
        } else if (square_size && class->shortest) {
            size = (size_value){.height = class->shortest, .width = class->shortest};
        } else if (v && !read_size(v, "size", square, &size, st)) {
            return false;
        }
        if (!native) put_size(&size, out);
        if (out->size == PREP_SIZE_SHORTEST && out->size_h && out->size_h < out->size_w)
            log_warn("image processor: size.longest_edge is less than size.shortest_edge");
    }
    const json_t *max_tiles = get(config, "max_image_tiles");
    if (max_tiles && !(json_is_integer(max_tiles) && json_integer_value(max_tiles) >= 1 &&
                       json_integer_value(max_tiles) <= 64))
        return status_set(st, ST_INVALID, "max_image_tiles: expected 1 to 64, found %s", kind_of(max_tiles));
    out->max_tiles = max_tiles ? (int)json_integer_value(max_tiles) : 4;
    if (do_crop) {
        if (!not_null(config, "crop_size", "do_center_crop", st)) return false;
        const json_t *v = get(config, "crop_size");
        size_value crop = {.height = class->crop, .width = class->crop};
        if (v && !read_size(v, "crop_size", true, &crop, st)) return false;
        if (!crop.height)
            return status_set(st, ST_INVALID, "crop_size: expected height and width for do_center_crop");
        out->crop = true;
        out->crop_w = crop.width;
        out->crop_h = crop.height;
    }
    if (!read_pan(config, out, st)) return false;
    out->rescale = 1;
    if (do_rescale) {
        if (!not_null(config, "rescale_factor", "do_rescale", st)) return false;
        const json_t *v = get(config, "rescale_factor");
        if (v && !json_is_number(v))
            return status_set(st, ST_INVALID, "rescale_factor: expected a number, found %s", kind_of(v));
        out->rescale = (float)(v ? json_number_value(v) : class->rescale);
    }
    double mean[3], std[3];
    if (do_normalize && (!not_null(config, "image_mean", "do_normalize", st) ||
                         !not_null(config, "image_std", "do_normalize", st)))
        return false;
    if (!triple(config, "image_mean", class->mean, mean, st) ||
        !triple(config, "image_std", class->std, std, st))
        return false;
    for (int c = 0; c < 3; c++) {
        if (do_normalize && !((float)std[c] > 0 && isfinite((float)std[c]) && isfinite((float)mean[c])))
            return status_set(st, ST_INVALID, "image_std: expected numbers over 0, found %g", std[c]);
        out->mean[c] = do_normalize ? (float)mean[c] : 0.0f;
        out->std[c] = do_normalize ? (float)std[c] : 1.0f;
    }
    if (cut && !read_cut(config, cut, class->crop, do_resize, mean, out, st)) return false;
    if (do_pad && class->pads_square) {
        out->pad_square = true;
        for (int c = 0; c < 3; c++) {
            double v = is_null(config, "image_mean") ? 0 : mean[c] * 255;
            if (!(v > -1 && v < 256))
                return status_set(st, ST_INVALID, "image_mean: expected 0 to 1 for do_pad, found %g",
                                  mean[c]);
            out->pad_rgb[c] = (uint8_t)v;
        }
    }
    warn_unknown(config);
    return true;
}
