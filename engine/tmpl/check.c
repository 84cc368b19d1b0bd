/* check.c - what can be told about a template before it runs: unknown filters and tests, break outside a
 * loop, which special names a macro uses. Runs once, at the end of the parse. */
#include "engine/tmpl/ast.h"

/* Calls fn for the direct children of x, in source order as Jinja's tree has it. */
static void each_child(node *x, void (*fn)(node *child, void *ctx), void *ctx) {
    nodes *lists[] = {&x->params, &x->defaults, &x->body, &x->orelse};
    if (x->a) fn(x->a, ctx);
    if (x->b) fn(x->b, ctx);
    if (x->c) fn(x->c, ctx);
    for (size_t k = 0; k < ARRAY_LEN(lists); k++)
        for (int i = 0; i < lists[k]->n; i++) fn(lists[k]->v[i], ctx);
    if (!x->args) return;
    for (int i = 0; i < x->args->pos.n; i++) fn(x->args->pos.v[i], ctx);
    for (int i = 0; i < x->args->kw.n; i++) fn(x->args->kw.v[i], ctx);
    if (x->args->star) fn(x->args->star, ctx);
    if (x->args->star2) fn(x->args->star2, ctx);
}

/* ---- which of caller, varargs, kwargs a macro's body reads before it would set them itself ---- */

typedef struct special {
    bool open[N_FIXED_SYMS], used[N_FIXED_SYMS];
} special;

static void close_names(node *target, special *s) {
    if (target->kind == N_NAME && target->sym < N_FIXED_SYMS) s->open[target->sym] = false;
    for (int i = 0; i < target->body.n; i++) close_names(target->body.v[i], s);
}

static void find_special(node *x, void *ctx) {
    special *s = ctx;
    if (x->kind == N_BLOCK) return;
    if (x->kind == N_NAME && x->sym < N_FIXED_SYMS && s->open[x->sym]) s->used[x->sym] = true;
    if (x->kind == N_SET || x->kind == N_SETBLOCK || x->kind == N_FOR) close_names(x->a, s);
    if (x->kind == N_MACRO || x->kind == N_CALLBLOCK || x->kind == N_WITH)
        for (int i = 0; i < x->params.n; i++) close_names(x->params.v[i], s);
    each_child(x, find_special, s);
}

/* ---- filters, tests, break ---- */

typedef struct checker {
    env *e;
    bool soft;    /* inside an if: an unknown filter only matters when it runs */
    bool in_loop; /* break has a loop to leave */
    bool for_any; /* inside any for: its loop variable must not be assigned */
} checker;

static void check_node(node *x, void *ctx);

static void check_list(checker *c, nodes *l) {
    for (int i = 0; i < l->n; i++) check_node(l->v[i], c);
}

static void check_target(checker *c, const node *x) {
    if (x->kind == N_NAME && x->sym == SYM_LOOP && c->for_any) {
        c->e->line = x->line;
        fail(c->e, "cannot assign to the special variable 'loop' inside a loop");
    }
    for (int i = 0; i < x->body.n; i++) check_target(c, x->body.v[i]);
}

static void check_for(checker *c, node *x) {
    checker in = *c;
    in.soft = false;
    in.for_any = true;
    check_target(&in, x->a);
    check_node(x->b, c);
    if (x->c) check_node(x->c, &in);
    in.in_loop = true;
    check_list(&in, &x->body);
    in.in_loop = c->in_loop && !x->flag;
    check_list(&in, &x->orelse);
}

static void check_macro(checker *c, node *x) {
    special s = {.open = {false, true, true, true}};
    int explicit_caller = -1;
    for (int i = 0; i < x->params.n; i++) {
        int sym = x->params.v[i]->sym;
        if (sym == SYM_CALLER)
            explicit_caller = i;
        else if (sym < N_FIXED_SYMS)
            s.open[sym] = false;
    }
    for (int i = 0; i < x->body.n; i++) find_special(x->body.v[i], &s);
    if (explicit_caller >= 0 && s.used[SYM_CALLER] && explicit_caller < x->params.n - x->defaults.n) {
        c->e->line = x->line;
        fail(c->e, "the parameter 'caller' of a macro must have a default");
    }
    x->uses_caller = s.used[SYM_CALLER];
    x->uses_varargs = s.used[SYM_VARARGS];
    x->uses_kwargs = s.used[SYM_KWARGS];
    checker in = {.e = c->e, .for_any = c->for_any};
    check_list(&in, &x->defaults);
    check_list(&in, &x->body);
    if (x->a) check_node(x->a, c);
}

static void check_node(node *x, void *ctx) {
    checker *c = ctx, in = *c;
    c->e->line = x->line;
    switch (x->kind) {
    case N_FILTER:
        if (!c->soft && !find_filter(x->name))
            fail(c->e, "no filter named '%.*s'", (int)x->name->n, x->name->p);
        break;
    case N_TEST:
        if (!c->soft && !find_test(x->name)) fail(c->e, "no test named '%.*s'", (int)x->name->n, x->name->p);
        break;
    case N_BREAK:
    case N_CONTINUE:
        if (!c->in_loop) fail(c->e, "break or continue outside of a loop");
        return;
    case N_IF:
    case N_COND: in.soft = true; break;
    case N_FOR: check_for(c, x); return;
    case N_MACRO:
    case N_CALLBLOCK: check_macro(c, x); return;
    case N_GENERATION: in.in_loop = in.soft = false; break;
    case N_BLOCK: in = (checker){.e = c->e}; break;
    case N_SET:
    case N_SETBLOCK: check_target(c, x->a); break;
    case N_WITH:
    case N_FILTERBLOCK: in.soft = false; break;
    default: break;
    }
    each_child(x, check_node, &in);
}

void check_template(env *e, nodes *body) {
    checker c = {.e = e};
    check_list(&c, body);
    e->line = 0;
}
