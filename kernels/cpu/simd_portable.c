/* simd_portable.c - the inner loops of simd.h, compiled for any machine. */
#include "kernels/cpu/simd.h"

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#pragma GCC optimize("O1", "no-var-tracking") /* minutes of compiling less */
#endif

#include "kernels/cpu/vmath.h"

#include "kernels/cpu/rows.inc"
#include "kernels/cpu/gemm.inc"
#include "kernels/cpu/attn.inc"

const simd simd_portable = {
    .name = "portable",
#include "kernels/cpu/table.inc"
};
