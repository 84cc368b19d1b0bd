/* tokfiles.h - what a checkpoint says of its tokenizer in several files, as one tokenizer.json.
 *
 * The loading thread; the caller owns what is returned. Source: transformers' PreTrainedTokenizerBase._from_pretrained and
 * TokenizersBackend.__init__ (5.23). Tested by tests/engine/tok/test_tokfiles.c. */
#ifndef VLMD_ENGINE_TOKFILES_H
#define VLMD_ENGINE_TOKFILES_H

#include <jansson.h>

#include "kernels/base.h"

/* An object of dir; *out NULL: no such file. any_size: integers may pass 64 bits (model_max_length is often 10^30). */
bool tokfiles_object(const char *dir, const char *name, bool any_size, json_t **out, status *st);

/* tokenizer.json; where there is none, a model without any steps made of vocab.json and merges.txt, or of vocab.txt: *bare
 * says so, and a class has to bring the steps. NULL with st set: no tokenizer, or a broken one. */
json_t *tokfiles_read(const char *dir, bool *bare, status *st);

/* tokenizer_config.json with what special_tokens_map.json adds to it where that still counts; an empty object without
 * either. NULL with st set. */
json_t *tokfiles_config(const char *dir, status *st);

/* Gives tokenizer the tokens that only the other files name, and to all of them the settings that those files give.
 * config: of tokfiles_config. class: what builds the tokenizer anew from its vocabulary, with token names of its own; NULL: none. */
bool tokfiles_add_tokens(json_t *tokenizer, const char *dir, const json_t *config, const char *class,
                         status *st);

/* The BOS and EOS that the config asks for around a text, for a tokenizer without a file that says so. False: no memory. */
bool tokfiles_surround(json_t *tokenizer, const json_t *config, const char *class);

#endif
