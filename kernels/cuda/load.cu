/* load.cu - brings every kernel to the device at the start, and not with its first launch; says which GPUs they were built for.
 *
 * The runtime loads a kernel once somebody asks for its attributes. Which there are, launching itself says (cu.cuh), so none can
 * be left out. Thread: the backend's. Owner: nothing. Tested by tests/cuda_emu/test_emu.c. */
#include "kernels/cuda/cu.cuh"

static const cu_entry *first; /* null before any entry is made */

cu_entry::cu_entry(const void *k) : kernel(k), next(first) { first = this; }

int cuk_load(size_t shared_bytes) {
    cudaError_t e = cudaSuccess;
    for (const cu_entry *k = first; k && e == cudaSuccess; k = k->next) {
        cudaFuncAttributes a;
        e = cudaFuncGetAttributes(&a, k->kernel);
        if (e == cudaSuccess && shared_bytes > a.sharedSizeBytes)
            e = cudaFuncSetAttribute(k->kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                     static_cast<int>(shared_bytes - a.sharedSizeBytes));
    }
    return e;
}

static const int archs[] = {__CUDA_ARCH_LIST__};

int cuk_archs(const int **list) {
    *list = archs;
    return sizeof archs / sizeof *archs;
}
