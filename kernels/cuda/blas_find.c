/* blas_find.c - where libcublasLt may lie; see blas.h.
 *
 * As the loader finds it, else with the toolkit, else as Python's wheels bring it: nvidia/cublas/lib for CUDA 12,
 * nvidia/cu13/lib for 13. Thread: the loader's. Owner: nothing. */
#include "kernels/cuda/blas.h"

#include <glob.h>
#include <stdio.h>
#include <stdlib.h>

#include "kernels/base.h"

#define FILES  "libcublasLt.so.1[23]"
#define WHEELS "nvidia/cu*/lib/" FILES

static bool try_matching(const char *pattern, blas_try *try, void *user) {
    glob_t g;
    bool found = false;
    if (glob(pattern, 0, NULL, &g) != 0) return false;
    for (size_t i = g.gl_pathc; i > 0 && !found; i--)
        found = try(user, g.gl_pathv[i - 1]); /* the newest first */
    globfree(&g);
    return found;
}

bool cuda_blas_find(blas_try *try, void *user) {
    static const struct {
        const char *under, *pattern; /* under: a variable of the environment, or NULL */
    } places[] = {{"CUDA_HOME", "/lib64/" FILES},
                  {"VIRTUAL_ENV", "/lib/python3*/site-packages/" WHEELS},
                  {"CONDA_PREFIX", "/lib/" FILES},
                  {"CONDA_PREFIX", "/lib/python3*/site-packages/" WHEELS},
                  {NULL, "/usr/local/cuda/lib64/" FILES},
                  {NULL, "/usr/local/cuda-*/lib64/" FILES},
                  {"HOME", "/.local/lib/python3*/site-packages/" WHEELS},
                  {NULL, "/usr/local/lib/python3*/*-packages/" WHEELS},
                  {NULL, "/usr/lib/python3*/*-packages/" WHEELS},
                  {NULL, "/opt/venv/lib/python3*/site-packages/" WHEELS}};
    const char *asked = getenv("VLMD_CUBLASLT");
    if (asked && *asked) return try(user, asked);
    if (try(user, "libcublasLt.so.13") || try(user, "libcublasLt.so.12")) return true;
    for (size_t i = 0; i < ARRAY_LEN(places); i++) {
        char path[600];
        const char *home = places[i].under ? getenv(places[i].under) : "";
        if (!home || (places[i].under && !*home)) continue;
        int n = snprintf(path, sizeof path, "%s%s", home, places[i].pattern);
        if (n < (int)sizeof path && try_matching(path, try, user)) return true;
    }
    return false;
}
