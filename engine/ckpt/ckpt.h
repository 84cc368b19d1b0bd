/* ckpt.h - a checkpoint folder: its JSON files, its weights in one safetensors file or in shards with an index.
 *
 * Read-only after ckpt_open; any thread may look. Owns the mappings: the tensors' bytes live as long as the ckpt.
 * Tested by tests/engine/ckpt/test_safetensors.c. */
#ifndef VLMD_ENGINE_CKPT_CKPT_H
#define VLMD_ENGINE_CKPT_CKPT_H

#include <jansson.h>

#include "engine/ckpt/safetensors.h"

typedef struct ckpt ckpt;

/* model.safetensors, else the shards that model.safetensors.index.json names (plain file names of this folder only).
 * Errors name the file. */
ckpt *ckpt_open(const char *dir, status *st);
void ckpt_close(ckpt *c); /* NULL is fine */

size_t ckpt_count(const ckpt *c);
const st_tensor *ckpt_at(const ckpt *c, size_t i); /* sorted by name */
const char *ckpt_file_of(const ckpt *c, size_t i); /* the file that holds tensor i, for messages */
/* The place of a tensor in the sorted list, or SIZE_MAX. */
size_t ckpt_find(const ckpt *c, const char *name);
int ckpt_n_files(const ckpt *c);
void ckpt_forget(const ckpt *c); /* see st_forget */

/* Reads dir/name as JSON. A file that is not there: NULL and st stays clean when optional, else ST_NOT_FOUND. Errors
 * name file, line and column. The caller decrefs. */
json_t *ckpt_json(const char *dir, const char *name, bool optional, status *st);

#endif
