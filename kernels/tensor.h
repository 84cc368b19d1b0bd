/* tensor.h - a view of numbers: never an owner. Row-major; the last dimension is contiguous, the first may have a
 * stride of its own (ld) so that a slice of columns or of a fused projection is a view too.
 *
 * Outside kernels/ nobody reads or writes tensor.data: it may be device memory. Use ctx_upload / ctx_download. */
#ifndef VLMD_KERNELS_TENSOR_H
#define VLMD_KERNELS_TENSOR_H

#include "kernels/base.h"

typedef enum dtype { DT_F32, DT_F16, DT_BF16, DT_I32, DT_U8 } dtype;
size_t dtype_size(dtype t);      /* bytes of one element */
const char *dtype_name(dtype t); /* "f32", ... */

enum { TENSOR_MAX_DIMS = 5 };
typedef struct tensor {
    void *data; /* NULL in a dry run */
    dtype dt;
    int nd;
    int64_t d[TENSOR_MAX_DIMS];
    int64_t ld; /* elements from one index of d[0] to the next; product of d[1..] when packed */
} tensor;

tensor tensor_of(void *data, dtype dt, int nd, const int64_t *d); /* packed */
static inline tensor tensor_1d(void *p, dtype t, int64_t a) {
    return tensor_of(p, t, 1, (int64_t[]){a});
}
static inline tensor tensor_2d(void *p, dtype t, int64_t a, int64_t b) {
    return tensor_of(p, t, 2, (int64_t[]){a, b});
}
static inline tensor tensor_3d(void *p, dtype t, int64_t a, int64_t b, int64_t c) {
    return tensor_of(p, t, 3, (int64_t[]){a, b, c});
}
int64_t tensor_count(const tensor *t);
float tensor_host_number(const tensor *t,
                         int64_t i); /* number i of packed f32, f16 or bf16 bytes of the host */
tensor tensor_rows(tensor t, int64_t from, int64_t n); /* [from, from+n) of d[0] */
tensor tensor_cols(tensor t, int64_t from, int64_t n); /* [from, from+n) of d[1], a 2-d view with t's ld */
tensor tensor_heads(tensor t, int64_t h, int64_t hd);  /* [N, h*hd] seen as [N, h, hd], ld kept */

#endif
