/* ref.c - see ref.h. */
#include "tests/ref/ref.h"

#include <math.h>
#include <string.h>

uint64_t ref_next(uint64_t *s) {
    uint64_t z = (*s += 0x9E3779B97F4A7C15ull);
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9ull;
    z = (z ^ z >> 27) * 0x94D049BB133111EBull;
    return z ^ z >> 31;
}

int64_t ref_int(uint64_t *s, int64_t lo, int64_t hi) {
    return lo + (int64_t)(ref_next(s) % (uint64_t)(hi - lo + 1));
}

float ref_normal(uint64_t *s) {
    double u = ((double)(ref_next(s) >> 11) + 0.5) * 0x1p-53, v = (double)(ref_next(s) >> 11) * 0x1p-53;
    return (float)(sqrt(-2 * log(u)) * cos(6.283185307179586 * v));
}

void ref_fill(uint64_t *s, float *p, int64_t n, float scale) {
    for (int64_t i = 0; i < n; i++) p[i] = ref_normal(s) * scale;
}

static uint32_t bits_of(float x) {
    uint32_t u;
    memcpy(&u, &x, 4);
    return u;
}

uint16_t ref_to_bf16(float x) {
    uint32_t u = bits_of(x);
    if (x != x) return (uint16_t)(u >> 16 | 0x40);
    return (uint16_t)((u + 0x7FFF + (u >> 16 & 1)) >> 16);
}

uint16_t ref_to_f16(float x) {
    uint16_t sign = (uint16_t)(bits_of(x) >> 16 & 0x8000);
    double a = fabs((double)x);
    if (x != x) return sign | 0x7E00;
    if (a >= 65520) return sign | 0x7C00;
    if (a < 0x1p-14)
        return (uint16_t)(sign | (uint16_t)nearbyint(a * 0x1p24)); /* may round up to the first normal */
    int e;
    double m = frexp(a, &e);                                 /* a = m * 2^e, 0.5 <= m < 1 */
    int q = (int)nearbyint(m * 2048);                        /* 1024 .. 2048 */
    return (uint16_t)(sign | (((e + 14) << 10) + q - 1024)); /* 2048 carries into the exponent */
}

double ref_from(dtype dt, const void *p, int64_t i) {
    const uint8_t *b = (const uint8_t *)p + (size_t)i * dtype_size(dt);
    if (dt == DT_F32) {
        float f;
        memcpy(&f, b, 4);
        return f;
    }
    uint16_t h;
    memcpy(&h, b, 2);
    if (dt == DT_BF16) {
        uint32_t u = (uint32_t)h << 16;
        float f;
        memcpy(&f, &u, 4);
        return f;
    }
    int e = h >> 10 & 31, m = h & 1023;
    double v = e == 31 ? (m ? NAN : INFINITY) : e ? ldexp(1024 + m, e - 25) : ldexp(m, -24);
    return h & 0x8000 ? -v : v;
}

void ref_store(dtype dt, void *dst, const float *src, int64_t n) {
    uint8_t *b = dst;
    for (int64_t i = 0; i < n; i++) {
        uint16_t h = dt == DT_BF16 ? ref_to_bf16(src[i]) : dt == DT_F16 ? ref_to_f16(src[i]) : 0;
        if (dt == DT_F32)
            memcpy(b + i * 4, src + i, 4);
        else
            memcpy(b + i * 2, &h, 2);
    }
}

double ref_act(double x, act a) {
    switch (a) {
    case ACT_NONE: return x;
    case ACT_SILU: return x / (1 + exp(-x));
    case ACT_GELU: return 0.5 * x * erfc(-x / sqrt(2));
    case ACT_GELU_TANH: return x / (1 + exp(-2 * sqrt(2 / M_PI) * (x + 0.044715 * x * x * x)));
    case ACT_QUICK_GELU: return x / (1 + exp(-1.702 * x));
    case ACT_RELU: return x < 0 ? 0 : x;
    }
    return NAN;
}

void ref_linear(double *y, const float *x, int64_t x_ld, int64_t n, int64_t k, int64_t out, dtype dt,
                const void *w, int64_t w_ld, const float *bias, act a) {
    for (int64_t i = 0; i < n; i++)
        for (int64_t o = 0; o < out; o++) {
            double s = bias ? bias[o] : 0;
            for (int64_t j = 0; j < k; j++) s += (double)x[i * x_ld + j] * ref_from(dt, w, o * w_ld + j);
            y[i * out + o] = ref_act(s, a);
        }
}

double ref_dot_size(const float *x, dtype dt, const void *w, int64_t k) {
    double s = 0;
    for (int64_t j = 0; j < k; j++) s += fabs((double)x[j] * ref_from(dt, w, j));
    return s;
}

void ref_norm(double *y, const float *x, int64_t d, const float *gain, const float *bias, norm_kind kind,
              double eps, double gain_offset) {
    double mean = 0, var = 0;
    for (int64_t i = 0; i < d && kind == NORM_LAYER; i++) mean += x[i] / (double)d;
    for (int64_t i = 0; i < d; i++) var += (x[i] - mean) * (x[i] - mean) / (double)d;
    for (int64_t i = 0; i < d; i++)
        y[i] = (x[i] - mean) / sqrt(var + eps) * (gain_offset + (gain ? gain[i] : 0)) + (bias ? bias[i] : 0);
}

void ref_rope(double *x, int64_t hd, const double *cs, int64_t half) {
    (void)hd;
    for (int64_t i = 0; i < half; i++) {
        double a = x[i], b = x[i + half];
        x[i] = a * cs[2 * i] - b * cs[2 * i + 1];
        x[i + half] = b * cs[2 * i] + a * cs[2 * i + 1];
    }
}

void ref_attn(double *y, const float *q, const float *k, const float *v, int64_t ld, int64_t lo, int64_t hi,
              int64_t hd, double scale, double softcap) {
    double max = -INFINITY, sum = 0;
    for (int64_t d = 0; d < hd; d++) y[d] = 0;
    for (int pass = 0; pass < 2; pass++)
        for (int64_t j = lo; j < hi; j++) {
            double s = 0;
            for (int64_t d = 0; d < hd; d++) s += (double)q[d] * k[j * ld + d];
            s *= scale;
            if (softcap > 0) s = softcap * tanh(s / softcap);
            if (pass == 0) {
                max = s > max ? s : max;
                continue;
            }
            double p = exp(s - max);
            sum += p;
            for (int64_t d = 0; d < hd; d++) y[d] += p * v[j * ld + d];
        }
    for (int64_t d = 0; d < hd; d++) y[d] /= sum;
}

static double ref_log_sum_exp(const float *x, int64_t step, int64_t n) {
    double max = -INFINITY, sum = 0;
    for (int64_t j = 0; j < n; j++) max = x[j * step] > max ? x[j * step] : max;
    for (int64_t j = 0; j < n; j++) sum += exp((double)x[j * step] - max);
    return max + log(sum);
}

void ref_pair_loss(double *terms, const float *logits, int64_t ld, int64_t n, bool sigmoid) {
    for (int64_t i = 0; i < n; i++) {
        const float *row = logits + i * ld;
        terms[i] = 0;
        for (int64_t j = 0; j < n && sigmoid; j++) {
            double x = j == i ? row[j] : -(double)row[j];
            terms[i] += x > 0 ? log1p(exp(-x)) : log1p(exp(x)) - x;
        }
        if (!sigmoid)
            terms[i] = (ref_log_sum_exp(row, 1, n) + ref_log_sum_exp(logits + i, ld, n)) / 2 - row[i];
    }
}
