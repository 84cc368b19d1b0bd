/* blas_emu.cpp - kernels/cuda/blas.h by plain loops, for the emulator: a product that waits on its stream like a kernel. Refuses
 * what a real library refuses now and then: a bias together with an odd number of outputs. */
#include "cuda_runtime.h"

#include "kernels/cuda/cu.cuh"
#include "kernels/cuda/blas.h"

struct cuda_blas {
    int unused;
};

cuda_blas *cuda_blas_new(void) { return new cuda_blas{}; }
void cuda_blas_free(cuda_blas *b) { delete b; }

template <class T> static void product(const blas_gemm &g) {
    const typename T::bits *x = static_cast<const typename T::bits *>(g.x), *w = static_cast<const typename T::bits *>(g.w);
    for (int64_t r = 0; r < g.rows; r++)
        for (int64_t o = 0; o < g.out; o++) {
            float sum = 0;
            for (int64_t k = 0; k < g.k; k++) sum += T::wide(x[r * g.x_ld + k]) * T::wide(w[o * g.w_ld + k]);
            if (g.bias) sum += g.bias[o];
            float *y = &g.y[r * g.y_ld + o];
            *y = g.add ? *y + sum : sum;
        }
}

bool cuda_blas_gemm(cuda_blas *, cuk_stream s, const blas_gemm *g) {
    const blas_gemm now = *g;
    if (g->bias && g->out % 2) return false;
    return emu_launch(nullptr, dim3(1), dim3(1), 0, s, [now] {
               if (now.t == CUK_F32)
                   product<cu_f32>(now);
               else if (now.t == CUK_F16)
                   product<cu_f16>(now);
               else
                   product<cu_bf16>(now);
           }) == cudaSuccess;
}
