/* forms.c - which forms of message content a template takes, read off its tree: names are followed from
 * `messages` to a message to its content, through set, loops, filters, namespaces and macro parameters,
 * without regard to order, until nothing new is learnt. Looping over content (or content[0].text) means
 * parts; printing, joining or testing it as a string means string. Runs once, after the parse. */
#include <string.h>

#include "engine/tmpl/ast.h"

enum { IS_MESSAGES = 1, IS_MESSAGE = 2, IS_CONTENT = 4 };

typedef struct forms {
    env *e;
    const tmpl *t;
    uint8_t *sym;       /* what a name may hold */
    const node **macro; /* the macro of a name, or NULL */
    dict *attr;         /* what a namespace attribute of that name may hold */
    bool changed;
    tmpl_forms found;
} forms;

static int kind_of(forms *f, const node *x);

static bool is_str(const node *x, const char *z) {
    return x->kind == N_CONST && x->v.t == V_STR && str_is(x->v.s, z);
}

static bool one_of(const str *s, const char *const *names) {
    for (; *names; names++)
        if (str_is(s, *names)) return true;
    return false;
}

static void learn_sym(forms *f, int sym, int kind) {
    if (!kind || (f->sym[sym] | kind) == f->sym[sym]) return;
    f->sym[sym] |= (uint8_t)kind;
    f->changed = true;
}

static int attr_kind(forms *f, str *name) {
    val *v = dict_find(f->e, f->attr, str_val(name));
    return v ? (int)v->i : 0;
}

static void learn_attr(forms *f, str *name, int kind) {
    int known = attr_kind(f, name);
    if (!kind || (known | kind) == known) return;
    dict_put(f->e, f->attr, str_val(name), int_val(known | kind));
    f->changed = true;
}

static int kind_of_call(forms *f, const node *x) {
    const node *fn = x->a;
    if (fn->kind == N_ATTR && str_is(fn->name, "get") && x->args->pos.n &&
        is_str(x->args->pos.v[0], "content"))
        return kind_of(f, fn->a) & IS_MESSAGE ? IS_CONTENT : 0;
    if (fn->kind != N_NAME) return 0;
    if (str_is(f->t->syms[fn->sym], "namespace"))
        for (int i = 0; i < x->args->kw.n; i++)
            learn_attr(f, x->args->kw_name[i], kind_of(f, x->args->kw.v[i]));
    const node *m = f->macro[fn->sym];
    if (!m) return 0;
    for (int i = 0; i < x->args->pos.n && i < m->params.n; i++)
        learn_sym(f, m->params.v[i]->sym, kind_of(f, x->args->pos.v[i]));
    for (int i = 0; i < x->args->kw.n; i++)
        for (int k = 0; k < m->params.n; k++)
            if (str_eq(x->args->kw_name[i], f->t->syms[m->params.v[k]->sym]))
                learn_sym(f, m->params.v[k]->sym, kind_of(f, x->args->kw.v[i]));
    return 0;
}

static int kind_of_item(forms *f, const node *x) {
    int k = kind_of(f, x->a), out = 0;
    bool slice = x->kind == N_ITEM && x->b->kind == N_SLICE;
    if (slice) return k;
    bool content = x->kind == N_ATTR ? str_is(x->name, "content") : is_str(x->b, "content");
    if (k & IS_MESSAGES && x->kind == N_ITEM && !(x->b->kind == N_CONST && x->b->v.t == V_STR))
        out |= IS_MESSAGE;
    if (k & IS_MESSAGE && content) out |= IS_CONTENT;
    if (x->kind == N_ATTR && x->a->kind == N_NAME) out |= attr_kind(f, x->name);
    return out;
}

static int kind_of(forms *f, const node *x) {
    static const char *const keep[] = {"list", "selectattr", "rejectattr", "select", "reject", "reverse",
                                       "sort", "default",    "d",          "trim",   "string", NULL};
    int k = 0;
    if (!x) return 0;
    switch (x->kind) {
    case N_NAME: return f->sym[x->sym] | (str_is(f->t->syms[x->sym], "messages") ? IS_MESSAGES : 0);
    case N_ATTR:
    case N_ITEM: return kind_of_item(f, x);
    case N_COND: return kind_of(f, x->a) | kind_of(f, x->c);
    case N_AND:
    case N_OR: return kind_of(f, x->a) | kind_of(f, x->b);
    case N_BINARY: return x->op == '+' ? (kind_of(f, x->a) | kind_of(f, x->b)) & IS_MESSAGES : 0;
    case N_LIST:
        for (int i = 0; i < x->body.n; i++) k |= kind_of(f, x->body.v[i]);
        return k & IS_MESSAGE ? IS_MESSAGES : 0;
    case N_FILTER:
        k = x->a ? kind_of(f, x->a) : 0;
        if (str_is(x->name, "first") || str_is(x->name, "last")) return k & IS_MESSAGES ? IS_MESSAGE : 0;
        if (str_is(x->name, "map")) return 0;
        return one_of(x->name, keep) ? k : 0;
    case N_CALL: return kind_of_call(f, x);
    default: return 0;
    }
}

