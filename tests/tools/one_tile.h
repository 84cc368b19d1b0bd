/* one_tile.h - for tests: pixels that are one tile as they stand. */
#ifndef VLMD_TESTS_ONE_TILE_H
#define VLMD_TESTS_ONE_TILE_H

#include "engine/image/tiles.h"

/* rgb is taken over; NULL: w * h * 3 bytes of 0. */
static inline tiles one_tile(int w, int h, uint8_t *rgb) {
    tiles t = {.rgb = rgb ? rgb : mem_calloc((size_t)w * (size_t)h, 3)};
    prep_plan_add(&t.plan, -1, 0, 0, w, h, w, h, RESAMPLE_NEAREST);
    CHECK(prep_plan_finish(&t.plan, w, h, &IMAGE_LIMITS_DEFAULT, NULL));
    return t;
}

#endif
