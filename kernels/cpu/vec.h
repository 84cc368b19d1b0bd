/* vec.h - sixteen f32 lanes under one set of names: one AVX-512 register, two AVX2 registers, or an array in
 * plain C, by the flags that the including file is compiled with. Every function gives the same bits on all
 * three: the operations are the IEEE ones in a stated order (only NaN payloads may differ).
 *
 * vf is sixteen lanes; nf is one native register (NF_LANES lanes, NF_PARTS of them make a vf), for tight
 * loops. Pure functions of their arguments, any thread. */
#ifndef VLMD_KERNELS_CPU_VEC_H
#define VLMD_KERNELS_CPU_VEC_H

#include <math.h>
#include <stdint.h>
#include <string.h>

#include "kernels/tensor.h"

/* Inner loops are unrolled and inlined by force where speed is wanted. Plain C and sanitized builds are not: there it
 * would only cost minutes of compiling. The bits are the same. */
#if defined(__AVX2__) && !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
#define VEC_FAST   1
#define VEC_FN     static inline __attribute__((always_inline, unused))
#define VEC_UNROLL _Pragma("GCC unroll 16")
#else
#define VEC_FN                                                                                               \
    static inline __attribute__((unused, no_sanitize("undefined"))) /* lanes are not where its bugs hide */
#define VEC_UNROLL
#endif

/* f16 bits to f32, exact; also the fallback of lanes. */
VEC_FN float f32_of_f16(uint16_t h) {
    uint32_t sign = (uint32_t)(h & 0x8000) << 16, e = h >> 10 & 0x1F, m = h & 0x3FF, u;
    float f;
    if (e == 0) {
        f = (float)m * 0x1p-24f; /* zero and subnormals */
        memcpy(&u, &f, 4);
        u |= sign;
    } else {
        u = sign | (e == 31 ? 0x7F800000u | m << 13 | (m ? 0x400000u : 0) : (e + 112) << 23 | m << 13);
    }
    memcpy(&f, &u, 4);
    return f;
}
VEC_FN float f32_of_bf16(uint16_t h) {
    uint32_t u = (uint32_t)h << 16;
    float f;
    memcpy(&f, &u, 4);
    return f;
}

#if defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512DQ__) && defined(__AVX512VL__)
#include <immintrin.h>
#define VEC_AVX512 1
enum { NF_LANES = 16, NF_PARTS = 1 };
typedef __m512 nf;
VEC_FN nf n_zero(void) {
    return _mm512_setzero_ps();
}
VEC_FN nf n_set1(float x) {
    return _mm512_set1_ps(x);
}
VEC_FN nf n_load(const float *p) {
    return _mm512_loadu_ps(p);
}
VEC_FN void n_store(float *p, nf a) {
    _mm512_storeu_ps(p, a);
}
VEC_FN nf n_fma(nf a, nf b, nf c) {
    return _mm512_fmadd_ps(a, b, c);
}

