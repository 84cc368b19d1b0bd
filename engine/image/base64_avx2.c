/* base64_avx2.c - 32 base64 digits to 24 bytes at a time with AVX2.
 *
 * Thread: any. Owner of memory: the caller. Digits are told by comparing with the ends of their ranges, which
 * takes both alphabets at once; the packing of four 6-bit values by two multiply-adds is the well-known one.
 */
#include "engine/image/base64.h"

#if defined(__AVX2__)
#include <immintrin.h>

/* 0xff where lo <= c <= hi; ASCII is positive, so that signed compares will do (bytes over 0x7f match
 * nothing). */
static inline __m256i in_range(__m256i c, char lo, char hi) {
    return _mm256_and_si256(_mm256_cmpgt_epi8(c, _mm256_set1_epi8((char)(lo - 1))),
                            _mm256_cmpgt_epi8(_mm256_set1_epi8((char)(hi + 1)), c));
}

static inline __m256i is_char(__m256i c, char x) {
    return _mm256_cmpeq_epi8(c, _mm256_set1_epi8(x));
}

static inline __m256i both(__m256i mask, int offset) {
    return _mm256_and_si256(mask, _mm256_set1_epi8((char)offset));
}

void base64_blocks_avx2(const uint8_t **in, const uint8_t *in_end, uint8_t **out, const uint8_t *out_end) {
    const uint8_t *p = *in;
    uint8_t *o = *out;
    const __m256i pack =
        _mm256_setr_epi8(2, 1, 0, 6, 5, 4, 10, 9, 8, 14, 13, 12, -1, -1, -1, -1, /* each half */
                         2, 1, 0, 6, 5, 4, 10, 9, 8, 14, 13, 12, -1, -1, -1, -1);
    const __m256i join = _mm256_setr_epi32(0, 1, 2, 4, 5, 6, 7, 7);
    while (in_end - p >= 32 && out_end - o >= 32) {
        __m256i c = _mm256_loadu_si256((const __m256i *)p);
        __m256i upper = in_range(c, 'A', 'Z'), lower = in_range(c, 'a', 'z'), number = in_range(c, '0', '9');
        __m256i plus = is_char(c, '+'), slash = is_char(c, '/'), minus = is_char(c, '-'),
                under = is_char(c, '_');
        __m256i valid = _mm256_or_si256(_mm256_or_si256(upper, lower), _mm256_or_si256(number, plus));
        valid = _mm256_or_si256(valid, _mm256_or_si256(slash, _mm256_or_si256(minus, under)));
        if (_mm256_movemask_epi8(valid) != -1) break;
        __m256i offset = _mm256_or_si256(both(upper, -'A'), both(lower, 26 - 'a'));
        offset = _mm256_or_si256(offset, _mm256_or_si256(both(number, 52 - '0'), both(plus, 62 - '+')));
        offset = _mm256_or_si256(offset, _mm256_or_si256(both(slash, 63 - '/'), both(minus, 62 - '-')));
        offset = _mm256_or_si256(offset, both(under, 63 - '_'));
        __m256i v = _mm256_add_epi8(c, offset);
        v = _mm256_maddubs_epi16(v, _mm256_set1_epi32(0x01400140)); /* a * 64 + b */
        v = _mm256_madd_epi16(v, _mm256_set1_epi32(0x00011000));    /* ab * 4096 + cd */
        v = _mm256_permutevar8x32_epi32(_mm256_shuffle_epi8(v, pack), join);
        _mm256_storeu_si256((__m256i *)o, v);
        p += 32;
        o += 24;
    }
    *in = p;
    *out = o;
}

#else

void base64_blocks_avx2(const uint8_t **in, const uint8_t *in_end, uint8_t **out, const uint8_t *out_end) {
    (void)in, (void)in_end, (void)out, (void)out_end;
}

#endif
