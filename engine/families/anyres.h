/* anyres.h - pictures at the best of a list of sizes: the whole squashed into one tile, then a grid of tiles with black
 * around the picture; what families that do so share. Their rows: the whole picture's; then, with what lies in the black
 * left out, line by line, each with the newline's row behind it.
 *
 * Source: transformers' modeling_llava_next.py and modeling_llava_onevision.py. Threads: pure. Tested by
 * tests/engine/families/test_plans.c and tests/e2e/test_parity.py. */
#ifndef VLMD_ENGINE_FAMILIES_ANYRES_H
#define VLMD_ENGINE_FAMILIES_ANYRES_H

#include "engine/families/family.h"

/* The tower's features of a tile are its patches, no more and no less. */
bool anyres_check_tower(config *c, const tower_spec *t);
/* image_grid_pinpoints stands in config.json too: the model goes by one, the image processor by the other. class: whose list it
 * is when config.json has none. */
bool anyres_check_points(config *c, const char *class, const model_spec *s);
/* Callbacks of a spec; one tile alone gives its rows and a newline. */
int anyres_rows(const model_spec *s, const prep_plan *p);
void anyres_pack(const model_spec *s, const prep_plan *p, pack_row *rows);

#endif
