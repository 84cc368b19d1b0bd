/* parse.c - statements of a template into a tree, and tmpl_parse. See tmpl.h, ast.h. The tmpl owns all
 * memory. Include, import and extends are refused: a chat template is one file. Tested by
 * tests/engine/tmpl/test_tmpl.c. */
#include <stdio.h>
#include <string.h>

#include "engine/tmpl/ast.h"

#define MAX_TEMPLATE_BYTES ((size_t)4 << 20)
#define MAX_PARSE_BYTES    ((size_t)512 << 20)

_Noreturn void parse_fail(parser *p, const token *at, const char *fmt, ...) {
    char msg[300];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(msg, sizeof msg, fmt, ap);
    va_end(ap);
    p->e->line = at->line;
    fail(p->e, "%s", msg);
}

void parse_enter(parser *p) {
    if (++p->depth > MAX_HEIGHT) parse_fail(p, p->t, "nested too deeply (more than %d levels)", MAX_HEIGHT);
}

const char *token_text(parser *p, const token *t) {
    static const char *const names[] = {
        [T_EOF] = "end of template", [T_DATA] = "template text", [T_VAR_BEGIN] = "'{{'",
        [T_VAR_END] = "'}}'",        [T_BLOCK_BEGIN] = "'{%'",   [T_BLOCK_END] = "'%}'",
        [T_STR] = "a string",        [T_INT] = "a number",       [T_FLOAT] = "a number"};
    if (t->type != T_NAME && t->type != T_OP) return names[t->type];
    char *out = env_alloc(p->e, 64);
    if (t->type == T_NAME)
        snprintf(out, 64, "'%.*s'", (int)(t->s->n < 50 ? t->s->n : 50), t->s->p);
    else if (t->op > 255)
        snprintf(out, 64, "'%c%c'", t->op >> 8, t->op & 255);
    else
        snprintf(out, 64, "'%c'", t->op);
    return out;
}

node *node_new(parser *p, node_kind kind, int line) {
    node *x = env_alloc(p->e, sizeof *x);
    x->kind = kind;
    x->line = line;
    x->height = 1;
    x->sym = -1;
    return x;
}

void nodes_push(parser *p, nodes *l, node *x) {
    if (l->n == l->cap) {
        int cap = l->cap ? 2 * l->cap : 4;
        node **v = env_array(p->e, (size_t)cap, sizeof *v);
        if (l->n) memcpy(v, l->v, (size_t)l->n * sizeof *v);
        l->v = v;
        l->cap = cap;
    }
    l->v[l->n++] = x;
}

static int taller(int h, const node *x) {
    return x && x->height > h ? x->height : h;
}
static int tallest(int h, const nodes *l) {
    for (int i = 0; i < l->n; i++) h = taller(h, l->v[i]);
    return h;
}

node *grown(parser *p, node *x) {
    int h = taller(taller(taller(0, x->a), x->b), x->c);
    h = tallest(tallest(tallest(tallest(h, &x->body), &x->orelse), &x->params), &x->defaults);
    if (x->args)
        h = taller(taller(tallest(tallest(h, &x->args->pos), &x->args->kw), x->args->star), x->args->star2);
    x->height = h + 1;
    if (x->height > MAX_HEIGHT) parse_fail(p, p->t, "nested too deeply (more than %d levels)", MAX_HEIGHT);
    return x;
}

int intern(parser *p, str *name) {
    val *known = dict_find(p->e, p->sym_index, str_val(name));
    if (known) return (int)known->i;
    if (p->n_syms == p->cap_syms) {
        int cap = p->cap_syms ? 2 * p->cap_syms : 32;
        str **v = env_array(p->e, (size_t)cap, sizeof *v);
        if (p->n_syms) memcpy(v, p->syms, (size_t)p->n_syms * sizeof *v);
        p->syms = v;
        p->cap_syms = cap;
    }
    p->syms[p->n_syms] = name;
    dict_put(p->e, p->sym_index, str_val(name), int_val(p->n_syms));
    return p->n_syms++;
}

