/* tensor.c - see tensor.h. Pure functions. */
#include "kernels/tensor.h"

#include <math.h>
#include <string.h>

size_t dtype_size(dtype t) {
    static const size_t size[] = {4, 2, 2, 4, 1};
    return size[t];
}

const char *dtype_name(dtype t) {
    static const char *const name[] = {"f32", "f16", "bf16", "i32", "u8"};
    return name[t];
}

tensor tensor_of(void *data, dtype dt, int nd, const int64_t *d) {
    CHECK(nd >= 1 && nd <= TENSOR_MAX_DIMS);
    tensor t = {.data = data, .dt = dt, .nd = nd, .ld = 1};
    for (int i = 0; i < nd; i++) {
        t.d[i] = d[i];
        if (i) t.ld *= d[i];
    }
    return t;
}

int64_t tensor_count(const tensor *t) {
    int64_t n = 1;
    for (int i = 0; i < t->nd; i++) n *= t->d[i];
    return n;
}

float tensor_host_number(const tensor *t, int64_t i) {
    const uint8_t *p = (const uint8_t *)t->data + (size_t)i * dtype_size(t->dt);
    uint16_t half;
    uint32_t bits;
    float x;
    memcpy(&half, p, sizeof half);
    if (t->dt == DT_F16) {
        int exponent = half >> 10 & 31, fraction = half & 1023;
        x = exponent == 31 ? (fraction ? NAN : INFINITY)
            : exponent     ? ldexpf((float)(fraction + 1024), exponent - 25)
                           : ldexpf((float)fraction, -24);
        return half >> 15 ? -x : x;
    }
    CHECK(t->dt == DT_F32 || t->dt == DT_BF16);
    if (t->dt == DT_F32)
        memcpy(&bits, p, sizeof bits);
    else
        bits = (uint32_t)half << 16;
    memcpy(&x, &bits, sizeof x);
    return x;
}

static void *offset(const tensor *t, int64_t elements) {
    return t->data ? (uint8_t *)t->data + (size_t)elements * dtype_size(t->dt) : NULL;
}

tensor tensor_rows(tensor t, int64_t from, int64_t n) {
    CHECK(from >= 0 && n >= 0 && from + n <= t.d[0]);
    t.data = offset(&t, from * t.ld);
    t.d[0] = n;
    return t;
}

tensor tensor_cols(tensor t, int64_t from, int64_t n) {
    CHECK(t.nd == 2 && from >= 0 && n >= 0 && from + n <= t.d[1]);
    t.data = offset(&t, from);
    t.d[1] = n;
    return t;
}

tensor tensor_heads(tensor t, int64_t h, int64_t hd) {
    CHECK(t.nd == 2 && t.d[1] == h * hd);
    t.nd = 3;
    t.d[1] = h;
    t.d[2] = hd;
    return t;
}
