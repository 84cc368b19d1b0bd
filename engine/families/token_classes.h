/* token_classes.h - what a tokenizer's class brings besides a checkpoint's files: names of tokens, a
 * pipeline of its own.
 *
 * Thread: any; constant. Source: transformers' tokenizer classes (__init__ defaults). Tested by
 * tests/engine/test_prompt.c and tests/engine/tok/test_classes.c. */
#ifndef VLMD_ENGINE_FAMILIES_TOKEN_CLASSES_H
#define VLMD_ENGINE_FAMILIES_TOKEN_CLASSES_H

#include <jansson.h>
#include <stdbool.h>

typedef struct class_token {
    const char *class, *name, *token;
} class_token;

const class_token *class_token_at(int i); /* NULL after the last */
/* Whether c speaks of this tokenizer_class, with or without its "Fast". */
bool class_token_of(const class_token *c, const char *tokenizer_class);

/* Of a class whose file says nothing else: padding goes in front. */
bool token_class_pads_left(const char *tokenizer_class);

/* The class that token_class_apply would go by; NULL: tokenizer.json stays as it is. */
const char *token_class_builds(const json_t *tokenizer, const json_t *config, const json_t *tokenizer_config);

/* Of a class whose named tokens are plain special ones, whatever the files say of them. */
bool token_class_makes_plain(const char *tokenizer_class);

/* Some classes of the reference take only vocabulary, merges, added tokens and post-processor from tokenizer.json and
 * build the rest themselves (LlamaTokenizer's __init__; AutoTokenizer decides by model_type whether the class is
 * asked at all). Changes a tokenizer.json that was read to what the reference makes of it. config: config.json,
 * tokenizer_config: tokenizer_config.json; either may be NULL. False: no memory. */
bool token_class_apply(json_t *tokenizer, const json_t *config, const json_t *tokenizer_config);

#endif
