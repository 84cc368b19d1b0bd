/* value.h - the values a template computes with, and the environment (memory, bounds, errors) they live in.
 *
 * Private to engine/tmpl. One thread per env. All memory comes from the env's pool and is given back at once;
 * a failure of any kind leaves through env_raise (longjmp to the entry point), so no caller here checks for
 * errors. Strings are UTF-8 and remember which of their bytes came from the user (the span list). Semantics
 * are Python's, since the templates were written for Jinja. Tested by tests/engine/tmpl/. */
#ifndef VLMD_ENGINE_TMPL_VALUE_H
#define VLMD_ENGINE_TMPL_VALUE_H

#include <setjmp.h>

#include "kernels/base.h"

/* ---- environment ---- */

typedef struct tmpl_pool {
    struct tmpl_chunk *head;
    size_t total_bytes, max_bytes;
} tmpl_pool;
void tmpl_pool_free(tmpl_pool *p);

typedef struct env {
    tmpl_pool *mem;
    status *st;
    jmp_buf on_error;
    int line; /* of the template, for messages; 0 when unknown */
    size_t steps, max_steps, max_str_bytes;
    int nesting, max_nesting; /* C recursion */
    int calls, max_calls;     /* macros and recursive loops */
    struct render *run;       /* NULL while parsing */
} env;

_Noreturn void env_raise(env *e, status_code code, const char *fmt, ...) PRINTF_LIKE(3, 4);
#define fail(e, ...) env_raise(e, ST_INVALID, __VA_ARGS__)
void *env_alloc(env *e, size_t n); /* 16-byte aligned, zeroed up to 1 KiB */
void *env_array(env *e, size_t count, size_t size);
void env_step(env *e, size_t n); /* counts work against the bound */
static inline void env_enter(env *e) {
    if (++e->nesting > e->max_nesting) fail(e, "nested too deeply (more than %d levels)", e->max_nesting);
}
static inline void env_leave(env *e) {
    e->nesting--;
}

/* ---- values ---- */

typedef enum vtype {
    V_MISSING = 0, /* no value: an argument that was not given */
    V_UNDEF,
    V_NONE,
    V_BOOL,
    V_INT,
    V_FLOAT,
    V_STR,
    V_LIST,
    V_TUPLE,
    V_DICT,
    V_RANGE,
    V_VIEW, /* dict.keys(), .values(), .items() */
    V_ITER, /* a generator: can be walked once */
    V_NS,
    V_LOOP,
    V_MACRO,
    V_FUNC,
    V_METHOD,
    V_JOINER,
    V_CYCLER
} vtype;

typedef struct span {
    size_t begin, end;
} span;

typedef struct strbuf { /* the storage that a growing string appends to in place */
    char *data;
    size_t used, cap;
} strbuf;

typedef struct str {
    const char *p;
    size_t n;
    size_t n_cp; /* code points; SIZE_MAX: not counted yet */
    const span *user;
    size_t n_user;
    strbuf *own; /* or NULL */
    bool markup; /* made by |safe or |escape */
} str;

typedef struct val {
    vtype t;
    union {
        bool b;
        int64_t i;
        double f;
        str *s;
        struct list *l; /* V_LIST, V_TUPLE */
        struct dict *d; /* V_DICT, V_NS */
        struct range *r;
        struct view *view;
        struct iter *it;
        struct undef *u; /* may be NULL */
        struct loop *loop;
        struct macro *macro;
        const struct func *fn;
        struct method *method;
        struct joiner *joiner;
        struct cycler *cycler;
    };
} val;

typedef struct list {
    val *v;
    size_t n, cap;
    bool group; /* a tuple of groupby: has .grouper and .list */
} list;

typedef struct entry {
    val key, value;
    uint64_t hash;
} entry;
typedef struct dict { /* insertion-ordered; nothing is ever removed */
    entry *e;
    size_t n, cap;
    uint32_t *index; /* entry number + 1; NULL while small */
    size_t n_index;
} dict;

typedef struct range {
    int64_t start, stop, step;
    size_t n;
} range;
typedef enum view_kind { VIEW_KEYS, VIEW_VALUES, VIEW_ITEMS } view_kind;
typedef struct view {
    dict *d;
    view_kind kind;
} view;
typedef struct undef {
    const char *msg; /* what to say when it is used */
} undef;
typedef struct joiner {
    str *sep;
    bool used;
} joiner;
typedef struct cycler {
    list *items;
    size_t pos;
} cycler;

/* The arguments of a call. */
typedef struct kwarg {
    str *name;
    val v;
} kwarg;
typedef struct args {
    val *v;
    size_t n;
    kwarg *kw;
    size_t n_kw;
} args;
typedef val (*func_fn)(env *e, val self, const args *a);
typedef struct func {
    const char *name;
    func_fn fn;
} func;
typedef struct method {
    val self;
    const func *fn;
} method;

