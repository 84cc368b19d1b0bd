/* reads.h - text that is read together with a picture when it is encoded (model_spec.reads): its ids go with every picture of
 * the prompt.
 *
 * Threads: HTTP threads; the kit is read-only. Owner: the prompt's pictures, each of a copy. Source: transformers'
 * InstructBlipProcessor, BlipForQuestionAnswering.generate. Tested by tests/engine/test_prompt.c. */
#ifndef VLMD_ENGINE_READS_H
#define VLMD_ENGINE_READS_H

#include "engine/prompt.h"

/* The rendered chat, before anything stands in it for pictures, for the pictures of p; nothing where the model reads none.
 * Errors: ST_INVALID with both numbers for a text that is too long, with param; ST_NO_MEMORY. */
bool reads_rendered(const promptkit *k, const tmpl_out *text, prompt *p, status *st);
/* READS_QUESTION: a chat that is one picture and one question, as the prompt. Errors: any other chat is ST_INVALID and says
 * what was expected and what was found, with param; those of pictures; those above. */
bool reads_question(const promptkit *k, const engine_chat *c, prompt *p, status *st);

#endif
