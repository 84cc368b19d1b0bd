/* vmath.h - exp, erfc and the activations on sixteen lanes (vec.h), the same bits on every path.
 *
 * v_exp: at most 2 ulp from the true value over the whole range, subnormal results included; exp(-inf) = 0,
 * NaN stays. Activations: about 1e-6 relative to double precision. The polynomials are minimax fits made for
 * vlmd (weighted least squares reweighted to equal ripple; relative error 3e-9 and 4e-8 before rounding).
 * Tested by tests/kernels/test_ops_rows.c. */
#ifndef VLMD_KERNELS_CPU_VMATH_H
#define VLMD_KERNELS_CPU_VMATH_H

#include "kernels/cpu/vec.h"
#include "kernels/ops.h"

/* 1.5 * 2^23: adding it rounds to the nearest integer, which then sits in the low bits of the mantissa. */
#define VMATH_ROUND 12582912.0f

/* 2^n for integers -126 <= n <= 127 */
VEC_FN vf v_pow2(vf n) {
    return v_bits_shl23(v_add(n, v_set1(VMATH_ROUND + 127.0f)));
}

VEC_FN vf v_exp(vf x) {
    const vf magic = v_set1(VMATH_ROUND);
    /* Bounds just past total underflow and overflow; the operand order lets NaN through. */
    x = v_min(v_set1(90.0f), v_max(v_set1(-105.0f), x));
    vf n = v_sub(v_fma(x, v_set1(1.44269504f), magic), magic);
    vf r = v_fma(n, v_set1(-0x1.62e400p-1f), x); /* ln 2 in two parts, the first with trailing zeros */
    r = v_fma(n, v_set1(-0x1.7f7d1cp-20f), r);
    vf q = v_set1(1.381314476e-3f);
    q = v_fma(q, r, v_set1(8.369418792e-3f));
    q = v_fma(q, r, v_set1(4.166845605e-2f));
    q = v_fma(q, r, v_set1(1.666651517e-1f));
    q = v_fma(q, r, v_set1(4.999999404e-1f));
    vf p = v_add(v_fma(v_mul(r, r), q, r), v_set1(1.0f));
    /* Two steps: each factor is a normal number, only the last product rounds. */
    vf half = v_sub(v_fma(n, v_set1(0.5f), magic), magic);
    return v_mul(v_mul(p, v_pow2(half)), v_pow2(v_sub(n, half)));
}

/* erfc(|x| / sqrt 2) as exp(-x^2/2) * t * P(2t - 1), t = 1 / (1 + z/2), z = |x| / sqrt 2. The exponent comes from x
 * itself, with what its rounding lost: an error there grows with x^2. */
VEC_FN vf v_erfc_half(vf x) {
    x = v_min(v_set1(17.0f), v_abs(x));
    vf z = v_mul(x, v_set1(0.70710678f)), h = v_mul(x, v_set1(-0.5f));
    vf zz = v_mul(h, x), err = v_fma(h, x, v_sub(v_zero(), zz));
    vf e = v_exp(zz);
    e = v_fma(e, err, e);
    vf t = v_div(v_set1(1.0f), v_fma(z, v_set1(0.5f), v_set1(1.0f)));
    vf u = v_fma(t, v_set1(2.0f), v_set1(-1.0f));
    vf p = v_set1(-2.309545089e-4f);
    p = v_fma(p, u, v_set1(3.777222009e-4f));
    p = v_fma(p, u, v_set1(1.489496673e-3f));
    p = v_fma(p, u, v_set1(-3.218879923e-3f));
    p = v_fma(p, u, v_set1(-1.074172091e-2f));
    p = v_fma(p, u, v_set1(1.821763255e-2f));
    p = v_fma(p, u, v_set1(1.397348046e-1f));
    p = v_fma(p, u, v_set1(3.435804844e-1f));
    p = v_fma(p, u, v_set1(5.107913613e-1f));
    return v_mul(v_mul(t, p), e);
}

/* tanh: its series near 0, where 1 - 2 / (exp(2x) + 1) cancels. About 1e-6 relative. */
VEC_FN vf v_tanh(vf x) {
    const vf one = v_set1(1.0f), xx = v_mul(x, x);
    vf p = v_set1(2.18694885e-2f);
    p = v_fma(p, xx, v_set1(-5.39682540e-2f));
    p = v_fma(p, xx, v_set1(1.33333333e-1f));
    p = v_fma(p, xx, v_set1(-3.33333333e-1f));
    p = v_fma(v_mul(p, xx), x, x);
    vf e = v_exp(v_add(x, x));
    vf far = v_sub(one, v_div(v_set1(2.0f), v_add(e, one)));
    return v_select_lt(v_abs(x), v_set1(0.25f), p, far);
}

/* cap * tanh(x / cap) */
VEC_FN vf v_softcap(vf x, vf cap) {
    return v_mul(cap, v_tanh(v_div(x, cap)));
}

/* x / (1 + exp(-k)): x * sigmoid(k) */
VEC_FN vf v_gate(vf x, vf k) {
    return v_div(x, v_add(v_set1(1.0f), v_exp(v_sub(v_zero(), k))));
}

VEC_FN vf v_act(vf x, act a) {
    switch (a) {
    case ACT_SILU: return v_gate(x, x);
    case ACT_QUICK_GELU: return v_gate(x, v_mul(x, v_set1(1.702f)));
    case ACT_GELU_TANH: { /* 0.5 x (1 + tanh u) = x sigmoid(2u), u = sqrt(2/pi) (x + 0.044715 x^3) */
        vf x2 = v_mul(x, x);
        vf u = v_mul(x, v_fma(x2, v_set1(0.044715f), v_set1(1.0f)));
        return v_gate(x, v_mul(u, v_set1(1.59576912f)));
    }
    case ACT_GELU: { /* x Phi(x), Phi from erfc on the side where it does not cancel */
        vf half = v_mul(v_set1(0.5f), v_erfc_half(x));
        return v_mul(x, v_select_lt(x, v_zero(), half, v_sub(v_set1(1.0f), half)));
    }
    case ACT_RELU: return v_max(v_zero(), x);
    case ACT_NONE: break;
    }
    return x;
}

#endif
