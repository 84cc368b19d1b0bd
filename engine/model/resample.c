/* resample.c - a table of positions for a grid of another size, as mixtures of its places.
 *
 * Pure; the engine's thread. Source: torch's upsample_bilinear2d with antialias and without aligned corners
 * (aten/native/cpu/UpSampleKernel.cpp: the filter is as wide as the shrinking asks for, and is cut off and normalised at
 * the edges), which the reference library resamples position tables with.
 *
 * One place wide and of another height than the table: there torch 2.15 on a CPU gives every place the first one's weights
 * of lines. It is a fault, but what the reference answers with for pictures a single patch wide; so it is here.
 * Tested by tests/engine/model/test_dual.c. */
#include "engine/model/encode.h"

/* Places of a line that one of `to` is made of, at most. */
static int line_most(int from, int to) {
    int n = 2 * (from > to ? (from + to - 1) / to : 1) + 1;
    return n < from ? n : from;
}

int resample_taps(int side, grid g) {
    return line_most(side, g.w) * line_most(side, g.h);
}

/* The weights of place i of `to`: those of places *first on; returns how many. */
static int line_taps(int from, int to, int i, int *first, double *w) {
    double scale = (double)from / to, wide = scale > 1 ? scale : 1, centre = scale * (i + 0.5), sum = 0;
    int begin = (int)(centre - wide + 0.5), end = (int)(centre + wide + 0.5), n = 0;
    if (begin < 0) begin = 0;
    if (end > from) end = from;
    *first = begin;
    for (int k = begin; k < end; k++) {
        double at = (k - centre + 0.5) / wide;
        w[n] = 1 - (at < 0 ? -at : at);
        if (w[n] < 0) w[n] = 0;
        sum += w[n++];
    }
    for (int k = 0; k < n; k++) w[k] /= sum;
    CHECK(n <= line_most(from, to));
    return n;
}

void resample_table(int side, grid g, int32_t *from, float *by) {
    enum { MOST = 256 };
    double across[MOST], down[MOST];
    CHECK(side <= MOST);
    int k = resample_taps(side, g), x0, y0;
    for (int y = 0; y < g.h; y++) {
        int ny = line_taps(side, g.h, g.w == 1 && g.h != side ? 0 : y, &y0, down);
        for (int x = 0; x < g.w; x++, from += k, by += k) {
            int nx = line_taps(side, g.w, x, &x0, across), n = 0;
            for (int v = 0; v < ny; v++)
                for (int u = 0; u < nx; u++, n++) {
                    from[n] = (y0 + v) * side + x0 + u;
                    by[n] = (float)(down[v] * across[u]);
                }
            for (; n < k; n++) from[n] = -1, by[n] = 0;
        }
    }
}
