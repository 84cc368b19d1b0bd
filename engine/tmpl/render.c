/* render.c - tmpl_render: JSON variables in, text and the user's spans of it out. See tmpl.h.
 * One thread a render; the pool of a render is given back before it returns. Tested by tests/engine/tmpl/. */
#include <string.h>

#include "engine/tmpl/eval.h"

const tmpl_limits TMPL_LIMITS_DEFAULT = {
    .max_output_bytes = (size_t)64 << 20, .max_steps = 50000000, .max_depth = 100};

void tmpl_out_fini(tmpl_out *o) {
    buf_fini(&o->text);
    mem_free(o->user);
    *o = (tmpl_out){0};
}

/* ---- JSON to values: strings are not copied, the caller's JSON outlives the render ---- */

static val from_json(env *e, const json_t *j, bool user);

static val mixed_string(env *e, const json_t *parts) {
    sb b = sb_new(e);
    size_t i;
    json_t *part;
    if (!json_is_array(parts)) fail(e, "a string of mixed origin must be a list of parts");
    json_array_foreach(parts, i, part) {
        const json_t *text = json_is_object(part) ? json_object_get(part, "trusted") : part;
        if (!json_is_string(text)) fail(e, "a part of a string of mixed origin must be a string");
        sb_add(&b, json_string_value(text), json_string_length(text), text == part);
    }
    return str_val(sb_done(&b));
}

static val from_object(env *e, const json_t *j, bool user) {
    json_t *obj = (json_t *)j;
    const json_t *parts = user ? json_object_get(obj, TMPL_MIXED) : NULL;
    if (parts && json_object_size(obj) == 1) return mixed_string(e, parts);
    dict *d = dict_new(e);
    for (void *it = json_object_iter(obj); it; it = json_object_iter_next(obj, it)) {
        const char *k = json_object_iter_key(it);
        dict_put(e, d, str_val(str_new(e, k, json_object_iter_key_len(it), user)),
                 from_json(e, json_object_iter_value(it), user));
    }
    return dict_val(d);
}

static val from_json(env *e, const json_t *j, bool user) {
    env_step(e, 1);
    env_enter(e);
    val v = NONE_VAL;
    switch (json_typeof(j)) {
    case JSON_OBJECT: v = from_object(e, j, user); break;
    case JSON_ARRAY: {
        list *l = list_new(e, json_array_size(j));
        for (size_t i = 0; i < json_array_size(j); i++)
            list_push(e, l, from_json(e, json_array_get(j, i), user));
        v = list_val(l);
        break;
    }
    case JSON_STRING: v = str_val(str_new(e, json_string_value(j), json_string_length(j), user)); break;
    case JSON_INTEGER: v = int_val(json_integer_value(j)); break;
    case JSON_REAL: v = float_val(json_real_value(j)); break;
    case JSON_TRUE: v = bool_val(true); break;
    case JSON_FALSE: v = bool_val(false); break;
    case JSON_NULL: break;
    }
    env_leave(e);
    return v;
}

bool tmpl_json_has_mixed(const json_t *j) {
    /* A list instead of recursion: the depth is the sender's choice, though jansson bounds it. */
    if (json_is_object(j)) {
        json_t *obj = (json_t *)j;
        for (void *it = json_object_iter(obj); it; it = json_object_iter_next(obj, it))
            if (json_object_iter_key(it)[0] == TMPL_MIXED[0] ||
                tmpl_json_has_mixed(json_object_iter_value(it)))
                return true;
    } else if (json_is_array(j)) {
        for (size_t i = 0; i < json_array_size(j); i++)
            if (tmpl_json_has_mixed(json_array_get(j, i))) return true;
    }
    return false;
}

/* ---- rendering ---- */

static val context_var(env *e, const str *name, const json_t *trusted, const json_t *user) {
    const json_t *j = json_object_getn(user, name->p, name->n);
    if (j) return from_json(e, j, true);
    j = json_object_getn(trusted, name->p, name->n);
    if (j) return from_json(e, j, false);
    const func *fn = find_global(name);
    return fn ? (val){.t = V_FUNC, .fn = fn} : MISSING_VAL;
}

static bool render_into(env *e, sb *out, const json_t *trusted, const json_t *user) {
    if (setjmp(e->on_error)) return false;
    const tmpl *t = e->run->t;
    e->run->context = env_array(e, (size_t)t->n_syms, sizeof(val));
    for (int i = 0; i < t->n_syms; i++) e->run->context[i] = context_var(e, t->syms[i], trusted, user);
    e->run->root = frame_new(e, NULL);
    exec(e, e->run->root, &t->body, out);
    return true;
}

bool tmpl_render(const tmpl *t, const json_t *trusted_vars, const json_t *user_vars,
                 const tmpl_limits *limits, tmpl_out *out, status *st) {
    const tmpl_limits *l = limits ? limits : &TMPL_LIMITS_DEFAULT;
    status local = {0};
    /* A render may hold its output twice (a builder grows by doubling) and intermediate strings. */
    tmpl_pool mem = {.max_bytes = 3 * l->max_output_bytes + ((size_t)64 << 20)};
    render run = {.t = t};
    env e = {.mem = &mem,
             .st = &local,
             .max_steps = l->max_steps,
             .max_str_bytes = l->max_output_bytes,
             .max_nesting = 20 * l->max_depth,
             .max_calls = l->max_depth,
             .run = &run};
    sb text = sb_new(&e);
    bool ok = render_into(&e, &text, trusted_vars, user_vars);
    if (ok) {
        buf_clear(&out->text);
        out->n_user = 0;
        ok = buf_append(&out->text, text.p, text.n);
        if (ok && text.n_user > out->cap_user) {
            void *p = mem_realloc(out->user, text.n_user * sizeof *out->user);
            ok = p != NULL;
            if (ok) {
                out->user = p;
                out->cap_user = text.n_user;
            }
        }
        if (!ok) status_set(&local, ST_NO_MEMORY, "no memory for the rendered prompt");
    }
    for (size_t i = 0; ok && i < text.n_user; i++) {
        out->user[i].begin = text.user[i].begin;
        out->user[i].end = text.user[i].end;
        out->n_user = i + 1;
    }
    tmpl_pool_free(&mem);
    if (!ok && st && st->code == ST_OK) *st = local;
    return ok;
}