static bool is_content(forms *f, const node *x) {
    return x && kind_of(f, x) & IS_CONTENT;
}

static void learn_target(forms *f, const node *target, int kind) {
    if (target->kind == N_NAME)
        learn_sym(f, target->sym, kind);
    else if (target->kind == N_NSREF)
        learn_attr(f, target->name, kind);
}

/* What one node says about how content is used. */
static void judge(forms *f, const node *x) {
    static const char *const text_filters[] = {"trim",   "upper",  "lower", "replace",   "string", "indent",
                                               "escape", "length", "title", "wordcount", "safe",   NULL};
    static const char *const list_filters[] = {"selectattr", "rejectattr", "map", "select", "reject", NULL};
    int k;
    switch (x->kind) {
    case N_PRINT:
        if (is_content(f, x->a)) f->found.takes_string = true;
        break;
    case N_BINARY:
        if (is_content(f, x->a) || is_content(f, x->b)) f->found.takes_string = true;
        break;
    case N_CONCAT:
        for (int i = 0; i < x->body.n; i++)
            if (is_content(f, x->body.v[i])) f->found.takes_string = true;
        break;
    case N_TEST:
        if (str_is(x->name, "string") && is_content(f, x->a)) f->found.takes_string = true;
        break;
    case N_FILTER:
        if (!is_content(f, x->a)) break;
        if (one_of(x->name, text_filters)) f->found.takes_string |= !str_is(x->name, "length");
        if (one_of(x->name, list_filters)) f->found.takes_parts = true;
        break;
    case N_CALL:
        kind_of_call(f, x);
        if (x->a->kind == N_ATTR && is_content(f, x->a->a) && str_method(x->a->name))
            f->found.takes_string = true;
        break;
    case N_ATTR:
    case N_ITEM: /* content[0].text */
        if (x->a->kind == N_ITEM && x->a->b->kind != N_SLICE && is_content(f, x->a->a))
            f->found.takes_parts = true;
        break;
    case N_FOR:
        k = kind_of(f, x->b);
        if (k & IS_MESSAGES) learn_target(f, x->a, IS_MESSAGE);
        if (k & IS_CONTENT) f->found.takes_parts = true;
        break;
    case N_SET: learn_target(f, x->a, kind_of(f, x->b)); break;
    case N_WITH:
        for (int i = 0; i < x->params.n; i++) learn_target(f, x->params.v[i], kind_of(f, x->defaults.v[i]));
        break;
    case N_MACRO: f->macro[x->sym] = x; break;
    default: break;
    }
}

static void walk(forms *f, const node *x);
static void walk_list(forms *f, const nodes *l) {
    for (int i = 0; i < l->n; i++) walk(f, l->v[i]);
}

static void walk(forms *f, const node *x) {
    if (!x) return;
    judge(f, x);
    walk(f, x->a);
    walk(f, x->b);
    walk(f, x->c);
    walk_list(f, &x->params);
    walk_list(f, &x->defaults);
    walk_list(f, &x->body);
    walk_list(f, &x->orelse);
    if (!x->args) return;
    walk_list(f, &x->args->pos);
    walk_list(f, &x->args->kw);
    walk(f, x->args->star);
    walk(f, x->args->star2);
}

#define MAX_PASSES 8

tmpl_forms find_forms(env *e, const tmpl *t) {
    forms f = {.e = e, .t = t, .attr = dict_new(e)};
    f.sym = env_array(e, (size_t)t->n_syms, sizeof *f.sym);
    memset(f.sym, 0, (size_t)t->n_syms * sizeof *f.sym);
    f.macro = env_array(e, (size_t)t->n_syms, sizeof *f.macro);
    memset(f.macro, 0, (size_t)t->n_syms * sizeof *f.macro);
    for (int pass = 0; pass < MAX_PASSES; pass++) {
        f.changed = false;
        walk_list(&f, &t->body);
        if (!f.changed && pass > 0) break;
    }
    /* Content that no rule saw: a string is what every template was first written for. */
    if (!f.found.takes_parts) f.found.takes_string = true;
    return f.found;
}
