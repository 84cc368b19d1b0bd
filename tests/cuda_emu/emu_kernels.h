/* emu_kernels.h - kernels that show what the emulator promises: right ones, and ones with a bug it has to show. For
 * test_emu.c alone. */
#ifndef VLMD_TESTS_EMU_KERNELS_H
#define VLMD_TESTS_EMU_KERNELS_H

#include "kernels/cuda/cuk.h"

#ifdef __cplusplus
extern "C" {
#endif

/* out[i] = (i + 1) % n, through shared memory. */
typedef enum neighbour_how {
    NEIGHBOUR_NOTHING, /* without a barrier */
    NEIGHBOUR_RIGHT,   /* with one */
    NEIGHBOUR_WARP     /* with one of a warp, which keeps no other back */
} neighbour_how;
void k_neighbour(cuk_stream s, float *out, int n, neighbour_how how);
/* out = in, four numbers a thread, through asynchronous copies. */
typedef enum copy_how {
    COPY_RIGHT,      /* the neighbour's four: waits, holds a barrier */
    COPY_OWN,        /* the thread's own: waits */
    COPY_NO_WAIT,    /* its own, at once */
    COPY_NO_BARRIER, /* the neighbour's, after its own wait */
    COPY_TOO_EARLY   /* copies again over what the neighbour may not have read */
} copy_how;
void k_copy(cuk_stream s, float *out, const float *in, int threads, copy_how how);
void k_shared(cuk_stream s, float *out, int n); /* out = what shared memory starts as */
typedef enum diverge_how {
    DIVERGE_BARRIER,  /* half of a block */
    DIVERGE_ENDED,    /* a shuffle without a lane that has returned */
    DIVERGE_MASKS,    /* lanes that name different masks */
    DIVERGE_OUTSIDE,  /* a lane outside its mask */
    DIVERGE_SOURCE,   /* a shuffle from a lane outside the mask */
    DIVERGE_ALIGNMENT /* an asynchronous copy to an odd place */
} diverge_how;
void k_diverge(cuk_stream s, diverge_how how);
enum { WARP_RESULTS = 10 };
void k_warp(cuk_stream s, int *out);                             /* [WARP_RESULTS][32] */
void k_atomics(cuk_stream s, int *out, int blocks, int threads); /* [5] */
/* d[16,8] += a[16,16] b[16,8], bf16 bits */
void k_mma(cuk_stream s, float *d, const uint16_t *a, const uint16_t *b, int f16);
/* The same by matrices from shared memory: a as it lies, b turned. */
void k_mma_shared(cuk_stream s, float *d, const uint16_t *a, const uint16_t *b);
void k_affine(cuk_stream s, float *x, int n, float mul, float add); /* x = x mul + add */
void k_grid(cuk_stream s, int *count, unsigned gx, unsigned gy, unsigned gz, unsigned threads, int shared);
void k_allow(int shared);
void k_write(cuk_stream s, float *p, int i);         /* p[i] = 1 */
void k_unlisted(cuk_stream s);                       /* launched without being in the list of kernels */
void k_write_shared(cuk_stream s, int bytes, int i); /* of a block's own memory */

#ifdef __cplusplus
}
#endif
#endif
