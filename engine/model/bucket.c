/* bucket.c - positions of a grid of any size in a square table, by the fraction of the side at which a patch stands.
 *
 * Source: the reference's Idefics2VisionEmbeddings, whose bounds are float32 numbers of torch.arange(1/side, 1, 1/side)
 * and torch.bucketize(right=True). A fraction may equal a bound in exact numbers, so it counts how each was rounded:
 * arange adds up double numbers by hand, but whole runs of 16 as two of 8, each from a first number that was rounded to
 * float32. Hence places are not the identity for some grids as large as their table (19, 25, 29, 31, 38, ...).
 * Pure. Tested by tests/engine/model/test_bucket.c against the reference. */
#include <math.h>

#include "engine/model/encode.h"

static float bound(int j, int n_bounds, double width) {
    int run = j / 16 * 16;
    if (run + 16 > n_bounds) return (float)(width + width * j);
    int first = j / 8 * 8;
    return (float)((double)(float)(width + width * first) + width * (j - first));
}

int bucket_of(int i, int n, int side) {
    double width = 1.0 / side;
    int n_bounds = (int)ceil((1.0 - width) / width), at = 0;
    float where = (float)i * (1.0f / (float)n), most = (float)(1.0 - 1e-6);
    if (where > most) where = most;
    while (at < n_bounds && bound(at, n_bounds, width) <= where) at++;
    return at;
}