bool at_name(const parser *p, const char *name) {
    return p->t->type == T_NAME && str_is(p->t->s, name);
}
bool skip_name(parser *p, const char *name) {
    if (!at_name(p, name)) return false;
    p->t++;
    return true;
}
bool at_op(const parser *p, int op) {
    return p->t->type == T_OP && p->t->op == op;
}
bool skip_op(parser *p, int op) {
    if (!at_op(p, op)) return false;
    p->t++;
    return true;
}
void expect_op(parser *p, int op) {
    if (skip_op(p, op)) return;
    char want[3] = {(char)(op > 255 ? op >> 8 : op), (char)(op > 255 ? op & 255 : 0), 0};
    parse_fail(p, p->t, "expected '%s', got %s", want, token_text(p, p->t));
}
token *expect_name(parser *p) {
    if (p->t->type != T_NAME) parse_fail(p, p->t, "expected a name, got %s", token_text(p, p->t));
    return p->t++;
}
static void expect_block_end(parser *p) {
    if (p->t->type != T_BLOCK_END) parse_fail(p, p->t, "expected '%%}', got %s", token_text(p, p->t));
    p->t++;
}

/* ---- statements ---- */

static void parse_body(parser *p, nodes *out, const char *const *ends, const token *opener);

/* "%} ... {% end": the body of a statement; p is left after the end's name, which is returned. */
static const char *parse_block(parser *p, nodes *out, const token *opener, const char *const *ends) {
    skip_op(p, ':');
    expect_block_end(p);
    parse_body(p, out, ends, opener);
    for (; *ends; ends++)
        if (skip_name(p, *ends)) return *ends;
    parse_fail(p, p->t, "unexpected end of template");
}
#define ENDS(...) ((const char *const[]){__VA_ARGS__, NULL})

static node *parse_if(parser *p, const token *opener) {
    node *first = node_new(p, N_IF, opener->line), *x = first;
    for (;;) {
        x->a = parse_tuple(p, false, false, NULL);
        const char *end = parse_block(p, &x->body, opener, ENDS("elif", "else", "endif"));
        if (strcmp(end, "elif") == 0) {
            /* the arms hang side by side, so that a long chain is not a deep tree */
            grown(p, x);
            x = node_new(p, N_IF, p->t->line);
            nodes_push(p, &first->params, x);
            continue;
        }
        if (strcmp(end, "else") == 0) parse_block(p, &first->orelse, opener, ENDS("endif"));
        if (x != first) grown(p, x);
        return grown(p, first);
    }
}

static node *parse_for(parser *p, const token *opener) {
    node *x = node_new(p, N_FOR, opener->line);
    x->a = parse_target(p, false, "in");
    if (x->a->kind == N_NSREF) parse_fail(p, opener, "cannot loop into a namespace attribute");
    if (!skip_name(p, "in")) parse_fail(p, p->t, "expected 'in', got %s", token_text(p, p->t));
    x->b = parse_tuple(p, false, false, "recursive");
    if (skip_name(p, "if")) x->c = parse_expression(p);
    x->flag = skip_name(p, "recursive");
    const char *end = parse_block(p, &x->body, opener, ENDS("endfor", "else"));
    if (strcmp(end, "else") == 0) parse_block(p, &x->orelse, opener, ENDS("endfor"));
    return grown(p, x);
}

static node *parse_set(parser *p, const token *opener) {
    node *x = node_new(p, N_SET, opener->line);
    x->a = parse_target(p, true, NULL);
    if (skip_op(p, '=')) {
        x->b = parse_tuple(p, true, false, NULL);
        return grown(p, x);
    }
    x->kind = N_SETBLOCK;
    x->b = parse_filters(p, NULL, false);
    parse_block(p, &x->body, opener, ENDS("endset"));
    return grown(p, x);
}

