/* forms.c - which forms of message content a template takes. Placeholder of the analysis. */
#include "engine/tmpl/ast.h"

tmpl_forms find_forms(env *e, const tmpl *t) {
    (void)e;
    (void)t;
    return (tmpl_forms){true, false};
}
