/* exec.c - statements. See eval.h. Output goes to a builder, so that captured text keeps its origin.
 * Source: Jinja 3.1's compiler for what has a scope of its own: loops, macros, with, set, call and filter
 * blocks. */
#include <string.h>

#include "engine/tmpl/eval.h"

static str *capture(env *e, frame *f, const nodes *body, flow *how) {
    sb b = sb_new(e);
    flow r = exec(e, frame_new(e, f), body, &b);
    if (how) *how = r;
    return sb_done(&b);
}

static flow exec_if(env *e, frame *f, const node *x, sb *out) {
    if (val_truth(e, eval(e, f, x->a))) return exec(e, f, &x->body, out);
    for (int i = 0; i < x->params.n; i++)
        if (val_truth(e, eval(e, f, x->params.v[i]->a))) return exec(e, f, &x->params.v[i]->body, out);
    return exec(e, f, &x->orelse, out);
}

static flow exec_with(env *e, frame *f, const node *x, sb *out) {
    frame *in = frame_new(e, f);
    for (int i = 0; i < x->params.n; i++) assign(e, in, x->params.v[i], eval(e, f, x->defaults.v[i]));
    return exec(e, in, &x->body, out);
}

static void exec_call_block(env *e, frame *f, const node *x, sb *out) {
    const node *call = x->a;
    val caller = macro_value(e, f, x);
    val fn = eval(e, f, call->a);
    args a;
    eval_args(e, f, call->args, &a);
    args_add_kw(e, &a, str_lit(e, "caller"), caller);
    e->line = x->line;
    put_str(out, call_value(e, fn, &a));
}

static flow exec_one(env *e, frame *f, const node *x, sb *out) {
    flow how = FLOW_ON;
    val v;
    switch (x->kind) {
    case N_DATA: sb_str(out, x->name); return FLOW_ON;
    case N_PRINT: put_str(out, eval(e, f, x->a)); return FLOW_ON;
    case N_IF: return exec_if(e, f, x, out);
    case N_FOR: exec_for(e, f, x, out); return FLOW_ON;
    case N_SET:
        v = eval(e, f, x->b);
        e->line = x->line;
        assign(e, f, x->a, v);
        return FLOW_ON;
    case N_SETBLOCK: {
        frame *in = frame_new(e, f);
        sb b = sb_new(e);
        how = exec(e, in, &x->body, &b);
        if (how != FLOW_ON) return how;
        v = str_val(sb_done(&b));
        assign(e, f, x->a, x->b ? apply_filters(e, in, x->b, v) : v);
        return FLOW_ON;
    }
    case N_MACRO: frame_set(e, f, x->sym, macro_value(e, f, x)); return FLOW_ON;
    case N_CALLBLOCK: exec_call_block(e, f, x, out); return FLOW_ON;
    case N_FILTERBLOCK: {
        frame *in = frame_new(e, f);
        sb b = sb_new(e);
        how = exec(e, in, &x->body, &b);
        if (how == FLOW_ON) put_str(out, apply_filters(e, in, x->b, str_val(sb_done(&b))));
        return how;
    }
    case N_WITH: return exec_with(e, f, x, out);
    case N_BLOCK: sb_str(out, capture(e, x->flag ? f : e->run->root, &x->body, &how)); return FLOW_ON;
    case N_GENERATION: { /* to Jinja the body of a call block, which has empty extras of its own */
        frame *in = frame_new(e, f);
        frame_set(e, in, SYM_CALLER, undef_val(e, "No caller defined"));
        frame_set(e, in, SYM_VARARGS, tuple_val(list_new(e, 0)));
        frame_set(e, in, SYM_KWARGS, dict_val(dict_new(e)));
        sb_str(out, capture(e, in, &x->body, NULL));
        return FLOW_ON;
    }
    case N_BREAK: return FLOW_BREAK;
    case N_CONTINUE: return FLOW_CONTINUE;
    default: fail(e, "this cannot be used as a statement");
    }
}

flow exec(env *e, frame *f, const nodes *body, sb *out) {
    env_enter(e);
    flow how = FLOW_ON;
    for (int i = 0; i < body->n && how == FLOW_ON; i++) {
        env_step(e, 1);
        e->line = body->v[i]->line;
        how = exec_one(e, f, body->v[i], out);
    }
    env_leave(e);
    return how;
}

/* ---- loops ---- */

typedef struct filtered { /* for ... if test */
    const node *loop_node;
    frame *scope;
} filtered;

