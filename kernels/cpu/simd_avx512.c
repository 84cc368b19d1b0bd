/* simd_avx512.c - the inner loops of simd.h, compiled for AVX512 (flags by suffix, see Makefile). */
#include "kernels/cpu/simd.h"

#if defined(__x86_64__)
#include "kernels/cpu/vmath.h"

#include "kernels/cpu/rows.inc"
#include "kernels/cpu/gemm.inc"
#include "kernels/cpu/attn.inc"

const simd simd_avx512 = {
    .name = "avx512",
#include "kernels/cpu/table.inc"
};
#endif
