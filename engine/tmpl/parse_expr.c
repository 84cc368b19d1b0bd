/* parse_expr.c - expressions of a template, with Jinja's precedence:
 * cond < or < and < not < compare < + - < ~ < * / // % < ** < unary < postfix, filters, tests.
 * Depth is bounded. Memory is the env's. */
#include <string.h>

#include "engine/tmpl/ast.h"

static node *parse_or(parser *p);
static node *parse_unary(parser *p, bool with_filter);
static node *parse_primary(parser *p, bool with_ns);

static node *binary(parser *p, node_kind kind, char op, node *a, node *b, int line) {
    node *x = node_new(p, kind, line);
    x->op = op;
    x->a = a;
    x->b = b;
    return grown(p, x);
}

node *parse_expression(parser *p) {
    parse_enter(p);
    int line = p->t->line;
    node *a = parse_or(p);
    while (skip_name(p, "if")) {
        node *x = node_new(p, N_COND, line);
        x->a = a;
        x->b = parse_or(p);
        if (skip_name(p, "else")) x->c = parse_expression(p);
        a = grown(p, x);
        line = p->t->line;
    }
    parse_leave(p);
    return a;
}

static node *parse_math1(parser *p);

static node *parse_compare(parser *p) {
    node *a = parse_math1(p), *x = NULL;
    uint8_t ops[64];
    for (;;) {
        cmp_op op;
        if (skip_op(p, OP2('=', '=')))
            op = CMP_EQ;
        else if (skip_op(p, OP2('!', '=')))
            op = CMP_NE;
        else if (skip_op(p, '<'))
            op = CMP_LT;
        else if (skip_op(p, OP2('<', '=')))
            op = CMP_LE;
        else if (skip_op(p, '>'))
            op = CMP_GT;
        else if (skip_op(p, OP2('>', '=')))
            op = CMP_GE;
        else if (skip_name(p, "in"))
            op = CMP_IN;
        else if (at_name(p, "not") && p->t[1].type == T_NAME && str_is(p->t[1].s, "in")) {
            p->t += 2;
            op = CMP_NOT_IN;
        } else
            break;
        if (!x) {
            x = node_new(p, N_COMPARE, a->line);
            x->a = a;
        }
        if (x->body.n == (int)sizeof ops) parse_fail(p, p->t, "too many comparisons in a row");
        ops[x->body.n] = (uint8_t)op;
        nodes_push(p, &x->body, parse_math1(p));
    }
    if (!x) return a;
    x->ops = env_alloc(p->e, (size_t)x->body.n);
    memcpy(x->ops, ops, (size_t)x->body.n);
    return grown(p, x);
}

static node *parse_not(parser *p) {
    if (!at_name(p, "not")) return parse_compare(p);
    parse_enter(p);
    node *x = node_new(p, N_NOT, p->t->line);
    p->t++;
    x->a = parse_not(p);
    parse_leave(p);
    return grown(p, x);
}

static node *parse_and(parser *p) {
    node *a = parse_not(p);
    while (skip_name(p, "and")) {
        node *b = parse_not(p);
        a = binary(p, N_AND, 0, a, b, a->line);
    }
    return a;
}

static node *parse_or(parser *p) {
    node *a = parse_and(p);
    while (skip_name(p, "or")) {
        node *b = parse_and(p);
        a = binary(p, N_OR, 0, a, b, a->line);
    }
    return a;
}

static node *parse_pow(parser *p) {
    node *a = parse_unary(p, true);
    while (skip_op(p, OP2('*', '*'))) {
        node *b = parse_unary(p, true);
        a = binary(p, N_BINARY, 'p', a, b, a->line);
    }
    return a;
}

static node *parse_math2(parser *p) {
    node *a = parse_pow(p);
    for (;;) {
        char op = skip_op(p, '*')             ? '*'
                  : skip_op(p, '/')           ? '/'
                  : skip_op(p, OP2('/', '/')) ? 'f'
                  : skip_op(p, '%')           ? '%'
                                              : 0;
        if (!op) return a;
        node *b = parse_pow(p);
        a = binary(p, N_BINARY, op, a, b, a->line);
    }
}