static bool next_filtered(env *e, iter *it, val *out) {
    filtered *s = it->state;
    while (iter_next(e, it->in, out)) {
        frame *f = frame_new(e, s->scope);
        assign(e, f, s->loop_node->a, *out);
        if (val_truth(e, eval(e, f, s->loop_node->c))) return true;
    }
    return false;
}

static bool loop_peek(env *e, loop *l) {
    if (!l->peeked) {
        l->at_end = !iter_next(e, l->it, &l->after);
        l->peeked = true;
    }
    return !l->at_end;
}

static bool loop_next(env *e, loop *l) {
    val v;
    if (l->peeked) {
        if (l->at_end) return false;
        v = l->after;
        l->peeked = false;
    } else if (!iter_next(e, l->it, &v))
        return false;
    if (l->started) l->index0++;
    l->started = true;
    l->before = l->current;
    l->current = v;
    return true;
}

static size_t loop_len(env *e, loop *l) {
    if (l->known_len) return l->len;
    if (!val_len(e, l->over, &l->len)) {
        list *rest = val_list(e, iter_val(l->it));
        l->it = iter_list(e, rest);
        l->len = rest->n + l->index0 + 1 + (l->peeked && !l->at_end);
    }
    l->known_len = true;
    return l->len;
}

static void run_loop(env *e, frame *f, const node *x, val over, int depth0, sb *out) {
    loop *l = env_alloc(e, sizeof *l);
    *l = (loop){.over = over, .depth0 = depth0, .recursive = x->flag ? x : NULL, .scope = f};
    l->it = iter_of(e, over);
    if (x->c) {
        iter *it = env_alloc(e, sizeof *it);
        filtered *s = env_alloc(e, sizeof *s);
        *s = (filtered){x, f};
        *it = (iter){.next = next_filtered, .in = l->it, .state = s};
        l->it = it;
        l->over = iter_val(it);
    }
    frame *in = frame_new(e, f);
    bool completed = false;
    while (loop_next(e, l)) {
        if (in->captured) in = frame_new(e, f);
        in->n = 0;
        frame_set(e, in, SYM_LOOP, (val){.t = V_LOOP, .loop = l});
        e->line = x->line;
        assign(e, in, x->a, l->current);
        flow how = exec(e, in, &x->body, out);
        if (how == FLOW_BREAK) break;
        if (how == FLOW_ON) completed = true;
    }
    /* As in Jinja: else runs unless some round came to its end. */
    if (!completed && x->orelse.n) exec(e, frame_new(e, f), &x->orelse, out);
}

void exec_for(env *e, frame *f, const node *x, sb *out) {
    val over = eval(e, f, x->b);
    e->line = x->line;
    if (!x->flag) {
        run_loop(e, f, x, over, 0, out);
        return;
    }
    sb b = sb_new(e);
    run_loop(e, f, x, over, 0, &b);
    sb_str(out, sb_done(&b));
}

val call_loop(env *e, loop *l, const args *a) {
    if (!l->recursive) fail(e, "The loop must have the 'recursive' marker to be called recursively.");
    if (a->n != 1 || a->n_kw) fail(e, "loop() takes exactly one argument");
    if (++e->calls > e->max_calls)
        fail(e, "loops and macros call each other more than %d levels deep", e->max_calls);
    sb b = sb_new(e);
    run_loop(e, l->scope, l->recursive, a->v[0], l->depth0 + 1, &b);
    e->calls--;
    return str_val(sb_done(&b));
}

static val loop_cycle(env *e, val self, const args *a) {
    if (a->n_kw || a->n == 0) fail(e, "no items for cycling given");
    return a->v[self.loop->index0 % a->n];
}

static val loop_changed(env *e, val self, const args *a) {
    loop *l = self.loop;
    list *now = list_new(e, a->n);
    for (size_t i = 0; i < a->n; i++) list_push(e, now, a->v[i]);
    if (l->changed && val_eq(e, tuple_val(l->changed), tuple_val(now))) return bool_val(false);
    l->changed = now;
    return bool_val(true);
}

static val loop_method(env *e, loop *l, const func *fn) {
    method *m = env_alloc(e, sizeof *m);
    *m = (method){.self = {.t = V_LOOP, .loop = l}, .fn = fn};
    return (val){.t = V_METHOD, .method = m};
}