typedef struct iter iter;
struct iter {
    bool (*next)(env *e, iter *it, val *out);
    val src;
    size_t i;
    iter *in;
    void *state;
};

#define NONE_VAL    ((val){.t = V_NONE})
#define MISSING_VAL ((val){.t = V_MISSING})
static inline val bool_val(bool b) {
    return (val){.t = V_BOOL, .b = b};
}
static inline val int_val(int64_t i) {
    return (val){.t = V_INT, .i = i};
}
static inline val float_val(double f) {
    return (val){.t = V_FLOAT, .f = f};
}
static inline val str_val(str *s) {
    return (val){.t = V_STR, .s = s};
}
static inline val list_val(list *l) {
    return (val){.t = V_LIST, .l = l};
}
static inline val tuple_val(list *l) {
    return (val){.t = V_TUPLE, .l = l};
}
static inline val dict_val(dict *d) {
    return (val){.t = V_DICT, .d = d};
}
static inline val iter_val(iter *it) {
    return (val){.t = V_ITER, .it = it};
}
static inline bool is_intlike(val v) {
    return v.t == V_INT || v.t == V_BOOL;
}
static inline bool is_number(val v) {
    return v.t == V_INT || v.t == V_BOOL || v.t == V_FLOAT;
}
static inline int64_t as_int(val v) {
    return v.t == V_BOOL ? v.b : v.i;
}
static inline double as_float(val v) {
    return v.t == V_FLOAT ? v.f : (double)as_int(v);
}
val undef_val(env *e, const char *fmt, ...) PRINTF_LIKE(2, 3);
_Noreturn void fail_undef(env *e, val v);
const char *type_name(val v); /* as Python names it */

/* ---- strings (str.c) ---- */

str *str_new(env *e, const char *p, size_t n, bool user); /* p is not copied */
str *str_lit(env *e, const char *z);                      /* trusted, not copied */
str *str_copy(env *e, const char *p, size_t n, bool user);
val lit_val(env *e, const char *z);
size_t str_len(env *e, str *s); /* code points */
/* Bytes [b, e2) of s, origins kept. */
str *str_sub(env *e, const str *s, size_t b, size_t e2);
str *str_concat(env *e, str *a, str *b);
/* Byte offset of code point i (i may equal the length). */
size_t str_offset(env *e, str *s, size_t i);
/* First / last occurrence of needle in bytes [from, to); SIZE_MAX if none. Counts steps. */
size_t str_find(env *e, const str *s, const str *needle, size_t from, size_t to);
size_t str_rfind(env *e, const str *s, const str *needle, size_t from, size_t to);
bool str_eq(const str *a, const str *b);
bool str_is(const str *a, const char *z);
int str_cmp(const str *a, const str *b);
bool str_user_at(const str *s, size_t i);            /* is byte i the user's */
bool str_user_in(const str *s, size_t b, size_t e2); /* is any byte of [b, e2) */
bool str_any_user(const str *s);
/* Decodes the character at byte i, returns its length (an invalid byte counts as one character). */
int str_char(const str *s, size_t i, uint32_t *cp);

typedef struct sb { /* a string under construction */
    env *e;
    char *p;
    size_t n, cap;
    span *user;
    size_t n_user, cap_user;
} sb;
static inline sb sb_new(env *e) {
    return (sb){.e = e};
}
void sb_add(sb *b, const char *p, size_t n, bool user);
void sb_puts(sb *b, const char *z);
void sb_cp(sb *b, uint32_t cp, bool user);
void sb_str(sb *b, const str *s);
void sb_sub(sb *b, const str *s, size_t begin, size_t end);
/* With what escape writes (to, empty before) in place of those characters for which it writes something; that is the user's
 * where the character is. how: escape's. */
typedef void sb_escape(char to[16], uint32_t cp, int how);
void sb_escaped(sb *b, const str *s, sb_escape *escape, int how);
void sb_repeat(sb *b, const str *s, size_t times);
str *sb_done(sb *b);

/* ---- Unicode (text.c), as Python's str does it ---- */

