/* resample.c - a table of positions for a grid of another size, as weights of its places.
 *
 * Thread: the engine's. Owns nothing. Source: torch's upsample_bilinear2d with antialias and without aligned corners
 * (aten/native/cpu/UpSampleKernel.cpp: the filter is as wide as the shrinking asks for, and is cut off and normalised at
 * the edges), which the reference library resamples position tables with.
 *
 * One place wide and of another height than the table: there torch 2.15 on a CPU gives every place the first one's weights
 * of lines. It is a fault, but what the reference answers with for pictures a single patch wide; so it is here. */
#include "engine/model/impl.h"

/* Weights of the `from` places of a line for place i of `to`. */
static void line_taps(int from, int to, int i, double *w) {
    double scale = (double)from / to, wide = scale > 1 ? scale : 1, centre = scale * (i + 0.5), sum = 0;
    int begin = (int)(centre - wide + 0.5), end = (int)(centre + wide + 0.5);
    if (begin < 0) begin = 0;
    if (end > from) end = from;
    for (int k = 0; k < from; k++) {
        double at = (k - centre + 0.5) / wide, d = 1 - (at < 0 ? -at : at);
        w[k] = k < begin || k >= end || d < 0 ? 0 : d;
        sum += w[k];
    }
    for (int k = 0; k < from; k++) w[k] /= sum;
}

bool resample_taps(int side, int gw, int gh, float *taps) {
    double *across = mem_alloc((size_t)(gw + 1) * (size_t)side * sizeof *across);
    if (!across) return false;
    double *down = across + (size_t)gw * (size_t)side;
    for (int x = 0; x < gw; x++) line_taps(side, gw, x, across + (size_t)x * (size_t)side);
    for (int y = 0; y < gh; y++) {
        line_taps(side, gh, gw == 1 && gh != side ? 0 : y, down);
        for (int x = 0; x < gw; x++)
            for (int v = 0; v < side; v++)
                for (int u = 0; u < side; u++)
                    *taps++ = (float)(down[v] * across[(size_t)x * (size_t)side + (size_t)u]);
    }
    mem_free(across);
    return true;
}
