/* dual.h - dual encoders: a text and a picture as vectors of one space, and the rule that judges a pair.
 *
 * A picture's vector is what its encode gives (model.h): one row. Only the engine's thread runs the forward passes; the
 * rule may be used by any thread. Source: Radford et al. 2021 (CLIP), Zhai et al. 2023 (SigLIP), transformers' modeling
 * files of both. Tested by tests/engine/model/test_dual.c. */
#ifndef VLMD_ENGINE_MODEL_DUAL_H
#define VLMD_ENGINE_MODEL_DUAL_H

#include "engine/model/model.h"
#include "engine/model/sheet.h"

typedef struct
    dual_rule { /* logit = scale * cosine + bias; probability: sigmoid, or softmax over the labels */
    double scale, bias;
    bool sigmoid;
} dual_rule;

typedef struct dual_part {
    weight *w[DUAL_COUNT]; /* NULL: the mechanism is off, or it is in the rule */
    dual_rule rule;
} dual_part;

const dual_rule *dual_rule_of(const model *m);

/* Vectors f32 [n_out, width] of the rows out_rows, in c->scratch: whole texts, each a sequence of the step, keys and values
 * within it; pages and slots of the step are not used. Row-exact. In dry mode it measures. */
tensor dual_text(ctx *c, const model *m, const step *s);

#endif
