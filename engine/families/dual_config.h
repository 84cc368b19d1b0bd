/* dual_config.h - what the dual encoders share: the text tower's config, a vision tower without features, tensor names.
 *
 * Thread: the loader's. Tested by tests/engine/model/test_dual.c. */
#ifndef VLMD_ENGINE_FAMILIES_DUAL_CONFIG_H
#define VLMD_ENGINE_FAMILIES_DUAL_CONFIG_H

#include "engine/families/family.h"

typedef struct dual_text_defaults {
    int vocab, max_pos;
    stack_defaults stack;
    bool causal;
} dual_text_defaults;
/* out->text: embeddings with learned positions, pre-norm layers with biases. Says nothing of unknown keys yet. */
bool dual_config_text(config *c, const dual_text_defaults *d, model_spec *out);
/* out->tower, all layers and no features. c left out: the defaults of the class that def names. */
bool dual_config_tower(config *c, const char *def, model_spec *out);
/* The rest of out, and a warning for what nobody asked c for. */
void dual_config_done(config *c, model_spec *out);

extern const char *const NAMES_DUAL_TOWER[S_FIRST_TEXT];
extern const char *const DUAL_AT[], *const DUAL_TEXT_AT[], *const DUAL_TOWER_AT[];
extern const ignore_rule DUAL_IGNORED[];

/* SiglipModel and what it shares with Siglip2Model (siglip.c). */
bool siglip_read_as(config *c, const char *vision, model_spec *out);
extern const name_sheet SHEET_SIGLIP;

#endif
