/* siglip2.c - SigLIP 2 in the form that keeps a picture's aspect ratio (NaFlex): SigLIP whose tower takes any grid of
 * patches up to max_num_patches of the processor's file, with its table of positions resampled to the grid.
 *
 * The reference pads the grid to max_num_patches and masks the padding, which changes nothing; here nothing is padded.
 * Source: transformers' Siglip2Config, modeling_siglip2.py, image_processing_pil_siglip2.py. Tested by
 * tests/engine/model/test_dual.c and tests/e2e/test_embeddings.py. */
#include "engine/families/dual_config.h"

static bool read(config *c, model_spec *out) {
    if (!siglip_read_as(c, "siglip2_vision_model", out)) return false;
    /* Siglip2Processor's own max_length. */
    out->dual.pad_to = out->text.max_pos < 64 ? out->text.max_pos : 64;
    return true;
}

const family FAMILY_SIGLIP2 = {
    .name = "siglip2",
    .does = "dual encoder at a picture's own ratio: grids of up to max_num_patches, resampled positions",
    .architecture = "Siglip2Model",
    .image_class = "Siglip2ImageProcessor",
    .read = read,
    .sheet = &SHEET_SIGLIP,
};