static node *parse_concat(parser *p) {
    node *a = parse_math2(p);
    if (!at_op(p, '~')) return a;
    node *x = node_new(p, N_CONCAT, a->line);
    nodes_push(p, &x->body, a);
    while (skip_op(p, '~')) nodes_push(p, &x->body, parse_math2(p));
    return grown(p, x);
}

static node *parse_math1(parser *p) {
    node *a = parse_concat(p);
    for (;;) {
        char op = skip_op(p, '+') ? '+' : skip_op(p, '-') ? '-' : 0;
        if (!op) return a;
        node *b = parse_concat(p);
        a = binary(p, N_BINARY, op, a, b, a->line);
    }
}

/* ---- calls, subscripts, filters, tests ---- */

static call_args *parse_args(parser *p) {
    const token *open = p->t;
    expect_op(p, '(');
    call_args *c = env_alloc(p->e, sizeof *c);
    size_t cap = 0;
    bool comma = false;
    while (!at_op(p, ')')) {
        if (comma) {
            expect_op(p, ',');
            if (at_op(p, ')')) break;
        }
        bool ok = true;
        if (skip_op(p, '*')) {
            ok = !c->star && !c->star2;
            c->star = parse_expression(p);
        } else if (skip_op(p, OP2('*', '*'))) {
            ok = !c->star2;
            c->star2 = parse_expression(p);
        } else if (p->t->type == T_NAME && p->t[1].type == T_OP && p->t[1].op == '=') {
            ok = !c->star2;
            str *name = p->t->s;
            p->t += 2;
            if ((size_t)c->kw.n == cap) {
                cap = cap ? 2 * cap : 4;
                str **names = env_array(p->e, cap, sizeof *names);
                if (c->kw.n) memcpy(names, c->kw_name, (size_t)c->kw.n * sizeof *names);
                c->kw_name = names;
            }
            for (int i = 0; i < c->kw.n; i++)
                if (str_eq(c->kw_name[i], name)) parse_fail(p, p->t, "a keyword argument is repeated");
            c->kw_name[c->kw.n] = name;
            nodes_push(p, &c->kw, parse_expression(p));
        } else {
            ok = !c->star && !c->star2 && c->kw.n == 0;
            nodes_push(p, &c->pos, parse_expression(p));
        }
        if (!ok) parse_fail(p, open, "invalid syntax for function call expression");
        comma = true;
    }
    expect_op(p, ')');
    return c;
}

static str *dotted_name(parser *p) {
    str *name = expect_name(p)->s;
    while (skip_op(p, '.')) {
        name = str_concat(p->e, name, str_lit(p->e, "."));
        name = str_concat(p->e, name, expect_name(p)->s);
    }
    return name;
}

node *parse_filters(parser *p, node *x, bool inline_start) {
    while (inline_start || skip_op(p, '|')) {
        node *f = node_new(p, N_FILTER, p->t->line);
        f->name = dotted_name(p);
        f->a = x;
        f->args = at_op(p, '(') ? parse_args(p) : env_alloc(p->e, sizeof *f->args);
        x = grown(p, f);
        inline_start = false;
    }
    return x;
}

static node *parse_subscribed(parser *p) {
    int line = p->t->line;
    node *x = NULL;
    if (!at_op(p, ':')) {
        x = parse_expression(p);
        if (!at_op(p, ':')) return x;
    }
    p->t++;
    node *s = node_new(p, N_SLICE, line);
    s->a = x;
    if (!at_op(p, ':') && !at_op(p, ']') && !at_op(p, ',')) s->b = parse_expression(p);
    if (skip_op(p, ':') && !at_op(p, ']') && !at_op(p, ',')) s->c = parse_expression(p);
    return grown(p, s);
}