static void parse_signature(parser *p, node *x) {
    expect_op(p, '(');
    while (!at_op(p, ')')) {
        if (x->params.n) expect_op(p, ',');
        token *t = expect_name(p);
        node *arg = node_new(p, N_NAME, t->line);
        arg->sym = intern(p, t->s);
        for (int i = 0; i < x->params.n; i++)
            if (x->params.v[i]->sym == arg->sym) parse_fail(p, t, "a parameter is named twice");
        nodes_push(p, &x->params, arg);
        if (skip_op(p, '='))
            nodes_push(p, &x->defaults, parse_expression(p));
        else if (x->defaults.n)
            parse_fail(p, t, "non-default argument follows default argument");
    }
    expect_op(p, ')');
}

static node *parse_macro(parser *p, const token *opener) {
    node *x = node_new(p, N_MACRO, opener->line);
    x->name = expect_name(p)->s;
    x->sym = intern(p, x->name);
    parse_signature(p, x);
    parse_block(p, &x->body, opener, ENDS("endmacro"));
    return grown(p, x);
}

static node *parse_call_block(parser *p, const token *opener) {
    node *x = node_new(p, N_CALLBLOCK, opener->line);
    if (at_op(p, '(')) parse_signature(p, x);
    x->a = parse_expression(p);
    if (x->a->kind != N_CALL) parse_fail(p, opener, "expected a call after {%% call %%}");
    parse_block(p, &x->body, opener, ENDS("endcall"));
    return grown(p, x);
}

static node *parse_with(parser *p, const token *opener) {
    node *x = node_new(p, N_WITH, opener->line);
    while (p->t->type != T_BLOCK_END) {
        if (x->params.n) expect_op(p, ',');
        nodes_push(p, &x->params, parse_target(p, false, NULL));
        expect_op(p, '=');
        nodes_push(p, &x->defaults, parse_expression(p));
    }
    parse_block(p, &x->body, opener, ENDS("endwith"));
    return grown(p, x);
}

static node *parse_named_block(parser *p, const token *opener) {
    node *x = node_new(p, N_BLOCK, opener->line);
    x->name = expect_name(p)->s;
    x->flag = skip_name(p, "scoped");
    skip_name(p, "required");
    parse_block(p, &x->body, opener, ENDS("endblock"));
    if (p->t->type == T_NAME && str_eq(p->t->s, x->name)) p->t++;
    return grown(p, x);
}

static const char *last_of(const char *const *ends) {
    while (ends[1]) ends++;
    return *ends;
}

static void parse_statement(parser *p, nodes *out, const char *const *ends, const token *outer) {
    token *t = p->t;
    if (t->type != T_NAME) parse_fail(p, t, "expected a tag name, got %s", token_text(p, t));
    p->t++;
    node *x = NULL;
    if (str_is(t->s, "if"))
        x = parse_if(p, t);
    else if (str_is(t->s, "for"))
        x = parse_for(p, t);
    else if (str_is(t->s, "set"))
        x = parse_set(p, t);
    else if (str_is(t->s, "macro"))
        x = parse_macro(p, t);
    else if (str_is(t->s, "call"))
        x = parse_call_block(p, t);
    else if (str_is(t->s, "with"))
        x = parse_with(p, t);
    else if (str_is(t->s, "block"))
        x = parse_named_block(p, t);
    else if (str_is(t->s, "filter")) {
        x = node_new(p, N_FILTERBLOCK, t->line);
        x->b = parse_filters(p, NULL, true);
        parse_block(p, &x->body, t, ENDS("endfilter"));
        grown(p, x);
    } else if (str_is(t->s, "generation")) {
        x = node_new(p, N_GENERATION, t->line);
        parse_block(p, &x->body, t, ENDS("endgeneration"));
        grown(p, x);
    } else if (str_is(t->s, "break") || str_is(t->s, "continue")) {
        x = node_new(p, str_is(t->s, "break") ? N_BREAK : N_CONTINUE, t->line);
    } else if (str_is(t->s, "print")) {
        for (bool first = true; p->t->type != T_BLOCK_END; first = false) {
            if (!first) expect_op(p, ',');
            x = node_new(p, N_PRINT, t->line);
            x->a = parse_expression(p);
            nodes_push(p, out, grown(p, x));
        }
        expect_block_end(p);
        return;
    } else if (str_is(t->s, "include") || str_is(t->s, "import") || str_is(t->s, "from") ||
               str_is(t->s, "extends")) {
        parse_fail(p, t, "{%% %.*s %%} is not supported: a chat template is one file", (int)t->s->n, t->s->p);
    } else if (str_is(t->s, "autoescape")) {
        parse_fail(p, t, "{%% autoescape %%} is not supported");
    } else if (outer) {
        parse_fail(p, t, "unknown tag %s; expected '%s' to close the block of line %d", token_text(p, t),
                   last_of(ends), outer->line);
    } else
        parse_fail(p, t, "unknown tag %s", token_text(p, t));
    nodes_push(p, out, x);
    expect_block_end(p);
}

