/* wanted.c - see wanted.h. Thread: any. Owns nothing. */
#include "engine/model/wanted.h"

#include <stdio.h>
#include <string.h>

#include "engine/model/impl.h"

typedef struct list {
    const model_spec *s;
    const name_sheet *sheet;
    wanted_fn *f;
    void *arg;
    status *st;
} list;

/* form: "%d" is the number; "^T" at the end: transposed. */
static bool give(const list *l, wanted *w, const char *form, int number) {
    CHECK(w->in && w->in[0] && form);
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
    int n = snprintf(w->name, sizeof w->name, form, number);
#pragma GCC diagnostic pop
    CHECK(n > 0 && n < (int)sizeof w->name);
    w->transposed = n > 2 && strcmp(w->name + n - 2, "^T") == 0;
    if (w->transposed) {
        CHECK(w->nd == 2);
        w->name[n - 2] = 0;
        int64_t in = w->d[1];
        w->d[1] = w->d[0];
        w->d[0] = in;
    }
    return l->f(l->arg, w, l->st);
}

static bool alone(const list *l) {
    const model_spec *s = l->s;
    const name_sheet *n = l->sheet;
    const text_names *text = s->text.names;
    for (int i = 0; i < S_COUNT; i++) {
        wanted w = {.part = WANTED_ALONE, .slot = i};
        w.nd = slot_shape(s, (slot)i, w.d, &w.use);
        if (!w.nd) continue;
        bool linear = s->join.kind == JOIN_LINEAR && (i == S_FC1_W || i == S_FC1_B);
        w.in = i >= S_FIRST_HEAD   ? n->head_at
               : linear            ? n->linear_at
               : i >= S_FIRST_TEXT ? n->text_at
               : i >= S_FIRST_JOIN ? n->join_at
                                   : n->tower_at;
        if (i == S_EMBED && s->text.tied && !s->dual.on) /* the one table may stand under the head's name */
            w.else_in = n->head_at, w.else_name = text->names[S_HEAD];
        if (i == S_HEAD_B && s->text.tied_bias) w.else_in = n->head_at, w.else_name = text->tied_bias;
        const char *name = linear              ? i == S_FC1_W ? "weight" : "bias"
                           : i >= S_FIRST_TEXT ? text->names[i]
                                               : n->names[i];
        if (!give(l, &w, name, 0)) return false;
    }
    return true;
}

/* Where the names of a stack's layers are written, by what kind of layer it is. */
typedef struct layer_names {
    const char *const *all, *const *cross, *const *tail;
    int tail_from;
} layer_names;

/* Layers from `from` on and before i that are of its kind. */
static int count_like(const stack_spec *s, int from, int i) {
    int n = 0;
    for (int k = from; k < i; k++) n += s->cross[k] == s->cross[i];
    return n;
}

static bool layers(const list *l, wanted_part part, const stack_spec *s, int n, const char *const *in,
                   layer_names names) {
    for (int i = 0; i < n; i++)
        for (int k = 0; k < L_COUNT; k++) {
            wanted w = {.part = part, .at = i, .slot = k, .stack = s, .in = in};
            w.nd = layer_slot_shape(s, i, (layer_slot)k, w.d, &w.use);
            if (!w.nd) continue;
            bool tail = names.tail && i >= names.tail_from;
            const char *const *form = s->cross[i] && names.cross ? names.cross
                                      : tail                     ? names.tail
                                                                 : names.all;
            if (!give(l, &w, form[k], tail ? count_like(s, names.tail_from, i) : i)) return false;
        }
    return true;
}

static bool deep(const list *l) {
    const deep_spec *s = &l->s->deep;
    for (int i = 0; i < s->n; i++)
        for (int k = S_FIRST_JOIN; k < S_FIRST_JOIN + JOIN_SLOTS; k++) {
            wanted w = {.part = WANTED_DEEP, .at = i, .slot = k, .in = l->sheet->tower_at};
            w.nd = join_slot_shape(&s->join, (slot)k, w.d, &w.use);
            if (w.nd && !give(l, &w, l->sheet->deep[k - S_FIRST_JOIN], s->which[i])) return false;
        }
    return true;
}

static bool dual(const list *l) {
    for (int i = 0; i < DUAL_COUNT && l->s->dual.on; i++) {
        wanted w = {.part = WANTED_DUAL, .slot = i, .in = l->sheet->dual_at};
        w.nd = dual_slot_shape(l->s, (dual_slot)i, w.d, &w.use);
        if (w.nd && !give(l, &w, l->sheet->dual[i], 0)) return false;
    }
    return true;
}

bool wanted_each(const model_spec *s, const name_sheet *n, wanted_fn *f, void *arg, status *st) {
    list l = {s, n, f, arg, st};
    const text_names *text = s->text.names;
    return alone(&l) &&
           layers(&l, WANTED_TOWER, &s->tower.stack, s->tower.run_layers, n->tower_at,
                  (layer_names){
                      .all = n->tower_layer, .tail = n->tower_tail, .tail_from = s->tower.tail_from}) &&
           layers(&l, WANTED_JOIN, &s->join.stack, s->join.stack.n_layers, n->join_at,
                  (layer_names){.all = n->join_layer}) &&
           layers(&l, WANTED_TEXT, &s->text.stack, s->text.stack.n_layers, n->text_at,
                  (layer_names){.all = text->layer,
                                .cross = text->cross,
                                .tail = text->tail,
                                .tail_from = s->text.tail_from}) &&
           deep(&l) && dual(&l);
}