static node *parse_postfix(parser *p, node *x) {
    for (;;) {
        int line = p->t->line;
        if (skip_op(p, '.')) {
            node *y = node_new(p, p->t->type == T_INT ? N_ITEM : N_ATTR, line);
            y->a = x;
            if (p->t->type == T_INT) {
                y->b = node_new(p, N_CONST, line);
                y->b->v = int_val(p->t->i);
            } else if (p->t->type == T_NAME)
                y->name = p->t->s;
            else
                parse_fail(p, p->t, "expected name or number, got %s", token_text(p, p->t));
            p->t++;
            x = grown(p, y);
        } else if (skip_op(p, '[')) {
            node *y = node_new(p, N_ITEM, line);
            nodes parts = {0};
            y->a = x;
            while (!at_op(p, ']')) {
                if (parts.n) expect_op(p, ',');
                nodes_push(p, &parts, parse_subscribed(p));
            }
            expect_op(p, ']');
            if (parts.n == 1)
                y->b = parts.v[0];
            else {
                y->b = node_new(p, N_TUPLE, line);
                y->b->body = parts;
                for (int i = 0; i < parts.n; i++)
                    if (parts.v[i]->kind == N_SLICE)
                        parse_fail(p, p->t, "a slice inside a tuple index is not supported");
                grown(p, y->b);
            }
            x = grown(p, y);
        } else if (at_op(p, '(')) {
            node *y = node_new(p, N_CALL, line);
            y->a = x;
            y->args = parse_args(p);
            x = grown(p, y);
        } else
            return x;
    }
}

static node *parse_test(parser *p, node *x) {
    node *t = node_new(p, N_TEST, p->t->line);
    t->a = x;
    bool negated = skip_name(p, "not");
    t->name = dotted_name(p);
    const token *k = p->t;
    if (at_op(p, '('))
        t->args = parse_args(p);
    else {
        t->args = env_alloc(p->e, sizeof *t->args);
        bool arg = k->type == T_NAME || k->type == T_STR || k->type == T_INT || k->type == T_FLOAT ||
                   at_op(p, '[') || at_op(p, '{');
        if (arg && !at_name(p, "else") && !at_name(p, "or") && !at_name(p, "and")) {
            if (at_name(p, "is")) parse_fail(p, k, "tests cannot be chained with is");
            node *y = parse_primary(p, false);
            nodes_push(p, &t->args->pos, parse_postfix(p, y));
        }
    }
    grown(p, t);
    if (!negated) return t;
    node *n = node_new(p, N_NOT, t->line);
    n->a = t;
    return grown(p, n);
}

static node *parse_unary(parser *p, bool with_filter) {
    parse_enter(p);
    node *x;
    int line = p->t->line;
    if (skip_op(p, '-')) {
        x = node_new(p, N_NEG, line);
        x->a = parse_unary(p, false);
        grown(p, x);
    } else if (skip_op(p, '+')) {
        x = node_new(p, N_POS, line);
        x->a = parse_unary(p, false);
        grown(p, x);
    } else
        x = parse_primary(p, false);
    x = parse_postfix(p, x);
    while (with_filter) {
        if (at_op(p, '|'))
            x = parse_filters(p, x, false);
        else if (skip_name(p, "is"))
            x = parse_test(p, x);
        else if (at_op(p, '('))
            x = parse_postfix(p, x);
        else
            break;
    }
    parse_leave(p);
    return x;
}

static node *parse_literal(parser *p, val v) {
    node *x = node_new(p, N_CONST, p->t->line);
    x->v = v;
    p->t++;
    return x;
}

static node *parse_list(parser *p, node_kind kind, int close) {
    node *x = node_new(p, kind, p->t->line);
    p->t++;
    while (!at_op(p, close)) {
        if (x->body.n) expect_op(p, ',');
        if (at_op(p, close)) break;
        nodes_push(p, &x->body, parse_expression(p));
        if (kind == N_DICT) {
            expect_op(p, ':');
            nodes_push(p, &x->body, parse_expression(p));
        }
    }
    expect_op(p, close);
    return grown(p, x);
}

