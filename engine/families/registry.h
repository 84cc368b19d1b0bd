/* registry.h - from a checkpoint folder's config files to a spec and the sheet of its tensor names.
 *
 * One thread. A family is one row of registry.c. Tested by tests/engine/model. */
#ifndef VLMD_ENGINE_FAMILIES_REGISTRY_H
#define VLMD_ENGINE_FAMILIES_REGISTRY_H

#include "engine/model/sheet.h"

/* Reads config.json (or, where there is none, another library's), generation_config.json and, for a model with a tower, processor_config.json or
 * preprocessor_config.json. Errors name file and key, or list the families that are known. */
bool family_read(const char *dir, model_spec *out, const name_sheet **sheet, status *st);

/* The model_type of a folder whose config is of another library's format; NULL: config.json says it. */
const char *family_format(const char *dir);
/* The registry's rows in order; NULL after the last. */
const char *family_name(int i);
/* The registry as a table in Markdown, a row each: what docs/families.md shows. */
bool family_table(buf *out);

#endif
