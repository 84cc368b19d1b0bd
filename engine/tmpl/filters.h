/* filters.h - the filter functions, between their two files and the table. Private to engine/tmpl. */
#ifndef VLMD_ENGINE_TMPL_FILTERS_H
#define VLMD_ENGINE_TMPL_FILTERS_H

#include "engine/tmpl/value.h"

typedef struct filter {
    const char *name;
    func_fn fn; /* self: the filtered value */
} filter;

/* Sequence filters (filters_seq.c); ended by a NULL name. */
extern const filter SEQ_FILTERS[];
list *attr_parts(env *e, val attribute); /* "a.b.0" -> its parts */
val attr_walk(env *e, val item, const list *parts, val dflt);

#endif
