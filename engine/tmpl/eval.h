/* eval.h - the running state of one render: frames of variables, loops, macros. Private to engine/tmpl. */
#ifndef VLMD_ENGINE_TMPL_EVAL_H
#define VLMD_ENGINE_TMPL_EVAL_H

#include "engine/tmpl/ast.h"

typedef struct slot {
    int sym;
    val v;
} slot;
typedef struct frame { /* the names that one block sets; lookups go outwards, then to the context */
    struct frame *parent;
    slot *slots;
    int n, cap;
    bool captured; /* a macro may still look into it */
} frame;

typedef struct render {
    const tmpl *t;
    val *context; /* by symbol; V_MISSING: not given */
    frame *root;
} render;

typedef struct macro {
    const node *def; /* N_MACRO or N_CALLBLOCK */
    frame *scope;
} macro;

typedef struct loop {
    iter *it;
    val over;
    bool started, known_len, peeked, at_end;
    size_t index0, len;
    val after, current, before;
    list *changed;
    int depth0;
    const node *recursive; /* NULL when loop() is not allowed */
    frame *scope;
} loop;

typedef enum flow { FLOW_ON, FLOW_BREAK, FLOW_CONTINUE } flow;

val eval(env *e, frame *f, const node *x);
flow exec(env *e, frame *f, const nodes *body, sb *out);
frame *frame_new(env *e, frame *parent);
void frame_set(env *e, frame *f, int sym, val v);
void assign(env *e, frame *f, const node *target, val v);
void eval_args(env *e, frame *f, const call_args *c, args *out);
void args_add_kw(env *e, args *a, str *name, val v);
val apply_filters(env *e, frame *f, const node *x, val body); /* the filter chain x, fed with body */

val macro_value(env *e, frame *f, const node *def);
val call_macro(env *e, const macro *m, const args *a);
val call_loop(env *e, loop *l, const args *a);   /* loop(children) of a recursive loop */
val loop_attr(env *e, loop *l, const str *name); /* V_MISSING: no such attribute */
void exec_for(env *e, frame *f, const node *x, sb *out);

#endif
