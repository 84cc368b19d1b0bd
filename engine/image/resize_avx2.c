/* resize_avx2.c - the inner loops of resize.c with AVX2: the same integer sums, so the same bytes.
 *
 * Thread: any. Owner of memory: the caller. */
#include "engine/image/resize.h"

#if defined(__AVX2__)
#include <immintrin.h>
#include <string.h>

/* Four 32-bit sums to bytes, clipped. */
static inline uint32_t clip4(__m128i v) {
    v = _mm_srai_epi32(v, RESIZE_BITS);
    v = _mm_packs_epi32(v, v);
    return (uint32_t)_mm_cvtsi128_si32(_mm_packus_epi16(v, v));
}

void resize_row_avx2(const uint8_t *src, const resize_tap *taps, const int32_t *k, int n, uint8_t *dst) {
    const __m128i spread = _mm_setr_epi8(0, 1, 2, -1, 3, 4, 5, -1, -1, -1, -1, -1, -1, -1, -1, -1);
    const __m256i twice = _mm256_setr_epi32(0, 0, 0, 0, 1, 1, 1, 1);
    for (int i = 0; i < n; i++, dst += 3) {
        const uint8_t *s = src + (size_t)taps[i].first * 3;
        const int32_t *w = k + taps[i].off;
        int count = taps[i].count, t = 0;
        __m256i two = _mm256_setzero_si256();
        /* two pixels a step; the eight bytes read reach into a third, so that one must be there */
        for (; t + 3 <= count; t += 2, s += 6) {
            __m256i px = _mm256_cvtepu8_epi32(_mm_shuffle_epi8(_mm_loadl_epi64((const __m128i *)s), spread));
            __m128i pair = _mm_loadl_epi64((const __m128i *)(w + t));
            __m256i kk = _mm256_permutevar8x32_epi32(_mm256_castsi128_si256(pair), twice);
            two = _mm256_add_epi32(two, _mm256_mullo_epi32(px, kk));
        }
        __m128i acc = _mm_add_epi32(_mm256_castsi256_si128(two), _mm256_extracti128_si256(two, 1));
        acc = _mm_add_epi32(acc, _mm_set1_epi32(1 << (RESIZE_BITS - 1)));
        for (; t < count; t++, s += 3) {
            __m128i px = _mm_setr_epi32(s[0], s[1], s[2], 0);
            acc = _mm_add_epi32(acc, _mm_mullo_epi32(px, _mm_set1_epi32(w[t])));
        }
        uint32_t v = clip4(acc);
        memcpy(dst, &v, 3);
    }
}

void resize_col_avx2(const uint8_t *src, size_t stride, const int32_t *k, int count, uint8_t *dst,
                     size_t bytes) {
    const __m256i half = _mm256_set1_epi32(1 << (RESIZE_BITS - 1));
    size_t at = 0;
    for (; at + 32 <= bytes; at += 32) {
        __m256i a = half, b = half, c = half, d = half;
        const uint8_t *s = src + at;
        for (int t = 0; t < count; t++, s += stride) {
            __m256i kk = _mm256_set1_epi32(k[t]);
            a = _mm256_add_epi32(
                a, _mm256_mullo_epi32(_mm256_cvtepu8_epi32(_mm_loadl_epi64((const void *)s)), kk));
            b = _mm256_add_epi32(
                b, _mm256_mullo_epi32(_mm256_cvtepu8_epi32(_mm_loadl_epi64((const void *)(s + 8))), kk));
            c = _mm256_add_epi32(
                c, _mm256_mullo_epi32(_mm256_cvtepu8_epi32(_mm_loadl_epi64((const void *)(s + 16))), kk));
            d = _mm256_add_epi32(
                d, _mm256_mullo_epi32(_mm256_cvtepu8_epi32(_mm_loadl_epi64((const void *)(s + 24))), kk));
        }
        a = _mm256_packs_epi32(_mm256_srai_epi32(a, RESIZE_BITS), _mm256_srai_epi32(b, RESIZE_BITS));
        c = _mm256_packs_epi32(_mm256_srai_epi32(c, RESIZE_BITS), _mm256_srai_epi32(d, RESIZE_BITS));
        a = _mm256_packus_epi16(a, c); /* packing works within halves; put the eight pieces back in order */
        a = _mm256_permutevar8x32_epi32(a, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
        _mm256_storeu_si256((__m256i *)(dst + at), a);
    }
    resize_col_c(src + at, stride, k, count, dst + at, bytes - at);
}

#else

void resize_row_avx2(const uint8_t *src, const resize_tap *taps, const int32_t *k, int n, uint8_t *dst) {
    resize_row_c(src, taps, k, n, dst);
}
void resize_col_avx2(const uint8_t *src, size_t stride, const int32_t *k, int count, uint8_t *dst,
                     size_t bytes) {
    resize_col_c(src, stride, k, count, dst, bytes);
}

#endif