val loop_attr(env *e, loop *l, const str *name) {
    static const func cycle = {"cycle", loop_cycle}, changed = {"changed", loop_changed};
    int64_t i = (int64_t)l->index0;
    if (str_is(name, "index0")) return int_val(i);
    if (str_is(name, "index")) return int_val(i + 1);
    if (str_is(name, "first")) return bool_val(i == 0);
    if (str_is(name, "last")) return bool_val(!loop_peek(e, l));
    if (str_is(name, "length")) return int_val((int64_t)loop_len(e, l));
    if (str_is(name, "revindex")) return int_val((int64_t)loop_len(e, l) - i);
    if (str_is(name, "revindex0")) return int_val((int64_t)loop_len(e, l) - i - 1);
    if (str_is(name, "depth0")) return int_val(l->depth0);
    if (str_is(name, "depth")) return int_val(l->depth0 + 1);
    if (str_is(name, "previtem")) return i == 0 ? undef_val(e, "there is no previous item") : l->before;
    if (str_is(name, "nextitem")) return loop_peek(e, l) ? l->after : undef_val(e, "there is no next item");
    if (str_is(name, "cycle")) return loop_method(e, l, &cycle);
    if (str_is(name, "changed")) return loop_method(e, l, &changed);
    return MISSING_VAL;
}

/* ---- macros ---- */

val macro_value(env *e, frame *f, const node *def) {
    for (frame *g = f; g && !g->captured; g = g->parent) g->captured = true;
    macro *m = env_alloc(e, sizeof *m);
    *m = (macro){def, f};
    return (val){.t = V_MACRO, .macro = m};
}

val call_macro(env *e, const macro *m, const args *a) {
    const node *d = m->def;
    const char *name = d->name ? d->name->p : "caller";
    int name_n = d->name ? (int)d->name->n : 6;
    if (++e->calls > e->max_calls)
        fail(e, "loops and macros call each other more than %d levels deep", e->max_calls);
    frame *f = frame_new(e, m->scope);
    bool *used = env_array(e, a->n_kw + 1, sizeof *used);
    memset(used, 0, (a->n_kw + 1) * sizeof *used);
    bool has_caller_param = false;
    for (int i = 0; i < d->params.n; i++) {
        const node *p = d->params.v[i];
        const str *pname = e->run->t->syms[p->sym];
        val v = MISSING_VAL;
        if (p->sym == SYM_CALLER) has_caller_param = true;
        if ((size_t)i < a->n)
            v = a->v[i];
        else
            for (size_t k = 0; k < a->n_kw; k++)
                if (!used[k] && str_eq(a->kw[k].name, pname)) {
                    v = a->kw[k].v;
                    used[k] = true;
                }
        int dflt = i - (d->params.n - d->defaults.n);
        if (v.t == V_MISSING && dflt >= 0) v = eval(e, f, d->defaults.v[dflt]);
        if (v.t == V_MISSING)
            v = undef_val(e, "parameter '%.*s' was not provided", (int)(pname->n < 200 ? pname->n : 200),
                          pname->p);
        frame_set(e, f, p->sym, v);
    }
    if (d->uses_caller && !has_caller_param) {
        val caller = undef_val(e, "No caller defined");
        for (size_t k = 0; k < a->n_kw; k++)
            if (!used[k] && str_is(a->kw[k].name, "caller")) {
                caller = a->kw[k].v;
                used[k] = true;
            }
        frame_set(e, f, SYM_CALLER, caller);
    }
    dict *rest = dict_new(e);
    for (size_t k = 0; k < a->n_kw; k++) {
        if (used[k]) continue;
        if (!d->uses_kwargs)
            fail(e, "macro '%.*s' takes no keyword argument '%.*s'", name_n, name, (int)a->kw[k].name->n,
                 a->kw[k].name->p);
        dict_put(e, rest, str_val(a->kw[k].name), a->kw[k].v);
    }
    if (d->uses_kwargs) frame_set(e, f, SYM_KWARGS, dict_val(rest));
    if (d->uses_varargs) {
        list *more = list_new(e, 0);
        for (size_t i = (size_t)d->params.n; i < a->n; i++) list_push(e, more, a->v[i]);
        frame_set(e, f, SYM_VARARGS, tuple_val(more));
    } else if (a->n > (size_t)d->params.n)
        fail(e, "macro '%.*s' takes not more than %d argument(s)", name_n, name, d->params.n);
    sb b = sb_new(e);
    exec(e, f, &d->body, &b);
    e->calls--;
    return str_val(sb_done(&b));
}
