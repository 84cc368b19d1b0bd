/* fake_cublaslt.h - what a test asks of the emulator's libcublasLt.so (fake_cublaslt.cpp) besides what NVIDIA's documentation
 * promises: the library's symbol fake_cublaslt_state, found by dlsym. One thread; the library's own. */
#ifndef VLMD_TESTS_CUDA_EMU_FAKE_CUBLASLT_H
#define VLMD_TESTS_CUDA_EMU_FAKE_CUBLASLT_H

#include <stdbool.h>
#include <stdint.h>

typedef struct fake_cublaslt {
    /* The test's to set; zeros are an obliging library. */
    bool no_algorithm; /* the heuristic finds nothing */
    bool
        exact_only; /* an algorithm does for the number of columns of B that it was asked for, and no other */
    bool no_bias;   /* the heuristic finds nothing with a bias */
    /* What was asked. */
    int n_heuristics, n_matmuls; /* matmuls: launched ones */
    int n_invalid;               /* calls that break what the documentation demands */
    int n_alive;                 /* handles, descriptors, layouts, preferences */
    int compute;                 /* cublasComputeType_t of the last product launched */
    uint64_t heuristic_cols;     /* of B, in the last question to the heuristic */
    char invalid[160];           /* why the last of those */
} fake_cublaslt;

#endif