static node *parse_primary(parser *p, bool with_ns) {
    token *t = p->t;
    switch (t->type) {
    case T_NAME:
        if (str_is(t->s, "true") || str_is(t->s, "True")) return parse_literal(p, bool_val(true));
        if (str_is(t->s, "false") || str_is(t->s, "False")) return parse_literal(p, bool_val(false));
        if (str_is(t->s, "none") || str_is(t->s, "None")) return parse_literal(p, NONE_VAL);
        p->t++;
        node *x = node_new(p, N_NAME, t->line);
        x->sym = intern(p, t->s);
        if (with_ns && skip_op(p, '.')) {
            x->kind = N_NSREF;
            x->name = expect_name(p)->s;
        }
        return x;
    case T_STR: {
        str *s = t->s;
        while (p->t[1].type == T_STR) s = str_concat(p->e, s, (++p->t)->s);
        return parse_literal(p, str_val(s));
    }
    case T_INT: return parse_literal(p, int_val(t->i));
    case T_FLOAT: return parse_literal(p, float_val(t->f));
    default: break;
    }
    if (skip_op(p, '(')) {
        node *x = parse_tuple(p, true, true, NULL);
        expect_op(p, ')');
        return x;
    }
    if (at_op(p, '[')) return parse_list(p, N_LIST, ']');
    if (at_op(p, '{')) return parse_list(p, N_DICT, '}');
    parse_fail(p, t, "unexpected %s", token_text(p, t));
}

static bool tuple_ends(const parser *p, const char *end_name) {
    return p->t->type == T_VAR_END || p->t->type == T_BLOCK_END || at_op(p, ')') ||
           (end_name && at_name(p, end_name));
}

typedef enum tuple_mode { TUPLE_EXPR, TUPLE_NO_COND, TUPLE_TARGET, TUPLE_NS_TARGET } tuple_mode;

static node *parse_items(parser *p, tuple_mode mode, bool parenthesised, const char *end_name) {
    int line = p->t->line;
    nodes items = {0};
    bool is_tuple = false;
    for (;;) {
        if (items.n) expect_op(p, ',');
        if (tuple_ends(p, end_name)) break;
        nodes_push(p, &items,
                   mode == TUPLE_EXPR      ? parse_expression(p)
                   : mode == TUPLE_NO_COND ? parse_or(p)
                                           : parse_primary(p, mode == TUPLE_NS_TARGET));
        if (!at_op(p, ',')) break;
        is_tuple = true;
    }
    if (!is_tuple) {
        if (items.n) return items.v[0];
        if (!parenthesised) parse_fail(p, p->t, "expected an expression, got %s", token_text(p, p->t));
    }
    node *x = node_new(p, N_TUPLE, line);
    x->body = items;
    return grown(p, x);
}

node *parse_tuple(parser *p, bool with_cond, bool parenthesised, const char *end_name) {
    parse_enter(p);
    node *x = parse_items(p, with_cond ? TUPLE_EXPR : TUPLE_NO_COND, parenthesised, end_name);
    parse_leave(p);
    return x;
}

static void need_target(parser *p, const node *x, const token *at) {
    if (x->kind == N_TUPLE) {
        for (int i = 0; i < x->body.n; i++) need_target(p, x->body.v[i], at);
        return;
    }
    if (x->kind != N_NAME && x->kind != N_NSREF) parse_fail(p, at, "cannot assign to an expression");
}

node *parse_target(parser *p, bool with_ns, const char *end_name) {
    const token *at = p->t;
    node *x = parse_items(p, with_ns ? TUPLE_NS_TARGET : TUPLE_TARGET, false, end_name);
    need_target(p, x, at);
    return x;
}
