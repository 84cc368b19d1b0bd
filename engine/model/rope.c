/* rope.c - rotary frequencies of every scaling rule, as the reference library's modeling_rope_utils computes them.
 *
 * Pure. Tested by tests/engine/model/test_rope.c. */
#include <math.h>

#include "engine/model/impl.h"

/* The dimension at which a wave makes `turns` turns over len positions. */
static double turning_dim(double turns, const rope_spec *r) {
    return r->dims * log(r->max_pos / (turns * 2 * M_PI)) / (2 * log((double)r->theta));
}

static double magnitude(double scale, double m) {
    return scale <= 1 ? 1 : 0.1 * m * log(scale) + 1;
}

static void by_ramp(const rope_spec *r, float *f, float *attention_factor) {
    double low = turning_dim(r->beta_fast, r), high = turning_dim(r->beta_slow, r);
    if (r->truncate) {
        low = floor(low);
        high = ceil(high);
    }
    if (low < 0) low = 0;
    if (high > r->dims - 1) high = r->dims - 1;
    if (low == high) high += 0.001;
    for (int i = 0; i < r->dims / 2; i++) {
        double ramp = (i - low) / (high - low);
        ramp = ramp < 0 ? 0 : ramp > 1 ? 1 : ramp;
        f[i] = (float)(f[i] / r->factor * ramp + f[i] * (1 - ramp));
    }
    if (r->attention_factor > 0)
        *attention_factor = r->attention_factor;
    else if (r->mscale > 0 && r->mscale_all_dim > 0)
        *attention_factor =
            (float)(magnitude(r->factor, r->mscale) / magnitude(r->factor, r->mscale_all_dim));
    else
        *attention_factor = (float)magnitude(r->factor, 1);
}

static void by_wavelength(const rope_spec *r, float *f) {
    double low = r->max_pos / (double)r->low_freq_factor, high = r->max_pos / (double)r->high_freq_factor;
    for (int i = 0; i < r->dims / 2; i++) {
        double wave = 2 * M_PI / f[i];
        if (wave > low) {
            f[i] = f[i] / r->factor;
        } else if (wave >= high) {
            double smooth =
                (r->max_pos / wave - r->low_freq_factor) / (r->high_freq_factor - r->low_freq_factor);
            f[i] = (float)((1 - smooth) * f[i] / r->factor + smooth * f[i]);
        }
    }
}

void rope_frequencies(const rope_spec *r, float *f, float *attention_factor) {
    *attention_factor = 1;
    int anew = r->axes > 1 && r->deal == ROPE_SPATIAL ? r->axes : 1, pairs = r->dims / 2 / anew;
    for (int i = 0; i < r->dims / 2; i++)
        f[i] = (float)(1 / pow((double)r->theta, 2.0 * (i % pairs) * anew / r->dims));
    switch (r->kind) {
    case ROPE_NONE:
    case ROPE_DEFAULT:
    case ROPE_DYNAMIC: /* stretched per row by op_rope_table */ break;
    case ROPE_LINEAR:
        for (int i = 0; i < r->dims / 2; i++) f[i] /= r->factor;
        break;
    case ROPE_LLAMA3: by_wavelength(r, f); break;
    case ROPE_YARN: by_ramp(r, f, attention_factor); break;
    }
}

/* Of the sections, in turn. */
static int section_of(const rope_spec *r, int pair) {
    int a = 0;
    for (int end = r->section[0]; pair >= end && a + 1 < r->axes; end += r->section[a]) a++;
    return a;
}

bool rope_axes(const rope_spec *r, float *axis) {
    if (r->axes <= 1) return false;
    for (int i = 0; i < r->dims / 2; i++) {
        int a = i % r->axes;
        switch (r->deal) {
        case ROPE_SECTIONS: a = section_of(r, i); break;
        case ROPE_INTERLEAVED: a = i < r->axes * r->section[a] ? a : 0; break;
        case ROPE_SPATIAL: a = i / (r->dims / 2 / r->axes); break;
        }
        axis[i] = (float)a;
    }
    return true;
}