typedef __m512 vf;
VEC_FN __mmask16 v_mask(int n) {
    return (__mmask16)((1u << n) - 1);
}
VEC_FN vf v_zero(void) {
    return _mm512_setzero_ps();
}
VEC_FN vf v_set1(float x) {
    return _mm512_set1_ps(x);
}
VEC_FN vf v_load(const float *p) {
    return _mm512_loadu_ps(p);
}
VEC_FN vf v_load_n(const float *p, int n) {
    return _mm512_maskz_loadu_ps(v_mask(n), p);
}
VEC_FN void v_store(float *p, vf a) {
    _mm512_storeu_ps(p, a);
}
VEC_FN void v_store_n(float *p, vf a, int n) {
    _mm512_mask_storeu_ps(p, v_mask(n), a);
}
VEC_FN vf v_add(vf a, vf b) {
    return _mm512_add_ps(a, b);
}
VEC_FN vf v_sub(vf a, vf b) {
    return _mm512_sub_ps(a, b);
}
VEC_FN vf v_mul(vf a, vf b) {
    return _mm512_mul_ps(a, b);
}
VEC_FN vf v_div(vf a, vf b) {
    return _mm512_div_ps(a, b);
}
VEC_FN vf v_fma(vf a, vf b, vf c) {
    return _mm512_fmadd_ps(a, b, c);
}
VEC_FN vf v_max(vf a, vf b) {
    return _mm512_max_ps(a, b);
} /* a > b ? a : b */
VEC_FN vf v_min(vf a, vf b) {
    return _mm512_min_ps(a, b);
} /* a < b ? a : b */
VEC_FN vf v_abs(vf a) {
    return _mm512_abs_ps(a);
}
/* a < b ? x : y */
VEC_FN vf v_select_lt(vf a, vf b, vf x, vf y) {
    return _mm512_mask_blend_ps(_mm512_cmp_ps_mask(a, b, _CMP_LT_OQ), y, x);
}
VEC_FN vf v_bits_shl23(vf a) {
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_castps_si512(a), 23));
}
/* Lanes lo <= j < hi of a, the others of b. */
VEC_FN vf v_range(vf a, vf b, int lo, int hi) {
    return _mm512_mask_blend_ps((__mmask16)(((1u << hi) - 1) & ~((1u << lo) - 1)), b, a);
}
VEC_FN __m128 v_fold8(__m256 h) {
    return _mm_add_ps(_mm256_castps256_ps128(h), _mm256_extractf128_ps(h, 1));
}
VEC_FN float v_sum(vf a) {
    __m256 h = _mm256_add_ps(_mm512_castps512_ps256(a), _mm512_extractf32x8_ps(a, 1));
    __m128 q = v_fold8(h);
    q = _mm_add_ps(q, _mm_movehl_ps(q, q));
    return _mm_cvtss_f32(_mm_add_ss(q, _mm_shuffle_ps(q, q, 1)));
}
VEC_FN float v_hmax(vf a) {
    __m256 h = _mm256_max_ps(_mm512_castps512_ps256(a), _mm512_extractf32x8_ps(a, 1));
    __m128 q = _mm_max_ps(_mm256_castps256_ps128(h), _mm256_extractf128_ps(h, 1));
    q = _mm_max_ps(q, _mm_movehl_ps(q, q));
    return _mm_cvtss_f32(_mm_max_ss(q, _mm_shuffle_ps(q, q, 1)));
}
VEC_FN vf v_load_f16(const void *p) {
    return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)p));
}
VEC_FN vf v_load_bf16(const void *p) {
    return _mm512_castsi512_ps(
        _mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)p)), 16));
}
VEC_FN vf v_load_f16_n(const void *p, int n) {
    return _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(v_mask(n), p));
}
VEC_FN vf v_load_bf16_n(const void *p, int n) {
    return _mm512_castsi512_ps(
        _mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(v_mask(n), p)), 16));
}

#elif defined(__AVX2__) && defined(__FMA__) && defined(__F16C__)
#include <immintrin.h>
#define VEC_AVX2          1
enum { NF_LANES = 8, NF_PARTS = 2 };
typedef __m256 nf;
VEC_FN nf n_zero(void) {
    return _mm256_setzero_ps();
}
VEC_FN nf n_set1(float x) {
    return _mm256_set1_ps(x);
}
VEC_FN nf n_load(const float *p) {
    return _mm256_loadu_ps(p);
}
VEC_FN void n_store(float *p, nf a) {
    _mm256_storeu_ps(p, a);
}
VEC_FN nf n_fma(nf a, nf b, nf c) {
    return _mm256_fmadd_ps(a, b, c);
}

