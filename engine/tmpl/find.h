/* find.h - where a checkpoint keeps its chat template, and the variables the reference always sets.
 * Any thread. Tested by tests/engine/tmpl/test_find.c. */
#ifndef VLMD_ENGINE_TMPL_FIND_H
#define VLMD_ENGINE_TMPL_FIND_H

#include <jansson.h>

#include "kernels/base.h"

/* The text of the checkpoint's template (mem_free it), *n its length. name: which of several ("tool_use" when
 * tools are given), NULL for "default"; a name that is not there falls back to "default". Order, as the
 * reference has it: chat_template.jinja (others in additional_chat_templates/NAME.jinja), tokenizer_config.json (a string,
 * or a list of {name, template}), chat_template.json; in a folder with the settings of a processor:
 * processor_config.json, chat_template.json, chat_template.jinja, tokenizer_config.json. Errors: ST_NOT_FOUND when the
 * folder has none; ST_INVALID, ST_IO for a broken file. */
char *tmpl_find_source(const char *dir, const char *name, size_t *n, status *st);

/* The same from one file: JSON if its name ends in .json, else the template itself. */
char *tmpl_file_source(const char *path, const char *name, size_t *n, status *st);

/* Brings the variables of a render into the form in which the reference (apply_chat_template) passes them:
 * tools, documents and add_generation_prompt always exist; a message's reasoning is there under each of its
 * names. */
bool tmpl_complete_vars(json_t *vars, status *st);

#endif
