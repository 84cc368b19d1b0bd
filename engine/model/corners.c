/* corners.c - a square table of positions for a grid of another size: bilinear, corner on corner.
 *
 * Pure. Source: get_vision_interpolation_indices_and_weights (align_corners) of the reference's vision_utils, in its float32
 * steps. Tested by tests/engine/model/test_native.c against the reference. */
#include <math.h>

#include "engine/model/encode.h"

/* Place i of n along a side of the table. */
static void line_taps(int side, int n, int i, int32_t at[2], float by[2]) {
    float src = (float)i * (float)(side - 1) / (float)(n > 1 ? n - 1 : 1), low = floorf(src);
    for (int k = 0; k < 2; k++) {
        float far = fabsf(src - low - (float)k);
        at[k] = (int32_t)low + k < side ? (int32_t)low + k : side - 1;
        by[k] = far < 1 ? 1 - far : 0;
    }
}

void corners_taps(int side, grid g, int x, int y, int32_t from[CORNER_TAPS], float by[CORNER_TAPS]) {
    int32_t down[2], across[2];
    float by_down[2], by_across[2];
    line_taps(side, g.h, y, down, by_down);
    line_taps(side, g.w, x, across, by_across);
    for (int k = 0; k < CORNER_TAPS; k++) {
        from[k] = down[k / 2] * side + across[k % 2];
        by[k] = by_down[k / 2] * by_across[k % 2];
    }
}
