/* dual_bind.c - a dual encoder's own parameters: their shapes, and the rule that two of them are.
 *
 * Thread: the loader's. The model owns what is made here. */
#include <math.h>

#include "engine/model/dual.h"
#include "engine/model/impl.h"

int dual_slot_shape(const model_spec *s, dual_slot which, int64_t d[4], unsigned *use) {
    const stack_spec *t = &s->tower.stack;
    int64_t text = s->text.stack.width, width = s->dual.width, w = t->width;
    bool probe = s->dual.head == DUAL_HEAD_PROBE, on = true;
    int nd = 2;
    *use = WEIGHT_LINEAR;
    switch (which) {
    case DUAL_TEXT_W: d[0] = width, d[1] = text; break;
    case DUAL_TEXT_B: d[0] = width, nd = 1, on = s->dual.text_bias; break;
    case DUAL_IMAGE_W: d[0] = width, d[1] = w, on = !probe; break;
    case DUAL_PROBE: d[0] = d[1] = 1, d[2] = w, nd = 3, on = probe, *use = WEIGHT_TABLE; break;
    case DUAL_Q_W:
    case DUAL_K_W:
    case DUAL_V_W:
    case DUAL_O_W: d[0] = d[1] = w, on = probe; break;
    case DUAL_UP_W: d[0] = t->ffn, d[1] = w, on = probe; break;
    case DUAL_UP_B: d[0] = t->ffn, nd = 1, on = probe; break;
    case DUAL_DOWN_W: d[0] = w, d[1] = t->ffn, on = probe; break;
    case DUAL_Q_B:
    case DUAL_K_B:
    case DUAL_V_B:
    case DUAL_O_B:
    case DUAL_NORM_G:
    case DUAL_NORM_B:
    case DUAL_DOWN_B: d[0] = w, nd = 1, on = probe; break;
    case DUAL_SCALE: d[0] = 1, nd = 1; break;
    case DUAL_BIAS: d[0] = 1, nd = 1, on = s->dual.sigmoid; break;
    case DUAL_COUNT: on = false; break;
    }
    if (!on) return 0;
    if (nd == 1) *use = WEIGHT_VECTOR;
    return nd;
}

static bool make_rule(model *m, const plan *p, dual_rule *r, status *st) {
    const tensor *offset = plan_find(p, WANTED_DUAL, 0, DUAL_BIAS);
    double scale = (double)tensor_host_number(plan_find(p, WANTED_DUAL, 0, DUAL_SCALE), 0);
    double bias = offset->nd ? (double)tensor_host_number(offset, 0) : 0;
    *r = (dual_rule){.scale = exp(scale), .bias = bias, .sigmoid = m->spec.dual.sigmoid};
    if (isfinite(r->scale) && isfinite(r->bias)) return true;
    return status_set(st, ST_INVALID, "the scale of the logits is exp(%g), their bias %g", scale, bias);
}

bool dual_make(model *m, const plan *p, status *st) {
    m->dual = mem_calloc(1, sizeof *m->dual);
    if (!m->dual) return status_set(st, ST_NO_MEMORY, "no memory for a model");
    return make_rule(m, p, &m->dual->rule, st);
}

void dual_free(model *m) {
    if (!m->dual) return;
    for (int i = 0; i < DUAL_COUNT; i++) weight_free(m->dual->w[i]);
    mem_free(m->dual);
}
