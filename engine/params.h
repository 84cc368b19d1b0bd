/* params.h - a request's parameters: what they are when it sets none, and which values make sense.
 *
 * Threads: any; pure. Covering tests: tests/engine/test_params.c, tests/e2e. */
#ifndef VLMD_ENGINE_PARAMS_H
#define VLMD_ENGINE_PARAMS_H

#include "engine/engine.h"
#include "engine/model/spec.h"

/* generation_config.json's settings over the API's defaults (vLLM's protocol). */
void params_default(const model_spec *spec, engine_params *out);
/* n_prompt < 0: not known. Errors: ST_INVALID with OpenAI's name of the field in param. Ranges are vLLM's. */
bool params_check(const engine_params *p, const model_spec *spec, int n_prompt, int max_model_len,
                  status *st);

#endif
