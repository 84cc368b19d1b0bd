/* token_classes.h - the names that a tokenizer's class gives to tokens when a checkpoint's files do not.
 *
 * Thread: any; constant. Source: transformers' tokenizer classes (__init__ defaults). Tested by
 * tests/engine/test_prompt.c. */
#ifndef VLMD_ENGINE_FAMILIES_TOKEN_CLASSES_H
#define VLMD_ENGINE_FAMILIES_TOKEN_CLASSES_H

#include <stdbool.h>

typedef struct class_token {
    const char *class, *name, *token;
} class_token;

const class_token *class_token_at(int i); /* NULL after the last */
/* Whether c speaks of this tokenizer_class, with or without its "Fast". */
bool class_token_of(const class_token *c, const char *tokenizer_class);

#endif
