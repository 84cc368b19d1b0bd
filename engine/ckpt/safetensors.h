/* safetensors.h - one mapped .safetensors file: its header checked to the last byte, its tensors as views.
 *
 * Read-only after st_open; any thread may look. The views' bytes live as long as the st_file.
 * Source: the safetensors format (u64 header length, JSON header of at most 100 MB, data without holes).
 * Tested by tests/engine/ckpt/test_safetensors.c, fuzzed by tests/fuzz/fuzz_safetensors.c. */
#ifndef VLMD_ENGINE_CKPT_SAFETENSORS_H
#define VLMD_ENGINE_CKPT_SAFETENSORS_H

#include "kernels/tensor.h"

enum { ST_TENSOR_MAX_DIMS = 8 };
#define ST_MAX_HEADER_BYTES 100000000u

typedef struct st_dtype {
    const char *name;
    int bits;
    bool computes; /* one of the kernels' dtypes: as */
    dtype as;
} st_dtype;

typedef struct st_tensor {
    const char *name; /* valid UTF-8, owned by the file */
    const st_dtype *dt;
    int nd;
    int64_t d[ST_TENSOR_MAX_DIMS];
    const uint8_t *data;
    size_t bytes;
} st_tensor;

typedef struct st_file st_file;

/* Maps the file. Errors: ST_NOT_FOUND, ST_IO, ST_INVALID (what is wrong, which tensor). */
st_file *st_open(const char *path, status *st);
/* The same over bytes that the caller keeps alive (tests, fuzzing). */
st_file *st_open_bytes(const void *data, size_t n, status *st);
void st_close(st_file *f); /* NULL is fine */
/* The bytes are not needed for now: a mapped file's leave this process (they can still be read). */
void st_forget(const st_file *f);

size_t st_count(const st_file *f);
const st_tensor *st_at(const st_file *f, size_t i); /* sorted by name */
const st_tensor *st_find(const st_file *f, const char *name);

/* "bf16 [320, 192]" into out[n]; returns out. */
char *st_describe(const st_tensor *t, char *out, size_t n);

#endif
