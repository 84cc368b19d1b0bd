/* prep_classes.h - the wall between preprocessing and the names in checkpoints (engine/families/image_classes.c): what the reference library's image processors do when a key is left
 * out. Source: transformers 5.23, the Pillow classes' attributes; only classes that change nothing but these.
 * The goldens of tests/engine/image/test_prep.c have each class with keys left out. */
#ifndef VLMD_ENGINE_IMAGE_PREP_CLASSES_H
#define VLMD_ENGINE_IMAGE_PREP_CLASSES_H

#include "engine/image/image.h"

typedef struct prep_class {
    const char *name;
    int filter;
    double mean[3], std[3], rescale;
    int shortest;      /* size: the short side; 0: height and width */
    int height, width; /* size */
    int crop;          /* crop_size, a square; 0: none */
    bool center_crop;  /* do_center_crop */
    bool square;       /* default_to_square: what an int size means */
    bool pads_square;  /* do_pad means a square, before resizing */
} prep_class;

/* Of a class whose pictures keep their own size: how many pixels, and the tower's patches. */
typedef struct prep_native {
    int min_pixels, max_pixels, patch, merge, frames;
} prep_native;
/* Of a class that cuts pictures into tiles: what it does where a file leaves a key out. */
typedef struct prep_cut_class {
    const char *name;
    prep_cut_kind kind;
    const int16_t (*points)[2]; /* image_grid_pinpoints, height and width */
    int n_points;
    int min_tiles, max_tiles; /* min_patches, max_patches */
    int longest, side;        /* size and max_image_size: the longest edge */
    bool split;               /* do_image_splitting */
} prep_cut_class;

/* NULL when there is none. name as the class is called, without Fast or Pil; "" for a file that names none.
 */
const prep_class *prep_class_find(const char *name, size_t n);
const prep_native *prep_class_native(const prep_class *c); /* NULL: it is not one */
/* Of a class whose pictures become grids of patches instead of one size: max_num_patches and patch_size where a file leaves
 * them out. False: it is not one. */
bool prep_class_grid(const prep_class *c, int *max_patches, int *patch);
/* NULL: a class whose pictures stay whole. */
const prep_cut_class *prep_class_cut(const char *name);

#endif