typedef struct vf {
    __m256 l, h;
} vf;
#define V_EACH2(fn, a, b) ((vf){fn((a).l, (b).l), fn((a).h, (b).h)})
VEC_FN vf v_zero(void) {
    return (vf){_mm256_setzero_ps(), _mm256_setzero_ps()};
}
VEC_FN vf v_set1(float x) {
    return (vf){_mm256_set1_ps(x), _mm256_set1_ps(x)};
}
VEC_FN vf v_load(const float *p) {
    return (vf){_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)};
}
VEC_FN __m256i v_mask8(int n) {
    return _mm256_cmpgt_epi32(_mm256_set1_epi32(n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}
VEC_FN vf v_load_n(const float *p, int n) {
    return (vf){_mm256_maskload_ps(p, v_mask8(n)), _mm256_maskload_ps(p + 8, v_mask8(n - 8))};
}
VEC_FN void v_store(float *p, vf a) {
    _mm256_storeu_ps(p, a.l);
    _mm256_storeu_ps(p + 8, a.h);
}
VEC_FN void v_store_n(float *p, vf a, int n) {
    _mm256_maskstore_ps(p, v_mask8(n), a.l);
    _mm256_maskstore_ps(p + 8, v_mask8(n - 8), a.h);
}
VEC_FN vf v_add(vf a, vf b) {
    return V_EACH2(_mm256_add_ps, a, b);
}
VEC_FN vf v_sub(vf a, vf b) {
    return V_EACH2(_mm256_sub_ps, a, b);
}
VEC_FN vf v_mul(vf a, vf b) {
    return V_EACH2(_mm256_mul_ps, a, b);
}
VEC_FN vf v_div(vf a, vf b) {
    return V_EACH2(_mm256_div_ps, a, b);
}
VEC_FN vf v_max(vf a, vf b) {
    return V_EACH2(_mm256_max_ps, a, b);
}
VEC_FN vf v_min(vf a, vf b) {
    return V_EACH2(_mm256_min_ps, a, b);
}
VEC_FN vf v_fma(vf a, vf b, vf c) {
    return (vf){_mm256_fmadd_ps(a.l, b.l, c.l), _mm256_fmadd_ps(a.h, b.h, c.h)};
}
VEC_FN vf v_abs(vf a) {
    __m256 m = _mm256_castsi256_ps(_mm256_set1_epi32(0x7FFFFFFF));
    return (vf){_mm256_and_ps(a.l, m), _mm256_and_ps(a.h, m)};
}
VEC_FN vf v_select_lt(vf a, vf b, vf x, vf y) {
    return (vf){_mm256_blendv_ps(y.l, x.l, _mm256_cmp_ps(a.l, b.l, _CMP_LT_OQ)),
                _mm256_blendv_ps(y.h, x.h, _mm256_cmp_ps(a.h, b.h, _CMP_LT_OQ))};
}
VEC_FN vf v_bits_shl23(vf a) {
    return (vf){_mm256_castsi256_ps(_mm256_slli_epi32(_mm256_castps_si256(a.l), 23)),
                _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_castps_si256(a.h), 23))};
}
VEC_FN __m256 v_range8(__m256 a, __m256 b, int lo, int hi) {
    return _mm256_blendv_ps(b, a, _mm256_castsi256_ps(_mm256_andnot_si256(v_mask8(lo), v_mask8(hi))));
}
VEC_FN vf v_range(vf a, vf b, int lo, int hi) {
    return (vf){v_range8(a.l, b.l, lo, hi), v_range8(a.h, b.h, lo - 8, hi - 8)};
}
VEC_FN float v_sum(vf a) {
    __m256 h = _mm256_add_ps(a.l, a.h);
    __m128 q = _mm_add_ps(_mm256_castps256_ps128(h), _mm256_extractf128_ps(h, 1));
    q = _mm_add_ps(q, _mm_movehl_ps(q, q));
    return _mm_cvtss_f32(_mm_add_ss(q, _mm_shuffle_ps(q, q, 1)));
}
VEC_FN float v_hmax(vf a) {
    __m256 h = _mm256_max_ps(a.l, a.h);
    __m128 q = _mm_max_ps(_mm256_castps256_ps128(h), _mm256_extractf128_ps(h, 1));
    q = _mm_max_ps(q, _mm_movehl_ps(q, q));
    return _mm_cvtss_f32(_mm_max_ss(q, _mm_shuffle_ps(q, q, 1)));
}
VEC_FN vf v_load_f16(const void *p) {
    const __m128i *q = p;
    return (vf){_mm256_cvtph_ps(_mm_loadu_si128(q)), _mm256_cvtph_ps(_mm_loadu_si128(q + 1))};
}
VEC_FN __m256 v_bf16x8(__m128i a) {
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(a), 16));
}
VEC_FN vf v_load_bf16(const void *p) {
    const __m128i *q = p;
    return (vf){v_bf16x8(_mm_loadu_si128(q)), v_bf16x8(_mm_loadu_si128(q + 1))};
}
VEC_FN vf v_load_f16_n(const void *p, int n) {
    uint16_t t[16] = {0};
    memcpy(t, p, (size_t)n * 2);
    return v_load_f16(t);
}
VEC_FN vf v_load_bf16_n(const void *p, int n) {
    uint16_t t[16] = {0};
    memcpy(t, p, (size_t)n * 2);
    return v_load_bf16(t);
}

#else
#define VEC_PORTABLE 1
enum { NF_LANES = 16, NF_PARTS = 1 };
typedef struct vf {
    float f[16];
} vf;
typedef vf nf;
#define V_LOOP(expr)                                                                                         \
    vf r;                                                                                                    \
    for (int i = 0; i < 16; i++) r.f[i] = (expr);                                                            \
    return r
