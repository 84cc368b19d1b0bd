/* eval.c - expressions. See eval.h. One thread; memory is the env's; failures leave through env_raise.
 * Source: Jinja 3.1's compiler, whose generated Python this does by walking the tree. */
#include <string.h>

#include "engine/tmpl/eval.h"

/* ---- variables ---- */

frame *frame_new(env *e, frame *parent) {
    frame *f = env_alloc(e, sizeof *f);
    f->parent = parent;
    return f;
}

void frame_set(env *e, frame *f, int sym, val v) {
    for (int i = 0; i < f->n; i++)
        if (f->slots[i].sym == sym) {
            f->slots[i].v = v;
            return;
        }
    if (f->n == f->cap) {
        int cap = f->cap ? 2 * f->cap : 4;
        slot *s = env_array(e, (size_t)cap, sizeof *s);
        if (f->n) memcpy(s, f->slots, (size_t)f->n * sizeof *s);
        f->slots = s;
        f->cap = cap;
    }
    f->slots[f->n++] = (slot){sym, v};
}

static val lookup(env *e, const frame *f, int sym) {
    for (; f; f = f->parent) {
        env_step(e, 1);
        for (int i = 0; i < f->n; i++)
            if (f->slots[i].sym == sym) return f->slots[i].v;
    }
    val v = e->run->context[sym];
    if (v.t != V_MISSING) return v;
    const str *name = e->run->t->syms[sym];
    return undef_val(e, "'%.*s' is undefined", (int)(name->n < 200 ? name->n : 200), name->p);
}

static val namespace_attrs(env *e, frame *f, const node *target) {
    val ns = lookup(e, f, target->sym);
    if (ns.t != V_NS) fail(e, "cannot assign attribute on non-namespace object");
    if (target->name->p[0] == '_')
        fail(e, "names that begin with an underscore cannot be stored on a namespace ('%.*s')",
             (int)target->name->n, target->name->p);
    return ns;
}

void assign(env *e, frame *f, const node *target, val v) {
    if (target->kind == N_NAME) {
        frame_set(e, f, target->sym, v);
        return;
    }
    if (target->kind == N_NSREF) {
        dict_put(e, namespace_attrs(e, f, target).d, str_val(target->name), v);
        return;
    }
    if (!val_iterable(v)) fail(e, "cannot unpack non-iterable %s object", type_name(v));
    iter *it = iter_of(e, v);
    list *got = list_new(e, (size_t)target->body.n);
    val x;
    for (int i = 0; i < target->body.n; i++) {
        if (!iter_next(e, it, &x))
            fail(e, "not enough values to unpack (expected %d, got %d)", target->body.n, i);
        list_push(e, got, x);
    }
    if (iter_next(e, it, &x)) fail(e, "too many values to unpack (expected %d)", target->body.n);
    for (int i = 0; i < target->body.n; i++) assign(e, f, target->body.v[i], got->v[i]);
}

/* ---- arguments ---- */

void args_add_kw(env *e, args *a, str *name, val v) {
    for (size_t i = 0; i < a->n_kw; i++)
        if (str_eq(a->kw[i].name, name))
            fail(e, "got multiple values for keyword argument '%.*s'", (int)name->n, name->p);
    kwarg *kw = env_array(e, a->n_kw + 1, sizeof *kw);
    if (a->n_kw) memcpy(kw, a->kw, a->n_kw * sizeof *kw);
    env_step(e, a->n_kw);
    kw[a->n_kw] = (kwarg){name, v};
    a->kw = kw;
    a->n_kw++;
}

void eval_args(env *e, frame *f, const call_args *c, args *out) {
    list *pos = list_new(e, (size_t)c->pos.n);
    for (int i = 0; i < c->pos.n; i++) list_push(e, pos, eval(e, f, c->pos.v[i]));
    *out = (args){0};
    for (int i = 0; i < c->kw.n; i++) args_add_kw(e, out, c->kw_name[i], eval(e, f, c->kw.v[i]));
    if (c->star) {
        iter *it = iter_of(e, eval(e, f, c->star));
        val v;
        while (iter_next(e, it, &v)) list_push(e, pos, v);
    }
    if (c->star2) {
        val m = eval(e, f, c->star2);
        if (m.t != V_DICT) fail(e, "argument after ** must be a mapping, not %s", type_name(m));
        for (size_t i = 0; i < m.d->n; i++)
            args_add_kw(e, out, need_str(e, m.d->e[i].key, "a keyword"), m.d->e[i].value);
    }
    out->v = pos->v;
    out->n = pos->n;
}

/* ---- operators ---- */

static bool compare(env *e, cmp_op op, val a, val b) {
    static const char *const names[] = {"==", "!=", "<", "<=", ">", ">="};
    bool nan = false;
    switch (op) {
    case CMP_EQ: return val_eq(e, a, b);
    case CMP_NE: return !val_eq(e, a, b);
    case CMP_IN: return val_in(e, a, b);
    case CMP_NOT_IN: return !val_in(e, a, b);
    default: break;
    }
    int c = val_cmp(e, a, b, names[op], &nan);
    if (nan) return false;
    return op == CMP_LT ? c < 0 : op == CMP_LE ? c <= 0 : op == CMP_GT ? c > 0 : c >= 0;
}

