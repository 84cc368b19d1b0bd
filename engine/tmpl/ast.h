/* ast.h - tokens and syntax tree of a template. Private to engine/tmpl; owned by the tmpl's pool, read-only
 * after the parse. */
#ifndef VLMD_ENGINE_TMPL_AST_H
#define VLMD_ENGINE_TMPL_AST_H

#include "engine/tmpl/tmpl.h"
#include "engine/tmpl/value.h"

/* ---- tokens (lexer.c) ---- */

typedef enum token_type {
    T_EOF,
    T_DATA,
    T_VAR_BEGIN,
    T_VAR_END,
    T_BLOCK_BEGIN,
    T_BLOCK_END,
    T_NAME,
    T_STR,
    T_INT,
    T_FLOAT,
    T_OP
} token_type;

#define OP2(a, b) ((a) << 8 | (b))
typedef struct token {
    token_type type;
    int line;
    int op; /* T_OP: the character, or OP2 of two */
    str *s; /* T_DATA, T_NAME, T_STR */
    int64_t i;
    double f;
} token;

/* The whole template as tokens, ended by T_EOF. Fails on a syntax error. */
token *lex(env *e, const char *src, size_t n);

/* ---- tree ---- */

typedef enum node_kind {
    /* expressions */
    N_CONST,
    N_NAME,
    N_NSREF, /* target ns.attr of a set */
    N_TUPLE,
    N_LIST,
    N_DICT, /* body: key, value, key, value ... */
    N_NEG,
    N_POS,
    N_NOT,
    N_BINARY, /* op; a, b */
    N_CONCAT,
    N_AND,
    N_OR,
    N_COMPARE, /* a, then body[i] compared by ops[i] */
    N_COND,    /* a if b else c */
    N_ATTR,    /* a.name */
    N_ITEM,    /* a[b] */
    N_SLICE,   /* a, b, c: only inside N_ITEM */
    N_CALL,    /* a(args) */
    N_FILTER,  /* a|name(args); a NULL: the captured body */
    N_TEST,    /* a is name(args) */
    /* statements */
    N_DATA,
    N_PRINT,
    N_IF,       /* a; body; orelse */
    N_FOR,      /* for a in b if c; body; orelse; flag: recursive */
    N_SET,      /* a = b */
    N_SETBLOCK, /* a; body; b: filters or NULL */
    N_MACRO,    /* sym, params, body */
    N_CALLBLOCK,
    N_FILTERBLOCK, /* b; body */
    N_WITH,        /* params: targets, defaults: values */
    N_BLOCK,
    N_GENERATION,
    N_BREAK,
    N_CONTINUE
} node_kind;

typedef struct node node;
typedef struct nodes {
    node **v;
    int n, cap;
} nodes;
typedef struct call_args {
    nodes pos;
    nodes kw; /* values */
    str **kw_name;
    node *star, *star2;
} call_args;

typedef enum cmp_op { CMP_EQ, CMP_NE, CMP_LT, CMP_LE, CMP_GT, CMP_GE, CMP_IN, CMP_NOT_IN } cmp_op;

struct node {
    node_kind kind;
    char op;
    bool flag;
    bool uses_caller, uses_varargs, uses_kwargs; /* N_MACRO, N_CALLBLOCK */
    int height, line, sym;
    str *name; /* attribute, filter, test, data */
    val v;
    node *a, *b, *c;
    nodes body, orelse, params, defaults;
    uint8_t *ops;
    call_args *args;
};

/* Names that mean something to the engine have fixed numbers. */
enum { SYM_LOOP, SYM_CALLER, SYM_VARARGS, SYM_KWARGS, N_FIXED_SYMS };

struct tmpl {
    tmpl_pool mem;
    nodes body;
    str **syms; /* names, by number */
    int n_syms;
    tmpl_forms forms;
};

/* ---- parsing (parse.c, parse_expr.c) ---- */

typedef struct parser {
    env *e;
    token *t; /* the current token */
    int depth;
    str **syms;
    int n_syms, cap_syms;
    dict *sym_index;
} parser;

#define MAX_HEIGHT 250

void parse_template(parser *p, nodes *out);
node *node_new(parser *p, node_kind kind, int line);
void nodes_push(parser *p, nodes *l, node *x);
node *grown(parser *p, node *x); /* sets the height; fails when the tree is too deep */
int intern(parser *p, str *name);
_Noreturn void parse_fail(parser *p, const token *at, const char *fmt, ...) PRINTF_LIKE(3, 4);
const char *token_text(parser *p, const token *t);
bool at_name(const parser *p, const char *name);
bool skip_name(parser *p, const char *name);
bool at_op(const parser *p, int op);
bool skip_op(parser *p, int op);
void expect_op(parser *p, int op);
token *expect_name(parser *p);
void parse_enter(parser *p);
static inline void parse_leave(parser *p) {
    p->depth--;
}

node *parse_expression(parser *p);
node *parse_tuple(parser *p, bool with_cond, bool parenthesised, const char *end_name);
node *parse_target(parser *p, bool with_ns, const char *end_name);
node *parse_filters(parser *p, node *x, bool inline_start);

/* Checks after the parse: unknown filters and tests, break outside a loop, what macros use (check.c). */
void check_template(env *e, nodes *body);
/* forms.c */
tmpl_forms find_forms(env *e, const tmpl *t);

#endif