static void parse_body(parser *p, nodes *out, const char *const *ends, const token *opener) {
    parse_enter(p);
    for (;;) {
        token *t = p->t++;
        if (t->type == T_DATA) {
            node *x = node_new(p, N_DATA, t->line);
            x->name = t->s;
            nodes_push(p, out, x);
        } else if (t->type == T_VAR_BEGIN) {
            node *x = node_new(p, N_PRINT, t->line);
            x->a = parse_tuple(p, true, false, NULL);
            if (p->t->type != T_VAR_END) parse_fail(p, p->t, "expected '}}', got %s", token_text(p, p->t));
            p->t++;
            nodes_push(p, out, grown(p, x));
        } else if (t->type == T_BLOCK_BEGIN) {
            bool ended = false;
            for (const char *const *z = ends; z && *z; z++) ended |= at_name(p, *z);
            if (ended) break;
            parse_statement(p, out, ends, opener);
        } else {
            p->t--;
            if (!opener) break;
            parse_fail(p, p->t, "unexpected end of template; expected '%s' to close the '%.*s' of line %d",
                       last_of(ends), (int)opener->s->n, opener->s->p, opener->line);
        }
    }
    parse_leave(p);
}

void parse_template(parser *p, nodes *out) {
    static const char *const fixed[] = {"loop", "caller", "varargs", "kwargs"};
    p->sym_index = dict_new(p->e);
    for (int i = 0; i < N_FIXED_SYMS; i++) intern(p, str_lit(p->e, fixed[i]));
    parse_body(p, out, NULL, NULL);
}

/* ---- tmpl_parse ---- */

static bool parse_into(tmpl *t, env *e, const char *src, size_t n) {
    if (setjmp(e->on_error)) return false;
    parser p = {.e = e, .t = lex(e, src, n)};
    parse_template(&p, &t->body);
    t->syms = p.syms;
    t->n_syms = p.n_syms;
    check_template(e, &t->body);
    t->forms = find_forms(e, t);
    return true;
}

tmpl *tmpl_parse(const char *src, size_t n, status *st) {
    if (n > MAX_TEMPLATE_BYTES) {
        status_set(st, ST_INVALID, "the chat template has %zu bytes, more than %zu", n, MAX_TEMPLATE_BYTES);
        return NULL;
    }
    uint32_t cp;
    for (size_t i = 0; i < n;) {
        int k = utf8_decode(src + i, n - i, &cp);
        if (k == 0) {
            status_set(st, ST_INVALID, "the chat template is not UTF-8 at byte %zu", i);
            return NULL;
        }
        i += (size_t)k;
    }
    tmpl *t = mem_calloc(1, sizeof *t);
    if (!t) {
        status_set(st, ST_NO_MEMORY, "no memory for the chat template");
        return NULL;
    }
    t->mem.max_bytes = MAX_PARSE_BYTES;
    env e = {.mem = &t->mem,
             .st = st,
             .max_steps = (size_t)1 << 40,
             .max_str_bytes = MAX_PARSE_BYTES / 2,
             .max_nesting = 2000};
    if (parse_into(t, &e, src, n)) return t;
    tmpl_free(t);
    return NULL;
}

void tmpl_free(tmpl *t) {
    if (!t) return;
    tmpl_pool_free(&t->mem);
    mem_free(t);
}

tmpl_forms tmpl_content_forms(const tmpl *t) {
    return t->forms;
}
