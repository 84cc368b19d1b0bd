/* pace.h - how much encode and prefill a turn may carry while somebody decodes.
 *
 * A stream's inter-token latency is the turn's length, so what a turn does beside its decode rows is bounded by the
 * time that a step of these rows alone would take: a turn is at most about twice that. Pictures and prefill have half
 * of it each; what one does not want is the other's. A slice or a row that is longer than its share waits until the
 * shares of some turns together pay for it, so both always progress.
 *
 * A step's time is predicted as fixed_s + row_s * rows. Steps of decode rows alone correct fixed_s; all others correct
 * both by normalised least mean squares (Haykin, Adaptive Filter Theory), many rows more of row_s. Where work never ends
 * every sixteenth turn carries none, for without a step of decode rows alone nobody knows what it takes. The prediction
 * starts small, follows a machine that changes its speed, and takes no outlier for more than a doubling.
 *
 * No clock and no thread of its own. Threads: the engine's. Tested by tests/engine/sched/test_pace.c. */
#ifndef VLMD_ENGINE_PACE_H
#define VLMD_ENGINE_PACE_H

#include <stdbool.h>

typedef struct pace {
    double fixed_s, row_s; /* the prediction; both 0: no step yet */
    double slice_s;        /* what a slice took lately */
    int tried_rows;        /* of the largest step lately */
    /* of this turn */
    int n_decode, n_mixed;      /* turns since the last step of decode rows alone */
    bool probe;                 /* it is to carry decode rows alone */
    double budget_s, spent_s;   /* for all that is not decode; by pictures so far */
    double encode_s, prefill_s; /* what either may still use; what is left is carried to the next turn */
} pace;

/* After a step of so many rows (at least 1). */
void pace_step_took(pace *p, int rows, double seconds);
/* Seconds of a step; 0 before the first. */
double pace_predict(const pace *p, int rows);

/* A turn begins: n_decode rows of streams; does any sequence have prefill rows to run? */
void pace_begin(pace *p, int n_decode, bool prefill_waits);
/* May one slice more run? The first of all always may. */
bool pace_may_encode(const pace *p);
void pace_slice_took(pace *p, double seconds);
/* After the slices: how many prefill rows beside the decode rows, at most max_rows. encode_waits: pictures remain. */
int pace_prefill_rows(pace *p, int max_rows, bool encode_waits);

#endif
