/* pace.c - see pace.h. */
#include "engine/pace.h"

/* With nobody decoding: short enough to notice who arrives, long enough to lose nothing (a linear op takes rows 128 at
 * a time). */
static const double ENCODE_IDLE_S = 0.05, PREFILL_IDLE_S = 0.5;
enum { PREFILL_IDLE_ROWS = 128 };

static const double GAIN = 0.25;      /* of an error, what the next prediction is corrected by */
static const double BALANCE_ROWS = 4; /* a step of so many rows corrects fixed_s and row_s alike */
static const double LEAST_SHARE =
    0.25; /* of that time, for what else there is, however slow the step is beside it */
enum { MIXED_TURNS = 28, PROBES = 2 }; /* at most, between turns to measure in; how many of these */
static const double SLICE_GAIN = 0.25; /* of a slice's time, in its running mean */

static double least(double a, double b) {
    return a < b ? a : b;
}
static double most(double a, double b) {
    return a > b ? a : b;
}

double pace_predict(const pace *p, int rows) {
    return p->fixed_s + p->row_s * rows;
}

/* A value that is learned moves towards what was seen; an outlier counts for a doubling. */
static double step_to(double value, double seen) {
    return GAIN * least(seen - value, value);
}

bool pace_is_plain(const pace *p, int rows) {
    return rows == p->n_decode && p->spent_s <= 0;
}

void pace_step_took(pace *p, int rows, bool plain, double seconds) {
    double guess = pace_predict(p, rows), x = rows / BALANCE_ROWS;
    bool again = plain && p->plain;
    p->plain = plain;
    p->n_mixed = again ? 0 : p->n_mixed + 1;
    p->tried_rows -= p->tried_rows / 8;
    if (p->tried_rows < rows) p->tried_rows = rows;
    if (guess <= 0) {
        p->row_s = seconds / rows;
    } else if (!again) {
        if (plain) x = 0;
        double error = step_to(guess, seconds) / (1 + x * x);
        p->fixed_s = most(0, p->fixed_s + error);
        p->row_s = most(0, p->row_s + error * x / BALANCE_ROWS);
    } else {
        p->alone_s = p->alone_rows == rows ? p->alone_s + step_to(p->alone_s, seconds) : seconds;
        p->alone_rows = rows;
    }
}

/* Seconds of a step of the decode rows when nothing else runs. */
static double alone(const pace *p) {
    double guess = pace_predict(p, p->n_decode);
    if (p->alone_s <= 0 || p->alone_rows == p->n_decode) return p->alone_s > 0 ? p->alone_s : guess;
    double then = pace_predict(p, p->alone_rows);
    return then > 0 ? p->alone_s * guess / then : p->alone_s;
}

static double decode_budget(const pace *p) {
    double t = alone(p), left = 2 * t - pace_predict(p, p->n_decode);
    return least(t, most(left, t * LEAST_SHARE));
}

void pace_begin(pace *p, int n_decode, bool prefill_waits) {
    p->n_decode = n_decode;
    p->spent_s = 0;
    if (p->probe > 0) p->probe--;
    if (p->n_mixed >= MIXED_TURNS) {
        p->probe = PROBES;
        p->n_mixed = 0;
    }
    if (!n_decode) p->probe = 0;
    p->budget_s = n_decode ? decode_budget(p) : ENCODE_IDLE_S;
    double carried = n_decode ? most(0, least(p->encode_s, p->slice_s)) : 0;
    p->encode_s = carried + (n_decode && prefill_waits ? p->budget_s / 2 : p->budget_s);
}

bool pace_may_encode(const pace *p) {
    return p->probe ? false : p->n_decode ? p->encode_s >= p->slice_s : p->encode_s > 0;
}

static void spend(pace *p, double seconds) {
    p->spent_s += seconds;
    p->encode_s -= seconds;
}

static void learn_slice(pace *p, double seconds) {
    p->slice_s += (p->slice_s > 0 ? SLICE_GAIN : 1) * (seconds - p->slice_s);
}

void pace_slice_took(pace *p, double seconds) {
    spend(p, seconds);
    learn_slice(p, seconds);
}

void pace_slice_launched(pace *p) {
    spend(p, p->slice_s);
}

void pace_slices_took(pace *p, int n, double seconds) {
    learn_slice(p, seconds / n);
}

static int rows_of(double seconds, double row_s, int max_rows) {
    return seconds >= row_s * max_rows ? max_rows : (int)(seconds / row_s);
}

int pace_prefill_rows(pace *p, int max_rows, bool encode_waits) {
    if (!encode_waits) p->encode_s = 0;
    if (!p->n_decode) {
        int n = rows_of(PREFILL_IDLE_S, p->row_s, max_rows);
        p->prefill_s = 0;
        return n >= PREFILL_IDLE_ROWS ? n : max_rows < PREFILL_IDLE_ROWS ? max_rows : PREFILL_IDLE_ROWS;
    }
    if (p->probe) return 0;
    /* Never more than twice what was tried lately, so that a wrong row_s is found out before it hurts. */
    int bound = 2 * p->tried_rows - p->n_decode;
    if (bound < 1) bound = 1;
    if (max_rows > bound) max_rows = bound;
    double used = encode_waits ? most(p->budget_s / 2, p->spent_s) : p->spent_s;
    p->prefill_s = least(p->prefill_s, p->row_s) + most(0, p->budget_s - used);
    int n = p->prefill_s > 0 ? rows_of(p->prefill_s, p->row_s, max_rows) : 0;
    p->prefill_s -= n * p->row_s;
    return n;
}

void pace_overdrawn(pace *p, int rows) {
    if (p->n_decode) p->prefill_s -= rows * p->row_s;
}