static val eval_compare(env *e, frame *f, const node *x) {
    val a = eval(e, f, x->a);
    for (int i = 0; i < x->body.n; i++) {
        val b = eval(e, f, x->body.v[i]);
        if (!compare(e, (cmp_op)x->ops[i], a, b)) return bool_val(false);
        a = b;
    }
    return bool_val(true);
}

static val eval_concat(env *e, frame *f, const node *x) {
    list *parts = list_new(e, (size_t)x->body.n);
    for (int i = 0; i < x->body.n; i++) list_push(e, parts, eval(e, f, x->body.v[i]));
    str *s = val_str(e, parts->v[0]);
    for (size_t i = 1; i < parts->n; i++) s = str_concat(e, s, val_str(e, parts->v[i]));
    if (s->markup) { /* ~ always gives a plain string */
        str *plain = str_new(e, s->p, s->n, false);
        plain->user = s->user;
        plain->n_user = s->n_user;
        s = plain;
    }
    return str_val(s);
}

static val eval_item(env *e, frame *f, const node *x) {
    val obj = eval(e, f, x->a);
    if (x->b->kind != N_SLICE) return get_item(e, obj, eval(e, f, x->b));
    const node *s = x->b;
    val a = s->a ? eval(e, f, s->a) : NONE_VAL, b = s->b ? eval(e, f, s->b) : NONE_VAL;
    val c = s->c ? eval(e, f, s->c) : NONE_VAL;
    return get_slice(e, obj, a, b, c);
}

static val eval_literal(env *e, frame *f, const node *x) {
    if (x->kind == N_DICT) {
        dict *d = dict_new(e);
        for (int i = 0; i + 1 < x->body.n; i += 2) {
            val k = eval(e, f, x->body.v[i]);
            dict_put(e, d, k, eval(e, f, x->body.v[i + 1]));
        }
        return dict_val(d);
    }
    list *l = list_new(e, (size_t)x->body.n);
    for (int i = 0; i < x->body.n; i++) list_push(e, l, eval(e, f, x->body.v[i]));
    return x->kind == N_TUPLE ? tuple_val(l) : list_val(l);
}

val apply_filters(env *e, frame *f, const node *x, val body) {
    env_enter(e);
    val in = x->a ? apply_filters(e, f, x->a, body) : body;
    args a;
    eval_args(e, f, x->args, &a);
    e->line = x->line;
    val out = call_filter(e, x->name, in, &a);
    env_leave(e);
    return out;
}

static val eval_node(env *e, frame *f, const node *x) {
    args a;
    val v, w;
    switch (x->kind) {
    case N_CONST: return x->v;
    case N_NAME: return lookup(e, f, x->sym);
    case N_TUPLE:
    case N_LIST:
    case N_DICT: return eval_literal(e, f, x);
    case N_NEG: return num_neg(e, eval(e, f, x->a));
    case N_POS: return num_pos(e, eval(e, f, x->a));
    case N_NOT: return bool_val(!val_truth(e, eval(e, f, x->a)));
    case N_BINARY:
        v = eval(e, f, x->a);
        w = eval(e, f, x->b);
        e->line = x->line;
        return num_binary(e, x->op, v, w);
    case N_CONCAT: return eval_concat(e, f, x);
    case N_AND: v = eval(e, f, x->a); return val_truth(e, v) ? eval(e, f, x->b) : v;
    case N_OR: v = eval(e, f, x->a); return val_truth(e, v) ? v : eval(e, f, x->b);
    case N_COMPARE: return eval_compare(e, f, x);
    case N_COND:
        if (val_truth(e, eval(e, f, x->b))) return eval(e, f, x->a);
        if (x->c) return eval(e, f, x->c);
        return undef_val(
            e, "the inline if-expression on line %d evaluated to false and no else section was defined.",
            x->line);
    case N_ATTR:
        v = eval(e, f, x->a);
        e->line = x->line;
        return get_attr(e, v, x->name);
    case N_ITEM: return eval_item(e, f, x);
    case N_CALL:
        v = eval(e, f, x->a);
        eval_args(e, f, x->args, &a);
        e->line = x->line;
        return call_value(e, v, &a);
    case N_FILTER:
        v = eval(e, f, x->a);
        eval_args(e, f, x->args, &a);
        e->line = x->line;
        return call_filter(e, x->name, v, &a);
    case N_TEST:
        v = eval(e, f, x->a);
        eval_args(e, f, x->args, &a);
        e->line = x->line;
        return bool_val(call_test(e, x->name, v, &a));
    default: fail(e, "this cannot be used as an expression");
    }
}

val eval(env *e, frame *f, const node *x) {
    env_step(e, 1);
    env_enter(e);
    e->line = x->line;
    val v = eval_node(e, f, x);
    env_leave(e);
    return v;
}