VEC_FN vf v_zero(void) {
    V_LOOP(0.0f);
}
VEC_FN vf v_set1(float x) {
    V_LOOP(x);
}
VEC_FN vf v_load(const float *p) {
    vf r;
    memcpy(&r, p, sizeof r); /* p may be unaligned */
    return r;
}
VEC_FN vf v_load_n(const float *p, int n) {
    vf r = v_zero();
    if (n) memcpy(&r, p, sizeof(float) * (size_t)n);
    return r;
}
VEC_FN void v_store(float *p, vf a) {
    memcpy(p, &a, sizeof a);
}
VEC_FN void v_store_n(float *p, vf a, int n) {
    if (n) memcpy(p, &a, sizeof(float) * (size_t)n);
}
VEC_FN vf v_add(vf a, vf b) {
    V_LOOP(a.f[i] + b.f[i]);
}
VEC_FN vf v_sub(vf a, vf b) {
    V_LOOP(a.f[i] - b.f[i]);
}
VEC_FN vf v_mul(vf a, vf b) {
    V_LOOP(a.f[i] * b.f[i]);
}
VEC_FN vf v_div(vf a, vf b) {
    V_LOOP(a.f[i] / b.f[i]);
}
VEC_FN vf v_fma(vf a, vf b, vf c) {
    V_LOOP(fmaf(a.f[i], b.f[i], c.f[i]));
}
VEC_FN vf v_max(vf a, vf b) {
    V_LOOP(a.f[i] > b.f[i] ? a.f[i] : b.f[i]);
}
VEC_FN vf v_min(vf a, vf b) {
    V_LOOP(a.f[i] < b.f[i] ? a.f[i] : b.f[i]);
}
VEC_FN vf v_abs(vf a) {
    V_LOOP(fabsf(a.f[i]));
}
VEC_FN vf v_select_lt(vf a, vf b, vf x, vf y) {
    V_LOOP(a.f[i] < b.f[i] ? x.f[i] : y.f[i]);
}
VEC_FN vf v_bits_shl23(vf a) {
    uint32_t u[16];
    memcpy(u, &a, sizeof u);
    for (int i = 0; i < 16; i++) u[i] <<= 23;
    memcpy(&a, u, sizeof a);
    return a;
}
VEC_FN vf v_range(vf a, vf b, int lo, int hi) {
    V_LOOP(i >= lo && i < hi ? a.f[i] : b.f[i]);
}
VEC_FN float v_sum(vf a) {
    for (int n = 8; n; n /= 2)
        for (int i = 0; i < n; i++) a.f[i] += a.f[i + n];
    return a.f[0];
}
VEC_FN float v_hmax(vf a) {
    for (int n = 8; n; n /= 2)
        for (int i = 0; i < n; i++) a.f[i] = a.f[i] > a.f[i + n] ? a.f[i] : a.f[i + n];
    return a.f[0];
}
VEC_FN vf v_load_u16(const void *p, int n, float (*widen)(uint16_t)) {
    uint16_t t[16] = {0};
    memcpy(t, p, (size_t)n * 2);
    V_LOOP(widen(t[i]));
}
VEC_FN vf v_load_f16_n(const void *p, int n) {
    return v_load_u16(p, n, f32_of_f16);
}
VEC_FN vf v_load_bf16_n(const void *p, int n) {
    return v_load_u16(p, n, f32_of_bf16);
}
VEC_FN vf v_load_f16(const void *p) {
    return v_load_f16_n(p, 16);
}
VEC_FN vf v_load_bf16(const void *p) {
    return v_load_bf16_n(p, 16);
}
VEC_FN nf n_zero(void) {
    return v_zero();
}
VEC_FN nf n_set1(float x) {
    return v_set1(x);
}
VEC_FN nf n_load(const float *p) {
    return v_load(p);
}
VEC_FN void n_store(float *p, nf a) {
    v_store(p, a);
}
VEC_FN nf n_fma(nf a, nf b, nf c) {
    return v_fma(a, b, c);
}
#endif

/* Sixteen elements of a weight, widened; dt is a constant where this is called. */
VEC_FN vf v_load_as(dtype dt, const uint8_t *p) {
    if (dt == DT_BF16) return v_load_bf16(p);
    if (dt == DT_F16) return v_load_f16(p);
    vf r;
#if VEC_PORTABLE
    memcpy(&r, p, sizeof r);
#else
    r = v_load((const float *)(const void *)p);
#endif
    return r;
}
VEC_FN vf v_load_as_n(dtype dt, const uint8_t *p, int n) {
    if (dt == DT_BF16) return v_load_bf16_n(p, n);
    if (dt == DT_F16) return v_load_f16_n(p, n);
    float t[16] = {0};
    memcpy(t, p, (size_t)n * 4);
    return v_load(t);
}

#endif