bool uc_space(uint32_t cp);
bool uc_linebreak(uint32_t cp);
bool uc_printable(uint32_t cp);
bool uc_alpha(uint32_t cp);
bool uc_decimal(uint32_t cp);
bool uc_digit(uint32_t cp);
bool uc_numeric(uint32_t cp);
bool uc_upper(uint32_t cp);
bool uc_lower(uint32_t cp);
bool uc_title(uint32_t cp);
bool uc_word(uint32_t cp); /* \w */
typedef enum case_op { CASE_UPPER, CASE_LOWER, CASE_TITLE, CASE_CAPITALIZE, CASE_SWAP, CASE_FOLD } case_op;
str *str_case(env *e, const str *s, case_op op);
str *str_strip(env *e, const str *s, const str *chars, bool left, bool right); /* chars NULL: whitespace */
str *str_html_escape(env *e, const str *s);
str *str_replace(env *e, str *s, str *from, str *to, int64_t max); /* max < 0: all (methods.c) */
bool str_all_cased(env *e, const str *s, bool upper);              /* isupper, islower */

/* ---- containers and comparison (value.c) ---- */

list *list_new(env *e, size_t cap);
void list_push(env *e, list *l, val v);
val tuple2(env *e, val a, val b);
dict *dict_new(env *e);
val *dict_find(env *e, const dict *d, val key); /* NULL if absent; fails on an unhashable key */
val *dict_find_z(env *e, const dict *d, const char *z);
void dict_put(env *e, dict *d, val key, val value);
bool val_hashable(val v);
bool val_truth(env *e, val v);
bool val_eq(env *e, val a, val b);
/* Order by <; fails when the types have none. op is for the message. Returns <0, 0, >0; *nan is set when a
 * NaN makes every comparison false. */
int val_cmp(env *e, val a, val b, const char *op, bool *nan);
bool val_in(env *e, val needle, val hay);
bool val_len(env *e, val v, size_t *n); /* false: has no length */
bool val_same(val a, val b);            /* Python's `is` */

/* ---- iteration (iter.c) ---- */

bool val_iterable(val v);
iter *iter_of(env *e, val v); /* fails when v cannot be walked */
static inline bool iter_next(env *e, iter *it, val *out) {
    env_step(e, 1);
    return it->next(e, it, out);
}
list *val_list(env *e, val v); /* a fresh list of v's items */
iter *iter_list(env *e, list *l);
iter *iter_reversed(env *e, val v); /* fails when v has no reverse */

/* ---- text of values (repr.c, json.c) ---- */

void put_str(sb *b, val v);  /* str(v) */
void put_repr(sb *b, val v); /* repr(v) */
str *val_str(env *e, val v);
str *val_repr(env *e, val v);
str *val_ascii(env *e, val v); /* repr, with escapes for all but ASCII */
void put_float(sb *b, double f);
typedef struct json_style {
    bool ensure_ascii, sort_keys;
    const str *indent; /* NULL: one line */
    const str *item_sep, *key_sep;
} json_style;
void put_json(sb *b, val v, const json_style *style);

/* ---- numbers (num.c) ---- */

val num_binary(env *e, char op, val a, val b); /* + - * / 'f' (floor) % 'p' (power), all types */
val num_neg(env *e, val a);
val num_pos(env *e, val a);
bool parse_int_text(const str *s, int base, int64_t *out, bool *overflow); /* Python's int(text, base) */
bool parse_float_text(env *e, const str *s, double *out);
val float_to_int(env *e, double f);
val num_round(env *e, val v, int64_t digits, bool has_digits);

/* ---- formatting (format.c, strformat.c) ---- */

str *format_percent(env *e, str *fmt, val arg);                       /* fmt % arg */
str *format_braces(env *e, str *fmt, const args *a);                  /* fmt.format(...) */
val format_map_args(env *e, str *fmt, val mapping);                   /* fmt.format_map(mapping) */
void put_float_fixed(sb *b, double f, char conv, int prec, bool alt); /* %e %f %g as Python writes them */

/* ---- attributes and calls (attr.c, call.c) ---- */

val get_attr(env *e, val obj, str *name);
val get_item(env *e, val obj, val key);
val get_slice(env *e, val obj, val start, val stop, val step);
val call_value(env *e, val fn, const args *a);
bool val_callable(val v);
const func *str_method(const str *name);
const func *seq_method(vtype t, const str *name);
/* Mutators, which the sandbox refuses. */
bool is_mutator(vtype t, const str *name);

func_fn find_filter(const str *name);
func_fn find_test(const str *name);
val call_filter(env *e, const str *name, val v, const args *a);
bool call_test(env *e, const str *name, val v, const args *a);
const func *find_global(const str *name);

/* Binds arguments to parameters: names[0..n_max), the first n_req must be given. Unset: V_MISSING. */
void bind_args(env *e, const char *fn, const args *a, const char *const *names, size_t n_req, size_t n_max,
               val *out);
/* The same for positional-only parameters. */
void bind_pos(env *e, const char *fn, const args *a, size_t n_req, size_t n_max, val *out);
int64_t need_int(env *e, val v, const char *what);
str *need_str(env *e, val v, const char *what);

#endif
