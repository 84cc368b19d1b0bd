/* bind.h - from a checkpoint's tensor names to a model's fields, strictly: a field is filled exactly once, a tensor is
 * used or listed as ignored, and a message says which tensor, what was expected, what was found.
 *
 * One thread. Does not own the ckpt. Tested by tests/engine/model/test_bad.c. */
#ifndef VLMD_ENGINE_CKPT_BIND_H
#define VLMD_ENGINE_CKPT_BIND_H

#include "engine/ckpt/ckpt.h"

typedef struct bind bind;

typedef enum bind_state { BIND_FREE, BIND_USED, BIND_IGNORED } bind_state;

bind *bind_new(const ckpt *c, status *st);
void bind_free(bind *b);

/* Where a name may stand: NULL-terminated lists of prefixes, "" for none. Looks for prefix + name under each; found
 * under none gives SIZE_MAX without an error, under two is an error. */
size_t bind_find(const bind *b, const char *const *prefixes, const char *name, status *st);
/* Takes the tensor that bind_find finds: missing, wrong shape, or a dtype that is not F32, F16 or BF16 is an error.
 * *out views its bytes; dimensions beyond 4 are never asked for. */
bool bind_take(bind *b, const char *const *prefixes, const char *name, int nd, const int64_t *d, tensor *out,
               status *st);
/* The same where name ends in "#k/n": part k of n equal parts of a tensor whose first dimension is n * d[0]; all parts
 * have to be taken. */
/* Lists tensor i as ignored. why must live as long as b. */
void bind_ignore(bind *b, size_t i, const char *why);
/* Lists every free tensor as ignored whose whole name matches glob ('*': any run of characters). */
void bind_ignore_like(bind *b, const char *glob, const char *why);
/* Every tensor used or ignored? The error names the first of those left over, and how many there are. */
bool bind_finish(const bind *b, status *st);

bind_state bind_state_of(const bind *b, size_t i);
const char *bind_why(const bind *b, size_t i); /* of an ignored tensor */

bool glob_match(const char *glob, const char *s);

#endif
