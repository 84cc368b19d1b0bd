#include "kernels/cuda/cu.cuh"

void cuk_linear_few(cuk_stream, const cuk_linear *) {}
void cuk_linear_exact(cuk_stream, const cuk_linear *) {}
