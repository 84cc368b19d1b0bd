/* wanted.h - every tensor that a spec asks of a checkpoint: its names, its shape, what it is. One list, which a load binds
 * and from which a checkpoint can be made.
 *
 * Any thread; owns nothing. A part (a list of layers, a table of slots) stands here once, in wanted.c; where its weights
 * go in load.c. Tested by tests/engine/model/test_wanted.c. */
#ifndef VLMD_ENGINE_MODEL_WANTED_H
#define VLMD_ENGINE_MODEL_WANTED_H

#include "engine/model/sheet.h"

typedef enum wanted_part {               /* what `at` counts, what `slot` is */
                           WANTED_ALONE, /* 0; a slot */
                           WANTED_TOWER, /* a layer; a layer_slot */
                           WANTED_JOIN,  /* a layer; a layer_slot */
                           WANTED_TEXT,  /* a layer; a layer_slot */
                           WANTED_DEEP,  /* which of deep.n; a slot, from S_FIRST_JOIN on */
                           WANTED_DUAL   /* 0; a dual_slot */
} wanted_part;

typedef struct wanted {
    wanted_part part;
    int at, slot;
    const stack_spec *stack;    /* of a layer, within the spec; else NULL */
    const char *const *in;      /* prefixes under one of which it stands, NULL-terminated */
    char name[128];             /* behind them; "name#k/n" as bind_take has it */
    const char *const *else_in; /* where there is none under these names, it may be this one; NULL: no */
    const char *else_name;
    bool transposed; /* it stands there as [in, out] */
    int nd;
    int64_t d[TENSOR_MAX_DIMS]; /* as it stands there */
    unsigned use;               /* WEIGHT_LINEAR, ...: of the weight that is made of it */
} wanted;

/* Gives each to f, part by part; false: at once, when f returned it. sheet: the family's, of this spec. */
typedef bool wanted_fn(void *arg, const wanted *w, status *st);
bool wanted_each(const model_spec *s, const name_sheet *sheet, wanted_fn *f, void *arg, status *st);

#endif
