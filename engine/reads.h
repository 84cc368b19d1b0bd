/* reads.h - text that is read together with a picture when it is encoded (model_spec.reads): its ids go with every picture of
 * the prompt.
 *
 * Threads: HTTP threads; the kit is read-only. Owner: the prompt's pictures, each of a copy. Source: transformers'
 * InstructBlipProcessor. Tested by tests/engine/test_prompt.c. */
#ifndef VLMD_ENGINE_READS_H
#define VLMD_ENGINE_READS_H

#include "engine/prompt.h"

/* The rendered chat, before anything stands in it for pictures, for the pictures of p; nothing where the model reads none.
 * Errors: ST_INVALID with both numbers for a text that is too long, with param; ST_NO_MEMORY. */
bool reads_rendered(const promptkit *k, const tmpl_out *text, prompt *p, status *st);

#endif
