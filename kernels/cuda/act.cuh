/* act.cuh - activations on the device: the same formulas as kernels/cpu/vmath.h, about 1e-6 relative to double precision.
 *
 * Products and sums are spelled out where a contraction would change bits, so that a vector and a scalar path, or an
 * epilogue and an op of its own, agree. */
#ifndef VLMD_KERNELS_CUDA_ACT_CUH
#define VLMD_KERNELS_CUDA_ACT_CUH

#include "kernels/cuda/cu.cuh"

/* erfc(|x| / sqrt 2) as exp(-x^2/2) t P(2t - 1), t = 1 / (1 + z/2), with what the rounding of x^2/2 lost put back. */
static __device__ __forceinline__ float cu_erfc_half(float x) {
    x = fminf(17.0f, fabsf(x));
    const float z = __fmul_rn(x, 0.70710678f), h = __fmul_rn(x, -0.5f), zz = __fmul_rn(h, x), err = fmaf(h, x, -zz);
    float e = expf(zz);
    e = fmaf(e, err, e);
    const float t = 1.0f / fmaf(z, 0.5f, 1.0f), u = fmaf(t, 2.0f, -1.0f);
    float p = -2.309545089e-4f;
    p = fmaf(p, u, 3.777222009e-4f);
    p = fmaf(p, u, 1.489496673e-3f);
    p = fmaf(p, u, -3.218879923e-3f);
    p = fmaf(p, u, -1.074172091e-2f);
    p = fmaf(p, u, 1.821763255e-2f);
    p = fmaf(p, u, 1.397348046e-1f);
    p = fmaf(p, u, 3.435804844e-1f);
    p = fmaf(p, u, 5.107913613e-1f);
    return __fmul_rn(__fmul_rn(t, p), e);
}

/* cap * tanh(x / cap) */
static __device__ __forceinline__ float cu_softcap(float x, float cap) {
    return __fmul_rn(cap, tanhf(x / cap));
}

/* x * sigmoid(k) */
static __device__ __forceinline__ float cu_gate(float x, float k) {
    return x / __fadd_rn(1.0f, expf(-k));
}

template <int A> static __device__ __forceinline__ float cu_act(float x) {
    if (A == CUK_ACT_SILU) return cu_gate(x, x);
    if (A == CUK_ACT_QUICK_GELU) return cu_gate(x, __fmul_rn(x, 1.702f));
    if (A == CUK_ACT_GELU_TANH) { /* 0.5 x (1 + tanh u) = x sigmoid(2u), u = sqrt(2/pi) (x + 0.044715 x^3) */
        const float u = __fmul_rn(x, fmaf(__fmul_rn(x, x), 0.044715f, 1.0f));
        return cu_gate(x, __fmul_rn(u, 1.59576912f));
    }
    if (A == CUK_ACT_GELU) { /* from erfc on the side where it does not cancel */
        const float half = __fmul_rn(0.5f, cu_erfc_half(x));
        return __fmul_rn(x, x < 0 ? half : __fadd_rn(1.0f, -half));
    }
    if (A == CUK_ACT_RELU) return x < 0 ? 0.0f : x; /* NaN stays */
    return x;
}

/* The same, chosen at run time: uniform over a launch. */
static __device__ __forceinline__ float cu_act_any(float x, cuk_act a) {
    switch (a) {
    case CUK_ACT_SILU: return cu_act<CUK_ACT_SILU>(x);
    case CUK_ACT_GELU: return cu_act<CUK_ACT_GELU>(x);
    case CUK_ACT_GELU_TANH: return cu_act<CUK_ACT_GELU_TANH>(x);
    case CUK_ACT_QUICK_GELU: return cu_act<CUK_ACT_QUICK_GELU>(x);
    case CUK_ACT_RELU: return cu_act<CUK_ACT_RELU>(x);
    case CUK_ACT_NONE: break;
    }
    return x;
}

#endif
