/* tmpl.h - chat templates: a Jinja engine for the templates that checkpoints bring.
 *
 * A tmpl is read-only after tmpl_parse; any number of threads may render one. Rendering is bounded in depth,
 * steps and output bytes, since templates and messages both come from strangers.
 * Source: Jinja 3.1 as transformers' apply_chat_template sets it up (trim_blocks, lstrip_blocks, loop
 * controls, the generation tag, tojson without HTML escapes, raise_exception, strftime_now). */
#ifndef VLMD_ENGINE_TMPL_H
#define VLMD_ENGINE_TMPL_H

#include <jansson.h>

#include "kernels/base.h"

typedef struct tmpl tmpl;

/* Errors: ST_INVALID with the line and what was expected. src is copied. */
tmpl *tmpl_parse(const char *src, size_t n, status *st);
void tmpl_free(tmpl *t);

/* Which forms of message content the template can render, judged from its syntax tree: does it loop over or
 * index the content as a list of parts, does it use it as a string. */
typedef struct tmpl_forms {
    bool takes_string, takes_parts;
} tmpl_forms;
tmpl_forms tmpl_content_forms(const tmpl *t);

/* A string in user_vars of the form { TMPL_MIXED: [ "user text", {"trusted": "<image>\n"}, ... ] } is one
 * string value whose parts differ in origin (for templates that take content as a string only). */
#define TMPL_MIXED "\x01mixed"
/* Whether a key anywhere in v begins with \x01: such JSON must be refused when it comes from a client, since
 * its "trusted" parts would be trusted. v comes from a parser that bounds depth (jansson: 2048). */
bool tmpl_json_has_mixed(const json_t *v);

typedef struct tmpl_out {
    buf text;
    struct tmpl_user_span {
        size_t begin, end; /* bytes of text that came from user_vars; sorted, adjacent ones merged */
    } * user;
    size_t n_user, cap_user;
} tmpl_out; /* zero-initialise */
void tmpl_out_fini(tmpl_out *o);

typedef struct tmpl_limits {
    size_t max_output_bytes, max_steps;
    int max_depth;
} tmpl_limits;
extern const tmpl_limits TMPL_LIMITS_DEFAULT; /* 64 MiB, 50 million, 100 */

/* Renders with two sets of variables (objects; either may be NULL; a name in both: user_vars wins). Every
 * string that comes from user_vars carries its origin through filters, slices and joins into out->user;
 * strings of trusted_vars and of the template itself are trusted. Object keys of user_vars are user text too.
 * Errors: ST_INVALID with the template's own raise_exception message, an undefined use, a bound that was hit.
 */
bool tmpl_render(const tmpl *t, const json_t *trusted_vars, const json_t *user_vars,
                 const tmpl_limits *limits, tmpl_out *out, status *st);

#endif
